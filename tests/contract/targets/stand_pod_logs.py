"""Logs in pods: an API server with exec, whose commands run on folders of this machine."""

from __future__ import annotations

import tempfile
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

from executors.targets.pod_logs import PodLogsTarget
from pipeline.domain.action import TargetAction, TruncateAction
from pipeline.domain.catalogue import WorkloadAddress
from pipeline.domain.plan import TargetRef, TargetState
from pipeline.ports.targets import Target
from tests.contract.targets.places import kube_configuration
from tests.contract.targets.stand import Opens, Stand
from tests.contract.targets.stand_log_files import log_lines
from tests.pod_exec_server import LOGS, PodExecServer

_TRUNCATE_ARGUMENTS = 10
"""The script that empties has so many; those that look have fewer."""


class PodLogsStand(Stand):
    """A Deployment with one pod, whose log is worth emptying."""

    address = WorkloadAddress(platform="pod_logs", namespace="shop", name="checkout")

    def __init__(self, server: PodExecServer) -> None:
        self.server = server
        self.key = ("deployments", "shop", "checkout")
        server.cluster.add_workload(*self.key, replicas=1)
        server.cluster.reconcile()
        self.pod = server.cluster.pods_of(self.key)[0]["metadata"]["name"]
        self.folder = server.pod_folder(self.pod)
        self.log = self.folder / "service.log"
        self.log.write_bytes(log_lines(300_000))
        (self.folder / "service.log.1").write_bytes(log_lines(900))
        self._made: list[Target] = []
        self.target: Target = self.connected(timeout_s=20.0)

    def connected(self, *, timeout_s: float, paths: tuple[str, ...] = (LOGS,)) -> Target:
        made = PodLogsTarget(kube_configuration(self.server.url), namespaces=["shop"], paths=paths, timeout_s=timeout_s)
        self._made.append(made)
        return made

    async def action(self, state: TargetState) -> TargetAction:
        assert state.files[0].path == f"{LOGS}/service.log"
        return TruncateAction(files=state.files[:1])

    async def facts(self) -> object:
        found = sorted(path for path in self.folder.glob("[!.]*") if path.is_file())
        return [(path.name, path.stat().st_ino, path.read_bytes()) for path in found]

    async def change_by_another(self) -> None:
        """A rotation, as logrotate does it: the file gets another name, and a new one its own."""
        self.log.rename(self.log.with_name("service.log.2"))
        self.log.write_bytes(log_lines(400_000))

    async def former(self, ref: TargetRef) -> TargetRef:
        self.server.cluster.remove(self.key)
        self.server.cluster.add_workload(*self.key, replicas=1)
        return ref

    async def deny(self) -> None:
        self.server.granted = {
            *(("get", "apps", kind) for kind in ("deployments", "statefulsets")),
            ("list", "apps", "replicasets"),
            *((verb, "", "pods") for verb in ("get", "list")),
            ("get", "", "pods/exec"),
        }

    async def throttle(self) -> None:
        self.server.refuse_next.append((429, "too many requests, please try again later"))

    async def lose_answer(self) -> None:
        self.server.lose_next = True

    def another(self) -> Target:
        return self.connected(timeout_s=20.0)

    def writes(self) -> int:
        return self.server.ran.count(_TRUNCATE_ARGUMENTS)

    async def close(self) -> None:
        for target in self._made:
            await target.close()


@asynccontextmanager
async def pod_logs_stand() -> AsyncIterator[PodLogsStand]:
    with tempfile.TemporaryDirectory(prefix="pods-") as folder:
        async with PodExecServer(Path(folder)) as server:
            stand = PodLogsStand(server)
            try:
                yield stand
            finally:
                await stand.close()


STANDS: Mapping[str, Opens] = {"pod_logs: truncate": pod_logs_stand}
