"""From samples to a proposal through the real stages, on the real store and a Kubernetes API server."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from bot.catalogue import CatalogueFile
from executors.targets.registry import Registry
from pipeline.adapters.llm.rules import RulesDiagnostician
from pipeline.adapters.postgres.unit_of_work import PostgresStore
from pipeline.domain.action import ManualAction, RestartAction
from pipeline.domain.anomaly import DetectionSettings
from pipeline.domain.baseline import Expectations
from pipeline.domain.catalogue import Catalogue, Service
from pipeline.domain.changes import ChangeEvent, ChangeKind
from pipeline.domain.detection.logs import LogDetector
from pipeline.domain.detection.rules_trends import Trends
from pipeline.domain.diagnosis import (
    Category,
    Citation,
    Claim,
    Conclusion,
    Hypothesis,
    Opinion,
    Passage,
    PathStep,
    Sign,
)
from pipeline.domain.errors import PermanentError, TemporaryError
from pipeline.domain.ids import ServiceName
from pipeline.domain.incident import Case
from pipeline.domain.lifecycle import IncidentState, PlanState
from pipeline.domain.logs import LogPattern
from pipeline.domain.phase import Phase
from pipeline.domain.spans import SpanSummary, Trace, TraceReading
from pipeline.domain.telemetry import CallEdge, Reading, Sample, SeriesKey, Signal, SourceFailure
from pipeline.domain.trace import JsonValue, TraceKind
from pipeline.ports.clock import SystemClock
from pipeline.ports.knowledge import Found, Knowledge, KnowledgeQuery
from pipeline.ports.metrics import MetricsSource
from pipeline.ports.model import Answer, Diagnostician, Question, Reviewer
from pipeline.stages.correlate import Correlator
from pipeline.stages.detect import Detector
from pipeline.stages.diagnose import Authors, Diagnoser
from pipeline.stages.investigate import Investigator
from pipeline.stages.observe import Observer, Sources
from pipeline.stages.propose import Proposer
from pipeline.stages.reads import Ports
from pipeline.stages.settings import LoopSettings
from pipeline.stages.witnesses import Witnesses
from tests.contract.targets.places import KubePlace

WEB, CHECKOUT = ServiceName("web"), ServiceName("checkout")
P99 = SeriesKey(CHECKOUT, Signal.LATENCY_P99)
TRAFFIC = SeriesKey(CHECKOUT, Signal.TRAFFIC)
DETECTION = DetectionSettings(memory_sustain_s=10, latency_sustain_s=10, clear_after_s=10)
STEP = timedelta(seconds=2)


@dataclass
class Scripted(MetricsSource):
    """Says what the test tells it to."""

    now_values: dict[SeriesKey, float] = field(default_factory=dict)
    failures: tuple[SourceFailure, ...] = ()

    @property
    def name(self) -> str:
        return "scripted"

    async def read(self, now: datetime) -> Reading:
        samples = tuple(Sample(key, now, value) for key, value in self.now_values.items())
        return Reading(samples, (CallEdge(WEB, CHECKOUT, 1.0),), self.failures)

    async def close(self) -> None:
        return


class Shelf(Knowledge):
    def __init__(self, trouble: Exception | None = None) -> None:
        self._trouble = trouble

    async def search(self, query: KnowledgeQuery, *, limit: int) -> Found:
        if self._trouble is not None:
            raise self._trouble
        return Found((Passage("memory.md", "Memory leak", "Restart the replica.", 0.9, "hybrid"),))


class Author(RulesDiagnostician):
    """A model that answers as told, or not at all."""

    def __init__(self, *, error: Exception | None = None, pause_s: float = 0.0, says: Hypothesis | None = None) -> None:
        self._error, self._pause_s, self._says, self.asked = error, pause_s, says, 0

    @property
    def name(self) -> str:
        return "some-model"

    async def diagnose(self, question: Question) -> Answer:
        await asyncio.sleep(self._pause_s)
        if self._error is not None:
            raise self._error
        self.asked += 1
        hypothesis = self._says or (await super().diagnose(question)).hypothesis
        usage: dict[str, JsonValue] = {"input_tokens": 900, "output_tokens": 100}
        return Answer(
            hypothesis, self.name, {"prompt": "…", "usage": usage}, {item.id: item.statement for item in question.read}
        )


class Loop:
    """The stages as the runtime calls them, on a clock of the test's own."""

    def __init__(self, store: PostgresStore, place: KubePlace) -> None:
        self.store, self.source = store, Scripted()
        self.now = datetime.now(UTC) - timedelta(minutes=8)
        self.catalogue = Catalogue({CHECKOUT: Service(tier=3, target=place.address), WEB: Service()})
        self.targets = Registry({"kubernetes": place.target})
        self.detector = Detector(store, DETECTION)
        self.witnesses = Witnesses((), ())
        self.observer = self.observing(Sources(metrics=(self.source,)))
        self.correlator = Correlator(store, self.catalogue, DETECTION)
        self.memory: list[SeriesKey] = []

    def observing(self, sources: Sources, **more: Any) -> Observer:
        return Observer(
            sources, self.store, LogDetector(), self.detector.bank, CatalogueFile(None), max_series=1000, **more
        )

    async def ticks(self, number: int, values: Mapping[SeriesKey, float]) -> None:
        for _ in range(number):
            self.now += STEP
            self.source.now_values = dict(values)
            await self.observer.run(self.now)
            result = await self.detector.run(self.now, reload=False)
            await self.correlator.run(result, await self.detector.bank(), self.now)

    def diagnoser(
        self,
        author: Diagnostician | None = None,
        shelf: Knowledge | None = None,
        reviewer: Reviewer | None = None,
        **settings: Any,
    ) -> Diagnoser:
        chosen = LoopSettings(detection=DETECTION, model_deadline_s=2.0, review_deadline_s=2.0, **settings)
        rules, knowledge = RulesDiagnostician(), shelf or Shelf()
        ports = Ports(self.store, self.targets, self.catalogue, self.witnesses, knowledge)
        return Diagnoser(
            self.store,
            Investigator(ports, DETECTION),
            knowledge,
            Authors(author or rules, rules, reviewer),
            Proposer(self.store, self.targets, self.catalogue, chosen),
            self.catalogue,
            SystemClock(),
            chosen,
        )

    async def diagnosed(self, author: Diagnostician | None = None, shelf: Knowledge | None = None, **more: Any) -> Case:
        async with self.store.begin() as uow:
            (incident,) = await uow.incidents.open()
        await self.diagnoser(author, shelf, **more).run(incident, await self.detector.bank())
        return await self.case()

    async def case(self) -> Case:
        async with self.store.begin() as uow:
            case = await uow.incidents.case((await uow.incidents.recent(1))[0].id)
        assert case is not None
        return case


