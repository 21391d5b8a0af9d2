"""The demo's faults diagnosed by models: real stages, store and adapters, over HTTP to servers of both makers' formats.

Each fault is brought about once, in a database that every test gets a copy of at the moment of the first card.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from functools import cache
from typing import Any

import asyncpg
import httpcore2
import pytest
import pytest_asyncio

from pipeline.adapters.llm.reasoner import ModelDiagnostician
from pipeline.adapters.llm.reviewer import ModelReviewer
from pipeline.adapters.llm.rules import RulesDiagnostician
from pipeline.adapters.llm.talk import Limits
from pipeline.adapters.postgres.pool import Pool
from pipeline.adapters.postgres.unit_of_work import PostgresStore
from pipeline.domain.anomaly import DetectionSettings
from pipeline.domain.baseline import BaselineBank
from pipeline.domain.changes import ChangeEvent, ChangeKind
from pipeline.domain.diagnosis import Category, Conclusion, Diagnosis
from pipeline.domain.incident import Case
from pipeline.domain.lifecycle import IncidentState, PlanState
from pipeline.domain.phase import Phase
from pipeline.domain.plan import ManualAction, RestartAction, ScaleAction
from pipeline.domain.telemetry import SeriesKey, Signal
from pipeline.domain.trace import JsonValue, TraceKind
from pipeline.ports.clock import Clock
from pipeline.stages.answer import PROPOSE_TOOL, Answerer
from pipeline.stages.correlate import Correlator
from pipeline.stages.detect import Detector
from pipeline.stages.diagnose import Authors, Diagnoser
from pipeline.stages.investigate import Investigator
from pipeline.stages.observe import Sources
from pipeline.stages.propose import Proposer
from pipeline.stages.reads import Ports
from pipeline.stages.revise import Reviser
from pipeline.stages.settings import LoopSettings
from tests.builders import ALICE
from tests.contract.llm.suite import Drip, Fail, Say, Step
from tests.contract.targets.places import KubePlace, kube_place
from tests.databases import PostgresFactory
from tests.integration.test_loop_stages import CHECKOUT, P99, TRAFFIC, Loop, Shelf, healthy
from tests.model_brain import Thinking, ThinkingAnthropic, ThinkingCompletions, ThinkingResponses, neutral

pytestmark = pytest.mark.asyncio(loop_scope="module")

FAST = DetectionSettings(
    memory_sustain_s=10,
    latency_sustain_s=10,
    error_sustain_s=10,
    disk_sustain_s=10,
    traffic_surge_share=9.0,
    rollout_grace_s=4,
    clear_after_s=10,
)
PATIENCE_S = 90.0
"""For an answer on a busy machine; where a deadline is the matter the test sets its own."""
ERRORS = SeriesKey(CHECKOUT, Signal.ERROR_RATIO)
DISK = SeriesKey(CHECKOUT, Signal.DISK_RATIO, "checkout-1")
CERTIFICATE = SeriesKey(CHECKOUT, Signal.CERT_REMAINING, "checkout-1")
DAY_S = 86_400.0

WIRES: dict[str, type[Thinking]] = {
    "anthropic": ThinkingAnthropic,
    "responses": ThinkingResponses,
    "completions": ThinkingCompletions,
}
Values = Mapping[SeriesKey, float]


class Stages(Loop):
    """The loop with detection as fast as the demo's, and with more that is measured."""

    def __init__(self, store: PostgresStore, place: KubePlace) -> None:
        super().__init__(store, place)
        self.detector = Detector(store, FAST)
        self.observer = self.observing(Sources(metrics=(self.source,)))
        self.correlator = Correlator(store, self.catalogue, FAST)

    def well(self) -> dict[SeriesKey, float]:
        return {**healthy(self), ERRORS: 0.004, DISK: 0.4, CERTIFICATE: 30 * DAY_S - self.now.timestamp() % DAY_S}


def leaks(stages: Stages, tick: int) -> Values:
    return {**stages.well(), stages.memory[0]: min(0.45 + 0.06 * tick, 0.93)}


def slow(stages: Stages, tick: int) -> Values:
    return {**stages.well(), TRAFFIC: 50.0, P99: 2.0 if tick > 1 else 0.1}


def bad_deploy(stages: Stages, tick: int) -> Values:
    return {**stages.well(), ERRORS: 0.3 if tick > 1 else 0.004}


def disk_fills(stages: Stages, tick: int) -> Values:
    return {**stages.well(), DISK: min(0.45 + 0.07 * tick, 0.97)}


def certificate_ends(stages: Stages, tick: int) -> Values:
    return {**stages.well(), CERTIFICATE: 2 * DAY_S - 2 * tick if tick > 1 else stages.well()[CERTIFICATE]}


