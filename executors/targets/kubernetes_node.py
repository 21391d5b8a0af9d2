"""Nodes of a Kubernetes cluster: whether anything new is placed on one."""

from __future__ import annotations

import asyncio
import hashlib
import json

from kubernetes.client import Configuration

from executors.targets.kubernetes_api import MERGE, Foreign, KubernetesApi, Right, Write
from executors.targets.kubernetes_marks import finding, hold_fence, marks, placeholders
from executors.targets.kubernetes_objects import Meta
from executors.targets.late import wait_out
from executors.targets.offers import not_offered
from pipeline.domain.action import Action, CordonAction, ManualAction, Operation, SetCordon
from pipeline.domain.capability import Declaration, Offer, RightCheck
from pipeline.domain.catalogue import WorkloadAddress
from pipeline.domain.errors import PermanentError, PreconditionFailed, TemporaryError
from pipeline.domain.execution import Finding, Intent
from pipeline.domain.plan import TargetRef, TargetState
from pipeline.ports.targets import Target

CLUSTER = "cluster"
"""Stands where other targets have a namespace."""
_READ = Right("get", "nodes")
_PATCH = Right("patch", "nodes")
_OWN_TAINTS = ("node.kubernetes.io/", "node.cloudprovider.kubernetes.io/")
"""Set and taken away by the cluster itself, with the node's health and with the cordon."""


class _Taint(Foreign):
    key: str
    effect: str
    value: str = ""


class _Spec(Foreign):
    unschedulable: bool = False
    taints: tuple[_Taint, ...] = ()


class _Node(Foreign):
    metadata: Meta
    spec: _Spec = _Spec()

    @property
    def generation(self) -> str:
        """Of what people want of it: a node has no generation, and its version changes with each heartbeat."""
        wanted = [[one.key, one.value, one.effect] for one in self.spec.taints if not one.key.startswith(_OWN_TAINTS)]
        digest = hashlib.sha256(json.dumps(sorted(wanted)).encode()).hexdigest()[:12]
        return f"{'cordoned' if self.spec.unschedulable else 'schedulable'},taints-{digest}"


