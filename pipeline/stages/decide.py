"""A person's word on a plan. Committed before it is acknowledged; a stale click can approve nothing."""

from __future__ import annotations

import asyncio

from executors.guardrails.gate import decide
from executors.guardrails.inputs import observe_or_none, read_facts
from pipeline.domain.approval import Approval, DecisionOutcome, DecisionResult
from pipeline.domain.guardrail import GuardrailResult
from pipeline.domain.ids import PlanId, SlackUserId
from pipeline.domain.incident import Incident
from pipeline.domain.lifecycle import IncidentState, PlanState
from pipeline.domain.notice import CardNotice
from pipeline.domain.plan import ManualAction, Plan, TargetRef, TargetState, describe_action
from pipeline.domain.trace import TraceEntry, TraceKind
from pipeline.ports.clock import Clock
from pipeline.ports.store import Store, UnitOfWork
from pipeline.ports.targets import Target, Targets
from pipeline.stages.advance import advance, line, record
from pipeline.stages.propose import guardrail_entry
from pipeline.stages.settings import LoopSettings

CLICK_OBSERVE_S = 1.5
"""What reading the target may take of the 3 s that Slack gives a click."""

_DECIDED = {
    PlanState.APPROVED: "already approved",
    PlanState.REJECTED: "already rejected",
    PlanState.EXPIRED: "expired",
    PlanState.SUPERSEDED: "replaced or over by itself",
    PlanState.BLOCKED: "blocked by a guardrail",
}


