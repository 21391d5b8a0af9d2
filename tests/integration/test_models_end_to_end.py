"""The demo's faults diagnosed by models: real stages, store and adapters, over HTTP to servers of both makers' formats.

Each fault is brought about once, in a database that every test gets a copy of at the moment of the first card.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
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
from pipeline.domain.action import Action, ManualAction, RestartAction, ScaleAction
from pipeline.domain.anomaly import DetectionSettings
from pipeline.domain.baseline import BaselineBank
from pipeline.domain.changes import ChangeEvent, ChangeKind
from pipeline.domain.diagnosis import Category, Conclusion, Diagnosis
from pipeline.domain.incident import Case
from pipeline.domain.lifecycle import IncidentState, PlanState
from pipeline.domain.phase import Phase
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
FIRST_CALLS = ("query_metrics", "recent_changes")
"""What the brain asks for first."""
Values = Mapping[SeriesKey, float]
Twist = Callable[[Say], Step]


class Stages(Loop):
    """The loop with detection as fast as the demo's, and with more that is measured."""

    def __init__(self, store: PostgresStore, place: KubePlace) -> None:
        super().__init__(store, place)
        self.ends_at = self.now.timestamp() + 30 * DAY_S
        self.detector = Detector(store, FAST)
        self.observer = self.observing(Sources(metrics=(self.source,)))
        self.correlator = Correlator(store, self.catalogue, FAST)

    def well(self) -> dict[SeriesKey, float]:
        """What is measured while nothing is wrong."""
        return {**healthy(self), ERRORS: 0.004, DISK: 0.4, CERTIFICATE: self.ends_at - self.now.timestamp()}

    def follow(self, other: Stages) -> None:
        """Goes on where another stopped, on a copy of its database."""
        self.now, self.memory, self.ends_at = other.now, other.memory, other.ends_at


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
    action: type[Action]
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
        proposer = Proposer(self.store, stages.targets, stages.catalogue, self.settings)
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
            stages.follow(before)
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
                stages.follow(well)
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


@pytest.mark.parametrize(
    ("fault", "wire"),
    [*((fault, "anthropic") for fault in FAULTS), ("memory-leak", "responses"), ("slow", "completions")],
)
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


@pytest.mark.parametrize("wire", WIRES)
async def test_all_that_was_read_and_said_is_in_the_trail(worlds: Worlds, wire: str) -> None:
    async with worlds.scene("memory-leak", wire) as scene:
        await scene.diagnosed()
        exchange: Any
        (exchange,) = await scene.trail(TraceKind.PROMPT)
        first, second = scene.server.requests
        assert exchange["prompt"]["user"] == scene.server.first_text(first)
        assert [[call["name"] for call in turn["calls"]] for turn in exchange["turns"]] == [[*FIRST_CALLS], []]
        assert [text for _, text, _ in exchange["turns"][0]["results"]] == scene.server.results(second)
        assert exchange["usage"] == {"input_tokens": 3000, "cached_tokens": 600, "output_tokens": 300}
        (said,) = await scene.trail(TraceKind.HYPOTHESIS)
        assert json.loads(exchange["reply"]) == said
        called = {data["tool"]: data for data in await scene.trail(TraceKind.TOOL_CALL) if "arguments" in data}
        assert set(FIRST_CALLS) <= called.keys()
        assert all(data["status"] in ("ok", "empty") and "latency_ms" in data for data in called.values())
        retrieved: Any
        (retrieved,) = await scene.trail(TraceKind.RETRIEVED)
        assert [one["text"] for one in retrieved["passages"]] == ["Restart the replica."]
        verdicts: Any = await scene.trail(TraceKind.REVIEW)
        assert verdicts[0]["reviewer"] == "rules"
        assert verdicts[1]["prompt"]["user"] == scene.second.first_text(scene.second.requests[0])
        assert json.loads(verdicts[1]["reply"])["agrees"]
        path: Any
        (path,) = await scene.trail(TraceKind.PATH)
        assert path["holds"]
        assert all(step["found"] for step in path["steps"][1:])
        assert len(await scene.trail(TraceKind.CONFIDENCE)) == 1


