"""Gathering what a diagnosis may rest on: every fact with its query and window, every read with its latency."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass
from datetime import datetime, timedelta

import numpy as np

from executors.guardrails.inputs import GRAPH_MAX_AGE_S
from pipeline.domain.anomaly import Anomaly, DetectionSettings, bound_for
from pipeline.domain.baseline import BaselineBank
from pipeline.domain.catalogue import Catalogue
from pipeline.domain.changes import ChangeEvent
from pipeline.domain.diagnosis import Evidence, EvidenceKind
from pipeline.domain.errors import PermanentError, TemporaryError
from pipeline.domain.facts import Facts
from pipeline.domain.ids import EvidenceId, ServiceName
from pipeline.domain.plan import TargetState
from pipeline.domain.telemetry import Sample, SeriesKey, Signal, format_value, newest_value
from pipeline.domain.topology import DependencyGraph
from pipeline.domain.trace import TraceEntry, TraceKind
from pipeline.ports.store import Store
from pipeline.ports.targets import Targets
from pipeline.stages.suspects import HISTORY_S, in_words, suspects
from pipeline.stages.witnesses import Witnesses

LOOK_BACK_S = 600.0
CHANGES_LOOK_BACK_S = 3600.0
"""A regression shows at once or with the next peak of load; an hour holds most of both."""
PATTERNS = 5


@dataclass(frozen=True, slots=True)
class Dossier:
    """What was found. ``target_problem`` says why ``target`` is None, when it is; ``blind`` names what gave nothing."""

    evidence: tuple[Evidence, ...]
    facts: Facts
    target: TargetState | None
    target_problem: str
    entries: tuple[TraceEntry, ...]
    blind: tuple[str, ...] = ()


class Investigator:
    """Reads the store, the graph and the target; decides nothing."""

    def __init__(
        self, store: Store, targets: Targets, catalogue: Catalogue, settings: DetectionSettings, witnesses: Witnesses
    ) -> None:
        self._witnesses = witnesses
        self._store = store
        self._targets = targets
        self._catalogue = catalogue
        self._settings = settings

    async def gather(
        self,
        service: ServiceName,
        anomalies: Sequence[Anomaly],
        bank: BaselineBank,
        now: datetime,
        *,
        look_back_s: float = LOOK_BACK_S,
    ) -> Dossier:
        """The dossier of ``service`` over the ``look_back_s`` seconds before ``now``."""
        since = now - timedelta(seconds=look_back_s)
        started = time.monotonic()
        async with self._store.begin() as uow:
            graph = await uow.telemetry.graph(max_age_s=GRAPH_MAX_AGE_S)
            window = dict(await uow.telemetry.service_window(service, since))
            callees = sorted(graph.callees(service))
            for callee in callees:
                window.update(await uow.telemetry.service_window(callee, since))
            changes = await uow.telemetry.changes(now - timedelta(seconds=CHANGES_LOOK_BACK_S))
            patterns = await uow.telemetry.log_patterns(service, since)
            health = await uow.telemetry.health()
        entries = [_call("query_metrics", f"{service} and {len(callees)} callees", started, "ok")]
        started = time.monotonic()
        target, problem = await self._observe(service)
        entries.append(_call("observe_target", service, started, problem or "ok"))
        notes = _Notes(since, now)
        for anomaly in anomalies:
            notes.anomaly(anomaly)
        self._signals(notes, service, window, bank)
        grower, slope, span_min = _worst_slope(window, service)
        if slope is not None:
            notes.add(
                "metric",
                f"memory use of {grower} grows by {slope * 100:.1f} % of its limit a minute, over the last"
                f" {span_min:.1f} min",
                f'deriv(memory_ratio{{service="{service}", instance="{grower}"}})',
                grower,
            )
        slow = self._callees(notes, callees, window, bank)
        _topology(notes, service, graph)
        if target is not None:
            notes.add(
                "target",
                f"{target.ref.describe()} wants {target.replicas} replicas, {target.ready} ready,"
                f" generation {target.generation}",
                f"observe {target.ref.platform} {target.ref.describe()}",
                target.ref.name,
            )
        _changes(notes, {service, *callees}, changes)
        for pattern in patterns[:PATTERNS]:
            notes.add("log", f"logs of {service}: {pattern.describe()}", f"log patterns of {service}", service)
        if anomalies and (ranking := await self._ranking(service, anomalies, graph)):
            notes.add("ranking", f"root cause ranking: {ranking}", f"rank over {service} and its neighbours", service)
        testimony = await self._witnesses.hear(service, since, now)
        entries += testimony.entries
        for item in testimony.items:
            notes.add(item.kind, item.statement, item.query, item.subject)
        blind = [f"{source.source} gave nothing: {'; '.join(source.failures)}" for source in health if source.failures]
        facts = Facts(
            traffic_ratio=_ratio(window, bank, SeriesKey(service, Signal.TRAFFIC)),
            latency_ratio=_ratio(window, bank, SeriesKey(service, Signal.LATENCY_P99)),
            error_ratio=newest_value(window, SeriesKey(service, Signal.ERROR_RATIO)),
            memory_ratio_by_instance={
                key.instance: samples[-1].value
                for key, samples in window.items()
                if key.service == service and key.signal is Signal.MEMORY_RATIO and samples
            },
            memory_slope_per_min=slope,
            slow_callees=tuple(slow),
            replicas=target.replicas if target else None,
            recent_changes=tuple(change for change in changes if change.service == service),
        )
        return Dossier(
            tuple(notes.items), facts, target, problem, tuple(entries), tuple(dict.fromkeys((*blind, *testimony.blind)))
        )

    async def _ranking(self, service: ServiceName, anomalies: Sequence[Anomaly], graph: DependencyGraph) -> str:
        """The likeliest root causes among the service and all that it calls or is called by; empty without history."""
        began = min(anomaly.started_at for anomaly in anomalies)
        around = {service, *graph.callees(service), *graph.callers(service), *(one.key.service for one in anomalies)}
        history: dict[SeriesKey, Sequence[Sample]] = {}
        async with self._store.begin() as uow:
            for neighbour in sorted(around):
                history.update(await uow.telemetry.service_window(neighbour, began - timedelta(seconds=HISTORY_S)))
        ranking = await asyncio.to_thread(suspects, history, began, graph)
        return in_words(ranking) if ranking is not None else ""

    async def _observe(self, service: ServiceName) -> tuple[TargetState | None, str]:
        address = self._catalogue[service].target
        if address is None:
            return None, f"the catalogue names no target for {service}"
        try:
            target = self._targets.for_platform(address.platform)
            return await target.observe(await target.resolve(address)), ""
        except (TemporaryError, PermanentError) as error:
            return None, str(error)

    def _signals(
        self,
        notes: _Notes,
        service: ServiceName,
        window: Mapping[SeriesKey, Sequence[Sample]],
        bank: BaselineBank,
    ) -> None:
        for key, samples in sorted(window.items()):
            if key.service == service and samples and not notes.has(key):
                notes.signal(key, samples, bank)

    def _callees(
        self,
        notes: _Notes,
        callees: Sequence[ServiceName],
        window: Mapping[SeriesKey, Sequence[Sample]],
        bank: BaselineBank,
    ) -> list[ServiceName]:
        slow: list[ServiceName] = []
        for callee in callees:
            key = SeriesKey(callee, Signal.LATENCY_P99)
            samples = window.get(key)
            if not samples:
                continue
            notes.signal(key, samples, bank)
            bound = bound_for(key, bank.expect(key, samples[-1].at), self._settings)
            if bound is not None and bound.breached(samples[-1].value):
                slow.append(callee)
        return slow


class _Notes:
    """Evidence with ids in the order it was found."""

    def __init__(self, since: datetime, now: datetime) -> None:
        self.items: list[Evidence] = []
        self._since = since
        self._now = now
        self._keys: set[SeriesKey] = set()

    def has(self, key: SeriesKey) -> bool:
        return key in self._keys

    def anomaly(self, anomaly: Anomaly) -> None:
        unit = anomaly.key.unit
        baseline = ""
        if anomaly.expected == anomaly.expected:
            baseline = f", baseline {format_value(anomaly.expected, unit)}"
            if anomaly.distance:
                baseline += f" ± {format_value(anomaly.sigma, unit)} ({anomaly.distance})"
        side = "above" if anomaly.bound.breach_above else "below"
        self._keys.add(anomaly.key)
        self.add(
            "anomaly",
            f"{anomaly.key.describe()} is {format_value(anomaly.value, unit)}, {side} its bound of"
            f" {format_value(anomaly.bound.threshold, unit)} since {anomaly.started_at:%H:%M:%S} UTC{baseline}",
            _query(anomaly.key),
            anomaly.key.instance or anomaly.key.service,
            since=anomaly.started_at,
        )

    def signal(self, key: SeriesKey, samples: Sequence[Sample], bank: BaselineBank) -> None:
        newest = samples[-1]
        expected = bank.expect(key, newest.at)
        against = "no baseline yet"
        if expected.known:
            ratio = f", {newest.value / expected.mean:.1f}× of it" if expected.mean > 0 else ""
            against = f"baseline {format_value(expected.mean, key.unit)}{ratio}"
        self._keys.add(key)
        self.add(
            "metric",
            f"{key.describe()} is {format_value(newest.value, key.unit)} ({against})",
            _query(key),
            key.instance or key.service,
        )

    def add(
        self, kind: EvidenceKind, statement: str, query: str, subject: str, *, since: datetime | None = None
    ) -> None:
        self.items.append(
            Evidence(
                EvidenceId(f"E{len(self.items) + 1}"), kind, statement, query, since or self._since, self._now, subject
            )
        )


def _query(key: SeriesKey) -> str:
    where = f'service="{key.service}"' + (f', instance="{key.instance}"' if key.instance else "")
    return f"{key.signal.value}{{{where}}}"


def _topology(notes: _Notes, service: ServiceName, graph: DependencyGraph) -> None:
    if not graph.knows(service):
        return
    callers, callees = sorted(graph.callers(service)), sorted(graph.callees(service))
    notes.add(
        "topology",
        f"{service} is called by {', '.join(callers) or 'nobody'} and calls {', '.join(callees) or 'nobody'}",
        "service graph",
        service,
    )


def _changes(notes: _Notes, services: Set[ServiceName], changes: Sequence[ChangeEvent]) -> None:
    for change in changes:
        if change.service in services:
            notes.add(
                "change", f"{change.service}: {change.describe()}", f"changes of {change.service}", change.service
            )


def _call(tool: str, about: str, started: float, status: str) -> TraceEntry:
    latency_ms = (time.monotonic() - started) * 1000
    return TraceEntry(
        TraceKind.TOOL_CALL,
        f"{tool}({about}): {status}, {latency_ms:.0f} ms",
        {"tool": tool, "about": about, "status": status, "latency_ms": round(latency_ms, 1)},
    )


def _ratio(window: Mapping[SeriesKey, Sequence[Sample]], bank: BaselineBank, key: SeriesKey) -> float | None:
    samples = window.get(key)
    if not samples:
        return None
    expected = bank.expect(key, samples[-1].at)
    return samples[-1].value / expected.mean if expected.known and expected.mean > 0 else None


def _worst_slope(window: Mapping[SeriesKey, Sequence[Sample]], service: ServiceName) -> tuple[str, float | None, float]:
    """The instance with the highest memory ratio, its least-squares growth a minute, and the minutes looked at."""
    candidates = [
        samples
        for key, samples in window.items()
        if key.service == service and key.signal is Signal.MEMORY_RATIO and len(samples) >= 3
    ]
    if not candidates:
        return "", None, 0.0
    worst = max(candidates, key=lambda samples: samples[-1].value)
    minutes = np.array([(sample.at - worst[0].at).total_seconds() / 60 for sample in worst])
    if minutes[-1] <= 0:
        return "", None, 0.0
    slope = float(np.polyfit(minutes, np.array([sample.value for sample in worst]), 1)[0])
    return worst[0].key.instance, slope, float(minutes[-1])


def describe_dossier(dossier: Dossier) -> str:
    """The evidence as lines for a person."""
    lines = [f"[{item.id}] {item.statement}" for item in dossier.evidence]
    if dossier.target_problem:
        lines.append(f"Target: {dossier.target_problem}")
    lines += [f"Blind: {what}" for what in dossier.blind]
    return "\n".join(lines) or "No samples of this service in the last ten minutes."