@pytest.fixture
async def loop(store: PostgresStore, place: KubePlace) -> Loop:
    return await warm_loop(store, place)


async def warm_loop(store: PostgresStore, place: KubePlace) -> Loop:
    """A loop that has seen a healthy checkout for a while, in phase Assist."""
    loop = Loop(store, place)
    async with store.begin() as uow:
        await uow.control.set_phase(Phase.ASSIST, "for the test", "test")
    state = await place.target.observe(await place.target.resolve(place.address))
    loop.memory = [SeriesKey(CHECKOUT, Signal.MEMORY_RATIO, one.name) for one in state.instances]
    await loop.ticks(40, healthy(loop))
    return loop


def healthy(loop: Loop) -> dict[SeriesKey, float]:
    wobble = 1 + 0.02 * (loop.now.second % 3 - 1)
    base = {P99: 0.1 * wobble, TRAFFIC: 10.0 * wobble, SeriesKey(WEB, Signal.LATENCY_P99): 0.15 * wobble}
    return {**base, **dict.fromkeys(loop.memory, 0.4 * wobble)}


def leaking(loop: Loop) -> dict[SeriesKey, float]:
    return {**healthy(loop), loop.memory[0]: 0.93}


async def test_one_breach_is_one_incident_however_long_it_lasts(loop: Loop) -> None:
    await loop.ticks(20, leaking(loop))
    async with loop.store.begin() as uow:
        incidents = await uow.incidents.recent(10)
    assert [(one.service, one.family, one.state) for one in incidents] == [(CHECKOUT, "memory", IncidentState.OPEN)]