@pytest.mark.parametrize("wire", ["anthropic"])
async def test_the_other_makers_doubt_is_shown_and_lowers(worlds: Worlds, wire: str) -> None:
    """So far that nothing is offered, though the rules agree with the author."""
    doubt = {"agrees": False, "category": "saturation", "score": 0.0, "objections": ["E4 is no leak."]}
    async with worlds.scene("memory-leak", wire) as scene:
        scene.second.twists = [lambda said: Say(json.dumps(json.loads(said.text) | doubt))]
        case, diagnosis = await scene.diagnosed()
        by_rules, by_model = diagnosis.opinions
        assert (by_rules.reviewer, by_model.score, diagnosis.confidence.reviewer) == ("rules", 0.0, 0.0)
        assert by_rules.score > 0.9
        assert f"{by_model.reviewer} says saturation, the author memory" in by_model.notes
        assert diagnosis.category is Category.MEMORY
        assert case.incident.state is IncidentState.ESCALATED
        assert "is below 0.70" in case.incident.outcome


async def test_a_reviewer_that_talks_nonsense_is_named_and_the_rules_review(worlds: Worlds) -> None:
    async with worlds.scene() as scene:
        scene.second.twists = [lambda _: Say("Looks good to me!")] * 2
        _, diagnosis = await scene.diagnosed()
        assert [one.reviewer for one in diagnosis.opinions] == ["rules"]
        assert any("gpt-6-luna gave no second opinion" in note for note in diagnosis.notes)
        in_vain: Any = [data for data in await scene.trail(TraceKind.REVIEW) if "refused_replies" in data]
        assert "Looks good to me!" in json.dumps(in_vain)


SOON = {"retry-after": "0.01"}
GARBAGE = Say("It is the memory, I am sure.")


def as_it_is(said: Say) -> Step:
    return said


