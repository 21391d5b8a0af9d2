"""What is read of a cluster's objects."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import AliasChoices, AwareDatetime, Field

from executors.targets.kubernetes_api import Foreign

Kind = Literal["Deployment", "StatefulSet", "DaemonSet"]
KINDS: tuple[Kind, ...] = ("Deployment", "StatefulSet", "DaemonSet")


class _Owner(Foreign):
    uid: str
    controller: bool = False


class Meta(Foreign):
    """``generation`` is raised by the server with what is wanted, ``resource_version`` with every change at all."""

    name: str
    uid: str
    resource_version: str
    namespace: str = ""
    generation: int = 0
    labels: Mapping[str, str] = {}
    annotations: Mapping[str, str] = {}
    owner_references: tuple[_Owner, ...] = ()
    creation_timestamp: AwareDatetime | None = None
    deletion_timestamp: AwareDatetime | None = None

    @property
    def owner_uid(self) -> str | None:
        return next((owner.uid for owner in self.owner_references if owner.controller), None)


class _Term(Foreign):
    key: str
    operator: Literal["In", "NotIn", "Exists", "DoesNotExist"]
    values: tuple[str, ...] = ()

    def holds(self, labels: Mapping[str, str]) -> bool:
        match self.operator:
            case "In":
                return labels.get(self.key) in self.values
            case "NotIn":
                return labels.get(self.key) not in self.values
            case "Exists":
                return self.key in labels
            case "DoesNotExist":
                return self.key not in labels

    def as_query(self) -> str:
        values = ",".join(self.values)
        match self.operator:
            case "In":
                return f"{self.key} in ({values})"
            case "NotIn":
                return f"{self.key} notin ({values})"
            case "Exists":
                return self.key
            case "DoesNotExist":
                return f"!{self.key}"


class Selector(Foreign):
    match_labels: Mapping[str, str] = {}
    match_expressions: tuple[_Term, ...] = ()

    def as_query(self) -> str:
        """As the list calls take it."""
        equal = [f"{key}={value}" for key, value in sorted(self.match_labels.items())]
        return ",".join([*equal, *(term.as_query() for term in self.match_expressions)])

    def matches(self, labels: Mapping[str, str]) -> bool:
        """An empty one matches everything."""
        equal = all(labels.get(key) == value for key, value in self.match_labels.items())
        return equal and all(term.holds(labels) for term in self.match_expressions)


class Condition(Foreign):
    type: str
    status: str
    reason: str = ""
    message: str = ""


class _Rolling(Foreign):
    max_unavailable: int | str | None = None
    max_surge: int | str | None = None
    partition: int = 0


class Strategy(Foreign):
    """``strategy`` of a Deployment, ``updateStrategy`` of the others."""

    type: str = "RollingUpdate"
    rolling_update: _Rolling = Field(default_factory=_Rolling)


class WorkloadSpec(Foreign):
    selector: Selector
    template: Mapping[str, Any]
    replicas: int = 1
    paused: bool = False
    strategy: Strategy = Field(default_factory=Strategy)
    update_strategy: Strategy = Field(default_factory=Strategy)


class WorkloadStatus(Foreign):
    """Of all three kinds; the last three are a DaemonSet's words for what the others call replicas."""

    observed_generation: int = 0
    replicas: int = 0
    updated_replicas: int = 0
    available_replicas: int = 0
    update_revision: str = ""
    conditions: tuple[Condition, ...] = ()
    desired_number_scheduled: int = 0
    updated_number_scheduled: int = 0
    number_available: int = 0


class Workload(Foreign):
    """A Deployment, StatefulSet or DaemonSet. ``raw`` is its spec, whatever is in it."""

    kind: Kind
    metadata: Meta
    spec: WorkloadSpec
    raw: dict[str, Any] = Field(validation_alias=AliasChoices("spec"))
    status: WorkloadStatus = WorkloadStatus()

    @property
    def replicas(self) -> int:
        """The number wanted; of a DaemonSet the number of nodes that are to run it."""
        return self.status.desired_number_scheduled if self.kind == "DaemonSet" else self.spec.replicas

    @property
    def images(self) -> tuple[str, ...]:
        return images(self.spec.template)

    def describe(self) -> str:
        return f"the {self.kind} {self.metadata.namespace}/{self.metadata.name}"


