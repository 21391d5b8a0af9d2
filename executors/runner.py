"""Carries approved plans out: claim, gate, lock, then batch by batch intent → one call a step → read back.

At most once: ``dispatched`` is committed before a call goes out, a call whose answer is lost is never repeated blind
but looked up at the target (``executors.recovery``), and every write to the database names the fence it holds. Which
batch it is at, and since when its first replica is watched, is in the database: whoever takes over goes on from there.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, replace
from functools import partial

from executors.canary import CanaryWatch
from executors.guardrails.gate import decide
from executors.guardrails.inputs import read_facts
from executors.lease import ResourceLocks, kept_alive
from executors.ledger import Ledger
from executors.rollback import action_of
from pipeline.domain.action import TargetAction
from pipeline.domain.errors import OutcomeUnknown, PermanentError, TemporaryError
from pipeline.domain.execution import NOT_SETTLED, Execution, Finding, Intent, Step, StepState, next_batch, stood_before
from pipeline.domain.incident import Case
from pipeline.domain.plan import Plan, TargetState, plan_hash
from pipeline.ports.executions import NOT_OURS
from pipeline.ports.locks import Locks
from pipeline.ports.store import Store
from pipeline.ports.targets import Target, Targets
from pipeline.stages.advance import record
from pipeline.stages.propose import guardrail_entry
from pipeline.stages.settings import LoopSettings

log = logging.getLogger(__name__)

CALL_TIMEOUT_S = 20.0
"""One call to a target, all in all."""
POLL_S = 0.5
ARRIVED_LATE = "found at the target: an earlier call has arrived late"

Ending = Callable[[], Awaitable[None]]
"""What becomes of the execution when no further call goes out."""


@dataclass(frozen=True, slots=True)
class _Job:
    execution: Execution
    plan: Plan
    case: Case
    action: TargetAction
    target: Target


@dataclass(frozen=True, slots=True)
class _Sent:
    step: Step
    intent: Intent
    detail: str


class Runner:
    """Runs one execution at a time; several runners on one database never run the same one."""

    def __init__(
        self, store: Store, targets: Targets, locks: Locks, ledger: Ledger, settings: LoopSettings, *, worker: str
    ) -> None:
        self._store = store
        self._targets = targets
        self._ledger = ledger
        self._settings = settings
        self._worker = worker
        self._canary = CanaryWatch(store, ledger, settings)
        rest_s = min(settings.limits.rest_s, settings.limits.cooldown_s)
        self._locks = ResourceLocks(store, locks, worker=worker, ttl_s=settings.settle_timeout_s, rest_s=rest_s)

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
        """Keeps the execution's lease alive around a block, and its lock with other agents."""

        async def renew() -> bool:
            async with self._store.begin() as uow:
                kept = await uow.executions.renew(execution.id, execution.fence, lease_s=self._settings.lease_s)
            if kept:
                await self._locks.renew(execution)
            return kept

        return kept_alive(renew, lease_s=self._settings.lease_s)

    async def tend_locks(self) -> None:
        """Renews the locks of what is being verified and releases those of what is over."""
        await self._locks.tend()

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
        begun = False
        if not job.execution.pending:
            await self._wait_out(job)
        while job.execution.pending:
            if job.execution.awaits_canary:
                if not begun and await self._observed(job, settle=True) is None:
                    return
                if not await self._canary.passes(job.execution, job.case.incident.service, job.target):
                    return
            observed = await self._observed(job, settle=not begun)
            if observed is None:
                return
            limits = self._settings.limits
            batch = next_batch(
                job.execution, ready=observed.ready, share=min(self._settings.batch_share, limits.max_share)
            )
            when = f"before step {batch[0].number}" if begun else "at the claim"
            if not await self._gate(job, observed, batch, when) or not (begun or await self._locked(job)):
                return
            begun = True
            if not await self._batch(job, batch):
                return
            current = await self._again(execution)
            if current is None:
                return
            job = replace(job, execution=current)
        await self._ledger.done(job.execution)

    async def _again(self, execution: Execution) -> Execution | None:
        """Its steps as they stand now; None when another worker took it over."""
        async with self._store.begin() as uow:
            current = await uow.executions.get(execution.id)
        return current if current is not None and current.fence == execution.fence else None

    async def _job(self, execution: Execution) -> _Job | None:
        """Raises PermanentError when the target's platform is not set up (any more)."""
        async with self._store.begin() as uow:
            plan = await uow.plans.get(execution.plan_id)
            case = await uow.incidents.case(execution.incident_id)
            action = await action_of(uow, plan, execution) if plan else None
        if plan is None or case is None or action is None or not _approved(plan, case):
            return None
        return _Job(execution, plan, case, action, self._targets.for_platform(execution.target.platform))

    async def _observed(self, job: _Job, *, settle: bool) -> TargetState | None:
        """The target now, once what an earlier attempt set in motion is over; None when it ended the execution."""
        try:
            if settle:
                await self._earlier_steps_settle(job)
            return await job.target.observe(job.execution.target)
        except TemporaryError as error:
            await self._later(job, error, f"target not readable: {error}")
        except PermanentError as error:
            await self._ledger.failed(job.execution, str(error), blocked=False)
        return None

    async def _earlier_steps_settle(self, job: _Job) -> None:
        """Waits for what an earlier attempt set in motion: the gate must not take our own half-done change for harm."""
        clock = asyncio.get_running_loop()
        deadline = clock.time() + self._settle_s(job)
        moving = [step for step in job.execution.steps if step.state is StepState.APPLIED]
        while moving and clock.time() < deadline:
            settled = await job.target.settled(job.execution.target, moving[0].operation)
            if settled:
                moving.pop(0)
            else:
                await asyncio.sleep(POLL_S)

    def _settle_s(self, job: _Job) -> float:
        """How long a step may take: some platforms replace machines."""
        return max(self._settings.settle_timeout_s, job.target.declares().settles_s)

    async def _wait_out(self, job: _Job) -> None:
        """Of steps that stand: until the platform has carried them out, gives them up, or their time is over."""
        clock = asyncio.get_running_loop()
        deadline = clock.time() + self._settle_s(job)
        while clock.time() < deadline:
            try:
                if await job.target.settled(job.execution.target, job.execution.steps[-1].operation):
                    return
            except PermanentError:
                return
            except TemporaryError as error:
                log.info("execution %s is waited for: %s", job.execution.id, error)
            await asyncio.sleep(POLL_S)

    async def _gate(self, job: _Job, observed: TargetState, batch: Sequence[Step], when: str) -> bool:
        """Asks every guardrail afresh. True when all allow and the batch is begun; else the execution has ended."""
        execution = job.execution
        async with self._store.begin() as uow:
            facts = await read_facts(
                uow,
                catalogue=self._settings.catalogue,
                incident=job.case.incident,
                action=job.action,
                ref=execution.target,
                generation=job.plan.generation,
                observed=observed,
                diagnosis=job.case.diagnosis,
                plan_id=job.plan.id,
                started=execution.physical_changes > 0,
                rollback=execution.kind == "rollback",
                at_once=len(batch),
            )
            result = decide(facts, self._settings.limits)
            await uow.plans.save_guardrails(job.plan.id, result)
            await record(uow, execution.incident_id, entries=[guardrail_entry(when, result)])
            if result.allowed:
                return await self._ledger.batch_begun(uow, execution, batch)
        if await self._arrived_late(job):
            await self._ledger.ready_again(execution, "a call that was taken for lost has arrived")
        else:
            await self._ledger.failed(execution, f"blocked by guardrails: {result.why_refused()}", blocked=True)
        return False

    async def _arrived_late(self, job: _Job) -> bool:
        """Whether a call of an earlier attempt that had not been applied then is applied now; it is recorded then.

        Its sender may have been stopped on the way, for longer than anybody waits for it.
        """
        arrived = False
        for step in job.execution.pending:
            if step.dispatched_at is None:
                continue
            async with self._store.begin() as uow:
                intent = await uow.executions.intent(job.execution.id, step.number)
            if await self._is_applied(job, step, intent):
                arrived = await self._ledger.step_applied(job.execution, step, ARRIVED_LATE) or arrived
        return arrived

    async def _is_applied(self, job: _Job, step: Step, intent: Intent) -> bool:
        try:
            return await job.target.find(job.execution.target, step.operation, intent) is Finding.APPLIED
        except (TemporaryError, PermanentError):
            return False

    async def _locked(self, job: _Job) -> bool:
        """Takes the lock that other agents heed. False when the execution has to wait for it."""
        refusal = await self._locks.take(job.execution)
        if refusal and refusal not in NOT_OURS:
            await self._ledger.ready_again(job.execution, refusal)
        return not refusal

    async def _batch(self, job: _Job, batch: Sequence[Step]) -> bool:
        """Sends the batch's calls one after the other and waits for all. False when the execution goes no further."""
        sent: list[_Sent] = []
        ending: Ending | None = None
        for step in batch:
            outcome = await self._send(job, step)
            if not isinstance(outcome, _Sent):
                ending = outcome
                break
            sent.append(outcome)
        for one in sent:
            if not await self._read_back(job, one):
                return False
        if ending is not None:
            await ending()
        return ending is None

    async def _send(self, job: _Job, step: Step) -> _Sent | Ending:
        execution = job.execution
        try:
            observed = await job.target.observe(execution.target)
        except (TemporaryError, PermanentError) as error:
            return partial(
                self._ledger.ready_again, execution, f"target not readable before step {step.number}: {error}"
            )
        intent = Intent(execution.id, step.number, execution.fence, observed.generation)
        clock = asyncio.get_running_loop()
        began_s = clock.time()
        refusal = await self._locks.lost(execution)
        if not refusal:
            refusal = await self._ledger.dispatched(execution, step, intent, stood_before(observed))
        if refusal:
            return partial(self._stopped, job, refusal)
        if clock.time() - began_s > self._settings.lease_s:
            # Stopped meanwhile, perhaps taken over: whoever looked for this call has found none, and relies on it.
            return partial(self._ledger.unknown, execution, f"step {step.number}: not sent, the lease may have run out")
        try:
            async with asyncio.timeout(CALL_TIMEOUT_S):
                return _Sent(step, intent, await job.target.apply(execution.target, step.operation, intent))
        except (OutcomeUnknown, TimeoutError) as error:
            return partial(
                self._ledger.unknown, execution, f"step {step.number}: no answer ({str(error) or 'time-out'})"
            )
        except TemporaryError as error:
            await self._ledger.step_not_applied(execution, step, str(error))
            return partial(self._later, job, error, f"step {step.number}: {error}")
        except PermanentError as error:
            if step.dispatched_at is not None and await self._is_applied(job, step, intent):
                return _Sent(step, intent, ARRIVED_LATE)
            return partial(self._ledger.step_refused, execution, step, str(error))

    async def _later(self, job: _Job, error: TemporaryError, reason: str) -> None:
        """Nothing was changed: tried again when the platform says, for as long as it may take."""
        patience_s = job.target.declares().settles_s
        await self._ledger.ready_again(job.execution, reason, after_s=error.retry_after_s, patience_s=patience_s)

    async def _stopped(self, job: _Job, refusal: str) -> None:
        if refusal not in NOT_OURS:
            await self._arrived_late(job)
            await self._ledger.failed(job.execution, refusal, blocked=True)

    async def _read_back(self, job: _Job, sent: _Sent) -> bool:
        """Waits until the target itself shows the step as carried out, then records it as applied."""
        execution, step, intent, detail = job.execution, sent.step, sent.intent, sent.detail
        clock = asyncio.get_running_loop()
        settle_s = self._settle_s(job)
        deadline = clock.time() + settle_s
        applied = settled = False
        trouble = ""
        while not settled and clock.time() < deadline:
            try:
                applied = applied or await job.target.find(execution.target, step.operation, intent) is Finding.APPLIED
                settled = applied and await job.target.settled(execution.target, step.operation)
            except TemporaryError as error:
                trouble = f" ({error})"
            except PermanentError as error:
                trouble = f" ({error})"
                if applied:
                    break  # the platform says that it will not come about
            if not settled:
                await asyncio.sleep(POLL_S)
        if not applied:
            await self._ledger.unknown(execution, f"step {step.number}: the target does not show it{trouble}")
            return False
        if not settled:
            waited_s = settle_s - max(deadline - clock.time(), 0.0)
            detail = f"{detail}; {NOT_SETTLED} {waited_s:.0f} s{trouble}"
        return await self._ledger.step_applied(execution, step, detail)


def _approved(plan: Plan, case: Case) -> bool:
    """Whether enough people approved exactly this: the hash is computed anew, not believed."""
    computed = plan_hash(plan.incident_id, plan.revision, plan.action, plan.target, plan.generation)
    said_yes = [one for one in case.approvals if one.decision == "approve" and one.plan_hash == computed]
    return plan.hash == computed and len(said_yes) >= plan.approvals_needed
