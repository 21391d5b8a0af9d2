"""Putting back what stood before, where an action has such a thing."""

from __future__ import annotations

from pipeline.domain.execution import Execution
from pipeline.domain.plan import (
    ManualAction,
    Plan,
    ScaleAction,
    ScaleTo,
    TargetAction,
    is_reversible,
)
from pipeline.ports.store import UnitOfWork


def action_of(plan: Plan, execution: Execution) -> TargetAction | None:
    """What ``execution`` does; None where there is nothing to do or to put back."""
    if isinstance(plan.action, ManualAction):
        return None
    if execution.kind == "apply":
        return plan.action
    wanted = execution.steps[0].operation if execution.steps else None
    if not isinstance(plan.action, ScaleAction) or not isinstance(wanted, ScaleTo):
        return None
    return ScaleAction(from_replicas=plan.action.to_replicas, to_replicas=wanted.replicas)


def undoing(plan: Plan, applied: Execution) -> TargetAction | None:
    """The action that puts back what stood before the first step of ``applied``, by what was noted right before it."""
    before = applied.steps[0].before if applied.steps else None
    if before is None or not is_reversible(plan.action) or not isinstance(plan.action, ScaleAction):
        return None
    if before.replicas < 1 or before.replicas == plan.action.to_replicas:
        return None
    return ScaleAction(from_replicas=plan.action.to_replicas, to_replicas=before.replicas)


async def order_rollback(uow: UnitOfWork, plan: Plan) -> bool:
    """Makes the rollback of ``plan`` an execution of its own, through the same gate. False when it has none."""
    applied = await uow.executions.of_plan(plan.id, "apply")
    action = undoing(plan, applied) if applied else None
    return action is not None and await uow.executions.create(plan, "rollback", action)
