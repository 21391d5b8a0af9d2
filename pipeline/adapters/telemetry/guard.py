"""What stands between us and a provider: a bounded time, a bounded number of calls, a breaker, and typed errors."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from time import monotonic

from purgatory import AsyncCircuitBreakerFactory
from purgatory.domain.model import OpenedState

from pipeline.domain.errors import PermanentError, TemporaryError

BREAKER_THRESHOLD = 5
"""Failed calls in a row until the provider is left alone."""
BREAKER_REST_S = 30.0
"""How long it is left alone; then one call tries it again."""
MAX_REST_S = 300.0
"""A provider may ask us to wait (Retry-After); longer than this it is not believed."""


class Guard:
    """Every call to one provider goes through ``call``.

    ``timeout_s`` bounds a call as a whole (a client's own time-outs are per read, and a slow drip passes them),
    ``concurrency`` how many are under way. After ``BREAKER_THRESHOLD`` TemporaryErrors in a row calls fail at once for
    ``BREAKER_REST_S``; a PermanentError is an answer and does not count. A Retry-After is honoured.
    """

    def __init__(self, provider: str, *, timeout_s: float, concurrency: int = 8) -> None:
        self._provider = provider
        self._timeout_s = timeout_s
        self._slots = asyncio.Semaphore(concurrency)
        self._not_before = 0.0
        self._breakers = AsyncCircuitBreakerFactory(
            default_threshold=BREAKER_THRESHOLD, default_ttl=BREAKER_REST_S, exclude=[PermanentError]
        )

    @asynccontextmanager
    async def call(self) -> AsyncIterator[None]:
        """Around one call. Raises TemporaryError when time ran out, or while the provider is left alone.

        Inside, a client's errors must be turned into TemporaryError or PermanentError.
        """
        wait_s = self._not_before - monotonic()
        if wait_s > 0:
            raise TemporaryError(f"asked us to wait, {wait_s:.0f} s are left")
        breaker = await self._breakers.get_breaker(self._provider)
        try:
            async with self._slots, breaker, _in_time(self._timeout_s):
                yield
        except OpenedState as error:
            said = f"failed {BREAKER_THRESHOLD} times in a row, left alone for {BREAKER_REST_S:.0f} s"
            raise TemporaryError(said) from error
        except TemporaryError as error:
            if error.retry_after_s is not None:
                self._not_before = monotonic() + min(error.retry_after_s, MAX_REST_S)
            raise


@asynccontextmanager
async def _in_time(timeout_s: float) -> AsyncIterator[None]:
    try:
        async with asyncio.timeout(timeout_s):
            yield
    except TimeoutError as error:
        raise TemporaryError(f"no answer within {timeout_s:g} s") from error