async def test_slow_callers_fold_into_the_slow_callee(loop: Loop) -> None:
    slow = {**healthy(loop), P99: 2.0, SeriesKey(WEB, Signal.LATENCY_P99): 2.1}
    await loop.ticks(10, slow)
    async with loop.store.begin() as uow:
        (incident,) = await uow.incidents.open()
    case = await loop.case()
    assert incident.service == CHECKOUT
    assert {item.anomaly.key.service for item in case.anomalies} == {WEB, CHECKOUT}
    assert case.callers == (WEB,)


async def test_what_ends_by_itself_is_said_to(loop: Loop) -> None:
    await loop.ticks(10, leaking(loop))
    await loop.diagnosed()
    await loop.ticks(10, healthy(loop))
    case = await loop.case()
    assert case.incident.state is IncidentState.SELF_RECOVERED
    assert case.plan is not None
    assert case.plan.state is PlanState.SUPERSEDED


async def test_baselines_survive_a_restart(loop: Loop) -> None:
    await loop.detector.save()
    known = await loop.detector.expectation(P99, loop.now)
    again = await Detector(loop.store, DETECTION).expectation(P99, loop.now)
    assert known.known
    assert (again.mean, again.sigma, again.weight) == pytest.approx((known.mean, known.sigma, known.weight))


async def test_the_window_is_the_same_handed_on_or_read_from_the_store(loop: Loop) -> None:
    """As the runtime calls it, tick by tick; then another replica's tick, which is read from the store."""
    handed, reading = Detector(loop.store, DETECTION), Detector(loop.store, DETECTION)
    for number in range(12):
        loop.now += STEP
        loop.source.now_values = leaking(loop)
        fresh = await loop.observer.run(loop.now)
        told = await handed.run(loop.now, reload=number == 6, fresh=None if number == 5 else fresh)
        seen = await reading.run(loop.now, reload=False)
        assert {one.key for one in told.anomalies} == {one.key for one in seen.anomalies}
        assert told.within == seen.within
    assert {one.key for one in told.anomalies} == {loop.memory[0]}


