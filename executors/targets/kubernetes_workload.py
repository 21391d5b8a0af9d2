"""What a workload's objects mean: its generation, whether a rollout is over, what it does not take. Pure."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

from executors.targets.kubernetes_objects import Autoscaler, Budget, Pod, Workload
from executors.targets.kubernetes_reads import History
from pipeline.domain.action import MAX_REPLICAS, ActionKind, Bounds, Operation

RESTARTED = "sre-bot/restarted"
"""On the pod template, as ``kubectl rollout restart`` has an annotation of its own there."""
ROLLED_BACK_TO = "sre-bot/rolled-back-to"

_POD_REVISION = "controller-revision-hash"

_KINDS: Mapping[str, ActionKind] = {
    "restart_instance": "restart",
    "rollout_restart": "rollout_restart",
    "scale_to": "scale",
    "set_bounds": "bounds",
    "roll_back_to": "roll_back",
}


def generation(workload: Workload, autoscalers: Sequence[Autoscaler]) -> str:
    """``metadata.generation``; where an autoscaler rules, digests of what is wanted of both.

    For an autoscaler raises the workload's own generation with each number of replicas that it chooses, and itself has
    one only since Kubernetes 1.36.
    """
    if not autoscalers:
        return str(workload.metadata.generation)
    wanted = [(one.metadata.uid, one.raw) for one in autoscalers]
    return f"{_spec_part(workload)},autoscaler-{_digest(wanted)}"


def workload_moved(workload: Workload, since: str) -> bool:
    """Whether what is wanted of the workload itself is not that of the generation ``since`` any more."""
    own, ruled, _ = since.partition(",")
    return (_spec_part(workload) if ruled else str(workload.metadata.generation)) != own


def autoscaler_moved(workload: Workload, autoscalers: Sequence[Autoscaler], since: str) -> bool:
    """The same of its autoscaler."""
    return generation(workload, autoscalers).partition(",")[2] != since.partition(",")[2]


def bounds(autoscalers: Sequence[Autoscaler]) -> Bounds | None:
    """None without an autoscaler, with more than one, and for bounds that the bot does not deal in."""
    if len(autoscalers) != 1 or autoscalers[0].spec.max_replicas > MAX_REPLICAS:
        return None
    return Bounds(minimum=autoscalers[0].spec.min_replicas, maximum=autoscalers[0].spec.max_replicas)


def away_at_once(workload: Workload) -> int | None:
    """Pods that a rollout takes away at a time; None: all of them at once.

    As the controllers count: https://kubernetes.io/docs/concepts/workloads/controllers/deployment/#max-unavailable
    (rounded down, and 1 where there may be no surge either), for a StatefulSet and a DaemonSet rounded up.
    """
    if workload.kind == "Deployment":
        strategy = workload.spec.strategy
        if strategy.type != "RollingUpdate":
            return None
        away = _part(strategy.rolling_update.max_unavailable, "25%", workload.replicas, up=False)
        surge = _part(strategy.rolling_update.max_surge, "25%", workload.replicas, up=True)
        return min(away or (0 if surge else 1), workload.replicas)
    rolling = workload.spec.update_strategy.rolling_update
    return _part(rolling.max_unavailable, 1, workload.replicas, up=True)


def rolled_out(workload: Workload) -> bool:
    """Whether every pod is of what is wanted and available, as ``kubectl rollout status`` tells it."""
    status, wanted = workload.status, workload.replicas
    if status.observed_generation < workload.metadata.generation:
        return False
    if workload.kind == "DaemonSet":
        return status.updated_number_scheduled >= wanted and status.number_available >= wanted
    updated = status.updated_replicas
    return status.replicas <= updated and updated >= wanted and status.available_replicas >= updated


def complete(workload: Workload, pods: Sequence[Pod]) -> bool:
    """Whether there are as many pods as are wanted, each of them ready, and none on its way out."""
    there = [pod for pod in pods if not pod.finished]
    return (
        workload.status.observed_generation >= workload.metadata.generation
        and len(there) == workload.replicas
        and all(pod.ready and not pod.terminating for pod in there)
    )


def stuck(workload: Workload) -> str:
    """Why its controller gets no further, in its own words: a quota, an admission, a deadline. Empty when it does."""
    if workload.status.observed_generation < workload.metadata.generation:
        return ""
    signs = {("ReplicaFailure", "True"), ("Progressing", "False")}
    said = [one.message or one.reason for one in workload.status.conditions if (one.type, one.status) in signs]
    return f"{workload.describe()} gets no further: {'; '.join(said)}" if said else ""


def waits_for(workload: Workload, pods: Sequence[Pod]) -> str:
    """Why a StatefulSet stands still: a broken pod of a revision that was given up, which it does not replace.

    https://kubernetes.io/docs/concepts/workloads/controllers/statefulset/#forced-rollback
    """
    seen = workload.status.observed_generation >= workload.metadata.generation
    if workload.kind != "StatefulSet" or not seen or workload.raw.get("podManagementPolicy") == "Parallel":
        return ""
    wanted = workload.status.update_revision
    broken = [
        pod.name for pod in pods if pod.live and not pod.ready and pod.metadata.labels.get(_POD_REVISION) != wanted
    ]
    if not broken:
        return ""
    named = ", ".join(broken)
    return f"{workload.describe()} waits for {named} of another revision to become ready: restart what never will"


def restarted_by(workload: Workload) -> str:
    meta = workload.spec.template.get("metadata") or {}
    return str((meta.get("annotations") or {}).get(RESTARTED, ""))


def refusal(operation: Operation, workload: Workload, autoscalers: Sequence[Autoscaler]) -> str:
    """Why the workload does not take the operation, as far as its own settings say; empty when it does."""
    kind = _KINDS.get(operation.op)
    return _settings_refuse(workload, autoscalers).get(kind, "") if kind else ""


def refuses(
    workload: Workload,
    autoscalers: Sequence[Autoscaler],
    *,
    pods: Sequence[Pod],
    budgets: Sequence[Budget],
    history: History,
) -> dict[ActionKind, str]:
    """Everything that the workload does not take as things stand."""
    found = _settings_refuse(workload, autoscalers)
    if not history.current:
        found.setdefault("roll_back", "its controller has not said yet which revision runs")
    elif not history.earlier:
        found.setdefault("roll_back", "no earlier revision of it is kept")
    if why := _held_by_budgets([pod for pod in pods if pod.live], budgets):
        found["restart"] = why
    return found


def _settings_refuse(workload: Workload, autoscalers: Sequence[Autoscaler]) -> dict[ActionKind, str]:
    found: dict[ActionKind, str] = {}
    named = ", ".join(one.metadata.name for one in autoscalers)
    if workload.kind == "DaemonSet":
        found["scale"] = found["bounds"] = "a DaemonSet runs one pod on each node: it has no number to set"
    elif not autoscalers:
        found["bounds"] = "no HorizontalPodAutoscaler rules over it"
    else:
        found["scale"] = f"the HorizontalPodAutoscaler {named} rules over its replicas: set its bounds instead"
        if len(autoscalers) > 1:
            found["bounds"] = f"more than one HorizontalPodAutoscaler rules over it: {named}"
        elif bounds(autoscalers) is None:
            found["bounds"] = f"the HorizontalPodAutoscaler {named} allows more than {MAX_REPLICAS} replicas"
    if why := _does_not_roll(workload):
        found["rollout_restart"] = found["roll_back"] = why
    return found


def _does_not_roll(workload: Workload) -> str:
    if workload.kind == "Deployment":
        return "it is paused: nothing is rolled out until somebody resumes it" if workload.spec.paused else ""
    strategy = workload.spec.update_strategy
    if strategy.type == "OnDelete":
        return "its updateStrategy is OnDelete: a pod changes when somebody deletes it"
    if strategy.rolling_update.partition:
        return f"its updateStrategy keeps the pods below {strategy.rolling_update.partition} as they are (partition)"
    return ""


def _held_by_budgets(pods: Sequence[Pod], budgets: Sequence[Budget]) -> str:
    """Why none of ``pods`` may be evicted; empty when one may, or there is none."""
    reasons = [_held(pod, [budget for budget in budgets if budget.covers(pod)]) for pod in pods]
    return reasons[0] if reasons and all(reasons) else ""


def _held(pod: Pod, budgets: Sequence[Budget]) -> str:
    named = ", ".join(budget.metadata.name for budget in budgets)
    if len(budgets) > 1:
        return f"more than one PodDisruptionBudget covers its pods, which no eviction passes: {named}"
    if not budgets or budgets[0].lets_go(pod):
        return ""
    seen = budgets[0].status
    return (
        f"the PodDisruptionBudget {named} lets none of its pods go now:"
        f" {seen.current_healthy} are healthy and {seen.desired_healthy} have to be"
    )


def _part(number: int | str | None, default: int | str, whole: int, *, up: bool) -> int:
    """An absolute number, or a percentage of ``whole``."""
    number = default if number is None else number
    if isinstance(number, int):
        return number
    hundredths = int(number.removesuffix("%")) * whole
    return -(-hundredths // 100) if up else hundredths // 100


def _spec_part(workload: Workload) -> str:
    return f"spec-{_digest({field: value for field, value in workload.raw.items() if field != 'replicas'})}"


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:12]
