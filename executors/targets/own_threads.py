"""Threads of one adapter alone: calls that hang in a dead file system take none from the other adapters."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from pipeline.domain.errors import TemporaryError

_T = TypeVar("_T")
_THREADS = 8


class OwnThreads:
    """``name``: the adapter's, for messages and for the names of the threads."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._pool = ThreadPoolExecutor(_THREADS, thread_name_prefix=name)
        self._is_closed = False

    async def run(self, call: Callable[[], _T], *, within_s: float) -> _T:
        """What ``call`` returns or raises.

        Raises TimeoutError when it began and is not done in time (it goes on by itself), TemporaryError when it never
        began, and never will.
        """
        if self._is_closed:
            raise TemporaryError(f"the call was not begun: {self._name} is closed")
        future = self._pool.submit(call)
        try:
            async with asyncio.timeout(within_s):
                return await asyncio.wrap_future(future)
        except TimeoutError as error:
            if future.cancel():  # False once a thread has taken it up
                why = f"the {_THREADS} threads of {self._name} are held by calls that do not end"
                raise TemporaryError(f"the call was not begun: {why}") from error
            raise
        except asyncio.CancelledError as error:
            task = asyncio.current_task()
            if task is None or task.cancelling() or not future.cancelled():
                raise
            raise TemporaryError(f"the call was not begun: {self._name} was closed") from error

    def close(self) -> None:
        """Lets go of the threads; calls under way end by themselves. Can be called more than once."""
        self._is_closed = True
        self._pool.shutdown(wait=False, cancel_futures=True)
