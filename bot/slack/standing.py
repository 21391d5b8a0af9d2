"""Where an incident stands, in an emoji, a word and a sentence: the same on the card, in lists and on App Home."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime
from typing import assert_never

from bot.slack.text import clock, counted, duration, inline, mention, sentence
from pipeline.domain.action import ManualAction
from pipeline.domain.confidence import PROPOSE_FROM
from pipeline.domain.execution import Execution, StepState
from pipeline.domain.guardrail import RuleAnswer
from pipeline.domain.incident import Case, Incident
from pipeline.domain.lifecycle import ExecutionState, IncidentState, PlanState
from pipeline.domain.phase import Phase
from pipeline.domain.plan import Plan
from pipeline.domain.undo import put_back
from pipeline.domain.verification import Verdict, Verification

REASON_CHARS = 300
REJECTED_BY = "rejected by"
"""How the outcome of an incident begins whose plan somebody rejected."""


@dataclass(frozen=True, slots=True)
class Standing:
    """``line`` and ``plain`` are escaped; empty while there is nothing to add to ``word``."""

    emoji: str
    word: str
    line: str = ""
    plain: str = ""
    """A short form of ``line`` for notifications."""


def awaits_decision(case: Case) -> bool:
    """Whether a click on Approve or Reject can do something: an open plan with an executor, outside Shadow."""
    return (
        case.incident.state is IncidentState.AWAITING_DECISION
        and case.plan is not None
        and case.plan.state is PlanState.PROPOSED
        and not isinstance(case.plan.action, ManualAction)
        and case.phase is not Phase.SHADOW
    )


def shadowed(case: Case) -> bool:
    """Whether the card only says what would have been proposed."""
    plan = case.plan
    return (
        case.phase is Phase.SHADOW
        and plan is not None
        and case.execution is None
        and not isinstance(plan.action, ManualAction)
        and plan.state in (PlanState.PROPOSED, PlanState.BLOCKED, PlanState.EXPIRED)
    )


def unsure(case: Case) -> bool:
    """Whether nothing is proposed because the diagnosis is not trusted enough."""
    return (
        case.diagnosis is not None
        and case.diagnosis.confidence.score < PROPOSE_FROM
        and case.plan is not None
        and case.plan.state is PlanState.BLOCKED
    )


def standing(case: Case) -> Standing:
    """Where the case stands now."""
    state = case.incident.state
    match state:
        case IncidentState.OPEN | IncidentState.DIAGNOSING:
            return Standing("🔎", "Diagnosing", "Reading metrics, callers, the workload and the runbooks.")
        case IncidentState.AWAITING_DECISION:
            return _waiting(case)
        case IncidentState.MITIGATING:
            return _running(case)
        case IncidentState.VERIFYING:
            line = f"{_decided(case)} · action done, waiting for fresh samples"
            return Standing("🟡", "Verifying", line, "action done, waiting for fresh samples")
        case IncidentState.RESOLVED:
            return _recovered(case)
        case IncidentState.SELF_RECOVERED:
            return _back_inside(case)
        case IncidentState.ESCALATED:
            return _escalated(case)
        case IncidentState.CLOSED:
            return _with_outcome("⚪", "Closed", case.incident)
        case _:
            assert_never(state)


def incident_word(incident: Incident) -> str:
    """Emoji and word where only the incident's row is at hand."""
    if incident.state is IncidentState.ESCALATED and incident.outcome.startswith(REJECTED_BY):
        return "✋ Rejected"
    emoji, word = {
        IncidentState.OPEN: ("🔎", "Diagnosing"),
        IncidentState.DIAGNOSING: ("🔎", "Diagnosing"),
        IncidentState.AWAITING_DECISION: ("🔴", "Awaiting decision"),
        IncidentState.MITIGATING: ("🟡", "Action running"),
        IncidentState.VERIFYING: ("🟡", "Verifying"),
        IncidentState.RESOLVED: ("✅", "Recovered"),
        IncidentState.SELF_RECOVERED: ("✅", "Recovered by itself"),
        IncidentState.ESCALATED: ("🚨", "Needs a person"),
        IncidentState.CLOSED: ("⚪", "Closed"),
    }[incident.state]
    return f"{emoji} {word}"


