"""Another plan at a person's word: a new revision through the same checks, on the real store and a Kubernetes API."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, replace
from typing import Any, cast

import pytest

from bot.catalogue import CatalogueFile
from executors.targets.registry import Registry
from pipeline.adapters.postgres.pool import Connection
from pipeline.adapters.postgres.unit_of_work import PostgresStore
from pipeline.domain.action import InstanceRef, RestartAction, ScaleAction
from pipeline.domain.approval import DecisionOutcome
from pipeline.domain.catalogue import Catalogue, Service
from pipeline.domain.diagnosis import Category, Diagnosis
from pipeline.domain.errors import PermanentError
from pipeline.domain.incident import Case
from pipeline.domain.lifecycle import IncidentState, PlanState
from pipeline.domain.plan import Alternative, Plan, TargetState
from pipeline.ports.clock import SystemClock
from pipeline.stages.answer import Answerer, ordered
from pipeline.stages.decide import Decider
from pipeline.stages.propose import Proposer
from pipeline.stages.revise import Reviser, Wanted
from pipeline.stages.settings import LoopSettings
from tests.builders import ALICE, BOB, CHECKOUT, make_diagnosis, make_guardrails, make_path, scale
from tests.contract.targets.places import KubePlace
from tests.stored import Waiting, approved, awaiting, case_of, draft, execution_of

WAYS = (
    Alternative(kind="scale", what="Scale …", effect="", risk="low", reversible=True, platform="kubernetes", number=4),
    Alternative(kind="scale", what="Scale …", effect="", risk="low", reversible=True, platform="ecs", number=4),
    Alternative(kind="manual", what="kubectl …", effect="", risk="medium", reversible=False),
)
SATURATED = make_diagnosis(category=Category.SATURATION)


@dataclass(frozen=True, slots=True)
class Table:
    """A proposal to restart the first replica, which waits for people."""

    store: PostgresStore
    state: TargetState
    waiting: Waiting
    reviser: Reviser
    decider: Decider

    async def ask(self, wanted: Wanted) -> str:
        return await self.reviser.revise(self.waiting.incident.id, wanted, ALICE)

    async def choose(self, number: int, plan: Plan | None = None) -> str:
        """As the window does; what is noted stands in the trail before the plan."""
        nothing = cast(Any, None)  # parts that no choice needs
        answerer = Answerer(self.store, nothing, nothing, nothing, self.reviser, SystemClock())
        before = (await self.case()).plan

        async def noted() -> None:
            assert [one for one in await self.said() if one.startswith(f"{ALICE} asks for another way: ")]
            assert (await self.case()).plan == before

        return await answerer.another_way((plan or self.waiting.plan).id, number, ALICE, noted=noted)

    async def said(self) -> list[str]:
        async with self.store.begin() as uow:
            return [one.entry.summary for one in await uow.trace.read(self.waiting.incident.id)]

    async def diagnosed(self, diagnosis: Diagnosis) -> None:
        async with self.store.begin() as uow:
            await uow.incidents.save_diagnosis(self.waiting.incident.id, diagnosis, (), ())

    async def case(self) -> Case:
        return await case_of(self.store, self.waiting.incident.id)


@pytest.fixture
async def table(store: PostgresStore, place: KubePlace) -> Table:
    ref = await place.target.resolve(place.address)
    state = await place.target.observe(ref)
    first = RestartAction(instances=(InstanceRef(name=state.instances[0].name, uid=state.instances[0].uid),))
    seen = {"target": ref, "generation": state.generation, "alternatives": WAYS, "risk": "medium"}
    waiting = await awaiting(store, action=first, **seen)
    settings, targets = LoopSettings(), Registry({"kubernetes": place.target})
    catalogue = Catalogue({CHECKOUT: Service(tier=3, target=place.address)})
    reviser = Reviser(store, targets, catalogue, Proposer(store, targets, catalogue, settings), settings)
    return Table(store, state, waiting, reviser, Decider(store, targets, CatalogueFile(None), SystemClock(), settings))


async def test_another_replica_takes_the_place_of_the_first_plan(table: Table) -> None:
    other = table.state.instances[1].name
    said = await table.ask(Wanted(action="restart", instances=(other,)))
    case = await table.case()
    assert said.startswith(f"Proposed as revision 2: Restart {other}.")
    assert case.plan is not None
    assert (case.plan.revision, case.plan.state, case.plan.requested_by) == (2, PlanState.PROPOSED, ALICE)
    assert case.incident.state is IncidentState.AWAITING_DECISION
    assert (await table.decider.approve(table.waiting.plan.id, BOB)).outcome is DecisionOutcome.ALREADY_DECIDED


async def test_who_asked_for_a_plan_may_not_approve_it(table: Table) -> None:
    await table.ask(Wanted(action="restart", instances=(table.state.instances[1].name,)))
    plan = (await table.case()).plan
    assert plan is not None
    own = await table.decider.approve(plan.id, ALICE)
    assert (own.outcome, own.message) == (
        DecisionOutcome.SAME_PERSON,
        "You asked for this plan: somebody else has to approve it.",
    )
    assert (await table.case()).approvals == ()
    assert (await table.decider.approve(plan.id, BOB)).outcome is not DecisionOutcome.SAME_PERSON


async def test_an_escalated_incident_gets_a_plan_again(table: Table) -> None:
    await table.decider.reject(table.waiting.plan.id, BOB, "the wrong one")
    await table.ask(Wanted(action="restart", instances=(table.state.instances[1].name,)))
    case = await table.case()
    assert case.plan is not None
    assert (case.incident.state, case.plan.state) == (IncidentState.AWAITING_DECISION, PlanState.PROPOSED)


@pytest.mark.parametrize(
    ("wanted", "why"),
    [
        (Wanted(action="restart"), "no live replica to restart"),
        (Wanted(action="restart", instances=("payments-1",)), "no such replica: payments-1"),
        (Wanted(action="scale", replicas=4), "the checked cause is memory: a restart or .* fits it"),
    ],
)
async def test_what_does_not_fit_is_refused_and_the_plan_stays(table: Table, wanted: Wanted, why: str) -> None:
    with pytest.raises(PermanentError, match=why):
        await table.ask(wanted)
    case = await table.case()
    assert case.plan is not None
    assert (case.plan.revision, case.plan.state) == (1, PlanState.PROPOSED)


@pytest.mark.parametrize(("replicas", "why"), [(9, "scale cap"), (2, "2 replicas are wanted already")])
async def test_guardrails_hold_for_a_revision(table: Table, replicas: int | None, why: str) -> None:
    await table.diagnosed(SATURATED)
    with pytest.raises(PermanentError, match=why):
        await table.ask(Wanted(action="scale", replicas=replicas))
    assert (await table.case()).plan == table.waiting.plan


async def test_what_is_not_said_is_what_the_card_says_or_else_computed(table: Table) -> None:
    await table.diagnosed(SATURATED)
    await table.ask(Wanted(action="scale"))
    plan = (await table.case()).plan
    assert plan is not None
    assert plan.action == ScaleAction(from_replicas=2, to_replicas=4)
    first = table.state.instances[0].name
    await table.diagnosed(make_diagnosis(suspect_instances=(first,)))
    assert (await table.ask(Wanted(action="restart"))).startswith(f"Proposed as revision 3: Restart {first}.")
    async with table.store.begin() as uow:
        await uow.plans.propose(draft(table.waiting.incident.id), make_guardrails())
    await table.diagnosed(SATURATED)
    assert "Scale from 2 to 3 replicas" in await table.ask(Wanted(action="scale"))


async def test_a_way_that_is_chosen_takes_the_place_of_the_plan_which_is_a_way_then(table: Table) -> None:
    await table.diagnosed(SATURATED)
    said = await table.choose(0)
    assert said.startswith(
        "Proposed as revision 2: Scale from 2 to 4 replicas. It waits on the card, for somebody else"
    )
    plan = (await table.case()).plan
    assert plan is not None
    assert (plan.state, plan.requested_by, plan.risk) == (PlanState.PROPOSED, ALICE, "low")
    first = table.state.instances[0].name
    assert [(one.kind, one.platform) for one in plan.alternatives] == [
        ("restart", "kubernetes"),
        ("scale", "ecs"),
        ("manual", None),
    ]
    assert plan.alternatives[0].what == f"Restart {first}"
    assert await table.choose(0) == "Not proposed: the proposal was decided or replaced meanwhile."
    await table.diagnosed(make_diagnosis(suspect_instances=(first,)))
    assert f"Proposed as revision 3: Restart {first}." in await table.choose(0, plan)


async def test_a_way_is_taken_where_it_was_shown_or_not_at_all(table: Table) -> None:
    await table.diagnosed(SATURATED)
    assert (await table.choose(1)).startswith("Not proposed: ")
    assert await table.choose(2) == "Not proposed: this is for a person to do."
    with pytest.raises(PermanentError, match="not on the card any more"):
        await table.choose(3)
    assert (await table.case()).plan == table.waiting.plan


async def test_two_who_choose_at_once_get_one_plan(table: Table) -> None:
    await table.diagnosed(SATURATED)
    waiting = table.waiting
    asked = [
        table.reviser.revise(waiting.incident.id, Wanted(action="scale"), user, instead_of=waiting.plan.id)
        for user in (ALICE, BOB)
    ]
    answers = await asyncio.gather(*asked, return_exceptions=True)
    assert [str(one) for one in answers if isinstance(one, PermanentError)] == [
        "the proposal was decided or replaced meanwhile"
    ]
    plan = (await table.case()).plan
    assert plan is not None
    assert plan.revision == 2


@pytest.mark.parametrize("put_back", [True, False])
async def test_what_an_earlier_plan_did_in_vain_is_told(store: PostgresStore, sql: Connection, put_back: bool) -> None:
    done = await execution_of(store, await approved(store, scale()))
    assert (await case_of(store, done.incident_id)).tried == ()
    await sql.execute("UPDATE executions SET state = 'not_verified'")
    async with store.begin() as uow:
        plan = await uow.plans.get(done.plan_id)
        assert plan is not None
        assert await uow.executions.create(plan, "rollback", scale(4, 2))
    if put_back:
        await sql.execute("UPDATE executions SET applied_at = clock_timestamp() WHERE kind = 'rollback'")
    assert (await case_of(store, done.incident_id)).tried == (), "the card tells it of its own plan at length"
    async with store.begin() as uow:
        await uow.plans.propose(draft(done.incident_id), make_guardrails())
    (tried,) = (await case_of(store, done.incident_id)).tried
    assert tried == "Scale from 2 to 4 replicas — did not help" + (", rolled back" if put_back else "")


async def test_without_a_checked_path_nothing_is_proposed(table: Table) -> None:
    await table.diagnosed(make_diagnosis(path=make_path("it began before")))
    with pytest.raises(PermanentError, match="causal path: it crossed 85 % of its limit: it began before"):
        await table.ask(Wanted(action="restart", instances=(table.state.instances[1].name,)))
    await table.diagnosed(replace(make_diagnosis(), category=Category.UNKNOWN))
    with pytest.raises(PermanentError, match="no action of ours fits it"):
        await table.ask(Wanted(action="restart", instances=(table.state.instances[1].name,)))


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("propose scale to 4", Wanted(action="scale", replicas=4)),
        ("Please propose scaling to 6 replicas", Wanted(action="scale", replicas=6)),
        ("propose restart checkout-2", Wanted(action="restart", instances=("checkout-2",))),
        (
            "propose to restart the replicas checkout-1 and checkout-2.",
            Wanted(action="restart", instances=("checkout-1", "checkout-2")),
        ),
        ("propose scale to zero", "Say to how many replicas: propose scale to 4."),
        ("propose scale", Wanted(action="scale")),
        ("propose a restart, please", Wanted(action="restart")),
        ("propose rolling restart", Wanted(action="rollout_restart")),
        ("propose a roll back", Wanted(action="roll_back")),
        ("Propose to roll back to the revision before!", Wanted(action="roll_back")),
        ("propose rollback", Wanted(action="roll_back")),
        ("propose revert", Wanted(action="revert")),
        ("propose to revert the commit", Wanted(action="revert")),
        ("propose sync", Wanted(action="sync")),
        ("propose renew", Wanted(action="renew")),
        ("please propose renewing the certificate", Wanted(action="renew")),
        ("propose truncate", Wanted(action="truncate")),
        ("propose cordon", Wanted(action="cordon")),
        ("propose reversal", None),
        ("did you propose to revert it?", None),
        ("why did you propose a restart?", None),
        ("what would you propose to scale?", None),
        ("scale to 4", None),
    ],
)
def test_an_order_for_a_plan_is_told_from_a_question(text: str, wanted: Wanted | str | None) -> None:
    assert ordered(text) == wanted
