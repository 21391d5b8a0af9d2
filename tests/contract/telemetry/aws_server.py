"""AWS' JSON protocols for CloudWatch, Logs and X-Ray, as far as they are documented and moto leaves them out.

boto3 talks to it over HTTP as it would to AWS. ``actions`` are the IAM actions that were asked for.
"""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pytest
from aiohttp import web
from botocore.loaders import create_loader

from tests.contract.telemetry.faults import SAID

ACCOUNT = "111122223333"
REFUSAL = json.dumps({"__type": "com.amazonaws.service#AccessDeniedException", "message": SAID})
Dimensions = tuple[tuple[str, str], ...]
_LOADER = create_loader()
"""botocore's descriptions of the APIs, read once and not for each client: they are most of a test's time."""


def use_test_credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    """boto3's chain finds these and nothing of the machine's own."""
    for name, value in {
        "AWS_ACCESS_KEY_ID": "testing",
        "AWS_SECRET_ACCESS_KEY": "testing",
        "AWS_CONFIG_FILE": "/nonexistent",
        "AWS_SHARED_CREDENTIALS_FILE": "/nonexistent",
        "AWS_EC2_METADATA_DISABLED": "true",
    }.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr("botocore.session.create_loader", lambda _path: _LOADER)
    for name in ("AWS_PROFILE", "AWS_REGION", "AWS_DEFAULT_REGION"):
        monkeypatch.delenv(name, raising=False)


class Refused(Exception):
    def __init__(self, code: str, message: str = SAID, status: int = 400) -> None:
        super().__init__(message)
        self.code, self.status = code, status


@dataclass
class LogGroup:
    events: list[tuple[int, str, str]] = field(default_factory=list)
    """Milliseconds, stream, message; oldest first."""


@dataclass
class InsightsQuery:
    rows: list[list[dict[str, str]]]
    polls_left: int
    stopped: bool = False