def approvals_line(case: Case) -> str:
    """Who approved and when: ``<@U1> 14:07, <@U2> 14:09``; empty when nobody did."""
    return ", ".join(f"{mention(a.user_id)} {clock(a.at)}" for a in case.approvals if a.decision == "approve")


def recovery_s(case: Case, verification: Verification) -> float:
    """Seconds from the action's start to the verdict (from its end where the start is not known)."""
    started = _started_at(case.execution)
    return verification.took_s if started is None else (verification.at - started).total_seconds()


def _waiting(case: Case) -> Standing:
    plan = case.plan
    if plan is None:
        return _with_outcome("🚨", "Needs a person", case.incident)
    ended = _plan_ended(case, plan)
    if ended is not None:
        return ended
    given = sum(approval.decision == "approve" for approval in case.approvals)
    if given and plan.approvals_needed > given:
        missing = plan.approvals_needed - given
        line = f"{given} of {plan.approvals_needed} approvals: {approvals_line(case)} · {missing} more needed"
        return Standing("🔴", f"{given} of {plan.approvals_needed} approvals", line)
    return Standing("🔴", "Awaiting decision")


def _plan_ended(case: Case, plan: Plan) -> Standing | None:
    if isinstance(plan.action, ManualAction):
        return Standing("🔴", "To do by hand", f"Manual: {inline(plan.action.why_manual, REASON_CHARS)}")
    if shadowed(case):
        return Standing("👀", "Shadow", "Nothing is asked and nothing is done in phase Shadow.")
    if unsure(case):
        return Standing("🚨", "Not sure enough · needs a person")
    match plan.state:
        case PlanState.BLOCKED:
            return _blocked(case)
        case PlanState.REJECTED:
            rejection = next((a for a in reversed(case.approvals) if a.decision == "reject"), None)
            if rejection is None:
                return Standing("🚫", "Rejected", "🚫 rejected; nothing was changed")
            who = f"🚫 rejected by {mention(rejection.user_id)} {clock(rejection.at)}"
            return Standing("🚫", "Rejected", f"{who}: {inline(rejection.reason, REASON_CHARS)} · nothing was changed")
        case PlanState.EXPIRED:
            line = f"⌛ expired {clock(plan.expires_at)} without a decision; nothing was changed"
            return Standing("⌛", "Expired", line, "nobody decided in time; nothing was changed")
        case PlanState.SUPERSEDED:
            return Standing("🔎", "Diagnosing", "The proposal was withdrawn; a new one is being made.")
        case PlanState.PROPOSED | PlanState.APPROVED:
            return None
        case _:
            assert_never(plan.state)


def _blocked(case: Case) -> Standing:
    refusals = case.guardrails.refusals
    why = "; ".join(refusal(answer) for answer in refusals) or sentence(case.incident.outcome) or "a guardrail said no"
    return Standing("⛔", "Blocked by guardrail", f"⛔ {why} · nothing was changed", "nothing was changed")


def refusal(answer: RuleAnswer) -> str:
    """``cooldown: last action 4 min ago``."""
    return f"*{answer.rule.replace('_', ' ')}*: {inline(answer.reason, REASON_CHARS)}"


def _decided(case: Case) -> str:
    by = approvals_line(case)
    return f"✅ approved by {by}" if by else "✅ approved"


def _running(case: Case) -> Standing:
    if case.rollback is not None:
        waits = _progress(case.rollback)
        return Standing("🟠", "Rolling back", f"{_decided(case)} · ❌ it did not help, rolling back{waits}")
    execution = case.execution
    if execution is not None and execution.state is ExecutionState.UNKNOWN:
        line = f"{_decided(case)} · ❔ no answer from the target; reading it back before anything else is done"
        return Standing("🟠", "Outcome unknown", line, "no answer from the target, reading it back")
    progress = _progress(execution)
    line = f"{_decided(case)} · running{progress}\n_Reply *stop* in the thread to halt it._"
    return Standing("🟡", "Approved · running", line, progress.removeprefix(", "))


def _progress(execution: Execution | None) -> str:
    if execution is None:
        return ""
    if execution.waiting_since is not None:
        return f", waiting since {clock(execution.waiting_since)}: {inline(execution.detail, 200) or 'for the target'}"
    if len(execution.steps) < 2:
        return ""
    if execution.watching_since is not None and execution.awaits_canary:
        return f", the first replica is watched since {clock(execution.watching_since)} before the others follow"
    done = sum(step.state is StepState.APPLIED for step in execution.steps)
    return f", step {min(done + 1, len(execution.steps))} of {len(execution.steps)}"


