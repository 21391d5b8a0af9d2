"""The outbox in a real PostgreSQL: first in first out per incident, at least once, never stuck."""

import asyncio

import pytest

from pipeline.adapters.postgres.pool import Connection
from pipeline.adapters.postgres.unit_of_work import PostgresStore
from pipeline.domain.ids import IncidentId, OutboxId
from pipeline.domain.notice import BusNotice, CardNotice, ThreadNotice, ThreadPart
from pipeline.domain.severity import Severity
from pipeline.ports.outbox import OutboxRow
from tests.builders import WEB
from tests.stored import fall_due, lapse, opened, until_blocked

CARD = CardNotice()
WAKE = BusNotice(topic="wake", fields={"incident": "INC-1"})


def line(text: str) -> ThreadNotice:
    return ThreadNotice(part=ThreadPart.LINE, text=text)


async def add(
    store: PostgresStore, incident_id: IncidentId | None, *notices: CardNotice | ThreadNotice | BusNotice
) -> None:
    async with store.begin() as uow:
        for notice in notices:
            await uow.outbox.add(incident_id, notice)


async def claim(store: PostgresStore, worker: str = "one", lease_s: float = 60.0) -> OutboxRow | None:
    """As the relay does it: the attempt is on record before anything is sent."""
    async with store.begin() as uow:
        row = await uow.outbox.claim(worker=worker, lease_s=lease_s)
        if row is not None:
            await uow.outbox.attempting(row.id)
    return row


async def taken(store: PostgresStore, worker: str = "one") -> OutboxRow:
    row = await claim(store, worker)
    assert row is not None
    return row


async def done(store: PostgresStore, row: OutboxRow) -> None:
    async with store.begin() as uow:
        await uow.outbox.done(row.id)


async def states(sql: Connection) -> list[str]:
    return [row["state"] for row in await sql.fetch("SELECT state FROM outbox ORDER BY id")]


async def test_rows_of_one_incident_go_one_after_the_other(store: PostgresStore) -> None:
    incident = await opened(store)
    notices: list[CardNotice | ThreadNotice] = [CARD, line("one"), line("two"), ThreadNotice(part=ThreadPart.SUMMARY)]
    await add(store, incident.id, *notices)
    for notice in notices:
        row = await taken(store)
        assert (row.incident_id, row.notice, row.attempts, row.in_doubt) == (incident.id, notice, 1, False)
        assert await claim(store, "two") is None, "what comes after waits"
        await done(store, row)
    assert await claim(store) is None
    async with store.begin() as uow:
        assert await uow.outbox.counts() == {"done": 4}


async def test_incidents_do_not_wait_for_each_other_and_the_worst_goes_first(store: PostgresStore) -> None:
    mild = await opened(store, severity=Severity.SEV3)
    bad = await opened(store, service=WEB, severity=Severity.SEV1)
    await add(store, mild.id, CARD)
    await add(store, bad.id, CARD, line("one"))
    await add(store, None, WAKE)
    order = [await taken(store, worker) for worker in ("one", "two", "three")]
    assert [row.incident_id for row in order] == [None, bad.id, mild.id]
    assert await claim(store) is None


async def test_two_workers_at_once_never_get_the_same(store: PostgresStore) -> None:
    incident, other = await opened(store), await opened(store, service=WEB)
    await add(store, incident.id, CARD)
    await add(store, other.id, CARD)
    async with store.begin() as uow:
        first = await uow.outbox.claim(worker="one", lease_s=60)
        second = await claim(store, "two")
    assert first is not None
    assert second is not None
    assert {first.incident_id, second.incident_id} == {incident.id, other.id}


async def test_events_pass_by_what_waits_for_slack(store: PostgresStore) -> None:
    incident = await opened(store)
    await add(store, incident.id, line("waits"), WAKE, line("after"))
    waiting = await taken(store)
    event = await taken(store, "two")
    assert (waiting.notice, event.notice) == (line("waits"), WAKE)
    await done(store, waiting)
    assert (await taken(store)).notice == line("after"), "and a line does not wait for an event either"


# --- cards


async def test_one_waiting_card_is_enough(store: PostgresStore, sql: Connection) -> None:
    incident, other = await opened(store), await opened(store, service=WEB)
    await add(store, incident.id, CARD, CARD, line("one"), CARD)
    await add(store, other.id, CARD)
    assert await sql.fetchval("SELECT count(*) FROM outbox WHERE kind = 'card'") == 2


