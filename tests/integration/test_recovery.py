"""Workers that die, calls whose answers are lost: another worker finishes, with one physical change a step."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from executors.targets.registry import Registry
from pipeline.adapters.postgres.pool import Connection
from pipeline.adapters.postgres.unit_of_work import PostgresStore, PostgresUnitOfWork
from pipeline.adapters.redis.locks import RedisLocks
from pipeline.domain.errors import TemporaryError
from pipeline.domain.execution import StepState
from pipeline.domain.lifecycle import ExecutionState, IncidentState, PlanState
from pipeline.domain.trace import TraceKind
from tests.builders import ALICE
from tests.executing import Bench, run_and_die
from tests.faults import Answer, Fault
from tests.stored import fall_due, lapse, until


async def free_locks(it: Bench) -> None:
    """The dead worker's lock with other agents ran out too."""
    assert isinstance(it.locks, RedisLocks)
    await it.locks._client.flushall()


async def recover(it: Bench) -> None:
    """One look at the target by a second worker that does not wait long for requests that never come."""
    assert await it.recovery(targets=Registry({"kubernetes": it.briefly()})).run_once()


async def finish(it: Bench) -> None:
    """What the loops of a second worker do until nothing is left to do."""
    recovery = it.recovery(targets=Registry({"kubernetes": it.briefly()}))
    runner = it.runner("two")

    async def nothing_left() -> bool:
        return not (await recovery.run_once() or await runner.run_once())

    await until(nothing_left)


async def carried_out(it: Bench, *, changes: int) -> None:
    case = await it.case()
    assert case.execution is not None
    assert (case.execution.state, case.incident.state) == (ExecutionState.APPLIED, IncidentState.VERIFYING)
    assert {step.state for step in case.execution.steps} == {StepState.APPLIED}
    assert len(it.changes) == changes, "exactly one physical change a step"
    planned = {one.uid for one in it.before.instances[:changes]}
    left = await it.instances()
    assert not planned & left
    assert {one.uid for one in it.before.instances[changes:]} <= left


# --- workers that die


@pytest.mark.parametrize(
    ("moment", "nth"),
    [("observe", 1), ("observe", 2), ("apply", 1), ("applied", 1), ("find", 1), ("applied", 2)],
    ids=[
        "after the claim",
        "before step 1",
        "step 1 dispatched, not sent",
        "step 1 sent, not recorded",
        "step 1 being read back",
        "step 2 sent, not recorded",
    ],
)
async def test_another_worker_finishes_what_a_dead_one_began(
    two_steps: Bench, sql: Connection, moment: str, nth: int
) -> None:
    await run_and_die(two_steps.runner(), two_steps.target, moment, nth=nth)
    assert not await two_steps.recovery().run_once(), "its lease is not over"
    await lapse(sql, "executions")
    await free_locks(two_steps)
    await finish(two_steps)
    await carried_out(two_steps, changes=2)


async def test_a_worker_that_wakes_up_late_changes_nothing(two_steps: Bench, sql: Connection) -> None:
    """Stopped between the intent and the call for longer than its lease, as by SIGSTOP."""
    stopped, go_on = asyncio.Event(), asyncio.Event()

    async def sleep() -> None:
        stopped.set()
        await go_on.wait()

    two_steps.target.at("apply", sleep)
    late = asyncio.create_task(two_steps.runner().run_once())
    await stopped.wait()
    await lapse(sql, "executions")
    await free_locks(two_steps)
    await finish(two_steps)
    await carried_out(two_steps, changes=2)
    told = await two_steps.told()
    go_on.set()
    await late
    await carried_out(two_steps, changes=2)
    assert await two_steps.told() == told


