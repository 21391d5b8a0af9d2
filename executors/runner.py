"""Carries approved plans out: claim, gate, lock, then per step intent → one call → read back.

At most once: ``dispatched`` is committed before a call goes out, a call whose answer is lost is never repeated blind
but looked up at the target (``executors.recovery``), and every write to the database names the fence it holds.
"""

from __future__ import annotations

import asyncio
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass

from executors.guardrails.gate import decide
from executors.guardrails.inputs import read_facts
from executors.lease import kept_alive
from executors.ledger import Ledger
from executors.rollback import action_of
from pipeline.domain.errors import OutcomeUnknown, PermanentError, TemporaryError
from pipeline.domain.execution import Execution, Finding, Intent, Step, StepState
from pipeline.domain.incident import Case
from pipeline.domain.plan import (
    Plan,
    TargetAction,
    TargetState,
    plan_hash,
)
from pipeline.domain.trace import TraceEntry, TraceKind
from pipeline.ports.locks import Lock, Locks
from pipeline.ports.store import Store
from pipeline.ports.targets import Target, Targets
from pipeline.stages.advance import record
from pipeline.stages.propose import guardrail_entry
from pipeline.stages.settings import LoopSettings

CALL_TIMEOUT_S = 20.0
"""One call to a target, all in all."""
POLL_S = 0.5
OURS = "sre-bot "
"""How the holder of a lock of ours begins."""


@dataclass(frozen=True, slots=True)
class _Job:
    execution: Execution
    plan: Plan
    case: Case
    action: TargetAction
    target: Target


