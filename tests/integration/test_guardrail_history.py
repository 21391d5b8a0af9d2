"""What the guardrails judge by, in a real PostgreSQL: actions, replicas as they were read, what was in vain."""

from __future__ import annotations

import asyncio
import json
from datetime import UTC, datetime
from typing import Any

import pytest

from executors.guardrails.facts import GuardrailFacts, GuardrailLimits
from executors.guardrails.gate import decide
from executors.guardrails.inputs import read_facts
from executors.targets.registry import Registry
from pipeline.adapters.postgres.history import PostgresHistory
from pipeline.adapters.postgres.pool import Connection
from pipeline.adapters.postgres.unit_of_work import PostgresStore
from pipeline.domain.action import TargetAction
from pipeline.domain.catalogue import Catalogue, Service
from pipeline.domain.ids import PlanId, ServiceName
from pipeline.domain.lifecycle import IncidentState
from pipeline.domain.plan import InstanceState, TargetState
from pipeline.domain.telemetry import CallEdge
from pipeline.ports.history import ActionHistory, ActionKind
from pipeline.stages.replicas import ReplicaWatch
from tests.builders import CHECKOUT, WEB, make_diagnosis, make_target, restart, scale
from tests.contract.targets.places import KubePlace
from tests.stored import approved, execution_of, opened

UID = make_target().uid
TROUBLE = "demo/checkout/memory"
LIMITS = GuardrailLimits()


async def history(
    store: PostgresStore, kind: ActionKind = "restart", *, besides: PlanId | None = None, trouble: str = TROUBLE
) -> ActionHistory:
    async with store.begin() as uow:
        return await uow.history.of(UID, kind, trouble, besides=besides)


async def saw(store: PostgresStore, *replicas: int, uid: str = UID) -> None:
    for one in replicas:
        async with store.begin() as uow:
            await uow.history.saw(uid, one)


async def acted(
    store: PostgresStore,
    sql: Connection,
    action: TargetAction,
    *,
    state: str = "verified",
    ago: str = "20 min",
    called: bool = True,
) -> None:
    """An action that ended so long ago; its incident is over."""
    execution_id = await approved(store, action)
    await sql.execute(
        """UPDATE executions SET state = $2, created_at = clock_timestamp() - $3::text::interval,
                  started_at = clock_timestamp() - $3::text::interval,
                  applied_at = clock_timestamp() - $3::text::interval WHERE id = $1""",
        execution_id,
        state,
        ago,
    )
    if called:
        await sql.execute(
            """UPDATE execution_steps SET state = 'applied', dispatched_at = clock_timestamp() - $2::text::interval,
                      applied_at = clock_timestamp() - $2::text::interval WHERE execution_id = $1""",
            execution_id,
            ago,
        )
    await sql.execute("UPDATE incidents SET state = 'closed'")


async def judged(store: PostgresStore, action: TargetAction, *, replicas: int) -> set[str]:
    """The rules that refuse ``action`` on a target of so many ready replicas, by facts read as the stages do."""
    facts = await facts_of(store, action, replicas)
    return {answer.rule for answer in decide(facts, LIMITS).refusals}


async def facts_of(
    store: PostgresStore, action: TargetAction, replicas: int, *, catalogue: Catalogue | None = None
) -> GuardrailFacts:
    async with store.begin() as uow:
        for before in await uow.incidents.open():
            await uow.incidents.move(before, IncidentState.CLOSED, outcome=None)
    incident = await opened(store)
    instances = tuple(InstanceState(f"checkout-{n}", f"uid-checkout-{n}", True) for n in range(1, replicas + 1))
    async with store.begin() as uow:
        edges = [CallEdge(WEB, CHECKOUT, 1.0), CallEdge(ServiceName("edge"), WEB, 1.0)]
        await uow.telemetry.save_edges(edges, datetime.now(UTC))
        return await read_facts(
            uow,
            catalogue=catalogue or Catalogue({}),
            incident=incident,
            action=action,
            ref=make_target(),
            generation="12",
            observed=TargetState(make_target(), "12", replicas, instances),
            diagnosis=make_diagnosis(),
            plan_id=None,
            started=False,
            rollback=False,
        )


# --- actions


