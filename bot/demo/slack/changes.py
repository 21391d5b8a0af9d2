"""Tells pages that something they may see has changed."""

import asyncio
import time
from collections.abc import Iterator
from contextlib import contextmanager


class Changes:
    """A revision number and whoever waits for the next one."""

    def __init__(self) -> None:
        # Starts at the clock so that a page that outlives a restart never sees the number go back.
        self.rev = int(time.time() * 1000)
        self._waiting: dict[asyncio.Queue[int | None], str] = {}

    def bump(self, only: str | None = None) -> None:
        """Something changed; `only` names the one user who can see it."""
        self.rev += 1
        for queue, user_id in self._waiting.items():
            if only is None or only == user_id:
                queue.put_nowait(self.rev)

    @contextmanager
    def subscribe(self, user_id: str) -> Iterator[asyncio.Queue[int | None]]:
        """A queue of revisions; None in it means that the server is stopping."""
        queue: asyncio.Queue[int | None] = asyncio.Queue()
        self._waiting[queue] = user_id
        try:
            yield queue
        finally:
            del self._waiting[queue]

    def end(self) -> None:
        for queue in self._waiting:
            queue.put_nowait(None)
