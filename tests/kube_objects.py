"""A Kubernetes cluster: what its API server stores, and the work of its controllers, one round at a time."""

from __future__ import annotations

import copy
import hashlib
import json
import math
import time
import uuid

from tests.kube_store import Key, Object, Store, now

REVISION = "deployment.kubernetes.io/revision"
_HASH = "pod-template-hash"
_POD_REVISION = "controller-revision-hash"
CORDON_TAINT = {"key": "node.kubernetes.io/unschedulable", "effect": "NoSchedule"}


class Cluster(Store):
    """``reconcile`` does one round of what the real controllers do.

    ``ready_after_s`` a pod is ready, ``grace_s`` after its deletion it is gone. ``quota``: pods that a namespace may
    have, where it has one. ``broken_images``: pods that run them never become ready.
    """

    def __init__(self, *, ready_after_s: float = 0.05, grace_s: float = 0.1) -> None:
        super().__init__()
        self.ready_after_s = ready_after_s
        self.quota: dict[str, int] = {}
        self.broken_images: set[str] = set()
        self._grace_s = grace_s
        self._born: dict[str, float] = {}
        self._deleted: dict[str, float] = {}

    def add_workload(
        self, resource: str, namespace: str, name: str, replicas: int, selector: Object | None = None
    ) -> Object:
        """One whose pods are labelled ``app=<name>, track=stable``. A DaemonSet's number is that of the nodes."""
        labels = {"app": name, "track": "stable"}
        selector = selector or {"matchLabels": {"app": name}}
        template = {"metadata": {"labels": labels}, "spec": {"containers": [{"name": "main", "image": "main:1"}]}}
        spec: Object = {"selector": selector, "template": template, "revisionHistoryLimit": 10}
        rolling = {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 1}}
        if resource == "deployments":
            spec |= {"replicas": replicas, "strategy": {"type": "RollingUpdate", "rollingUpdate": _QUARTER}}
        elif resource == "statefulsets":
            partition = {"type": "RollingUpdate", "rollingUpdate": {"partition": 0}}
            spec |= {"replicas": replicas, "serviceName": name, "updateStrategy": partition}
        else:
            spec["updateStrategy"] = rolling
            for number in range(len(self.of("nodes")), replicas):
                self.add_node(f"node-{number + 1}")
        return self.create(resource, namespace, name, {"spec": spec, "status": {}}, labels=labels)

    def add_pod(self, namespace: str, name: str, labels: dict[str, str], owner: Object | None = None) -> Object:
        return self._add_pod(namespace, name, labels, _POD, owner)

    def add_node(self, name: str) -> Object:
        status = {"conditions": [{"type": "Ready", "status": "True"}]}
        return self.create("nodes", "", name, {"spec": {"podCIDR": "10.0.0.0/24"}, "status": status})

    def add_autoscaler(self, namespace: str, name: str, target: Key, minimum: int, maximum: int) -> Object:
        workload = self.objects[target]
        to_scale = {"apiVersion": workload["apiVersion"], "kind": workload["kind"], "name": target[2]}
        metric = {"type": "Resource", "resource": {"name": "cpu", "target": {"type": "Utilization"}}}
        spec = {"scaleTargetRef": to_scale, "minReplicas": minimum, "maxReplicas": maximum, "metrics": [metric]}
        return self.create("horizontalpodautoscalers", namespace, name, {"spec": spec, "status": {}})

    def add_budget(self, namespace: str, name: str, selector: Object, minimum: int) -> Object:
        spec = {"minAvailable": minimum, "selector": selector}
        return self.create("poddisruptionbudgets", namespace, name, {"spec": spec, "status": {}})

    def set_image(self, key: Key, image: str) -> None:
        """A deploy by somebody else."""
        template = copy.deepcopy(self.objects[key]["spec"]["template"])
        template["spec"]["containers"][0]["image"] = image
        self.edit_spec(key, template=template)

    def undo_rollout(self, key: Key) -> None:
        """``kubectl rollout undo`` by somebody else: template and annotations of the ReplicaSet before."""
        deployment = self.objects[key]
        before = sorted(self.owned("replicasets", deployment), key=_number)[-2]
        template = copy.deepcopy(before["spec"]["template"])
        del template["metadata"]["labels"][_HASH]
        annotations = {**before["metadata"]["annotations"], REVISION: deployment["metadata"]["annotations"][REVISION]}
        meta, spec = deployment["metadata"], deployment["spec"]
        undone = {"metadata": {**meta, "annotations": annotations}, "spec": {**spec, "template": template}}
        self.replace(key, {**deployment, **undone})

    def number_template(self, key: Key) -> None:
        """What a controller does first with a new template: it becomes a revision, which is kept."""
        if key[0] == "deployments":
            self._current_set(key)
        else:
            self._current_revision(key)

    def delete_pod(self, key: Key) -> Object:
        """Gracefully: it is marked now and gone when its grace period is over. A second time changes nothing."""
        pod = self.objects[key]
        if "deletionTimestamp" in pod["metadata"]:
            return pod
        self._deleted[pod["metadata"]["uid"]] = time.monotonic()
        marks = {"deletionTimestamp": now(), "deletionGracePeriodSeconds": 30}
        return self.replace(key, {**pod, "metadata": {**pod["metadata"], **marks}}, by_status=True)

    def pods_of(self, workload_key: Key) -> list[Object]:
        """Those it controls, terminating ones included, by name."""
        workload = self.objects[workload_key]
        owners = self.owned("replicasets", workload) if workload_key[0] == "deployments" else [workload]
        found = [pod for owner in owners for pod in self.owned("pods", owner)]
        return sorted(found, key=lambda pod: str(pod["metadata"]["name"]))

    def reconcile(self) -> None:
        at = time.monotonic()
        for key in self.of("nodes"):
            self._taint(key)
        for key in self.of("pods"):
            self._age(key, at)
        for key in self.of("horizontalpodautoscalers"):
            self._autoscale(key)
        for key in self.of("deployments"):
            self._deploy(key)
        for key in self.of("statefulsets"):
            self._order(key)
        for key in self.of("daemonsets"):
            self._cover(key)
        for key in self.of("poddisruptionbudgets"):
            self._budget(key)

    def _taint(self, key: Key) -> None:
        """The cordon shows as a taint too, which the cluster sets and takes away."""
        spec = self.objects[key]["spec"]
        taints = [one for one in spec.get("taints", []) if one != CORDON_TAINT]
        if spec.get("unschedulable"):
            taints.append(CORDON_TAINT)
        if taints or "taints" in spec:
            self.edit_spec(key, taints=taints)

    def _age(self, key: Key, at: float) -> None:
        pod = self.objects[key]
        uid = pod["metadata"]["uid"]
        if uid in self._deleted:
            if at - self._deleted[uid] >= self._grace_s:
                self.remove(key)
        elif pod["status"]["phase"] == "Pending" and at - self._born[uid] >= self.ready_after_s:
            broken = pod["spec"]["containers"][0]["image"] in self.broken_images
            ready = {"type": "Ready", "status": "False" if broken else "True"}
            self.edit_status(key, phase="Running", conditions=[ready])

    def _autoscale(self, key: Key) -> None:
        spec = self.objects[key]["spec"]
        plural = {"Deployment": "deployments", "StatefulSet": "statefulsets"}[spec["scaleTargetRef"]["kind"]]
        target = (plural, key[1], spec["scaleTargetRef"]["name"])
        if target not in self.objects:
            return
        current = self.objects[target]["spec"]["replicas"]
        desired = min(max(current, spec["minReplicas"]), spec["maxReplicas"]) if current else 0
        self.edit_spec(target, replicas=desired)
        self.edit_status(key, currentReplicas=current, desiredReplicas=desired)

    def _deploy(self, key: Key) -> None:
        deployment = self.objects[key]
        spec = deployment["spec"]
        current = self._current_set(key)
        others = [
            one for one in self.owned("replicasets", deployment) if one["metadata"]["uid"] != current["metadata"]["uid"]
        ]
        new = _live(self.owned("pods", current))
        old = [pod for one in others for pod in _live(self.owned("pods", one))]
        wanted, rolling = spec["replicas"], spec["strategy"]["type"] == "RollingUpdate"
        limits = spec["strategy"].get("rollingUpdate") or {}
        surge = _part(limits.get("maxSurge", "25%"), wanted, math.ceil) if rolling else 0
        away = _part(limits.get("maxUnavailable", "25%"), wanted, math.floor) if rolling else wanted
        if rolling and not surge and not away:
            away = 1
        failure = ""
        for _ in range(min(wanted - len(new), wanted + surge - len(new) - len(old))):
            name = f"{current['metadata']['name']}-{uuid.uuid4().hex[:5]}"
            failure = self._grow(key[1], name, current["spec"]["template"], current) or failure
        for pod in new[wanted:]:
            self._shrink(pod)
        spare = sum(map(_is_ready, new + old)) - (wanted - away)
        for pod in sorted(old, key=_is_ready):
            if not _is_ready(pod) or spare > 0:
                spare -= _is_ready(pod)
                self._shrink(pod)
        self._report(key, new=_live(self.owned("pods", current)), failure=failure)

    def _current_set(self, key: Key) -> Object:
        """The ReplicaSet of the Deployment's template, made or numbered anew where it has to be."""
        deployment = self.objects[key]
        sets = self.owned("replicasets", deployment)
        template = deployment["spec"]["template"]
        latest = max((_number(one) for one in sets), default=0)
        if deployment["spec"].get("paused") and sets:
            return next(one for one in sets if _number(one) == latest)
        digest = _digest(template)
        name = f"{key[2]}-{digest}"
        found = self.objects.get(("replicasets", key[1], name))
        number = latest if found is not None and _number(found) == latest else latest + 1
        annotations = {**deployment["metadata"].get("annotations", {}), REVISION: str(number)}
        if found is None:
            labels = {**template["metadata"]["labels"], _HASH: digest}
            own = copy.deepcopy(template)
            own["metadata"]["labels"] = labels
            rest = {"spec": {"replicas": 0, "selector": {"matchLabels": labels}, "template": own}, "status": {}}
            found = self.create(
                "replicasets", key[1], name, rest, labels=labels, annotations=annotations, owner=deployment
            )
        self.edit_annotations(("replicasets", key[1], name), annotations)
        self.edit_annotations(
            key, {**deployment["metadata"].get("annotations", {}), REVISION: str(number)}, by_status=True
        )
        return self.objects["replicasets", key[1], name]

    def _order(self, key: Key) -> None:
        revision = self._current_revision(key)
        name, wanted = revision["metadata"]["name"], self.objects[key]["spec"]["replicas"]
        template, failure = self._labelled(key, name), ""
        for ordinal in range(wanted):
            # An ordinal's name is free only when the pod that bore it is gone.
            if ("pods", key[1], f"{key[2]}-{ordinal}") not in self.objects:
                failure = self._grow(key[1], f"{key[2]}-{ordinal}", template, self.objects[key]) or failure
        live = sorted(_live(self.pods_of(key)), key=_ordinal)
        for pod in live:
            if _ordinal(pod) >= wanted:
                self._shrink(pod)
        kept = [pod for pod in live if _ordinal(pod) < wanted]
        self._replace_one(key, [pod for pod in kept if not _is_of(pod, name)], kept, wanted)
        self._report(key, new=[pod for pod in _live(self.pods_of(key)) if _is_of(pod, name)], failure=failure)
        status = self.objects[key]["status"]
        over = status["updatedReplicas"] == wanted == status["readyReplicas"]
        current = name if over else status.get("currentRevision", name)
        self.edit_status(key, updateRevision=name, currentRevision=current)

    def _cover(self, key: Key) -> None:
        revision = self._current_revision(key)
        digest = revision["metadata"]["labels"][_POD_REVISION]
        template = self._labelled(key, digest)
        nodes = [name for _, _, name in self.of("nodes")]
        taken = {pod["spec"]["nodeName"] for pod in self.pods_of(key)}
        for node in nodes:
            if node not in taken:
                self._grow(key[1], f"{key[2]}-{uuid.uuid4().hex[:5]}", template, self.objects[key], node)
        live = _live(self.pods_of(key))
        self._replace_one(key, [pod for pod in live if not _is_of(pod, digest)], live, len(nodes))
        live = _live(self.pods_of(key))
        ready = sum(map(_is_ready, live))
        self.edit_status(
            key,
            observedGeneration=self.objects[key]["metadata"]["generation"],
            desiredNumberScheduled=len(nodes),
            currentNumberScheduled=len(live),
            updatedNumberScheduled=sum(_is_of(pod, digest) for pod in live),
            numberReady=ready,
            numberAvailable=ready,
            numberMisscheduled=0,
        )

    def _replace_one(self, key: Key, old: list[Object], live: list[Object], wanted: int) -> None:
        """One pod at a time, the highest first. A DaemonSet takes a broken one before the others; a StatefulSet waits
        until every pod is ready, a broken one too (its documentation's "forced rollback")."""
        if self.objects[key]["spec"]["updateStrategy"]["type"] == "OnDelete" or not old:
            return
        broken = [pod for pod in old if not _is_ready(pod)] if key[0] == "daemonsets" else []
        if broken or sum(map(_is_ready, live)) >= wanted:
            self._shrink((broken or old)[-1])

    def _current_revision(self, key: Key) -> Object:
        """The ControllerRevision of the workload's template, made or numbered anew where it has to be."""
        workload = self.objects[key]
        template = workload["spec"]["template"]
        digest = _digest(template)
        found = ("controllerrevisions", key[1], f"{key[2]}-{digest}")
        latest = max((one["revision"] for one in self.owned("controllerrevisions", workload)), default=0)
        if found not in self.objects:
            data = {"spec": {"template": {**copy.deepcopy(template), "$patch": "replace"}}}
            labels = {**template["metadata"]["labels"], _POD_REVISION: digest}
            self.create(*found, {"data": data, "revision": latest + 1}, labels=labels, owner=workload)
        elif self.objects[found]["revision"] != latest:
            self.replace(found, {**self.objects[found], "revision": latest + 1})
        return self.objects[found]

    def _labelled(self, key: Key, revision: str) -> Object:
        template: Object = copy.deepcopy(self.objects[key]["spec"]["template"])
        template["metadata"]["labels"][_POD_REVISION] = revision
        return template

    def _report(self, key: Key, *, new: list[Object], failure: str) -> None:
        live = _live(self.pods_of(key))
        ready = sum(map(_is_ready, live))
        failed = {"type": "ReplicaFailure", "status": "True", "reason": "FailedCreate", "message": failure}
        self.edit_status(
            key,
            observedGeneration=self.objects[key]["metadata"]["generation"],
            replicas=len(live),
            updatedReplicas=len(new),
            readyReplicas=ready,
            availableReplicas=ready,
            conditions=[failed] if failure else [],
        )

    def _budget(self, key: Key) -> None:
        budget = self.objects[key]
        wanted = budget["spec"]["selector"].get("matchLabels", {}).items()
        pods = [self.objects[one] for one in self.of("pods") if one[1] == key[1]]
        covered = _live([pod for pod in pods if wanted <= pod["metadata"]["labels"].items()])
        healthy, least = sum(map(_is_ready, covered)), budget["spec"]["minAvailable"]
        self.edit_status(
            key,
            observedGeneration=budget["metadata"]["generation"],
            expectedPods=len(covered),
            currentHealthy=healthy,
            desiredHealthy=least,
            disruptionsAllowed=max(0, healthy - least),
        )

    def _grow(self, namespace: str, name: str, template: Object, owner: Object, node: str = "") -> str:
        """Makes a pod; what the quota says against it, where it does."""
        used = sum(one[1] == namespace for one in self.of("pods"))
        limit = self.quota.get(namespace)
        if limit is not None and used >= limit:
            return (
                f'pods "{name}" is forbidden: exceeded quota: pods, requested: pods=1, used: pods={used}, '
                f"limited: pods={limit}"
            )
        self._add_pod(namespace, name, template["metadata"]["labels"], template["spec"], owner, node)
        return ""

    def _add_pod(
        self, namespace: str, name: str, labels: Object, spec: Object, owner: Object | None, node: str = ""
    ) -> Object:
        nodes = [
            name for _, _, name in self.of("nodes") if not self.objects["nodes", "", name]["spec"].get("unschedulable")
        ]
        placed = node or (nodes[len(self.of("pods")) % len(nodes)] if nodes else "node-1")
        rest = {"spec": {**spec, "nodeName": placed}, "status": {"phase": "Pending"}}
        pod = self.create("pods", namespace, name, rest, labels=labels, owner=owner)
        self._born[pod["metadata"]["uid"]] = time.monotonic()
        return pod

    def _shrink(self, pod: Object) -> None:
        self.delete_pod(("pods", pod["metadata"]["namespace"], pod["metadata"]["name"]))