async def test_nothing_is_known_of_a_target_that_was_left_alone(store: PostgresStore) -> None:
    quiet = await history(store)
    assert quiet == ActionHistory(quiet.at)
    assert quiet.at.tzinfo is not None


async def test_the_actions_of_a_target_by_kind(store: PostgresStore, sql: Connection) -> None:
    await acted(store, sql, restart("checkout-1"), ago="50 min")
    await acted(store, sql, scale(2, 4), ago="20 min")
    of_restart, of_scale = await history(store, "restart"), await history(store, "scale")
    assert of_restart.last_action_s_ago == pytest.approx(1200, abs=60)
    assert of_scale.last_action_s_ago == pytest.approx(1200, abs=60)
    assert of_restart.last_of_kind_s_ago == pytest.approx(3000, abs=60)
    assert of_scale.last_of_kind_s_ago == pytest.approx(1200, abs=60)
    assert (of_scale.last_hour, of_scale.last_hour_everywhere, of_scale.open_here) == (2, 2, 0)


async def test_a_failure_counts_and_what_was_never_sent_does_not(store: PostgresStore, sql: Connection) -> None:
    await acted(store, sql, restart("checkout-1"), state="failed", called=False)
    nothing = await history(store)
    assert (nothing.last_action_s_ago, nothing.last_hour) == (None, 0)
    await acted(store, sql, restart("checkout-1"), state="failed")
    failed = await history(store)
    assert failed.last_of_kind_s_ago == pytest.approx(1200, abs=60)
    assert failed.last_hour == 1
    await sql.execute("UPDATE execution_steps SET dispatched_at = NULL, applied_at = NULL, state = 'pending'")
    await sql.execute("UPDATE executions SET state = 'unknown' WHERE id = 2")
    waiting = await history(store)
    assert (waiting.last_hour, waiting.open_here) == (1, 1), "a call may still go out"


async def test_the_rest_counts_from_the_last_call_and_looks_further_back_than_an_hour(
    store: PostgresStore, sql: Connection
) -> None:
    await acted(store, sql, restart("checkout-1", "checkout-2"), ago="90 min")
    await sql.execute(
        "UPDATE execution_steps SET dispatched_at = clock_timestamp() - interval '70 min' WHERE number = 2"
    )
    past = await history(store)
    assert past.last_action_s_ago == pytest.approx(4200, abs=60)
    assert past.last_hour == 0


async def test_what_runs_elsewhere_counts_and_the_own_plan_does_not(store: PostgresStore) -> None:
    mine = await execution_of(store, await approved(store))
    await approved(store, service=WEB, target=make_target(uid="uid-web"))
    own = await history(store, besides=mine.plan_id)
    assert (own.open_here, own.last_hour, own.last_action_s_ago) == (0, 0, None)
    another = await history(store)
    assert (another.open_here, another.open_elsewhere, another.last_hour_everywhere) == (1, 1, 2)


async def test_of_many_approved_at_once_exactly_as_many_go_on_as_may(store: PostgresStore, sql: Connection) -> None:
    for number in range(5):
        await approved(store, service=ServiceName(f"s{number}"), target=make_target(uid=f"uid-{number}"))
    rows = await sql.fetch("SELECT plan_id, target_uid FROM executions ORDER BY id")

    async def elsewhere(row: object) -> int:
        async with store.begin() as uow:
            seen = await uow.history.of(row["target_uid"], "restart", TROUBLE, besides=PlanId(row["plan_id"]))  # type: ignore[index]
        return seen.open_elsewhere

    assert await asyncio.gather(*map(elsewhere, rows)) == [0, 1, 2, 3, 4]
    await sql.execute("UPDATE executions SET state = 'claimed' WHERE id = 5")
    assert await elsewhere(rows[0]) == 1, "who has begun counts, whenever he came"


# --- replicas


async def test_readings_are_kept_for_hours_and_the_same_one_once(store: PostgresStore, sql: Connection) -> None:
    await saw(store, 2, 2, 4, 4, 2)
    assert [one.replicas for one in (await history(store)).readings] == [2, 4, 2]
    await saw(store, 7, uid="uid-other")
    assert [one.replicas for one in (await history(store)).readings] == [2, 4, 2]
    await sql.execute("UPDATE target_replicas SET at = at - interval '5 hours' WHERE replicas = 2")
    await saw(store, 6)
    assert [one.replicas for one in (await history(store)).readings] == [4, 6]
    assert await sql.fetchval("SELECT count(*) FROM target_replicas") == 3, "what is too old is gone"


