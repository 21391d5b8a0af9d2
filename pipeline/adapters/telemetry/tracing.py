"""From a provider's spans to traces in the order that the port promises. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import Annotated

from pydantic import Field

from pipeline.domain.ids import ServiceName
from pipeline.domain.spans import SpanSummary, Trace

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_LATEST_S = 250_000_000_000
"""Seconds until the year 9892: dates can still be reckoned with it."""

Microseconds = Annotated[int, Field(ge=0, le=_LATEST_S * 10**6)]
Nanoseconds = Annotated[int, Field(ge=0, le=_LATEST_S * 10**9)]


def utc_of(microseconds: int) -> datetime:
    """Since the epoch, without a float's rounding."""
    return _EPOCH + timedelta(microseconds=microseconds)


def microseconds_of(at: datetime) -> int:
    """Since the epoch."""
    return (at - _EPOCH) // timedelta(microseconds=1)


def trace_of(trace_id: str, spans: Iterable[SpanSummary]) -> Trace | None:
    """Spans by their start, the root first (a skewed clock may have it begin after its children), each span once.

    None without spans. Where the root is missing, the earliest span stands for it.
    """
    once = {(span.span_id, span.service): span for span in spans}
    ordered = sorted(once.values(), key=lambda span: (span.parent_id != "", span.started_at))
    return Trace(trace_id, tuple(ordered)) if ordered else None


def slowest(
    traces: Iterable[Trace],
    service: ServiceName,
    since: datetime,
    until: datetime,
    *,
    limit: int,
    errors_only: bool,
) -> tuple[Trace, ...]:
    """Those through the service that began in the window, by their first span's time; ``errors_only``: where a span of
    the service failed."""
    chosen = [
        trace
        for trace in traces
        if since <= trace.spans[0].started_at < until
        and any(span.service == service and (span.error or not errors_only) for span in trace.spans)
    ]
    return tuple(sorted(chosen, key=lambda trace: -trace.spans[0].duration_s)[:limit])