async def test_a_lease_that_ran_out_ends_nothing(two_steps: Bench, sql: Connection) -> None:
    """Stopped for longer than its lease while nobody else was there: it leaves off, and the rest is done later."""

    async def oversleep() -> None:
        await lapse(sql, "executions")

    two_steps.target.at("observe", oversleep, nth=2)
    assert await two_steps.runner().run_once()
    left = await two_steps.execution()
    assert (left.state, left.detail, two_steps.changes) == (ExecutionState.CLAIMED, "", [])
    await finish(two_steps)
    await carried_out(two_steps, changes=2)


async def test_an_execution_whose_every_step_stands_is_done(one_step: Bench, sql: Connection) -> None:
    """Died between the record of the last step and that of the whole."""
    await one_step.runner().run_once()
    await sql.execute("UPDATE executions SET state = 'dispatched', applied_at = NULL")
    await sql.execute("UPDATE incidents SET state = 'mitigating'")
    await lapse(sql, "executions")
    await recover(one_step)
    await carried_out(one_step, changes=1)


# --- answers that are lost


@pytest.mark.parametrize("fault", [Fault.CUT, Fault.LOST])
async def test_a_call_without_an_answer_is_looked_up_and_not_repeated_blind(one_step: Bench, fault: Fault) -> None:
    one_step.place.proxy.strike(fault)
    assert await one_step.runner().run_once()
    unknown = await one_step.execution()
    assert (unknown.state, unknown.steps[0].state) == (ExecutionState.UNKNOWN, StepState.DISPATCHED)
    assert unknown.waiting_since is not None
    assert not await one_step.runner().run_once(), "only recovery may touch it"
    await finish(one_step)
    await carried_out(one_step, changes=1)
    (found,) = await one_step.told(TraceKind.RECOVERY)
    assert found.endswith("applied" if fault is Fault.CUT else "not applied")


