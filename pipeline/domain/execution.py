"""An execution, its physical steps in batches, and what stood before each of them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Literal

from pydantic import BaseModel, ConfigDict

from pipeline.domain.action import Bounds, Concurrency, Operation, RestartInstance
from pipeline.domain.ids import ExecutionId, IncidentId, PlanId
from pipeline.domain.lifecycle import ExecutionState
from pipeline.domain.plan import TargetRef, TargetState

NOT_SETTLED = "not settled after"
"""In the detail of a step that was waited for in vain, before how long."""


class StepState(StrEnum):
    """``dispatched`` stands before the call; only the target can say what came of it."""

    PENDING = "pending"
    DISPATCHED = "dispatched"
    APPLIED = "applied"
    FAILED = "failed"


class _Stored(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class SeenInstance(_Stored):
    """One replica as it was read."""

    name: str
    uid: str


class StoodBefore(_Stored):
    """A target as it was right before a call: what a rollback puts back. Empty is what the platform does not say."""

    schema_version: Literal[1] = 1
    generation: str
    replicas: int
    revision: str
    rollout: str
    instances: tuple[SeenInstance, ...]
    bounds: Bounds | None = None
    concurrency: Concurrency | None = None
    cordoned: bool | None = None


def stood_before(state: TargetState) -> StoodBefore:
    """What is kept of ``state``."""
    return StoodBefore(
        generation=state.generation,
        replicas=state.replicas,
        revision=state.revision,
        rollout=state.rollout,
        instances=tuple(SeenInstance(name=one.name, uid=one.uid) for one in state.instances),
        bounds=state.bounds,
        concurrency=state.concurrency,
        cordoned=state.cordoned,
    )


@dataclass(frozen=True, slots=True)
class Step:
    """One physical change of one target. Steps of one ``batch`` (from 1; 0: not begun) are under way together."""

    number: int
    operation: Operation
    state: StepState
    dispatched_at: datetime | None
    applied_at: datetime | None
    detail: str
    batch: int = 0
    before: StoodBefore | None = None
    """The target right before the call; None while it has not been dispatched."""


@dataclass(frozen=True, slots=True)
class Execution:
    """One attempt at a plan (or at its rollback). ``fence`` grows with every claim.

    ``waiting_since``: when it first had to wait (for a lock, a readable target, an answer); None while it gets on.
    ``canary``: the replicas that came of the first step, watched since ``watching_since``; ``canary_verdict`` is empty
    until the watch is over.
    """

    id: ExecutionId
    plan_id: PlanId
    incident_id: IncidentId
    kind: Literal["apply", "rollback"]
    state: ExecutionState
    fence: int
    target: TargetRef
    steps: tuple[Step, ...]
    started_at: datetime | None
    waiting_since: datetime | None
    applied_at: datetime | None
    detail: str
    canary: tuple[SeenInstance, ...] = ()
    watching_since: datetime | None = None
    canary_verdict: str = ""

    @property
    def physical_changes(self) -> int:
        return sum(step.state is StepState.APPLIED for step in self.steps)

    @property
    def unsettled(self) -> bool:
        """Whether a step stands that the platform had not carried out to the end when its time was over."""
        return any(NOT_SETTLED in step.detail for step in self.steps)

    @property
    def pending(self) -> tuple[Step, ...]:
        return tuple(step for step in self.steps if step.state is StepState.PENDING)

    @property
    def sends_canary(self) -> bool:
        """Whether its first step goes out alone and is watched."""
        return has_canary(self.kind, [step.operation for step in self.steps])

    @property
    def awaits_canary(self) -> bool:
        """Whether the first step stands, others are to follow, and nobody knows yet how its replica does."""
        return self.sends_canary and self.physical_changes > 0 and bool(self.pending) and not self.canary_verdict


def has_canary(kind: str, steps: Sequence[Operation]) -> bool:
    """A rollback is in a hurry, a single step leaves nothing to hold back, and only a replica can be watched."""
    return kind == "apply" and len(steps) > 1 and isinstance(steps[0], RestartInstance)


def batch_size(*, ready: int, share: float) -> int:
    """How many replicas may be away at once: ``share`` of the ``ready`` ones, at least one."""
    return max(1, math.floor(share * ready))


def next_batch(execution: Execution, *, ready: int, share: float) -> tuple[Step, ...]:
    """What goes out together next: the rest of a batch that was interrupted, the canary alone, or the next few."""
    pending = execution.pending
    begun = tuple(step for step in pending if step.batch)
    if begun:
        return begun
    if execution.sends_canary and not any(step.batch for step in execution.steps):
        return pending[:1]
    return pending[: batch_size(ready=ready, share=share)]


def batches(kind: str, steps: Sequence[Operation], *, ready: int, share: float) -> tuple[tuple[int, ...], ...]:
    """The numbers of the steps as they would go out if nothing changed meanwhile."""
    first = 1 if has_canary(kind, steps) else 0
    size = batch_size(ready=ready, share=share)
    last = len(steps) + 1
    rest = [tuple(range(start, min(start + size, last))) for start in range(first + 1, last, size)]
    return (((1,),) if first else ()) + tuple(rest)


@dataclass(frozen=True, slots=True)
class Intent:
    """What a call to a target carries, so that the target can refuse it and recovery can find it."""

    execution_id: ExecutionId
    step: int
    fence: int
    generation: str
    """The generation read just before; the target refuses the call when it has changed."""


class Finding(StrEnum):
    """What recovery learnt from the target about one dispatched step."""

    APPLIED = "applied"
    NOT_APPLIED = "not_applied"
    UNKNOWN = "unknown"
