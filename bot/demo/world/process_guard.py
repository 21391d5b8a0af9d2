"""No orphans: the kernel ends a process when its parent dies, however the parent dies."""

import ctypes
import os
import signal
from pathlib import Path

_PR_SET_PDEATHSIG = 1  # linux/prctl.h
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


class ParentGoneError(Exception):
    """The parent process ended before this process could tie itself to it."""


def die_with_parent(parent_pid: int, death_signal: signal.Signals) -> None:
    """Ask the kernel for `death_signal` when the parent dies (prctl(2), PR_SET_PDEATHSIG).

    "Parent" means the thread that started this process: start children from a thread that lives on.

    Raises: ParentGoneError when `parent_pid` is not the parent any more (it died during our start);
    OSError when the kernel refuses.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_PDEATHSIG, int(death_signal), 0, 0, 0) != 0:
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error))
    if os.getppid() != parent_pid:
        raise ParentGoneError(f"parent process {parent_pid} is gone")


def resident_bytes(pid: int) -> int:
    """Resident memory of a process in bytes from /proc/<pid>/statm; 0 when it is gone."""
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * _PAGE_BYTES
    except (FileNotFoundError, ProcessLookupError):
        return 0