async def test_a_call_that_takes_too_long_is_unknown(one_step: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("executors.runner.CALL_TIMEOUT_S", 0.3)

    async def hang() -> None:
        await asyncio.Event().wait()

    one_step.target.at("applied", hang)
    await one_step.runner().run_once()
    assert "time-out" in (await one_step.execution()).detail
    await finish(one_step)
    await carried_out(one_step, changes=1)


async def test_where_the_target_cannot_tell_a_person_decides(one_step: Bench, sql: Connection) -> None:
    one_step.place.proxy.strike(Fault.CUT)
    await one_step.runner().run_once()
    cluster = one_step.place.server.cluster
    del cluster.objects[one_step.place.key]
    cluster.add_workload(*one_step.place.key, replicas=2)
    await recover(one_step)
    assert (await one_step.execution()).state is ExecutionState.UNKNOWN, "it is looked at again first"
    await sql.execute("UPDATE executions SET waiting_since = waiting_since - interval '61 s'")
    await recover(one_step)
    case = await one_step.case()
    assert case.execution is not None
    assert (case.execution.state, case.incident.state) == (ExecutionState.NEEDS_HUMAN, IncidentState.ESCALATED)
    assert case.incident.outcome == "step 1: the target cannot tell; it is not known whether it took effect"
    assert not await one_step.recovery().run_once()
    assert not await one_step.runner().run_once()
    assert len(one_step.changes) == 1


async def test_a_target_that_stays_away_calls_a_person(one_step: Bench, sql: Connection) -> None:
    async def away() -> None:
        raise TemporaryError("connection refused")

    one_step.place.proxy.strike(Fault.LOST)
    await one_step.runner().run_once()
    one_step.target.always("find", away)
    assert await one_step.recovery().run_once()
    assert (await one_step.execution()).detail == "step 1: connection refused"
    await sql.execute("UPDATE executions SET waiting_since = waiting_since - interval '61 s'")
    assert await one_step.recovery().run_once()
    case = await one_step.case()
    assert case.execution is not None
    assert case.execution.state is ExecutionState.NEEDS_HUMAN
    assert "connection refused" in case.incident.outcome


async def test_a_target_that_comes_back_after_patience_ended_leaves_nothing_stuck(
    one_step: Bench, sql: Connection
) -> None:
    """Between PATIENCE_S and GIVE_UP_S: the step is proven not applied, but it is too late to begin again."""
    one_step.place.proxy.strike(Fault.LOST)
    await one_step.runner().run_once()
    await sql.execute("UPDATE executions SET waiting_since = waiting_since - interval '50 s'")
    await recover(one_step)
    await fall_due(sql)
    await lapse(sql, "executions")
    case = await one_step.case()
    assert case.execution is not None
    assert (case.execution.state, case.incident.state) == (ExecutionState.FAILED, IncidentState.ESCALATED)
    assert case.incident.outcome.endswith("nothing was changed")
    assert not await one_step.recovery().run_once()
    assert one_step.changes == []


async def test_a_step_found_late_is_progress_and_the_rest_goes_on(two_steps: Bench, sql: Connection) -> None:
    two_steps.place.proxy.strike(Fault.CUT)
    await two_steps.runner().run_once()
    await sql.execute("UPDATE executions SET waiting_since = waiting_since - interval '50 s'")
    await finish(two_steps)
    await carried_out(two_steps, changes=2)


async def test_a_replacement_that_is_slow_to_be_ready_is_not_taken_for_harm(two_steps: Bench, sql: Connection) -> None:
    """Half of the replicas are away by our own step 1; the gate before step 2 waits for them to be back."""
    two_steps.place.server.cluster.ready_after_s = 1.5
    await run_and_die(two_steps.runner(), two_steps.target, "applied")
    await lapse(sql, "executions")
    await finish(two_steps)
    await carried_out(two_steps, changes=2)


async def test_a_platform_that_is_gone_calls_a_person(one_step: Bench, sql: Connection) -> None:
    one_step.place.proxy.strike(Fault.CUT)
    await one_step.runner().run_once()
    recovery = one_step.recovery(targets=Registry({}))
    assert await recovery.run_once()
    await sql.execute("UPDATE executions SET waiting_since = waiting_since - interval '61 s'")
    assert await recovery.run_once()
    assert (await one_step.execution()).state is ExecutionState.NEEDS_HUMAN
    assert "the platform kubernetes is not set up" in (await one_step.case()).incident.outcome


async def test_a_kill_switch_lets_recovery_look_and_nothing_more(two_steps: Bench, store: PostgresStore) -> None:
    two_steps.place.proxy.strike(Fault.CUT)
    await two_steps.runner().run_once()
    async with store.begin() as uow:
        await uow.control.kill("all", "enough", ALICE)
    await finish(two_steps)
    case = await two_steps.case()
    assert case.execution is not None
    assert case.plan is not None
    assert (case.execution.state, case.execution.physical_changes) == (ExecutionState.FAILED, 1)
    assert case.plan.state is PlanState.APPROVED, "it was not kept from acting: a part of it stands"
    assert case.incident.outcome.endswith("1 of 2 steps stand")
    assert len(two_steps.changes) == 1


# --- what a crash between two transactions leaves behind


class Watched(PostgresStore):
    """Looks at the database after every commit."""

    def __init__(self, inner: PostgresStore, sql: Connection) -> None:
        self._inner = inner
        self._sql = sql
        self.seen: list[tuple[str, str]] = []

    @asynccontextmanager
    async def begin(self) -> AsyncIterator[PostgresUnitOfWork]:
        async with self._inner.begin() as uow:
            yield uow
        row = await self._sql.fetchrow("SELECT e.state, s.state FROM executions e JOIN execution_steps s ON number = 1")
        self.seen.append((row[0], row[1]))


async def test_a_refused_step_and_its_execution_end_in_one_transaction(
    one_step: Bench, store: PostgresStore, sql: Connection
) -> None:
    one_step.place.proxy.strike(Answer(403, b'{"message": "forbidden"}'))
    watched = Watched(store, sql)
    await one_step.runner(store=watched).run_once()
    assert watched.seen[-1] == ("failed", "failed")
    assert ("dispatched", "failed") not in watched.seen, "a worker that dies here would leave it stuck for ever"
