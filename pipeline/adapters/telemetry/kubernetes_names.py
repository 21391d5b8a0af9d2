"""Which service an object of Kubernetes belongs to. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable

from pipeline.adapters.telemetry.kubernetes_reads import Meta, Pod
from pipeline.domain.ids import ServiceName

SERVICE_LABELS = ("app.kubernetes.io/name", "app", "k8s-app")
"""By convention: https://kubernetes.io/docs/concepts/overview/working-with-objects/common-labels/ and older ones."""
_WORKLOADS = ("Deployment", "StatefulSet", "DaemonSet", "Job", "CronJob", "HorizontalPodAutoscaler", "Rollout")
_HASH = re.compile(r"-[bcdfghjklmnpqrstvwxz2456789]{1,10}$")
"""What a controller adds to a name, in the alphabet of Kubernetes' own random names (no vowels, no 0, 1 and 3)."""


class ServiceNames:
    """Learnt from the pods of one namespace. ``label`` names the service where an object has it."""

    def __init__(self, pods: Iterable[Pod], *, label: str) -> None:
        self._labels = tuple(dict.fromkeys((label, *SERVICE_LABELS)))
        self._of_pod: dict[str, ServiceName] = {}
        self._of_workload: dict[str, ServiceName] = {}
        for pod in pods:
            service = self.of(pod.metadata)
            self._of_pod[pod.metadata.name] = service
            if (workload := _workload(pod.metadata)) is not None:
                self._of_workload[workload] = service

    def of(self, meta: Meta) -> ServiceName:
        """By label, else by the name of its workload, else by its own."""
        labelled = next((meta.labels[name] for name in self._labels if meta.labels.get(name)), "")
        return ServiceName(labelled or _workload(meta) or meta.name)

    def about(self, kind: str, name: str) -> ServiceName | None:
        """Whom an event about an object concerns; None for what belongs to no service (a node, a volume)."""
        if kind == "Pod":
            # Of a pod that is gone the name is left: <workload>-<hash>-<hash>, or <workload>-<ordinal>.
            workload = re.sub(r"-\d+$", "", name) if re.search(r"-\d+$", name) else _HASH.sub("", _HASH.sub("", name))
            return self._of_pod.get(name) or self._named(workload)
        if kind == "ReplicaSet":
            return self._named(_HASH.sub("", name))
        if kind in _WORKLOADS:
            return self._named(name)
        return self._of_workload.get(name)

    def _named(self, workload: str) -> ServiceName:
        return self._of_workload.get(workload) or ServiceName(workload)


def _workload(meta: Meta) -> str | None:
    owner = meta.owner
    if owner is None:
        return None
    if owner.kind == "ReplicaSet":
        template_hash = meta.labels.get("pod-template-hash", "")
        suffix = f"-{template_hash}"
        return owner.name.removesuffix(suffix) if template_hash else _HASH.sub("", owner.name)
    if owner.kind == "Job":  # of a CronJob, which adds the minute
        return re.sub(r"-\d{8,}$", "", owner.name)
    return owner.name
