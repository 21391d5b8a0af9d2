"""What a Kubernetes API server stores: objects with uid, version and generation, and the list of their changes."""

from __future__ import annotations

import copy
import itertools
import re
import uuid
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal

Object = dict[str, Any]
Key = tuple[str, str, str]
"""Resource (plural), namespace (empty for what is of the whole cluster), name."""


@dataclass(frozen=True)
class Resource:
    """``counts``: what raises ``metadata.generation``. ``builtin``: not a CustomResourceDefinition's."""

    plural: str
    group: str
    version: str
    kind: str
    namespaced: bool = True
    counts: Literal["nothing", "spec", "spec and annotations"] = "spec"
    builtin: bool = True

    @property
    def api_version(self) -> str:
        return f"{self.group}/{self.version}" if self.group else self.version

    @property
    def named(self) -> str:
        return f"{self.plural}.{self.group}" if self.group else self.plural


BUILTIN = (
    # The Deployment's strategy counts annotations too: pkg/registry/apps/deployment/strategy.go
    Resource("deployments", "apps", "v1", "Deployment", counts="spec and annotations"),
    Resource("statefulsets", "apps", "v1", "StatefulSet"),
    Resource("daemonsets", "apps", "v1", "DaemonSet"),
    Resource("replicasets", "apps", "v1", "ReplicaSet"),
    Resource("controllerrevisions", "apps", "v1", "ControllerRevision", counts="nothing"),
    Resource("pods", "", "v1", "Pod"),
    Resource("nodes", "", "v1", "Node", namespaced=False, counts="nothing"),
    # It has a generation since 1.36 only (feature gate HPAGeneration).
    Resource("horizontalpodautoscalers", "autoscaling", "v2", "HorizontalPodAutoscaler", counts="nothing"),
    Resource("poddisruptionbudgets", "policy", "v1", "PodDisruptionBudget"),
)


@dataclass(frozen=True)
class Event:
    """One change, as a watch tells it."""

    version: int
    type: Literal["ADDED", "MODIFIED", "DELETED"]
    key: Key
    object: Object


class Store:
    """The objects by key. ``define`` adds a resource, such as a CustomResourceDefinition's."""

    def __init__(self) -> None:
        self.objects: dict[Key, Object] = {}
        self.resources = {one.plural: one for one in BUILTIN}
        self.events: list[Event] = []
        self._versions = itertools.count(1000)

    def define(self, resource: Resource) -> None:
        self.resources[resource.plural] = resource

    def create(
        self,
        plural: str,
        namespace: str,
        name: str,
        rest: Object,
        *,
        labels: dict[str, str] | None = None,
        annotations: dict[str, str] | None = None,
        owner: Object | None = None,
    ) -> Object:
        resource = self.resources[plural]
        meta: Object = {
            "name": name,
            "uid": str(uuid.uuid4()),
            "creationTimestamp": now(),
            "labels": dict(labels or {}),
        }
        if resource.namespaced:
            meta["namespace"] = namespace
        if resource.counts != "nothing":
            meta["generation"] = 1
        if annotations:
            meta["annotations"] = dict(annotations)
        if owner is not None:
            reference = {field: owner["metadata"][field] for field in ("name", "uid")}
            kind = {"apiVersion": owner["apiVersion"], "kind": owner["kind"]}
            meta["ownerReferences"] = [{**kind, **reference, "controller": True, "blockOwnerDeletion": True}]
        made = {"apiVersion": resource.api_version, "kind": resource.kind, "metadata": meta, **copy.deepcopy(rest)}
        return self._stored((plural, namespace, name), made, "ADDED")

    def replace(self, key: Key, changed: Object, *, by_status: bool = False) -> Object:
        """Stores it: a new resourceVersion if anything differs, a new generation as the resource counts.

        ``by_status``: through the status subresource, which changes metadata too but counts nothing.
        """
        stored = self.objects[key]
        if changed == stored:
            return stored
        changed = copy.deepcopy(changed)
        if not by_status and self._counts(key, stored, changed):
            changed["metadata"]["generation"] = stored["metadata"]["generation"] + 1
        return self._stored(key, changed, "MODIFIED")

    def remove(self, key: Key) -> None:
        gone = self.objects.pop(key)
        self.events.append(Event(next(self._versions), "DELETED", key, gone))

    def edit_spec(self, key: Key, **spec: object) -> None:
        """A change by somebody else."""
        self.replace(key, {**self.objects[key], "spec": {**self.objects[key]["spec"], **spec}})

    def edit_status(self, key: Key, **status: object) -> None:
        stored = self.objects[key]
        self.replace(key, {**stored, "status": {**stored.get("status", {}), **status}}, by_status=True)

    def edit_annotations(self, key: Key, annotations: dict[str, str] | None, *, by_status: bool = False) -> None:
        stored = self.objects[key]
        meta = {field: value for field, value in stored["metadata"].items() if field != "annotations"}
        if annotations:
            meta["annotations"] = annotations
        self.replace(key, {**stored, "metadata": meta}, by_status=by_status)

    def owned(self, plural: str, owner: Object) -> list[Object]:
        """Those of ``plural`` that ``owner`` controls, by name."""
        uid = owner["metadata"]["uid"]
        return [
            self.objects[key]
            for key in sorted(self.objects)
            if key[0] == plural and owner_uid(self.objects[key]) == uid
        ]

    def of(self, plural: str) -> list[Key]:
        return sorted(key for key in self.objects if key[0] == plural)

    def _counts(self, key: Key, stored: Object, changed: Object) -> bool:
        counts = self.resources[key[0]].counts
        if counts == "nothing":
            return False
        annotated = counts == "spec and annotations" and _annotations(stored) != _annotations(changed)
        return annotated or stored.get("spec") != changed.get("spec")

    def _stored(self, key: Key, made: Object, how: Literal["ADDED", "MODIFIED"]) -> Object:
        version = next(self._versions)
        made["metadata"]["resourceVersion"] = str(version)
        self.objects[key] = made
        self.events.append(Event(version, how, key, made))
        return made


def owner_uid(found: Object) -> str | None:
    return next((one["uid"] for one in found["metadata"].get("ownerReferences", ())), None)


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


def now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _annotations(found: Object) -> dict[str, str]:
    return found["metadata"].get("annotations") or {}
