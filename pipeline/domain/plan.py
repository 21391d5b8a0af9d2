"""What is proposed: one action out of a closed list, on one target, bound by a hash to what was seen."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from pipeline.domain.action import Action, ActionKind, Bounds, Concurrency, LogFile, Name, RevisionName, Uid
from pipeline.domain.ids import IncidentId, PlanId
from pipeline.domain.lifecycle import PlanState

Platform = Literal[
    "local_process",
    "kubernetes",
    "kubernetes_node",
    "ecs",
    "asg",
    "lambda",
    "azure_app_service",
    "azure_functions",
    "git",
    "github",
    "argocd",
    "cert_manager",
    "certificate_file",
    "pod_logs",
    "log_files",
]


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class TargetRef(_Frozen):
    """Exactly one thing that can be acted on. ``uid`` changes when it is recreated under the same name."""

    platform: Platform
    namespace: Name
    name: Name
    uid: Uid

    def describe(self) -> str:
        return f"{self.namespace}/{self.name}"


@dataclass(frozen=True, slots=True)
class InstanceState:
    """One live replica. ``node`` is the machine it is on, where the platform says so."""

    name: str
    uid: str
    ready: bool
    node: str = ""


@dataclass(frozen=True, slots=True)
class Revision:
    """Something that can be rolled back to; ``title`` and ``at`` as far as the platform says."""

    name: RevisionName
    title: str = ""
    at: datetime | None = None


@dataclass(frozen=True, slots=True)
class TargetState:
    """A target as it was read. ``generation`` changes with every change of what is wanted of the target.

    ``replicas`` is the number wanted, ``instances`` those that exist; ``replicas_1h_ago`` is None when the platform
    keeps no such history. ``revision`` is what runs in them (its images); empty where the platform does not say. What a
    platform does not know of stays at its default: a certificate has no replicas, a workload no ``not_after``.
    """

    ref: TargetRef
    generation: str
    replicas: int = 0
    instances: tuple[InstanceState, ...] = ()
    replicas_1h_ago: int | None = None
    revision: str = ""
    rollout: str = ""
    """The platform's own name for what is rolled out, which it can go back to; empty where it has none."""
    wanted_revision: str = ""
    """What should run by the platform's own record, where something else does; empty where that is in order."""
    revisions: tuple[Revision, ...] = ()
    """What it can be rolled back to, the latest first, without the one that runs."""
    bounds: Bounds | None = None
    """Between which an autoscaler chooses the replicas; None where none does."""
    concurrency: Concurrency | None = None
    cordoned: bool | None = None
    files: tuple[LogFile, ...] = ()
    not_after: datetime | None = None
    away_at_once: int | None = None
    """Replicas that are away at a time while the platform rolls something out; None: it may be all."""
    away_rolling_back: int | None = None
    """The same while it goes back to an earlier revision, where that is another number (a swap of warm slots)."""
    refuses: Mapping[ActionKind, str] = field(default_factory=dict)
    """Of the kinds that the platform offers, those that this very target does not take now, each with the reason."""

    @property
    def ready(self) -> int:
        return sum(instance.ready for instance in self.instances)


Risk = Literal["low", "medium", "high"]


class Alternative(_Frozen):
    """Another way that was weighed and not taken, in words for the card. All but the manual one can be asked for.

    ``number`` is what it leads to, of replicas or of calls at once; with the kind and the platform it says the way.
    """

    kind: ActionKind | Literal["manual"]
    what: Annotated[str, Field(max_length=400)]
    effect: Annotated[str, Field(max_length=300)]
    risk: Risk
    reversible: bool
    platform: Platform | None = None
    number: int | None = None


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
    risk: Risk | None = None
    alternatives: tuple[Alternative, ...] = ()


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
