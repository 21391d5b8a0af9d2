"""Putting back what stood before, where an action has such a thing."""

from __future__ import annotations

from typing import Literal

from pipeline.domain.plan import (
    ManualAction,
    Plan,
    ScaleAction,
    TargetAction,
    is_reversible,
)
from pipeline.ports.store import UnitOfWork


def action_of(plan: Plan, kind: Literal["apply", "rollback"]) -> TargetAction | None:
    """What an execution of ``kind`` does; None where there is nothing to do or to put back."""
    if isinstance(plan.action, ManualAction):
        return None
    if kind == "apply":
        return plan.action
    if not isinstance(plan.action, ScaleAction):
        return None
    return ScaleAction(from_replicas=plan.action.to_replicas, to_replicas=plan.action.from_replicas)


async def order_rollback(uow: UnitOfWork, plan: Plan) -> bool:
    """Makes the rollback of ``plan`` an execution of its own, through the same gate. False when it has none."""
    action = action_of(plan, "rollback") if is_reversible(plan.action) else None
    return action is not None and await uow.executions.create(plan, "rollback", action)
