"""Traces and call edges from Jaeger's query API, or from a server that speaks it (VictoriaTraces, GreptimeDB).

API: https://www.jaegertracing.io/docs/latest/architecture/apis/#http-json-internal
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping
from datetime import datetime, timedelta
from typing import Annotated, TypeVar

from pydantic import Field

from pipeline.adapters.telemetry.guard import failure_of
from pipeline.adapters.telemetry.tracing import Microseconds, microseconds_of, slowest, trace_of, utc_of
from pipeline.adapters.telemetry.upstream import Access, Lenient, Upstream, parse_answer
from pipeline.domain.errors import ConfigurationError, PermanentError, TemporaryError
from pipeline.domain.ids import ServiceName
from pipeline.domain.spans import SpanSummary, Trace, TraceReading
from pipeline.domain.telemetry import CallEdge, Reading

CANDIDATES = 20
"""The API gives the newest traces, whole, and the slowest of these are handed on. More would soon be megabytes."""
_API = "Jaeger's query API"

_Row = TypeVar("_Row", bound=Lenient)


class _Reference(Lenient):
    refType: str = "CHILD_OF"
    traceID: str
    spanID: str


class _Span(Lenient):
    spanID: str
    operationName: str = ""
    references: tuple[_Reference, ...] | None = None
    startTime: Microseconds
    duration: Microseconds = 0
    tags: tuple[dict[str, object], ...] | None = None
    """Most of an answer, and hardly one is looked at: left as they came, which is more than twice as fast as models."""
    processID: str = ""


class _Process(Lenient):
    serviceName: str = ""


class _Trace(Lenient):
    traceID: str
    spans: tuple[_Span, ...] | None = None
    processes: dict[str, _Process] | None = None


class _Dependency(Lenient):
    parent: str
    child: str
    callCount: Annotated[int, Field(ge=0)]


class _Error(Lenient):
    code: int = 0
    msg: str = ""


class _Envelope(Lenient):
    errors: tuple[_Error, ...] | None = None


class _Traces(_Envelope):
    data: tuple[_Trace, ...] | None


class _Dependencies(_Envelope):
    data: tuple[_Dependency, ...] | None


class JaegerSource:
    """Both ports of one server. ``url`` is the part before ``/api`` (a base path included).

    ``tenant`` is sent as x-tenant. ``dependencies_lookback_s``: where a daily job computes the dependencies
    (Elasticsearch, Cassandra), how far back its newest rows may lie; edges are then read over at least that long.
    Raises ConfigurationError.
    """

    def __init__(
        self,
        url: str,
        *,
        access: Access | None = None,
        tenant: str = "",
        dependencies_lookback_s: float = 0.0,
        timeout_s: float = 10.0,
    ) -> None:
        if dependencies_lookback_s < 0:
            raise ConfigurationError("the look-back for Jaeger's dependencies cannot be negative")
        self._upstream = Upstream(
            "Jaeger", url, access=(access or Access()).with_header("x-tenant", tenant), timeout_s=timeout_s
        )
        self._least_lookback = timedelta(seconds=dependencies_lookback_s)

    @property
    def name(self) -> str:
        return "jaeger"

    async def search(
        self, service: ServiceName, since: datetime, until: datetime, *, limit: int, errors_only: bool = False
    ) -> TraceReading:
        """The slowest of the newest ``CANDIDATES`` traces (of more, if the limit is higher)."""
        params = {
            "service": service,
            "start": str(microseconds_of(since)),
            "end": str(microseconds_of(until)),
            "limit": str(max(limit, CANDIDATES)),
        }
        if errors_only:
            params["tags"] = json.dumps({"error": "true"})
        try:
            answer = parse_answer(_Traces, await self._upstream.get("/api/traces", params), _API)
            found = [trace for one in _rows(answer.data, answer) if (trace := _trace(one)) is not None]
        except (TemporaryError, PermanentError) as error:
            return TraceReading(failures=(failure_of(self.name, error),))
        return TraceReading(slowest(found, service, since, until, limit=limit, errors_only=errors_only))

    async def edges(self, since: datetime, until: datetime) -> Reading:
        """Mean calls a second over the window, or over the look-back where that is longer."""
        window = max(until - since, self._least_lookback, timedelta(milliseconds=1))
        params = {
            "endTs": str(microseconds_of(until) // 1000),
            "lookback": str(window // timedelta(milliseconds=1)),
        }
        try:
            answer = parse_answer(_Dependencies, await self._upstream.get("/api/dependencies", params), _API)
            rows = _rows(answer.data, answer)
        except (TemporaryError, PermanentError) as error:
            return Reading(failures=(failure_of(f"{self.name} dependencies", error),))
        calls: Counter[tuple[str, str]] = Counter()
        for row in rows:
            if row.parent and row.child:
                calls[row.parent, row.child] += row.callCount
        edges = (
            CallEdge(ServiceName(caller), ServiceName(callee), count / window.total_seconds())
            for (caller, callee), count in calls.items()
            if count
        )
        return Reading(edges=tuple(edges))

    async def close(self) -> None:
        await self._upstream.close()


def _rows(data: tuple[_Row, ...] | None, answer: _Envelope) -> tuple[_Row, ...]:
    """What came; a refusal inside of a 200 is raised, unless it says that there is nothing (404)."""
    for error in answer.errors or ():
        if error.code != 404 and not data:
            said = f"Jaeger says {error.code}: {error.msg}"
            raise TemporaryError(said) if error.code >= 500 or error.code == 429 else PermanentError(said)
    return data or ()


def _trace(found: _Trace) -> Trace | None:
    return trace_of(found.traceID, _spans(found))


def _spans(found: _Trace) -> Iterator[SpanSummary]:
    """Spans whose process names no service are left out."""
    processes = found.processes or {}
    for span in found.spans or ():
        process = processes.get(span.processID)
        if process is None or not process.serviceName:
            continue
        yield SpanSummary(
            span_id=span.spanID,
            parent_id=_parent_id(span, found.traceID),
            service=ServiceName(process.serviceName),
            operation=span.operationName,
            started_at=utc_of(span.startTime),
            duration_s=span.duration / 1e6,
            error=any(_is_error(tag) for tag in span.tags or ()),
        )


def _parent_id(span: _Span, trace_id: str) -> str:
    """By CHILD_OF, else by FOLLOWS_FROM; a reference to another trace is a link and no parent."""
    inside = [one for one in span.references or () if one.traceID == trace_id]
    ordered = sorted(inside, key=lambda one: one.refType != "CHILD_OF")
    return ordered[0].spanID if ordered else ""


def _is_error(tag: Mapping[str, object]) -> bool:
    match tag.get("key"):
        case "error":
            return str(tag.get("value")).lower() == "true"
        case "otel.status_code":
            return tag.get("value") == "ERROR"
        case _:
            return False
