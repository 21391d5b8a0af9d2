"""Executions under the claim-and-fence protocol, and what was done before. Methods may raise TemporaryError."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Protocol

from pipeline.domain.execution import Execution, Intent
from pipeline.domain.ids import ExecutionId, PlanId
from pipeline.domain.lifecycle import ExecutionState
from pipeline.domain.plan import (
    Plan,
    TargetAction,
)


@dataclass(frozen=True, slots=True)
class ActionHistory:
    """What was done to one target: seconds since the last action (None: never) and how many in the last hour."""

    last_action_s_ago: float | None
    last_hour: int
    last_hour_everywhere: int
    open_elsewhere: int


class ExecutionStore(Protocol):
    """Executions under the claim-and-fence protocol."""

    async def create(self, plan: Plan, kind: Literal["apply", "rollback"], action: TargetAction) -> bool:
        """Makes the execution and its steps; False when the target has an open one or this plan was executed."""
        ...

    async def get(self, execution_id: ExecutionId) -> Execution | None: ...
    async def claim(self, *, worker: str, lease_s: float) -> Execution | None:
        """A ready execution, its fence raised, leased to ``worker``."""
        ...

    async def take_over(self, *, worker: str, lease_s: float) -> Execution | None:
        """A claimed, dispatched or unknown execution whose lease ran out, its fence raised."""
        ...

    async def renew(self, execution_id: ExecutionId, fence: int, *, lease_s: float) -> bool: ...
    async def move(
        self,
        execution_id: ExecutionId,
        fence: int,
        to: ExecutionState,
        *,
        detail: str = "",
        delay_s: float = 0.0,
    ) -> bool:
        """False when the fence is not the current one or the state does not allow it."""
        ...

    async def may_call(self, execution_id: ExecutionId, fence: int) -> str:
        """Empty when a call may go out now; else why not (fence lost, lease over, kill switch)."""
        ...

    async def step_dispatched(self, intent: Intent) -> bool: ...
    async def step_applied(self, execution_id: ExecutionId, fence: int, step: int, detail: str) -> bool: ...
    async def step_failed(self, execution_id: ExecutionId, fence: int, step: int, detail: str) -> bool: ...
    async def step_pending(self, execution_id: ExecutionId, fence: int, step: int, detail: str) -> bool:
        """Back to pending, for a step proven not applied."""
        ...

    async def intent(self, execution_id: ExecutionId, step: int) -> Intent:
        """The intent under which the step was dispatched last."""
        ...

    async def history(self, target_uid: str, *, besides: PlanId | None) -> ActionHistory:
        """What was done, leaving the executions of plan ``besides`` out."""
        ...
