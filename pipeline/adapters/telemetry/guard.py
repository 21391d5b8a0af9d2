"""What stands between us and a provider: a bounded time, a bounded number of calls, a breaker, and typed errors."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from time import monotonic

from pipeline.domain.errors import PermanentError, TemporaryError
from pipeline.domain.telemetry import SourceFailure

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
    ``BREAKER_REST_S``, and then one call alone tries the provider again; a PermanentError is an answer and ends the
    row, a call that we gave up ourselves tells nothing. A Retry-After is honoured.
    """

    def __init__(self, provider: str, *, timeout_s: float, concurrency: int = 8) -> None:
        self._provider = provider
        self._timeout_s = timeout_s
        self._slots = asyncio.Semaphore(concurrency)
        self._failures = 0
        self._last_failure = ""
        self._rest_until_s = 0.0
        self._trying = False

    @asynccontextmanager
    async def call(self) -> AsyncIterator[None]:
        """Around one call. Raises TemporaryError when time ran out, or while the provider is left alone.

        Inside, a client's errors must be turned into TemporaryError or PermanentError.
        """
        self._refuse_while_resting()
        async with self._slots:
            self._refuse_while_resting()  # it may have failed while we waited for a slot
            trying = self._trying = self._failures >= BREAKER_THRESHOLD
            try:
                async with _in_time(self._timeout_s):
                    yield
            except TemporaryError as error:
                self._failed(error)
                raise
            except PermanentError:
                self._failures = 0
                raise
            else:
                self._failures = 0
            finally:
                if trying:
                    self._trying = False

    def _refuse_while_resting(self) -> None:
        rest_s = self._rest_until_s - monotonic()
        if self._failures < BREAKER_THRESHOLD:
            if rest_s > 0:
                raise TemporaryError(f"{self._provider} asked us to wait, {rest_s:.0f} s are left")
        elif rest_s > 0 or self._trying:
            left = f"left alone for {rest_s:.0f} s more" if rest_s > 0 else "one call is trying it again"
            said = f"{self._provider} failed {self._failures} times in a row ({self._last_failure}), {left}"
            raise TemporaryError(said)

    def _failed(self, error: TemporaryError) -> None:
        self._failures += 1
        self._last_failure = str(error)
        rest_s = min(error.retry_after_s or 0.0, MAX_REST_S)
        if self._failures >= BREAKER_THRESHOLD:
            rest_s = max(rest_s, BREAKER_REST_S)
        if rest_s > 0:
            self._rest_until_s = max(self._rest_until_s, monotonic() + rest_s)


def failure_of(source: str, error: TemporaryError | PermanentError) -> SourceFailure:
    """What a reading says of a call that failed: why, and whether it is worth waiting for."""
    if isinstance(error, TemporaryError):
        return SourceFailure(source, f"{error}; asked again at the next reading")
    return SourceFailure(source, f"{error}; it will fail again until the settings are changed")


@asynccontextmanager
async def _in_time(timeout_s: float) -> AsyncIterator[None]:
    try:
        async with asyncio.timeout(timeout_s):
            yield
    except TimeoutError as error:
        raise TemporaryError(f"no answer within {timeout_s:g} s") from error
