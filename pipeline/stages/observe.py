"""Telemetry into the store: what was read, what could not be, who calls whom, what was changed, what logs say."""

from __future__ import annotations

import asyncio
from collections import Counter, defaultdict
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Protocol

from pipeline.domain.baseline import BaselineBank
from pipeline.domain.changes import ChangeEvent, ChangeReading
from pipeline.domain.detection.logs import LogDetector
from pipeline.domain.detection.templates_masks import redacted
from pipeline.domain.ids import ServiceName
from pipeline.domain.logs import LogPattern, LogReading
from pipeline.domain.plausible import implausible
from pipeline.domain.telemetry import Reading, Sample, SeriesKey, SourceFailure
from pipeline.ports.activity import ActivitySource
from pipeline.ports.catalogue import CatalogueSource
from pipeline.ports.changes import ChangesSource
from pipeline.ports.logs import LogsSource
from pipeline.ports.metrics import MetricsSource
from pipeline.ports.store import Store
from pipeline.ports.topology import TopologySource
from pipeline.ports.traces import TracesSource
from pipeline.stages.asking import ask

SOURCE_DEADLINE_S = 45.0
"""For a whole reading of one source. The longest that is in order is CloudWatch's, whose pages may take 30 s; and
while one is awaited nothing new is seen of the others."""
TOPOLOGY_EVERY_S = 60.0
"""Who calls whom changes by the deployment, and its queries are the dearest."""
TOPOLOGY_WINDOW_S = 600.0
CHANGES_WINDOW_S = 3600.0
"""A change may be told late; what was told already is not stored again."""
LOG_LAG_S = 5.0
"""Lines younger than this may still be on their way to the server; each is read once."""
SERIES_GONE_S = 3600.0
"""A series that was not told for this long is counted no more."""
LOG_CATCH_UP_S = 300.0
"""How much is read at the start, and at most after a source was away: older lines say little about now."""
SAMPLE_CHARACTERS = 300
LOG_LINES = 5000
"""Lines taken in at one reading; a flood beyond it is told as a failure and sampled by its newest lines."""


class _Closing(Protocol):
    async def close(self) -> None: ...


@dataclass(frozen=True, slots=True)
class Sources:
    """Every provider by what it is asked for. One provider may stand in several places."""

    metrics: tuple[MetricsSource, ...] = ()
    topology: tuple[TopologySource, ...] = ()
    logs: tuple[LogsSource, ...] = ()
    changes: tuple[ChangesSource, ...] = ()
    traces: tuple[TracesSource, ...] = ()
    activity: tuple[ActivitySource, ...] = ()

    async def close(self) -> None:
        """Closes every provider, each as often as it stands here; closing twice does nothing."""
        groups: tuple[Sequence[_Closing], ...] = (
            self.metrics,
            self.topology,
            self.logs,
            self.changes,
            self.traces,
            self.activity,
        )
        for source in (source for group in groups for source in group):
            await source.close()


