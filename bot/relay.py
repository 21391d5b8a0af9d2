"""The outbox to the outside: one row at a time, retried until it is out, never lost."""

from __future__ import annotations

import asyncio
import logging
from typing import Protocol

from executors.lease import kept_alive
from pipeline.domain.errors import OutcomeUnknown, PermanentError, TemporaryError
from pipeline.domain.notice import BusNotice, CardNotice, PagerNotice
from pipeline.ports.bus import Bus
from pipeline.ports.outbox import OutboxRow
from pipeline.ports.store import Store

log = logging.getLogger(__name__)

MAX_BACKOFF_S = 30.0
MAX_REDRAWS = 3
MAX_DEFECTS = 8
"""How often a row that cannot even be drawn is tried before it is set aside."""


class Publisher(Protocol):
    """Sends one notice to the chat or to the pager."""

    async def publish(self, row: OutboxRow) -> None:
        """Raises TemporaryError (not sent), OutcomeUnknown (perhaps sent), PermanentError (never will be)."""
        ...


class Relay:
    """Sends what the outbox holds."""

    def __init__(
        self,
        store: Store,
        publisher: Publisher,
        bus: Bus,
        *,
        worker: str,
        lease_s: float,
        pages: Publisher | None = None,
    ) -> None:
        """``pages`` sends what is for the pager; without one such a row is set aside."""
        self._store = store
        self._publisher = publisher
        self._bus = bus
        self._pages = pages
        self._worker = worker
        self._lease_s = lease_s

    async def run_once(self) -> bool:
        """Sends the next row that is due. False when there is none."""
        async with self._store.begin() as uow:
            row = await uow.outbox.claim(worker=self._worker, lease_s=self._lease_s)
            if row is not None:
                await uow.outbox.attempting(row.id)
        if row is None:
            return False
        claimed = row

        async def renew() -> bool:
            async with self._store.begin() as uow:
                return await uow.outbox.keep(claimed.id, worker=self._worker, lease_s=self._lease_s)

        async with kept_alive(renew, lease_s=self._lease_s):
            await self._send(row)
        return True

    async def _send(self, row: OutboxRow) -> None:
        try:
            if isinstance(row.notice, BusNotice):
                await self._bus.publish(row.notice.topic, row.notice.fields)
            elif isinstance(row.notice, PagerNotice):
                if self._pages is None:
                    raise PermanentError("no pager is set up here: PAGERDUTY_ROUTING_KEY")
                await self._pages.publish(row)
            else:
                await self._tell(row)
        except TemporaryError as error:
            await self._again(row, error, surely_not_sent=not row.in_doubt, delay_s=error.retry_after_s)
        except OutcomeUnknown as error:
            await self._again(row, error, surely_not_sent=False)
        except PermanentError as error:
            log.error("outbox row %s cannot be sent and is set aside: %s", row.id, error)
            async with self._store.begin() as uow:
                await uow.outbox.dead(row.id, str(error), attempt=row.attempts)
        except Exception as error:
            log.exception("outbox row %s could not be drawn", row.id)
            if row.attempts < MAX_DEFECTS:
                await self._again(row, error, surely_not_sent=False)
                return
            async with self._store.begin() as uow:
                await uow.outbox.dead(row.id, f"{type(error).__name__}: {error}", attempt=row.attempts)
        else:
            async with self._store.begin() as uow:
                await uow.outbox.done(row.id)

    async def _tell(self, row: OutboxRow) -> None:
        """Publishes; once more where that took longer than a lease lasts.

        This worker may have been stopped on the way, and its card now stands over a newer one of the worker that took
        the row over.
        """
        clock = asyncio.get_running_loop()
        for _ in range(MAX_REDRAWS):
            began_s = clock.time()
            await self._publisher.publish(row)
            if not isinstance(row.notice, CardNotice) or clock.time() - began_s <= self._lease_s:
                return

    async def _again(
        self, row: OutboxRow, error: Exception, *, surely_not_sent: bool, delay_s: float | None = None
    ) -> None:
        wait_s = delay_s if delay_s is not None else min(0.5 * 2 ** min(row.attempts, 10), MAX_BACKOFF_S)
        log.warning("outbox row %s is tried again in %.1f s: %s", row.id, wait_s, error)
        async with self._store.begin() as uow:
            await uow.outbox.retry(
                row.id,
                attempt=row.attempts,
                delay_s=wait_s,
                error=str(error),
                surely_not_sent=surely_not_sent,
            )
