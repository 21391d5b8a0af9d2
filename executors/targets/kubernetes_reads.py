"""The few things of a cluster that the adapter reads: workloads, their pods, and who else rules over them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from executors.targets.kubernetes_api import KubernetesApi, Right
from executors.targets.kubernetes_objects import (
    Autoscaler,
    Autoscalers,
    Budget,
    Budgets,
    ControllerRevisions,
    Kind,
    Pod,
    Pods,
    ReplicaSet,
    ReplicaSets,
    Workload,
    images,
)
from pipeline.domain.plan import Revision

RESOURCES: Mapping[Kind, str] = {
    "Deployment": "deployments.apps",
    "StatefulSet": "statefulsets.apps",
    "DaemonSet": "daemonsets.apps",
}
AUTOSCALERS = "horizontalpodautoscalers.autoscaling"
BUDGETS = "poddisruptionbudgets.policy"
CHANGE_CAUSE = "kubernetes.io/change-cause"
_REVISION = "deployment.kubernetes.io/revision"
_HASH_LABEL = "pod-template-hash"


@dataclass(frozen=True, slots=True)
class PastTemplate:
    """A pod template that ran before, or runs, under the number that ``kubectl rollout history`` shows."""

    number: int
    uid: str
    template: Mapping[str, Any]
    cause: str
    at: datetime | None

    def revision(self) -> Revision:
        title = self.cause or ", ".join(images(self.template))
        return Revision(str(self.number), title, self.at)


@dataclass(frozen=True, slots=True)
class History:
    """``current`` is the number of what is rolled out, 0 while its controller has not written it."""

    current: int
    templates: tuple[PastTemplate, ...]

    @property
    def earlier(self) -> tuple[PastTemplate, ...]:
        """What can be rolled back to, the latest first."""
        others = (one for one in self.templates if one.number != self.current)
        return tuple(sorted(others, key=lambda one: one.number, reverse=True))


class KubernetesReads:
    """Raises TemporaryError or PermanentError."""

    def __init__(self, api: KubernetesApi) -> None:
        self._api = api

    async def workload(self, kind: Kind, namespace: str, name: str) -> Workload | None:
        """None when there is none."""
        return await self._api.read(
            Right("get", RESOURCES[kind], namespace), workload_path(kind, namespace, name), Workload
        )

    async def pod(self, namespace: str, name: str) -> Pod | None:
        """None when there is none."""
        return await self._api.read(Right("get", "pods", namespace), f"/api/v1/namespaces/{namespace}/pods/{name}", Pod)

    async def pods(self, workload: Workload) -> tuple[Pod, ...]:
        """Those that belong to it, by way of its ReplicaSets for a Deployment."""
        owners = {workload.metadata.uid}
        if workload.kind == "Deployment":
            owners = {one.metadata.uid for one in await self._replica_sets(workload)}
        namespace = workload.metadata.namespace
        found = await self._api.read_all(
            Right("list", "pods", namespace),
            f"/api/v1/namespaces/{namespace}/pods",
            Pods,
            selector=workload.spec.selector.as_query(),
        )
        return tuple(pod for pod in found.items if pod.metadata.owner_uid in owners)

    async def autoscalers(self, workload: Workload) -> tuple[Autoscaler, ...]:
        """Those that rule over its replicas, by name: usually none or one."""
        if workload.kind == "DaemonSet":
            return ()
        namespace = workload.metadata.namespace
        found = await self._api.read_all(
            Right("list", AUTOSCALERS, namespace), autoscaler_path(namespace, ""), Autoscalers
        )
        ruling = (one for one in found.items if one.rules(workload))
        return tuple(sorted(ruling, key=lambda one: one.metadata.name))

    async def budgets(self, workload: Workload) -> tuple[Budget, ...]:
        """Every PodDisruptionBudget of its namespace."""
        namespace = workload.metadata.namespace
        path = f"/apis/policy/v1/namespaces/{namespace}/poddisruptionbudgets"
        return (await self._api.read_all(Right("list", BUDGETS, namespace), path, Budgets)).items

    async def history(self, workload: Workload) -> History:
        """Of a Deployment its ReplicaSets, of the others their ControllerRevisions."""
        if workload.kind == "Deployment":
            return _of_replica_sets(workload, await self._replica_sets(workload))
        namespace = workload.metadata.namespace
        found = await self._api.read_all(
            Right("list", "controllerrevisions.apps", namespace),
            f"/apis/apps/v1/namespaces/{namespace}/controllerrevisions",
            ControllerRevisions,
            selector=workload.spec.selector.as_query(),
        )
        return _of_controller_revisions(workload, found)

    async def _replica_sets(self, workload: Workload) -> tuple[ReplicaSet, ...]:
        namespace = workload.metadata.namespace
        found = await self._api.read_all(
            Right("list", "replicasets.apps", namespace),
            f"/apis/apps/v1/namespaces/{namespace}/replicasets",
            ReplicaSets,
            selector=workload.spec.selector.as_query(),
        )
        return tuple(one for one in found.items if one.metadata.owner_uid == workload.metadata.uid)


def workload_path(kind: Kind, namespace: str, name: str) -> str:
    return f"/apis/apps/v1/namespaces/{namespace}/{RESOURCES[kind].partition('.')[0]}/{name}"


def autoscaler_path(namespace: str, name: str) -> str:
    """Without a name, of all of them."""
    return f"/apis/autoscaling/v2/namespaces/{namespace}/horizontalpodautoscalers" + (f"/{name}" if name else "")


def _of_replica_sets(workload: Workload, found: tuple[ReplicaSet, ...]) -> History:
    templates = tuple(
        PastTemplate(
            _number(one.metadata.annotations.get(_REVISION)),
            one.metadata.uid,
            _without_hash(one.spec.template),
            one.metadata.annotations.get(CHANGE_CAUSE, ""),
            one.metadata.creation_timestamp,
        )
        for one in found
    )
    numbered = tuple(one for one in templates if one.number)
    return History(_number(workload.metadata.annotations.get(_REVISION)), numbered)


def _of_controller_revisions(workload: Workload, found: ControllerRevisions) -> History:
    own = [one for one in found.items if one.metadata.owner_uid == workload.metadata.uid]
    templates = tuple(
        PastTemplate(
            one.revision,
            one.metadata.uid,
            {field: value for field, value in one.data.spec.template.items() if field != "$patch"},
            one.metadata.annotations.get(CHANGE_CAUSE, ""),
            one.metadata.creation_timestamp,
        )
        for one in own
    )
    if workload.kind == "StatefulSet":
        wanted = workload.status.update_revision
        return History(next((one.revision for one in own if one.metadata.name == wanted), 0), templates)
    # A DaemonSet's status does not name it: its controller gives what is wanted the highest number.
    return History(max((one.revision for one in own), default=0), templates)


def _without_hash(template: Mapping[str, Any]) -> dict[str, Any]:
    """As its Deployment has it: the label that tells one ReplicaSet's pods from another's is the controller's own."""
    meta = dict(template.get("metadata") or {})
    meta["labels"] = {key: value for key, value in (meta.get("labels") or {}).items() if key != _HASH_LABEL}
    return {**template, "metadata": meta}


def _number(text: str | None) -> int:
    return int(text) if text is not None and text.isascii() and text.isdecimal() else 0
