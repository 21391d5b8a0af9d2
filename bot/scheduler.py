"""Periodic work. Every replica runs the scheduler; the database decides which one does a given slot."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable

from apscheduler.schedulers.asyncio import AsyncIOScheduler

from pipeline.domain.errors import TemporaryError
from pipeline.ports.clock import Clock
from pipeline.ports.store import Store

log = logging.getLogger(__name__)

Job = Callable[[bool], Awaitable[None]]
"""Called with True when another replica did the slot before this one."""


JUMP_S = 5.0
LOOK_S = 5.0


class Ticker:
    """APScheduler with a memory job store; a tick begins by winning its slot in the database.

    Slots are counted by ``clock``, so that replicas agree on them. The scheduler itself goes by the machine's clock:
    one that is set back would let it wait for as long, so a jump starts every interval anew.
    """

    def __init__(self, store: Store, clock: Clock) -> None:
        self._store = store
        self._clock = clock
        self._scheduler = AsyncIOScheduler(timezone="UTC")
        self._last_slot: dict[str, int] = {}
        self._seconds: dict[str, float] = {}
        self._watching: asyncio.Task[None] | None = None

    def every(self, seconds: float, name: str, job: Job) -> None:
        """Runs ``job`` about every ``seconds``, in one replica each time."""
        self._seconds[name] = seconds
        self._scheduler.add_job(
            self._tick, "interval", args=(seconds, name, job), seconds=seconds, max_instances=1, coalesce=True, id=name
        )

    def start(self) -> None:
        self._scheduler.start()
        self._watching = asyncio.create_task(self._watch_for_jumps(), name="watch for jumps of the clock")

    def stop(self) -> None:
        if self._watching is not None:
            self._watching.cancel()
        self._scheduler.shutdown(wait=False)

    async def _watch_for_jumps(self) -> None:
        ahead_s = time.time() - time.monotonic()
        while True:
            await asyncio.sleep(LOOK_S)
            jumped_s = time.time() - time.monotonic() - ahead_s
            if abs(jumped_s) > JUMP_S:
                log.warning("the machine's clock jumped by %+.0f s", jumped_s)
                ahead_s += jumped_s
                for name, seconds in self._seconds.items():
                    self._scheduler.reschedule_job(name, trigger="interval", seconds=seconds)

    async def _tick(self, seconds: float, name: str, job: Job) -> None:
        slot = int(self._clock.now().timestamp() / seconds)
        try:
            async with self._store.begin() as uow:
                if not await uow.control.win_tick(name, slot):
                    return
            others = self._last_slot.get(name) != slot - 1
            self._last_slot[name] = slot
            await job(others)
        except TemporaryError as error:
            log.warning("%s put off: %s", name, error)
        except Exception:
            log.exception("%s failed", name)
