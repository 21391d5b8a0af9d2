"""Find and end processes that a killed supervisor, or a killed server, left running.

Processes are recognised by a marker in their command line, which every user may read. A pid file proves nothing:
the number may belong to another program by now, or to a zombie. A zombie has no command line and is not found.
"""

import asyncio
import os
import signal
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

POLL_S = 0.02
KILL_GRACE_S = 5.0


@dataclass(frozen=True, slots=True)
class Leftover:
    """A live process of a server. ``worker``: it serves a main process (PostgreSQL titles it "postgres: …")."""

    pid: int
    worker: bool


def find_leftovers(program: str, marker: str) -> list[Leftover]:
    """Live processes called ``program`` with ``marker`` in their command line."""
    found = []
    for entry in os.scandir("/proc"):
        if not entry.name.isdigit():
            continue
        try:
            words = Path(entry.path, "cmdline").read_bytes().split(b"\0")
        except OSError:  # it ended meanwhile
            continue
        name = words[0].partition(b" ")[0]
        if os.path.basename(name.rstrip(b":")).decode(errors="replace") == program and any(
            marker.encode() in word for word in words
        ):
            found.append(Leftover(pid=int(entry.name), worker=name.endswith(b":")))
    return found


async def end_leftovers(program: str, marker: str, gentle: Sequence[tuple[signal.Signals, float]] = ()) -> int:
    """End them: each ``gentle`` signal (main processes only) with its patience in seconds, then SIGKILL to all.

    Returns how many there were. Raises PermissionError when one is another user's, TimeoutError when one stays.
    """
    first = find_leftovers(program, marker)
    if not first:
        return 0
    for number, patience_s in (*gentle, (signal.SIGKILL, KILL_GRACE_S)):
        targets = [p.pid for p in find_leftovers(program, marker) if number == signal.SIGKILL or not p.worker]
        for pid in targets:
            with suppress(ProcessLookupError):
                os.kill(pid, number)
        if targets and await _gone(program, marker, patience_s):
            break
    if left := find_leftovers(program, marker):
        raise TimeoutError(f"{program} (process {left[0].pid}) of an earlier run does not end")
    return len(first)


async def _gone(program: str, marker: str, patience_s: float) -> bool:
    deadline = asyncio.get_running_loop().time() + patience_s
    while find_leftovers(program, marker):
        if asyncio.get_running_loop().time() > deadline:
            return False
        await asyncio.sleep(POLL_S)
    return True
