"""Keeping a lease alive while work goes on."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress

from pipeline.domain.errors import TemporaryError


@asynccontextmanager
async def kept_alive(renew: Callable[[], Awaitable[bool]], *, lease_s: float) -> AsyncIterator[None]:
    """Calls ``renew`` three times a lease until the block ends.

    A lease that is lost is not announced here: every write names its fence, and the database refuses it.
    """

    async def beat() -> None:
        while True:
            await asyncio.sleep(lease_s / 3)
            with suppress(TemporaryError):
                if not await renew():
                    return

    task = asyncio.create_task(beat())
    try:
        yield
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