async def test_our_own_steps_are_readings_too(store: PostgresStore, sql: Connection) -> None:
    await acted(store, sql, scale(2, 4), ago="20 min")
    (reading,) = (await history(store)).readings
    assert (reading.replicas, reading.ours) == (4, True)
    assert reading.ago_s == pytest.approx(1200, abs=60)


async def test_two_plans_within_an_hour_do_not_add_up_to_more_than_twice(store: PostgresStore, sql: Connection) -> None:
    """2 → 4 is carried out; half an hour later 4 → 8 is asked for, on a platform that keeps no history."""
    assert "scale_cap" not in await judged(store, scale(2, 4), replicas=2)
    await sql.execute("UPDATE incidents SET state = 'closed'")
    await acted(store, sql, scale(2, 4), ago="0 min")
    await pass_by(sql, 30)
    assert "scale_cap" in await judged(store, scale(4, 8), replicas=4)
    await pass_by(sql, 31)
    later = await facts_of(store, scale(4, 8), 4)
    answer = next(one for one in decide(later, LIMITS).answers if one.rule == "scale_cap")
    assert answer.allowed, "an hour later there are four to start from"
    assert answer.inputs["base"] == 4


async def pass_by(sql: Connection, minutes: int) -> None:
    """Everything was so much longer ago."""
    for table, column in (
        ("target_replicas", "at"),
        ("executions", "created_at"),
        ("executions", "started_at"),
        ("executions", "applied_at"),
        ("execution_steps", "dispatched_at"),
        ("execution_steps", "applied_at"),
    ):
        await sql.execute(f"UPDATE {table} SET {column} = {column} - make_interval(mins => $1)", minutes)


async def test_up_and_down_and_up_again_stops_whoever_did_it(store: PostgresStore, sql: Connection) -> None:
    for replicas in (2, 5, 2):  # another agent's, as we read it
        await saw(store, replicas)
        await pass_by(sql, 10)
    assert "oscillation" in await judged(store, scale(2, 4), replicas=2)
    assert "oscillation" not in await judged(store, restart("checkout-1"), replicas=2)
    await pass_by(sql, 60)
    assert "oscillation" not in await judged(store, scale(2, 4), replicas=2)


# --- in vain


@pytest.mark.parametrize("verdict", ["not_verified", "inconclusive"])
async def test_what_was_in_vain_is_refused_for_the_same_trouble_alone(
    store: PostgresStore, sql: Connection, verdict: str
) -> None:
    await acted(store, sql, restart("checkout-1"), state=verdict, ago="3 hours")
    past = await history(store)
    assert past.unhelpful is not None
    assert past.unhelpful.verdict == verdict
    assert past.unhelpful.ago_s == pytest.approx(10_800, abs=60)
    assert (await history(store, "scale")).unhelpful is None
    assert (await history(store, trouble="demo/checkout/requests")).unhelpful is None
    assert await judged(store, restart("checkout-1"), replicas=3) >= {"ineffective"}
    await pass_by(sql, 22 * 60)
    assert "ineffective" not in await judged(store, restart("checkout-1"), replicas=3)


@pytest.mark.parametrize("state", ["verified", "failed", "needs_human"])
async def test_what_helped_or_was_not_judged_is_not_in_vain(store: PostgresStore, sql: Connection, state: str) -> None:
    await acted(store, sql, restart("checkout-1"), state=state, ago="3 hours")
    assert (await history(store)).unhelpful is None


async def test_the_callers_of_tier_1_are_told_apart(store: PostgresStore) -> None:
    facts = await facts_of(store, restart("checkout-1"), 3, catalogue=Catalogue({WEB: Service(tier=1)}))
    assert facts.callers == frozenset({WEB, ServiceName("edge")}), "over any number of hops"
    assert facts.tier1_callers == frozenset({WEB})