class FakeAws:
    """``app`` is to be served; the rest is what the account holds, and what was asked of it."""

    def __init__(self) -> None:
        self.actions: set[str] = set()
        self.requests: list[tuple[str, dict[str, Any]]] = []
        self.refuse: dict[str, Refused] = {}
        self.metrics: dict[tuple[str, str, Dimensions], dict[int, list[float]]] = {}
        self.expressions: dict[str, dict[int, float]] = {}
        self.forbidden: set[str] = set()
        self.listed_a_page = 500
        self.points_a_page = 100_800
        self.groups: dict[str, LogGroup] = {}
        self.events_a_page = 10_000
        self.polls = 0
        self.query_end = "Complete"
        self.queries: dict[str, InsightsQuery] = {}
        self.databases_gib: dict[str, int] = {}
        self.services: list[dict[str, Any]] = []
        self.services_a_page = 100
        self.traces: dict[str, list[dict[str, Any]]] = {}
        self.summaries_a_page = 100
        self.half_answer = False
        self.app = web.Application(client_max_size=2**24)
        self.app.router.add_post("/", self._target)
        for path, action in {
            "/ServiceGraph": "GetServiceGraph",
            "/TraceSummaries": "GetTraceSummaries",
            "/Traces": "BatchGetTraces",
        }.items():
            self.app.router.add_post(path, self._route("xray", action))

    def measure(
        self, namespace: str, metric: str, dimensions: Mapping[str, str], points: Mapping[datetime, Sequence[float]]
    ) -> None:
        """Raw values by the moment they were put."""
        series = self.metrics.setdefault((namespace, metric, tuple(sorted(dimensions.items()))), {})
        for at, values in points.items():
            series.setdefault(int(at.timestamp()), []).extend(values)

    def calls(self, action: str) -> list[dict[str, Any]]:
        return [body for name, body in self.requests if name == action]

    async def _target(self, request: web.Request) -> web.Response:
        if request.content_type == "application/x-www-form-urlencoded":
            return await self._query(request)
        prefix, _, action = request.headers.get("X-Amz-Target", "").partition(".")
        service = {"GraniteServiceVersion20100801": "cloudwatch", "Logs_20140328": "logs"}.get(prefix)
        if service is None:
            return _error(Refused("UnknownOperationException", f"no target {prefix!r}"))
        answer: web.Response = await self._route(service, action)(request)
        return answer

    async def _query(self, request: web.Request) -> web.Response:
        """RDS' older protocol: a form, answered in XML. One instance a page."""
        form = await request.post()
        action = str(form["Action"])
        self.actions.add(f"rds:{action}")
        self.requests.append((action, dict(form)))
        if action in self.refuse:
            refused = self.refuse[action]
            error = f"<Error><Type>Sender</Type><Code>{refused.code}</Code><Message>{refused}</Message></Error>"
            return web.Response(
                text=f"<ErrorResponse>{error}</ErrorResponse>", status=refused.status, content_type="text/xml"
            )
        names = sorted(self.databases_gib)
        at = names.index(str(form["Marker"])) if "Marker" in form else 0
        instances = "".join(
            f"<DBInstance><DBInstanceIdentifier>{name}</DBInstanceIdentifier>"
            f"<AllocatedStorage>{self.databases_gib[name]}</AllocatedStorage></DBInstance>"
            for name in names[at : at + 1]
        )
        marker = f"<Marker>{names[at + 1]}</Marker>" if at + 1 < len(names) else ""
        result = f"<{action}Result>{marker}<DBInstances>{instances}</DBInstances></{action}Result>"
        body = f'<{action}Response xmlns="http://rds.amazonaws.com/doc/2014-10-31/">{result}</{action}Response>'
        return web.Response(text=body, content_type="text/xml")

    def _route(self, service: str, action: str) -> Callable[[web.Request], Any]:
        async def answer(request: web.Request) -> web.Response:
            if "AWS4-HMAC-SHA256" not in request.headers.get("Authorization", ""):
                return _error(Refused("MissingAuthenticationTokenException", status=403))
            body = json.loads(await request.read() or b"{}")
            self.actions.add(f"{service}:{action}")
            self.requests.append((action, body))
            try:
                if action in self.refuse:
                    raise self.refuse[action]
                handler: Callable[[dict[str, Any]], dict[str, Any]] = getattr(self, f"_{action}")
                return web.json_response(handler(body))
            except Refused as refused:
                return _error(refused)

        return answer

    def _ListMetrics(self, body: dict[str, Any]) -> dict[str, Any]:
        if body.get("RecentlyActive", "PT3H") != "PT3H":
            raise Refused("InvalidParameterValue", "RecentlyActive takes PT3H")
        found = sorted(key for key in self.metrics if key[0] == body.get("Namespace", key[0]))
        start = int(body.get("NextToken", 0))
        page = found[start : start + self.listed_a_page]
        answer: dict[str, Any] = {
            "Metrics": [
                {
                    "Namespace": namespace,
                    "MetricName": metric,
                    "Dimensions": [{"Name": name, "Value": value} for name, value in dimensions],
                }
                for namespace, metric, dimensions in page
            ]
        }
        if start + len(page) < len(found):
            answer["NextToken"] = str(start + len(page))
        return answer

    def _GetMetricData(self, body: dict[str, Any]) -> dict[str, Any]:
        queries, start, end = body["MetricDataQueries"], body["StartTime"], body["EndTime"]
        if len(queries) > 500:
            raise Refused("ValidationError", "The collection MetricDataQueries must not have a size greater than 500.")
        if start >= end:
            raise Refused("ValidationError", "The parameter StartTime must be less than the parameter EndTime.")
        if not any(query.get("ReturnData", True) for query in queries):
            raise Refused("ValidationError", "At least one query must return data.")
        values: dict[str, dict[int, float]] = {}
        for query in queries:
            if not re.fullmatch(r"[a-z][a-zA-Z0-9_]*", query["Id"]) or query["Id"] in values:
                raise Refused("ValidationError", f"bad or repeated id {query['Id']}")
            if ("MetricStat" in query) == ("Expression" in query):
                raise Refused("ValidationError", "either MetricStat or Expression")
            values[query["Id"]] = self._evaluate(query, values, start, end)
        points = [(query["Id"], at) for query in queries if query.get("ReturnData", True) for at in values[query["Id"]]]
        first = int(body.get("NextToken", 0))
        page = points[first : first + self.points_a_page]
        more = first + len(page) < len(points)
        results = []
        for query in queries:
            if not query.get("ReturnData", True):
                continue
            name = query["Id"]
            forbidden = query.get("MetricStat", {}).get("Metric", {}).get("MetricName") in self.forbidden
            times = [] if forbidden else [at for owner, at in page if owner == name]
            results.append(
                {
                    "Id": name,
                    "Label": name,
                    "Timestamps": times[1:] if self.half_answer else times,
                    "Values": [values[name][at] for at in times],
                    "StatusCode": "Forbidden" if forbidden else "PartialData" if more else "Complete",
                }
            )
            if forbidden:
                results[-1]["Messages"] = [{"Code": "Forbidden", "Value": SAID}]
        answer: dict[str, Any] = {"MetricDataResults": results, "Messages": []}
        if more:
            answer["NextToken"] = str(first + len(page))
        return answer

    def _evaluate(
        self, query: dict[str, Any], values: Mapping[str, dict[int, float]], start: float, end: float
    ) -> dict[int, float]:
        if "Expression" in query:
            own = self.expressions.get(query["Expression"])
            if own is not None:
                return {at: value for at, value in own.items() if start <= at < end}
            return _math(query["Expression"], values)
        stat = query["MetricStat"]
        period_s = stat["Period"]
        if period_s % 60:
            raise Refused("ValidationError", "The parameter Period must be a multiple of 60.")
        metric = stat["Metric"]
        dimensions = tuple(sorted((one["Name"], one["Value"]) for one in metric.get("Dimensions", [])))
        raw = self.metrics.get((metric["Namespace"], metric["MetricName"], dimensions), {})
        periods: dict[int, list[float]] = {}
        for at, put in raw.items():
            if start <= at < end:
                periods.setdefault(at - at % period_s, []).extend(put)
        return {at: _statistic(stat["Stat"], put) for at, put in sorted(periods.items())}

    def _FilterLogEvents(self, body: dict[str, Any]) -> dict[str, Any]:
        group = self._group(body["logGroupName"])
        found = [event for event in group.events if body["startTime"] <= event[0] <= body["endTime"]]
        if not body.get("startFromHead", True):
            found.reverse()
        start = int(body.get("nextToken", 0))
        page = found[start : start + min(body.get("limit", 10_000), self.events_a_page)]
        answer: dict[str, Any] = {
            "events": [
                {"timestamp": at, "logStreamName": stream, "message": message, "ingestionTime": at, "eventId": str(n)}
                for n, (at, stream, message) in enumerate(page, start)
            ],
            "searchedLogStreams": [],
        }
        if start + len(page) < len(found):
            answer["nextToken"] = str(start + len(page))
        return answer

    def _StartQuery(self, body: dict[str, Any]) -> dict[str, Any]:
        rows: list[tuple[int, dict[str, str]]] = []
        for name in body["logGroupNames"]:
            for at, stream, message in self._group(name).events:
                if body["startTime"] * 1000 <= at <= body["endTime"] * 1000:
                    when = datetime.fromtimestamp(at / 1000, UTC).strftime("%Y-%m-%d %H:%M:%S.%f")[:-3]
                    row = {"@timestamp": when, "@message": message, "@logStream": stream, "@log": f"{ACCOUNT}:{name}"}
                    rows.append((at, row))
        limit = body.get("limit", 10_000)
        fields: list[str] = []
        for command in _commands(body["queryString"]):
            word, _, rest = command.partition(" ")
            if word == "fields":
                fields = [name.strip() for name in rest.split(",")]
            elif word == "filter" and (like := re.fullmatch(r'@message like "([^"\\]*)"', rest)):
                rows = [(at, row) for at, row in rows if like.group(1) in row["@message"]]
            elif word == "sort" and rest == "@timestamp desc":
                rows.sort(key=lambda one: one[0], reverse=True)
            elif word == "limit" and rest.isdigit():
                limit = min(limit, int(rest))
            else:
                raise Refused("MalformedQueryException", f"unexpected symbol found {command}")
        query_id = f"query-{len(self.queries)}"
        self.queries[query_id] = InsightsQuery(
            [
                [*({"field": name, "value": row[name]} for name in fields), {"field": "@ptr", "value": "CmEKJgo"}]
                for _, row in rows[:limit]
            ],
            self.polls,
        )
        return {"queryId": query_id}

    def _GetQueryResults(self, body: dict[str, Any]) -> dict[str, Any]:
        query = self.queries[body["queryId"]]
        query.polls_left -= 1
        if query.polls_left >= 0:
            # Partial results, which are not yet to be used.
            return {"status": "Running", "results": query.rows[:1], "statistics": {}}
        return {"status": self.query_end, "results": query.rows, "statistics": {"recordsScanned": 1.0}}

    def _StopQuery(self, body: dict[str, Any]) -> dict[str, Any]:
        self.queries[body["queryId"]].stopped = True
        return {"success": True}

    def _group(self, name: str) -> LogGroup:
        if name not in self.groups:
            raise Refused("ResourceNotFoundException", "The specified log group does not exist.")
        return self.groups[name]

    def _GetServiceGraph(self, body: dict[str, Any]) -> dict[str, Any]:
        _window(body)
        start = int(body.get("NextToken", 0))
        page = self.services[start : start + self.services_a_page]
        answer: dict[str, Any] = {"Services": page, "ContainsOldGroupVersions": False}
        if start + len(page) < len(self.services):
            answer["NextToken"] = str(start + len(page))
        return answer

    def _GetTraceSummaries(self, body: dict[str, Any]) -> dict[str, Any]:
        _window(body)
        asked = re.fullmatch(
            r'service\("([^"]*)"\)( AND \(fault = true OR throttle = true\))?', body["FilterExpression"]
        )
        if asked is None:
            raise Refused("InvalidRequestException", "Invalid filter expression")
        found = []
        for trace_id, segments in self.traces.items():
            began = min(segment["start_time"] for segment in segments if "start_time" in segment)
            ended = max(segment["end_time"] for segment in segments if "end_time" in segment)
            hit = any(segment["name"] == asked.group(1) for segment in segments)
            bad = any(segment.get("fault") or segment.get("throttle") for segment in segments)
            if hit and (bad or not asked.group(2)) and body["StartTime"] <= began <= body["EndTime"]:
                found.append({"Id": trace_id, "StartTime": began, "Duration": ended - began, "HasFault": bad})
        start = int(body.get("NextToken", 0))
        page = found[start : start + self.summaries_a_page]
        answer: dict[str, Any] = {"TraceSummaries": page, "TracesProcessedCount": len(found)}
        if start + len(page) < len(found):
            answer["NextToken"] = str(start + len(page))
        return answer

    def _BatchGetTraces(self, body: dict[str, Any]) -> dict[str, Any]:
        ids = body["TraceIds"]
        if len(ids) > 5:
            raise Refused("InvalidRequestException", "TraceIds: at most 5")
        return {
            "Traces": [
                {
                    "Id": one,
                    "Segments": [
                        {"Id": segment.get("id", ""), "Document": json.dumps(segment)} for segment in self.traces[one]
                    ],
                }
                for one in ids
                if one in self.traces
            ],
            "UnprocessedTraceIds": [one for one in ids if one not in self.traces],
        }


