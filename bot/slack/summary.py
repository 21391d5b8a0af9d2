"""The draft of a post-mortem: what the case and its trail say, and what is left for people to fill in."""

from __future__ import annotations

import re
from collections.abc import Sequence

from bot.slack.kit import Block, divider, paragraphs
from bot.slack.standing import approvals_line, rollback_told
from bot.slack.text import clock, counted, day_and_time, inline, mention
from bot.slack.wording import evidence_refs, source_name, started_at
from pipeline.domain.action_words import describe_action
from pipeline.domain.ids import incident_label
from pipeline.domain.incident import Case
from pipeline.domain.trace import StoredTraceEntry, TraceEntry, TraceKind

TIMELINE_KINDS = frozenset(
    {
        TraceKind.DETECTED,
        TraceKind.HYPOTHESIS,
        TraceKind.PLANNED,
        TraceKind.DECISION,
        TraceKind.EXECUTION,
        TraceKind.RECOVERY,
        TraceKind.VERIFICATION,
    }
)
MAX_TIMELINE = 20
_PERSON = re.compile(r"\b(U0[A-Z0-9]{4,15})\b")


def postmortem(case: Case, trace: Sequence[StoredTraceEntry]) -> list[Block]:
    """Blocks of the draft. Facts only; questions that data cannot answer are left open and say so."""
    incident = case.incident
    lines = [
        f"*Post-mortem draft* · {incident_label(incident.id)} · {incident.severity}",
        f"*What happened*: {inline(incident.title, 300)} on {inline(incident.service, 80)}"
        f" ({inline(incident.environment, 60)}), from {day_and_time(started_at(case))}.",
        f"*Impact*: {_impact(case)}",
        f"*Cause*: {_cause(case)}",
        f"*Action*: {_action(case)}",
    ]
    timeline = [stored for stored in trace if stored.entry.kind in TIMELINE_KINDS]
    if timeline:
        lines.append("*Timeline*")
        lines += [f"• {clock(stored.at)} {_event(stored.entry)}" for stored in timeline[:MAX_TIMELINE]]
    if len(timeline) > MAX_TIMELINE:
        lines.append(f"• … {len(timeline) - MAX_TIMELINE} more in the trail")
    lines.append(
        "*For people to fill in*: what let it happen · what would have shown it earlier · what to change, and who"
    )
    return [divider(), *paragraphs(lines)]


def _event(entry: TraceEntry) -> str:
    shown = inline(entry.summary, 240)
    # Decisions name people by id, and are written from Slack's own payloads.
    return _PERSON.sub(r"<@\1>", shown) if entry.kind is TraceKind.DECISION else shown


def _impact(case: Case) -> str:
    seen = [
        inline(item.anomaly.key.describe(), 120)
        + ("" if item.cleared_at is None else f" (over {clock(item.cleared_at)})")
        for item in case.anomalies[:5]
    ]
    more = f", {len(case.anomalies) - 5} more" if len(case.anomalies) > 5 else ""
    callers = ", ".join(inline(caller, 60) for caller in case.callers[:5]) or "none seen"
    return f"{counted(len(case.anomalies), 'alert')}: {'; '.join(seen)}{more}. Callers: {callers}."


def _cause(case: Case) -> str:
    if case.diagnosis is None:
        return "not found."
    diagnosis = case.diagnosis
    score = f"confidence {diagnosis.confidence.score:.2f}, {source_name(diagnosis)}"
    return f"{inline(diagnosis.root_cause, 600)} {evidence_refs(diagnosis.claims)} ({score})"


def _action(case: Case) -> str:
    if case.plan is None:
        return "none proposed."
    what = inline(describe_action(case.plan.action), 300)
    by = approvals_line(case)
    rejections = [approval for approval in case.approvals if approval.decision == "reject"]
    if rejections:
        said = rejections[-1]
        return f"{what}: rejected by {mention(said.user_id)} ({inline(said.reason, 300)}); nothing was changed."
    if case.execution is None:
        return f"{what}: proposed, not run; nothing was changed."
    changes = counted(case.execution.physical_changes, "change")
    state = case.execution.state.replace("_", " ")
    return f"{what}: {f'approved by {by}, ' if by else ''}{state}, {changes}{rollback_told(case)}."