async def test_a_card_being_drawn_does_not_stand_for_what_comes_later(store: PostgresStore, sql: Connection) -> None:
    incident = await opened(store)
    await add(store, incident.id, CARD)
    drawing = await taken(store)
    await add(store, incident.id, CARD, CARD)
    assert await sql.fetchval("SELECT count(*) FROM outbox") == 2
    await done(store, drawing)
    await fall_due(sql)
    assert (await taken(store)).id > drawing.id


async def test_a_waiting_card_is_not_drawn_before_the_change_it_stands_for_is_committed(store: PostgresStore) -> None:
    incident = await opened(store)
    await add(store, incident.id, CARD)
    async with store.begin() as uow:
        await uow.incidents.set_owner(incident.id, WEB)  # type: ignore[arg-type]
        await uow.outbox.add(incident.id, CARD)
        early = await claim(store)
        assert early is None, "it would be drawn without the owner, and nothing would draw it again"
    assert (await taken(store)).notice == CARD


async def test_a_card_that_is_claimed_at_that_moment_is_followed_by_another(
    store: PostgresStore, sql: Connection
) -> None:
    incident = await opened(store)
    await add(store, incident.id, CARD)
    async with store.begin() as uow:
        assert await uow.outbox.claim(worker="one", lease_s=60) is not None
        adding = asyncio.create_task(add(store, incident.id, CARD))
        await until_blocked(sql)
    await adding
    assert await sql.fetchval("SELECT count(*) FROM outbox WHERE kind = 'card'") == 2


async def test_redraws_of_a_card_keep_their_distance(store: PostgresStore, sql: Connection) -> None:
    incident, other = await opened(store), await opened(store, service=WEB)
    await add(store, incident.id, CARD)
    await done(store, await taken(store))
    await sql.execute("UPDATE incidents SET card_updated_at = clock_timestamp() + interval '1 hour' WHERE id = 1")
    await add(store, incident.id, CARD, line("after the card"))
    await add(store, other.id, CARD)
    assert (await taken(store)).incident_id == other.id
    assert await claim(store) is None
    await sql.execute("UPDATE incidents SET card_updated_at = clock_timestamp() - interval '2.1 s' WHERE id = 1")
    assert (await taken(store)).notice == CARD


async def test_only_a_card_sets_the_distance(store: PostgresStore, sql: Connection) -> None:
    incident = await opened(store)
    await add(store, incident.id, line("one"), WAKE)
    for _ in range(2):
        await done(store, await taken(store))
    assert await sql.fetchval("SELECT card_updated_at FROM incidents") is None


# --- leases and doubt


async def test_a_worker_that_died_leaves_the_row_in_doubt(store: PostgresStore, sql: Connection) -> None:
    incident = await opened(store)
    await add(store, incident.id, line("one"))
    first = await taken(store)
    assert await claim(store, "two") is None
    await lapse(sql, "outbox")
    second = await taken(store, "two")
    assert (second.id, second.attempts, first.in_doubt, second.in_doubt) == (first.id, 2, False, True)
    await done(store, second)
    assert await states(sql) == ["done"]


async def test_a_worker_that_died_before_the_attempt_leaves_no_doubt(store: PostgresStore, sql: Connection) -> None:
    incident = await opened(store)
    await add(store, incident.id, line("one"))
    async with store.begin() as uow:
        assert await uow.outbox.claim(worker="one", lease_s=60) is not None
    await lapse(sql, "outbox")
    assert not (await taken(store, "two")).in_doubt


async def test_a_lease_is_kept_by_its_holder_alone(store: PostgresStore, sql: Connection) -> None:
    incident = await opened(store)
    await add(store, incident.id, line("one"))
    row = await taken(store)
    async with store.begin() as uow:
        assert await uow.outbox.keep(row.id, worker="one", lease_s=60)
        assert not await uow.outbox.keep(row.id, worker="two", lease_s=60)
    await lapse(sql, "outbox")
    await taken(store, "two")
    async with store.begin() as uow:
        assert not await uow.outbox.keep(row.id, worker="one", lease_s=60)
        await uow.outbox.done(row.id)
        assert not await uow.outbox.keep(row.id, worker="two", lease_s=60), "it is done"