@dataclass(frozen=True, slots=True)
class Fault:
    """What a fault of the demo does to the figures, what it is, and what fits it."""

    values: Callable[[Stages, int], Values]
    category: Category
    action: type[RestartAction | ScaleAction | ManualAction]
    ticks: int = 10


FAULTS = {
    "memory-leak": Fault(leaks, Category.MEMORY, RestartAction, 15),
    "slow": Fault(slow, Category.SATURATION, ScaleAction),
    "bad-deploy": Fault(bad_deploy, Category.BAD_CHANGE, ManualAction),
    "disk-fill": Fault(disk_fills, Category.DISK, ManualAction, 15),
    "cert-expiry": Fault(certificate_ends, Category.CERTIFICATE, ManualAction, 4),
}


@dataclass
class Frozen(Clock):
    at: datetime

    def now(self) -> datetime:
        return self.at


@dataclass
class Scene:
    """An incident that was just opened, a model as its author, and one of the other maker as its reviewer."""

    stages: Stages
    bank: BaselineBank
    server: Thinking
    second: Thinking
    author: ModelDiagnostician
    reviewer: ModelReviewer | None
    settings: LoopSettings = field(
        default_factory=lambda: LoopSettings(
            detection=FAST, review="both", model_deadline_s=PATIENCE_S, review_deadline_s=PATIENCE_S
        )
    )

    @property
    def store(self) -> PostgresStore:
        return self.stages.store

    async def diagnosed(self) -> tuple[Case, Diagnosis]:
        async with self.store.begin() as uow:
            (incident,) = await uow.incidents.open()
        await self.diagnoser().run(incident, self.bank)
        case = await self.stages.case()
        assert case.diagnosis is not None
        return case, case.diagnosis

    def diagnoser(self, *_: object, **__: Any) -> Diagnoser:
        investigator, knowledge, authors, proposer, clock = self._parts()
        catalogue, settings = self.stages.catalogue, self.settings
        return Diagnoser(self.store, investigator, knowledge, authors, proposer, catalogue, clock, settings)

    def answerer(self) -> Answerer:
        investigator, _, authors, proposer, clock = self._parts()
        reviser = Reviser(self.store, self.stages.targets, self.stages.catalogue, proposer, self.settings)
        return Answerer(self.store, investigator, self.diagnoser(), authors, reviser, clock)

    def _parts(self) -> tuple[Investigator, Shelf, Authors, Proposer, Clock]:
        stages, shelf, rules = self.stages, Shelf(), RulesDiagnostician()
        ports = Ports(self.store, stages.targets, stages.catalogue, stages.witnesses, shelf)
        authors = Authors(self.author, rules, self.reviewer)
        proposer = Proposer(self.store, stages.catalogue, self.settings)
        return Investigator(ports, FAST), shelf, authors, proposer, Frozen(stages.now)

    async def trail(self, *kinds: TraceKind) -> list[Mapping[str, JsonValue]]:
        async with self.store.begin() as uow:
            incident = (await uow.incidents.recent(1))[0]
            entries = await uow.trace.read(incident.id)
            assert await uow.trace.first_broken(incident.id) is None
        return [stored.entry.data for stored in entries if stored.entry.kind in kinds]


