"""The claim-and-fence protocol in a real PostgreSQL."""

from collections.abc import Awaitable, Callable
from typing import Literal

import pytest

from pipeline.adapters.postgres.executions import PostgresExecutions
from pipeline.adapters.postgres.pool import Connection
from pipeline.adapters.postgres.unit_of_work import PostgresStore
from pipeline.domain.action import operations
from pipeline.domain.execution import Execution, Intent, StepState
from pipeline.domain.ids import ExecutionId, ServiceName
from pipeline.domain.lifecycle import OPEN_EXECUTION_STATES, ExecutionState
from tests.builders import ALICE, CHECKOUT, WEB, make_target, restart, scale
from tests.stored import approved, awaiting, claimed, execution_of, fall_due, lapse

TWO = restart("checkout-1", "checkout-2")


def intent(execution: Execution, step: int = 1, generation: str = "12") -> Intent:
    return Intent(execution.id, step, execution.fence, generation)


async def take_over(store: PostgresStore, worker: str = "two") -> Execution | None:
    async with store.begin() as uow:
        return await uow.executions.take_over(worker=worker, lease_s=60)


async def move(store: PostgresStore, execution: Execution, *states: ExecutionState, **how: float) -> Execution:
    async with store.begin() as uow:
        for state in states:
            assert await uow.executions.move(execution.id, execution.fence, state, **how)  # type: ignore[arg-type]
    return await execution_of(store, execution.id)


async def dispatched(store: PostgresStore) -> Execution:
    """Claimed by ``one``, its first step dispatched."""
    await approved(store, TWO)
    execution = await claimed(store)
    async with store.begin() as uow:
        assert await uow.executions.move(execution.id, execution.fence, ExecutionState.DISPATCHED)
        assert await uow.executions.step_dispatched(intent(execution))
    return await execution_of(store, execution.id)


# --- creating


async def test_an_execution_begins_ready_with_its_steps_in_order(store: PostgresStore) -> None:
    execution = await execution_of(store, await approved(store, TWO))
    assert (execution.state, execution.kind, execution.target) == (ExecutionState.READY, "apply", make_target())
    assert tuple(step.operation for step in execution.steps) == operations(TWO)
    assert [(step.number, step.state) for step in execution.steps] == [(1, StepState.PENDING), (2, StepState.PENDING)]
    assert (execution.started_at, execution.waiting_since, execution.physical_changes) == (None, None, 0)


async def test_a_target_has_one_open_execution(store: PostgresStore, sql: Connection) -> None:
    first = await approved(store)
    other = await awaiting(store, service=WEB)
    elsewhere = await awaiting(store, service=ServiceName("payments"), target=make_target(uid="uid-payments"))
    for state in ExecutionState:
        await sql.execute("UPDATE executions SET state = $2 WHERE id = $1", first, state.value)
        async with store.begin() as uow:
            made = await uow.executions.create(other.plan, "apply", restart("checkout-2"))
        assert made is (state not in OPEN_EXECUTION_STATES), state
        await sql.execute("DELETE FROM execution_steps WHERE execution_id <> $1", first)
        await sql.execute("DELETE FROM executions WHERE id <> $1", first)
    await sql.execute("UPDATE executions SET state = 'ready'")
    async with store.begin() as uow:
        assert await uow.executions.create(elsewhere.plan, "apply", restart("payments-1"))


async def test_a_plan_is_executed_once_and_rolled_back_once(store: PostgresStore, sql: Connection) -> None:
    execution = await execution_of(store, await approved(store))

    async def create(kind: Literal["apply", "rollback"]) -> bool:
        async with store.begin() as uow:
            plan = await uow.plans.get(execution.plan_id)
            assert plan is not None
            return await uow.executions.create(plan, kind, scale())

    assert not await create("rollback"), "the target has an open one"
    await sql.execute("UPDATE executions SET state = 'not_verified'")
    assert not await create("apply")
    assert await create("rollback")
    await sql.execute("UPDATE executions SET state = 'failed'")
    assert not await create("rollback")


# --- claiming


async def test_two_workers_at_once_one_claim(store: PostgresStore) -> None:
    await approved(store)
    async with store.begin() as uow:
        mine = await uow.executions.claim(worker="one", lease_s=60)
        async with store.begin() as other:
            assert await other.executions.claim(worker="two", lease_s=60) is None
    assert mine is not None
    assert (mine.state, mine.fence > 0, mine.started_at is not None) == (ExecutionState.CLAIMED, True, True)
    async with store.begin() as uow:
        assert await uow.executions.claim(worker="two", lease_s=60) is None


async def test_fences_grow_over_all_executions(store: PostgresStore, sql: Connection) -> None:
    fences = []
    for service in (CHECKOUT, WEB):
        await approved(store, service=service, target=make_target(uid=f"uid-{service}"))
        fences.append((await claimed(store)).fence)
    await lapse(sql, "executions")
    for _ in range(2):
        taken = await take_over(store)
        assert taken is not None
        fences.append(taken.fence)
    assert fences == sorted(set(fences))


