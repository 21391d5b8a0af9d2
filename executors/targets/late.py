"""Telling "did not happen" from "did not happen yet"."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from pipeline.domain.execution import Finding

_PAUSE_S = 0.25


async def wait_out(look: Callable[[], Awaitable[Finding | None]], *, flight_s: float) -> Finding:
    """Look for a write's trace until none of it can be on its way any more.

    ``look`` answers None for "no trace, but it could still land". ``flight_s`` is how long a write may be under way
    after its sender gave up or died; a look that begins later and still sees nothing proves that it did not happen.
    """
    loop = asyncio.get_running_loop()
    deadline = loop.time() + flight_s
    while True:
        flight_is_over = loop.time() >= deadline
        if (finding := await look()) is not None:
            return finding
        if flight_is_over:
            return Finding.NOT_APPLIED
        await asyncio.sleep(_PAUSE_S)