class Worlds:
    """Databases with a fault in them, each made at its first use from one that has seen healthy services."""

    def __init__(self, dsn: str, place: KubePlace) -> None:
        self._dsn = dsn
        self._place = place
        self._made: dict[str, tuple[str, Stages, BaselineBank]] = {}

    @asynccontextmanager
    async def scene(
        self, fault: str = "memory-leak", wire: str = "anthropic", *, second: str | None = "", **limits: Any
    ) -> AsyncIterator[Scene]:
        """``second``: the reviewer's wire, the other maker's by default; None: no reviewer."""
        template, before, bank = await self._template(fault)
        second = ("responses" if wire == "anthropic" else "anthropic") if second == "" else second
        async with AsyncExitStack() as stack:
            store = await stack.enter_async_context(self._store(await stack.enter_async_context(self._copy(template))))
            stages = Stages(store, self._place)
            stages.now, stages.memory = before.now, before.memory
            server = await stack.enter_async_context(WIRES[wire]().running())
            other = await stack.enter_async_context(WIRES[second or "responses"]().running())
            author = ModelDiagnostician(
                server.model(max_retries=1), redact=str, limits=Limits(**{"deadline_s": PATIENCE_S, **limits})
            )
            stack.push_async_callback(author.close)
            reviewer = ModelReviewer(other.model(), redact=str, deadline_s=PATIENCE_S) if second else None
            if reviewer is not None:
                stack.push_async_callback(reviewer.close)
            yield Scene(stages, bank, server, other, author, reviewer)
            assert server.refusals == other.refusals == [], "the real API would have answered 400"

    async def _template(self, fault: str) -> tuple[str, Stages, BaselineBank]:
        if "" not in self._made:
            self._made[""] = await self._make(self._dsn, None, FAULTS["slow"], 40)
        if fault not in self._made:
            healthy_dsn, well, _ = self._made[""]
            dsn = await self._copied(healthy_dsn)
            self._made[fault] = await self._make(dsn, well, FAULTS[fault], FAULTS[fault].ticks, fault)
        return self._made[fault]

    async def _make(
        self, dsn: str, well: Stages | None, fault: Fault, ticks: int, name: str = ""
    ) -> tuple[str, Stages, BaselineBank]:
        async with self._store(dsn) as store:
            stages = Stages(store, self._place)
            if well is None:
                async with store.begin() as uow:
                    await uow.control.set_phase(Phase.ASSIST, "for the test", "test")
                state = await self._place.target.observe(await self._place.target.resolve(self._place.address))
                stages.memory = [SeriesKey(CHECKOUT, Signal.MEMORY_RATIO, one.name) for one in state.instances]
            else:
                stages.now, stages.memory = well.now, well.memory
            if name == "bad-deploy":
                change = ChangeEvent(
                    CHECKOUT, stages.now, ChangeKind.CONFIGURATION, "4f1c2d3e5a6b", "lower the time-out", "alice"
                )
                async with store.begin() as uow:
                    await uow.telemetry.save_changes([change])
            for tick in range(ticks):
                await stages.ticks(1, stages.well() if well is None else fault.values(stages, tick))
            await stages.detector.save()
            return dsn, stages, await stages.detector.bank()

    @asynccontextmanager
    async def _store(self, dsn: str) -> AsyncIterator[PostgresStore]:
        pool = Pool(dsn, max_size=4)
        await pool.open()
        try:
            yield PostgresStore(pool)
        finally:
            await pool.close()

    @asynccontextmanager
    async def _copy(self, dsn: str) -> AsyncIterator[str]:
        copied = await self._copied(dsn)
        try:
            yield copied
        finally:
            await self._execute(f"DROP DATABASE {_name(copied)} WITH (FORCE)")

    async def _copied(self, dsn: str) -> str:
        server, _, template = dsn.rpartition("/")
        name = f"scene_{secrets.token_hex(6)}"
        await self._execute(f"CREATE DATABASE {name} TEMPLATE {template}")
        return f"{server}/{name}"

    async def _execute(self, statement: str) -> None:
        db = await asyncpg.connect(f"{self._dsn.rpartition('/')[0]}/postgres")
        try:
            await db.execute(statement)
        finally:
            await db.close()

    async def close(self) -> None:
        for dsn, _, _ in self._made.values():
            if dsn != self._dsn:
                await self._execute(f"DROP DATABASE {_name(dsn)} WITH (FORCE)")


def _name(dsn: str) -> str:
    return dsn.rpartition("/")[2]


@pytest.fixture(autouse=True, scope="module")
def _one_certificate_store() -> Iterator[None]:
    """It takes 60 ms to load for every client, and nothing here speaks TLS."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(httpcore2, "default_ssl_context", cache(httpcore2.default_ssl_context))
        yield


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def worlds(postgres_factory: PostgresFactory) -> AsyncIterator[Worlds]:
    with postgres_factory.migrated() as dsn:
        async with kube_place() as place:
            made = Worlds(dsn, place)
            yield made
            await made.close()


@pytest.mark.parametrize("wire", ["anthropic", "completions"])
@pytest.mark.parametrize("fault", FAULTS)
async def test_the_demos_faults_are_diagnosed_with_a_checked_path(worlds: Worlds, fault: str, wire: str) -> None:
    expected = FAULTS[fault]
    async with worlds.scene(fault, wire) as scene:
        case, diagnosis = await scene.diagnosed()
        assert diagnosis.source == scene.author.name
        assert (diagnosis.conclusion, diagnosis.category) == (Conclusion.CAUSE, expected.category)
        assert diagnosis.path.holds, diagnosis.path.why_not()
        assert [step.service for step in diagnosis.path.steps] == [CHECKOUT, CHECKOUT]
        assert not any("left out" in note for note in diagnosis.notes)
        assert {one.reviewer for one in diagnosis.opinions} == {"rules", scene.second.model().name}
        parts = diagnosis.confidence
        assert (parts.author, parts.retrieval, parts.reviewer) == (pytest.approx(0.92), 0.9, 0.9)
        assert case.plan is not None
        assert isinstance(case.plan.action, expected.action)
        offered = expected.action is not ManualAction
        assert case.incident.state is (IncidentState.AWAITING_DECISION if offered else IncidentState.ESCALATED)
        if isinstance(case.plan.action, RestartAction):
            assert [one.name for one in case.plan.action.instances] == [scene.stages.memory[0].instance]