class Runner:
    """Runs one execution at a time; several runners on one database never run the same one."""

    def __init__(
        self, store: Store, targets: Targets, locks: Locks, ledger: Ledger, settings: LoopSettings, *, worker: str
    ) -> None:
        self._store = store
        self._targets = targets
        self._locks = locks
        self._ledger = ledger
        self._settings = settings
        self._worker = worker

    async def run_once(self) -> bool:
        """Claims a ready execution and carries it as far as it goes. False when there was none."""
        async with self._store.begin() as uow:
            execution = await uow.executions.claim(worker=self._worker, lease_s=self._settings.lease_s)
        if execution is None:
            return False
        async with self.leased(execution):
            await self._carry_out(execution)
        return True

    def leased(self, execution: Execution) -> AbstractAsyncContextManager[None]:
        """Keeps the execution's lease alive around a block."""

        async def renew() -> bool:
            async with self._store.begin() as uow:
                return await uow.executions.renew(execution.id, execution.fence, lease_s=self._settings.lease_s)

        return kept_alive(renew, lease_s=self._settings.lease_s)

    async def _carry_out(self, execution: Execution) -> None:
        try:
            job = await self._job(execution)
        except PermanentError as error:
            await self._ledger.failed(execution, str(error), blocked=False)
            return
        if job is None:
            reason = "the plan behind this execution is gone, or is not the one that was approved"
            await self._ledger.failed(execution, reason, blocked=False)
            return
        try:
            await self._earlier_steps_settle(job)
            observed = await job.target.observe(execution.target)
        except TemporaryError as error:
            await self._ledger.ready_again(execution, f"target not readable: {error}")
            return
        except PermanentError as error:
            await self._ledger.failed(execution, str(error), blocked=False)
            return
        refusal = await self._gate(job, observed)
        if refusal:
            await self._ledger.failed(execution, f"blocked by guardrails: {refusal}", blocked=True)
            return
        resource = f"{execution.target.platform}/{execution.target.describe()}"
        lock, holder = await self._acquire(execution, resource)
        if holder:
            await self._ledger.ready_again(execution, f"another agent holds {resource}: {holder}")
            return
        try:
            await self._steps(job)
        finally:
            if lock is not None:
                await self._release(lock)

    async def _job(self, execution: Execution) -> _Job | None:
        """Raises PermanentError when the target's platform is not set up (any more)."""
        async with self._store.begin() as uow:
            plan = await uow.plans.get(execution.plan_id)
            case = await uow.incidents.case(execution.incident_id)
        action = action_of(plan, execution.kind) if plan else None
        if plan is None or case is None or action is None or not _approved(plan, case):
            return None
        return _Job(execution, plan, case, action, self._targets.for_platform(execution.target.platform))

    async def _earlier_steps_settle(self, job: _Job) -> None:
        """Waits for what an earlier attempt set in motion: the gate must not take our own half-done change for harm."""
        clock = asyncio.get_running_loop()
        deadline = clock.time() + self._settings.settle_timeout_s
        moving = [step for step in job.execution.steps if step.state is StepState.APPLIED]
        while moving and clock.time() < deadline:
            settled = await job.target.settled(job.execution.target, moving[0].operation)
            if settled:
                moving.pop(0)
            else:
                await asyncio.sleep(POLL_S)

    async def _gate(self, job: _Job, observed: TargetState) -> str:
        """Asks every guardrail afresh. Empty when all allow."""
        execution = job.execution
        async with self._store.begin() as uow:
            facts = await read_facts(
                uow,
                service=job.case.incident.service,
                action=job.action,
                ref=execution.target,
                generation=job.plan.generation,
                observed=observed,
                diagnosis=job.case.diagnosis,
                plan_id=job.plan.id,
                started=execution.physical_changes > 0,
                rollback=execution.kind == "rollback",
            )
            result = decide(facts, self._settings.limits)
            await uow.plans.save_guardrails(job.plan.id, result)
            await record(uow, execution.incident_id, entries=[guardrail_entry("at the claim", result)])
        return result.why_refused()

    async def _acquire(self, execution: Execution, resource: str) -> tuple[Lock | None, str]:
        """The lock, or who holds it. With no lock service in reach the database's fence alone has to do."""
        lock: Lock | None = None
        try:
            lock = await self._locks.acquire(
                resource, holder=f"{OURS}{self._worker}", ttl_s=self._settings.settle_timeout_s
            )
            holder = await self._holder(resource) if lock is None else ""
            if lock is not None:
                said = f"lock on {resource} taken, fence {lock.fence}"
            elif holder.startswith(OURS):
                # The database lets one execution of ours be open on a target: this one was left by a worker that died.
                said = f"lock on {resource} left behind by {holder}; going on by the database's fence"
            else:
                return None, holder
        except TemporaryError as error:
            said = f"lock service away, going on by the database's fence alone: {error}"
        async with self._store.begin() as uow:
            await record(uow, execution.incident_id, entries=[TraceEntry(TraceKind.LOCK, said, {})], redraw=False)
        return lock, ""

    async def _holder(self, resource: str) -> str:
        try:
            holder = await self._locks.holder(resource)
            return holder.name if holder else "an agent that has just let go"
        except TemporaryError:
            return "an agent that cannot be asked for now"  # it is held all the same

    async def _release(self, lock: Lock) -> None:
        try:
            await self._locks.release(lock)
        except TemporaryError:
            return  # it expires by itself

    async def _steps(self, job: _Job) -> None:
        for step in job.execution.steps:
            if step.state is StepState.APPLIED:
                continue
            if not await self._step(job, step):
                return
        await self._ledger.done(job.execution)

    async def _step(self, job: _Job, step: Step) -> bool:
        execution = job.execution
        try:
            observed = await job.target.observe(execution.target)
        except (TemporaryError, PermanentError) as error:
            await self._ledger.ready_again(execution, f"target not readable before step {step.number}: {error}")
            return False
        intent = Intent(execution.id, step.number, execution.fence, observed.generation)
        refusal = await self._ledger.dispatched(execution, step, intent)
        if refusal:
            await self._ledger.failed(execution, refusal, blocked=True)
            return False
        try:
            async with asyncio.timeout(CALL_TIMEOUT_S):
                detail = await job.target.apply(execution.target, step.operation, intent)
        except (OutcomeUnknown, TimeoutError) as error:
            await self._ledger.unknown(execution, f"step {step.number}: no answer ({str(error) or 'time-out'})")
            return False
        except TemporaryError as error:
            await self._ledger.step_not_applied(execution, step, str(error))
            await self._ledger.ready_again(execution, f"step {step.number}: {error}")
            return False
        except PermanentError as error:
            await self._ledger.step_refused(execution, step, str(error))
            return False
        return await self._read_back(job, step, intent, detail)

    async def _read_back(self, job: _Job, step: Step, intent: Intent, detail: str) -> bool:
        """Waits until the target itself shows the step as carried out, then records it as applied."""
        execution = job.execution
        clock = asyncio.get_running_loop()
        deadline = clock.time() + self._settings.settle_timeout_s
        applied = settled = False
        trouble = ""
        while not settled and clock.time() < deadline:
            try:
                applied = applied or await job.target.find(execution.target, step.operation, intent) is Finding.APPLIED
                settled = applied and await job.target.settled(execution.target, step.operation)
            except (TemporaryError, PermanentError) as error:
                trouble = f" ({error})"
            if not settled:
                await asyncio.sleep(POLL_S)
        if not applied:
            await self._ledger.unknown(execution, f"step {step.number}: the target does not show it{trouble}")
            return False
        if not settled:
            detail = f"{detail}; not settled after {self._settings.settle_timeout_s:.0f} s{trouble}"
        return await self._ledger.step_applied(execution, step, detail)


def _approved(plan: Plan, case: Case) -> bool:
    """Whether enough people approved exactly this: the hash is computed anew, not believed."""
    computed = plan_hash(plan.incident_id, plan.revision, plan.action, plan.target, plan.generation)
    said_yes = [one for one in case.approvals if one.decision == "approve" and one.plan_hash == computed]
    return plan.hash == computed and len(said_yes) >= plan.approvals_needed
