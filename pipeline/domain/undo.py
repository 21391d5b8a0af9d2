"""What puts back what an action changed, by what stood right before it. Pure."""

from __future__ import annotations

from typing import assert_never

from pipeline.domain.action import (
    Action,
    BoundsAction,
    CancelRolloutAction,
    ConcurrencyAction,
    CordonAction,
    ManualAction,
    RenewAction,
    RestartAction,
    RevertAction,
    RollBackAction,
    RollBackTo,
    RolloutRestartAction,
    ScaleAction,
    ScaleTo,
    SetBounds,
    SetConcurrency,
    SetCordon,
    SyncAction,
    TargetAction,
    TruncateAction,
)
from pipeline.domain.action_words import describe_operation, short
from pipeline.domain.execution import Execution, StoodBefore

RENEWED = "renewed"
"""Of a certificate that was renewed: the name of what is given up again, whose fingerprint nobody knew before."""


def undo(action: Action, before: StoodBefore) -> TargetAction | None:
    """The action that leads back to ``before``; None where there is none, or nothing to put back."""
    match action:
        case ScaleAction():
            if not 1 <= before.replicas != action.to_replicas:
                return None
            return ScaleAction(from_replicas=action.to_replicas, to_replicas=before.replicas)
        case BoundsAction():
            if before.bounds is None or before.bounds == action.to_bounds:
                return None
            return BoundsAction(from_bounds=action.to_bounds, to_bounds=before.bounds)
        case ConcurrencyAction():
            if before.concurrency is None or before.concurrency == action.to_concurrency:
                return None
            return ConcurrencyAction(from_concurrency=action.to_concurrency, to_concurrency=before.concurrency)
        case RollBackAction() | SyncAction():
            return _back(action.to_revision, before)
        case RevertAction():
            return action.model_copy(update={"reapply": not action.reapply})
        case RolloutRestartAction():
            return CancelRolloutAction() if action.cancellable else None
        case RenewAction():
            return _back(RENEWED, before) if action.keeps_previous else None
        case CordonAction():
            return None if before.cordoned == action.cordoned else CordonAction(cordoned=not action.cordoned)
        case RestartAction() | CancelRolloutAction() | TruncateAction() | ManualAction():
            return None
        case _:
            assert_never(action)


def _back(given_up: str, before: StoodBefore) -> RollBackAction | None:
    if not before.rollout or before.rollout == given_up:
        return None
    return RollBackAction(from_revision=given_up, to_revision=before.rollout)


def put_back(execution: Execution) -> str:
    """What a rollback changed, by what stood before its call: ``4 → 2 replicas``; in other words where it is no value.

    Empty without a step.
    """
    step = execution.steps[0] if execution.steps else None
    if step is None:
        return ""
    before, operation = step.before, step.operation
    if before is None:
        return describe_operation(operation)
    match operation:
        case ScaleTo():
            return f"{before.replicas} → {operation.replicas} replicas"
        case SetBounds():
            return f"autoscaler {before.bounds} → {operation.bounds}"
        case SetConcurrency():
            return f"concurrency {before.concurrency} → {operation.concurrency}"
        case RollBackTo():
            return f"revision {short(before.rollout) or 'unknown'} → {short(operation.revision)}"
        case SetCordon():
            return "node schedulable → cordoned" if operation.cordoned else "node cordoned → schedulable"
        case _:
            return describe_operation(operation)
