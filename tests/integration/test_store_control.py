"""Switches, phases, ticks and requests seen in a real PostgreSQL."""

import asyncio

import pytest

from pipeline.adapters.postgres.pool import Connection
from pipeline.adapters.postgres.unit_of_work import PostgresStore
from pipeline.domain.ids import SlackUserId
from pipeline.domain.lifecycle import IncidentState, PlanState
from pipeline.domain.phase import Phase, TrackRecord
from tests.builders import ALICE, BOB, CHECKOUT, WEB, make_approval
from tests.stored import approved, awaiting, case_of, opened, until_blocked

CAROL = SlackUserId("U0CAROL")


async def kill(store: PostgresStore, scope: str = "all", user: SlackUserId = ALICE) -> None:
    async with store.begin() as uow:
        await uow.control.kill(scope, "stop", user)


async def resume(store: PostgresStore, user: SlackUserId, scope: str = "all", people_needed: int = 2) -> bool:
    async with store.begin() as uow:
        return await uow.control.resume(scope, "go on", user, people_needed=people_needed)


async def engaged(store: PostgresStore) -> bool:
    async with store.begin() as uow:
        return await uow.control.engaged(CHECKOUT, "demo") is not None


async def test_a_switch_covers_its_scope(store: PostgresStore) -> None:
    assert not await engaged(store)
    await kill(store, WEB)
    assert not await engaged(store)
    await kill(store, CHECKOUT, BOB)
    async with store.begin() as uow:
        switch = await uow.control.engaged(CHECKOUT, "demo")
        assert switch is not None
        assert (switch.scope, switch.reason, switch.changed_by, switch.resume_asked_by) == (CHECKOUT, "stop", BOB, None)
    await kill(store)
    async with store.begin() as uow:
        switch = await uow.control.engaged(CHECKOUT, "demo")
        assert switch is not None
        assert switch.scope == "all"
        assert [one.scope for one in await uow.control.switches()] == ["all", "checkout", "web"]
    assert await resume(store, ALICE, people_needed=1)
    assert await engaged(store), "its own switch is still on"


async def test_an_environment_is_stopped_as_a_whole(store: PostgresStore) -> None:
    await kill(store, "env:production")
    assert not await engaged(store), "checkout runs in demo"
    await kill(store, CHECKOUT)
    await kill(store, "env:demo")
    async with store.begin() as uow:
        switch = await uow.control.engaged(CHECKOUT, "demo")
        assert switch is not None
        assert switch.scope == "env:demo", "the widest says why"
        elsewhere = await uow.control.engaged(WEB, "production")
        assert elsewhere is not None
        assert elsewhere.scope == "env:production"


async def test_releasing_takes_two_people(store: PostgresStore) -> None:
    await kill(store)
    assert not await resume(store, ALICE)
    assert not await resume(store, ALICE), "the same person twice is one"
    assert await engaged(store)
    assert await resume(store, BOB)
    assert not await engaged(store)
    async with store.begin() as uow:
        (switch,) = await uow.control.switches()
    assert (switch.engaged, switch.reason, switch.changed_by, switch.resume_asked_by) == (False, "go on", BOB, None)


async def test_two_people_at_once_are_two(store: PostgresStore, sql: Connection) -> None:
    await kill(store)
    async with store.begin() as uow:
        assert not await uow.control.resume("all", "go on", ALICE, people_needed=2)
        second = asyncio.create_task(resume(store, BOB))
        await until_blocked(sql)
    assert await second


async def test_a_question_that_is_too_old_is_asked_anew(store: PostgresStore, sql: Connection) -> None:
    await kill(store)
    assert not await resume(store, ALICE)
    await sql.execute("UPDATE kill_switches SET resume_asked_at = clock_timestamp() - interval '901 s'")
    assert not await resume(store, BOB), "it is the first of a new pair"
    assert await engaged(store)
    assert await resume(store, ALICE)


async def test_killing_again_takes_the_question_back(store: PostgresStore) -> None:
    await kill(store)
    assert not await resume(store, ALICE)
    await kill(store, user=CAROL)
    assert not await resume(store, BOB)
    assert await engaged(store)


async def test_each_scope_is_asked_for_by_itself(store: PostgresStore) -> None:
    await kill(store)
    await kill(store, CHECKOUT)
    assert not await resume(store, ALICE)
    assert not await resume(store, BOB, CHECKOUT)
    assert await resume(store, BOB)
    assert await engaged(store)


async def test_one_person_is_enough_where_that_is_set_and_nothing_is_nothing(store: PostgresStore) -> None:
    assert await resume(store, ALICE), "there is nothing to release"
    await kill(store)
    assert await resume(store, ALICE, people_needed=1)
    assert not await engaged(store)
    assert await resume(store, BOB)


async def test_a_tick_is_won_once(store: PostgresStore, sql: Connection) -> None:
    async def win(slot: int) -> bool:
        async with store.begin() as uow:
            return await uow.control.win_tick("detect", slot)

    assert sum(await asyncio.gather(*(win(1) for _ in range(6)))) == 1
    assert await win(2)
    assert not await win(2)
    async with store.begin() as uow:
        assert await uow.control.win_tick("verify", 2)
        assert await uow.control.win_tick("detect", 3)
        other = asyncio.create_task(win(3))
        await until_blocked(sql)
    assert not await other


@pytest.mark.parametrize("commits", [True, False])
async def test_a_request_is_new_once_unless_its_transaction_failed(store: PostgresStore, commits: bool) -> None:
    try:
        async with store.begin() as uow:
            assert await uow.control.first_time("Ev0123")
            assert not await uow.control.first_time("Ev0123")
            if not commits:
                raise ZeroDivisionError
    except ZeroDivisionError:
        pass
    async with store.begin() as uow:
        assert await uow.control.first_time("Ev0123") is not commits


async def test_the_newest_phase_counts(store: PostgresStore) -> None:
    async with store.begin() as uow:
        assert await uow.control.phase() is None
        await uow.control.set_phase(Phase.ASSIST, "trial over", ALICE)
        await uow.control.set_phase(Phase.SHADOW, "too early", BOB)
        assert await uow.control.phase() is Phase.SHADOW


async def test_the_track_record_counts_what_happened(store: PostgresStore, sql: Connection) -> None:
    async with store.begin() as uow:
        assert await uow.control.track_record() == TrackRecord(0, 0, 0, 0, 0, 0, 0, 0.0)
    await approved(store)
    rejected = (await awaiting(store, service=WEB)).plan
    await opened(store, family="disk")
    async with store.begin() as uow:
        for user in (ALICE, BOB):
            word = make_approval(user, "reject", plan_id=rejected.id, plan_hash=rejected.hash)
            await uow.plans.decide(word)
        await uow.plans.move(rejected.id, PlanState.PROPOSED, PlanState.REJECTED)
    await sql.execute("UPDATE executions SET state = 'verified', applied_at = clock_timestamp()")
    await sql.execute("UPDATE incidents SET opened_at = clock_timestamp() - interval '36 hours' WHERE id = 2")
    async with store.begin() as uow:
        record = await uow.control.track_record()
    assert (record.incidents, record.decided, record.approved, record.executed, record.recovered) == (2, 2, 1, 1, 1)
    assert (record.inconclusive, record.needs_human) == (0, 0)
    assert record.days == pytest.approx(1.5, abs=0.01)
    assert (await case_of(store, rejected.incident_id)).incident.state is IncidentState.AWAITING_DECISION
