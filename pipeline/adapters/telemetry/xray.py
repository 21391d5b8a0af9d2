"""Traces and call edges from AWS X-Ray."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from urllib.parse import urlsplit

from pydantic import ValidationError

from pipeline.adapters.telemetry.aws_client import AwsClient
from pipeline.adapters.telemetry.guard import failure_of
from pipeline.adapters.telemetry.http import one_line
from pipeline.adapters.telemetry.upstream import Lenient
from pipeline.domain.errors import PermanentError, TemporaryError
from pipeline.domain.ids import ServiceName
from pipeline.domain.spans import SpanSummary, Trace, TraceReading
from pipeline.domain.telemetry import CallEdge, Reading

TRACES_A_CALL = 5
"""BatchGetTraces takes no more."""
MAX_PAGES = 50
MAX_WINDOW = timedelta(hours=6)
"""X-Ray refuses longer ones; of a longer window the last six hours are read."""


class _Statistics(Lenient):
    TotalCount: int = 0


class _Edge(Lenient):
    ReferenceId: int
    SummaryStatistics: _Statistics = _Statistics()


class _Service(Lenient):
    ReferenceId: int
    Name: str = ""
    Type: str = ""
    Edges: tuple[_Edge, ...] = ()


class _Graph(Lenient):
    Services: tuple[_Service, ...]
    NextToken: str | None = None


class _Summary(Lenient):
    Id: str
    StartTime: datetime | None = None
    Duration: float = 0.0


class _Summaries(Lenient):
    TraceSummaries: tuple[_Summary, ...]
    NextToken: str | None = None


class _Stored(Lenient):
    Document: str


class _StoredTrace(Lenient):
    Id: str
    Segments: tuple[_Stored, ...] = ()


class _Traces(Lenient):
    Traces: tuple[_StoredTrace, ...]
    NextToken: str | None = None


class _Request(Lenient):
    method: str = ""
    url: str = ""


class _Http(Lenient):
    request: _Request = _Request()


class _Segment(Lenient):
    """A segment document, or a subsegment in it. ``end_time`` is missing while it goes on."""

    id: str
    name: str
    start_time: float
    end_time: float | None = None
    parent_id: str = ""
    fault: bool = False
    throttle: bool = False
    http: _Http = _Http()
    subsegments: tuple[_Segment, ...] = ()


class XRayTracesSource:
    """Traces with all their segments and subsegments. A span's error is X-Ray's fault (5xx) or throttle (429)."""

    def __init__(self, client: AwsClient) -> None:
        self._client = client

    @property
    def name(self) -> str:
        return "x-ray"

    async def search(
        self, service: ServiceName, since: datetime, until: datetime, *, limit: int, errors_only: bool = False
    ) -> TraceReading:
        """The slowest traces through ``service``; their spans by their start."""
        if '"' in service:
            return TraceReading()  # no name in X-Ray has one, and none could be asked for
        try:
            summaries = await self._summaries(service, since, until, errors_only)
            chosen = sorted(summaries, key=lambda summary: summary.Duration, reverse=True)[:limit]
            ids = [summary.Id for summary in chosen]
            parts = [ids[start : start + TRACES_A_CALL] for start in range(0, len(ids), TRACES_A_CALL)]
            found = await asyncio.gather(*(self._traces(part) for part in parts))
        except (TemporaryError, PermanentError) as error:
            return TraceReading(failures=(failure_of(self.name, error),))
        by_id = {trace.trace_id: trace for traces, _ in found for trace in traces}
        failures = tuple(failure_of(self.name, error) for _, unread in found for error in unread[:1])
        return TraceReading(tuple(by_id[one] for one in ids if one in by_id), failures)

    async def close(self) -> None:
        await self._client.close()

    async def _summaries(
        self, service: ServiceName, since: datetime, until: datetime, errors_only: bool
    ) -> list[_Summary]:
        wanted = f'service("{service}")'
        request: dict[str, object] = {
            "StartTime": max(since, until - MAX_WINDOW),
            "EndTime": until + timedelta(seconds=1),  # botocore sends whole seconds
            "TimeRangeType": "TraceId",
            "FilterExpression": f"{wanted} AND (fault = true OR throttle = true)" if errors_only else wanted,
        }
        found: list[_Summary] = []
        for _ in range(MAX_PAGES):
            page = await self._client.call("xray", "get_trace_summaries", request, _Summaries)
            found += [one for one in page.TraceSummaries if one.StartTime is None or since <= one.StartTime < until]
            if not page.NextToken:
                break
            request["NextToken"] = page.NextToken
        return found

    async def _traces(self, ids: list[str]) -> tuple[list[Trace], list[PermanentError]]:
        """The traces, and why some of their segments are not in them."""
        request: dict[str, object] = {"TraceIds": ids}
        segments: defaultdict[str, list[_Segment]] = defaultdict(list)
        unread: list[PermanentError] = []
        for _ in range(MAX_PAGES):
            page = await self._client.call("xray", "batch_get_traces", request, _Traces)
            for trace_id, document in ((one.Id, stored.Document) for one in page.Traces for stored in one.Segments):
                try:
                    segments[trace_id].append(_Segment.model_validate_json(document))
                except ValidationError as error:
                    first = error.errors(include_url=False, include_input=False)[0]
                    where = ".".join(str(part) for part in first["loc"])
                    unread.append(PermanentError(f"not a segment document: {where}: {one_line(first['msg'])}"))
            if not page.NextToken:
                break
            request["NextToken"] = page.NextToken
        return [_trace(trace_id, parts) for trace_id, parts in segments.items()], unread


class XRayTopologySource:
    """Call edges from the service graph, without those of clients, which X-Ray names after the service they call."""

    def __init__(self, client: AwsClient) -> None:
        self._client = client

    @property
    def name(self) -> str:
        return "x-ray service graph"

    async def edges(self, since: datetime, until: datetime) -> Reading:
        """Calls between services, queues, tables and remote hosts as X-Ray names them, over the window."""
        start = max(since, until - MAX_WINDOW)
        try:
            services = await self._graph(start, until)
        except (TemporaryError, PermanentError) as error:
            return Reading(failures=(failure_of(self.name, error),))
        names = {service.ReferenceId: service.Name for service in services}
        calls: defaultdict[tuple[str, str], int] = defaultdict(int)
        for service in services:
            for edge in service.Edges if service.Type != "client" else ():
                callee = names.get(edge.ReferenceId, "")
                # One Lambda function is two nodes with one name and an edge between.
                if service.Name and callee and callee != service.Name:
                    calls[service.Name, callee] += edge.SummaryStatistics.TotalCount
        window_s = max((until - start).total_seconds(), 1.0)
        return Reading(
            edges=tuple(
                CallEdge(ServiceName(caller), ServiceName(callee), count / window_s)
                for (caller, callee), count in calls.items()
                if count > 0
            )
        )

    async def close(self) -> None:
        await self._client.close()

    async def _graph(self, start: datetime, until: datetime) -> list[_Service]:
        request: dict[str, object] = {"StartTime": start, "EndTime": until}
        found: list[_Service] = []
        for _ in range(MAX_PAGES):
            page = await self._client.call("xray", "get_service_graph", request, _Graph)
            found += page.Services
            if not page.NextToken:
                break
            request["NextToken"] = page.NextToken
        return found


def _trace(trace_id: str, segments: list[_Segment]) -> Trace:
    spans = {span.span_id: span for segment in segments for span in _spans(segment, segment.name, segment.parent_id)}
    return Trace(trace_id, tuple(sorted(spans.values(), key=lambda span: span.started_at)))


def _spans(segment: _Segment, service: str, parent_id: str) -> Iterator[SpanSummary]:
    yield SpanSummary(
        span_id=segment.id,
        parent_id=parent_id,
        service=ServiceName(service),
        operation=_operation(segment),
        started_at=datetime.fromtimestamp(segment.start_time, UTC),
        duration_s=max((segment.end_time or segment.start_time) - segment.start_time, 0.0),
        error=segment.fault or segment.throttle,
    )
    for part in segment.subsegments:
        yield from _spans(part, service, segment.id)


def _operation(segment: _Segment) -> str:
    """``GET /carts`` where it was a request, else the name."""
    request = segment.http.request
    try:
        path = urlsplit(request.url).path
    except ValueError:
        path = ""
    return f"{request.method} {path or '/'}" if request.method else segment.name
