"""Executions whose worker fell silent, or whose call got no answer: the target itself is asked what came of them."""

from __future__ import annotations

from executors.ledger import Ledger
from executors.runner import Runner
from pipeline.domain.errors import PermanentError, TemporaryError
from pipeline.domain.execution import Execution, Finding, Step, StepState
from pipeline.domain.lifecycle import ExecutionState
from pipeline.domain.trace import TraceEntry, TraceKind
from pipeline.ports.store import Store
from pipeline.ports.targets import Targets
from pipeline.stages.advance import record
from pipeline.stages.settings import LoopSettings

GIVE_UP_S = 60.0
"""After this long without an answer from the target a person is called."""


class Recovery:
    """Takes over what was left behind. Reads the target, never writes to it."""

    def __init__(
        self,
        store: Store,
        targets: Targets,
        runner: Runner,
        ledger: Ledger,
        settings: LoopSettings,
        *,
        worker: str,
    ) -> None:
        self._store = store
        self._targets = targets
        self._runner = runner
        self._ledger = ledger
        self._settings = settings
        self._worker = worker

    async def run_once(self) -> bool:
        """Takes one execution over. False when none was left behind. Locks are seen to first."""
        await self._runner.tend_locks()
        async with self._store.begin() as uow:
            execution = await uow.executions.take_over(worker=self._worker, lease_s=self._settings.lease_s)
        if execution is None:
            return False
        async with self._runner.leased(execution):
            if execution.state is ExecutionState.CLAIMED:
                await self._ledger.ready_again(execution, "its worker stopped before anything was sent")
            else:
                await self._settle(execution)
        return True

    async def _settle(self, execution: Execution) -> None:
        for step in execution.steps:
            if step.state is StepState.DISPATCHED and not await self._look_up(execution, step):
                return
        async with self._store.begin() as uow:
            current = await uow.executions.get(execution.id)
        if current is None:
            return
        if all(step.state is StepState.APPLIED for step in current.steps) and await self._settled(current):
            await self._ledger.done(execution)
        else:
            await self._ledger.ready_again(execution, "what was sent is accounted for; going on with the rest")

    async def _settled(self, execution: Execution) -> bool:
        """Whether the platform has carried it out; if not, a runner waits for it."""
        try:
            target = self._targets.for_platform(execution.target.platform)
            return await target.settled(execution.target, execution.steps[-1].operation)
        except (TemporaryError, PermanentError):
            return False

    async def _look_up(self, execution: Execution, step: Step) -> bool:
        """Settles one dispatched step. False when it stays open."""
        async with self._store.begin() as uow:
            intent = await uow.executions.intent(execution.id, step.number)
        reason = "the target cannot tell"
        try:
            target = self._targets.for_platform(execution.target.platform)
            finding = await target.find(execution.target, step.operation, intent)
        except (TemporaryError, PermanentError) as error:
            finding, reason = Finding.UNKNOWN, str(error)
        async with self._store.begin() as uow:
            entry = TraceEntry(
                TraceKind.RECOVERY,
                f"step {step.number} at the target: {finding.value.replace('_', ' ')}",
                {"execution": execution.id, "step": step.number, "fence": execution.fence, "finding": finding.value},
            )
            await record(uow, execution.incident_id, entries=[entry])
        if finding is Finding.APPLIED:
            return await self._ledger.step_applied(execution, step, "found at the target after an interruption")
        if finding is Finding.NOT_APPLIED:
            await self._ledger.step_not_applied(execution, step, "the target never took it")
            return True
        if self._ledger.waited_s(execution) > GIVE_UP_S:
            await self._ledger.needs_human(execution, f"step {step.number}: {reason}")
        else:
            await self._ledger.unknown(execution, f"step {step.number}: {reason}")
        return False