class _PodSpec(Foreign):
    node_name: str = ""


class _PodStatus(Foreign):
    phase: str = ""
    conditions: tuple[Condition, ...] = ()


class Pod(Foreign):
    metadata: Meta
    spec: _PodSpec = _PodSpec()
    status: _PodStatus = _PodStatus()

    @property
    def name(self) -> str:
        return self.metadata.name

    @property
    def uid(self) -> str:
        return self.metadata.uid

    @property
    def ready(self) -> bool:
        return any(one.type == "Ready" and one.status == "True" for one in self.status.conditions)

    @property
    def terminating(self) -> bool:
        return self.metadata.deletion_timestamp is not None

    @property
    def finished(self) -> bool:
        """Replaced by its controller and never running again."""
        return self.status.phase in ("Succeeded", "Failed")

    @property
    def live(self) -> bool:
        """As its controller counts: a pod on its way out, or ended, is none of its replicas."""
        return not self.terminating and not self.finished


class Pods(Foreign):
    items: tuple[Pod, ...] = ()


class _Template(Foreign):
    template: Mapping[str, Any] = {}


class ReplicaSet(Foreign):
    metadata: Meta
    spec: _Template


class ReplicaSets(Foreign):
    items: tuple[ReplicaSet, ...] = ()


class _RevisionData(Foreign):
    spec: _Template = _Template()


class ControllerRevision(Foreign):
    """One state of a StatefulSet or DaemonSet; ``data`` is the strategic merge patch that leads to it."""

    metadata: Meta
    revision: int
    data: _RevisionData


class ControllerRevisions(Foreign):
    items: tuple[ControllerRevision, ...] = ()


class _ScaleTarget(Foreign):
    kind: str
    name: str
    api_version: str = ""


class _AutoscalerSpec(Foreign):
    scale_target_ref: _ScaleTarget
    max_replicas: int
    min_replicas: int = 1


class Autoscaler(Foreign):
    """A HorizontalPodAutoscaler. ``raw`` is its spec, whatever is in it."""

    metadata: Meta
    spec: _AutoscalerSpec
    raw: dict[str, Any] = Field(validation_alias=AliasChoices("spec"))

    def rules(self, workload: Workload) -> bool:
        target = self.spec.scale_target_ref
        group = target.api_version.rpartition("/")[0]
        return (target.kind, target.name, group) == (workload.kind, workload.metadata.name, "apps")


class Autoscalers(Foreign):
    items: tuple[Autoscaler, ...] = ()


class _BudgetSpec(Foreign):
    selector: Selector | None = None
    unhealthy_pod_eviction_policy: str = "IfHealthyBudget"


class _BudgetStatus(Foreign):
    disruptions_allowed: int = 0
    current_healthy: int = 0
    desired_healthy: int = 0


class Budget(Foreign):
    """A PodDisruptionBudget."""

    metadata: Meta
    spec: _BudgetSpec
    status: _BudgetStatus = _BudgetStatus()

    def covers(self, pod: Pod) -> bool:
        return self.spec.selector is not None and self.spec.selector.matches(pod.metadata.labels)

    def lets_go(self, pod: Pod) -> bool:
        """Whether the server would evict ``pod`` as things stand."""
        seen = self.status
        if pod.status.phase == "Pending" or seen.disruptions_allowed > 0:
            return True
        healthy = seen.current_healthy >= seen.desired_healthy > 0
        return not pod.ready and (healthy or self.spec.unhealthy_pod_eviction_policy == "AlwaysAllow")


class Budgets(Foreign):
    items: tuple[Budget, ...] = ()


def images(template: Mapping[str, Any]) -> tuple[str, ...]:
    """What a pod template makes its pods run, in the order of their containers."""
    spec = template.get("spec")
    containers = spec.get("containers") if isinstance(spec, dict) else None
    return tuple(str(one.get("image", "")) for one in containers or () if isinstance(one, dict))
