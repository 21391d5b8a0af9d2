"""What AWS says of an Auto Scaling group and its instance refreshes, and what follows from it. Pure."""

from __future__ import annotations

import math
from collections.abc import Mapping

from pydantic import Field

from executors.targets.aws_api import Answer
from executors.targets.offers import not_offered
from pipeline.domain.action import MAX_REPLICAS, ActionKind, Bounds, CancelRollout, Operation, RolloutRestart, ScaleTo
from pipeline.domain.errors import PermanentError

MIN_HEALTHY_PERCENT = 90
"""Of a group stays in service during a refresh, by AWS' default; a maintenance policy of the group says otherwise."""
ACTIVE = frozenset({"Pending", "InProgress", "Cancelling", "RollbackInProgress", "Baking"})
CANCELLED = frozenset({"Cancelling", "Cancelled"})
_CANCELLABLE = frozenset({"Pending", "InProgress", "Baking"})
_NOT_OF_THE_GROUP = ("Terminat", "Detach", "Warmed:")
"""How the lifecycle states of instances begin that are on their way out, or wait in a warm pool."""


class _Template(Answer):
    id: str = Field(default="", alias="LaunchTemplateId")
    name: str = Field(default="", alias="LaunchTemplateName")
    version: str = Field(default="$Default", alias="Version")

    def __str__(self) -> str:
        return f"{self.id or self.name}:{self.version}"


class _OfMixed(Answer):
    template: _Template = Field(alias="LaunchTemplateSpecification")


class _Mixed(Answer):
    templates: _OfMixed = Field(alias="LaunchTemplate")


class Instance(Answer):
    id: str = Field(alias="InstanceId")
    lifecycle: str = Field(alias="LifecycleState")
    health: str = Field(alias="HealthStatus")
    weight: str | None = Field(default=None, alias="WeightedCapacity")

    @property
    def is_live(self) -> bool:
        return not self.lifecycle.startswith(_NOT_OF_THE_GROUP)

    @property
    def is_ready(self) -> bool:
        return self.lifecycle == "InService" and self.health == "Healthy"


class _Suspended(Answer):
    name: str = Field(alias="ProcessName")


class _Maintenance(Answer):
    """A policy for replacing instances; -1 is none."""

    min_healthy_percent: int = Field(default=-1, alias="MinHealthyPercentage")
    max_healthy_percent: int = Field(default=-1, alias="MaxHealthyPercentage")


class Group(Answer):
    arn: str = Field(
        alias="AutoScalingGroupARN",
        pattern=r"^arn:[^:]+:autoscaling:[^:]+:[^:]*:autoScalingGroup:[^:]+:autoScalingGroupName/",
    )
    minimum: int = Field(alias="MinSize")
    maximum: int = Field(alias="MaxSize")
    desired: int = Field(alias="DesiredCapacity")
    desired_in: str = Field(default="units", alias="DesiredCapacityType")
    instances: tuple[Instance, ...] = Field(default=(), alias="Instances")
    suspended: tuple[_Suspended, ...] = Field(default=(), alias="SuspendedProcesses")
    configuration: str = Field(default="", alias="LaunchConfigurationName")
    template: _Template | None = Field(default=None, alias="LaunchTemplate")
    mixed: _Mixed | None = Field(default=None, alias="MixedInstancesPolicy")
    maintenance: _Maintenance = Field(default=_Maintenance(), alias="InstanceMaintenancePolicy")
    deleting: str = Field(default="", alias="Status")
    """Empty unless it is being deleted."""

    @property
    def uid(self) -> str:
        """The part of its ARN that AWS makes anew with each group of the same name."""
        return self.arn.split(":")[6]

    @property
    def launches(self) -> str:
        """Launch template and version, or launch configuration."""
        template = self.template or (self.mixed.templates.template if self.mixed else None)
        return str(template) if template else self.configuration

    def suspends(self, *processes: str) -> str:
        """Why nothing comes of what needs one of these; empty when none is suspended."""
        names = [one.name for one in self.suspended if one.name in processes]
        return f"suspended: {' and '.join(names)}; resume that first" if names else ""


class Groups(Answer):
    groups: tuple[Group, ...] = Field(alias="AutoScalingGroups")


