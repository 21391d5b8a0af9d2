"""Runs one recorded case through the real pipeline: the clock is set step by step, everything else is as in service."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import groupby

from bot.eval_cases import RecordedCase
from pipeline.domain.baseline import BaselineBank
from pipeline.domain.detection.logs import LogDetector
from pipeline.domain.diagnosis import Category, Conclusion, Diagnosis, Evidence
from pipeline.domain.ids import incident_label
from pipeline.domain.incident import Case
from pipeline.domain.lifecycle import IncidentState
from pipeline.domain.phase import Phase
from pipeline.domain.telemetry import Sample
from pipeline.domain.trace import JsonValue, StoredTraceEntry, TraceKind
from pipeline.ports.clock import Clock
from pipeline.ports.store import Store
from pipeline.stages.correlate import Correlator
from pipeline.stages.detect import LOOK_BACK_S, Detector
from pipeline.stages.diagnose import Diagnoser
from pipeline.stages.observe import LOG_CATCH_UP_S, LOG_LAG_S, Observer

MOST_INCIDENTS = 50
MOST_TURNS = 20
"""Incidents diagnosed at one tick: more than these wait for the next, as they would for a worker."""
LEASE_S = 3600.0
_RANKED = re.compile(r"\d+\. (\S+) \(\d+ ?%\)")


class RecordedClock(Clock):
    """Says what it is told."""

    def __init__(self, at: datetime) -> None:
        self._at = at

    def now(self) -> datetime:
        return self._at

    def set(self, at: datetime) -> None:
        self._at = at


@dataclass(frozen=True, slots=True)
class Bench:
    """What a case is run with: the real stages over the sources, the targets and the store of that case alone."""

    store: Store
    clock: RecordedClock
    set_store_clock: Callable[[datetime], Awaitable[None]]
    logs: LogDetector
    observer: Observer
    detector: Detector
    correlator: Correlator
    diagnoser: Diagnoser


@dataclass(frozen=True, slots=True)
class Told:
    """One incident as it stood at the end. ``root``: the service that the causal path begins with."""

    label: str
    service: str
    root: str
    category: Category
    conclusion: Conclusion | None
    """None: it was never diagnosed."""
    cause: str
    said: tuple[str, ...]
    """Everything that is said as true: the cause, the claims that were kept, the steps of the path."""
    cited: tuple[Evidence, ...]
    path_holds: bool
    path_problem: str
    confidence: float
    severity: str
    offered: bool
    """An Approve button was there."""
    why_not_offered: str
    folded: bool
    """It turned out to be a symptom of another one, and was closed."""
    suspects: tuple[str, ...]
    """Services in the order in which the incident blames them."""
    source: str
    tokens_in: int
    tokens_out: int


@dataclass(frozen=True, slots=True)
class Run:
    """What came of a case: incidents in the order in which they were opened."""

    told: tuple[Told, ...]
    seconds: float
    diagnosis_s: float
    """Of ``seconds``, what the diagnoses took."""


async def run_case(case: RecordedCase, bench: Bench) -> Run:
    """Learns the history, replays the window tick by tick, and reads what the store says in the end."""
    started = time.monotonic()
    await _learn(case, bench)
    diagnosis_s = 0.0
    for at in case.moments():
        await _tell_time(bench, at)
        fresh = await bench.observer.run(at)
        result = await bench.detector.run(at, reload=False, fresh=fresh)
        if await bench.correlator.run(result, await bench.detector.bank(), at):
            diagnosis_s += await _diagnose(
                bench, (case.alert.name,) if case.alert is not None and case.alert.name else ()
            )
    told = await _told(bench.store)
    return Run(told, time.monotonic() - started, diagnosis_s)


async def _tell_time(bench: Bench, at: datetime) -> None:
    bench.clock.set(at)
    await bench.set_store_clock(at)


async def _learn(case: RecordedCase, bench: Bench) -> None:
    await _tell_time(bench, case.begin)
    past = [sample for sample in case.recording.samples if sample.at <= case.begin]
    bank = await asyncio.to_thread(learned, past)
    kept = [sample for sample in past if sample.at > case.begin - timedelta(seconds=LOOK_BACK_S)]
    async with bench.store.begin() as uow:
        await uow.control.set_phase(Phase.ASSIST, "evaluation", "sre-bot eval")
        await uow.telemetry.save_baselines(bank.rows(list(bank)))
        await uow.telemetry.save_samples(kept)
    # What the first tick catches up with would be counted twice.
    read_later = next(case.moments()) - timedelta(seconds=LOG_LAG_S + LOG_CATCH_UP_S)
    for line in case.recording.lines or ():
        if line.at < read_later:
            bench.logs.update(line.at.timestamp(), line.service, line.text)


def learned(past: Iterable[Sample]) -> BaselineBank:
    """The baselines after ``past``, samples oldest first."""
    bank = BaselineBank()
    for at, group in groupby(past, key=lambda sample: sample.at):
        samples = list(group)
        bank.learn([sample.key for sample in samples], [sample.value for sample in samples], at)
    return bank


async def _diagnose(bench: Bench, alerts: Sequence[str]) -> float:
    """Works off what is open, as the worker does; the seconds it took."""
    started = time.monotonic()
    for _ in range(MOST_TURNS):
        async with bench.store.begin() as uow:
            incident = await uow.incidents.claim(
                (IncidentState.OPEN, IncidentState.DIAGNOSING), worker="eval", lease_s=LEASE_S
            )
        if incident is None:
            break
        await bench.diagnoser.run(incident, await bench.detector.bank(), alerts=alerts)
        async with bench.store.begin() as uow:
            await uow.incidents.release(incident.id, worker="eval")
    return time.monotonic() - started


async def _told(store: Store) -> tuple[Told, ...]:
    found: list[Told] = []
    async with store.begin() as uow:
        for incident in sorted(await uow.incidents.recent(MOST_INCIDENTS), key=lambda one: one.id):
            case = await uow.incidents.case(incident.id)
            if case is not None:
                found.append(_of(case, await uow.trace.read(incident.id)))
    return tuple(found)


def _of(case: Case, trail: Sequence[StoredTraceEntry]) -> Told:
    incident, diagnosis = case.incident, case.diagnosis
    moved = [stored.entry.data.get("to") for stored in trail if stored.entry.kind is TraceKind.LIFECYCLE]
    offered = IncidentState.AWAITING_DECISION.value in moved
    exchanges = [stored.entry.data for stored in trail if stored.entry.kind in (TraceKind.PROMPT, TraceKind.REVIEW)]
    return Told(
        label=incident_label(incident.id),
        service=incident.service,
        root=_root(case),
        category=diagnosis.category if diagnosis is not None else Category.UNKNOWN,
        conclusion=diagnosis.conclusion if diagnosis is not None else None,
        cause=diagnosis.root_cause if diagnosis is not None else "",
        said=_said(diagnosis) if diagnosis is not None else (),
        cited=_cited(case),
        path_holds=diagnosis is not None and diagnosis.path.holds,
        path_problem=diagnosis.path.why_not() if diagnosis is not None else "not diagnosed",
        confidence=diagnosis.confidence.score if diagnosis is not None else 0.0,
        severity=incident.severity.value,
        offered=offered,
        why_not_offered="" if offered else incident.outcome,
        folded=incident.outcome.startswith("folded into"),
        suspects=_suspects(case, trail),
        source=diagnosis.source if diagnosis is not None else "",
        tokens_in=sum(tokens(exchange, "input_tokens") for exchange in exchanges),
        tokens_out=sum(tokens(exchange, "output_tokens") for exchange in exchanges),
    )


def _root(case: Case) -> str:
    diagnosis = case.diagnosis
    if diagnosis is not None and diagnosis.path.steps:
        return diagnosis.path.steps[0].service
    return case.incident.service


def _said(diagnosis: Diagnosis) -> tuple[str, ...]:
    steps = [step.what for step in diagnosis.path.steps]
    return (diagnosis.root_cause, *(claim.text for claim in diagnosis.claims), *steps)


def _cited(case: Case) -> tuple[Evidence, ...]:
    if case.diagnosis is None:
        return ()
    names = {name for claim in case.diagnosis.claims for name in claim.ids}
    names |= {name for step in case.diagnosis.path.steps for name in step.evidence}
    return tuple(item for item in case.evidence if item.id in names)


def _suspects(case: Case, trail: Sequence[StoredTraceEntry]) -> tuple[str, ...]:
    ranked = [name for item in case.evidence if item.kind == "ranking" for name in _RANKED.findall(item.statement)]
    candidates: list[str] = []
    for stored in trail:
        if stored.entry.kind is TraceKind.DETECTED and isinstance(told := stored.entry.data.get("candidates"), list):
            candidates += [str(one["service"]) for one in told if isinstance(one, dict) and "service" in one]
    return tuple(dict.fromkeys([_root(case), *ranked, *candidates]))


def tokens(exchange: Mapping[str, JsonValue], name: str) -> int:
    """The tokens that an exchange in the trail says were used."""
    usage = exchange.get("usage")
    count = usage.get(name) if isinstance(usage, dict) else None
    return count if isinstance(count, int) else 0