_QUARTER = {"maxUnavailable": "25%", "maxSurge": "25%"}
_POD = {"containers": [{"name": "main", "image": "main:1"}]}


def _live(pods: list[Object]) -> list[Object]:
    """Without those on their way out and those that ended."""
    return [
        pod
        for pod in pods
        if "deletionTimestamp" not in pod["metadata"] and pod["status"]["phase"] not in ("Succeeded", "Failed")
    ]


def _is_ready(pod: Object) -> bool:
    return any(one == {"type": "Ready", "status": "True"} for one in pod["status"].get("conditions", ()))


def _is_of(pod: Object, revision: str) -> bool:
    return bool(pod["metadata"]["labels"].get(_POD_REVISION) == revision)


def _ordinal(pod: Object) -> int:
    return int(pod["metadata"]["name"].rpartition("-")[2])


def _number(replica_set: Object) -> int:
    return int(replica_set["metadata"].get("annotations", {}).get(REVISION, "0"))


def _digest(template: Object) -> str:
    return hashlib.sha256(json.dumps(template, sort_keys=True).encode()).hexdigest()[:10]


def _part(number: int | str, whole: int, rounded: object) -> int:
    if isinstance(number, int):
        return number
    share = int(number.removesuffix("%")) * whole / 100
    return math.ceil(share) if rounded is math.ceil else math.floor(share)
