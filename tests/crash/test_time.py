"""Clocks that are wrong, jump, or go on while a process stands still."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any, cast
from unittest.mock import patch

from bot.relay import Relay
from bot.scheduler import Ticker
from pipeline.adapters.postgres.clock import DatabaseClock
from pipeline.adapters.postgres.pool import Pool
from pipeline.domain.ids import IncidentId, OutboxId
from pipeline.domain.notice import CardNotice, ThreadNotice, ThreadPart
from pipeline.ports.bus import Bus
from pipeline.ports.clock import SystemClock
from pipeline.ports.outbox import OutboxRow
from pipeline.ports.store import Store

LEASE_S = 0.05
WAIT_S = 60.0


class Nowhere:
    """A store that says yes to everything, for what is not about stores."""

    def __init__(self, row: OutboxRow | None = None) -> None:
        self._row = row
        self.done: list[OutboxId] = []

    @asynccontextmanager
    async def begin(self) -> AsyncIterator[Any]:
        yield self

    @property
    def outbox(self) -> Any:
        return _Outbox(self, self._row)

    @property
    def control(self) -> Any:
        return _Control()


class _Outbox:
    def __init__(self, owner: Nowhere, row: OutboxRow | None) -> None:
        self._owner, self._row = owner, row

    async def claim(self, **_: Any) -> OutboxRow | None:
        return self._row

    async def attempting(self, outbox_id: OutboxId) -> None: ...

    async def keep(self, outbox_id: OutboxId, **_: Any) -> bool:
        return True

    async def done(self, outbox_id: OutboxId) -> None:
        self._owner.done.append(outbox_id)


class _Control:
    async def win_tick(self, job: str, slot: int) -> bool:
        return True


class SlowAtFirst:
    """A publisher that takes longer than a lease for its first drawing, as one that was stopped in the middle of it."""

    def __init__(self) -> None:
        self.drawn = 0

    async def publish(self, row: OutboxRow) -> None:
        self.drawn += 1
        clock = asyncio.get_running_loop()
        began_s = clock.time()
        while self.drawn == 1 and clock.time() - began_s <= 2 * LEASE_S:
            await asyncio.sleep(0)


class NoBus:
    async def publish(self, topic: str, fields: Mapping[str, str]) -> None: ...

    def listen(self, topic: str) -> AsyncIterator[Mapping[str, str]]:
        raise NotImplementedError


def row(notice: CardNotice | ThreadNotice) -> OutboxRow:
    return OutboxRow(id=OutboxId(1), incident_id=IncidentId(1), notice=notice, attempts=1, in_doubt=False)


async def drawn_for(notice: CardNotice | ThreadNotice) -> int:
    store, publisher = Nowhere(row(notice)), SlowAtFirst()
    relay = Relay(cast(Store, store), publisher, cast(Bus, NoBus()), worker="one", lease_s=LEASE_S)
    assert await relay.run_once()
    assert store.done == [OutboxId(1)]
    return publisher.drawn


async def test_a_card_that_took_longer_than_the_lease_is_drawn_again() -> None:
    assert await drawn_for(CardNotice()) >= 2


async def test_a_reply_is_never_sent_again_for_that() -> None:
    assert await drawn_for(ThreadNotice(part=ThreadPart.LINE, text="said once")) == 1


async def test_a_jump_of_the_clock_starts_the_intervals_anew() -> None:
    ran = asyncio.Event()

    async def job(others_ran: bool) -> None:
        ran.set()

    ahead_s = 0.0
    right = time.time
    ticker = Ticker(cast(Store, Nowhere()), SystemClock())
    ticker.every(0.05, "verify", job)
    with patch("bot.scheduler.LOOK_S", 0.01), patch("bot.scheduler.time.time", lambda: right() + ahead_s):
        ticker.start()
        # What a clock that is set back by an hour leaves: the next time to run is an hour away.
        ticker._scheduler.modify_job("verify", next_run_time=datetime.now(UTC) + timedelta(hours=1))
        await asyncio.sleep(0)
        ran.clear()
        ahead_s = -3600.0
        async with asyncio.timeout(WAIT_S):
            await ran.wait()
        ticker.stop()


async def test_after_one_answer_the_machines_clock_does_not_count(database_dsn: str) -> None:
    pool = Pool(database_dsn, max_size=1)
    clock = DatabaseClock(pool)
    await clock.ask()
    async with pool.transaction() as connection:
        asked = await connection.fetchval("SELECT clock_timestamp()")
    with patch("pipeline.adapters.postgres.clock.datetime") as machine:
        told = clock.now()
        machine.now.assert_not_called()
    assert asked - timedelta(seconds=WAIT_S) < told < asked + timedelta(seconds=WAIT_S)
    assert told.tzinfo is not None
    await pool.close()