async def test_what_was_put_off_is_claimed_when_it_is_due(store: PostgresStore, sql: Connection) -> None:
    await approved(store)
    first = await claimed(store)
    await move(store, first, ExecutionState.READY, delay_s=3600)
    async with store.begin() as uow:
        assert await uow.executions.claim(worker="two", lease_s=60) is None
    await fall_due(sql)
    again = await claimed(store)
    assert (again.id, again.fence > first.fence, again.started_at) == (first.id, True, first.started_at)


# --- the fence

OLD_WRITES: dict[str, Callable[[PostgresExecutions, Execution], Awaitable[object]]] = {
    "renew": lambda store, old: store.renew(old.id, old.fence, lease_s=60),
    **{
        f"move to {state}": lambda store, old, state=state: store.move(old.id, old.fence, state, detail="late")  # type: ignore[misc]
        for state in ExecutionState
    },
    "step_dispatched": lambda store, old: store.step_dispatched(intent(old, 2)),
    "step_applied": lambda store, old: store.step_applied(old.id, old.fence, 1, "late"),
    "step_failed": lambda store, old: store.step_failed(old.id, old.fence, 1, "late"),
    "step_pending": lambda store, old: store.step_pending(old.id, old.fence, 1, "late"),
}


async def test_an_old_fence_can_write_nothing(store: PostgresStore, sql: Connection) -> None:
    old = await dispatched(store)
    await lapse(sql, "executions")
    new = await take_over(store)
    assert new is not None
    rows = "SELECT (SELECT jsonb_agg(e) FROM executions e), (SELECT jsonb_agg(s) FROM execution_steps s)"
    before = await sql.fetchrow(rows)
    async with store.begin() as uow:
        for name, write in OLD_WRITES.items():
            assert await write(uow.executions, old) is False, name
            assert await sql.fetchrow(rows) == before, name
        assert await uow.executions.may_call(old.id, old.fence) == "another worker took this execution over"
        assert await uow.executions.step_applied(new.id, new.fence, 1, "found"), "the new one can"


async def test_a_step_is_dispatched_only_when_it_is_pending_and_its_execution_says_so(
    store: PostgresStore, sql: Connection
) -> None:
    await approved(store, TWO)
    execution = await claimed(store)
    async with store.begin() as uow:
        assert not await uow.executions.step_dispatched(intent(execution)), "the execution is only claimed"
        await uow.executions.move(execution.id, execution.fence, ExecutionState.DISPATCHED)
        assert await uow.executions.step_dispatched(intent(execution, generation="17"))
        assert not await uow.executions.step_dispatched(intent(execution)), "it is dispatched already"
        assert await uow.executions.intent(execution.id, 1) == intent(execution, generation="17")
        assert await uow.executions.step_applied(execution.id, execution.fence, 1, "replaced")
        for write in (uow.executions.step_applied, uow.executions.step_failed, uow.executions.step_pending):
            assert not await write(execution.id, execution.fence, 1, "again"), "an applied step stays applied"
    await lapse(sql, "executions")
    async with store.begin() as uow:
        assert not await uow.executions.step_dispatched(intent(execution, 2)), "the lease is over"


async def test_the_state_machine_holds_for_the_holder_too(store: PostgresStore) -> None:
    refused: list[tuple[list[ExecutionState], ExecutionState]] = [
        ([], ExecutionState.VERIFIED),
        ([], ExecutionState.UNKNOWN),
        ([ExecutionState.DISPATCHED], ExecutionState.READY),
        ([ExecutionState.DISPATCHED, ExecutionState.APPLIED], ExecutionState.FAILED),
        ([ExecutionState.FAILED], ExecutionState.READY),
        ([ExecutionState.DISPATCHED, ExecutionState.UNKNOWN, ExecutionState.NEEDS_HUMAN], ExecutionState.READY),
    ]
    for number, (path, to) in enumerate(refused):
        await approved(store, service=ServiceName(f"service-{number}"), target=make_target(uid=f"uid-{number}"))
        execution = await claimed(store)
        await move(store, execution, *path)
        async with store.begin() as uow:
            assert not await uow.executions.move(execution.id, execution.fence, to), (path, to)


# --- may_call


async def test_a_call_may_go_out_under_fence_and_lease(store: PostgresStore, sql: Connection) -> None:
    await approved(store)
    execution = await claimed(store)
    async with store.begin() as uow:
        assert await uow.executions.may_call(execution.id, execution.fence) == ""
        assert "took this execution over" in await uow.executions.may_call(execution.id, execution.fence - 1)
        assert "took this execution over" in await uow.executions.may_call(ExecutionId(999), execution.fence)
    await lapse(sql, "executions")
    async with store.begin() as uow:
        assert await uow.executions.may_call(execution.id, execution.fence) == "the lease ran out"
        assert not await uow.executions.renew(execution.id, execution.fence, lease_s=60), "what ran out stays so"


