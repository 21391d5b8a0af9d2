"""Plans and decisions in a real PostgreSQL."""

import asyncio
from dataclasses import replace
from typing import Any

import asyncpg
import pytest

from pipeline.adapters.postgres.pool import Connection
from pipeline.adapters.postgres.unit_of_work import PostgresStore
from pipeline.domain.action import Action, ManualAction
from pipeline.domain.approval import Approval
from pipeline.domain.errors import PermanentError
from pipeline.domain.guardrail import GuardrailResult
from pipeline.domain.ids import PlanId
from pipeline.domain.lifecycle import PlanState
from pipeline.domain.plan import Plan, plan_hash
from tests.builders import ALICE, BOB, make_approval, make_guardrails, manual, restart, scale
from tests.stored import awaiting, draft, opened, until_blocked


def word(plan: Plan, **changes: Any) -> Approval:
    return replace(make_approval(), plan_id=plan.id, plan_hash=plan.hash, **changes)


async def state_of(store: PostgresStore, plan: Plan) -> PlanState:
    async with store.begin() as uow:
        found = await uow.plans.get(plan.id)
    assert found is not None
    return found.state


@pytest.mark.parametrize("action", [restart("checkout-1", "checkout-2"), scale(2, 4), manual()], ids=lambda it: it.kind)
async def test_a_plan_comes_back_as_it_was_proposed(store: PostgresStore, sql: Connection, action: Action) -> None:
    incident = await opened(store)
    wanted = draft(incident.id, action=action, approvals_needed=2, ttl_s=60.0)
    if isinstance(action, ManualAction):
        wanted = replace(wanted, target=None, generation="")
    async with store.begin() as uow:
        plan = await uow.plans.propose(wanted, make_guardrails())
        assert await uow.plans.get(plan.id) == plan
        assert await uow.plans.waiting() == [plan]
        assert await uow.plans.get(PlanId(999)) is None
    assert (plan.action, plan.target, plan.generation) == (action, wanted.target, wanted.generation)
    assert (plan.revision, plan.state, plan.approvals_needed) == (1, PlanState.PROPOSED, 2)
    assert plan.hash == plan_hash(incident.id, 1, action, wanted.target, wanted.generation)
    lives = await sql.fetchval("SELECT extract(epoch FROM expires_at - created_at)::float8 FROM plans")
    assert lives == pytest.approx(60.0, abs=1.0)


async def test_a_new_proposal_supersedes_the_one_that_waits(store: PostgresStore) -> None:
    incident = await opened(store)
    async with store.begin() as uow:
        first = await uow.plans.propose(draft(incident.id), make_guardrails())
        second = await uow.plans.propose(draft(incident.id), make_guardrails())
        assert await uow.plans.waiting() == [second]
    assert (first.revision, second.revision) == (1, 2)
    assert first.hash != second.hash, "an approval of the first must not fit the second"
    assert await state_of(store, first) is PlanState.SUPERSEDED


async def test_a_decided_plan_stays_decided_when_another_is_proposed(store: PostgresStore) -> None:
    incident = await opened(store)
    async with store.begin() as uow:
        first = await uow.plans.propose(draft(incident.id), make_guardrails())
        await uow.plans.move(first.id, PlanState.PROPOSED, PlanState.REJECTED)
        await uow.plans.propose(draft(incident.id), make_guardrails())
    assert await state_of(store, first) is PlanState.REJECTED


async def test_the_database_refuses_a_second_open_plan(store: PostgresStore, sql: Connection) -> None:
    incident = await opened(store)

    async def propose() -> None:
        async with store.begin() as uow:
            await uow.plans.propose(draft(incident.id), make_guardrails())

    async with store.begin() as uow:
        await uow.plans.propose(draft(incident.id), make_guardrails())
        other = asyncio.create_task(propose())
        await until_blocked(sql)
    with pytest.raises(asyncpg.UniqueViolationError):
        await other
    await propose()
    assert await sql.fetchval("SELECT count(*) FROM plans WHERE state = 'proposed'") == 1


