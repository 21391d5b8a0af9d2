"""The requests that change a workload, as the server is to refuse them once anything else has."""

from __future__ import annotations

from typing import Any

from executors.targets.kubernetes_api import MERGE, STRATEGIC, Right, Write
from executors.targets.kubernetes_marks import one_line
from executors.targets.kubernetes_objects import Autoscaler, Meta, Workload
from executors.targets.kubernetes_reads import (
    AUTOSCALERS,
    CHANGE_CAUSE,
    RESOURCES,
    History,
    autoscaler_path,
    workload_path,
)
from executors.targets.kubernetes_workload import RESTARTED, ROLLED_BACK_TO
from pipeline.domain.action import Bounds, InstanceRef
from pipeline.domain.errors import PermanentError, PreconditionFailed


def evicted(workload: Workload, instance: InstanceRef) -> Write:
    """This very pod, with its own grace period; refused when another bears its name, or a PodDisruptionBudget says so.

    https://kubernetes.io/docs/concepts/scheduling-eviction/api-eviction/
    """
    namespace = workload.metadata.namespace
    body = {
        "apiVersion": "policy/v1",
        "kind": "Eviction",
        "metadata": {"name": instance.name, "namespace": namespace},
        "deleteOptions": {"preconditions": {"uid": instance.uid}},
    }
    path = f"/api/v1/namespaces/{namespace}/pods/{instance.name}/eviction"
    return Write(Right("create", "pods/eviction", namespace), "POST", path, "application/json", body)


def scaled(workload: Workload, replicas: int, written: dict[str, str]) -> Write:
    """In the workload and not its scale subresource, which keeps no annotations."""
    return _patch(workload, {"replicas": replicas}, written)


def restarted(workload: Workload, written: dict[str, str]) -> Write:
    """A change of the pod template, for which every pod is replaced."""
    return _patch(workload, {"template": {"metadata": {"annotations": {RESTARTED: one_line(written)}}}}, written)


def rolled_back(workload: Workload, history: History, revision: str, written: dict[str, str]) -> Write:
    """The pod template of ``revision``, whole, in place of what is there (as ``kubectl rollout undo``).

    Raises PreconditionFailed when it runs already, PermanentError when it is not kept.
    """
    if revision == str(history.current):
        raise PreconditionFailed(f"{workload.describe()} is at its revision {revision} already: nothing was sent")
    past = next((one for one in history.earlier if str(one.number) == revision), None)
    if past is None:
        kept = ", ".join(str(one.number) for one in history.earlier) or "none"
        raise PermanentError(f"{workload.describe()} keeps no revision {revision} (kept: {kept}): nothing was sent")
    # Null takes an annotation away: the cause of what is given up is not that of what comes back.
    notes = {**written, ROLLED_BACK_TO: revision, CHANGE_CAUSE: past.cause or None}
    return _patch(workload, {"template": {"$patch": "replace", **past.template}}, notes, content_type=STRATEGIC)


def with_bounds(autoscaler: Autoscaler, bounds: Bounds, written: dict[str, str]) -> Write:
    meta = autoscaler.metadata
    return Write(
        Right("patch", AUTOSCALERS, meta.namespace),
        "PATCH",
        autoscaler_path(meta.namespace, meta.name),
        MERGE,
        {
            "metadata": _bound(meta, written),
            "spec": {"minReplicas": bounds.minimum, "maxReplicas": bounds.maximum},
        },
    )


def _patch(workload: Workload, spec: dict[str, Any], notes: dict[str, Any], *, content_type: str = MERGE) -> Write:
    meta = workload.metadata
    return Write(
        Right("patch", RESOURCES[workload.kind], meta.namespace),
        "PATCH",
        workload_path(workload.kind, meta.namespace, meta.name),
        content_type,
        {"metadata": _bound(meta, notes), "spec": spec},
    )


def _bound(meta: Meta, notes: dict[str, Any]) -> dict[str, Any]:
    """Annotations, and what makes the server refuse the patch once the object has changed."""
    return {"annotations": notes, "uid": meta.uid, "resourceVersion": meta.resource_version}
