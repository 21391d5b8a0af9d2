"""An Argo-CD-shaped server: sync and roll back."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from functools import partial
from typing import Literal

from executors.targets.argocd import ArgoCdTarget
from pipeline.domain.action import RollBackAction, SyncAction, TargetAction
from pipeline.domain.catalogue import WorkloadAddress
from pipeline.domain.plan import TargetRef, TargetState
from pipeline.ports.targets import Target
from tests.argocd_server import APP, NEXT, PROJECT, TOKEN, ArgoCdServer
from tests.contract.targets.stand import Opens, Stand
from tests.faults import Answer, Fault, Proxy


class ArgoStand(Stand):
    address = WorkloadAddress(platform="argocd", namespace=PROJECT, name=APP)

    def __init__(self, server: ArgoCdServer, proxy: Proxy, kind: Literal["sync", "roll_back"]) -> None:
        self.server = server
        self.proxy = proxy
        self._kind = kind
        self._targets: list[Target] = []
        self.target: Target = self.connect()

    def connect(self, *, timeout_s: float = 20.0, token: str = TOKEN) -> ArgoCdTarget:
        made = ArgoCdTarget(self.proxy.url, token, projects=[PROJECT], timeout_s=timeout_s)
        self._targets.append(made)
        return made

    async def action(self, state: TargetState) -> TargetAction:
        if self._kind == "sync":
            return SyncAction(from_revision=state.revision, to_revision=NEXT)
        return RollBackAction(from_revision=state.rollout, to_revision=state.revisions[0].name)

    async def facts(self) -> object:
        history = self.server.history
        return (
            history[-1]["revision"],
            len(history),
            json.dumps(self.server.app["spec"]),
            self.server.app.get("operation"),
        )

    async def change_by_another(self) -> None:
        self.server.app["spec"]["source"] = {**self.server.app["spec"]["source"], "path": "elsewhere"}

    async def former(self, ref: TargetRef) -> TargetRef:
        self.server.recreate()
        return ref

    async def deny(self) -> None:
        self.server.granted.discard("sync")

    async def throttle(self) -> None:
        self.proxy.strike(Answer(429, b'{"error": "slow down", "code": 8, "message": "slow down"}'))

    async def lose_answer(self) -> None:
        self.proxy.strike(Fault.CUT)

    def another(self) -> Target:
        return self.connect()

    def writes(self) -> int:
        return len(self.proxy.writes)

    async def has_been_put_back(self, before: object) -> bool:
        # A rollback is one more entry of the history, with the revision of before.
        assert isinstance(before, tuple)
        return bool(self.server.history[-1]["revision"] == before[0])

    async def close(self) -> None:
        for target in self._targets:
            await target.close()


@asynccontextmanager
async def open_argocd(kind: Literal["sync", "roll_back"] = "sync") -> AsyncIterator[ArgoStand]:
    async with ArgoCdServer() as server, Proxy(server.url) as proxy:
        stand = ArgoStand(server, proxy, kind)
        try:
            yield stand
        finally:
            await stand.close()


STANDS: Mapping[str, Opens] = {
    "argocd: sync": partial(open_argocd, "sync"),
    "argocd: roll_back": partial(open_argocd, "roll_back"),
}