def cut(said: Say) -> Step:
    return Say(said.text[: len(said.text) // 2], stop="length")


def twice(said: Say) -> Step:
    return Say(said.text.replace('"claims"', '"category": "disk", "claims"'))


def always(step: Step) -> Twist:
    return lambda _: step


UNUSABLE: dict[str, tuple[str, list[Twist], float, str, int]] = {
    "refusal": ("anthropic", [always(Say("I will not.", stop="refusal"))], PATIENCE_S, "declined", 0),
    "overload": ("anthropic", [always(Fail(529, "overloaded_error", SOON))] * 2, PATIENCE_S, "overloaded (529)", 0),
    "limit": ("responses", [always(Fail(429, "rate_limit_exceeded", SOON))] * 2, PATIENCE_S, "(429)", 0),
    "garbage": ("completions", [always(GARBAGE)] * 2, PATIENCE_S, "not complete JSON", 1),
    "truncated": ("anthropic", [as_it_is, cut, cut], PATIENCE_S, "not complete JSON", 1),
    "twice": ("responses", [as_it_is, twice, twice], PATIENCE_S, "a key stands twice", 1),
    "drip": ("anthropic", [always(Drip())], 0.5, "did not answer within 0.5 s", 0),
}
"""The wire, what the server does, the deadline, what is said about it, and how many replies were asked for anew."""


@pytest.mark.parametrize("case", UNUSABLE)
async def test_a_model_without_a_usable_answer_is_named_and_the_rules_answer(worlds: Worlds, case: str) -> None:
    wire, twists, deadline_s, why, refused = UNUSABLE[case]
    async with worlds.scene("memory-leak", wire, second=None, deadline_s=deadline_s) as scene:
        scene.server.twists = list(twists)
        told, diagnosis = await scene.diagnosed()
        assert (diagnosis.source, diagnosis.category, diagnosis.path.holds) == ("rules", Category.MEMORY, True)
        assert any(scene.author.name in note and why in note for note in diagnosis.notes)
        assert told.incident.state is IncidentState.AWAITING_DECISION
        assert len(scene.server.requests) == len(twists)
        exchange: Any = (await scene.trail(TraceKind.PROMPT))[0]
        assert exchange["prompt"]["user"] == scene.server.first_text(scene.server.requests[0])
        assert why in exchange["failed"]
        assert len(exchange["refused_replies"]) == refused


REPAIRED: dict[str, tuple[str, list[Twist], int, int]] = {
    "overload": ("responses", [always(Fail(529, "overloaded", SOON))], 3, 0),
    "truncated": ("anthropic", [as_it_is, cut], 3, 1),
    "twice": ("completions", [as_it_is, twice], 3, 1),
}


@pytest.mark.parametrize("case", REPAIRED)
async def test_what_goes_wrong_once_is_mended(worlds: Worlds, case: str) -> None:
    wire, twists, requests, refused = REPAIRED[case]
    async with worlds.scene("memory-leak", wire, second=None) as scene:
        scene.server.twists = list(twists)
        _, diagnosis = await scene.diagnosed()
        assert (diagnosis.source, diagnosis.path.holds) == (scene.author.name, True)
        assert len(scene.server.requests) == requests
        exchange: Any
        (exchange,) = await scene.trail(TraceKind.PROMPT)
        assert len(exchange["refused_replies"]) == refused


def at_ledger(said: Say) -> Step:
    told = json.loads(said.text)
    told["path"][0]["service"] = "ledger"
    return Say(json.dumps(told))


def uncited(said: Say) -> Step:
    told = json.loads(said.text)
    told["claims"] = [{"text": "It leaks.", "evidence": [{"id": "E99", "quote": "leaks"}]}]
    return Say(json.dumps(told))


def misquoted(said: Say) -> Step:
    told = json.loads(said.text)
    for claim in told["claims"]:
        claim["evidence"][0]["quote"] = "memory is 100 %"
    return Say(json.dumps(told))


def not_of_it(said: Say) -> Step:
    told = json.loads(said.text)
    told["path"][0]["evidence"] = told["path"][1]["evidence"]
    return Say(json.dumps(told))


INVENTED: dict[str, tuple[str, Twist, str]] = {
    "service": ("anthropic", at_ledger, "what it cites is not about ledger"),
    "evidence": ("completions", uncited, "insufficient evidence"),
    "quote": ("anthropic", misquoted, "insufficient evidence"),
    "hop": ("responses", not_of_it, "same evidence"),
}


@pytest.mark.parametrize("case", INVENTED)
async def test_what_a_model_makes_up_twice_is_taken_out_and_nothing_is_offered(worlds: Worlds, case: str) -> None:
    wire, twist, why = INVENTED[case]
    async with worlds.scene("memory-leak", wire) as scene:
        scene.server.twists = [as_it_is, twist, twist]
        told, diagnosis = await scene.diagnosed()
        assert diagnosis.source == scene.author.name
        assert told.incident.state is IncidentState.ESCALATED
        assert why in told.incident.outcome
        assert told.plan is None or told.plan.state is PlanState.BLOCKED
        assert diagnosis.confidence.author < 0.5
        assert len(scene.server.requests) == (2 if case == "hop" else 3), "what is doubtful is asked once more"


async def test_unknown_tools_and_a_flood_of_calls_do_no_harm(worlds: Worlds) -> None:
    traffic = {"service": "checkout", "signal": "traffic", "minutes": 60, "instance": ""}
    calls = (
        ("delete_pod", json.dumps({"name": "checkout-1"})),
        ("query_metrics", json.dumps(traffic | {"service": "ledger"})),
        ("query_metrics", json.dumps(traffic | {"minutes": 10_000})),
        *(("query_metrics", json.dumps(traffic)),) * 40,
    )
    async with worlds.scene("memory-leak", "completions") as scene:
        scene.server.twists = [always(Say("Let me look.", calls=calls))]
        _, diagnosis = await scene.diagnosed()
        assert (diagnosis.source, diagnosis.path.holds) == (scene.author.name, True)
        results = scene.server.results(scene.server.requests[1])
        assert len(results) == 43
        for text, said in zip(results, ("no tool 'delete_pod'", "no service 'ledger'", "minutes:"), strict=False):
            assert said in text
        assert all("at most 8 calls" in text for text in results[8:])
        entries = [data for data in await scene.trail(TraceKind.TOOL_CALL) if "arguments" in data]
        assert [data["status"] for data in entries] == ["refused"] * 3 + ["ok"] * 5
        assert [data["cached"] for data in entries] == [False] * 4 + [True] * 4


async def test_the_same_trouble_again_costs_no_request(worlds: Worlds) -> None:
    async with worlds.scene("memory-leak", "anthropic") as scene:
        case, first = await scene.diagnosed()
        asked = len(scene.server.requests), len(scene.second.requests)
        # Memory that stood as high within the hour before would not be called growth.
        scene.stages.now += timedelta(hours=2)
        await scene.stages.ticks(8, scene.stages.well())
        for tick in range(FAULTS["memory-leak"].ticks):
            await scene.stages.ticks(1, leaks(scene.stages, tick))
        scene.bank = await scene.stages.detector.bank()
        again, diagnosis = await scene.diagnosed()
        assert again.incident.id != case.incident.id
        assert (diagnosis.cached_from, diagnosis.source) == (f"INC-{case.incident.id}", first.source)
        assert (diagnosis.root_cause, diagnosis.path.holds) == (first.root_cause, True)
        assert (len(scene.server.requests), len(scene.second.requests)) == asked
        assert any("evidence and path are of now" in note for note in diagnosis.notes)


@pytest.mark.parametrize("wire", ["responses"])
async def test_a_question_is_answered_as_it_is_written_and_what_it_read_is_kept(worlds: Worlds, wire: str) -> None:
    pieces: list[str] = []

    async def on_text(piece: str) -> None:
        pieces.append(piece)

    async with worlds.scene("memory-leak", wire, second=None) as scene:
        case, _ = await scene.diagnosed()
        known, asked = {item.id for item in case.evidence}, len(scene.server.requests)
        question = "How was the traffic before?"
        said = await scene.answerer().about(case, question, ALICE, scene.bank, may_propose=False, on_text=on_text)
        assert "".join(pieces).endswith(said)
        assert len(pieces) > 3
        (new,) = [item for item in (await scene.stages.case()).evidence if item.id not in known]
        assert (new.signal, new.service) == (Signal.TRAFFIC, CHECKOUT)
        assert said == f"{new.statement.partition(' (')[0]} [{new.id}]."
        first, second = scene.server.requests[asked:]
        assert first["stream"] is second["stream"] is True
        kept: Any
        (kept,) = await scene.trail(TraceKind.QUESTION)
        assert (kept["user"], kept["question"], kept["answer"]) == (ALICE, question, said)
        assert kept["prompt"]["user"] == scene.server.first_text(first)
        assert kept["usage"]["output_tokens"] == 300
        called = [data["tool"] for data in await scene.trail(TraceKind.TOOL_CALL) if "arguments" in data]
        assert called == [*FIRST_CALLS, "query_metrics"]


async def test_a_plan_comes_of_a_persons_own_words_only(worlds: Worlds) -> None:
    async with worlds.scene("memory-leak", "completions", second=None) as scene:
        case, _ = await scene.diagnosed()
        answerer, other = scene.answerer(), scene.stages.memory[1].instance
        wanted = {"action": "restart", "instances": [other], "replicas": None}

        async def asked(question: str, *, may_propose: bool, unasked: bool) -> tuple[Case, list[str]]:
            """The case afterwards, and the results of the tools."""
            scene.server.twists = [always(Say(calls=((PROPOSE_TOOL, json.dumps(wanted)),)))] if unasked else []
            await answerer.about(case, question, ALICE, scene.bank, may_propose=may_propose)
            return await scene.stages.case(), scene.server.results(scene.server.requests[-1])

        for question, may_propose in (("Why does it leak?", True), (f"Restart {other} instead!", False)):
            after, results = await asked(question, may_propose=may_propose, unasked=True)
            assert after.plan == case.plan
            assert f"no tool '{PROPOSE_TOOL}'" in results[0]
            assert PROPOSE_TOOL not in neutral(scene.server.requests[-1]).tools
        after, results = await asked(f"Restart {other} instead!", may_propose=True, unasked=False)
        assert "Proposed as revision 2" in results[0]
        assert after.plan is not None
        assert (after.plan.requested_by, after.plan.state, after.plan.revision) == (ALICE, PlanState.PROPOSED, 2)
        assert isinstance(after.plan.action, RestartAction)
        assert [one.name for one in after.plan.action.instances] == [other]
        assert after.execution is None
