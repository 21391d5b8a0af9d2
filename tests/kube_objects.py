"""What a Kubernetes control plane keeps: objects with uid, version and generation, and the work of its controllers."""

from __future__ import annotations

import copy
import itertools
import re
import time
import uuid
from datetime import UTC, datetime
from typing import Any

Object = dict[str, Any]
Key = tuple[str, str, str]
"""Resource (plural), namespace, name."""

API_VERSIONS = {"deployments": "apps/v1", "statefulsets": "apps/v1", "replicasets": "apps/v1", "pods": "v1"}
KINDS = {"deployments": "Deployment", "statefulsets": "StatefulSet", "replicasets": "ReplicaSet", "pods": "Pod"}


class Cluster:
    """The objects, and ``reconcile``, which does one round of what the real controllers do.

    ``ready_after_s`` a pod is ready, ``grace_s`` after its deletion it is gone.
    """

    def __init__(self, *, ready_after_s: float = 0.05, grace_s: float = 0.1) -> None:
        self.objects: dict[Key, Object] = {}
        self.ready_after_s = ready_after_s
        self._grace_s = grace_s
        self._versions = itertools.count(1000)
        self._born: dict[str, float] = {}
        self._deleted: dict[str, float] = {}

    def add_workload(
        self, resource: str, namespace: str, name: str, replicas: int, selector: Object | None = None
    ) -> Object:
        """A Deployment or StatefulSet whose pods are labelled ``app=<name>, track=stable``."""
        labels = {"app": name, "track": "stable"}
        selector = selector or {"matchLabels": {"app": name}}
        template = {"metadata": {"labels": labels}, "spec": {"containers": [{"name": "main", "image": "main:1"}]}}
        spec: Object = {"replicas": replicas, "selector": selector, "template": template}
        if resource == "statefulsets":
            spec["serviceName"] = name
        return self._create(resource, namespace, name, labels, {"spec": spec, "status": {"replicas": 0}})

    def add_pod(self, namespace: str, name: str, labels: dict[str, str], owner: Object | None = None) -> Object:
        pod = self._create(
            "pods",
            namespace,
            name,
            labels,
            {"spec": {"containers": [{"name": "main", "image": "main:1"}]}, "status": {"phase": "Pending"}},
            owner,
        )
        self._born[pod["metadata"]["uid"]] = time.monotonic()
        return pod

    def replace(self, key: Key, changed: Object) -> Object:
        """Stores it: a new resourceVersion if anything differs, a new generation if the spec does."""
        stored = self.objects[key]
        if changed == stored:
            return stored
        changed = copy.deepcopy(changed)
        if changed["spec"] != stored["spec"]:
            changed["metadata"]["generation"] += 1
        changed["metadata"]["resourceVersion"] = str(next(self._versions))
        self.objects[key] = changed
        return changed

    def edit_spec(self, key: Key, **spec: object) -> None:
        """A change by somebody else."""
        self.replace(key, {**self.objects[key], "spec": {**self.objects[key]["spec"], **spec}})

    def edit_status(self, key: Key, **status: object) -> None:
        self.replace(key, {**self.objects[key], "status": {**self.objects[key]["status"], **status}})

    def edit_annotations(self, key: Key, annotations: dict[str, str] | None) -> None:
        stored = self.objects[key]
        self.replace(key, {**stored, "metadata": {**stored["metadata"], "annotations": annotations}})

    def delete_pod(self, key: Key) -> Object:
        """Gracefully: it is marked now and gone when its grace period is over. A second time changes nothing."""
        pod = self.objects[key]
        if "deletionTimestamp" in pod["metadata"]:
            return pod
        self._deleted[pod["metadata"]["uid"]] = time.monotonic()
        marks = {"deletionTimestamp": _now(), "deletionGracePeriodSeconds": 30}
        return self.replace(key, {**pod, "metadata": {**pod["metadata"], **marks}})

    def pods_of(self, workload_key: Key) -> list[Object]:
        """Those it controls, terminating ones included, by name."""
        owner_uid = self.objects[workload_key]["metadata"]["uid"]
        if workload_key[0] == "deployments":
            owner_uid = self._replica_set(workload_key)["metadata"]["uid"]
        return [self.objects[key] for key in sorted(self.objects) if key[0] == "pods" and self._owner(key) == owner_uid]

    def reconcile(self) -> None:
        now = time.monotonic()
        for key in [key for key in self.objects if key[0] == "pods"]:
            self._age(key, now)
        for key in [key for key in self.objects if key[0] in ("deployments", "statefulsets")]:
            self._fill(key)
            self._report(key)

    def _age(self, key: Key, now: float) -> None:
        pod = self.objects[key]
        uid = pod["metadata"]["uid"]
        if uid in self._deleted:
            if now - self._deleted[uid] >= self._grace_s:
                del self.objects[key]
        elif pod["status"]["phase"] == "Pending" and now - self._born[uid] >= self.ready_after_s:
            self.edit_status(key, phase="Running", conditions=[{"type": "Ready", "status": "True"}])

    def _fill(self, key: Key) -> None:
        resource, namespace, name = key
        workload = self.objects[key]
        wanted = workload["spec"]["replicas"]
        owner = workload if resource == "statefulsets" else self._replica_set(key)
        pods = self.pods_of(key)
        live = [pod for pod in pods if _is_active(pod)]
        labels = workload["spec"]["template"]["metadata"]["labels"]
        if resource == "deployments":
            for _ in range(wanted - len(live)):
                self.add_pod(namespace, f"{owner['metadata']['name']}-{uuid.uuid4().hex[:5]}", labels, owner)
            surplus = live[wanted:]
        else:
            # An ordinal's name is free only when the pod that bore it is gone.
            for ordinal in range(wanted):
                if ("pods", namespace, f"{name}-{ordinal}") not in self.objects:
                    self.add_pod(namespace, f"{name}-{ordinal}", labels, owner)
            surplus = [pod for pod in live if int(pod["metadata"]["name"].rpartition("-")[2]) >= wanted]
        for pod in surplus:
            self.delete_pod(("pods", namespace, pod["metadata"]["name"]))

    def _report(self, key: Key) -> None:
        active = [pod for pod in self.pods_of(key) if _is_active(pod)]
        ready = sum(pod["status"]["phase"] == "Running" for pod in active)
        generation = self.objects[key]["metadata"]["generation"]
        self.edit_status(key, observedGeneration=generation, replicas=len(active), readyReplicas=ready)

    def _replica_set(self, key: Key) -> Object:
        _, namespace, name = key
        of_deployment = ("replicasets", namespace, f"{name}-7d9f8b")
        if of_deployment not in self.objects:
            deployment = self.objects[key]
            labels = deployment["spec"]["template"]["metadata"]["labels"]
            rest = {"spec": deployment["spec"], "status": {"replicas": 0}}
            self._create(*of_deployment, labels, rest, deployment)
        return self.objects[of_deployment]

    def _create(
        self,
        resource: str,
        namespace: str,
        name: str,
        labels: dict[str, str],
        rest: Object,
        owner: Object | None = None,
    ) -> Object:
        meta: Object = {
            "name": name,
            "namespace": namespace,
            "uid": str(uuid.uuid4()),
            "resourceVersion": str(next(self._versions)),
            "generation": 1,
            "creationTimestamp": _now(),
            "labels": labels,
        }
        if owner is not None:
            reference = {field: owner["metadata"][field] for field in ("name", "uid")}
            kind = {"apiVersion": owner["apiVersion"], "kind": owner["kind"]}
            meta["ownerReferences"] = [{**kind, **reference, "controller": True, "blockOwnerDeletion": True}]
        made = {"apiVersion": API_VERSIONS[resource], "kind": KINDS[resource], "metadata": meta, **copy.deepcopy(rest)}
        self.objects[resource, namespace, name] = made
        return made

    def _owner(self, key: Key) -> str | None:
        return next((one["uid"] for one in self.objects[key]["metadata"].get("ownerReferences", ())), None)


def matches(labels: dict[str, str], selector: str) -> bool:
    """A label selector as list requests carry it: ``a=b``, ``a in (b,c)``, ``a notin (b,c)``, ``a``, ``!a``."""
    return all(_term_holds(labels, term) for term in re.split(r",(?![^(]*\))", selector) if term)


def _term_holds(labels: dict[str, str], term: str) -> bool:
    if of_set := re.fullmatch(r"(\S+) (in|notin) \((.*)\)", term):
        key, operator, values = of_set.groups()
        return (labels.get(key) in values.split(",")) == (operator == "in")
    if term.startswith("!"):
        return term[1:] not in labels
    key, equals, value = term.partition("=")
    return labels.get(key) == value if equals else key in labels


def _is_active(pod: Object) -> bool:
    return "deletionTimestamp" not in pod["metadata"] and pod["status"]["phase"] not in ("Succeeded", "Failed")


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
