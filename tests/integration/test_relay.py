"""The relay on the real outbox, with a chat that answers as a test wants."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import suppress

import pytest

from bot.relay import Relay
from pipeline.adapters.postgres.pool import Connection
from pipeline.adapters.postgres.unit_of_work import PostgresStore
from pipeline.adapters.redis.bus import RedisBus
from pipeline.domain.errors import OutcomeUnknown, PermanentError, TemporaryError
from pipeline.domain.incident import Incident
from pipeline.domain.notice import BusNotice, CardNotice, ThreadNotice, ThreadPart
from pipeline.ports.outbox import OutboxRow
from tests.stored import fall_due, lapse, opened, until


class Chat:
    """Notes what it is asked to send. ``answers`` are used up one a row; an empty list means that all goes well."""

    def __init__(self) -> None:
        self.rows: list[OutboxRow] = []
        self.answers: deque[Exception | Callable[[], Awaitable[None]]] = deque()

    async def publish(self, row: OutboxRow) -> None:
        self.rows.append(row)
        answer = self.answers.popleft() if self.answers else None
        if isinstance(answer, Exception):
            raise answer
        if answer is not None:
            await answer()

    @property
    def sent(self) -> list[str]:
        return [row.notice.text for row in self.rows if isinstance(row.notice, ThreadNotice)]


class DeadBus:
    """Cannot be reached."""

    async def publish(self, topic: str, fields: Mapping[str, str]) -> None:
        raise TemporaryError("redis away")

    def listen(self, topic: str) -> AsyncIterator[Mapping[str, str]]:
        raise NotImplementedError


def relay(store: PostgresStore, chat: Chat, worker: str = "one", lease_s: float = 60.0) -> Relay:
    return Relay(store, chat, DeadBus(), worker=worker, lease_s=lease_s)


@pytest.fixture
async def incident(store: PostgresStore) -> Incident:
    return await opened(store)


async def say(store: PostgresStore, incident: Incident, *texts: str) -> None:
    async with store.begin() as uow:
        for text in texts:
            await uow.outbox.add(incident.id, ThreadNotice(part=ThreadPart.LINE, text=text))


async def delay_s(sql: Connection) -> float:
    """How far off the first waiting row is."""
    return float(
        await sql.fetchval(
            """SELECT extract(epoch FROM available_at - clock_timestamp())::float8 FROM outbox
               WHERE state = 'pending' ORDER BY id LIMIT 1"""
        )
    )


async def counts(store: PostgresStore) -> Mapping[str, int]:
    async with store.begin() as uow:
        return await uow.outbox.counts()


async def test_rows_go_out_in_order_and_once(store: PostgresStore, incident: Incident) -> None:
    chat = Chat()
    await say(store, incident, "one", "two", "three")
    while await relay(store, chat).run_once():
        pass
    assert chat.sent == ["one", "two", "three"]
    assert not any(row.in_doubt for row in chat.rows)
    assert await counts(store) == {"done": 3}


async def test_what_was_surely_not_sent_is_sent_again_without_doubt(
    store: PostgresStore, sql: Connection, incident: Incident
) -> None:
    chat = Chat()
    chat.answers += [TemporaryError("slack: 503"), TemporaryError("slack: 503")]
    await say(store, incident, "one", "two")
    waits = []
    for _ in range(2):
        assert await relay(store, chat).run_once()
        waits.append(await delay_s(sql))
        assert not await relay(store, chat).run_once(), "the second line does not overtake it"
        await fall_due(sql)
    assert 0 < waits[0] <= 1.0 < waits[1] <= 2.0
    assert await relay(store, chat).run_once()
    assert chat.sent == ["one"] * 3
    assert [(row.attempts, row.in_doubt) for row in chat.rows] == [(1, False), (2, False), (3, False)]


async def test_slack_says_how_long_to_wait(store: PostgresStore, sql: Connection, incident: Incident) -> None:
    chat = Chat()
    chat.answers.append(TemporaryError("ratelimited", retry_after_s=77.0))
    await say(store, incident, "one")
    await relay(store, chat).run_once()
    assert 60.0 < await delay_s(sql) <= 77.0


async def test_waiting_has_an_end_at_half_a_minute(store: PostgresStore, sql: Connection, incident: Incident) -> None:
    chat = Chat()
    chat.answers.append(TemporaryError("away"))
    await say(store, incident, "one")
    await sql.execute("UPDATE outbox SET attempts = 500")
    await relay(store, chat).run_once()
    assert 20.0 < await delay_s(sql) <= 30.0


async def test_what_may_have_been_sent_stays_in_doubt_until_it_is_out(
    store: PostgresStore, sql: Connection, incident: Incident
) -> None:
    chat = Chat()
    chat.answers += [OutcomeUnknown("no answer"), TemporaryError("503: the look-up failed")]
    await say(store, incident, "one")
    for _ in range(3):
        assert await relay(store, chat).run_once()
        await fall_due(sql)
    assert [row.in_doubt for row in chat.rows] == [False, True, True]
    assert await counts(store) == {"done": 1}


async def test_what_can_never_be_sent_is_set_aside(
    store: PostgresStore, sql: Connection, incident: Incident, caplog: pytest.LogCaptureFixture
) -> None:
    chat = Chat()
    chat.answers.append(PermanentError("channel_not_found"))
    await say(store, incident, "one", "two")
    assert await relay(store, chat).run_once()
    assert await relay(store, chat).run_once()
    assert chat.sent == ["one", "two"]
    assert await counts(store) == {"dead": 1, "done": 1}
    assert await sql.fetchval("SELECT error FROM outbox WHERE state = 'dead'") == "channel_not_found"
    assert "channel_not_found" in caplog.text


async def test_a_relay_killed_while_sending_leaves_the_row_in_doubt_to_another(
    store: PostgresStore, sql: Connection, incident: Incident
) -> None:
    chat, sending = Chat(), asyncio.Event()

    async def hang() -> None:
        sending.set()
        await asyncio.Event().wait()

    chat.answers.append(hang)
    await say(store, incident, "one", "two")
    dying = asyncio.create_task(relay(store, chat).run_once())
    await sending.wait()
    dying.cancel()
    with suppress(asyncio.CancelledError):
        await dying
    assert not await relay(store, chat, "two").run_once(), "the lease is not over"
    await lapse(sql, "outbox")
    assert await relay(store, chat, "two").run_once()
    assert [(row.attempts, row.in_doubt) for row in chat.rows] == [(1, False), (2, True)]
    assert chat.sent == ["one", "one"]


async def test_a_slow_post_keeps_its_lease(store: PostgresStore, sql: Connection, incident: Incident) -> None:
    chat, sending, go_on = Chat(), asyncio.Event(), asyncio.Event()

    async def slow() -> None:
        sending.set()
        await go_on.wait()

    chat.answers.append(slow)
    await say(store, incident, "one")
    first = asyncio.create_task(relay(store, chat, lease_s=3.0).run_once())
    await sending.wait()
    began = await sql.fetchval("SELECT lease_until FROM outbox")

    async def renewed() -> bool:
        return bool(await sql.fetchval("SELECT lease_until > $1 FROM outbox", began))

    await until(renewed)
    assert not await relay(store, chat, "two").run_once()
    go_on.set()
    assert await first
    assert await counts(store) == {"done": 1}


async def test_a_card_asked_for_while_one_is_drawn_is_drawn_again(
    store: PostgresStore, sql: Connection, incident: Incident
) -> None:
    chat = Chat()

    async def ask_again() -> None:
        async with store.begin() as uow:
            await uow.outbox.add(incident.id, CardNotice())

    chat.answers.append(ask_again)
    await ask_again()
    await relay(store, chat).run_once()
    assert not await relay(store, chat).run_once(), "not so soon"
    await fall_due(sql)
    assert await relay(store, chat).run_once()
    assert len(chat.rows) == 2


async def test_two_relays_send_each_row_once(store: PostgresStore) -> None:
    chat = Chat()
    for number in range(6):
        incident = await opened(store, family=f"family-{number}")
        await say(store, incident, f"{number} a", f"{number} b")

    async def work(worker: str) -> None:
        while (await counts(store)).get("pending"):
            await relay(store, chat, worker).run_once()

    await asyncio.gather(work("one"), work("two"), work("three"))
    assert sorted(chat.sent) == sorted(f"{number} {part}" for number in range(6) for part in "ab")
    for number in range(6):
        assert chat.sent.index(f"{number} a") < chat.sent.index(f"{number} b")


async def test_a_dead_bus_does_not_hold_up_slack(store: PostgresStore, sql: Connection, incident: Incident) -> None:
    chat = Chat()
    async with store.begin() as uow:
        await uow.outbox.add(incident.id, BusNotice(topic="wake", fields={}))
    await say(store, incident, "one")
    assert await relay(store, chat).run_once()
    assert await relay(store, chat).run_once()
    assert chat.sent == ["one"]
    assert await counts(store) == {"pending": 1, "done": 1}


async def test_events_go_to_the_bus(store: PostgresStore, incident: Incident, redis_url: str) -> None:
    bus, chat = RedisBus(redis_url), Chat()
    heard: list[Mapping[str, str]] = []
    listening = asyncio.Event()

    async def listen() -> None:
        events = bus.listen("wake")
        listening.set()
        async for event in events:
            heard.append(event)

    listener = asyncio.create_task(listen())
    await listening.wait()

    async def arrived() -> bool:
        async with store.begin() as uow:
            await uow.outbox.add(incident.id, BusNotice(topic="wake", fields={"incident": "INC-1"}))
        await Relay(store, chat, bus, worker="one", lease_s=60.0).run_once()
        return bool(heard)

    await until(arrived)
    listener.cancel()
    with suppress(asyncio.CancelledError):
        await listener
    await bus.close()
    assert heard[0] == {"incident": "INC-1"}
    assert chat.rows == []
