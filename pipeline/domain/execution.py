"""An execution and its physical steps."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Literal

from pipeline.domain.ids import ExecutionId, IncidentId, PlanId
from pipeline.domain.lifecycle import ExecutionState
from pipeline.domain.plan import (
    Operation,
    TargetRef,
)


class StepState(StrEnum):
    """``dispatched`` stands before the call; only the target can say what came of it."""

    PENDING = "pending"
    DISPATCHED = "dispatched"
    APPLIED = "applied"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Step:
    """One physical change of one target."""

    number: int
    operation: Operation
    state: StepState
    dispatched_at: datetime | None
    applied_at: datetime | None
    detail: str


@dataclass(frozen=True, slots=True)
class Execution:
    """One attempt at a plan (or at its rollback). ``fence`` grows with every claim.

    ``waiting_since``: when it first had to wait (for a lock, a readable target, an answer); None while it gets on.
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

    @property
    def physical_changes(self) -> int:
        return sum(step.state is StepState.APPLIED for step in self.steps)


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
