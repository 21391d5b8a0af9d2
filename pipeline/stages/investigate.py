"""Gathering what a diagnosis may rest on: every fact with its query and window, every read with its latency."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import TypeVar

from pipeline.domain.action import ActionKind
from pipeline.domain.anomaly import SENSITIVITY, Anomaly, DetectionSettings
from pipeline.domain.baseline import BaselineBank
from pipeline.domain.diagnosis import Evidence, Sign
from pipeline.domain.facts import Facts
from pipeline.domain.ids import ServiceName
from pipeline.domain.plan import TargetState
from pipeline.domain.redaction import Redactor
from pipeline.domain.telemetry import Sample, SeriesKey, Signal, newest_value
from pipeline.domain.topology import DependencyGraph
from pipeline.domain.trace import JsonValue, TraceEntry, TraceKind
from pipeline.ports.toolbox import Toolbox
from pipeline.stages.findings import (
    Ledger,
    Window,
    of_anomaly,
    of_pattern,
    of_remedy_in_vain,
    of_series,
    of_target,
    of_topology,
    series_facts,
    worst_first,
)
from pipeline.stages.judging import Judge, Judged, back_inside, slope, window_of
from pipeline.stages.reads import Ports, Reads, Seen, change_facts, neighbours, observe, read_store, thinner
from pipeline.stages.suspects import HISTORY_S, in_words, suspects
from pipeline.stages.toolbox import IncidentTools, ToolLimits

LOOK_BACK_S = 600.0
MOST_HISTORY_S = 6 * 3600.0
"""However long trouble has lasted: samples further back tell little about its beginning, and are many."""
PATTERNS = 5
NEIGHBOUR_FACTS = 3
"""Facts about each neighbour, the abnormal ones first."""
OWN_FACTS = 24
OTHER_CHANGES = 3
RANKED_SAMPLES = 120
"""Of each series for the ranking, which compares levels: more cost time and change no place."""
_T = TypeVar("_T")
_TOLD_OF_CALLEES = frozenset({Signal.LATENCY_P99, Signal.ERROR_RATIO})


@dataclass(frozen=True, slots=True)
class Dossier:
    """What was found. ``target_problem`` says why ``target`` is None, when it is; ``blind`` names what gave nothing.

    ``tools`` read more about the same moment; their evidence goes on where ``evidence`` ends.
    """

    evidence: tuple[Evidence, ...]
    facts: Facts
    target: TargetState | None
    target_problem: str
    entries: tuple[TraceEntry, ...]
    graph: DependencyGraph
    tools: Toolbox
    blind: tuple[str, ...] = ()


class Investigator:
    """Reads the store, the graph, the providers and the target; decides nothing."""

    def __init__(
        self,
        ports: Ports,
        settings: DetectionSettings,
        limits: ToolLimits | None = None,
        redactor: Redactor | None = None,
    ) -> None:
        """``redactor`` takes secrets out of every fact before anybody sees it."""
        self._redactor = redactor
        if redactor is not None:
            witnesses = ports.witnesses.without_secrets(lambda text: redactor.text(text).text)
            ports = replace(ports, witnesses=witnesses)
        self._ports = ports
        self._settings = settings
        self._limits = limits or ToolLimits()

    async def gather(
        self,
        service: ServiceName,
        anomalies: Sequence[Anomaly],
        bank: BaselineBank,
        now: datetime,
        *,
        look_back_s: float = LOOK_BACK_S,
        in_vain: Sequence[ActionKind] = (),
    ) -> Dossier:
        """The dossier of ``service``: as it is now, over the ``look_back_s`` seconds before ``now``, and of the hour
        before the first anomaly, where there are any. ``in_vain``: what was done about it already and did not help."""
        window = Window(now - timedelta(seconds=look_back_s), now)
        judge = self._judge(bank, now)
        began = min((anomaly.started_at for anomaly in anomalies), default=now)
        others = {anomaly.key.service for anomaly in anomalies} - {service}
        since = max(min(began - timedelta(seconds=HISTORY_S), window.since), now - timedelta(seconds=MOST_HISTORY_S))
        (seen, seen_ms), (observed, observed_ms), testimony = await asyncio.gather(
            _timed(read_store(self._ports.store, service, others, since, now)),
            _timed(observe(self._ports, service)),
            self._ports.witnesses.hear(service, window),
        )
        target, problem = observed
        entries = [
            _call("query_metrics", f"{service} and {len(neighbours(seen.graph, service))} neighbours", seen_ms, "ok"),
            _call("observe_target", service, observed_ms, problem or "ok"),
            *testimony.entries,
        ]
        started = time.monotonic()
        notes = _Notes(window, Ledger(0, self._redactor))
        judged = _judged(notes, service, anomalies, seen, judge, Window(since, now))
        _around(notes, service, seen, window, since)
        if target is not None:
            notes.add(of_target(target, service, window))
        for kind in in_vain:
            notes.add(of_remedy_in_vain(kind, service, window))
        if ranking := await _ranked(anomalies, seen, began):
            query = f"rank over {service} and its neighbours"
            notes.add(window.fact("ranking", f"root cause ranking: {ranking}", query, service))
        for item in testimony.items:
            notes.add(item)
        entries.append(_call("judge", f"{len(seen.window)} series", (time.monotonic() - started) * 1000, "ok"))
        blind = [f"{one.source} gave nothing: {'; '.join(one.failures)}" for one in seen.health if one.failures]
        facts = self._facts(service, anomalies, seen, judged, target, judge)
        facts = replace(facts, in_vain=tuple(in_vain), began=began if anomalies else None)
        services = {key.service for key in bank} | {service, *others}
        more = Reads(self._ports, judge, services, graph=seen.graph, about=service)
        tools = IncidentTools(more, notes.ledger, self._limits)
        return Dossier(
            tuple(notes.items),
            facts,
            target,
            problem,
            tuple(entries),
            seen.graph,
            tools,
            tuple(dict.fromkeys((*blind, *testimony.blind))),
        )

    def toolbox(self, bank: BaselineBank, now: datetime, *, taken: int) -> Toolbox:
        """Tools for a question about what is recorded already; ids go on after ``taken``, the highest in use."""
        reads = Reads(self._ports, self._judge(bank, now), {key.service for key in bank})
        return IncidentTools(reads, Ledger(taken, self._redactor), self._limits)

    def _judge(self, bank: BaselineBank, now: datetime) -> Judge:
        catalogue = self._ports.catalogue
        return Judge(bank, self._settings, lambda name, signal: SENSITIVITY[catalogue.sensitivity(name, signal)], now)

    def _facts(
        self,
        service: ServiceName,
        anomalies: Sequence[Anomaly],
        seen: Seen,
        judged: Mapping[SeriesKey, Judged],
        target: TargetState | None,
        judge: Judge,
    ) -> Facts:
        latest = judge.now - timedelta(seconds=LOOK_BACK_S)
        memory = {
            key.instance: window_of(samples, latest)
            for key, samples in seen.window.items()
            if key.service == service and key.signal is Signal.MEMORY_RATIO
        }
        memory = {instance: samples for instance, samples in memory.items() if samples}
        worst = max(memory.values(), key=lambda samples: samples[-1].value, default=[])
        callees = seen.graph.callees(service)
        return Facts(
            traffic_ratio=_ratio(judged, SeriesKey(service, Signal.TRAFFIC)),
            latency_ratio=_ratio(judged, SeriesKey(service, Signal.LATENCY_P99)),
            error_ratio=newest_value(seen.window, SeriesKey(service, Signal.ERROR_RATIO)),
            memory_ratio_by_instance={instance: samples[-1].value for instance, samples in memory.items()},
            memory_slope_per_min=slope(worst) if len(worst) >= 3 else None,
            slow_callees=tuple(
                sorted(
                    key.service
                    for key, one in judged.items()
                    if key.service in callees and key.signal is Signal.LATENCY_P99 and one.sign is Sign.ABNORMAL
                )
            ),
            replicas=target.replicas if target else None,
            recent_changes=tuple(change for change in seen.changes if change.service == service),
            recovered=bool(anomalies)
            and all(
                back_inside(seen.window.get(one.key, ()), one.bound.breached, judge.now, self._settings.clear_after_s)
                for one in anomalies
            ),
        )


class _Notes:
    """Evidence in the order it was found."""

    def __init__(self, window: Window, ledger: Ledger) -> None:
        self.window = window
        self.ledger = ledger
        self.items: list[Evidence] = []

    def add(self, fact: Evidence) -> None:
        item, new = self.ledger.add(fact)
        if new:
            self.items.append(item)


def _judged(
    notes: _Notes, service: ServiceName, anomalies: Sequence[Anomaly], seen: Seen, judge: Judge, history: Window
) -> dict[SeriesKey, Judged]:
    """Notes the anomalies, all series of the service, and of its neighbours what is abnormal or may be waited for.

    Returns every series that was judged.
    """
    for anomaly in anomalies:
        notes.add(of_anomaly(anomaly, seen.window.get(anomaly.key, ()), judge.now))
    told = {anomaly.key for anomaly in anomalies}
    judged: dict[SeriesKey, Judged] = {}
    by_service: dict[ServiceName, dict[SeriesKey, Sequence[Sample]]] = {service: {}}
    for key, samples in seen.window.items():
        by_service.setdefault(key.service, {})[key] = samples
    callees = seen.graph.callees(service)
    for name, series in by_service.items():
        if name == service:
            facts, all_judged = series_facts(series, judge, history, told=told)
            facts = worst_first(facts)[:OWN_FACTS]
        else:
            wanted = _callee_matters if name in callees else _stands_out
            facts, all_judged = series_facts(series, judge, history, told=told, matters=wanted)
            facts = [fact for fact in worst_first(facts) if fact.sign is not Sign.STATED][:NEIGHBOUR_FACTS]
        judged.update({one.key: one for one in all_judged})
        for fact in facts:
            notes.add(fact)
    for anomaly in anomalies:
        one = judged.get(anomaly.key)
        if one is not None and one.sign is not Sign.ABNORMAL:
            # It was the matter, and is not any more: that has to be told beside the anomaly.
            notes.add(of_series(one, seen.window[anomaly.key], history))
    return judged


def _stands_out(judged: Judged) -> bool:
    return judged.sign in (Sign.ABNORMAL, Sign.HAPPENED)


def _callee_matters(judged: Judged) -> bool:
    return _stands_out(judged) or judged.key.signal in _TOLD_OF_CALLEES


def _around(notes: _Notes, service: ServiceName, seen: Seen, window: Window, since: datetime) -> None:
    """Who calls whom, what was changed, what the logs say."""
    about = of_topology(service, seen.graph, window)
    if about is not None:
        notes.add(about)
    near = {service, *seen.graph.callees(service), *seen.graph.callers(service)}
    history = Window(since, window.until)
    for fact in change_facts(seen.changes, near, history):
        notes.add(fact)
    elsewhere = [change for change in seen.changes if change.service not in near][-OTHER_CHANGES:]
    for fact in change_facts(elsewhere, None, history):
        notes.add(fact)
    for pattern in seen.patterns[:PATTERNS]:
        notes.add(of_pattern(pattern, history))


def _ratio(judged: Mapping[SeriesKey, Judged], key: SeriesKey) -> float | None:
    return judged[key].ratio if key in judged else None


async def _ranked(anomalies: Sequence[Anomaly], seen: Seen, began: datetime) -> str:
    """The likeliest root causes among the service and its neighbours; empty without anomalies or history."""
    if not anomalies:
        return ""
    history = {key: thinner(samples, RANKED_SAMPLES) for key, samples in seen.window.items()}
    ranking = await asyncio.to_thread(suspects, history, began, seen.graph)
    return in_words(ranking) if ranking is not None else ""


async def _timed(reading: Awaitable[_T]) -> tuple[_T, float]:
    started = time.monotonic()
    return await reading, (time.monotonic() - started) * 1000


def _call(tool: str, about: str, latency_ms: float, status: str) -> TraceEntry:
    data: dict[str, JsonValue] = {"tool": tool, "about": about, "status": status, "latency_ms": round(latency_ms, 1)}
    return TraceEntry(TraceKind.TOOL_CALL, f"{tool}({about}): {status}, {latency_ms:.0f} ms", data)


def describe_dossier(dossier: Dossier) -> str:
    """The evidence as lines for a person."""
    lines = [f"[{item.id}] {item.statement}" for item in dossier.evidence]
    if dossier.target_problem:
        lines.append(f"Target: {dossier.target_problem}")
    lines += [f"Blind: {what}" for what in dossier.blind]
    return "\n".join(lines) or "No samples of this service in the last ten minutes."
