"""One replica first, watched, then the others in batches, each through the gate: also when workers die on the way."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import replace

import pytest

from bot.slack.standing import standing
from executors.targets.registry import Registry
from pipeline.adapters.postgres.pool import Connection
from pipeline.adapters.postgres.unit_of_work import PostgresStore
from pipeline.adapters.redis.locks import RedisLocks
from pipeline.domain.execution import StepState
from pipeline.domain.lifecycle import ExecutionState, IncidentState
from pipeline.domain.telemetry import Signal
from pipeline.domain.trace import TraceKind
from tests.builders import ALICE, CHECKOUT
from tests.contract.targets.places import KubePlace
from tests.executing import SETTINGS, Bench, bench, measured, run_and_die
from tests.faults import Answer, Fault
from tests.stored import lapse, until

HALVES = replace(SETTINGS, batch_share=0.5)
WATCHED = 3
"""Which reading of the target is the first one of the watch: after those of the gate and of the call."""


@pytest.fixture
async def five(store: PostgresStore, place: KubePlace, locks: RedisLocks, _no_pauses: None) -> Bench:
    """All of five replicas are to be restarted."""
    return await bench(store, place, locks, replicas=5, restarts=5)


async def stopped(it: Bench, *, steps: int = 2) -> str:
    """The first replica was restarted and no other; returns the outcome, which a person is called with."""
    case = await it.case()
    assert case.execution is not None
    assert (case.execution.state, case.incident.state) == (ExecutionState.FAILED, IncidentState.ESCALATED)
    assert [step.state for step in case.execution.steps] == [StepState.APPLIED] + [StepState.PENDING] * (steps - 1)
    assert len(it.changes) == 1
    assert {one.uid for one in it.before.instances[1:]} <= await it.instances()
    assert not await it.runner().run_once()
    return case.incident.outcome


def measured_by_replica(
    it: Bench, store: PostgresStore, *, canary: float, peers: float, signal: Signal = Signal.ERROR_RATIO
) -> Callable[[], Awaitable[None]]:
    """At every look at the target: figures of each replica that is there."""
    former = {one.uid for one in it.before.instances}

    async def measure() -> None:
        for one in (await it.place.target.observe(it.before.ref)).instances:
            await measured(store, signal, instance=one.name, after=peers if one.uid in former else canary)

    return measure


async def test_a_canary_that_is_worse_than_its_peers_ends_it(five: Bench, store: PostgresStore) -> None:
    five.target.always("observe", measured_by_replica(five, store, canary=0.4, peers=0.001))
    await five.runner().run_once()
    assert await stopped(five, steps=5) == (
        "stopped after the canary: it is worse: error ratio of the first replica 40 % against 0.1 % of the others;"
        " 1 of 5 steps stand"
    )
    assert (await five.execution()).canary_verdict == "worse"


async def test_a_canary_as_good_as_its_peers_lets_the_rest_go_on_though_the_service_is_ill(
    two_steps: Bench, store: PostgresStore, sql: Connection
) -> None:
    await sql.execute("DELETE FROM samples")
    await measured(store, Signal.ERROR_RATIO, before=0.1, after=0.5)
    two_steps.target.always("observe", measured_by_replica(two_steps, store, canary=0.001, peers=0.5))
    await two_steps.runner().run_once()
    assert (await two_steps.execution()).state is ExecutionState.APPLIED


async def test_a_service_that_is_worse_since_ends_it_where_replicas_are_not_measured(
    two_steps: Bench, store: PostgresStore, sql: Connection
) -> None:
    await sql.execute("DELETE FROM samples")
    await measured(store, Signal.LATENCY_P99, before=0.2, after=1.5)
    await two_steps.runner().run_once()
    assert "p99 latency of the service 1.5 s against 200 ms before" in await stopped(two_steps)


async def test_without_samples_nobody_can_tell_and_a_person_decides(two_steps: Bench, sql: Connection) -> None:
    await sql.execute("DELETE FROM samples")
    await two_steps.runner().run_once()
    assert (await stopped(two_steps)).startswith("stopped after the canary: it cannot be judged: too few samples")


async def test_a_canary_that_is_lost_while_it_is_watched_ends_it(two_steps: Bench) -> None:
    async def lose() -> None:
        cluster = two_steps.place.server.cluster
        former = {one.uid for one in two_steps.before.instances}
        (pod,) = [one for one in cluster.pods_of(two_steps.place.key) if one["metadata"]["uid"] not in former]
        two_steps.place.server.paused = True
        cluster.delete_pod(("pods", "shop", pod["metadata"]["name"]))

    two_steps.target.at("observe", lose, nth=WATCHED + 1)
    await two_steps.runner().run_once()
    assert "is not ready any more" in await stopped(two_steps)


async def test_one_replica_has_no_canary(one_step: Bench, sql: Connection) -> None:
    await sql.execute("DELETE FROM samples")
    await one_step.runner().run_once()
    execution = await one_step.execution()
    assert (execution.state, execution.watching_since) == (ExecutionState.APPLIED, None)
    assert not any("batch" in said for said in await one_step.told(TraceKind.EXECUTION))


async def test_a_kill_switch_works_while_the_canary_is_watched(two_steps: Bench, store: PostgresStore) -> None:
    async def stop() -> None:
        async with store.begin() as uow:
            await uow.control.kill(CHECKOUT, "enough", ALICE)

    async def look() -> None:
        now = standing(await two_steps.case())
        shown.append((now.word, now.line.partition("watched")[0]))

    shown: list[tuple[str, str]] = []
    two_steps.target.at("observe", look, nth=WATCHED + 1)
    two_steps.target.at("observe", stop, nth=WATCHED + 2)
    for_ever = replace(SETTINGS, canary=replace(SETTINGS.canary, watch_s=3600.0))
    await two_steps.runner(settings=for_ever).run_once()
    assert await stopped(two_steps) == "kill switch engaged: checkout (enough); 1 of 2 steps stand"
    ((word, line),) = shown
    assert word == "Approved · running"
    assert line.endswith("running, the first replica is ")


async def test_the_others_follow_in_batches_through_the_gate(five: Bench) -> None:
    away: list[int] = []

    async def pause() -> None:
        five.place.server.paused = True

    async def count() -> None:
        away.append(5 - (await five.place.target.observe(five.before.ref)).ready)
        five.place.server.paused = False

    five.target.at("apply", pause, nth=2)
    five.target.at("applied", count, nth=3)
    await five.runner(settings=HALVES).run_once()
    execution = await five.execution()
    assert execution.state is ExecutionState.APPLIED
    assert [step.batch for step in execution.steps] == [1, 2, 2, 3, 3]
    assert away == [2], "of five ready replicas half may be away: no step waits for another of its batch"
    told = await five.told(TraceKind.GUARDRAILS)
    assert told == [f"guardrails {when}: all allow" for when in ("at the claim", "before step 2", "before step 4")]
    assert len(five.changes) == 5
    assert not {one.uid for one in five.before.instances} & await five.instances()


async def test_a_batch_never_goes_beyond_what_may_be_away_at_once(five: Bench) -> None:
    limits = replace(HALVES.limits, max_share=0.3)
    await five.runner(settings=replace(HALVES, batch_share=1.0, limits=limits)).run_once()
    assert [step.batch for step in (await five.execution()).steps] == [1, 2, 3, 4, 5]


async def test_a_gate_that_closes_between_batches_says_what_stands(five: Bench, store: PostgresStore) -> None:
    async def close() -> None:
        async with store.begin() as uow:
            await uow.control.kill("all", "enough", ALICE)

    five.target.at("applied", close, nth=3)
    await five.runner(settings=HALVES).run_once()
    case = await five.case()
    assert "kill switch: engaged for all: enough" in case.incident.outcome
    assert case.incident.outcome.endswith("3 of 5 steps stand")
    assert len(five.changes) == 3


async def test_a_refusal_for_now_within_a_batch_leaves_nothing_in_flight(five: Bench) -> None:
    async def refuse() -> None:
        five.place.proxy.strike(Answer(429, b'{"message": "slow down"}'))

    five.target.at("apply", refuse, nth=3)
    await five.runner(settings=HALVES).run_once()
    waiting = await five.execution()
    states = [step.state for step in waiting.steps]
    assert waiting.state is ExecutionState.READY
    assert states == [StepState.APPLIED] * 2 + [StepState.PENDING] * 3
    await five.runner("two", settings=HALVES).run_once()
    done = await five.execution()
    assert (done.state, [step.batch for step in done.steps]) == (ExecutionState.APPLIED, [1, 2, 2, 3, 3])
    assert len(five.changes) == 5


async def finish(it: Bench) -> None:
    """What the loops of another worker do until nothing is left to do."""
    recovery = it.recovery(targets=Registry({"kubernetes": it.briefly()}), settings=HALVES)
    runner = it.runner("two", settings=HALVES)

    async def nothing_left() -> bool:
        return not (await recovery.run_once() or await runner.run_once())

    await until(nothing_left)


@pytest.mark.parametrize(
    ("moment", "nth"),
    [("observe", WATCHED), ("observe", WATCHED + 1), ("applied", 3)],
    ids=["watch to begin", "watching", "a batch sent and not recorded"],
)
async def test_another_worker_goes_on_where_a_dead_one_stood(
    five: Bench, sql: Connection, moment: str, nth: int
) -> None:
    await run_and_die(five.runner(settings=HALVES), five.target, moment, nth=nth)
    left = await five.execution()
    await lapse(sql, "executions")
    await finish(five)
    done = await five.execution()
    assert (done.state, done.physical_changes) == (ExecutionState.APPLIED, 5)
    assert len(five.changes) == 5, "exactly one physical change a step"
    if left.watching_since is not None:
        assert (done.watching_since, done.canary) == (left.watching_since, left.canary)
    assert [step.batch for step in done.steps] == [1, 2, 2, 3, 3]
    told = await five.told(TraceKind.EXECUTION)
    assert sum(one.startswith("the first replica is as good") for one in told) == 1
    assert sum("lock" in one and "taken" in one for one in await five.told(TraceKind.LOCK)) == 1


async def test_a_lost_answer_within_a_batch_is_looked_up(five: Bench) -> None:
    async def cut() -> None:
        five.place.proxy.strike(Fault.CUT)

    five.target.at("apply", cut, nth=3)
    await five.runner(settings=HALVES).run_once()
    assert (await five.execution()).state is ExecutionState.UNKNOWN
    await finish(five)
    assert (await five.execution()).state is ExecutionState.APPLIED
    assert len(five.changes) == 5
