"""Writes what becomes of an execution. Every write names the fence; with an old one nothing is written."""

from __future__ import annotations

from collections.abc import Sequence

from executors.rollback import order_rollback
from pipeline.domain.action_words import describe_operation
from pipeline.domain.canary import CanaryVerdict, Judgement
from pipeline.domain.execution import NOT_SETTLED, Execution, Intent, SeenInstance, Step, StoodBefore
from pipeline.domain.lifecycle import ExecutionState, IncidentState, PlanState
from pipeline.domain.trace import TraceEntry, TraceKind
from pipeline.domain.undo import put_back
from pipeline.ports.clock import Clock
from pipeline.ports.executions import TAKEN_OVER
from pipeline.ports.store import Store, UnitOfWork
from pipeline.stages.advance import advance, line, record

PATIENCE_S = 45.0
"""How long an approved execution may wait for a readable target or a free lock before it is given up, unchanged."""
RETRY_S = 3.0


class Ledger:
    """The durable record of executions, for the runner and the recovery alike."""

    def __init__(self, store: Store, clock: Clock) -> None:
        self._store = store
        self._clock = clock

    async def dispatched(self, execution: Execution, step: Step, intent: Intent, before: StoodBefore) -> str:
        """Commits the intent of one call. Empty when the call may go out now, else why not."""
        async with self._store.begin() as uow:
            refusal = await uow.executions.may_call(execution.id, execution.fence)
            if refusal:
                return refusal
            if not await uow.executions.move(execution.id, execution.fence, ExecutionState.DISPATCHED):
                return TAKEN_OVER
            if not await uow.executions.step_dispatched(intent, before):
                raise RuntimeError(f"step {step.number} of execution {execution.id} is not pending")
            await self._note(
                uow,
                execution,
                f"step {step.number} of {len(execution.steps)} dispatched: {describe_operation(step.operation)}",
                step=step.number,
                fence=intent.fence,
                generation=intent.generation,
                operation=step.operation.model_dump_json(),
                before=before.model_dump_json(),
            )
        return ""

    async def step_applied(self, execution: Execution, step: Step, detail: str) -> bool:
        """The target shows the step. False when the fence is lost."""
        said = f"{describe_operation(step.operation)}: {detail}"
        async with self._store.begin() as uow:
            if not await uow.executions.step_applied(execution.id, execution.fence, step.number, detail):
                return False
            await record(
                uow,
                execution.incident_id,
                entries=[TraceEntry(TraceKind.EXECUTION, f"step {step.number} applied: {said}", {"step": step.number})],
                notices=[line(f"⚙️ {said}")],
            )
        return True

    async def batch_begun(self, uow: UnitOfWork, execution: Execution, steps: Sequence[Step]) -> bool:
        """Writes down which steps go out together. False when the fence is lost."""
        number = await uow.executions.begin_batch(execution.id, execution.fence, [step.number for step in steps])
        if number and len(execution.steps) > 1:
            what = ", ".join(str(step.number) for step in steps)
            canary = ", the canary" if number == 1 and execution.sends_canary else ""
            await self._note(
                uow, execution, f"batch {number}{canary}: step {what} of {len(execution.steps)}", batch=number
            )
        return number > 0

    async def step_not_applied(self, execution: Execution, step: Step, detail: str) -> None:
        """Proven: the target refused or never got it. The step may be tried again."""
        async with self._store.begin() as uow:
            if await uow.executions.step_pending(execution.id, execution.fence, step.number, detail):
                await self._note(uow, execution, f"step {step.number} not applied: {detail}", step=step.number)

    async def step_refused(self, execution: Execution, step: Step, detail: str) -> None:
        """The target will never take it: the step and the execution end in one transaction."""
        async with self._store.begin() as uow:
            await uow.executions.step_failed(execution.id, execution.fence, step.number, detail)
            reason = f"step {step.number} refused by the target: {detail}"
            await self._end(uow, execution, ExecutionState.FAILED, reason, blocked=False)

    async def done(self, execution: Execution) -> None:
        """All steps stand: on to verification, or to a person after a rollback."""
        async with self._store.begin() as uow:
            if not await uow.executions.move(execution.id, execution.fence, ExecutionState.APPLIED):
                return
            incident = await uow.incidents.get(execution.incident_id)
            if incident is None or incident.state is not IncidentState.MITIGATING:
                return
            entry = TraceEntry(TraceKind.EXECUTION, f"{execution.kind} carried out", {"execution": execution.id})
            if execution.kind == "apply":
                await advance(uow, incident, IncidentState.VERIFYING, entries=[entry])
                return
            why = await self._why_rolled_back(uow, execution)
            current = await uow.executions.get(execution.id)
            stuck = [one.detail for one in current.steps if NOT_SETTLED in one.detail] if current else []
            how = f"rolled back: {put_back(execution)}"
            if stuck:
                how = f"rolling back, which has not come about: {stuck[0]}"
            outcome = f"{why}, {how}; a person has to look"
            await advance(
                uow, incident, IncidentState.ESCALATED, outcome=outcome, entries=[entry], notices=[line(f"↩️ {outcome}")]
            )

    async def watching(self, execution: Execution, canary: Sequence[SeenInstance], *, begins: bool) -> float | None:
        """For how many seconds the canary has been watched; ``begins`` tells of it. None when the fence is lost."""
        async with self._store.begin() as uow:
            lasted_s = await uow.executions.watch(execution.id, execution.fence, canary)
            if begins and lasted_s is not None:
                names = ", ".join(one.name for one in canary) or "the first replica"
                await self._note(uow, execution, f"{names} is watched before the others follow", step=1)
        return lasted_s

    async def canary_judged(self, execution: Execution, judgement: Judgement) -> bool:
        """The watch is over. True when the rest may follow; else it ends here, and what can be is put back."""
        if judgement.verdict is CanaryVerdict.AS_GOOD:
            async with self._store.begin() as uow:
                if not await uow.executions.watched(execution.id, execution.fence, judgement.verdict.value):
                    return False
                said = f"the first replica is as good as the others, going on: {judgement.reason}"
                entry = TraceEntry(TraceKind.EXECUTION, said, {"execution": execution.id, "canary": judgement.verdict})
                await record(uow, execution.incident_id, entries=[entry], notices=[line(f"🐤 {said}")])
            return True
        word = "is worse" if judgement.verdict is CanaryVerdict.WORSE else "cannot be judged"
        reason = f"stopped after the canary: it {word}: {judgement.reason}"
        async with self._store.begin() as uow:
            await uow.executions.watched(execution.id, execution.fence, judgement.verdict.value)
            await self._end(uow, execution, ExecutionState.FAILED, reason, blocked=False, undo=True)
        return False

    async def failed(self, execution: Execution, reason: str, *, blocked: bool) -> None:
        """Ends the execution where it stands, says how much was changed, and calls a person."""
        async with self._store.begin() as uow:
            await self._end(uow, execution, ExecutionState.FAILED, reason, blocked=blocked)

    async def needs_human(self, execution: Execution, reason: str) -> None:
        """Nobody can tell what happened at the target: a person decides."""
        async with self._store.begin() as uow:
            await self._end(uow, execution, ExecutionState.NEEDS_HUMAN, reason, blocked=False)

    async def unknown(self, execution: Execution, reason: str) -> None:
        """A call went out and its answer was lost; recovery looks the target up."""
        async with self._store.begin() as uow:
            if await uow.executions.move(
                execution.id, execution.fence, ExecutionState.UNKNOWN, detail=reason, delay_s=RETRY_S
            ):
                await self._note(uow, execution, f"outcome unknown: {reason}")

    async def ready_again(
        self, execution: Execution, reason: str, *, after_s: float | None = None, patience_s: float = 0.0
    ) -> None:
        """Nothing is in flight: back to ready, or given up when it waited longer than ``PATIENCE_S``.

        ``after_s``: what the platform asks to wait, ``patience_s``: what it may take, where that is longer.
        """
        patience_s = max(patience_s, PATIENCE_S)
        async with self._store.begin() as uow:
            # From dispatched, the way back to ready leads over unknown; from elsewhere the first move changes nothing.
            await uow.executions.move(execution.id, execution.fence, ExecutionState.UNKNOWN)
            if not await uow.executions.move(
                execution.id,
                execution.fence,
                ExecutionState.READY,
                detail=reason,
                delay_s=min(max(after_s or 0.0, RETRY_S), patience_s),
            ):
                return
            current = await uow.executions.get(execution.id)
            if current is not None and self.waited_s(current) > patience_s:
                given_up = f"given up after {patience_s:.0f} s: {reason}"
                await self._end(uow, execution, ExecutionState.FAILED, given_up, blocked=False)
            else:
                await self._note(uow, execution, f"waiting: {reason}")

    async def _end(
        self,
        uow: UnitOfWork,
        execution: Execution,
        state: ExecutionState,
        reason: str,
        *,
        blocked: bool,
        undo: bool = False,
    ) -> None:
        if not await uow.executions.move(execution.id, execution.fence, state, detail=reason):
            return
        current = await uow.executions.get(execution.id)
        done = current.physical_changes if current else 0
        if blocked and done == 0 and execution.kind == "apply":
            await uow.plans.move(execution.plan_id, PlanState.APPROVED, PlanState.BLOCKED)
        if state is ExecutionState.NEEDS_HUMAN:
            changed = "it is not known whether it took effect"
        elif done == 0:
            changed = "nothing was changed"
        else:
            changed = f"{done} of {len(execution.steps)} steps stand"
        incident = await uow.incidents.get(execution.incident_id)
        if incident is None or incident.state is not IncidentState.MITIGATING:
            return
        outcome = f"{reason}; {changed}"
        if execution.kind == "rollback":
            why = await self._why_rolled_back(uow, execution)
            outcome = f"{why}, and the rollback did not go through: {outcome}; a person has to look"
        plan = await uow.plans.get(execution.plan_id) if undo else None
        if plan is not None and await order_rollback(uow, plan):
            entry = TraceEntry(TraceKind.EXECUTION, f"{outcome}; rolling back", {"execution": execution.id})
            await record(uow, execution.incident_id, entries=[entry], notices=[line(f"↩️ {outcome}; rolling back")])
            return
        await advance(
            uow,
            incident,
            IncidentState.ESCALATED,
            outcome=outcome,
            entries=[TraceEntry(TraceKind.EXECUTION, outcome, {"execution": execution.id, "state": state.value})],
            notices=[line(f"🛑 {execution.kind} ended: {outcome}")],
        )

    async def _why_rolled_back(self, uow: UnitOfWork, execution: Execution) -> str:
        applied = await uow.executions.of_plan(execution.plan_id, "apply")
        failed = applied is not None and applied.state is ExecutionState.FAILED
        return applied.detail if failed and applied is not None else "not recovered"

    async def _note(self, uow: UnitOfWork, execution: Execution, summary: str, **data: str | int) -> None:
        entry = TraceEntry(TraceKind.EXECUTION, summary, {"execution": execution.id, **data})
        await record(uow, execution.incident_id, entries=[entry])

    def waited_s(self, execution: Execution) -> float:
        """How long it has been waiting; 0 while it gets on."""
        since = execution.waiting_since
        return (self._clock.now() - since).total_seconds() if since else 0.0
