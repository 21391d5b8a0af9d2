"""What is proposed: one action out of a closed list, on one target, bound by a hash to what was seen."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Literal, assert_never

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from pipeline.domain.ids import IncidentId, PlanId
from pipeline.domain.lifecycle import PlanState

Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9]([-A-Za-z0-9_.]{0,251}[A-Za-z0-9])?$")]
"""A platform's object name: no wildcard, no selector, nothing outside ASCII."""

MAX_RESTARTS = 50
"""Replicas that one action may restart."""
MAX_REPLICAS = 1000
"""Replicas that a target may be scaled from or to."""
MAX_WHY = 300
"""Characters of the reason why a person has to act."""


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class InstanceRef(_Frozen):
    """One replica, by name and by the platform's own id."""

    name: Name
    uid: Annotated[str, Field(min_length=1, max_length=128)]


def _each_once(instances: tuple[InstanceRef, ...]) -> tuple[InstanceRef, ...]:
    if len({instance.uid for instance in instances}) < len(instances):
        raise ValueError("the same replica is named twice")
    return instances


class RestartAction(_Frozen):
    """Restart these replicas, each once: the first alone and watched, the others in batches."""

    kind: Literal["restart"] = "restart"
    instances: Annotated[
        tuple[InstanceRef, ...],
        Field(min_length=1, max_length=MAX_RESTARTS, strict=False),
        AfterValidator(_each_once),
    ]


class ScaleAction(_Frozen):
    """Set the number of replicas: absolute, so that doing it twice is doing it once."""

    kind: Literal["scale"] = "scale"
    from_replicas: Annotated[int, Field(ge=1, le=MAX_REPLICAS)]
    to_replicas: Annotated[int, Field(ge=1, le=MAX_REPLICAS)]


class ManualAction(_Frozen):
    """Nothing that an executor here can do; a person runs the command."""

    kind: Literal["manual"] = "manual"
    command: Annotated[str, Field(min_length=1, max_length=1000)]
    why_manual: Annotated[str, Field(min_length=1, max_length=MAX_WHY)]


TargetAction = RestartAction | ScaleAction
"""What an executor can do to a target."""

Action = Annotated[TargetAction | ManualAction, Field(discriminator="kind")]


class TargetRef(_Frozen):
    """Exactly one workload. ``uid`` changes when it is recreated under the same name."""

    platform: Literal["local_process", "kubernetes"]
    namespace: Name
    name: Name
    uid: Annotated[str, Field(min_length=1, max_length=128)]

    def describe(self) -> str:
        return f"{self.namespace}/{self.name}"


@dataclass(frozen=True, slots=True)
class InstanceState:
    """One live replica."""

    name: str
    uid: str
    ready: bool


@dataclass(frozen=True, slots=True)
class TargetState:
    """A target as it was read. ``generation`` changes with every change of what is wanted of the target.

    ``replicas`` is the number wanted, ``instances`` those that exist; ``replicas_1h_ago`` is None when the platform
    keeps no such history. ``revision`` is what runs in them (its images); empty where the platform does not say.
    """

    ref: TargetRef
    generation: str
    replicas: int
    instances: tuple[InstanceState, ...]
    replicas_1h_ago: int | None = None
    revision: str = ""
    rollout: str = ""
    """The platform's own name for what is rolled out, which it can go back to; empty where it has none."""

    @property
    def ready(self) -> int:
        return sum(instance.ready for instance in self.instances)


class RestartInstance(_Frozen):
    """Physical operation: replace this very replica; refused by the target when its uid is gone."""

    op: Literal["restart_instance"] = "restart_instance"
    instance: InstanceRef


class ScaleTo(_Frozen):
    """Physical operation: want this many replicas."""

    op: Literal["scale_to"] = "scale_to"
    replicas: Annotated[int, Field(ge=1, le=MAX_REPLICAS)]


Operation = Annotated[RestartInstance | ScaleTo, Field(discriminator="op")]


@dataclass(frozen=True, slots=True)
class Plan:
    """One revision of what is proposed for an incident. ``before`` is the target as it was when it was proposed."""

    id: PlanId
    incident_id: IncidentId
    revision: int
    action: Action
    target: TargetRef | None
    generation: str
    replicas_before: int
    hash: str
    state: PlanState
    approvals_needed: int
    expected_effect: str
    created_at: datetime
    expires_at: datetime
    requested_by: str = ""
    """Who asked for this revision, and therefore may not approve it; empty when the bot proposed it."""
    target_revision: str = ""
    """What ran in the target when the plan was made."""
    token: str = ""
    """The plan's name on buttons: random, so that no other plan can be named by guessing."""


def plan_hash(
    incident_id: IncidentId,
    revision: int,
    action: Action,
    target: TargetRef | None,
    generation: str,
) -> str:
    """SHA-256 (hex) over everything an approval stands for."""
    return hashlib.sha256(plan_text(incident_id, revision, action, target, generation).encode()).hexdigest()


def plan_text(
    incident_id: IncidentId,
    revision: int,
    action: Action,
    target: TargetRef | None,
    generation: str,
) -> str:
    """What the hash of a plan covers: five lines, with the action and the target as JSON."""
    where = target.model_dump_json() if target else ""
    return "\n".join((str(incident_id), str(revision), action.model_dump_json(), where, generation))


def operations(action: Action) -> tuple[Operation, ...]:
    """The physical steps of an action, in order; none for a manual one."""
    match action:
        case RestartAction():
            return tuple(RestartInstance(instance=instance) for instance in action.instances)
        case ScaleAction():
            return (ScaleTo(replicas=action.to_replicas),)
        case ManualAction():
            return ()
        case _:
            assert_never(action)


def describe_action(action: Action) -> str:
    """``Restart checkout-1, checkout-2, one replica first`` or ``Scale from 2 to 4 replicas``."""
    match action:
        case RestartAction():
            names = ", ".join(instance.name for instance in action.instances)
            return f"Restart {names}" + (", one replica first" if len(action.instances) > 1 else "")
        case ScaleAction():
            return f"Scale from {action.from_replicas} to {action.to_replicas} replicas"
        case ManualAction():
            return "By hand"
        case _:
            assert_never(action)


def is_reversible(action: Action) -> bool:
    """Whether a second action can put back what stood before (a restarted process cannot be un-restarted)."""
    return isinstance(action, ScaleAction)
