"""Approved plans carried out: the real store, the Kubernetes adapter against an API server, locks on a real Redis."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from bot.slack.standing import standing
from executors.ledger import Ledger
from executors.rollback import order_rollback
from pipeline.adapters.postgres.pool import Connection
from pipeline.adapters.postgres.unit_of_work import PostgresStore
from pipeline.adapters.redis.locks import RedisLocks
from pipeline.domain.canary import CanaryVerdict, Judgement
from pipeline.domain.errors import TemporaryError
from pipeline.domain.execution import Execution, StepState
from pipeline.domain.lifecycle import ExecutionState, IncidentState, PlanState
from pipeline.domain.telemetry import Sample
from pipeline.domain.trace import TraceKind
from pipeline.domain.verification import Verdict, VerificationSettings
from pipeline.ports.clock import SystemClock
from pipeline.ports.locks import Holder, Lock, Priority
from pipeline.stages.verify import Verifier
from tests.builders import ALICE, CHECKOUT, MEMORY
from tests.executing import RESOURCE, Bench
from tests.faults import Answer
from tests.stored import lapse


async def ended_unchanged(it: Bench, *, plan: PlanState = PlanState.APPROVED) -> str:
    """It failed, nothing was changed, a person is called, and the target is free; returns the outcome."""
    case = await it.case()
    assert case.execution is not None
    assert case.plan is not None
    assert (case.execution.state, case.execution.physical_changes) == (ExecutionState.FAILED, 0)
    assert (case.incident.state, case.plan.state) == (IncidentState.ESCALATED, plan)
    assert case.incident.outcome.endswith("nothing was changed")
    assert it.changes == []
    assert not await it.runner().run_once()
    return case.incident.outcome


async def test_two_steps_one_after_the_other(two_steps: Bench, locks: RedisLocks) -> None:
    async def first_is_back() -> None:
        now = await two_steps.place.target.observe(two_steps.before.ref)
        assert now.ready == 2, "the second replica must not go before the first one's successor is ready"

    two_steps.target.at("apply", first_is_back, nth=2)
    assert await two_steps.runner().run_once()
    case = await two_steps.case()
    assert case.execution is not None
    assert (case.execution.state, case.incident.state) == (ExecutionState.APPLIED, IncidentState.VERIFYING)
    assert [step.state for step in case.execution.steps] == [StepState.APPLIED] * 2
    assert [call.verb for call in two_steps.changes] == ["create", "create"], "two evictions"
    assert not await two_steps.instances() & {one.uid for one in two_steps.before.instances}
    assert await locks.holder(RESOURCE) == Holder("sre-bot one", Priority.SRE), "until it is verified"
    told = await two_steps.told(TraceKind.EXECUTION, TraceKind.GUARDRAILS, TraceKind.LOCK)
    assert told[0] == "guardrails at the claim: all allow"
    assert told[1] == "batch 1, the canary: step 1 of 2"
    assert told[2].startswith(f"lock on {RESOURCE} taken")
    names = [one.name for one in two_steps.before.instances]
    (came,) = [one.name for one in case.execution.canary]
    assert [one.partition(":")[0] for one in told[3:]] == [
        "step 1 of 2 dispatched",
        "step 1 applied",
        f"{came} is watched before the others follow",
        "the first replica is as good as the others, going on",
        "guardrails before step 2",
        "batch 2",
        "step 2 of 2 dispatched",
        "step 2 applied",
        "apply carried out",
    ]
    assert names[0] in told[3]
    assert names[1] in told[9]
    assert not await two_steps.runner().run_once()


async def test_the_intent_is_committed_before_the_call(one_step: Bench, sql: Connection) -> None:
    seen = []

    async def look() -> None:
        seen.append(
            await sql.fetchrow(
                "SELECT e.state, s.state, s.generation, s.fence = e.fence FROM executions e, execution_steps s"
            )
        )

    one_step.target.at("apply", look)
    await one_step.runner().run_once()
    assert [tuple(row) for row in seen] == [("dispatched", "dispatched", one_step.before.generation, True)]


async def test_a_target_that_changed_since_is_not_touched(one_step: Bench) -> None:
    await one_step.place.scale_by_another(one_step.before.ref, 3)
    await one_step.runner().run_once()
    outcome = await ended_unchanged(one_step, plan=PlanState.BLOCKED)
    assert "the target changed since the plan was made" in outcome


async def test_a_replica_that_goes_in_between_ends_it_where_it_stands(two_steps: Bench) -> None:
    async def lose_the_second() -> None:
        pod = two_steps.before.instances[1].name
        two_steps.place.server.cluster.delete_pod(("pods", "shop", pod))

    two_steps.target.at("apply", lose_the_second, nth=2)
    await two_steps.runner().run_once()
    case = await two_steps.case()
    assert case.execution is not None
    assert [step.state for step in case.execution.steps] == [StepState.APPLIED, StepState.FAILED]
    assert (case.execution.state, case.incident.state) == (ExecutionState.FAILED, IncidentState.ESCALATED)
    assert "step 2 refused by the target" in case.incident.outcome
    assert case.incident.outcome.endswith("1 of 2 steps stand")
    assert len(two_steps.changes) == 1


async def test_a_refusal_for_now_is_tried_again(one_step: Bench) -> None:
    one_step.place.proxy.strike(Answer(429, b'{"message": "slow down"}'))
    assert await one_step.runner().run_once()
    waiting = await one_step.execution()
    assert (waiting.state, waiting.steps[0].state) == (ExecutionState.READY, StepState.PENDING)
    assert waiting.waiting_since is not None
    assert "slow down" in waiting.detail
    assert one_step.changes == []
    assert await one_step.runner("two").run_once()
    assert (await one_step.execution()).state is ExecutionState.APPLIED
    assert (len(one_step.place.proxy.writes), len(one_step.changes)) == (2, 1)


async def test_a_refusal_for_good_ends_it(one_step: Bench) -> None:
    one_step.place.proxy.strike(Answer(403, b'{"message": "pods is forbidden"}'))
    await one_step.runner().run_once()
    assert "pods is forbidden" in await ended_unchanged(one_step)


@pytest.mark.parametrize("moment", ["apply", "observe"])
async def test_a_target_that_refuses_on_and_on_is_given_up(
    one_step: Bench, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    monkeypatch.setattr("executors.ledger.PATIENCE_S", 0.5)
    turns = 0

    async def refuse() -> None:
        raise TemporaryError("429: slow down")

    one_step.target.always(moment, refuse)
    while await one_step.runner().run_once():
        turns += 1
        assert turns < 1000, "it would be tried for ever"
    assert turns > 1
    assert "given up after" in await ended_unchanged(one_step)


async def test_a_platform_that_is_not_set_up_any_more_ends_it(one_step: Bench) -> None:
    from executors.targets.registry import Registry

    await one_step.runner(targets=Registry({})).run_once()
    assert "the platform kubernetes is not set up" in await ended_unchanged(one_step)


async def test_a_kill_switch_stops_between_two_steps(two_steps: Bench, store: PostgresStore) -> None:
    async def stop() -> None:
        async with store.begin() as uow:
            await uow.control.kill(CHECKOUT, "enough", ALICE)

    two_steps.target.at("applied", stop)
    await two_steps.runner().run_once()
    case = await two_steps.case()
    assert case.execution is not None
    assert case.execution.state is ExecutionState.FAILED
    assert case.incident.outcome == "kill switch engaged: checkout (enough); 1 of 2 steps stand"
    assert len(two_steps.changes) == 1


async def test_a_kill_switch_before_the_claim_changes_nothing(one_step: Bench, store: PostgresStore) -> None:
    async with store.begin() as uow:
        await uow.control.kill("all", "enough", ALICE)
    await one_step.runner().run_once()
    assert "kill switch: engaged for all: enough" in await ended_unchanged(one_step, plan=PlanState.BLOCKED)


# --- locks


async def test_another_agents_lock_is_waited_for(one_step: Bench, locks: RedisLocks) -> None:
    held = await locks.acquire(RESOURCE, holder="finops", ttl_s=600)
    assert held is not None
    assert await one_step.runner().run_once()
    waiting = await one_step.execution()
    assert (waiting.state, one_step.changes) == (ExecutionState.READY, [])
    assert waiting.detail == f"another agent holds {RESOURCE}: finops"
    await locks.release(held)
    assert await one_step.runner().run_once()
    assert (await one_step.execution()).state is ExecutionState.APPLIED


async def test_a_lock_that_is_never_free_is_given_up_unchanged(
    one_step: Bench, locks: RedisLocks, sql: Connection
) -> None:
    await locks.acquire(RESOURCE, holder="finops", ttl_s=600)
    await one_step.runner().run_once()
    await sql.execute("UPDATE executions SET waiting_since = waiting_since - interval '46 s'")
    await one_step.runner().run_once()
    assert "given up after 45 s: another agent holds" in await ended_unchanged(one_step)


async def test_without_a_lock_service_the_fence_alone_has_to_do(one_step: Bench) -> None:
    away = RedisLocks("redis://127.0.0.1:1/0")
    try:
        await one_step.runner(locks=away).run_once()
    finally:
        await away.close()
    assert (await one_step.execution()).state is ExecutionState.APPLIED
    (told,) = await one_step.told(TraceKind.LOCK)
    assert told.startswith("lock service away, going on by the database's fence alone")


async def test_a_lock_held_by_somebody_unknown_is_held_all_the_same(one_step: Bench, redis_url: str) -> None:
    class Forgetful(RedisLocks):
        async def acquire(
            self, resource: str, *, holder: str, ttl_s: float, priority: Priority = Priority.SRE
        ) -> Lock | None:
            return None

        async def holder(self, resource: str) -> Holder | None:
            raise TemporaryError("the connection was lost")

    forgetful = Forgetful(redis_url)
    await one_step.runner(locks=forgetful).run_once()
    await forgetful.close()
    assert (await one_step.execution()).state is ExecutionState.READY
    assert one_step.changes == []


# --- the fence

EVERYTHING = """SELECT (SELECT jsonb_agg(e) FROM executions e), (SELECT jsonb_agg(s) FROM execution_steps s),
                       (SELECT jsonb_agg(i) FROM incidents i), (SELECT jsonb_agg(p) FROM plans p),
                       (SELECT count(*) FROM trace), (SELECT count(*) FROM outbox)"""
LEDGER = (
    "canary_judged",
    "step_applied",
    "step_not_applied",
    "step_refused",
    "ready_again",
    "unknown",
    "failed",
    "needs_human",
    "done",
)


async def test_a_worker_that_lost_its_fence_writes_nothing(
    two_steps: Bench, store: PostgresStore, sql: Connection
) -> None:
    seen = []

    async def lose() -> None:
        await lapse(sql, "executions")
        async with store.begin() as uow:
            assert await uow.executions.take_over(worker="two", lease_s=600) is not None
        seen.append(await sql.fetchrow(EVERYTHING))

    two_steps.target.at("applied", lose)
    assert await two_steps.runner().run_once()
    assert [await sql.fetchrow(EVERYTHING)] == seen
    assert len(two_steps.changes) == 1


async def test_the_ledger_takes_nothing_under_an_old_fence(
    one_step: Bench, store: PostgresStore, sql: Connection
) -> None:
    ledger = Ledger(store, SystemClock())
    async with store.begin() as uow:
        old = await uow.executions.claim(worker="one", lease_s=0.0)
        assert old is not None
        assert await uow.executions.move(old.id, old.fence, ExecutionState.DISPATCHED)
    async with store.begin() as uow:
        assert await uow.executions.take_over(worker="two", lease_s=600) is not None
    before = await sql.fetchrow(EVERYTHING)
    for method in LEDGER:
        await _call(ledger, method, old)
        assert await sql.fetchrow(EVERYTHING) == before, method


async def test_batches_watches_and_locks_are_not_written_under_an_old_fence(
    one_step: Bench, store: PostgresStore, sql: Connection
) -> None:
    del one_step
    async with store.begin() as uow:
        old = await uow.executions.claim(worker="one", lease_s=0.0)
        assert old is not None
        assert await uow.executions.take_over(worker="two", lease_s=600) is not None
    before = await sql.fetchrow(EVERYTHING)
    async with store.begin() as uow:
        assert await uow.executions.begin_batch(old.id, old.fence, [1]) == 0
        assert await uow.executions.watch(old.id, old.fence, ()) is None
        assert not await uow.executions.watched(old.id, old.fence, "as_good")
        assert not await uow.executions.hold(old.id, old.fence, Lock(RESOURCE, "token", 1))
    assert await sql.fetchrow(EVERYTHING) == before


async def _call(ledger: Ledger, method: str, old: Execution) -> None:
    match method:
        case "failed":
            await ledger.failed(old, "late", blocked=True)
        case "done":
            await ledger.done(old)
        case "canary_judged":
            for verdict in CanaryVerdict:
                assert not await ledger.canary_judged(old, Judgement(verdict, "late"))
        case "ready_again" | "unknown" | "needs_human":
            await getattr(ledger, method)(old, "late")
        case _:
            await getattr(ledger, method)(old, old.steps[0], "late")


# --- rollback


async def test_a_scale_that_did_not_help_is_put_back(scaling: Bench, store: PostgresStore) -> None:
    await scaling.runner().run_once()
    assert (await scaling.place.target.observe(scaling.before.ref)).replicas == 4
    async with store.begin() as uow:
        await uow.telemetry.save_samples([Sample(MEMORY, datetime.now(UTC), 0.99)])
    at_once = VerificationSettings(hold_s=3600.0, deadline_s=0.0, min_samples=1)
    verifier = Verifier(store, order_rollback, SystemClock(), at_once)
    assert await verifier.run((await scaling.case()).incident)
    case = await scaling.case()
    assert case.rollback is not None
    assert case.verification is not None
    assert (case.verification.verdict, case.incident.state) == (Verdict.NOT_RECOVERED, IncidentState.MITIGATING)
    assert await scaling.runner("two").run_once()
    case = await scaling.case()
    assert case.execution is not None
    assert case.rollback is not None
    assert (case.execution.state, case.rollback.state) == (ExecutionState.NOT_VERIFIED, ExecutionState.APPLIED)
    assert case.incident.state is IncidentState.ESCALATED
    assert case.incident.outcome == "not recovered, rolled back: 4 → 2 replicas; a person has to look"
    assert standing(case).line.startswith("✅ approved by")
    assert "❌ not recovered, rolled back: 4 → 2 replicas" in standing(case).line
    assert (await scaling.place.target.observe(scaling.before.ref)).replicas == 2
    assert [call.verb for call in scaling.changes] == ["patch", "patch"]


async def test_a_restart_has_nothing_to_put_back(one_step: Bench, store: PostgresStore) -> None:
    await one_step.runner().run_once()
    case = await one_step.case()
    assert case.plan is not None
    async with store.begin() as uow:
        assert not await order_rollback(uow, case.plan)


async def test_a_plan_changed_after_its_approval_is_not_carried_out(two_steps: Bench, sql: Connection) -> None:
    await sql.execute("UPDATE plans SET generation = 'another'")
    assert await two_steps.runner().run_once()
    case = await two_steps.case()
    assert case.execution is not None
    assert case.execution.state is ExecutionState.FAILED
    assert "not the one that was approved" in case.incident.outcome
    assert case.execution.physical_changes == 0


async def test_a_lock_left_behind_by_a_worker_of_ours_holds_nobody_up(one_step: Bench, locks: RedisLocks) -> None:
    assert await locks.acquire(RESOURCE, holder="sre-bot dead:1", ttl_s=600) is not None
    assert await one_step.runner().run_once()
    case = await one_step.case()
    assert case.execution is not None
    assert (case.execution.state, case.execution.physical_changes) == (ExecutionState.APPLIED, 1)
