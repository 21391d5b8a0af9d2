"""What a person would type: kubectl, with the namespace always written out."""

from __future__ import annotations

import json
import shlex
from collections.abc import Sequence

from executors.targets.kubernetes_objects import Kind
from executors.targets.offers import not_offered
from pipeline.domain.action import (
    Action,
    BoundsAction,
    InstanceRef,
    ManualAction,
    RestartAction,
    RollBackAction,
    RolloutRestartAction,
    ScaleAction,
)
from pipeline.domain.plan import TargetRef


def command(ref: TargetRef, action: Action, kinds: Sequence[Kind], autoscaler: str) -> str:
    """``kinds``: what the target may be; ``autoscaler``: what rules over it, as far as is known."""
    kubectl = f"kubectl -n {ref.namespace}"
    names = " ".join(f"{kind.lower()}/{ref.name}" for kind in kinds)
    match action:
        case RestartAction(instances=instances):
            # One after the other, as the bot would do it.
            return " && ".join(_evict(ref.namespace, one) for one in instances)
        case RolloutRestartAction():
            return f"{kubectl} rollout restart {names}"
        case ScaleAction(from_replicas=before, to_replicas=after):
            scalable = " ".join(f"{kind.lower()}/{ref.name}" for kind in kinds if kind != "DaemonSet")
            return f"{kubectl} scale {scalable} --current-replicas={before} --replicas={after}"
        case BoundsAction(to_bounds=bounds):
            patch = {"spec": {"minReplicas": bounds.minimum, "maxReplicas": bounds.maximum}}
            return f"{kubectl} patch hpa/{autoscaler} --type=merge -p {shlex.quote(json.dumps(patch))}"
        case RollBackAction(to_revision=revision):
            return f"{kubectl} rollout undo {names} --to-revision={revision}"
        case ManualAction(command=typed):
            return typed
        case _:
            raise not_offered("kubernetes", action)


def _evict(namespace: str, pod: InstanceRef) -> str:
    # kubectl delete would pass the PodDisruptionBudgets by, and kubectl has no word of its own for an eviction.
    eviction = {
        "apiVersion": "policy/v1",
        "kind": "Eviction",
        "metadata": {"name": pod.name, "namespace": namespace},
        "deleteOptions": {"preconditions": {"uid": pod.uid}},
    }
    url = f"/api/v1/namespaces/{namespace}/pods/{pod.name}/eviction"
    return (
        f"echo {shlex.quote(json.dumps(eviction))} | kubectl create --raw {url} -f -"
        f" && kubectl -n {namespace} wait --for=delete pod/{pod.name}"
    )
