"""Kubernetes: everything that is done to a Deployment, a StatefulSet, a DaemonSet and a node."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from functools import partial
from typing import Literal

from executors.targets.kubernetes_node import KubernetesNodeTarget
from pipeline.domain.action import (
    ActionKind,
    Bounds,
    BoundsAction,
    CordonAction,
    InstanceRef,
    RestartAction,
    RollBackAction,
    RolloutRestartAction,
    ScaleAction,
    TargetAction,
)
from pipeline.domain.catalogue import WorkloadAddress
from pipeline.domain.plan import TargetRef, TargetState
from pipeline.ports.targets import Target
from tests.contract.targets.places import BRIEF_S, KubePlace, kube_configuration, kube_place
from tests.contract.targets.stand import Opens, Stand
from tests.faults import Answer, Fault, Proxy
from tests.kube_objects import CORDON_TAINT, Cluster
from tests.kube_server import KubeServer
from tests.kube_store import Key, Object

_TOO_MANY = Answer(429, b'{"kind": "Status", "message": "too many requests"}', {"Retry-After": "1"})
_FROM: Bounds = Bounds(minimum=2, maximum=4)
_TO: Bounds = Bounds(minimum=3, maximum=6)


class _KubeStand(Stand):
    def __init__(self, server: KubeServer, proxy: Proxy) -> None:
        self._server = server
        self._proxy = proxy

    async def deny(self) -> None:
        self._server.granted = {(verb, group, name) for verb, group, name in _everything() if verb in ("get", "list")}

    async def throttle(self) -> None:
        self._proxy.strike(_TOO_MANY)

    async def lose_answer(self) -> None:
        self._proxy.strike(Fault.CUT)

    def writes(self) -> int:
        return len(self._server.writes)


class WorkloadStand(_KubeStand):
    """One pod more or less, one template or another; a Deployment has an autoscaler where its bounds are the matter."""

    def __init__(self, place: KubePlace, kind: ActionKind) -> None:
        super().__init__(place.server, place.proxy)
        self._place = place
        self._kind = kind
        self.address = place.address
        self.target: Target = place.target

    async def action(self, state: TargetState) -> TargetAction:
        match self._kind:
            case "rollout_restart":
                return RolloutRestartAction()
            case "scale":
                return ScaleAction(from_replicas=state.replicas, to_replicas=state.replicas + 1)
            case "bounds":
                assert state.bounds == _FROM
                return BoundsAction(from_bounds=_FROM, to_bounds=_TO)
            case "roll_back":
                return RollBackAction(from_revision=state.rollout, to_revision=state.revisions[0].name)
            case _:
                first = state.instances[0]
                return RestartAction(instances=(InstanceRef(name=first.name, uid=first.uid),))

    async def facts(self) -> object:
        cluster = self._server.cluster
        spec = cluster.objects[self._place.key]["spec"]
        autoscalers = [cluster.objects[key]["spec"] for key in cluster.of("horizontalpodautoscalers")]
        pods = [pod["metadata"]["uid"] for pod in cluster.pods_of(self._place.key) if not _is_going(pod)]
        return spec, autoscalers, sorted(pods)

    async def has_been_put_back(self, before: object) -> bool:
        """Pods that were replaced on the way are others now; what is wanted of them is what counts."""
        assert isinstance(before, tuple)
        now = await self.facts()
        assert isinstance(now, tuple)
        if self._kind == "bounds":  # the autoscaler has chosen another number meanwhile
            return bool(now[1] == before[1])
        return bool(now[:2] == before[:2])

    async def change_by_another(self) -> None:
        cluster = self._server.cluster
        if self._kind == "bounds":
            cluster.edit_spec(*cluster.of("horizontalpodautoscalers"), maxReplicas=9)
        else:
            cluster.edit_spec(self._place.key, revisionHistoryLimit=3)

    async def former(self, ref: TargetRef) -> TargetRef:
        cluster = self._server.cluster
        stored = cluster.objects[self._place.key]
        cluster.remove(self._place.key)
        rest = {"spec": stored["spec"], "status": {}}
        cluster.create(*self._place.key, rest, labels=stored["metadata"]["labels"])
        # Its pods and revisions were the former one's; nothing of them is looked at here.
        self._server.paused = True
        return ref

    def another(self) -> Target:
        return self._place.connect(timeout_s=BRIEF_S)


class NodeStand(_KubeStand):
    address = WorkloadAddress(platform="kubernetes_node", namespace="cluster", name="node-1")
    _key: Key = ("nodes", "", "node-1")

    def __init__(self, server: KubeServer, proxy: Proxy) -> None:
        super().__init__(server, proxy)
        self._targets: list[Target] = []
        self.target = self._connect(timeout_s=20.0)

    async def action(self, state: TargetState) -> TargetAction:
        return CordonAction(cordoned=not state.cordoned)

    async def facts(self) -> object:
        spec = self._server.cluster.objects[self._key]["spec"]
        taints = [taint for taint in spec.get("taints", []) if taint != CORDON_TAINT]
        return spec.get("unschedulable", False), taints

    async def change_by_another(self) -> None:
        taint = {"key": "team", "value": "billing", "effect": "NoSchedule"}
        self._server.cluster.edit_spec(self._key, taints=[taint])

    async def former(self, ref: TargetRef) -> TargetRef:
        self._server.cluster.remove(self._key)
        self._server.cluster.add_node("node-1")
        return ref

    def another(self) -> Target:
        return self._connect(timeout_s=BRIEF_S)

    def _connect(self, *, timeout_s: float) -> Target:
        made = KubernetesNodeTarget(kube_configuration(self._proxy.url), timeout_s=timeout_s)
        self._targets.append(made)
        return made

    async def close(self) -> None:
        for target in self._targets:
            await target.close()


def _everything() -> set[tuple[str, str, str]]:
    groups = {
        "apps": ("deployments", "statefulsets", "daemonsets", "replicasets", "controllerrevisions"),
        "": ("pods", "pods/eviction", "nodes"),
        "autoscaling": ("horizontalpodautoscalers",),
        "policy": ("poddisruptionbudgets",),
    }
    return {
        (verb, group, name)
        for group, names in groups.items()
        for name in names
        for verb in ("get", "list", "patch", "create")
    }


def _is_going(pod: Object) -> bool:
    return "deletionTimestamp" in pod["metadata"]


@asynccontextmanager
async def _workload(
    resource: Literal["deployments", "statefulsets", "daemonsets"], kind: ActionKind
) -> AsyncIterator[Stand]:
    then = ["main:2"] if kind == "roll_back" else []
    async with kube_place(resource, then=then, cluster=Cluster(ready_after_s=0, grace_s=0)) as place:
        if kind == "bounds":
            place.server.cluster.add_autoscaler("shop", "checkout-hpa", place.key, _FROM.minimum, _FROM.maximum)
        yield WorkloadStand(place, kind)


@asynccontextmanager
async def _node() -> AsyncIterator[Stand]:
    async with KubeServer() as server, Proxy(server.url) as proxy:
        server.cluster.add_node("node-1")
        stand = NodeStand(server, proxy)
        yield stand
        await stand.close()


STANDS: Mapping[str, Opens] = {
    "kubernetes deployment: restart": partial(_workload, "deployments", "restart"),
    "kubernetes deployment: rollout_restart": partial(_workload, "deployments", "rollout_restart"),
    "kubernetes deployment: scale": partial(_workload, "deployments", "scale"),
    "kubernetes deployment: bounds": partial(_workload, "deployments", "bounds"),
    "kubernetes deployment: roll_back": partial(_workload, "deployments", "roll_back"),
    "kubernetes statefulset: restart": partial(_workload, "statefulsets", "restart"),
    "kubernetes statefulset: rollout_restart": partial(_workload, "statefulsets", "rollout_restart"),
    "kubernetes statefulset: roll_back": partial(_workload, "statefulsets", "roll_back"),
    "kubernetes daemonset: rollout_restart": partial(_workload, "daemonsets", "rollout_restart"),
    "kubernetes daemonset: roll_back": partial(_workload, "daemonsets", "roll_back"),
    "kubernetes_node: cordon": _node,
}
