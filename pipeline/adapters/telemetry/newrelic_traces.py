"""Traces from New Relic."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta

from pipeline.adapters.telemetry.guard import failure_of
from pipeline.adapters.telemetry.newrelic_client import (
    MAX_ROWS,
    NerdGraph,
    Row,
    equals_any,
    first_text,
    number,
    window,
)
from pipeline.domain.errors import PermanentError, TemporaryError
from pipeline.domain.ids import ServiceName
from pipeline.domain.spans import SpanSummary, Trace, TraceReading

_EPOCH = datetime.fromtimestamp(0, UTC)
_AROUND = timedelta(minutes=10)
"""Spans of a trace that began in the window may lie after it; one that began before is told by its earlier spans."""
_SERVICE = ("service.name", "appName", "entity.name")
_FAILED = "(`otel.status_code` = 'ERROR' OR `error.class` IS NOT NULL OR `error.message` IS NOT NULL)"
_COLUMNS = (
    "`trace.id`, id, parentId, `parent.id`, name, timestamp, `duration.ms`, `service.name`, appName, `entity.name`, "
    "`otel.status_code`, `error.class`, `error.message`"
)


class NewRelicTracesSource:
    """Spans of APM agents and of OpenTelemetry. New Relic samples both, so the slowest are the slowest of the kept."""

    def __init__(self, client: NerdGraph) -> None:
        self._client = client

    @property
    def name(self) -> str:
        return "newrelic traces"

    async def search(
        self, service: ServiceName, since: datetime, until: datetime, *, limit: int, errors_only: bool = False
    ) -> TraceReading:
        """The slowest by the service's own spans, then their other spans; ``errors_only``: the service's own failed."""
        condition = equals_any(_SERVICE, service) + (f" AND {_FAILED}" if errors_only else "")
        choice = (
            f"FROM Span SELECT max(`duration.ms`) AS 'slowest' WHERE {condition} FACET `trace.id` "
            f"LIMIT {min(limit, MAX_ROWS)} {window(since, until)}"
        )
        try:
            facets = [row.get("facet") for row in await self._client.one(choice)]
            ids = [one for one in facets if isinstance(one, str) and re.fullmatch(r"[\w-]+", one)]
            rows = await self._spans(ids, since, until) if ids else ()
        except (TemporaryError, PermanentError) as error:
            return TraceReading(failures=(failure_of(self.name, error),))
        traces = [
            trace
            for trace in _traces(rows)
            if since <= trace.spans[0].started_at < until and any(span.service == service for span in trace.spans)
        ]
        return TraceReading(tuple(sorted(traces, key=_duration_s, reverse=True)[:limit]))

    async def close(self) -> None:
        await self._client.close()

    async def _spans(self, ids: Iterable[str], since: datetime, until: datetime) -> tuple[Row, ...]:
        wanted = ", ".join(f"'{one}'" for one in ids)
        return await self._client.one(
            f"FROM Span SELECT {_COLUMNS} WHERE `trace.id` IN ({wanted}) "
            f"{window(since - _AROUND, until + _AROUND)} LIMIT MAX"
        )


def _traces(rows: Iterable[Row]) -> list[Trace]:
    spans: defaultdict[str, dict[str, SpanSummary]] = defaultdict(dict)
    for row in rows:
        trace_id = first_text(row, ("trace.id",))
        if trace_id and (span := _span(row)) is not None:
            spans[trace_id][span.span_id] = span
    return [
        Trace(trace_id, tuple(sorted(parts.values(), key=lambda span: span.started_at)))
        for trace_id, parts in spans.items()
    ]


def _span(row: Row) -> SpanSummary | None:
    """None where the row is no whole span."""
    span_id, service = first_text(row, ("id",)), first_text(row, _SERVICE)
    at_ms, duration_ms = number(row.get("timestamp")), number(row.get("duration.ms"))
    if not span_id or not service or at_ms is None or duration_ms is None:
        return None
    try:
        started_at = _EPOCH + timedelta(milliseconds=at_ms)
    except (OverflowError, ValueError):
        return None
    return SpanSummary(
        span_id=span_id,
        parent_id=first_text(row, ("parentId", "parent.id")),
        service=ServiceName(service),
        operation=first_text(row, ("name",)),
        started_at=started_at,
        duration_s=max(duration_ms, 0.0) / 1000,
        error=row.get("otel.status_code") == "ERROR" or bool(first_text(row, ("error.class", "error.message"))),
    )


def _duration_s(trace: Trace) -> float:
    return max(span.duration_s for span in trace.spans)
