"""A person's word on a plan. Committed before it is acknowledged; a stale click can approve nothing."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence

from executors.guardrails.gate import decide
from executors.guardrails.inputs import read_facts
from pipeline.domain.action import ManualAction
from pipeline.domain.action_words import describe_action
from pipeline.domain.approval import (
    Approval,
    ApprovalRule,
    Ballot,
    DecisionOutcome,
    DecisionResult,
    choose_rule,
    rules_in_force,
    what_changed,
)
from pipeline.domain.errors import PermanentError, PreconditionFailed, TemporaryError
from pipeline.domain.guardrail import GuardrailResult
from pipeline.domain.ids import PlanId, SlackUserId
from pipeline.domain.incident import Case, Incident
from pipeline.domain.lifecycle import IncidentState, PlanState
from pipeline.domain.notice import CardNotice, ThreadNotice, ThreadPart
from pipeline.domain.plan import Plan, TargetRef, TargetState
from pipeline.domain.trace import TraceEntry, TraceKind
from pipeline.ports.catalogue import CatalogueSource
from pipeline.ports.clock import Clock
from pipeline.ports.store import Store, UnitOfWork
from pipeline.ports.targets import Target, Targets
from pipeline.stages.advance import advance, line, record
from pipeline.stages.propose import guardrail_entry
from pipeline.stages.settings import LoopSettings

CLICK_OBSERVE_S = 1.5
"""What reading the target may take of the 3 s that Slack gives a click."""
LATE_OBSERVE_S = 20.0
"""What it may take in all when the click was noted first: a repository is fetched, or every pod is looked into."""
Noted = Callable[[], Awaitable[object]]

_MOVED_ON = "the incident moved on in this very moment, look at the card"
_GONE = ("the workload was recreated or deleted",)
_DECIDED = {
    PlanState.APPROVED: "already approved",
    PlanState.REJECTED: "already rejected",
    PlanState.EXPIRED: "expired",
    PlanState.SUPERSEDED: "replaced or over by itself",
    PlanState.BLOCKED: "blocked by a guardrail",
}


class Decider:
    """Approvals, rejections and expiry."""

    def __init__(
        self, store: Store, targets: Targets, catalogue: CatalogueSource, clock: Clock, settings: LoopSettings
    ) -> None:
        self._store = store
        self._targets = targets
        self._catalogue = catalogue
        self._clock = clock
        self._settings = settings

    def rules(self) -> tuple[ApprovalRule, ...]:
        """Who may approve what, as the catalogue and the settings say now; every case is covered."""
        return rules_in_force(self._catalogue.current().approvals, self._settings.approvals)

    async def ballot(self, token: str) -> Ballot | None:
        """What a button's token stands for, and who may decide it now; None for one that was never on a card."""
        async with self._store.begin() as uow:
            plan = await uow.plans.by_token(token)
            incident = await uow.incidents.get(plan.incident_id) if plan is not None else None
        if plan is None or incident is None:
            return None
        return Ballot(plan.id, incident.id, self.rule(incident))

    def rule(self, incident: Incident) -> ApprovalRule:
        """Who may decide on this incident now."""
        rules = self.rules()
        return choose_rule(rules, self._catalogue.current()[incident.service].tier, incident.severity)

    async def approve(self, plan_id: PlanId, user: SlackUserId, *, noted: Noted | None = None) -> DecisionResult:
        """Counts ``user``'s approval; with enough of them the execution stands ready when this returns.

        ``noted`` is called where the target takes longer to read than a click may wait, once it stands in the trail
        that ``user`` pressed: the answer comes later then.
        """
        try:
            return await self._approve(plan_id, user, noted)
        except _Taken as taken:
            return DecisionResult(DecisionOutcome.ALREADY_DECIDED, f"Too late: {taken}.")

    async def _approve(self, plan_id: PlanId, user: SlackUserId, noted: Noted | None) -> DecisionResult:
        async with self._store.begin() as uow:
            plan, incident, refusal = await self._open_plan(uow, plan_id)
        if plan is None or incident is None:
            return refusal
        assert plan.target is not None
        target = self._targets.for_platform(plan.target.platform)
        try:
            observed, gone = await self._observed(target, plan, plan.target, user, noted), False
        except PreconditionFailed:
            observed, gone = None, True
        async with self._store.begin() as uow:
            plan, incident, refusal = await self._open_plan(uow, plan_id)
            if plan is None or incident is None:
                return refusal
            assert plan.target is not None
            assert not isinstance(plan.action, ManualAction)
            if plan.requested_by == user:
                return await _not_again(uow, plan, user, "You asked for this plan: somebody else has to approve it.")
            case = await uow.incidents.case(incident.id)
            if case is not None and case.anomalies and all(one.cleared_at for one in case.anomalies):
                return await self._over(uow, plan, case, user)
            needed = max(plan.approvals_needed, self.rule(incident).people)
            await uow.plans.need(plan.id, needed)
            facts = await read_facts(
                uow,
                catalogue=self._settings.catalogue,
                incident=incident,
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
            changes = what_changed(plan, observed) if observed is not None else _GONE if gone else ()
            if changes:
                return await self._void(uow, plan, incident, user, result, changes)
            if not result.allowed:
                return await self._refuse(uow, plan, incident, user, result, readable=observed is not None)
            approval = Approval(plan.id, plan.hash, user, "approve", "", self._clock.now())
            if not await uow.plans.decide(approval):
                return await _not_again(uow, plan, user, "You have approved this already; another person has to.")
            count = sum(one.decision == "approve" for one in await uow.plans.approvals(plan.id))
            entry = TraceEntry(
                TraceKind.DECISION,
                f"approved by {user} ({count} of {needed})",
                {"plan": plan.id, "hash": plan.hash, "user": user, "decision": "approve"},
            )
            if count < needed:
                said = line(f"✅ approved by <@{user}>, {count} of {needed}: another person is needed")
                await record(uow, incident.id, entries=[entry], notices=[said])
                return DecisionResult(DecisionOutcome.COUNTED, f"Counted: {count} of {needed} approvals.")
            await uow.plans.move(plan.id, PlanState.PROPOSED, PlanState.APPROVED)
            if not await uow.executions.create(plan, "apply", plan.action):
                raise _Taken("another action on this target was started just now")
            await _advance(
                uow,
                incident,
                IncidentState.MITIGATING,
                outcome="",
                entries=[entry, guardrail_entry("at the click", result)],
                notices=[line(f"✅ approved by <@{user}>: {describe_action(plan.action)}")],
            )
        return DecisionResult(DecisionOutcome.ACCEPTED, "Approved; it is being carried out.")

    async def _observed(
        self, target: Target, plan: Plan, ref: TargetRef, user: SlackUserId, noted: Noted | None
    ) -> TargetState | None:
        """The target's state, or None when it cannot be read. Raises PreconditionFailed (gone)."""
        reading = asyncio.ensure_future(target.observe(ref))
        try:
            done, _ = await asyncio.wait({reading}, timeout=CLICK_OBSERVE_S)
            if not done and noted is not None:
                async with self._store.begin() as uow:
                    said = f"{user} pressed Approve; the target is still being read"
                    await record(uow, plan.incident_id, entries=[TraceEntry(TraceKind.NOTE, said, {"plan": plan.id})])
                await noted()
                done, _ = await asyncio.wait({reading}, timeout=LATE_OBSERVE_S)
            return reading.result() if done else None
        except PreconditionFailed:
            raise
        except (TemporaryError, PermanentError):
            return None
        finally:
            reading.cancel()

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
                attended=True,
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

    async def _over(self, uow: UnitOfWork, plan: Plan, case: Case, user: SlackUserId) -> DecisionResult:
        """The alert is not firing any more: nothing is to be done."""
        cleared = "; ".join(
            f"{one.anomaly.key.describe()} cleared {one.cleared_at:%H:%M:%S} UTC" for one in case.anomalies[:3]
        )
        why = f"firing → cleared: {cleared}"
        await uow.plans.move(plan.id, PlanState.PROPOSED, PlanState.SUPERSEDED)
        await _advance(
            uow,
            case.incident,
            IncidentState.SELF_RECOVERED,
            outcome="every alert cleared before anything was done",
            entries=[
                TraceEntry(
                    TraceKind.DENIED,
                    f"approval by {user} refused: every alert has cleared",
                    {"plan": plan.id, "user": user, "changed": [why]},
                )
            ],
            notices=[
                line(f"🔁 <@{user}> approved, and every alert had cleared by then ({why}). Nothing was changed."),
                ThreadNotice(part=ThreadPart.SUMMARY),
            ],
        )
        return DecisionResult(
            DecisionOutcome.OVER, f"Not carried out, every alert has cleared ({why}). Nothing was changed."
        )

    async def _void(
        self,
        uow: UnitOfWork,
        plan: Plan,
        incident: Incident,
        user: SlackUserId,
        result: GuardrailResult,
        changes: tuple[str, ...],
    ) -> DecisionResult:
        """The target is not what the plan was made for: it is shown, and a new plan is made from what is there now."""
        what = ", ".join(changes)
        denied = TraceEntry(
            TraceKind.DENIED,
            f"approval by {user} refused: the target has changed: {what}",
            {"plan": plan.id, "user": user, "changed": list(changes)},
        )
        await uow.plans.save_guardrails(plan.id, result)
        await uow.plans.move(plan.id, PlanState.PROPOSED, PlanState.SUPERSEDED)
        await _advance(
            uow,
            incident,
            IncidentState.DIAGNOSING,
            outcome="",
            entries=[guardrail_entry("at the click", result), denied],
            notices=[line(f"🔁 Not carried out for <@{user}>, the target has changed: {what}. Looking again.")],
        )
        return DecisionResult(
            DecisionOutcome.CHANGED, f"Not carried out, the target has changed: {what}. A new proposal follows."
        )

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
        await uow.plans.save_guardrails(plan.id, result)
        entries = [
            guardrail_entry("at the click", result),
            TraceEntry(TraceKind.DENIED, f"approval by {user} refused: {reasons}", {"plan": plan.id, "user": user}),
        ]
        await record(uow, incident.id, entries=entries, notices=[line(f"⛔ Not carried out: {reasons}")])
        again = "" if readable else " Press Approve again when the target answers."
        return DecisionResult(DecisionOutcome.BLOCKED, f"Blocked: {reasons}.{again}")


async def _not_again(uow: UnitOfWork, plan: Plan, user: SlackUserId, why: str) -> DecisionResult:
    """Somebody whose word does not count, or counts already: an audit entry."""
    entry = TraceEntry(TraceKind.DENIED, f"approval by {user} refused: {why}", {"plan": plan.id, "user": user})
    await uow.trace.add(plan.incident_id, entry)
    return DecisionResult(DecisionOutcome.SAME_PERSON, why)


async def _advance(
    uow: UnitOfWork,
    incident: Incident,
    to: IncidentState,
    *,
    outcome: str,
    entries: Sequence[TraceEntry],
    notices: Sequence[ThreadNotice],
) -> None:
    """As ``advance``; rolls the decision back when somebody else moved the incident first."""
    if await advance(uow, incident, to, outcome=outcome, entries=entries, notices=notices) is None:
        raise _Taken(_MOVED_ON)


class _Taken(Exception):
    """Rolls the decision back: the incident or the target was taken by somebody else in this very moment."""