@pytest.mark.parametrize(
    ("scope", "stops"),
    [("all", True), (str(CHECKOUT), True), (str(WEB), False), ("env:demo", True), ("env:production", False)],
    ids=["all", "own", "another", "own environment", "another environment"],
)
async def test_a_kill_switch_stops_the_next_call(store: PostgresStore, scope: str, stops: bool) -> None:
    await approved(store)
    execution = await claimed(store)
    async with store.begin() as uow:
        await uow.control.kill(scope, "no changes today", ALICE)
        said = await uow.executions.may_call(execution.id, execution.fence)
        assert said == (f"kill switch engaged: {scope} (no changes today)" if stops else "")
        await uow.control.resume(scope, "go on", ALICE, people_needed=1)
        assert await uow.executions.may_call(execution.id, execution.fence) == ""


# --- taking over


async def test_nothing_is_taken_over_before_its_lease_is_over(store: PostgresStore, sql: Connection) -> None:
    old = await dispatched(store)
    assert await take_over(store) is None
    async with store.begin() as uow:
        assert await uow.executions.renew(old.id, old.fence, lease_s=3600)
    assert await take_over(store) is None
    await lapse(sql, "executions")
    async with store.begin() as uow:
        new = await uow.executions.take_over(worker="two", lease_s=60)
        assert await take_over(store, "three") is None, "one of them only"
    assert new is not None
    assert (new.id, new.fence > old.fence, new.state) == (old.id, True, ExecutionState.UNKNOWN)
    assert await take_over(store) is None


async def test_a_claimed_execution_stays_claimed_and_ended_ones_are_left_alone(
    store: PostgresStore, sql: Connection
) -> None:
    await approved(store)
    await claimed(store)
    await lapse(sql, "executions")
    taken = await take_over(store)
    assert taken is not None
    assert taken.state is ExecutionState.CLAIMED
    for state in set(ExecutionState) - {ExecutionState.CLAIMED, ExecutionState.DISPATCHED, ExecutionState.UNKNOWN}:
        await sql.execute("UPDATE executions SET state = $1", state.value)
        await lapse(sql, "executions")
        assert await take_over(store) is None, state


async def test_an_unknown_outcome_is_looked_up_when_it_is_due_not_when_the_lease_ends(
    store: PostgresStore, sql: Connection
) -> None:
    old = await dispatched(store)
    await move(store, old, ExecutionState.UNKNOWN, delay_s=3600)
    assert await take_over(store) is None
    await fall_due(sql)
    assert await take_over(store) is not None


# --- waiting


async def test_waiting_begins_once_and_ends_with_a_step_that_stands(store: PostgresStore) -> None:
    await approved(store, TWO)
    first = await claimed(store)
    assert first.waiting_since is None
    waiting = await move(store, first, ExecutionState.READY)
    assert waiting.waiting_since is not None
    again = await claimed(store)
    assert again.waiting_since == waiting.waiting_since
    sent = await move(store, again, ExecutionState.DISPATCHED)
    assert sent.waiting_since == waiting.waiting_since, "a call that is refused again must not start it anew"
    async with store.begin() as uow:
        await uow.executions.step_dispatched(intent(again))
        await uow.executions.step_applied(again.id, again.fence, 1, "replaced")
    assert (await execution_of(store, again.id)).waiting_since is None


async def test_waiting_for_an_answer_goes_on_over_workers(store: PostgresStore, sql: Connection) -> None:
    old = await dispatched(store)
    waiting = await move(store, old, ExecutionState.UNKNOWN)
    assert waiting.waiting_since is not None
    taken = await take_over(store)
    assert taken is not None
    assert taken.waiting_since == waiting.waiting_since
    assert (await move(store, taken, ExecutionState.UNKNOWN)).waiting_since == waiting.waiting_since
    taken = await take_over(store)
    assert taken is not None
    done = await move(store, taken, ExecutionState.APPLIED)
    assert (done.waiting_since, done.applied_at is not None) == (None, True)


async def test_a_worker_that_died_had_not_been_waiting(store: PostgresStore, sql: Connection) -> None:
    old = await dispatched(store)
    await sql.execute("UPDATE executions SET waiting_since = clock_timestamp() - interval '1 hour'")
    await lapse(sql, "executions")
    taken = await take_over(store)
    assert taken is not None
    assert (taken.id, taken.waiting_since) == (old.id, None)


async def test_details_are_kept_and_cut(store: PostgresStore) -> None:
    await approved(store)
    execution = await claimed(store)
    async with store.begin() as uow:
        await uow.executions.move(execution.id, execution.fence, ExecutionState.READY, detail="x" * 1000)
    assert (await execution_of(store, execution.id)).detail == "x" * 500
