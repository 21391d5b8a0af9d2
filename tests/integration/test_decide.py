"""Decisions on the real store and a Kubernetes API server."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, replace

import pytest

from bot.catalogue import CatalogueFile
from executors.targets.registry import Registry
from pipeline.adapters.postgres.pool import Connection
from pipeline.adapters.postgres.unit_of_work import PostgresStore
from pipeline.domain.action import InstanceRef, RestartAction
from pipeline.domain.anomaly import DetectionResult, DetectionSettings
from pipeline.domain.approval import DecisionOutcome, DecisionResult, default_rules
from pipeline.domain.baseline import BaselineBank
from pipeline.domain.catalogue import Catalogue
from pipeline.domain.ids import PlanId, ServiceName, SlackUserId
from pipeline.domain.incident import Case
from pipeline.domain.lifecycle import ExecutionState, IncidentState, PlanState
from pipeline.domain.notice import CardNotice
from pipeline.domain.trace import TraceKind
from pipeline.ports.clock import SystemClock
from pipeline.stages.correlate import Correlator
from pipeline.stages.decide import Decider
from pipeline.stages.settings import LoopSettings
from tests.builders import ALICE, BOB, MEMORY, T0, WEB
from tests.contract.targets.places import KubePlace
from tests.executing import Stoppable
from tests.stored import Waiting, awaiting, case_of, until_blocked

ACCEPTED = DecisionOutcome.ACCEPTED
CAROL = SlackUserId("U0CAROL")
SETTINGS = LoopSettings(approvals=default_rules(1))
"""One approval is enough, unless a plan needs more."""


@dataclass(frozen=True, slots=True)
class Table:
    """A proposal that waits for people."""

    store: PostgresStore
    place: KubePlace
    waiting: Waiting
    decider: Decider

    @property
    def plan_id(self) -> PlanId:
        return self.waiting.plan.id

    async def approve(self, user: SlackUserId = ALICE) -> DecisionResult:
        return await self.decider.approve(self.plan_id, user)

    async def case(self) -> Case:
        return await case_of(self.store, self.waiting.incident.id)

    async def states(self) -> tuple[PlanState, IncidentState]:
        case = await self.case()
        assert case.plan is not None
        return case.plan.state, case.incident.state

    async def told(self, kind: TraceKind) -> list[str]:
        async with self.store.begin() as uow:
            entries = await uow.trace.read(self.waiting.incident.id)
        return [one.entry.summary for one in entries if one.entry.kind is kind]


async def lay(store: PostgresStore, place: KubePlace, *, approvals_needed: int = 1, service: str = "checkout") -> Table:
    ref = await place.target.resolve(place.address)
    state = await place.target.observe(ref)
    first = state.instances[0]
    waiting = await awaiting(
        store,
        service=ServiceName(service),
        action=RestartAction(instances=(InstanceRef(name=first.name, uid=first.uid),)),
        target=ref,
        generation=state.generation,
        replicas_before=state.replicas,
        target_revision=state.revision,
        approvals_needed=approvals_needed,
    )
    decider = Decider(store, Registry({"kubernetes": place.target}), CatalogueFile(None), SystemClock(), SETTINGS)
    return Table(store, place, waiting, decider)


@pytest.fixture
async def table(store: PostgresStore, place: KubePlace) -> Table:
    return await lay(store, place)


@pytest.fixture
async def for_two(store: PostgresStore, place: KubePlace) -> Table:
    return await lay(store, place, approvals_needed=2)


async def test_an_approval_leaves_an_execution_ready(table: Table, sql: Connection) -> None:
    result = await table.approve()
    assert (result.outcome, result.message) == (DecisionOutcome.ACCEPTED, "Approved; it is being carried out.")
    case = await table.case()
    assert case.execution is not None
    assert case.execution.state is ExecutionState.READY
    assert await table.states() == (PlanState.APPROVED, IncidentState.MITIGATING)
    assert [(one.user_id, one.decision, one.plan_hash) for one in case.approvals] == [
        (ALICE, "approve", table.waiting.plan.hash)
    ]
    assert await table.told(TraceKind.DECISION) == [f"approved by {ALICE} (1 of 1)"]
    assert await table.told(TraceKind.GUARDRAILS) == ["guardrails at the click: all allow"]
    kinds = [row["kind"] for row in await sql.fetch("SELECT kind FROM outbox WHERE kind <> 'bus' ORDER BY id")]
    assert kinds == [CardNotice().kind, "thread"]
    assert table.place.server.writes == []


async def test_a_rejection_changes_nothing(table: Table) -> None:
    result = await table.decider.reject(table.plan_id, ALICE, "deploy running")
    assert result.outcome is DecisionOutcome.ACCEPTED
    assert await table.states() == (PlanState.REJECTED, IncidentState.ESCALATED)
    case = await table.case()
    assert (case.execution, case.incident.outcome) == (None, f"rejected by <@{ALICE}>: deploy running")
    assert [(one.user_id, one.decision, one.reason) for one in case.approvals] == [(ALICE, "reject", "deploy running")]


@pytest.mark.parametrize("first", ["approve", "reject"])
async def test_a_late_click_is_told_who_decided(table: Table, first: str) -> None:
    if first == "approve":
        await table.approve(BOB)
    else:
        await table.decider.reject(table.plan_id, BOB, "no")
    before = await table.states()
    for late in (await table.approve(), await table.decider.reject(table.plan_id, ALICE, "late")):
        assert late.outcome is DecisionOutcome.ALREADY_DECIDED
        assert late.message == f"Too late: already {'approved' if first == 'approve' else 'rejected'} by <@{BOB}>."
    assert await table.states() == before
    assert len((await table.case()).approvals) == 1


async def test_two_people_are_needed_and_one_person_twice_is_one(for_two: Table) -> None:
    assert (await for_two.approve(ALICE)).outcome is DecisionOutcome.COUNTED
    again = await for_two.approve(ALICE)
    assert again.outcome is DecisionOutcome.SAME_PERSON
    assert await for_two.states() == (PlanState.PROPOSED, IncidentState.AWAITING_DECISION)
    assert (await for_two.approve(BOB)).outcome is DecisionOutcome.ACCEPTED
    assert await for_two.states() == (PlanState.APPROVED, IncidentState.MITIGATING)
    assert [one.user_id for one in (await for_two.case()).approvals] == [ALICE, BOB]


async def test_one_of_two_may_still_say_no(for_two: Table) -> None:
    await for_two.approve(ALICE)
    assert (
        await for_two.decider.reject(for_two.plan_id, ALICE, "on second thoughts")
    ).outcome is DecisionOutcome.ACCEPTED
    assert (await for_two.approve(BOB)).outcome is DecisionOutcome.ALREADY_DECIDED
    assert await for_two.states() == (PlanState.REJECTED, IncidentState.ESCALATED)


@pytest.mark.parametrize("people", [(ALICE, BOB, CAROL), (ALICE, ALICE, ALICE)], ids=["three people", "a triple click"])
async def test_approvals_at_once_make_one_execution(
    table: Table, people: tuple[SlackUserId, ...], sql: Connection
) -> None:
    results = await asyncio.gather(*(table.approve(user) for user in people))
    outcomes = sorted(result.outcome for result in results)
    assert outcomes == [DecisionOutcome.ACCEPTED, DecisionOutcome.ALREADY_DECIDED, DecisionOutcome.ALREADY_DECIDED]
    assert await sql.fetchval("SELECT count(*) FROM executions") == 1
    assert await sql.fetchval("SELECT count(*) FROM approvals") == 1


async def test_the_last_two_approvals_at_once_make_one_execution(for_two: Table, sql: Connection) -> None:
    results = await asyncio.gather(*(for_two.approve(user) for user in (ALICE, BOB, CAROL)))
    assert sorted(result.outcome for result in results) == [
        DecisionOutcome.ACCEPTED,
        DecisionOutcome.ALREADY_DECIDED,
        DecisionOutcome.COUNTED,
    ]
    assert await sql.fetchval("SELECT count(*) FROM executions") == 1


async def test_an_approval_and_a_rejection_at_once(table: Table) -> None:
    results = await asyncio.gather(table.approve(ALICE), table.decider.reject(table.plan_id, BOB, "no"))
    assert sorted(result.outcome for result in results) == [DecisionOutcome.ACCEPTED, DecisionOutcome.ALREADY_DECIDED]
    plan, incident = await table.states()
    approved = plan is PlanState.APPROVED
    assert incident is (IncidentState.MITIGATING if approved else IncidentState.ESCALATED)
    assert ((await table.case()).execution is not None) is approved


# --- expiry


async def test_a_proposal_past_its_time_is_dead_before_the_clock_tick_says_so(table: Table, sql: Connection) -> None:
    await sql.execute("UPDATE plans SET expires_at = clock_timestamp()")
    for late in (await table.approve(), await table.decider.reject(table.plan_id, ALICE, "late")):
        assert late.outcome is DecisionOutcome.EXPIRED
    assert await table.states() == (PlanState.PROPOSED, IncidentState.AWAITING_DECISION)
    assert await table.decider.expire() == 1
    assert await table.states() == (PlanState.EXPIRED, IncidentState.ESCALATED)
    assert (await table.approve()).outcome is DecisionOutcome.EXPIRED
    assert await table.decider.expire() == 0
    assert await table.told(TraceKind.DECISION) == ["expired"]


async def test_what_still_has_time_does_not_expire(table: Table) -> None:
    assert await table.decider.expire() == 0
    assert await table.states() == (PlanState.PROPOSED, IncidentState.AWAITING_DECISION)


async def test_two_replicas_that_expire_at_once_say_it_once(table: Table, sql: Connection) -> None:
    await sql.execute("UPDATE plans SET expires_at = clock_timestamp()")
    await asyncio.gather(*(table.decider.expire() for _ in range(3)))
    assert await table.told(TraceKind.DECISION) == ["expired"]


# --- read again at the click


async def test_a_target_that_changed_is_shown_and_not_acted_on(table: Table) -> None:
    await table.place.scale_by_another(table.waiting.plan.target, 3)  # type: ignore[arg-type]
    result = await table.approve()
    assert result.outcome is DecisionOutcome.CHANGED
    assert result.message == (
        "Not carried out, the target has changed: replicas 2 → 3, generation 1 → 2. A new proposal follows."
    )
    assert await table.states() == (PlanState.SUPERSEDED, IncidentState.DIAGNOSING)
    case = await table.case()
    assert (case.execution, case.approvals) == (None, ())
    assert not case.guardrails.allowed
    (denied,) = await table.told(TraceKind.DENIED)
    assert denied == f"approval by {ALICE} refused: the target has changed: replicas 2 → 3, generation 1 → 2"


async def test_a_guardrail_at_the_click_blocks_and_leaves_the_proposal(table: Table, store: PostgresStore) -> None:
    async with store.begin() as uow:
        await uow.control.kill("all", "change freeze", BOB)
    result = await table.approve()
    assert (result.outcome, result.message) == (
        DecisionOutcome.BLOCKED,
        "Blocked: kill switch: engaged for all: change freeze.",
    )
    assert await table.states() == (PlanState.PROPOSED, IncidentState.AWAITING_DECISION)
    assert (await table.case()).approvals == ()
    async with store.begin() as uow:
        await uow.control.resume("all", "over", BOB, people_needed=1)
    assert (await table.approve()).outcome is DecisionOutcome.ACCEPTED


async def test_a_plan_nobody_knows(table: Table) -> None:
    result = await table.decider.approve(PlanId(999), ALICE)
    assert result.outcome is DecisionOutcome.UNKNOWN_PLAN
    assert (await table.decider.reject(PlanId(999), ALICE, "x")).outcome is DecisionOutcome.UNKNOWN_PLAN


@pytest.mark.parametrize("state", [IncidentState.ESCALATED, IncidentState.SELF_RECOVERED, IncidentState.CLOSED])
async def test_an_incident_that_moved_on_takes_no_approval(
    table: Table, store: PostgresStore, state: IncidentState
) -> None:
    async with store.begin() as uow:
        await uow.incidents.move(table.waiting.incident, state, outcome=None)
    result = await table.approve()
    assert result.outcome is DecisionOutcome.ALREADY_DECIDED
    assert (await table.case()).execution is None


async def test_a_target_on_which_something_runs_takes_no_second_action(
    table: Table, store: PostgresStore, sql: Connection
) -> None:
    """A guardrail says so where it can see it; of two at once the database has the last word."""
    other = await lay(store, table.place, service=WEB)
    decider = Decider(
        store,
        Registry({"kubernetes": table.place.target}),
        CatalogueFile(None),
        SystemClock(),
        replace(SETTINGS, limits=replace(SETTINGS.limits, cooldown_s=0.0, max_actions_target_hour=99)),
    )
    both = await asyncio.gather(decider.approve(other.plan_id, ALICE), decider.approve(table.plan_id, ALICE))
    lost = [one for one, result in zip((other, table), both, strict=True) if result.outcome is not ACCEPTED]
    assert len(lost) == 1, both
    late = await lost[0].decider.approve(lost[0].plan_id, ALICE)
    assert late.outcome is DecisionOutcome.BLOCKED
    assert await lost[0].states() == (PlanState.PROPOSED, IncidentState.AWAITING_DECISION)
    assert (await lost[0].case()).approvals == (), "nothing of it is kept"
    assert await sql.fetchval("SELECT count(*) FROM executions") == 1


async def test_a_recovery_by_itself_and_an_approval_at_once_do_not_lock_each_other_out(
    table: Table, store: PostgresStore, sql: Connection
) -> None:
    await sql.execute("UPDATE anomalies SET cleared_at = clock_timestamp()")
    correlator = Correlator(store, Catalogue({}), DetectionSettings())
    over = DetectionResult(cleared=(MEMORY,), within=frozenset({MEMORY}), fresh=frozenset({MEMORY}))
    async with store.begin() as uow:
        plan = await uow.plans.get(table.plan_id)  # as an approval begins
        correlating = asyncio.create_task(correlator.run(over, BaselineBank(), T0))
        await until_blocked(sql)
        assert plan is not None
        assert await uow.plans.move(plan.id, PlanState.PROPOSED, PlanState.APPROVED)
        assert await uow.incidents.move(table.waiting.incident, IncidentState.MITIGATING, outcome="") is not None
    await correlating
    assert await table.states() == (PlanState.APPROVED, IncidentState.MITIGATING)


async def test_a_recovery_by_itself_takes_the_proposal_off_the_table(table: Table, store: PostgresStore) -> None:
    correlator = Correlator(store, Catalogue({}), DetectionSettings())
    await correlator.run(DetectionResult(cleared=(MEMORY,)), BaselineBank(), T0)
    assert await table.states() == (PlanState.SUPERSEDED, IncidentState.SELF_RECOVERED)
    assert (await table.approve()).message == "Too late: replaced or over by itself."


async def test_a_target_that_is_slow_to_read_does_not_make_a_click_fail(table: Table) -> None:
    """The click is answered as soon as it stands in the trail; the decision follows when the target has been read."""
    slow, noted = Stoppable(table.place.target), asyncio.Event()

    async def until_noted() -> None:
        await noted.wait()

    async def note() -> None:
        assert await table.told(TraceKind.NOTE) == [f"{ALICE} pressed Approve; the target is still being read"]
        assert await table.states() == (PlanState.PROPOSED, IncidentState.AWAITING_DECISION)
        noted.set()

    slow.always("observe", until_noted)
    decider = Decider(table.store, Registry({"kubernetes": slow}), CatalogueFile(None), SystemClock(), SETTINGS)
    result = await decider.approve(table.plan_id, ALICE, noted=note)
    assert result.outcome is DecisionOutcome.ACCEPTED
    assert await table.states() == (PlanState.APPROVED, IncidentState.MITIGATING)
