"""Asking traces, logs and the kernel about one service, when an incident needs to know."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TypeVar

from pipeline.domain.activity import ActivityReading
from pipeline.domain.diagnosis import EvidenceKind
from pipeline.domain.ids import ServiceName
from pipeline.domain.spans import Trace, TraceReading
from pipeline.domain.telemetry import SourceFailure, Unit, format_value
from pipeline.domain.trace import JsonValue, TraceEntry, TraceKind
from pipeline.ports.activity import ActivitySource
from pipeline.ports.traces import TracesSource
from pipeline.stages.asking import ask

SOURCE_DEADLINE_S = 20.0
"""For one witness: the diagnosis waits for all, and each is one or two requests of ten seconds at most."""
TRACES = 3
ACTIVITIES = 5
_Reading = TypeVar("_Reading")


@dataclass(frozen=True, slots=True)
class Statement:
    """One fact a witness gave, with the question that brought it up."""

    kind: EvidenceKind
    statement: str
    query: str
    subject: str


@dataclass(frozen=True, slots=True)
class Testimony:
    """What was said, what could not be asked (``blind``), and each question with its latency."""

    items: tuple[Statement, ...] = ()
    blind: tuple[str, ...] = ()
    entries: tuple[TraceEntry, ...] = ()


class Witnesses:
    """Reads; a provider that is down is named and costs nothing else."""

    def __init__(self, traces: Sequence[TracesSource], activity: Sequence[ActivitySource]) -> None:
        self._traces = traces
        self._activity = activity

    async def hear(self, service: ServiceName, since: datetime, until: datetime) -> Testimony:
        """All providers side by side, about the window."""
        parts = await asyncio.gather(
            *(self._slow_requests(source, service, since, until) for source in self._traces),
            *(self._kernel(source, service, since, until) for source in self._activity),
        )
        return Testimony(
            tuple(item for part in parts for item in part.items),
            tuple(line for part in parts for line in part.blind),
            tuple(entry for part in parts for entry in part.entries),
        )

    async def _slow_requests(
        self, source: TracesSource, service: ServiceName, since: datetime, until: datetime
    ) -> Testimony:
        asking = ask(source.name, source.search(service, since, until, limit=TRACES), TraceReading, SOURCE_DEADLINE_S)
        reading, entry = await _timed(f"{source.name} traces", service, asking)
        query = f"{source.name}: the slowest traces through {service}"
        items = tuple(Statement("trace", _in_words(trace), query, service) for trace in reading.traces if trace.spans)
        return Testimony(items, _blind(reading.failures), (entry,))

    async def _kernel(
        self, source: ActivitySource, service: ServiceName, since: datetime, until: datetime
    ) -> Testimony:
        asking = ask(source.name, source.activity(service, since, until), ActivityReading, SOURCE_DEADLINE_S)
        reading, entry = await _timed(f"{source.name} activity", service, asking)
        items = tuple(
            Statement("activity", f"{one.instance or service}: {one.statement}", f"{source.name} {one.kind}", service)
            for one in reading.activities[:ACTIVITIES]
        )
        return Testimony(items, _blind(reading.failures), (entry,))


async def _timed(tool: str, about: str, asking: Awaitable[_Reading]) -> tuple[_Reading, TraceEntry]:
    started = time.monotonic()
    reading = await asking
    latency_ms = round((time.monotonic() - started) * 1000, 1)
    data: dict[str, JsonValue] = {"tool": tool, "about": about, "latency_ms": latency_ms}
    return reading, TraceEntry(TraceKind.TOOL_CALL, f"{tool}({about}): {latency_ms:.0f} ms", data)


def _blind(failures: Iterable[SourceFailure]) -> tuple[str, ...]:
    return tuple(f"{failure.source} gave nothing: {failure.reason}" for failure in failures)


def _in_words(trace: Trace) -> str:
    """``trace 4bf92f35 took 2.1 s; most of it in payments POST /charge (1.9 s, failed)``."""
    root = trace.spans[0]
    said = f"trace {trace.trace_id[:16]} took {format_value(root.duration_s, Unit.SECONDS)}"
    most = trace.slowest_self
    if most is not None and most is not root:
        failed = ", failed" if most.error else ""
        spent = format_value(most.duration_s, Unit.SECONDS)
        said += f"; most of it in {most.service} {most.operation} ({spent}{failed})"
    failed_in = sorted({span.service for span in trace.spans if span.error})
    return f"{said}; failed in {', '.join(failed_in)}" if failed_in else said
