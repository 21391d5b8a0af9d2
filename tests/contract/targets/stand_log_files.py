"""Logs on this machine: real files, with what spoils them done by other file descriptors and by the kernel."""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
import threading
from collections.abc import AsyncIterator, Mapping
from contextlib import ExitStack, asynccontextmanager
from pathlib import Path

import pytest

from executors.targets.log_files import LogFilesTarget
from executors.targets.log_truncation import read_entries
from pipeline.domain.action import Operation, TargetAction, TruncateAction
from pipeline.domain.catalogue import WorkloadAddress
from pipeline.domain.execution import Intent
from pipeline.domain.plan import TargetRef, TargetState
from pipeline.ports.targets import Target
from tests.contract.targets.stand import Opens, Stand

NOBODY = 65534
BRIEF_S = 0.3


def log_lines(size_bytes: int) -> bytes:
    """A log of at least so much as services write them: lines that are much alike, each with its own time."""
    line = "2026-{:02d}-{:02d}T{:02d}:{:02d}:{:02d}Z INFO order taken: customer={:08x} lines=3 total=41.90\n"
    day = b"".join(
        line.format(1, 1, second // 3600, second // 60 % 60, second % 60, second * 2654435761 % 2**32).encode()
        for second in range(min(12_000, 1 + size_bytes // 70))
    )
    days = -(-size_bytes // len(day))
    return b"".join(
        day.replace(b"2026-01-01", f"2026-{1 + number // 28:02d}-{1 + number % 28:02d}".encode())
        for number in range(days)
    )[: size_bytes + 1]


class _Abandoned(LogFilesTarget):
    """Tells when whoever called ``apply`` has gone."""

    def __init__(self, folders: Mapping[str, Path], *, gone: threading.Event) -> None:
        super().__init__(folders, timeout_s=BRIEF_S)
        self._gone = gone

    async def apply(self, ref: TargetRef, operation: Operation, intent: Intent) -> str:
        self._gone.clear()
        try:
            return await super().apply(ref, operation, intent)
        finally:
            self._gone.set()


class LogFilesStand(Stand):
    """Two replicas' logs: ``worker-1`` with a large one and a rotated one, ``worker-2`` with a small one."""

    address = WorkloadAddress(platform="log_files", namespace="logs", name="worker")

    def __init__(self, base: Path, held: ExitStack, patch: pytest.MonkeyPatch) -> None:
        self.root = base / "logs"
        self._held = held
        self._patch = patch
        self._gone = threading.Event()
        for name, size in {
            "worker-1/service.log": 300_000,
            "worker-1/service.log.1": 900,
            "worker-2/a.err": 99,
        }.items():
            (self.root / name).parent.mkdir(parents=True, exist_ok=True)
            (self.root / name).write_bytes(log_lines(size))
        self.log = self.root / "worker-1" / "service.log"
        self.target: Target = LogFilesTarget({"logs": self.root}, timeout_s=20.0)

    async def action(self, state: TargetState) -> TargetAction:
        assert state.files[0].path == str(self.log)
        return TruncateAction(files=state.files[:1])

    async def facts(self) -> object:
        found = sorted(path for path in self.root.glob("worker-*/*") if path.is_file())
        return [(str(path), path.stat().st_ino, path.read_bytes()) for path in found]

    async def change_by_another(self) -> None:
        """A rotation, as logrotate does it: the file gets another name, and a new one its own."""
        self.log.rename(self.log.with_name("service.log.2"))
        self.log.write_bytes(log_lines(400_000))

    async def former(self, ref: TargetRef) -> TargetRef:
        old = self.root.with_name("logs.old")
        self.root.rename(old)
        shutil.copytree(old, self.root)
        return ref

    async def deny(self) -> None:
        """EACCES of the kernel: the log is another user's and not ours to write; root gives its own rights up first."""
        self.log.chmod(0o444)
        if os.geteuid() == 0:
            os.seteuid(NOBODY)
            self._held.callback(os.seteuid, 0)

    async def throttle(self) -> None:
        """Another one empties logs there: it holds the lock."""
        own = self.root / ".sre-bot"
        own.mkdir(exist_ok=True)
        lock = self._held.enter_context((own / "lock").open("w"))
        fcntl.flock(lock, fcntl.LOCK_EX)

    async def lose_answer(self) -> None:
        """The kernel takes so long over the truncation that everybody has given up when it comes back."""
        real = os.ftruncate

        def slow(fd: int, length: int) -> None:
            real(fd, length)
            assert self._gone.wait(60)

        self._patch.setattr(os, "ftruncate", slow)

    def another(self) -> Target:
        return _Abandoned({"logs": self.root}, gone=self._gone)

    def writes(self) -> int:
        journal = self.root / ".sre-bot" / "journal.jsonl"
        entries = read_entries(journal.read_text()) if journal.exists() else ()
        return sum(entry.phase == "began" for entry in entries)


@asynccontextmanager
async def log_files_stand() -> AsyncIterator[LogFilesStand]:
    with (
        tempfile.TemporaryDirectory(prefix="logs-") as base,
        pytest.MonkeyPatch.context() as patch,
        ExitStack() as held,
    ):
        os.chmod(base, 0o755)
        yield LogFilesStand(Path(base), held, patch)


STANDS: Mapping[str, Opens] = {"log_files: truncate": log_files_stand}
