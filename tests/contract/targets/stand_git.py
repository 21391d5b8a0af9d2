"""A real git repository over HTTP: revert."""

from __future__ import annotations

import tempfile
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

from executors.targets.git import GitTarget
from pipeline.domain.action import RevertAction, TargetAction
from pipeline.domain.catalogue import WorkloadAddress
from pipeline.domain.plan import TargetRef, TargetState
from pipeline.ports.targets import Target
from tests.contract.targets.stand import Opens, Stand
from tests.faults import Answer, Fault
from tests.git_server import TOKEN, USERNAME, GitProxy, GitServer


class GitStand(Stand):
    address = WorkloadAddress(platform="git", namespace="shop", name="main")

    def __init__(self, server: GitServer, proxy: GitProxy, folder: Path) -> None:
        self.server = server
        self.proxy = proxy
        self.work_dir = folder / "work"
        self.target: Target = self.connect()

    def connect(self, *, timeout_s: float = 20.0, token: str = TOKEN) -> GitTarget:
        return GitTarget(
            {"shop": f"{self.proxy.url}/shop.git"},
            work_dir=self.work_dir,
            username=USERNAME,
            token=token,
            timeout_s=timeout_s,
        )

    async def action(self, state: TargetState) -> TargetAction:
        return RevertAction(commit=self.server.repository.bad, title="lower the pool")

    async def facts(self) -> object:
        return self.server.repository.head, self.server.repository.tree()

    async def change_by_another(self) -> None:
        self.server.repository.commit("add a note", {"NOTES": "hello\n"})

    async def former(self, ref: TargetRef) -> TargetRef:
        self.server.recreate()
        return ref

    async def deny(self) -> None:
        self.server.read_only = True

    async def throttle(self) -> None:
        self.proxy.strike(Answer(429, b"slow down"))

    async def lose_answer(self) -> None:
        self.proxy.strike(Fault.CUT)

    def another(self) -> Target:
        return self.connect()

    def writes(self) -> int:
        return self.proxy.pushes

    async def has_been_put_back(self, before: object) -> bool:
        # Commits are never taken away, what they say is.
        assert isinstance(before, tuple)
        return bool(self.server.repository.tree() == before[1])


@asynccontextmanager
async def open_git() -> AsyncIterator[GitStand]:
    with tempfile.TemporaryDirectory(prefix="git-") as name:
        folder = Path(name)
        async with GitServer(folder / "served") as server, GitProxy(server.url) as proxy:
            yield GitStand(server, proxy, folder)


STANDS: Mapping[str, Opens] = {"git: revert": open_git}
