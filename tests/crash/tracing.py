"""Killing a replica at the nth of a system call, by strace's fault injection."""

from __future__ import annotations

import asyncio
import shutil
import subprocess
import time
from pathlib import Path

from tests.crash.servers import Child

ATTACHES_S = 20.0


def can_trace() -> bool:
    """Whether strace is here and may trace."""
    strace = shutil.which("strace")
    if strace is None:
        return False
    tried = subprocess.run([strace, "-o", "/dev/null", "true"], capture_output=True, timeout=30, check=False)
    return tried.returncode == 0


async def kill_at(child: Child, syscall: str, nth: int) -> asyncio.subprocess.Process:
    """Returns when the replica is being traced; it dies at the ``nth`` ``syscall`` from now."""
    tracer = await asyncio.create_subprocess_exec(
        *("strace", "-f", "-qq", "-o", "/dev/null", "-p", str(child.pid)),
        *("-e", f"trace={syscall}", "-e", f"inject={syscall}:signal=KILL:when={nth}"),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,
    )
    deadline = time.monotonic() + ATTACHES_S
    status = Path(f"/proc/{child.pid}/status")
    while tracer.returncode is None and time.monotonic() < deadline:
        if f"TracerPid:\t{tracer.pid}\n" in status.read_text():
            return tracer
        await asyncio.sleep(0.01)
    raise RuntimeError("strace does not trace")


async def let_go(tracer: asyncio.subprocess.Process) -> None:
    if tracer.returncode is None:
        tracer.terminate()
    await tracer.wait()