class KubernetesNodeTarget(Target):
    """Any node of the cluster, by its name; their namespace is the word ``cluster``.

    Nothing that runs there is touched. A write carries the uid and the resourceVersion with which the node was read.
    """

    def __init__(self, configuration: Configuration, *, timeout_s: float = 10.0) -> None:
        self._api = KubernetesApi(configuration, timeout_s=timeout_s, privileges="kubernetes-node-rbac.yaml")
        # A call may still be connecting when it is given up, and then the server needs its time too.
        self._flight_s = 2 * timeout_s

    @property
    def platform(self) -> str:
        return "kubernetes_node"

    def declares(self) -> Declaration:
        guard = "uid and resourceVersion of the node that was read"
        return Declaration(
            offers=(Offer("cordon", True, (str(_PATCH),), guard),),
            observes=("whether the node is schedulable", "its taints"),
            reads=(str(_READ),),
            privileges="kubernetes-node-rbac.yaml",
        )

    async def check(self, ref: TargetRef) -> tuple[RightCheck, ...]:
        await self._node(ref)
        return tuple(await asyncio.gather(self._api.may(_READ), self._api.may(_PATCH)))

    async def resolve(self, address: WorkloadAddress) -> TargetRef:
        node = await self._named(address.namespace, address.name)
        if node is None:
            raise PermanentError(f"the cluster has no node {address.name}")
        return TargetRef(platform="kubernetes_node", namespace=CLUSTER, name=address.name, uid=node.metadata.uid)

    async def observe(self, ref: TargetRef) -> TargetState:
        node = await self._node(ref)
        return TargetState(ref=ref, generation=node.generation, cordoned=node.spec.unschedulable)

    async def apply(self, ref: TargetRef, operation: Operation, intent: Intent) -> str:
        node = await self._at_generation(ref, intent.generation)
        cordoned = _wanted(operation)
        hold_fence(node.metadata.annotations, intent, ref.describe())
        try:
            await self._api.write(_write(node, cordoned=cordoned, written=marks(intent)))
        except PreconditionFailed as error:
            # Each heartbeat that says something new raises the resourceVersion too.
            if (await self._node(ref)).generation != node.generation:
                raise
            raise TemporaryError(
                f"only the status of {ref.describe()} has changed: {error}", retry_after_s=1
            ) from error
        return f"{'cordoned' if cordoned else 'uncordoned'} the node {ref.name}"

    async def calls(self, ref: TargetRef, operation: Operation, generation: str) -> tuple[str, ...]:
        node = await self._node(ref)
        write = _write(node, cordoned=_wanted(operation), written=placeholders(generation))
        return (f"{self._api.shown(write)} only while the node {ref.name} is at generation {generation}",)

    async def rehearse(self, ref: TargetRef, operation: Operation, generation: str) -> str:
        node = await self._at_generation(ref, generation)
        write = _write(node, cordoned=_wanted(operation), written=placeholders(generation))
        await self._api.write(write, rehearsed=True)
        return "accepted by the API server (dryRun=All)"

    async def settled(self, ref: TargetRef, operation: Operation) -> bool:
        return (await self._node(ref)).spec.unschedulable == _wanted(operation)

    async def find(self, ref: TargetRef, operation: Operation, intent: Intent) -> Finding:
        """By the annotations written with the change, as ``KubernetesTarget.find`` says; UNKNOWN for another node."""
        _wanted(operation)
        return await wait_out(lambda: self._look(ref, intent), flight_s=self._flight_s)

    def command(self, ref: TargetRef, action: Action) -> str:
        match action:
            case CordonAction(cordoned=cordoned):
                return f"kubectl {'cordon' if cordoned else 'uncordon'} {ref.name}"
            case ManualAction(command=command):
                return command
            case _:
                raise not_offered("kubernetes_node", action)

    async def close(self) -> None:
        self._api.close()

    async def _look(self, ref: TargetRef, intent: Intent) -> Finding | None:
        try:
            node = await self._node(ref)
        except PreconditionFailed:
            return Finding.UNKNOWN
        return finding(node.metadata.annotations, intent, moved=node.generation != intent.generation)

    async def _at_generation(self, ref: TargetRef, generation: str) -> _Node:
        node = await self._node(ref)
        if node.generation != generation:
            raise PreconditionFailed(
                f"{ref.describe()} has changed: it is at generation {node.generation}, not {generation}"
            )
        return node

    async def _node(self, ref: TargetRef) -> _Node:
        """Raises PreconditionFailed when it is not the one that ``ref`` means."""
        node = await self._named(ref.namespace, ref.name)
        if node is None or node.metadata.uid != ref.uid:
            raise PreconditionFailed(f"{ref.describe()} with uid {ref.uid} is gone")
        return node

    async def _named(self, namespace: str, name: str) -> _Node | None:
        if namespace != CLUSTER:
            raise PermanentError(f"a node's namespace is written as {CLUSTER!r}, not {namespace!r}")
        return await self._api.read(_READ, f"/api/v1/nodes/{name}", _Node)


def _wanted(operation: Operation) -> bool:
    match operation:
        case SetCordon(cordoned=cordoned):
            return cordoned
        case _:
            raise not_offered("kubernetes_node", operation)


def _write(node: _Node, *, cordoned: bool, written: dict[str, str]) -> Write:
    meta = node.metadata
    # Null takes the field away, as kubectl uncordon does.
    body = {
        "metadata": {"annotations": written, "uid": meta.uid, "resourceVersion": meta.resource_version},
        "spec": {"unschedulable": True if cordoned else None},
    }
    return Write(_PATCH, "PATCH", f"/api/v1/nodes/{meta.name}", MERGE, body)
