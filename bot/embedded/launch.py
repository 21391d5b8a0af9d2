"""Become a server that cannot outlive its supervisor. Run as a program, never imported:

``python -I -S launch.py PARENT_PID DEATH_SIGNAL UID GID PROGRAM ARGUMENT…`` (UID -1: stay who we are).

A program of its own rather than a ``preexec_fn``: that would run Python between fork and exec of a process with
many threads, which may deadlock. PR_SET_PDEATHSIG comes after the change of user, which clears it, and survives
exec (prctl(2)); a parent that died before it is noticed by getppid().
"""

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1


def main() -> None:
    parent_pid, death_signal, uid, gid = (int(word) for word in sys.argv[1:5])
    command = sys.argv[5:]
    libc = ctypes.CDLL(None, use_errno=True)
    if uid >= 0:
        os.setgroups([])
        os.setgid(gid)
        os.setuid(uid)
    os.umask(0o077)
    signal.pthread_sigmask(signal.SIG_SETMASK, [])
    if libc.prctl(PR_SET_PDEATHSIG, death_signal, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG) failed")
    if os.getppid() != parent_pid:
        sys.exit("the supervisor is gone; not starting")
    os.execv(command[0], command)  # noqa: S606 - becoming the server is this program's purpose


if __name__ == "__main__":
    main()