async def test_a_restart_shows_the_stored_past_to_the_rules_with_a_longer_look(
    loop: Loop, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also when somebody asked for the baselines before the first tick, as the observer does."""
    told: list[int] = []

    class Heard(Trends):
        def take(
            self, keys: Sequence[SeriesKey], series: Sequence[Sequence[Sample]], expected: Expectations, now: datetime
        ) -> None:
            told.append(max((len(samples) for key, samples in zip(keys, series, strict=True) if key == P99), default=0))
            super().take(keys, series, expected, now)

    old = loop.now - timedelta(hours=1)
    past = [Sample(P99, old + number * STEP, 0.1) for number in range(50)]
    async with loop.store.begin() as uow:
        await uow.telemetry.save_samples(past)
    monkeypatch.setattr("pipeline.stages.detect.Trends", Heard)
    again = Detector(loop.store, DETECTION)
    await again.bank()
    for _ in range(2):
        await again.run(loop.now, reload=True, fresh=())
    assert told[0] >= len(past)
    assert len(told) == 3, "the past once, and each tick's window"


async def test_an_incident_hardly_moves_the_baseline(loop: Loop) -> None:
    before = await loop.detector.expectation(P99, loop.now)
    await loop.ticks(30, {**healthy(loop), P99: 3.0})
    after = await loop.detector.expectation(P99, loop.now)
    assert after.mean == pytest.approx(before.mean, rel=0.05), "30 samples at 30 times the mean"


async def test_a_source_that_is_gone_is_shown_and_stops_nothing(loop: Loop) -> None:
    loop.source.failures = (SourceFailure("scrape checkout-2", "connection refused"),)
    await loop.ticks(1, healthy(loop))
    async with loop.store.begin() as uow:
        _, health = await uow.telemetry.health()
    assert health.failures == ("scrape checkout-2: connection refused",)


class Tracer:
    """A provider of traces that knows one slow request, or is away."""

    name = "jaeger"

    def __init__(self, *failures: SourceFailure) -> None:
        self._failures = failures

    async def search(
        self, service: ServiceName, since: datetime, until: datetime, *, limit: int, errors_only: bool = False
    ) -> TraceReading:
        if self._failures:
            return TraceReading(failures=self._failures)
        spans = (
            SpanSummary("a", "", WEB, "GET /", since, 2.1, error=False),
            SpanSummary("b", "a", service, "POST /pay", since, 1.9, error=True),
        )
        return TraceReading((Trace("4bf92f3577b34da6a3ce929d0e0e4736", spans),))

    async def close(self) -> None:
        return


async def test_changes_log_patterns_and_traces_are_evidence(loop: Loop) -> None:
    loop.witnesses = Witnesses((Tracer(),), ())
    now = datetime.now(UTC)
    change = ChangeEvent(CHECKOUT, now - timedelta(minutes=9), ChangeKind.DEPLOYMENT, "7", "image 1.4.2", "alice")
    other = replace(change, service=ServiceName("search"))
    pattern = LogPattern(CHECKOUT, "call of <*> failed", "new", now - timedelta(minutes=3), now, 41, 0.0, "call of x")
    async with loop.store.begin() as uow:
        await uow.telemetry.save_changes([change, other])
        await uow.telemetry.save_log_patterns([pattern])
    await loop.ticks(10, leaking(loop))
    case = await loop.diagnosed()
    said = {item.kind: item.statement for item in reversed(case.evidence)}
    assert said["change"] == f"checkout: {change.describe()}"
    assert said["ranking"].startswith("root cause ranking: 1. checkout (")
    assert said["log"] == f"logs of checkout: {pattern.describe()}"
    assert said["trace"] == (
        "trace 4bf92f3577b34da6 took 2.1 s; most of it in checkout POST /pay (1.9 s, failed); failed in checkout"
    )
    assert [item.service for item in case.evidence if item.kind == "change"] == [CHECKOUT, "search"], "its own first"


async def test_what_could_not_be_asked_is_told_with_the_diagnosis(loop: Loop) -> None:
    loop.witnesses = Witnesses((Tracer(SourceFailure("jaeger", "Connection refused")),), ())
    loop.source.failures = (SourceFailure("prometheus traffic", "HTTP 503"),)
    await loop.ticks(10, leaking(loop))
    case = await loop.diagnosed()
    assert case.incident.state is IncidentState.AWAITING_DECISION
    assert case.diagnosis is not None
    assert "jaeger gave nothing: Connection refused" in case.diagnosis.notes
    assert "scripted gave nothing: prometheus traffic: HTTP 503" in case.diagnosis.notes


async def test_the_rules_engine_proposes_the_restart_of_the_leaking_replica(loop: Loop) -> None:
    await loop.ticks(10, leaking(loop))
    case = await loop.diagnosed()
    assert case.incident.state is IncidentState.AWAITING_DECISION
    assert case.diagnosis is not None
    assert (case.diagnosis.category, case.diagnosis.source) == (Category.MEMORY, "rules")
    assert case.plan is not None
    assert isinstance(case.plan.action, RestartAction)
    assert [one.name for one in case.plan.action.instances] == [loop.memory[0].instance]
    assert case.guardrails.allowed
    async with loop.store.begin() as uow:
        kinds = {stored.entry.kind for stored in await uow.trace.read(case.incident.id)}
    assert kinds >= {
        TraceKind.DETECTED,
        TraceKind.SEVERITY,
        TraceKind.TOOL_CALL,
        TraceKind.RETRIEVED,
        TraceKind.PROMPT,
        TraceKind.HYPOTHESIS,
        TraceKind.PATH,
        TraceKind.REVIEW,
        TraceKind.CONFIDENCE,
        TraceKind.PLANNED,
        TraceKind.GUARDRAILS,
    }


@pytest.mark.parametrize(
    ("author", "said"),
    [
        (Author(error=TemporaryError("overloaded")), "overloaded"),
        (Author(error=PermanentError("no such model")), "no such model"),
        (Author(pause_s=30.0), "no answer in"),
    ],
)
async def test_a_model_that_fails_is_named_and_the_rules_answer(loop: Loop, author: Author, said: str) -> None:
    await loop.ticks(10, leaking(loop))
    case = await loop.diagnosed(author)
    assert case.incident.state is IncidentState.AWAITING_DECISION
    assert case.diagnosis is not None
    assert case.diagnosis.source == "rules"
    assert any("some-model" in note and said in note for note in case.diagnosis.notes)


async def test_a_model_that_is_not_sure_proposes_nothing(loop: Loop) -> None:
    await loop.ticks(10, leaking(loop))
    unsure = Hypothesis(
        conclusion=Conclusion.CAUSE, category=Category.MEMORY, root_cause="perhaps a leak", claims=(), certainty=0.2
    )
    case = await loop.diagnosed(Author(says=unsure))
    assert case.incident.state is IncidentState.ESCALATED
    assert case.plan is not None
    assert case.plan.state is PlanState.BLOCKED


async def test_a_category_without_an_executor_is_left_to_a_person_with_the_command(loop: Loop) -> None:
    await loop.ticks(10, {**healthy(loop), SeriesKey(CHECKOUT, Signal.CERT_REMAINING, "checkout-1"): 3600.0})
    case = await loop.diagnosed()
    assert case.incident.state is IncidentState.ESCALATED
    assert case.plan is not None
    assert isinstance(case.plan.action, ManualAction)
    assert "cmctl renew <certificate> -n shop" in case.plan.action.command


async def test_shadow_says_what_it_would_have_done(loop: Loop) -> None:
    async with loop.store.begin() as uow:
        await uow.control.set_phase(Phase.SHADOW, "for the test", "test")
    await loop.ticks(10, leaking(loop))
    case = await loop.diagnosed()
    assert case.incident.state is IncidentState.ESCALATED
    assert "would have proposed" in case.incident.outcome


async def test_no_runbooks_lower_the_confidence_and_are_named(loop: Loop) -> None:
    await loop.ticks(10, leaking(loop))
    case = await loop.diagnosed(shelf=Shelf(TemporaryError("database away")))
    assert case.diagnosis is not None
    assert case.diagnosis.confidence.retrieval == 0.0
    assert any("no runbooks: database away" in note for note in case.diagnosis.notes)


class Second:
    """A second model with an opinion, or without."""

    name = "another-model"

    def __init__(self, score: float = 1.0, error: Exception | None = None) -> None:
        self._score, self._error, self.asked = score, error, 0

    async def review(self, question: Question, hypothesis: Hypothesis) -> tuple[Opinion, dict[str, JsonValue]]:
        self.asked += 1
        if self._error is not None:
            raise self._error
        return Opinion(self.name, self._score, ("the growth may be a cache",)), {"prompt": "judge"}

    async def close(self) -> None:
        return


@pytest.mark.parametrize(
    ("mode", "score", "counted"), [("both", 0.3, 0.3), ("llm_cross_check", 0.4, 0.4), ("rule_based", 0.1, None)]
)
async def test_a_second_opinion_can_only_lower_the_confidence(
    loop: Loop, mode: str, score: float, counted: float | None
) -> None:
    await loop.ticks(10, leaking(loop))
    second = Second(score)
    case = await loop.diagnosed(Author(), reviewer=second, review=mode)
    assert case.diagnosis is not None
    assert second.asked == (mode != "rule_based")
    if counted is not None:
        assert case.diagnosis.confidence.reviewer == counted
        assert "another-model" in {one.reviewer for one in case.diagnosis.opinions}


async def test_a_reviewer_that_fails_is_named_and_the_rules_review(loop: Loop) -> None:
    await loop.ticks(10, leaking(loop))
    case = await loop.diagnosed(Author(), reviewer=Second(error=TemporaryError("overloaded")), review="llm_cross_check")
    assert case.diagnosis is not None
    assert [one.reviewer for one in case.diagnosis.opinions] == ["rules"]
    assert any("another-model gave no second opinion: overloaded" in note for note in case.diagnosis.notes)


async def test_a_models_answer_is_used_again_for_the_same_trouble_until_it_proves_wrong(loop: Loop) -> None:
    await loop.ticks(10, leaking(loop))
    author = Author()
    first = await loop.diagnosed(author)
    assert first.diagnosis is not None
    assert (author.asked, first.diagnosis.cached_from) == (1, "")
    await loop.ticks(10, healthy(loop))
    await loop.ticks(10, leaking(loop))
    again = await loop.diagnosed(author)
    assert again.diagnosis is not None
    assert again.incident.id != first.incident.id
    assert (author.asked, again.diagnosis.cached_from) == (1, f"INC-{first.incident.id}")
    assert again.diagnosis.path.holds
    assert any("evidence and path are of now" in note for note in again.diagnosis.notes)
    async with loop.store.begin() as uow:
        assert await uow.diagnoses.drop(again.incident.id)
    await loop.ticks(10, healthy(loop))
    await loop.ticks(10, leaking(loop))
    third = await loop.diagnosed(author)
    assert third.diagnosis is not None
    assert (author.asked, third.diagnosis.cached_from) == (2, "")


async def test_an_old_answer_is_not_used_again(loop: Loop) -> None:
    await loop.ticks(10, leaking(loop))
    author = Author()
    await loop.diagnosed(author)
    await loop.ticks(10, healthy(loop))
    await loop.ticks(10, leaking(loop))
    await loop.diagnosed(author, cache_ttl_s=1e-6)
    assert author.asked == 2


async def test_the_tokens_of_a_day_are_a_limit(loop: Loop) -> None:
    await loop.ticks(10, leaking(loop))
    author = Author()
    await loop.diagnosed(author)
    await loop.ticks(10, healthy(loop))
    await loop.ticks(10, leaking(loop))
    case = await loop.diagnosed(author, cache_ttl_s=1e-6, tokens_day=1000)
    assert author.asked == 1
    assert case.diagnosis is not None
    assert case.diagnosis.source == "rules"
    assert any("1000 tokens of 24 hours" in note for note in case.diagnosis.notes)


async def test_the_rules_view_is_on_the_card_while_a_model_reads(loop: Loop) -> None:
    await loop.ticks(10, leaking(loop))
    seen: list[Case] = []

    class Slow(Author):
        async def diagnose(self, question: Question) -> Answer:
            seen.append(await loop.case())
            return await super().diagnose(question)

    await loop.diagnosed(Slow())
    (meanwhile,) = seen
    assert meanwhile.incident.state is IncidentState.DIAGNOSING
    assert meanwhile.diagnosis is not None
    assert (meanwhile.diagnosis.category, meanwhile.diagnosis.source) == (Category.MEMORY, "rules")
    assert any("some-model is still reading" in note for note in meanwhile.diagnosis.notes)
    assert meanwhile.plan is None


def said(
    conclusion: Conclusion, category: Category, *path: PathStep, cites: str = "E1", quote: str = "memory"
) -> Hypothesis:
    claim = Claim(text="It is so.", evidence=(Citation(id=cites, quote=quote),))
    return Hypothesis(
        conclusion=conclusion,
        category=category,
        root_cause="It is so.",
        suspect_instances=(),
        claims=(claim,),
        path=path,
        certainty=1.0,
    )


@pytest.mark.parametrize(
    ("says", "why"),
    [
        (said(Conclusion.CAUSE, Category.MEMORY, cites="E1"), "no checked causal path"),
        (
            said(
                Conclusion.CAUSE,
                Category.MEMORY,
                PathStep(what="a leak", service="payments", evidence=("E1",)),
                PathStep(what="the breach", service="checkout", evidence=("E1",)),
            ),
            "not about payments",
        ),
        (said(Conclusion.HEALTHY, Category.UNKNOWN), "insufficient evidence"),
        (said(Conclusion.INSUFFICIENT_EVIDENCE, Category.MEMORY), "insufficient evidence"),
    ],
)
async def test_whatever_a_model_says_nothing_is_offered_without_a_checked_path(
    loop: Loop, says: Hypothesis, why: str
) -> None:
    await loop.ticks(10, leaking(loop))
    case = await loop.diagnosed(Author(says=says))
    assert case.incident.state is IncidentState.ESCALATED
    assert why in case.incident.outcome
    assert case.diagnosis is not None
    assert not case.diagnosis.path.holds
    assert case.plan is None or case.plan.state is PlanState.BLOCKED


async def test_evidence_keeps_what_was_read_and_what_code_judged_of_it(loop: Loop) -> None:
    await loop.ticks(10, leaking(loop))
    case = await loop.diagnosed()
    stored = {item.kind: item for item in case.evidence}
    breach = stored["anomaly"]
    assert (breach.service, breach.signal, breach.sign) == (CHECKOUT, Signal.MEMORY_RATIO, Sign.ABNORMAL)
    assert breach.began is not None
    assert all(item.snapshot for item in case.evidence if item.kind == "metric")
