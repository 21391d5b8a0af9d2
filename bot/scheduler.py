"""Periodic work. Every replica runs the scheduler; the database decides which one does a given slot."""

from __future__ import annotations

import logging
import time
from collections.abc import Awaitable, Callable

from apscheduler.schedulers.asyncio import AsyncIOScheduler

from pipeline.domain.errors import TemporaryError
from pipeline.ports.store import Store

log = logging.getLogger(__name__)

Job = Callable[[bool], Awaitable[None]]
"""Called with True when another replica did the slot before this one."""


class Ticker:
    """APScheduler with a memory job store; a tick begins by winning its slot in the database."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._scheduler = AsyncIOScheduler(timezone="UTC")
        self._last_slot: dict[str, int] = {}

    def every(self, seconds: float, name: str, job: Job) -> None:
        """Runs ``job`` about every ``seconds``, in one replica each time."""
        self._scheduler.add_job(
            self._tick, "interval", args=(seconds, name, job), seconds=seconds, max_instances=1, coalesce=True, id=name
        )

    def start(self) -> None:
        self._scheduler.start()

    def stop(self) -> None:
        self._scheduler.shutdown(wait=False)

    async def _tick(self, seconds: float, name: str, job: Job) -> None:
        slot = int(time.time() / seconds)
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
