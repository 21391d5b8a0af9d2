"""Executions under the claim-and-fence protocol. Methods may raise TemporaryError."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from pipeline.domain.action import TargetAction
from pipeline.domain.execution import Execution, Intent, SeenInstance, StoodBefore
from pipeline.domain.ids import ExecutionId, IncidentId, PlanId
from pipeline.domain.lifecycle import ExecutionState
from pipeline.domain.plan import Plan
from pipeline.ports.locks import Lock

TAKEN_OVER = "another worker took this execution over"
LEASE_OVER = "the lease ran out"
NOT_OURS = frozenset({TAKEN_OVER, LEASE_OVER})
"""Answers of ``may_call`` after which nothing is written any more: whoever takes the execution over goes on."""


@dataclass(frozen=True, slots=True)
class HeldLock:
    """A lock that an execution took. ``over``: its incident is neither acted on nor verified any more.

    ``acted_s_ago``: seconds since the last call to the target; None when none went out.
    """

    lock: Lock
    over: bool
    acted_s_ago: float | None


class ExecutionStore(Protocol):
    """Executions under the claim-and-fence protocol."""

    async def create(self, plan: Plan, kind: Literal["apply", "rollback"], action: TargetAction) -> bool:
        """Makes the execution and its steps; False when the target has an open one or this plan was executed."""
        ...

    async def get(self, execution_id: ExecutionId) -> Execution | None: ...
    async def of_incident(self, incident_id: IncidentId) -> Sequence[Execution]:
        """Every execution of its plans, rollbacks too, in the order they were made."""
        ...

    async def of_plan(self, plan_id: PlanId, kind: Literal["apply", "rollback"]) -> Execution | None: ...
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

    async def begin_batch(self, execution_id: ExecutionId, fence: int, steps: Sequence[int]) -> int:
        """Writes down that these steps go out together; returns the batch's number (from 1), 0 with an old fence."""
        ...

    async def watch(self, execution_id: ExecutionId, fence: int, canary: Sequence[SeenInstance]) -> float | None:
        """Begins to watch ``canary``, or goes on with the watch that was begun; returns for how many seconds it has
        lasted by the database's clock, None with an old fence."""
        ...

    async def watched(self, execution_id: ExecutionId, fence: int, verdict: str) -> bool:
        """Ends the watch. False with an old fence."""
        ...

    async def step_dispatched(self, intent: Intent, before: StoodBefore | None = None) -> bool: ...
    async def step_applied(self, execution_id: ExecutionId, fence: int, step: int, detail: str) -> bool: ...
    async def step_failed(self, execution_id: ExecutionId, fence: int, step: int, detail: str) -> bool: ...
    async def step_pending(self, execution_id: ExecutionId, fence: int, step: int, detail: str) -> bool:
        """Back to pending, for a step proven not applied."""
        ...

    async def intent(self, execution_id: ExecutionId, step: int) -> Intent:
        """The intent under which the step was dispatched last."""
        ...

    async def hold(self, execution_id: ExecutionId, fence: int, lock: Lock) -> bool:
        """Keeps a lock with the execution, so that any worker can renew and release it. False with an old fence."""
        ...

    async def held(self, plan_id: PlanId) -> Lock | None:
        """The lock that was taken for a plan, by its execution or its rollback."""
        ...

    async def holding(self) -> Sequence[HeldLock]:
        """Every lock that is kept."""
        ...

    async def let_go(self, lock: Lock) -> None:
        """Forgets a lock."""
        ...
