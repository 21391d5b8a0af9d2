"""Traces, reduced to what an incident needs of them."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from pipeline.domain.ids import ServiceName
from pipeline.domain.telemetry import SourceFailure


@dataclass(frozen=True, slots=True)
class SpanSummary:
    """One span. ``parent_id`` is empty at the root; ``error`` by the span's own status."""

    span_id: str
    parent_id: str
    service: ServiceName
    operation: str
    started_at: datetime
    duration_s: float
    error: bool


@dataclass(frozen=True, slots=True)
class Trace:
    """One request through the services; ``spans`` by their start. A provider may give the root's figures alone."""

    trace_id: str
    spans: tuple[SpanSummary, ...]

    @property
    def slowest_self(self) -> SpanSummary | None:
        """The span with the longest time of its own, its children's taken away; None without spans."""
        children: dict[str, float] = {}
        for span in self.spans:
            children[span.parent_id] = children.get(span.parent_id, 0.0) + span.duration_s
        return max(self.spans, key=lambda span: span.duration_s - children.get(span.span_id, 0.0), default=None)


@dataclass(frozen=True, slots=True)
class TraceReading:
    """Traces, and what could not be read."""

    traces: tuple[Trace, ...] = ()
    failures: tuple[SourceFailure, ...] = ()