class _Preferences(Answer):
    checkpoints_percent: tuple[int, ...] = Field(default=(), alias="CheckpointPercentages")
    checkpoint_delay_s: int | None = Field(default=None, alias="CheckpointDelay")


class Refresh(Answer):
    id: str = Field(alias="InstanceRefreshId")
    status: str = Field(alias="Status")
    reason: str = Field(default="", alias="StatusReason")
    complete_percent: int = Field(default=0, alias="PercentageComplete")
    preferences: _Preferences = Field(default=_Preferences(), alias="Preferences")

    def __str__(self) -> str:
        said = f": {self.reason}" if self.reason else ""
        return f"the instance refresh {self.id} is {self.status} at {self.complete_percent} %{said}"

    @property
    def has_got_far_enough(self) -> bool:
        """Whether the first checkpoint is reached, or all of it. Raises PermanentError when it never will be."""
        match self.status:
            case "Successful" | "Baking":
                return True
            case "InProgress":
                checkpoints = self.preferences.checkpoints_percent
                return bool(checkpoints) and self.complete_percent >= checkpoints[0]
            case "Pending":
                return False
            case _:
                raise PermanentError(str(self))


class Refreshes(Answer):
    refreshes: tuple[Refresh, ...] = Field(default=(), alias="InstanceRefreshes")
    """The latest first."""


def generation_of(group: Group, refreshes: tuple[Refresh, ...]) -> str:
    """What is wanted of the group, in words that ``aws_asg`` reads again."""
    latest = "none"
    if refreshes:
        status = refreshes[0].status
        # A refresh that goes on or ends changes nothing that is wanted; one that is taken back does.
        ended = ":cancelled" if status in CANCELLED else ":rolled-back" if status.startswith("Rollback") else ""
        latest = refreshes[0].id + ended
    return f"desired={group.desired} min={group.minimum} max={group.maximum} refresh={latest} launches={group.launches}"


def bounds_of(group: Group) -> Bounds | None:
    """As far as we would go; None where they leave nothing to choose."""
    if group.maximum < 1 or group.minimum > MAX_REPLICAS:
        return None
    return Bounds(minimum=group.minimum, maximum=min(group.maximum, MAX_REPLICAS))


def away_at_once(group: Group) -> int:
    """Instances that a refresh takes out of service together: one at least, unless new ones are launched first."""
    percent = group.maintenance.min_healthy_percent
    kept = math.ceil(group.desired * (MIN_HEALTHY_PERCENT if percent < 0 else percent) / 100)
    launches_first = percent == 100 and group.maintenance.max_healthy_percent > 100
    return max(0 if launches_first else 1, group.desired - kept)


def refusals(group: Group, refreshes: tuple[Refresh, ...]) -> Mapping[ActionKind, str]:
    """Kinds of action that the group does not take now, each with the reason."""
    reasons: dict[ActionKind, str] = {
        "rollout_restart": why_not(group, refreshes, RolloutRestart()),
        "cancel_rollout": why_not(group, refreshes, CancelRollout()),
    }
    if group.desired >= group.maximum:
        reasons["scale"] = f"its desired capacity is its maximum of {group.maximum}: raise that first"
    elif group.desired < MAX_REPLICAS:
        reasons["scale"] = why_not(group, refreshes, ScaleTo(replicas=group.desired + 1))
    return {kind: why for kind, why in reasons.items() if why}


def why_not(group: Group, refreshes: tuple[Refresh, ...], operation: Operation) -> str:
    """What AWS would take and could then not carry out, or what would hit another refresh than is meant."""
    active = next((one for one in refreshes if one.status in ACTIVE), None)
    match operation:
        case RolloutRestart():
            if active is not None:
                return f"{active}; a group takes one at a time"
            return group.suspends("Launch", "Terminate") or ("" if group.instances else "it has no instances")
        case CancelRollout():
            if active is None:
                return "no instance refresh is under way"
            return "" if active.status in _CANCELLABLE else str(active)
        case ScaleTo(replicas=replicas):
            if group.desired_in != "units" or any(one.weight for one in group.instances):
                return "its instances count by weight, and its desired capacity is no number of instances"
            return group.suspends("Launch" if replicas > group.desired else "Terminate")
        case _:
            raise not_offered("asg", operation)
