"""Traces from Grafana Tempo by TraceQL; its service graph comes by way of Prometheus.

API: https://grafana.com/docs/tempo/latest/api_docs/. Spans: OTLP as JSON, in Tempo's names or in OpenTelemetry's,
https://opentelemetry.io/docs/specs/otlp/#json-protobuf-encoding
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import json
import re
from collections.abc import Iterator
from datetime import datetime

from pydantic import AliasChoices, Field

from pipeline.adapters.telemetry.guard import failure_of
from pipeline.adapters.telemetry.tracing import Nanoseconds, microseconds_of, slowest, trace_of, utc_of
from pipeline.adapters.telemetry.upstream import Access, Lenient, NotFound, Upstream, parse_answer, said
from pipeline.domain.errors import PermanentError, TemporaryError
from pipeline.domain.ids import ServiceName
from pipeline.domain.spans import SpanSummary, Trace, TraceReading
from pipeline.domain.telemetry import SourceFailure

CANDIDATES = 100
"""The search gives one line a trace, in no order; the slowest of so many are fetched whole."""
_SEARCH_API = "Tempo's search API"
_TRACE_ID = re.compile(r"[0-9a-fA-F]{1,32}")
_SPAN_ID = re.compile(r"[0-9a-fA-F]{16}")
_NO_SPAN = "0" * 16
_SERVICE_NAME = "service.name"
_FAILED = (2, "2", "STATUS_CODE_ERROR", "ERROR")


class _Hit(Lenient):
    traceID: str
    startTimeUnixNano: Nanoseconds = 0
    durationMs: int = 0


class _Hits(Lenient):
    traces: tuple[_Hit, ...] | None = None
    metrics: dict[str, object] | None = None


class _Value(Lenient):
    stringValue: str = ""


class _Attribute(Lenient):
    key: str
    value: _Value = _Value()


class _Resource(Lenient):
    attributes: tuple[_Attribute, ...] | None = None


class _Status(Lenient):
    code: int | str = 0


class _Span(Lenient):
    spanId: str
    parentSpanId: str | None = None
    name: str = ""
    startTimeUnixNano: Nanoseconds
    endTimeUnixNano: Nanoseconds
    status: _Status | None = None


class _Scope(Lenient):
    spans: tuple[_Span, ...] | None = None


class _Batch(Lenient):
    resource: _Resource = _Resource()
    scopes: tuple[_Scope, ...] | None = Field(
        None, validation_alias=AliasChoices("scopeSpans", "instrumentationLibrarySpans")
    )


class _Trace(Lenient):
    batches: tuple[_Batch, ...] = Field(validation_alias=AliasChoices("batches", "resourceSpans"))


class TempoSource:
    """A search, then the slowest of what it found one by one.

    ``url`` is the part before ``/api``; ``tenant`` is sent as X-Scope-OrgID. ``timeout_s`` bounds each request.
    Raises ConfigurationError.
    """

    def __init__(self, url: str, *, tenant: str = "", access: Access | None = None, timeout_s: float = 10.0) -> None:
        access = (access or Access()).with_header("X-Scope-OrgID", tenant)
        self._upstream = Upstream("Tempo", url, access=access, timeout_s=timeout_s)

    @property
    def name(self) -> str:
        return "tempo"

    async def search(
        self, service: ServiceName, since: datetime, until: datetime, *, limit: int, errors_only: bool = False
    ) -> TraceReading:
        """The slowest among ``CANDIDATES`` traces (more, if the limit is higher)."""
        failed = " && status = error" if errors_only else ""
        params = {
            "q": f"{{ resource.{_SERVICE_NAME} = {json.dumps(service, ensure_ascii=False)}{failed} }}",
            "start": str(microseconds_of(since) // 1_000_000),
            "end": str(-(-microseconds_of(until) // 1_000_000)),
            "limit": str(max(limit, CANDIDATES)),
            "spss": "1",  # spans a span set: they are not looked at
        }
        try:
            body = await self._upstream.get("/api/search", params)
            hits = parse_answer(_Hits, body, _SEARCH_API)
            if hits.traces is None and hits.metrics is None:  # each may be missing, but a search has one of them
                raise PermanentError(f"not an answer of {_SEARCH_API}: {said(body)}")
        except (TemporaryError, PermanentError) as error:
            return TraceReading(failures=(failure_of(self.name, error),))
        wanted = sorted((hit for hit in hits.traces or () if _in(hit, since, until)), key=lambda hit: -hit.durationMs)
        outcomes = await asyncio.gather(*(self._trace(hit.traceID) for hit in wanted[:limit]))
        found = [outcome for outcome in outcomes if isinstance(outcome, Trace)]
        refused = tuple(dict.fromkeys(outcome for outcome in outcomes if isinstance(outcome, SourceFailure)))
        return TraceReading(slowest(found, service, since, until, limit=limit, errors_only=errors_only), refused)

    async def close(self) -> None:
        await self._upstream.close()

    async def _trace(self, trace_id: str) -> Trace | SourceFailure | None:
        """None for one that has no spans that name a service."""
        try:
            body = await self._upstream.get(f"/api/traces/{trace_id}")
            found = parse_answer(_Trace, body, "Tempo's trace API")
        except NotFound as error:
            # Found a moment ago: it has just been compacted away, or is only on its way into the store.
            return failure_of(f"{self.name} trace", TemporaryError(str(error)))
        except (TemporaryError, PermanentError) as error:
            return failure_of(f"{self.name} trace", error)
        return trace_of(trace_id, _spans(found))


def _in(hit: _Hit, since: datetime, until: datetime) -> bool:
    """Whether it began in the window; the id becomes part of an address, and so must be one."""
    began = utc_of(hit.startTimeUnixNano // 1000)
    return since <= began < until and _TRACE_ID.fullmatch(hit.traceID) is not None


def _spans(found: _Trace) -> Iterator[SpanSummary]:
    """Spans of resources that name no service are left out."""
    for batch in found.batches:
        attributes = {attribute.key: attribute.value.stringValue for attribute in batch.resource.attributes or ()}
        service = attributes.get(_SERVICE_NAME, "")
        if not service:
            continue
        for span in (span for scope in batch.scopes or () for span in scope.spans or ()):
            yield SpanSummary(
                span_id=_span_id(span.spanId),
                parent_id=_span_id(span.parentSpanId or ""),
                service=ServiceName(service),
                operation=span.name,
                started_at=utc_of(span.startTimeUnixNano // 1000),
                duration_s=max(span.endTimeUnixNano - span.startTimeUnixNano, 0) / 1e9,
                error=span.status is not None and span.status.code in _FAILED,
            )


def _span_id(text: str) -> str:
    """As hexadecimal digits, whichever way it was written; empty for none (nothing, or zeros)."""
    if _SPAN_ID.fullmatch(text):
        digits = text.lower()
    else:
        try:
            digits = base64.b64decode(text, validate=True).hex()
        except binascii.Error:
            digits = text
    return "" if digits == _NO_SPAN else digits
