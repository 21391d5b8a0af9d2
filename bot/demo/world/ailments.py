"""What can go wrong inside one instance: a memory leak, a burst of verbose logging; both end with the process."""

import asyncio
import mmap
import os

from bot.demo.world.log_volume import LogVolume, verbose_lines
from bot.demo.world.process_guard import resident_bytes
from bot.demo.world.spec import MEMORY_LIMIT_BYTES, MIB

_LEAK_STEP_BYTES = 2 * MIB
_LEAK_EVERY_S = 0.25  # 8 MiB/s: from 40 MiB to 85 % of 160 MiB in about 12 s
_LEAK_LEVEL_RATIO = 0.95
_BURST_STEP_BYTES = MIB
_BURST_ENDS_BYTES = 512
_BURST_EVERY_S = 0.125  # 8 MiB/s: 64 MiB are full in 8 s


class Ailment:
    """Something that runs in the background until it is cured, or has run its course."""

    def __init__(self) -> None:
        self._task: asyncio.Task[None] | None = None

    @property
    def running(self) -> bool:
        return self._task is not None and not self._task.done()

    def start(self) -> None:
        if not self.running:
            self._task = asyncio.create_task(self._run())

    async def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])

    async def _run(self) -> None:
        raise NotImplementedError


class MemoryLeak(Ailment):
    """Grows the resident memory of this very process to 95 % of its limit and holds it there."""

    def __init__(self) -> None:
        super().__init__()
        # Anonymous mappings rather than bytearrays: the allocator would keep freed ones for itself.
        self._kept: list[mmap.mmap] = []

    async def stop(self) -> None:
        await super().stop()
        for block in self._kept:
            block.close()
        self._kept.clear()

    async def _run(self) -> None:
        while True:
            if resident_bytes(os.getpid()) + _LEAK_STEP_BYTES <= MEMORY_LIMIT_BYTES * _LEAK_LEVEL_RATIO:
                block = mmap.mmap(-1, _LEAK_STEP_BYTES)
                block.write(b"\xa5" * _LEAK_STEP_BYTES)  # a page counts as resident once it is written to
                self._kept.append(block)
            await asyncio.sleep(_LEAK_EVERY_S)


class LogBurst(Ailment):
    """Writes verbose lines as fast as a careless debug switch does: as many as the volume has room for, and no more.

    So it is over when the volume is full, and room that somebody makes meanwhile is not filled again.
    """

    def __init__(self, volume: LogVolume) -> None:
        super().__init__()
        self._volume = volume

    async def _run(self) -> None:
        left_bytes = self._volume.free_bytes()
        step_bytes = _BURST_STEP_BYTES
        while step_bytes > _BURST_ENDS_BYTES and left_bytes > 0:
            text = verbose_lines(min(step_bytes, left_bytes))
            if self._volume.append(text):
                left_bytes -= len(text)
            else:
                step_bytes //= 2
            await asyncio.sleep(_BURST_EVERY_S)