def _recovered(case: Case) -> Standing:
    verification = case.verification
    if verification is None or verification.verdict is not Verdict.RECOVERED:
        return _with_outcome("✅", "Recovered", case.incident)
    took = f"recovered in {duration(recovery_s(case, verification))}: "
    result = inline(verification.sentence(), 200)
    approved = f"{_decided(case)}\n" if case.approvals else ""
    return Standing("✅", "Recovered", f"{approved}✅ {took}*{result}*", took + result)


def _back_inside(case: Case) -> Standing:
    if case.execution is None or case.execution.physical_changes == 0:
        return _with_outcome("✅", "Recovered by itself", case.incident)
    # Something was changed and could not be shown to have helped: neither it nor luck gets the credit.
    now = _with_outcome("✅", "Back to normal", case.incident)
    line = f"{_decided(case)}\n{now.line}" if now.line else _decided(case)
    return replace(now, line=line)


def _escalated(case: Case) -> Standing:
    failed = _after_action(case)
    if failed is not None and not _another_followed(case):
        return failed
    if case.plan is not None:
        ended = _plan_ended(case, case.plan)
        if ended is not None:
            return ended
    return _with_outcome("🚨", "Escalated · needs a person", case.incident)


def _another_followed(case: Case) -> bool:
    """Whether something else was proposed after what was done; what a person is to do by hand does not count."""
    plan, execution = case.plan, case.execution
    if plan is None or execution is None or isinstance(plan.action, ManualAction):
        return False
    return execution.plan_id != plan.id


def _after_action(case: Case) -> Standing | None:
    execution, verification = case.execution, case.verification
    if execution is None:
        return None
    # Who approved is known of the newest plan alone.
    decided = f"{_decided(case)}\n" if case.plan is not None and case.plan.id == execution.plan_id else ""
    if verification is not None and verification.verdict is Verdict.NOT_RECOVERED:
        what = "rolled back" if _rolled_back(case) else "needs a person"
        told = rollback_told(case) or ", needs a person"
        line = f"{decided}❌ not recovered{told} · *{inline(verification.sentence(), 200)}*"
        return Standing("❌", f"Not recovered · {what}", line, inline(verification.sentence(), 200))
    if verification is not None and verification.verdict is Verdict.INCONCLUSIVE:
        line = f"{decided}❔ cannot tell whether it helped: {inline(verification.reason, 200)}"
        return Standing("❔", "Cannot tell", line, inline(verification.reason, 200))
    if execution.state in (ExecutionState.UNKNOWN, ExecutionState.NEEDS_HUMAN):
        detail = inline(execution.detail, REASON_CHARS) or "the target gave no answer"
        line = f"{decided}❔ it is not known whether the action took effect: {detail}. Look at the target."
        return Standing("❔", "Outcome unknown · needs a person", line, "look at the target")
    if execution.state is ExecutionState.FAILED:
        changes = counted(execution.physical_changes, "change") if execution.physical_changes else "nothing"
        detail = inline(execution.detail or case.incident.outcome, REASON_CHARS)
        line = f"{decided}❌ the action failed: {detail} · {changes} made{rollback_told(case)}"
        return Standing("❌", "Action failed · needs a person", line.replace("nothing made", "nothing was changed"))
    return None


def _rolled_back(case: Case) -> bool:
    return case.rollback is not None and case.rollback.applied_at is not None


def rollback_told(case: Case) -> str:
    """``, rolled back: 4 → 2 replicas``, or why it was not; empty where no rollback was ordered."""
    if case.rollback is None:
        return ""
    if _rolled_back(case):
        change = put_back(case.rollback)
        return f", rolled back: {change}" if change else ", rolled back"
    if case.rollback.state in (ExecutionState.UNKNOWN, ExecutionState.NEEDS_HUMAN):
        return ", and it is not known whether the rollback took effect"
    return f", and the rollback did not go through: {inline(case.rollback.detail, 200) or 'no reason given'}"


def _with_outcome(emoji: str, word: str, incident: Incident) -> Standing:
    outcome = sentence(incident.outcome)
    return Standing(emoji, word, f"{emoji} {outcome}" if outcome else "", outcome)


def _started_at(execution: Execution | None) -> datetime | None:
    return execution.started_at if execution is not None else None
