"""A GitHub-shaped server over a real git repository: revert."""

from __future__ import annotations

import tempfile
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

from executors.targets.github import GitHubTarget, MergePolicy
from pipeline.domain.action import RevertAction, TargetAction
from pipeline.domain.catalogue import WorkloadAddress
from pipeline.domain.plan import TargetRef, TargetState
from pipeline.ports.targets import Target
from tests.contract.targets.stand import Opens, Stand
from tests.faults import Answer, Fault, Proxy
from tests.github_server import TOKEN, GitHubServer, limited


class GitHubStand(Stand):
    address = WorkloadAddress(platform="github", namespace="acme", name="shop")

    def __init__(self, server: GitHubServer, proxy: Proxy) -> None:
        self.server = server
        self.proxy = proxy
        self._targets: list[Target] = []
        self.target: Target = self.connect()

    def connect(
        self, *, timeout_s: float = 20.0, merge: MergePolicy = "auto", token: str = TOKEN, owner: str = "acme"
    ) -> GitHubTarget:
        made = GitHubTarget(token, owners=[owner], api_url=self.proxy.url, merge=merge, timeout_s=timeout_s)
        self._targets.append(made)
        return made

    async def action(self, state: TargetState) -> TargetAction:
        return RevertAction(commit=self.server.repository.bad, title="lower the pool")

    async def facts(self) -> object:
        return self.server.repository.head, self.server.repository.tree()

    async def change_by_another(self) -> None:
        self.server.repository.commit("add a note", {"NOTES": "hello\n"})

    async def former(self, ref: TargetRef) -> TargetRef:
        self.server.id += 1
        return ref

    async def deny(self) -> None:
        self.server.read_only = True

    async def throttle(self) -> None:
        self.proxy.strike(Answer(*limited()))

    async def lose_answer(self) -> None:
        # The merge is the write that counts.
        self.proxy.strike(Fault.CUT, frozenset({"PUT"}))

    def another(self) -> Target:
        return self.connect()

    def writes(self) -> int:
        """Merges: branches and pull requests change nothing that runs."""
        return sum(one.method == "PUT" for one in self.proxy.requests)

    async def has_been_put_back(self, before: object) -> bool:
        # Commits are never taken away, what they say is.
        assert isinstance(before, tuple)
        return bool(self.server.repository.tree() == before[1])

    async def close(self) -> None:
        for target in self._targets:
            await target.close()


@asynccontextmanager
async def open_github() -> AsyncIterator[GitHubStand]:
    with tempfile.TemporaryDirectory(prefix="github-") as name:
        async with GitHubServer(Path(name)) as server, Proxy(server.url) as proxy:
            stand = GitHubStand(server, proxy)
            try:
                yield stand
            finally:
                await stand.close()


STANDS: Mapping[str, Opens] = {"github: revert": open_github}
