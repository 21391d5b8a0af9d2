"""Every guardrail between the proposal and the call: what it judges by changes, and nothing is sent.

The change is made past the stages that are tested, and meets the plan at the click, and inside the claim.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import get_args

import pytest

from executors.targets.registry import Registry
from pipeline.adapters.postgres.pool import Connection
from pipeline.adapters.postgres.unit_of_work import PostgresStore
from pipeline.domain.action import InstanceRef, RestartAction, ScaleAction, TargetAction
from pipeline.domain.approval import Approval, DecisionOutcome
from pipeline.domain.catalogue import AbsoluteFreeze, Catalogue
from pipeline.domain.confidence import Confidence
from pipeline.domain.diagnosis import Diagnosis
from pipeline.domain.guardrail import RuleName
from pipeline.domain.ids import ExecutionId, IncidentId, ServiceName
from pipeline.domain.incident import Case
from pipeline.domain.lifecycle import ExecutionState, IncidentState, PlanState
from pipeline.domain.phase import Phase
from pipeline.domain.plan import TargetState
from pipeline.domain.telemetry import CallEdge
from pipeline.domain.trace import StoredTraceEntry, TraceKind
from pipeline.ports.clock import SystemClock
from pipeline.ports.locks import Locks
from pipeline.stages.decide import Decider
from tests.builders import ALICE, BOB, CHECKOUT, make_diagnosis, make_path
from tests.contract.targets.places import KubePlace
from tests.executing import SETTINGS, Bench, Stoppable, bench
from tests.stored import Waiting, awaiting, case_of


@dataclass(frozen=True, slots=True)
class Scene:
    """What can be changed behind a plan's back. ``incident_id`` is the plan's."""

    store: PostgresStore
    sql: Connection
    place: KubePlace
    before: TargetState
    catalogue: Catalogue
    incident_id: IncidentId

    async def diagnosed(self, diagnosis: Diagnosis) -> None:
        async with self.store.begin() as uow:
            await uow.incidents.save_diagnosis(self.incident_id, diagnosis, (), ())

    async def past_action(
        self,
        *,
        state: str = "verified",
        kind: str = "restart",
        ago_s: float = 60.0,
        uid: str = "",
        fingerprint: str = "of another time",
    ) -> None:
        """An action that has been sent so long ago, on this target or on ``uid``."""
        await self.sql.execute(
            """WITH incident AS (
                   INSERT INTO incidents (fingerprint, state, service, environment, family, severity, title)
                   VALUES ($1, 'closed', 'checkout', 'demo', 'memory', 'SEV3', '') RETURNING id
               ), plan AS (
                   INSERT INTO plans (incident_id, revision, action, generation, replicas_before, hash, state,
                                      approvals_needed, expected_effect, expires_at)
                   SELECT id, 1, jsonb_build_object('kind', $2::text), '', 2, '', 'approved', 1, '', clock_timestamp()
                   FROM incident RETURNING id, incident_id
               ), execution AS (
                   INSERT INTO executions (plan_id, incident_id, kind, state, target, target_uid, created_at)
                   SELECT id, incident_id, 'apply', $3, '{}', $4, clock_timestamp() - make_interval(secs => $5)
                   FROM plan RETURNING id
               )
               INSERT INTO execution_steps (execution_id, number, operation, state, dispatched_at)
               SELECT id, 1, '{}', 'dispatched', clock_timestamp() - make_interval(secs => $5) FROM execution""",
            fingerprint,
            kind,
            state,
            uid or self.before.ref.uid,
            ago_s,
        )

    async def read_before(self, *readings: tuple[int, float]) -> None:
        """So many replicas were read so many minutes ago."""
        await self.sql.executemany(
            """INSERT INTO target_replicas (uid, replicas, at)
               VALUES ($1, $2, clock_timestamp() - $3::float8 * interval '1 min')""",
            [(self.before.ref.uid, replicas, minutes) for replicas, minutes in readings],
        )


Change = Callable[[Scene], Awaitable[None]]


async def kill_switch(scene: Scene) -> None:
    async with scene.store.begin() as uow:
        await uow.control.kill("env:demo", "not today", BOB)


async def phase(scene: Scene) -> None:
    async with scene.store.begin() as uow:
        await uow.control.set_phase(Phase.SHADOW, "too early", BOB)


async def confidence(scene: Scene) -> None:
    unsure = Confidence(author=0.4, reviewer=0.4, retrieval=0.4, evidence=0.4)
    await scene.diagnosed(make_diagnosis(confidence=unsure))


async def causal_path(scene: Scene) -> None:
    await scene.diagnosed(make_diagnosis(path=make_path("it was the other way round")))


async def preconditions(scene: Scene) -> None:
    await scene.place.scale_by_another(scene.before.ref, 3)


async def blast_radius(scene: Scene) -> None:
    edges = [CallEdge(ServiceName(f"caller-{number}"), CHECKOUT, 1.0) for number in range(11)]
    async with scene.store.begin() as uow:
        await uow.telemetry.save_edges(edges, datetime.now(UTC))


async def scale_cap(scene: Scene) -> None:
    """Another agent had doubled it already."""
    await scene.read_before((1, 50))


async def cooldown(scene: Scene) -> None:
    await scene.past_action()


async def budget(scene: Scene) -> None:
    for number in range(10):
        await scene.past_action(uid=f"uid-{number}", ago_s=1800.0)


async def concurrency(scene: Scene) -> None:
    for number in range(3):
        await scene.past_action(uid=f"uid-{number}", state="dispatched")


async def change_window(scene: Scene) -> None:
    """Somebody edits the catalogue, which is read again while the bot runs."""
    freeze = AbsoluteFreeze.model_validate({"from": "2020-01-01", "to": "2120-01-01", "environments": ["demo"]})
    scene.catalogue.replace(Catalogue({}, freezes=[freeze]))


async def ineffective(scene: Scene) -> None:
    await scene.past_action(state="not_verified", ago_s=7200.0, fingerprint="demo/checkout/memory")


async def oscillation(scene: Scene) -> None:
    await scene.read_before((2, 50), (4, 40), (4, 30))


CHANGES: dict[RuleName, Change] = {
    "kill_switch": kill_switch,
    "phase": phase,
    "confidence": confidence,
    "causal_path": causal_path,
    "preconditions": preconditions,
    "blast_radius": blast_radius,
    "scale_cap": scale_cap,
    "cooldown": cooldown,
    "budget": budget,
    "concurrency": concurrency,
    "change_window": change_window,
    "ineffective": ineffective,
    "oscillation": oscillation,
}
SCALES = ("scale_cap", "oscillation")


def test_every_rule_has_its_change() -> None:
    assert set(CHANGES) == set(get_args(RuleName))


def action_for(rule: RuleName, before: TargetState) -> TargetAction:
    if rule in SCALES:
        return ScaleAction(from_replicas=before.replicas, to_replicas=before.replicas + 2)
    first = before.instances[0]
    return RestartAction(instances=(InstanceRef(name=first.name, uid=first.uid),))


async def gate_entries(store: PostgresStore, incident_id: IncidentId) -> list[StoredTraceEntry]:
    async with store.begin() as uow:
        entries = await uow.trace.read(incident_id)
    return [one for one in entries if one.entry.kind is TraceKind.GUARDRAILS]


def refused_by(case: Case) -> list[RuleName]:
    return [answer.rule for answer in case.guardrails.refusals]


@pytest.mark.parametrize("rule", CHANGES)
async def test_what_was_fine_when_proposed_is_refused_at_the_click_and_inside_the_claim(
    store: PostgresStore, sql: Connection, place: KubePlace, locks: Locks, rule: RuleName
) -> None:
    before = await place.target.observe(await place.target.resolve(place.address))
    action = action_for(rule, before)
    waiting = await awaiting(
        store, action=action, target=before.ref, generation=before.generation, replicas_before=before.replicas
    )
    incident_id, catalogue = waiting.incident.id, Catalogue({})
    settings = replace(SETTINGS, catalogue=catalogue)
    targets = Registry({"kubernetes": place.target})
    decider = Decider(store, targets, Shelved(catalogue), SystemClock(), settings)

    await CHANGES[rule](Scene(store, sql, place, before, catalogue, incident_id))
    result = await decider.approve(waiting.plan.id, ALICE)
    assert result.outcome is (DecisionOutcome.CHANGED if rule == "preconditions" else DecisionOutcome.BLOCKED)
    case = await case_of(store, incident_id)
    assert refused_by(case) == [rule]
    assert (case.execution, case.approvals, place.server.writes) == (None, (), [])
    (at_the_click,) = await gate_entries(store, incident_id)
    assert at_the_click.entry.summary == f"guardrails at the click: refused by {rule}"
    answers = at_the_click.entry.data["answers"]
    assert isinstance(answers, list)
    assert {one["rule"] for one in answers if isinstance(one, dict) and one["inputs"]} >= {rule, "kill_switch"}

    execution_id = await approved_before_that(waiting, store, sql, action)
    made = Bench(store, place, locks, Stoppable(place.target), before, execution_id)
    assert await made.runner(settings=settings).run_once()
    case = await case_of(store, incident_id)
    assert case.execution is not None
    assert case.plan is not None
    assert refused_by(case) == [rule]
    assert case.execution.detail.startswith("blocked by guardrails: ")
    assert (case.execution.state, case.plan.state) == (ExecutionState.FAILED, PlanState.BLOCKED)
    assert case.incident.state is IncidentState.ESCALATED
    assert place.server.writes == []
    *_, in_the_claim = await gate_entries(store, incident_id)
    assert in_the_claim.entry.summary == f"guardrails at the claim: refused by {rule}"


async def approved_before_that(
    waiting: Waiting, store: PostgresStore, sql: Connection, action: TargetAction
) -> ExecutionId:
    """As if the click had come a moment before the change: an execution that stands ready."""
    plan = waiting.plan
    async with store.begin() as uow:
        for user in (ALICE, BOB):
            assert await uow.plans.decide(Approval(plan.id, plan.hash, user, "approve", "", datetime.now(UTC)))
        assert await uow.executions.create(plan, "apply", action)
    await sql.execute("UPDATE plans SET state = 'approved' WHERE id = $1", plan.id)
    await sql.execute("UPDATE incidents SET state = 'mitigating' WHERE id = $1", waiting.incident.id)
    execution = (await case_of(store, waiting.incident.id)).execution
    assert execution is not None
    return execution.id


async def test_a_switch_that_cannot_be_read_is_on(
    store: PostgresStore, sql: Connection, place: KubePlace, locks: Locks
) -> None:
    """It is read again right before the call, when every rule has said yes already."""
    made = await bench(store, place, locks, restarts=1)

    async def gone() -> None:
        await sql.execute("ALTER TABLE kill_switches RENAME TO kill_switches_away")

    made.target.at("observe", gone, nth=2)
    with pytest.raises(Exception, match="kill_switches"):
        await made.runner().run_once()
    assert (await gate_entries(store, (await made.execution()).incident_id))[-1].entry.summary.endswith("all allow")
    assert place.server.writes == []


class Shelved:
    """A catalogue that nobody reads again."""

    problem = ""

    def __init__(self, catalogue: Catalogue) -> None:
        self._catalogue = catalogue

    def current(self) -> Catalogue:
        return self._catalogue
