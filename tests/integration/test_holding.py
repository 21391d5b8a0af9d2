"""The lock that other agents heed, from before the first call to the verdict; what stood before, and its rollback."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

from bot.slack.standing import standing
from executors.ledger import Ledger
from executors.rollback import order_rollback
from executors.targets.registry import Registry
from pipeline.adapters.postgres.pool import Connection
from pipeline.adapters.postgres.unit_of_work import PostgresStore
from pipeline.adapters.redis.locks import RedisLocks
from pipeline.domain.canary import CanaryVerdict, Judgement
from pipeline.domain.execution import SeenInstance, StoodBefore
from pipeline.domain.lifecycle import ExecutionState, IncidentState
from pipeline.domain.telemetry import Sample
from pipeline.domain.trace import TraceKind
from pipeline.domain.verification import Verdict, VerificationSettings
from pipeline.ports.clock import SystemClock
from pipeline.ports.locks import Holder, Priority
from pipeline.stages.dry_run import dry_run
from pipeline.stages.verify import Verifier
from tests.builders import ALICE, CHECKOUT, MEMORY
from tests.executing import RESOURCE, SETTINGS, Bench, run_and_die
from tests.stored import lapse

OURS = Holder("sre-bot one", Priority.SRE)


async def judged(it: Bench, *, memory: float) -> Verdict:
    """The verdict over a last sample after the action: 0.99 is still beyond the bound."""
    async with it.store.begin() as uow:
        await uow.telemetry.save_samples([Sample(MEMORY, datetime.now(UTC), memory)])
    at_once = VerificationSettings(hold_s=3600.0, deadline_s=0.0, min_samples=1)
    assert await Verifier(it.store, order_rollback, SystemClock(), at_once).run((await it.case()).incident)
    case = await it.case()
    assert case.verification is not None
    return case.verification.verdict


# --- the lock


async def test_the_lock_is_held_until_the_verdict_and_the_target_rests_after_it(
    one_step: Bench, locks: RedisLocks, sql: Connection
) -> None:
    await one_step.runner().run_once()
    await sql.execute("UPDATE execution_steps SET dispatched_at = dispatched_at - interval '100 s'")
    short = replace(SETTINGS, settle_timeout_s=3600.0)
    assert not await one_step.recovery(settings=short).run_once()
    assert await locks.holder(RESOURCE) == OURS
    assert await locks._client.pttl(f"sre:lock:{{{RESOURCE}}}") > 60_000, "another worker renewed it"
    await judged(one_step, memory=0.99)
    assert await locks.holder(RESOURCE) == OURS
    assert not await one_step.recovery("three").run_once()
    assert await locks.holder(RESOURCE) is None
    left_s = await locks.resting(RESOURCE)
    assert SETTINGS.limits.rest_s / 2 < left_s <= SETTINGS.limits.rest_s - 100, "counted from the call on"
    async with one_step.store.begin() as uow:
        assert await uow.executions.holding() == []


async def test_a_lock_is_gone_on_with_by_whoever_takes_the_execution_over(
    two_steps: Bench, locks: RedisLocks, sql: Connection
) -> None:
    await run_and_die(two_steps.runner(), two_steps.target, "observe", nth=3)
    await lapse(sql, "executions")
    recovery, runner = two_steps.recovery(), two_steps.runner("two")
    assert await recovery.run_once()
    assert await runner.run_once()
    assert (await two_steps.execution()).state is ExecutionState.APPLIED
    assert await locks.holder(RESOURCE) == OURS, "it is the dead worker's lock still"
    assert len(await two_steps.told(TraceKind.LOCK)) == 1


async def test_an_agent_that_goes_before_us_stops_the_next_call(two_steps: Bench, locks: RedisLocks) -> None:
    async def pre_empt() -> None:
        assert await locks.acquire(RESOURCE, holder="secops", ttl_s=600, priority=Priority.SECOPS)

    two_steps.target.at("applied", pre_empt)
    await two_steps.runner().run_once()
    case = await two_steps.case()
    assert case.execution is not None
    assert (case.execution.state, case.incident.state) == (ExecutionState.FAILED, IncidentState.ESCALATED)
    assert case.incident.outcome == f"secops took the lock on {RESOURCE} over; 1 of 2 steps stand"
    assert len(two_steps.changes) == 1
    await two_steps.recovery().run_once()
    assert await locks.holder(RESOURCE) == Holder("secops", Priority.SECOPS), "what is theirs is not released"


async def test_a_person_who_breaks_the_lock_stops_the_next_call(two_steps: Bench, locks: RedisLocks) -> None:
    async def break_it() -> None:
        assert await locks.break_(RESOURCE) == OURS

    two_steps.target.at("applied", break_it)
    await two_steps.runner().run_once()
    outcome = (await two_steps.case()).incident.outcome
    assert outcome == f"the lock on {RESOURCE} was taken away; 1 of 2 steps stand"
    assert await locks.holder(RESOURCE) is None


async def test_a_lock_service_that_lost_its_data_stops_nothing(two_steps: Bench, locks: RedisLocks) -> None:
    async def flush() -> None:
        await locks._client.flushall()

    two_steps.target.at("applied", flush)
    await two_steps.runner().run_once()
    assert (await two_steps.execution()).state is ExecutionState.APPLIED
    assert await locks.holder(RESOURCE) == OURS
    assert (await two_steps.told(TraceKind.LOCK))[1:] == [
        f"the lock service had lost the lock on {RESOURCE}; taken again"
    ]


async def test_a_rest_that_another_agent_asked_for_is_kept(one_step: Bench, locks: RedisLocks) -> None:
    await locks.rest(RESOURCE, holder="finops", for_s=600)
    await one_step.runner().run_once()
    waiting = await one_step.execution()
    assert (waiting.state, one_step.changes) == (ExecutionState.READY, [])
    assert waiting.detail.startswith(f"another agent asked to let {RESOURCE} rest for")
    await locks._client.flushall()
    assert await one_step.runner().run_once()
    assert (await one_step.execution()).state is ExecutionState.APPLIED


# --- what stood before


async def test_what_stood_before_is_kept_with_the_intent(scaling: Bench) -> None:
    assert scaling.before.rollout == "1"
    await scaling.runner().run_once()
    (step,) = (await scaling.execution()).steps
    assert step.before == StoodBefore(
        generation=scaling.before.generation,
        replicas=2,
        revision="main:1",
        rollout="1",
        instances=tuple(SeenInstance(name=one.name, uid=one.uid) for one in scaling.before.instances),
    )


async def test_the_rollback_puts_back_what_was_noted_and_tells_both(
    scaling: Bench, locks: RedisLocks, sql: Connection
) -> None:
    await scaling.runner().run_once()
    await sql.execute("""UPDATE execution_steps SET before = jsonb_set(before, '{replicas}', '3')""")
    assert await judged(scaling, memory=0.99) is Verdict.NOT_RECOVERED
    await scaling.recovery().run_once()
    assert await locks.holder(RESOURCE) == OURS, "it is not let go before the rollback"
    assert await scaling.runner("two").run_once()
    case = await scaling.case()
    assert case.incident.outcome == "not recovered, rolled back: 4 → 3 replicas; a person has to look"
    assert (await scaling.place.target.observe(scaling.before.ref)).replicas == 3
    assert "❌ not recovered, rolled back: 4 → 3 replicas" in standing(case).line
    await scaling.recovery("three").run_once()
    assert await locks.holder(RESOURCE) is None


async def test_a_kill_switch_refuses_the_rollback_and_a_person_is_called(scaling: Bench, store: PostgresStore) -> None:
    await scaling.runner().run_once()
    await judged(scaling, memory=0.99)
    async with store.begin() as uow:
        await uow.control.kill(CHECKOUT, "enough", ALICE)
    await scaling.runner().run_once()
    case = await scaling.case()
    assert case.rollback is not None
    assert (case.rollback.state, case.incident.state) == (ExecutionState.FAILED, IncidentState.ESCALATED)
    assert case.incident.outcome.startswith("not recovered, and the rollback did not go through: blocked by guardrails")
    assert case.incident.outcome.endswith("nothing was changed; a person has to look")
    assert "the rollback did not go through: blocked by guardrails: kill switch" in standing(case).line
    assert (await scaling.place.target.observe(scaling.before.ref)).replicas == 4
    assert len(scaling.changes) == 1


async def test_an_action_that_its_canary_stops_is_put_back_where_it_can_be(scaling: Bench) -> None:
    """No action of today has several steps and a way back; those of tomorrow stop by the same path."""

    async def stop() -> None:
        worse = Judgement(CanaryVerdict.WORSE, "half of all requests fail")
        assert not await Ledger(scaling.store, SystemClock()).canary_judged(await scaling.execution(), worse)

    scaling.target.at("find", stop)
    await scaling.runner().run_once()
    assert (await scaling.case()).incident.state is IncidentState.MITIGATING
    assert await scaling.runner("two").run_once()
    case = await scaling.case()
    assert case.incident.outcome == (
        "stopped after the canary: it is worse: half of all requests fail, rolled back: 4 → 2 replicas;"
        " a person has to look"
    )
    assert (await scaling.place.target.observe(scaling.before.ref)).replicas == 2


# --- without acting


async def test_a_dry_run_shows_what_then_goes_over_the_wire(two_steps: Bench, store: PostgresStore) -> None:
    said = await dry_run(await two_steps.case(), store, Registry({"kubernetes": two_steps.target}), SETTINGS)
    shown = said.splitlines()
    assert shown[0].endswith("on kubernetes shop/checkout would be carried out now:")
    assert two_steps.changes == []
    assert (
        "Order, each through the gate again: batch 1 is the canary: step 1, watched for 0.1 s once it is ready;" in said
    )
    assert "batch 2: step 2" in said
    assert "Predicted blast radius: at most 1 of 2 ready replicas away at once; 1 calling: web" in shown
    assert said.count("accepted by the API server (dryRun=All)") == 2
    assert {one.partition(":")[0] for one in shown if one[0] in "✅⛔"} >= {"✅ kill switch", "✅ blast radius"}
    two_steps.place.proxy.requests.clear()
    await two_steps.runner().run_once()
    for write in two_steps.place.proxy.writes:
        assert any(f"{write.method} {two_steps.place.proxy.url}{write.path} " in one for one in shown)


async def test_a_dry_run_tells_of_what_would_be_refused(scaling: Bench, store: PostgresStore) -> None:
    await scaling.place.scale_by_another(scaling.before.ref, 3)
    said = await dry_run(await scaling.case(), store, Registry({"kubernetes": scaling.target}), SETTINGS)
    assert "would be refused now:" in said
    assert "refused when rehearsed: shop/checkout has changed: it is at generation" in said
    assert "⛔ preconditions" in said
    assert "Order" not in said
    assert scaling.changes == []