async def test_a_move_names_the_state_and_keeps_to_the_table(store: PostgresStore) -> None:
    plan = (await awaiting(store)).plan
    async with store.begin() as uow:
        assert await uow.plans.move(plan.id, PlanState.PROPOSED, PlanState.APPROVED)
        assert not await uow.plans.move(plan.id, PlanState.PROPOSED, PlanState.REJECTED)
        assert await uow.plans.move(plan.id, PlanState.APPROVED, PlanState.BLOCKED)
        with pytest.raises(PermanentError, match="from rejected to approved"):
            await uow.plans.move(plan.id, PlanState.REJECTED, PlanState.APPROVED)


async def test_one_person_has_one_word_on_a_plan(store: PostgresStore) -> None:
    plan = (await awaiting(store)).plan
    async with store.begin() as uow:
        assert await uow.plans.decide(word(plan))
        assert not await uow.plans.decide(word(plan))
        assert not await uow.plans.decide(word(plan, decision="reject"))
        assert await uow.plans.decide(word(plan, user_id=BOB, reason="me too"))
        said = await uow.plans.approvals(plan.id)
    assert [(one.user_id, one.decision, one.reason) for one in said] == [
        (ALICE, "approve", ""),
        (BOB, "approve", "me too"),
    ]


async def test_a_decision_bears_the_databases_time(store: PostgresStore, sql: Connection) -> None:
    plan = (await awaiting(store)).plan
    before = await sql.fetchval("SELECT clock_timestamp()")
    async with store.begin() as uow:
        await uow.plans.decide(word(plan))
        (said,) = await uow.plans.approvals(plan.id)
    assert before < said.at < await sql.fetchval("SELECT clock_timestamp()")


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE approvals SET user_id = 'U0MALLORY'",
        "DELETE FROM approvals",
        "TRUNCATE approvals",
        "TRUNCATE plans CASCADE",
    ],
)
async def test_decisions_are_append_only(store: PostgresStore, sql: Connection, statement: str) -> None:
    plan = (await awaiting(store)).plan
    async with store.begin() as uow:
        await uow.plans.decide(word(plan))
    with pytest.raises(asyncpg.InsufficientPrivilegeError, match="approvals is append-only"):
        await sql.execute(statement)
    assert await sql.fetchval("SELECT user_id FROM approvals") == ALICE


async def test_expiry_goes_by_the_databases_clock(store: PostgresStore, sql: Connection) -> None:
    plan = (await awaiting(store)).plan
    async with store.begin() as uow:
        assert not await uow.plans.is_expired(plan.id)
        assert await uow.plans.expired() == []
    await sql.execute("UPDATE plans SET expires_at = clock_timestamp()")
    async with store.begin() as uow:
        assert await uow.plans.is_expired(plan.id)
        assert [one.id for one in await uow.plans.expired()] == [plan.id]
        await uow.plans.move(plan.id, PlanState.PROPOSED, PlanState.EXPIRED)
        assert await uow.plans.expired() == []
        assert not await uow.plans.is_expired(PlanId(999))


async def test_the_newest_guardrail_answers_are_kept(store: PostgresStore) -> None:
    waiting = await awaiting(store)
    refused = make_guardrails(("kill_switch", "engaged for all: „stop“"))
    async with store.begin() as uow:
        await uow.plans.save_guardrails(waiting.plan.id, refused)
        case = await uow.incidents.case(waiting.incident.id)
        assert case is not None
        assert case.guardrails == refused
        await uow.plans.save_guardrails(waiting.plan.id, GuardrailResult())
        case = await uow.incidents.case(waiting.incident.id)
        assert case is not None
        assert not case.guardrails.allowed


async def test_a_plan_that_is_read_is_held_until_the_transaction_ends(store: PostgresStore, sql: Connection) -> None:
    plan = (await awaiting(store)).plan

    async def second() -> PlanState:
        return await state_of(store, plan)

    async with store.begin() as uow:
        await uow.plans.get(plan.id)
        reader = asyncio.create_task(second())
        await until_blocked(sql)
        await uow.plans.move(plan.id, PlanState.PROPOSED, PlanState.APPROVED)
    assert await reader is PlanState.APPROVED