class Explained:
    """A connection that notes which tables are read whole."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self.read_whole: set[str] = set()

    async def _explain(self, query: str, values: tuple[object, ...]) -> None:
        nodes = [json.loads(await self._connection.fetchval(f"EXPLAIN (FORMAT JSON) {query}", *values))[0]["Plan"]]
        while nodes:
            node = nodes.pop()
            nodes += node.get("Plans", ())
            if node["Node Type"] == "Seq Scan":
                self.read_whole.add(node["Relation Name"])

    async def fetchval(self, query: str, *values: object) -> Any:
        return await self._connection.fetchval(query, *values)

    async def fetchrow(self, query: str, *values: object) -> Any:
        await self._explain(query, values)
        return await self._connection.fetchrow(query, *values)

    async def fetch(self, query: str, *values: object) -> Any:
        await self._explain(query, values)
        return await self._connection.fetch(query, *values)


async def test_months_of_work_are_not_read_for_one_answer(sql: Connection) -> None:
    await sql.execute(
        """INSERT INTO incidents (fingerprint, state, service, environment, family, severity, title)
               SELECT 'f' || n, 'closed', 'checkout', 'demo', 'memory', 'SEV3', '' FROM generate_series(1, 4000) n;
           INSERT INTO plans (incident_id, revision, action, generation, replicas_before, hash, state,
                              approvals_needed, expected_effect, expires_at)
               SELECT id, 1, '{"kind": "restart"}', '', 1, 'h', 'approved', 1, '', now() FROM incidents;
           INSERT INTO executions (plan_id, incident_id, kind, state, target, target_uid, created_at)
               SELECT id, incident_id, 'apply', 'verified', '{}', 'uid-' || id % 400, now() - id * interval '1 hour'
               FROM plans;
           INSERT INTO execution_steps (execution_id, number, operation) SELECT id, 1, '{}' FROM executions;
           INSERT INTO target_replicas (uid, at, replicas)
               SELECT 'uid-' || n % 400, now() - n * interval '1 s', 2 FROM generate_series(1, 8000) n;
           ANALYZE"""
    )
    explained = Explained(sql)
    await PostgresHistory(explained).of("uid-7", "restart", TROUBLE, besides=PlanId(7))
    assert explained.read_whole == set()


async def test_targets_are_read_now_and_then_and_what_cannot_be_read_is_passed_over(
    store: PostgresStore, place: KubePlace
) -> None:
    """Another agent scales before there is any incident: the cap starts from what stood before."""
    catalogue = Catalogue(
        {
            CHECKOUT: Service(target=place.address),
            WEB: Service(),
            ServiceName("gone"): Service(target=place.address.model_copy(update={"name": "gone"})),
            ServiceName("far"): Service(target=place.address.model_copy(update={"platform": "local_process"})),
        }
    )
    watch = ReplicaWatch(store, Registry({"kubernetes": place.target}), catalogue)
    ref = await place.target.resolve(place.address)
    assert await watch.run(()) == 1
    await place.scale_by_another(ref, 4)
    assert await watch.run((CHECKOUT, ServiceName("unlisted"))) == 1
    async with store.begin() as uow:
        past = await uow.history.of(ref.uid, "scale", TROUBLE, besides=None)
    assert [one.replicas for one in past.readings] == [2, 4]


async def test_a_service_that_is_in_no_call_graph_is_blocked(store: PostgresStore, sql: Connection) -> None:
    assert "blast_radius" not in await judged(store, restart("checkout-1"), replicas=3)
    await sql.execute("UPDATE edges SET caller = 'web', callee = 'edge' WHERE caller = 'web'")
    await sql.execute("DELETE FROM edges WHERE caller = 'edge'")
    incident = await opened(store, family="disk")
    observed = TargetState(make_target(), "12", 3, (InstanceState("checkout-1", "uid-checkout-1", True),))
    async with store.begin() as uow:
        facts = await read_facts(
            uow,
            catalogue=Catalogue({}),
            incident=incident,
            action=restart("checkout-2"),
            ref=make_target(),
            generation="12",
            observed=observed,
            diagnosis=make_diagnosis(),
            plan_id=None,
            started=False,
            rollback=False,
        )
    answer = next(one for one in decide(facts, LIMITS).answers if one.rule == "blast_radius")
    assert (answer.allowed, answer.reason) == (False, "callers unknown: the service is in no dependency graph yet")
