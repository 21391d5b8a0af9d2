"""Samples, baselines, call edges and the health of their sources. Methods may raise TemporaryError."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Protocol

from pipeline.domain.baseline import BaselineRow
from pipeline.domain.changes import ChangeEvent
from pipeline.domain.ids import ServiceName
from pipeline.domain.logs import LogPattern
from pipeline.domain.telemetry import CallEdge, Sample, SeriesKey, SourceFailure
from pipeline.domain.topology import DependencyGraph


@dataclass(frozen=True, slots=True)
class SourceHealth:
    """The last reading of a telemetry source. ``rejected``: values turned away since the bot's start, by reason."""

    source: str
    failures: tuple[str, ...]
    read_at: datetime
    rejected: Mapping[str, int] = field(default_factory=dict)


class TelemetryStore(Protocol):
    """Samples, baselines, edges, and how the sources do."""

    async def save_samples(self, samples: Sequence[Sample]) -> None: ...
    async def window(self, since: datetime) -> Mapping[SeriesKey, Sequence[Sample]]:
        """Every series' samples from ``since`` on, oldest first."""
        ...

    async def services_window(self, since: datetime) -> Mapping[SeriesKey, Sequence[Sample]]:
        """The same, of the series of services as a whole, without those of their replicas."""
        ...

    async def service_window(self, service: ServiceName, since: datetime) -> Mapping[SeriesKey, Sequence[Sample]]: ...
    async def save_edges(self, edges: Sequence[CallEdge], at: datetime) -> None: ...
    async def graph(self, *, max_age_s: float) -> DependencyGraph: ...
    async def save_health(
        self, source: str, failures: Sequence[SourceFailure], at: datetime, rejected: Mapping[str, int]
    ) -> None: ...
    async def save_changes(self, changes: Sequence[ChangeEvent]) -> None: ...
    async def changes(self, since: datetime) -> Sequence[ChangeEvent]:
        """Changes that took effect at or after ``since``, oldest first."""
        ...

    async def save_log_patterns(self, patterns: Sequence[LogPattern]) -> None: ...
    async def log_patterns(self, service: ServiceName, since: datetime) -> Sequence[LogPattern]:
        """Patterns of one service seen at or after ``since``, the most frequent first."""
        ...

    async def health(self) -> Sequence[SourceHealth]: ...
    async def load_baselines(self) -> Sequence[BaselineRow]: ...
    async def save_baselines(self, rows: Sequence[BaselineRow]) -> None: ...
    async def prune(self, *, keep_s: float) -> int:
        """Deletes samples, ticks and seen requests older than ``keep_s``; returns how many samples went."""
        ...
