"""A small Jaeger query service: traces by service, time and tags, and dependencies.

https://www.jaegertracing.io/docs/latest/architecture/apis/#http-json-internal
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

from pipeline.domain.spans import SpanSummary, Trace

MICRO = 1_000_000
Json = dict[str, Any]


@dataclass(frozen=True)
class Row:
    """What the dependency store holds: calls counted at a time."""

    at_ms: int
    parent: str
    child: str
    calls: int


@dataclass
class JaegerServer:
    traces: list[Json] = field(default_factory=list)
    rows: list[Row] = field(default_factory=list)
    asked: list[Mapping[str, str]] = field(default_factory=list)

    def app(self) -> web.Application:
        app = web.Application()
        app.router.add_get("/jaeger/api/traces", self._search)
        app.router.add_get("/jaeger/api/dependencies", self._dependencies)
        return app

    def add(self, trace: Trace) -> None:
        self.traces.append(as_json(trace))

    async def _search(self, request: web.Request) -> web.Response:
        asked = request.query
        self.asked.append(dict(asked))
        if not asked.get("service"):
            return _refused(400, "parameter 'service' is required")
        try:
            start_us, end_us, limit = int(asked["start"]), int(asked["end"]), int(asked.get("limit", "100"))
            tags: dict[str, str] = json.loads(asked.get("tags", "{}"))
        except ValueError as error:
            return _refused(400, f"malformed parameter: {error}")

        def hit(trace: Json, span: Json) -> bool:
            values = {tag["key"]: str(tag["value"]).lower() for tag in span["tags"]}
            return (
                trace["processes"][span["processID"]]["serviceName"] == asked["service"]
                and start_us <= span["startTime"] <= end_us
                and all(values.get(key) == value.lower() for key, value in tags.items())
            )

        hits = [trace for trace in self.traces if any(hit(trace, span) for span in trace["spans"])]
        newest = sorted(hits, key=lambda trace: -max(span["startTime"] for span in trace["spans"]))
        return _answer(newest[:limit])

    async def _dependencies(self, request: web.Request) -> web.Response:
        self.asked.append(dict(request.query))
        try:
            end_ms, lookback_ms = int(request.query["endTs"]), int(request.query["lookback"])
        except (KeyError, ValueError):
            return _refused(400, "unable to parse param 'endTs'")
        counted = [row for row in self.rows if end_ms - lookback_ms <= row.at_ms <= end_ms]
        return _answer([{"parent": row.parent, "child": row.child, "callCount": row.calls} for row in counted])


def as_json(trace: Trace) -> Json:
    """As the query service writes it: the process apart, microseconds, tags by type, the error as a tag."""
    processes = {span.service: f"p{n}" for n, span in enumerate(trace.spans, 1)}
    return {
        "traceID": trace.trace_id,
        "spans": [span_json(trace.trace_id, span, processes[span.service]) for span in trace.spans],
        "processes": {
            process: {"serviceName": service, "tags": [{"key": "hostname", "type": "string", "value": "h1"}]}
            for service, process in processes.items()
        },
        "warnings": None,
    }


def span_json(trace_id: str, span: SpanSummary, process: str) -> Json:
    reference = {"refType": "CHILD_OF", "traceID": trace_id, "spanID": span.parent_id}
    tags: list[Json] = [{"key": "span.kind", "type": "string", "value": "server"}]
    if span.error:
        tags.append({"key": "error", "type": "bool", "value": True})
    return {
        "traceID": trace_id,
        "spanID": span.span_id,
        "flags": 1,
        "operationName": span.operation,
        "references": [reference] if span.parent_id else [],
        "startTime": int(span.started_at.timestamp() * 1000) * 1000,
        "duration": round(span.duration_s * MICRO),
        "tags": tags,
        "logs": [],
        "processID": process,
        "warnings": None,
    }


def _answer(data: object) -> web.Response:
    return web.json_response({"data": data, "total": 0, "limit": 0, "offset": 0, "errors": None})


def _refused(code: int, said: str) -> web.Response:
    errors = [{"code": code, "msg": said}]
    return web.json_response({"data": None, "total": 0, "limit": 0, "offset": 0, "errors": errors}, status=code)