# --- trying again


@pytest.mark.parametrize("surely_not_sent", [True, False])
async def test_a_row_is_tried_again_when_it_is_due(
    store: PostgresStore, sql: Connection, surely_not_sent: bool
) -> None:
    incident = await opened(store)
    await add(store, incident.id, line("one"), line("two"))
    row = await taken(store)
    async with store.begin() as uow:
        await uow.outbox.retry(
            row.id, attempt=row.attempts, delay_s=3600, error="e" * 1000, surely_not_sent=surely_not_sent
        )
    assert await claim(store) is None, "the next line must not overtake it"
    assert await sql.fetchval("SELECT error FROM outbox WHERE id = $1", row.id) == "e" * 500
    await fall_due(sql)
    again = await taken(store, "two")
    assert (again.id, again.attempts, again.in_doubt) == (row.id, 2, not surely_not_sent)
    await done(store, again)
    assert await sql.fetchval("SELECT error FROM outbox WHERE id = $1", row.id) == ""


async def test_a_dead_row_lets_the_next_one_pass(store: PostgresStore, sql: Connection) -> None:
    incident = await opened(store)
    await add(store, incident.id, line("one"), line("two"))
    row = await taken(store)
    async with store.begin() as uow:
        await uow.outbox.dead(row.id, "not_in_channel", attempt=row.attempts)
    assert (await taken(store)).notice == line("two")
    async with store.begin() as uow:
        assert await uow.outbox.counts() == {"dead": 1, "pending": 1}
    await lapse(sql, "outbox")
    await fall_due(sql)
    assert (await taken(store)).notice == line("two"), "dead is for good"


async def test_what_was_sent_stays_sent(store: PostgresStore, sql: Connection) -> None:
    incident = await opened(store)
    await add(store, incident.id, line("one"))
    row = await taken(store)
    await done(store, row)
    async with store.begin() as uow:  # a worker that had been stopped for longer than its lease
        await uow.outbox.retry(row.id, attempt=row.attempts, delay_s=0, error="late", surely_not_sent=True)
        await uow.outbox.dead(row.id, "late", attempt=row.attempts)
    assert await states(sql) == ["done"]
    assert await claim(store) is None


async def test_an_unknown_row_is_no_fault(store: PostgresStore) -> None:
    async with store.begin() as uow:
        await uow.outbox.done(OutboxId(99))
        assert not await uow.outbox.keep(OutboxId(99), worker="one", lease_s=60)
        assert await uow.outbox.counts() == {}


async def test_what_was_sent_long_ago_is_forgotten_and_what_waits_or_was_set_aside_is_not(
    store: PostgresStore, sql: Connection
) -> None:
    async with store.begin() as uow:
        for topic in ("sent", "waits", "set aside"):
            await uow.outbox.add(None, BusNotice(topic=topic, fields={"n": "1"}))
    for topic, state in (("sent", "done"), ("set aside", "dead")):
        await sql.execute("UPDATE outbox SET state = $2 WHERE payload ->> 'topic' = $1", topic, state)
    await sql.execute("UPDATE outbox SET done_at = created_at - interval '2 hours' WHERE state = 'done'")
    async with store.begin() as uow:
        await uow.telemetry.prune(keep_s=3600)
        assert dict(await uow.outbox.counts()) == {"pending": 1, "dead": 1}


async def test_a_worker_whose_row_was_taken_over_changes_nothing_of_the_later_attempt(
    store: PostgresStore, sql: Connection
) -> None:
    incident = await opened(store)
    await add(store, incident.id, line("one"))
    stopped = await taken(store, "stopped")
    await lapse(sql, "outbox")
    later = await taken(store, "later")
    assert later.id == stopped.id
    async with store.begin() as uow:
        await uow.outbox.retry(stopped.id, attempt=stopped.attempts, delay_s=0, error="late", surely_not_sent=True)
        await uow.outbox.dead(stopped.id, "late", attempt=stopped.attempts)
    assert await claim(store) is None, "the later one still sends it"
    assert await states(sql) == ["pending"]
    async with store.begin() as uow:
        await uow.outbox.dead(later.id, "refused", attempt=later.attempts)
    assert await states(sql) == ["dead"]
