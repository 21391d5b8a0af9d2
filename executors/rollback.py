"""Putting back what stood before, where an action has such a thing."""

from __future__ import annotations

from datetime import timedelta

from pipeline.domain.action import ManualAction, RenewAction, TargetAction, operations
from pipeline.domain.execution import Execution
from pipeline.domain.plan import Plan
from pipeline.domain.undo import undo
from pipeline.ports.store import UnitOfWork

ENDS_SOON = timedelta(days=14)
"""Twice what raises the alarm by default."""


async def action_of(uow: UnitOfWork, plan: Plan, execution: Execution) -> TargetAction | None:
    """What ``execution`` does; None where there is nothing to do or to put back."""
    if isinstance(plan.action, ManualAction):
        return None
    if execution.kind == "apply":
        return plan.action
    applied = await uow.executions.of_plan(plan.id, "apply")
    action = undoing(plan, applied) if applied else None
    # The steps were laid down when the rollback was ordered: another answer now would be another action.
    return action if action and operations(action) == tuple(step.operation for step in execution.steps) else None


def undoing(plan: Plan, applied: Execution) -> TargetAction | None:
    """The action that puts back what stood before the first step of ``applied``, by what was noted right before it."""
    before = applied.steps[0].before if applied.steps else None
    if before is None or _ended_soon(plan, applied):
        return None
    return undo(plan.action, before)


def _ended_soon(plan: Plan, applied: Execution) -> bool:
    """Of a certificate: one that was about to end is no better for whatever the new one did not bring."""
    if not isinstance(plan.action, RenewAction):
        return False
    return applied.applied_at is None or plan.action.not_after < applied.applied_at + ENDS_SOON


async def order_rollback(uow: UnitOfWork, plan: Plan) -> bool:
    """Makes the rollback of ``plan`` an execution of its own, through the same gate. False when it has none."""
    applied = await uow.executions.of_plan(plan.id, "apply")
    action = undoing(plan, applied) if applied else None
    return action is not None and await uow.executions.create(plan, "rollback", action)
