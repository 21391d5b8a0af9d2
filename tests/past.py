"""Made-up hours of telemetry: what the store would hold of them, and the question that an investigation makes of it."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import cached_property
from typing import Any, cast

from executors.targets.registry import Registry
from pipeline.domain.anomaly import Anomaly, DetectionSettings, detect
from pipeline.domain.baseline import BaselineBank
from pipeline.domain.catalogue import Catalogue, Service
from pipeline.domain.changes import ChangeEvent, ChangeKind
from pipeline.domain.ids import ServiceName
from pipeline.domain.logs import LogLine, LogPattern, LogReading
from pipeline.domain.telemetry import CallEdge, Sample, SeriesKey, Signal
from pipeline.domain.topology import DependencyGraph
from pipeline.ports.knowledge import Found, Knowledge, KnowledgeQuery
from pipeline.ports.logs import LogsSource
from pipeline.ports.model import Question
from pipeline.ports.store import Store, UnitOfWork
from pipeline.ports.traces import TracesSource
from pipeline.stages.investigate import Dossier, Investigator
from pipeline.stages.reads import Ports
from pipeline.stages.toolbox import ToolLimits
from pipeline.stages.witnesses import Witnesses

WEB, CHECKOUT, PAYMENTS, DB = (ServiceName(name) for name in ("web", "checkout", "payments", "db"))
STEP_S = 20.0
Shape = Callable[[float], float]
"""Value by minutes relative to the moment the trouble begins; negative is before."""
USUAL = {
    Signal.LATENCY_P99: 0.1,
    Signal.TRAFFIC: 10.0,
    Signal.ERROR_RATIO: 0.002,
    Signal.MEMORY_RATIO: 0.45,
    Signal.CPU_RATIO: 0.3,
    Signal.DISK_RATIO: 0.3,
    Signal.CERT_REMAINING: 60 * 86_400.0,
}


def jump(before: float, after: float, at: float = 0.0) -> Shape:
    """From one level to another."""
    return lambda minute: after if minute >= at else before


def ramp(before: float, per_min: float, *, top: float = 0.97, at: float = 0.0) -> Shape:
    """Growth from ``at`` on, up to ``top``."""
    return lambda minute: min(top, before + max(0.0, minute - at) * per_min)


@dataclass
class Past:
    """Seventy minutes that end now; the trouble begins ``ago_min`` before the end."""

    ago_min: float = 8.0
    now: datetime = datetime(2026, 11, 20, 14, 30, tzinfo=UTC)
    edges: Sequence[tuple[ServiceName, ServiceName]] = ((WEB, CHECKOUT), (CHECKOUT, PAYMENTS), (PAYMENTS, DB))
    settings: DetectionSettings = field(
        default_factory=lambda: DetectionSettings(
            memory_sustain_s=60, latency_sustain_s=60, error_sustain_s=60, disk_sustain_s=60, traffic_sustain_s=60
        )
    )
    samples: dict[SeriesKey, list[Sample]] = field(default_factory=dict)
    usual: dict[SeriesKey, float] = field(default_factory=dict)
    told_changes: list[ChangeEvent] = field(default_factory=list)
    patterns: list[LogPattern] = field(default_factory=list)
    lines: list[LogLine] = field(default_factory=list)

    @cached_property
    def bank(self) -> BaselineBank:
        """Baselines that have seen enough of what is usual; made when they are first asked for."""
        bank, wobble, keys = BaselineBank(), random.Random(7), list(self.usual)
        for _ in range(40):
            values = [self.usual[key] * (1 + 0.06 * wobble.gauss(0, 1)) for key in keys]
            bank.learn(keys, values, self.now - timedelta(minutes=71))
        return bank

    @property
    def began(self) -> datetime:
        return self.now - timedelta(minutes=self.ago_min)

    def series(
        self,
        service: ServiceName,
        signal: Signal,
        shape: Shape | None = None,
        instance: str = "",
        *,
        noise: float = 0.03,
    ) -> Past:
        """Samples every twenty seconds, with a baseline around the usual value."""
        key, usual = SeriesKey(service, signal, instance), USUAL[signal]
        wobble = random.Random(f"{service} {signal} {instance}")
        times = [self.now - timedelta(seconds=STEP_S * at) for at in range(int(70 * 60 / STEP_S), -1, -1)]
        values = []
        for at in times:
            minute = (at - self.began).total_seconds() / 60
            if signal is Signal.CERT_REMAINING:
                values.append((shape(minute) if shape else usual) - minute * 60)
            else:
                values.append((shape(minute) if shape else usual) * (1 + noise * wobble.uniform(-1, 1)))
        self.samples[key] = [Sample(key, at, value) for at, value in zip(times, values, strict=True)]
        if signal not in (Signal.CERT_REMAINING, Signal.DISK_RATIO):
            self.usual[key] = usual
        return self

    def service(self, service: ServiceName, replicas: int = 2, **shapes: Shape) -> Past:
        """The usual series of a service; ``shapes`` by signal, those of a replica as ``memory_ratio_1``."""
        for signal in (Signal.LATENCY_P99, Signal.TRAFFIC, Signal.ERROR_RATIO):
            self.series(service, signal, shapes.get(signal.value))
        for number in range(1, replicas + 1):
            for signal in (Signal.MEMORY_RATIO, Signal.CPU_RATIO):
                shape = shapes.get(f"{signal.value}_{number}", shapes.get(signal.value))
                self.series(service, signal, shape, f"{service}-{number}")
        return self

    def change(
        self,
        service: ServiceName,
        minute: float,
        title: str = "raise pool size",
        kind: ChangeKind = ChangeKind.DEPLOYMENT,
    ) -> Past:
        at = self.began + timedelta(minutes=minute)
        revision = f"{len(self.told_changes):x}f2a91c0ffee00"
        self.told_changes.append(ChangeEvent(service, at, kind, revision, title, "Dana"))
        return self

    def pattern(self, service: ServiceName, minute: float, template: str) -> Past:
        at = self.began + timedelta(minutes=minute)
        self.patterns.append(LogPattern(service, template, "new", at, self.now, 40, 0.0, template))
        return self

    def line(self, service: ServiceName, minute: float, text: str, instance: str = "") -> Past:
        self.lines.append(LogLine(self.began + timedelta(minutes=minute), service, text, instance))
        return self

    def anomalies(self) -> list[Anomaly]:
        """What detection sees in the newest samples."""
        window = {key: samples[-80:] for key, samples in self.samples.items()}
        result = detect(window, self.bank, self.settings, self.now, changes=self.told_changes)
        return sorted(result.anomalies, key=lambda one: one.key)

    def ports(
        self,
        *,
        store: Store | None = None,
        traces: Sequence[TracesSource] = (),
        logs: Sequence[LogsSource] | None = None,
        knowledge: Knowledge | None = None,
    ) -> Ports:
        return Ports(
            store or PastStore(self),
            Registry({}),
            Catalogue({CHECKOUT: Service()}),
            Witnesses(traces, (), (PastLogs(self),) if logs is None else logs),
            knowledge or Shelf(),
        )

    async def dossier(
        self,
        service: ServiceName = CHECKOUT,
        anomalies: Sequence[Anomaly] | None = None,
        *,
        ports: Ports | None = None,
        limits: ToolLimits | None = None,
    ) -> Dossier:
        found = self.anomalies() if anomalies is None else anomalies
        own_first = sorted(found, key=lambda one: one.key.service != service)
        investigator = Investigator(ports or self.ports(), self.settings, limits)
        return await investigator.gather(service, own_first, self.bank, self.now)

    async def question(self, service: ServiceName = CHECKOUT, anomalies: Sequence[Anomaly] | None = None) -> Question:
        """As the diagnosing stage puts it."""
        found = self.anomalies() if anomalies is None else list(anomalies)
        own_first = sorted(found, key=lambda one: one.key.service != service)
        dossier = await self.dossier(service, own_first)
        return Question(service, own_first, dossier.evidence, (), dossier.facts, dossier.tools)


class PastLogs(LogsSource):
    """The lines of a past."""

    def __init__(self, past: Past) -> None:
        self._past = past

    @property
    def name(self) -> str:
        return "past logs"

    async def tail(self, since: datetime, until: datetime, *, limit: int) -> LogReading:
        return LogReading()

    async def search(
        self, service: ServiceName, text: str, since: datetime, until: datetime, *, limit: int
    ) -> LogReading:
        found = [
            one for one in self._past.lines if one.service == service and text in one.text and since <= one.at < until
        ]
        return LogReading(tuple(found[-limit:]), truncated=len(found) > limit)

    async def close(self) -> None:
        return


class Shelf(Knowledge):
    """Knows what it is given."""

    def __init__(self, found: Found | None = None) -> None:
        self._found = found or Found()

    async def search(self, query: KnowledgeQuery, *, limit: int) -> Found:
        return self._found


class PastStore(Store):
    """Telemetry of a past, read only. ``test_investigate`` holds it against the real store."""

    def __init__(self, past: Past) -> None:
        self._past = past
        self.transactions = 0

    @asynccontextmanager
    async def begin(self) -> AsyncIterator[UnitOfWork]:
        self.transactions += 1
        yield cast(UnitOfWork, _PastUnit(_PastTelemetry(self._past)))


@dataclass
class _PastUnit:
    telemetry: _PastTelemetry


class _PastTelemetry:
    def __init__(self, past: Past) -> None:
        self._past = past

    async def graph(self, *, max_age_s: float) -> DependencyGraph:
        return DependencyGraph.of(CallEdge(caller, callee, 1.0) for caller, callee in self._past.edges)

    async def service_window(self, service: ServiceName, since: datetime) -> Mapping[SeriesKey, Sequence[Sample]]:
        return {
            key: [sample for sample in samples if sample.at >= since]
            for key, samples in self._past.samples.items()
            if key.service == service
        }

    async def changes(self, since: datetime) -> Sequence[ChangeEvent]:
        return sorted((one for one in self._past.told_changes if one.at >= since), key=lambda one: one.at)

    async def log_patterns(self, service: ServiceName, since: datetime) -> Sequence[LogPattern]:
        return [one for one in self._past.patterns if one.service == service and one.seen_at >= since]

    async def health(self) -> Sequence[Any]:
        return ()
