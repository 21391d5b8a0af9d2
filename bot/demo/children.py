"""Processes of the demo: started in sessions of their own, ended in order, never left behind."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from bot.embedded.process import LAUNCHER
from pipeline.domain.errors import ConfigurationError

STOP_S = 15.0
WORLD_START_S = 60.0


class Child:
    """One process. It gets SIGTERM from the kernel when the launcher dies, however that happens."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process

    @classmethod
    async def start(
        cls, command: Sequence[str], *, environ: Mapping[str, str], log: Path | None, stdout: int | None = None
    ) -> Child:
        """Starts ``command`` through the launcher that ties it to this process; stderr goes to ``log`` if given."""
        tied = [sys.executable, "-I", "-S", str(LAUNCHER), str(os.getpid()), str(int(signal.SIGTERM)), "-1", "-1"]
        stderr = log.open("ab") if log is not None else None
        try:
            process = await asyncio.create_subprocess_exec(
                *tied, *command, env=dict(environ), stdout=stdout, stderr=stderr, start_new_session=True
            )
        finally:
            if stderr is not None:
                stderr.close()
        return cls(process)

    async def stop(self) -> None:
        """SIGTERM, then SIGKILL after ``STOP_S``."""
        if self.process.returncode is not None:
            return
        self.process.terminate()
        try:
            async with asyncio.timeout(STOP_S):
                await self.process.wait()
        except TimeoutError:
            self.process.kill()
            await self.process.wait()


async def start_world(data_dir: Path, environ: Mapping[str, str]) -> tuple[Child, str]:
    """Starts the sample services; their control URL. Raises ConfigurationError with what went wrong."""
    log = data_dir / "world.log"
    child = await Child.start(
        [sys.executable, "-m", "bot.demo.world", "--data-dir", str(data_dir), "--port", "0"],
        environ=environ,
        log=log,
        stdout=asyncio.subprocess.PIPE,
    )
    assert child.process.stdout is not None
    try:
        async with asyncio.timeout(WORLD_START_S):
            first = await child.process.stdout.readline()
    except TimeoutError:
        first = b""
    if not first:
        await child.stop()
        said = (log.read_text(errors="replace").strip().splitlines() or ["it said nothing"])[-1]
        raise ConfigurationError(f"the sample services did not start: {said}")
    return child, str(json.loads(first)["url"])
