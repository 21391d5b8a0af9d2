"""What all replicas of one service share: a lock file that only one of them holds at a time."""

import asyncio
import fcntl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path


class OrderBook:
    """While the file is there, whoever works takes it first, in whatever process; else nobody waits for anybody."""

    def __init__(self, path: Path) -> None:
        self._path = path

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        """Holds the lock (flock(2)) for the block; the kernel gives it free when the process ends."""
        try:
            file = self._path.open("rb")
        except FileNotFoundError:
            yield
            return
        with file:
            await asyncio.to_thread(fcntl.flock, file, fcntl.LOCK_EX)
            yield
