"""The database's clock: one time for all replicas, whatever their machines' clocks say or jump to."""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress
from datetime import datetime, timedelta

from pipeline.adapters.postgres.pool import Pool
from pipeline.domain.errors import TemporaryError
from pipeline.ports.clock import SystemClock

ASK_EVERY_S = 60.0
"""Quartz drifts by a few ms in this time; a machine that slept is right again within it."""


class DatabaseClock:
    """``Clock``: what the database said last, and the time that has passed since by the monotonic clock.

    Leases, expiry and every stored time are the database's. A replica that compared them with a clock of its own
    would wait an hour too long, or not at all, where that one is an hour off.
    """

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self._known: tuple[datetime, float] | None = None

    def now(self) -> datetime:
        """The machine's own time until the database has been asked once."""
        if self._known is None:
            return SystemClock().now()
        told, at_s = self._known
        return told + timedelta(seconds=time.monotonic() - at_s)

    async def ask(self) -> None:
        """Raises TemporaryError when the database is away; what was known before goes on to count."""
        async with self._pool.transaction() as connection:
            asked_s = time.monotonic()
            told = await connection.fetchval("SELECT clock_timestamp()")
            self._known = (told, (asked_s + time.monotonic()) / 2)

    async def keep_right(self) -> None:
        """Asks again and again; runs until it is cancelled."""
        while True:
            with suppress(TemporaryError):
                await self.ask()
            await asyncio.sleep(ASK_EVERY_S)
