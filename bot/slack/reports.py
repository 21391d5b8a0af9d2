"""Answers in lists: status, incidents, approvals, phase. Every line is safe mrkdwn."""

from __future__ import annotations

from collections.abc import Sequence

from bot.slack.kit import Block, context, header, paragraphs, section
from bot.slack.standing import incident_word, standing
from bot.slack.text import clock, code, counted, day_and_time, inline, mention, sentence
from bot.slack.wording import evidence_refs, source_name, started_at
from pipeline.domain.action_words import describe_action
from pipeline.domain.ids import incident_label
from pipeline.domain.incident import Case, Incident
from pipeline.ports.control import KillSwitch
from pipeline.stages.desk import PhaseReport, Status


def incident_line(incident: Incident) -> str:
    """One incident on one line, with how it ended where it did."""
    outcome = f": {sentence(incident.outcome)}" if incident.outcome else ""
    since = "" if incident.over else f" · so since {clock(incident.state_since)}"
    return (
        f"*{incident_label(incident.id)}* {incident_word(incident)} · {incident.severity} ·"
        f" {inline(incident.service, 80)} · {inline(incident.title, 150)}"
        f" · {day_and_time(incident.opened_at)}{since}{outcome}"
    )


def switch_line(switch: KillSwitch) -> str:
    """``🛑 all stopped by @alice 14:05: deploy freeze``."""
    line = f"🛑 *{inline(switch.scope, 80)}* stopped by {mention(switch.changed_by)} {clock(switch.changed_at)}"
    line += f": {inline(switch.reason, 300)}"
    if switch.resume_asked_by:
        line += f" · {mention(switch.resume_asked_by)} asked to resume, one more person is needed"
    return line


def criteria_lines(report: PhaseReport) -> list[str]:
    """The five graduation criteria with figures."""
    lines = [
        f"{'✅' if criterion.met else '❌'} {inline(criterion.title, 120)}: {inline(criterion.have, 60)}"
        f" (needs {inline(criterion.need, 60)})"
        for criterion in report.criteria
    ]
    missing = sum(not criterion.met for criterion in report.criteria)
    lines.append("All criteria are met." if not missing else f"{missing} of {len(report.criteria)} are missing.")
    return lines


def status_blocks(status: Status) -> list[Block]:
    """Phase, switches, open incidents, what waits, telemetry, outbox, fallbacks."""
    lines = [f"Phase *{status.phase.capitalize()}* · diagnosis by {inline(status.diagnostician, 80)}"]
    lines += [switch_line(switch) for switch in status.switches] or ["Kill switch: off"]
    incidents, plans = counted(len(status.open_incidents), "open incident"), counted(status.waiting, "plan")
    lines.append(f"{incidents} · {plans} waiting for a decision · {status.series_watched} series watched")
    lines += [incident_line(incident) for incident in status.open_incidents[:10]]
    lines.append("*Telemetry*")
    for source in status.sources:
        failing = "; ".join(inline(failure, 200) for failure in source.failures)
        mark = f"⚠️ {failing}" if failing else "✅"
        turned_away = ", ".join(f"{count} {reason}" for reason, count in sorted(source.rejected.items()))
        lines.append(
            f"{code(source.source, 120)} {mark} · read {clock(source.read_at)}"
            + (f" · values turned away since the start: {turned_away}" if turned_away else "")
        )
    if not status.sources:
        lines.append("⚠️ nothing has been read yet")
    lines.append(_outbox(status))
    if status.fallbacks:
        lines += ["*Doing without*", *[f"• {inline(fallback, 300)}" for fallback in status.fallbacks]]
    return [header("sre-bot status"), *paragraphs(lines)]


def _outbox(status: Status) -> str:
    dead, pending = status.outbox.get("dead", 0), status.outbox.get("pending", 0)
    line = f"Messages to the outside: {pending} waiting"
    said = f"⚠️ {line}, {dead} could not be sent (`sre-bot outbox list` says why, `replay` sends them again)"
    return said if dead else line


def case_blocks(case: Case) -> list[Block]:
    """One incident in short."""
    now = standing(case)
    lines = [
        f"{now.emoji} *{now.word}* · {case.incident.severity} · {inline(case.incident.service, 80)}"
        f" · since {clock(started_at(case))}"
    ]
    if now.line:
        lines.append(now.line)
    if case.diagnosis is not None:
        cause = inline(case.diagnosis.root_cause, 400)
        lines.append(f"*Likely cause* {cause} {evidence_refs(case.diagnosis.claims)} ({source_name(case.diagnosis)})")
    if case.plan is not None:
        lines.append(f"*Action* {inline(describe_action(case.plan.action), 300)}")
    title = f"{incident_label(case.incident.id)} · {case.incident.title}"
    return [header(title), *paragraphs(lines), context(f"phase {case.phase.capitalize()}")]


def incidents_blocks(incidents: Sequence[Incident]) -> list[Block]:
    """Open ones first, then recent ones, as the desk gives them."""
    if not incidents:
        return [section("No incidents yet.")]
    return [header("Incidents"), *paragraphs([incident_line(incident) for incident in incidents])]


def approvals_blocks(cases: Sequence[Case]) -> list[Block]:
    """What waits for a decision; the decision itself is made on the card or on App Home."""
    if not cases:
        return [section("Nothing waits for a decision.")]
    lines = []
    for case in cases:
        if case.plan is None:
            continue
        lines.append(
            f"*{incident_label(case.incident.id)}* {case.incident.severity} · {inline(case.incident.service, 80)}:"
            f" {inline(describe_action(case.plan.action), 200)} · expires {clock(case.plan.expires_at)}"
        )
    return [header("Waiting for a decision"), *paragraphs(lines), context("Decide on the card or on the Home tab.")]


def phase_blocks(report: PhaseReport) -> list[Block]:
    return [header(f"Phase: {report.phase.capitalize()}"), *paragraphs(criteria_lines(report))]