def _error(refused: Refused) -> web.Response:
    body = {"__type": f"com.amazonaws.service#{refused.code}", "message": str(refused)}
    return web.json_response(body, status=refused.status, content_type="application/x-amz-json-1.0")


def _window(body: dict[str, Any]) -> None:
    if not 0 <= body["EndTime"] - body["StartTime"] <= 6 * 3600 + 1:
        raise Refused("InvalidRequestException", "Time range cannot be longer than 6 hours")


def _commands(query: str) -> list[str]:
    """Split at bars that are not within quotes."""
    return [part.strip() for part in re.findall(r'(?:"[^"]*"|[^|"])+', query)]


def _statistic(stat: str, values: Sequence[float]) -> float:
    if percentile := re.fullmatch(r"p(\d\d(?:\.\d+)?)", stat):
        return float(np.percentile(values, float(percentile.group(1))))
    functions: dict[str, Callable[[Sequence[float]], float]] = {
        "Sum": sum, "Minimum": min, "Maximum": max, "Average": lambda given: sum(given) / len(given),
    }  # fmt: skip
    if stat not in functions:
        raise Refused("ValidationError", f"no statistic {stat}")
    return functions[stat](values)


def _math(expression: str, values: Mapping[str, dict[int, float]]) -> dict[int, float]:
    """Arithmetic on ids: a value where every series has one, and none where it divides by zero."""
    tree = ast.parse(expression, mode="eval")
    names = [node.id for node in ast.walk(tree) if isinstance(node, ast.Name)]
    if not names or any(name not in values for name in names):
        raise Refused("ValidationError", f"Error in expression {expression!r}: unknown id")
    result: dict[int, float] = {}
    for at in sorted(set.intersection(*(set(values[name]) for name in names))):
        try:
            result[at] = _number(tree.body, {name: values[name][at] for name in names})
        except ZeroDivisionError:
            continue
    return result


def _number(node: ast.expr, given: Mapping[str, float]) -> float:
    match node:
        case ast.Constant(value=int() | float() as value):
            return float(value)
        case ast.Name(id=name):
            return given[name]
        case ast.BinOp(left=left, op=ast.Div(), right=right):
            return _number(left, given) / _number(right, given)
        case ast.BinOp(left=left, op=ast.Sub(), right=right):
            return _number(left, given) - _number(right, given)
    raise Refused("ValidationError", "Error in expression: unsupported operand")
