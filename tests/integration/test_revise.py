"""Another plan at a person's word: a new revision through the same checks, on the real store and a Kubernetes API."""

from __future__ import annotations

from dataclasses import dataclass, replace

import pytest

from bot.catalogue import CatalogueFile
from executors.targets.registry import Registry
from pipeline.adapters.postgres.unit_of_work import PostgresStore
from pipeline.domain.action import InstanceRef, RestartAction
from pipeline.domain.approval import DecisionOutcome
from pipeline.domain.catalogue import Catalogue, Service
from pipeline.domain.diagnosis import Category, Diagnosis
from pipeline.domain.errors import PermanentError
from pipeline.domain.incident import Case
from pipeline.domain.lifecycle import IncidentState, PlanState
from pipeline.domain.plan import TargetState
from pipeline.ports.clock import SystemClock
from pipeline.stages.answer import ordered
from pipeline.stages.decide import Decider
from pipeline.stages.propose import Proposer
from pipeline.stages.revise import Reviser, Wanted
from pipeline.stages.settings import LoopSettings
from tests.builders import ALICE, BOB, CHECKOUT, make_diagnosis, make_path
from tests.contract.targets.places import KubePlace
from tests.stored import Waiting, awaiting, case_of


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
    waiting = await awaiting(store, action=first, target=ref, generation=state.generation)
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
        (Wanted(action="restart"), "name the replicas"),
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


@pytest.mark.parametrize(
    ("replicas", "why"), [(9, "scale cap"), (2, "2 are wanted now"), (None, "say to how many replicas")]
)
async def test_guardrails_hold_for_a_revision(table: Table, replicas: int | None, why: str) -> None:
    await table.diagnosed(make_diagnosis(category=Category.SATURATION))
    with pytest.raises(PermanentError, match=why):
        await table.ask(Wanted(action="scale", replicas=replicas))
    assert (await table.case()).plan == table.waiting.plan


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
        ("propose scale", "Say to how many replicas: propose scale to 4."),
        ("propose restart", "Name the replicas: propose restart checkout-2."),
        ("why did you propose a restart?", None),
        ("what would you propose to scale?", None),
        ("scale to 4", None),
    ],
)
def test_an_order_for_a_plan_is_told_from_a_question(text: str, wanted: Wanted | str | None) -> None:
    assert ordered(text) == wanted