class Decider:
    """Approvals, rejections and expiry."""

    def __init__(self, store: Store, targets: Targets, clock: Clock, settings: LoopSettings) -> None:
        self._store = store
        self._targets = targets
        self._clock = clock
        self._settings = settings

    async def approve(self, plan_id: PlanId, user: SlackUserId) -> DecisionResult:
        """Counts ``user``'s approval; with enough of them the execution stands ready when this returns."""
        try:
            return await self._approve(plan_id, user)
        except _Taken:
            return DecisionResult(
                DecisionOutcome.ALREADY_DECIDED, "Too late: another action on this target was started just now."
            )

    async def _approve(self, plan_id: PlanId, user: SlackUserId) -> DecisionResult:
        async with self._store.begin() as uow:
            plan, incident, refusal = await self._open_plan(uow, plan_id)
        if plan is None or incident is None:
            return refusal
        assert plan.target is not None
        target = self._targets.for_platform(plan.target.platform)
        observed = await _observe_in_time(target, plan.target)
        async with self._store.begin() as uow:
            plan, incident, refusal = await self._open_plan(uow, plan_id)
            if plan is None or incident is None:
                return refusal
            assert plan.target is not None
            assert not isinstance(plan.action, ManualAction)
            if plan.requested_by == user:
                refused = "You asked for this plan: somebody else has to approve it."
                return DecisionResult(DecisionOutcome.SAME_PERSON, refused)
            case = await uow.incidents.case(incident.id)
            facts = await read_facts(
                uow,
                service=incident.service,
                action=plan.action,
                ref=plan.target,
                generation=plan.generation,
                observed=observed,
                diagnosis=case.diagnosis if case else None,
                plan_id=plan.id,
                started=False,
                rollback=False,
            )
            result = decide(facts, self._settings.limits)
            if not result.allowed:
                return await self._refuse(uow, plan, incident, user, result, readable=observed is not None)
            approval = Approval(plan.id, plan.hash, user, "approve", "", self._clock.now())
            if not await uow.plans.decide(approval):
                return DecisionResult(
                    DecisionOutcome.SAME_PERSON, "You have approved this already; another person has to."
                )
            count = sum(one.decision == "approve" for one in await uow.plans.approvals(plan.id))
            entry = TraceEntry(
                TraceKind.DECISION,
                f"approved by {user} ({count} of {plan.approvals_needed})",
                {"plan": plan.id, "hash": plan.hash, "user": user, "decision": "approve"},
            )
            if count < plan.approvals_needed:
                said = line(f"✅ approved by <@{user}>, {count} of {plan.approvals_needed}: another person is needed")
                await record(uow, incident.id, entries=[entry], notices=[said])
                return DecisionResult(
                    DecisionOutcome.COUNTED, f"Counted: {count} of {plan.approvals_needed} approvals."
                )
            await uow.plans.move(plan.id, PlanState.PROPOSED, PlanState.APPROVED)
            if not await uow.executions.create(plan, "apply", plan.action):
                raise _Taken
            moved = await advance(
                uow,
                incident,
                IncidentState.MITIGATING,
                outcome="",
                entries=[entry, guardrail_entry("at the click", result)],
                notices=[line(f"✅ approved by <@{user}>: {describe_action(plan.action)}")],
            )
            if moved is None:
                raise _Taken
        return DecisionResult(DecisionOutcome.ACCEPTED, "Approved; it is being carried out.")

    async def reject(self, plan_id: PlanId, user: SlackUserId, reason: str) -> DecisionResult:
        """Takes the plan off the table; the incident waits for a person."""
        async with self._store.begin() as uow:
            plan, incident, refusal = await self._open_plan(uow, plan_id)
            if plan is None or incident is None:
                return refusal
            await uow.plans.decide(Approval(plan.id, plan.hash, user, "reject", reason, self._clock.now()))
            await uow.plans.move(plan.id, PlanState.PROPOSED, PlanState.REJECTED)
            await advance(
                uow,
                incident,
                IncidentState.ESCALATED,
                outcome=f"rejected by <@{user}>: {reason}",
                entries=[
                    TraceEntry(
                        TraceKind.DECISION,
                        f"rejected by {user}: {reason}",
                        {"plan": plan.id, "hash": plan.hash, "user": user, "decision": "reject", "reason": reason},
                    )
                ],
                notices=[line(f"✋ rejected by <@{user}>: {reason}. Nothing was changed.")],
            )
        return DecisionResult(DecisionOutcome.ACCEPTED, "Rejected; nothing is changed.")

    async def expire(self) -> int:
        """Ends proposals whose time is over by the database's clock. Returns how many."""
        async with self._store.begin() as uow:
            expired = await uow.plans.expired()
        for plan in expired:
            async with self._store.begin() as uow:
                incident = await uow.incidents.get(plan.incident_id)
                if incident is None or not await uow.plans.move(plan.id, PlanState.PROPOSED, PlanState.EXPIRED):
                    continue
                if incident.state is IncidentState.AWAITING_DECISION:
                    await advance(
                        uow,
                        incident,
                        IncidentState.ESCALATED,
                        outcome="nobody decided in time: the proposal expired, nothing was changed",
                        entries=[TraceEntry(TraceKind.DECISION, "expired", {"plan": plan.id})],
                        notices=[line("⌛ The proposal expired. Nothing was changed; a person has to look.")],
                    )
        return len(expired)

    async def _open_plan(self, uow: UnitOfWork, plan_id: PlanId) -> tuple[Plan | None, Incident | None, DecisionResult]:
        plan = await uow.plans.get(plan_id)
        if plan is None:
            return None, None, DecisionResult(DecisionOutcome.UNKNOWN_PLAN, "This proposal is not known here.")
        if plan.state is not PlanState.PROPOSED:
            await uow.outbox.add(plan.incident_id, CardNotice())
            last = (await uow.plans.approvals(plan_id))[-1:]
            who = f" by <@{last[0].user_id}>" if last and plan.state in (PlanState.APPROVED, PlanState.REJECTED) else ""
            outcome = DecisionOutcome.EXPIRED if plan.state is PlanState.EXPIRED else DecisionOutcome.ALREADY_DECIDED
            return None, None, DecisionResult(outcome, f"Too late: {_DECIDED[plan.state]}{who}.")
        if await uow.plans.is_expired(plan_id):
            return None, None, DecisionResult(DecisionOutcome.EXPIRED, "Too late: the proposal has expired.")
        incident = await uow.incidents.get(plan.incident_id)
        if incident is None or incident.state is not IncidentState.AWAITING_DECISION:
            state = incident.state.value.replace("_", " ") if incident else "gone"
            return None, None, DecisionResult(DecisionOutcome.ALREADY_DECIDED, f"Too late: the incident is {state}.")
        return plan, incident, DecisionResult(DecisionOutcome.ACCEPTED, "")

    async def _refuse(
        self,
        uow: UnitOfWork,
        plan: Plan,
        incident: Incident,
        user: SlackUserId,
        result: GuardrailResult,
        *,
        readable: bool,
    ) -> DecisionResult:
        reasons = result.why_refused()
        changed = readable and any(one.rule == "preconditions" for one in result.refusals)
        await uow.plans.save_guardrails(plan.id, result)
        entries = [
            guardrail_entry("at the click", result),
            TraceEntry(TraceKind.DENIED, f"approval by {user} refused: {reasons}", {"plan": plan.id, "user": user}),
        ]
        if changed:
            await uow.plans.move(plan.id, PlanState.PROPOSED, PlanState.SUPERSEDED)
            await advance(
                uow,
                incident,
                IncidentState.DIAGNOSING,
                outcome="",
                entries=entries,
                notices=[line(f"🔁 Not carried out, the target has changed: {reasons}. Looking again.")],
            )
            return DecisionResult(DecisionOutcome.CHANGED, f"Not carried out: {reasons}. A new proposal follows.")
        await record(uow, incident.id, entries=entries, notices=[line(f"⛔ Not carried out: {reasons}")])
        again = "" if readable else " Press Approve again when the target answers."
        return DecisionResult(DecisionOutcome.BLOCKED, f"Blocked: {reasons}.{again}")


async def _observe_in_time(target: Target, ref: TargetRef) -> TargetState | None:
    """The target's state, or None: a click has to be answered within Slack's 3 s."""
    try:
        async with asyncio.timeout(CLICK_OBSERVE_S):
            return await observe_or_none(target, ref)
    except TimeoutError:
        return None


class _Taken(Exception):
    """Rolls the decision back: the incident or the target was taken by somebody else in this very moment."""