class Observer:
    """Reads every source that is due, side by side; one that is down costs its own part and is named."""

    def __init__(
        self,
        sources: Sources,
        store: Store,
        logs: LogDetector,
        baselines: Callable[[], Awaitable[BaselineBank]],
        catalogue: CatalogueSource,
        *,
        max_series: int,
        redact: Callable[[str], str] = str,
    ) -> None:
        """``redact`` takes secrets out of what people and programs wrote, before it is stored."""
        self._redact = redact
        self._baselines = baselines
        self._catalogue = catalogue
        self._max_series = max_series
        self._known: dict[SeriesKey, datetime] = {}
        self._sources = sources
        self._store = store
        self._logs = logs
        self._topology_at: datetime | None = None
        self._logs_until: dict[int, datetime] = {}
        self._rejected: defaultdict[str, Counter[str]] = defaultdict(Counter)

    async def run(self, now: datetime) -> Sequence[Sample]:
        """One reading, recorded in one transaction. Returns the samples that were stored."""
        readings, edges, changes, lines = await asyncio.gather(
            asyncio.gather(
                *(ask(one.name, one.read(now), Reading, SOURCE_DEADLINE_S) for one in self._sources.metrics)
            ),
            self._edges(now),
            self._changes(now),
            self._lines(now),
        )
        patterns = await asyncio.to_thread(self._patterns, lines, now)
        catalogue = self._catalogue.current()
        for reading in readings:
            catalogue.discover(reading.namespaces)
        wrong = [SourceFailure("catalogue", self._catalogue.problem)] if self._catalogue.problem else []
        # One provider may stand in several places: what is wrong in one must not be hidden by another that is well.
        health: defaultdict[str, list[SourceFailure]] = defaultdict(list, catalogue=wrong)
        bank = await self._baselines()
        async with self._store.begin() as uow:
            told_by = [(source.name, reading) for source, reading in zip(self._sources.metrics, readings, strict=True)]
            stored: list[Sample] = []
            for name, reading in [*told_by, *edges]:
                if samples := self._admitted(name, reading.samples, bank, now):
                    await uow.telemetry.save_samples(samples)
                    stored += samples
                if reading.edges:
                    await uow.telemetry.save_edges(reading.edges, now)
                self._rejected[name].update(reading.rejected)
                health[name].extend(reading.failures)
            for teller, told in zip(self._sources.changes, changes, strict=True):
                if told.changes:
                    titled = [self._titled(change) for change in told.changes]
                    await uow.telemetry.save_changes(titled)
                health[teller.name].extend(told.failures)
            for writer, written in zip(self._sources.logs, lines, strict=True):
                health[writer.name].extend(_log_failures(written))
            for name, failures in health.items():
                await uow.telemetry.save_health(name, failures, now, self._rejected[name])
            if patterns:
                await uow.telemetry.save_log_patterns([self._without_secrets(pattern) for pattern in patterns])
        return stored

    def _titled(self, change: ChangeEvent) -> ChangeEvent:
        return replace(
            change,
            title=self._redact(change.title),
            author=self._redact(change.author),
            revision=self._redact(change.revision),
        )

    def _without_secrets(self, pattern: LogPattern) -> LogPattern:
        return replace(
            pattern,
            template=self._redact(pattern.template),
            sample=redacted(pattern.sample, SAMPLE_CHARACTERS, self._redact),
        )

    def _admitted(self, source: str, samples: Sequence[Sample], bank: BaselineBank, now: datetime) -> list[Sample]:
        """Without what cannot be, and without series beyond the limit: labels that explode must not take us along."""
        admitted: list[Sample] = []
        for sample in samples:
            why = implausible(sample, bank)
            if not why and sample.key not in self._known and not self._room(now):
                why = "series beyond SRE_MAX_SERIES"
            if why:
                self._rejected[source][why] += 1
            else:
                self._known[sample.key] = now
                admitted.append(sample)
        return admitted

    def _room(self, now: datetime) -> bool:
        """Whether one more series may be taken; those of replicas that are gone make room."""
        if len(self._known) >= self._max_series:
            since = now - timedelta(seconds=SERIES_GONE_S)
            self._known = {key: at for key, at in self._known.items() if at > since}
        return len(self._known) < self._max_series

    async def _edges(self, now: datetime) -> list[tuple[str, Reading]]:
        if self._topology_at is not None and (now - self._topology_at).total_seconds() < TOPOLOGY_EVERY_S:
            return []
        self._topology_at = now
        since = now - timedelta(seconds=TOPOLOGY_WINDOW_S)
        found = await asyncio.gather(
            *(ask(one.name, one.edges(since, now), Reading, SOURCE_DEADLINE_S) for one in self._sources.topology)
        )
        return [(source.name, reading) for source, reading in zip(self._sources.topology, found, strict=True)]

    async def _changes(self, now: datetime) -> Sequence[ChangeReading]:
        since, until = now - timedelta(seconds=CHANGES_WINDOW_S), now + timedelta(seconds=1)
        return await asyncio.gather(
            *(
                ask(one.name, one.changes(since, until), ChangeReading, SOURCE_DEADLINE_S)
                for one in self._sources.changes
            )
        )

    async def _lines(self, now: datetime) -> Sequence[LogReading]:
        """Each source from where its last reading that succeeded ended: what could not be read is read later."""
        until = now - timedelta(seconds=LOG_LAG_S)
        oldest = until - timedelta(seconds=LOG_CATCH_UP_S)
        since = [max(self._logs_until.get(at, oldest), oldest) for at in range(len(self._sources.logs))]
        readings = await asyncio.gather(
            *(
                ask(one.name, one.tail(begin, until, limit=LOG_LINES), LogReading, SOURCE_DEADLINE_S)
                for one, begin in zip(self._sources.logs, since, strict=True)
            )
        )
        self._logs_until |= {at: until for at, reading in enumerate(readings) if not reading.failures}
        return readings

    def _patterns(self, readings: Sequence[LogReading], now: datetime) -> list[LogPattern]:
        for line in sorted((line for reading in readings for line in reading.lines), key=lambda line: line.at):
            self._logs.update(line.at.timestamp(), line.service, line.text)
        return [
            LogPattern(
                service=ServiceName(finding.service),
                template=finding.template,
                kind=finding.kind,
                started_at=datetime.fromtimestamp(finding.started_at, UTC),
                seen_at=now,
                count=finding.count,
                expected=finding.expected,
                sample=finding.sample_line,
            )
            for finding in self._logs.findings(now.timestamp())
        ]


def _log_failures(reading: LogReading) -> tuple[SourceFailure, ...]:
    if not reading.truncated:
        return reading.failures
    flood = SourceFailure(
        "flood", f"more than {LOG_LINES} lines since the last reading; only the newest were looked at"
    )
    return (*reading.failures, flood)
