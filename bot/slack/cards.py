"""The incident's card: one message in the channel, always drawn whole from the case."""

from __future__ import annotations

from bot.slack import names
from bot.slack.cause import cause_blocks, confidence_words
from bot.slack.kit import (
    HEADER_CHARS,
    TEXT_CHARS,
    Block,
    Message,
    actions,
    button,
    confirm,
    context,
    fields,
    header,
    image,
    overflow,
    section,
    with_ids,
)
from bot.slack.standing import Standing, awaits_decision, shadowed, standing, unsure
from bot.slack.text import clip, clock, code, code_block, counted, escape, inline, mention, one_line
from bot.slack.wording import (
    plan_at_stake,
    source_name,
    started_at,
    takeable,
    trend_in_words,
    way_lines,
)
from pipeline.domain.action import ManualAction, RestartAction
from pipeline.domain.action_words import change_in_words, describe_action
from pipeline.domain.ids import incident_label
from pipeline.domain.incident import Case
from pipeline.domain.lifecycle import IncidentState, PlanState
from pipeline.domain.phase import Phase
from pipeline.domain.plan import Plan

_LEAVES_TO_PERSON = frozenset({PlanState.BLOCKED, PlanState.EXPIRED})
_OFF_THE_TABLE = frozenset({PlanState.APPROVED, PlanState.SUPERSEDED})
SHOWN_WAYS = 3


def render_card(case: Case, *, chart_file_id: str | None) -> Message:
    """The card as it must look now; ``chart_file_id`` is a file that Slack has finished processing."""
    now = standing(case)
    blocks = [header(_headline(case, now)), _facts(case), *cause_blocks(case.diagnosis)]
    if chart_file_id is not None:
        blocks.append(image(chart_file_id, trend_in_words(case)))
    blocks += [*_tried(case), *_proposal(case), *_other_ways(case)]
    blocks += [*_outcome(case, now), _context(case), *_buttons(case)]
    return Message(notification(case), with_ids(blocks, _suffix(case)))


def minimal_card(case: Case) -> Message:
    """What is posted when Slack would refuse the full card: where it stands, and where the rest is to be found."""
    label = incident_label(case.incident.id)
    line = f"*{escape(_headline(case, standing(case)))}*\n{label}: the card could not be drawn; ask for its status."
    return Message(notification(case), with_ids([section(line)], f"minimal-{_suffix(case)}"))


def notification(case: Case) -> str:
    """The line of a push notification: severity, service, what, and where it stands."""
    now = standing(case)
    text = escape(one_line(_headline(case, now))) + (f" · {one_line(now.plain)}" if now.plain else "")
    return clip(text, TEXT_CHARS)


def _suffix(case: Case) -> str:
    return f"{case.incident.id}-{case.incident.version}-{int(case.read_at.timestamp() * 1000)}"


def _headline(case: Case, now: Standing) -> str:
    incident = case.incident
    title = one_line(incident.title).removeprefix(incident.service).lstrip(" :·")
    before, after = f"{now.emoji} {incident.severity} · {one_line(incident.service)[:60]} · ", f" · {now.word}"
    room = max(HEADER_CHARS - len(before) - len(after), 20)
    return before + (title if len(title) <= room else title[: room - 1].rstrip() + "…") + after


def _facts(case: Case) -> Block:
    incident = case.incident
    return fields(
        ("Service", code(incident.service, 120)),
        ("Environment", inline(incident.environment, 80) or "—"),
        ("Started", clock(started_at(case))),
        ("Impact", _impact(case)),
        ("Owner", mention(incident.owner) if incident.owner else inline(case.service_owner, 80) or "unowned"),
        ("Confidence", confidence_words(case.diagnosis)),
    )


def _impact(case: Case) -> str:
    hurt = dict.fromkeys(item.anomaly.key.instance for item in case.anomalies if item.anomaly.key.instance)
    replicas = ""
    if hurt:
        of = f" of {case.plan.replicas_before}" if case.plan and case.plan.replicas_before >= len(hurt) else ""
        replicas = f"{len(hurt)}{of} replicas" if of or len(hurt) > 1 else inline(next(iter(hurt)), 60)
    if not case.callers:
        callers = "no callers seen"
    else:
        shown = ", ".join(inline(caller, 40) for caller in case.callers[:3])
        more = f" +{len(case.callers) - 3}" if len(case.callers) > 3 else ""
        callers = f"called by {shown}{more}"
    return f"{replicas} · {callers}" if replicas else callers


def _tried(case: Case) -> list[Block]:
    return [section(f"🔁 Tried before: {inline('; '.join(case.tried), 400)}")] if case.tried else []


def _proposal(case: Case) -> list[Block]:
    plan = case.plan
    if plan is None or plan.state is PlanState.SUPERSEDED:
        return []
    what = inline(describe_action(plan.action), 300)
    if plan.state is PlanState.APPROVED:
        return [section(f"*Action* {what} · {_target(plan)}")]
    if case.incident.over:
        return [section(f"*Had proposed* {what} · {_target(plan)} · not run")]
    if isinstance(plan.action, ManualAction):
        return [section(f"*To do by hand*: here is the command\n{code_block(plan.action.command)}")]
    facts = [_target(plan), _before_after(plan), plan_at_stake(plan)]
    if awaits_decision(case):
        if plan.requested_by:
            facts.append(f"asked for by {mention(plan.requested_by)}, who may not approve it")
        facts.append(f"{counted(plan.approvals_needed, 'approval')} needed")
        facts.append(f"expires {clock(plan.expires_at)}")
    title = "Would have proposed" if shadowed(case) else "Not proposed" if unsure(case) else "Proposed"
    lines = [
        f"*{title}* {what}",
        " · ".join(fact for fact in facts if fact),
    ]
    if plan.state is PlanState.PROPOSED or shadowed(case):
        if plan.expected_effect:
            lines.append(f"_Expected:_ {inline(plan.expected_effect, 200)}")
        lines.append(_guardrails(case))
    elif plan.state is PlanState.BLOCKED and case.guardrails.answers:
        lines.append(_guardrails(case))
    return [section("\n".join(lines))]


def _other_ways(case: Case) -> list[Block]:
    plan = case.plan
    if plan is None or plan.state in _OFF_THE_TABLE or case.incident.over or unsure(case):
        return []
    lines = way_lines(plan, SHOWN_WAYS, by_hand=not _left_to_person(case))
    return [section("\n".join(lines))] if lines else []


def _outcome(case: Case, now: Standing) -> list[Block]:
    blocks = [section(now.line)] if now.line else []
    if _left_to_person(case):
        blocks.append(section(f"To do it by hand:\n{code_block(case.by_hand)}"))
    return blocks


def _left_to_person(case: Case) -> bool:
    """Whether the card gives the command of the plan itself."""
    plan = case.plan
    if plan is None or plan.state not in _LEAVES_TO_PERSON or case.incident.over or shadowed(case):
        return False
    return bool(case.by_hand) and not isinstance(plan.action, ManualAction)


def _target(plan: Plan) -> str:
    return f"target {code(plan.target.describe(), 160)}" if plan.target else "no target"


def _before_after(plan: Plan) -> str:
    if isinstance(plan.action, RestartAction):
        return f"{len(plan.action.instances)} of {counted(plan.replicas_before, 'replica')} replaced"
    return change_in_words(plan.action)


def _guardrails(case: Case) -> str:
    if not case.guardrails.answers:
        return "Guardrails: ⛔ not checked yet"
    shown = [
        f"{'✅' if answer.allowed else '⛔'} {answer.rule.replace('_', ' ')}"
        + ("" if answer.allowed else f" ({inline(answer.reason, 120)})")
        for answer in case.guardrails.answers
    ]
    return "Guardrails: " + " · ".join(shown)


def _context(case: Case) -> Block:
    incident = case.incident
    parts = [
        f"{counted(len(case.anomalies), 'alert')} folded" if len(case.anomalies) > 1 else "1 alert",
        f"updated {clock(incident.updated_at)}",
        incident_label(incident.id),
        f"phase {case.phase.capitalize()}",
    ]
    if case.diagnosis is not None:
        parts.append(source_name(case.diagnosis))
        if case.diagnosis.cached_from:
            parts.append(f"from the cache: {inline(case.diagnosis.cached_from, 20)}")
        if case.diagnosis.novel:
            parts.append("nothing known is like this")
    if case.generated_baseline:
        parts.append("baseline includes generated demo history")
    if incident.muted_until is not None and incident.muted_until > case.read_at:
        parts.append(f"🔕 muted until {clock(incident.muted_until)}")
    notes = [inline(note, 160) for note in case.diagnosis.notes[:2]] if case.diagnosis else []
    return context(" · ".join(parts), *notes)


def _buttons(case: Case) -> list[Block]:
    incident = case.incident
    waits_for_people = incident.state in (
        IncidentState.OPEN,
        IncidentState.DIAGNOSING,
        IncidentState.AWAITING_DECISION,
        IncidentState.ESCALATED,
    )
    if case.phase is Phase.SHADOW or not waits_for_people:
        return []
    evidence = button("Evidence", names.EVIDENCE, str(incident.id))
    return [actions(*(decision_buttons(case) or [evidence]), overflow(names.MORE, _more(case)))]


def decision_buttons(case: Case) -> list[Block]:
    """Approve, Reject, Evidence, Dry run, and the other ways if any; empty when nobody can decide anything now."""
    plan = case.plan
    if plan is None or not awaits_decision(case):
        return []
    return [
        button("Approve", names.APPROVE, plan.token, style="primary", confirm=_confirm(case, plan)),
        button("Reject", names.REJECT, plan.token, style="danger"),
        button("Evidence", names.EVIDENCE, str(case.incident.id)),
        button("Dry run", names.DRY_RUN, str(case.incident.id)),
        *([button("Other ways", names.OTHER_WAYS, plan.token)] if takeable(plan) else []),
    ]


def _confirm(case: Case, plan: Plan) -> Block:
    given = sum(approval.decision == "approve" for approval in case.approvals)
    where = f" in {code(plan.target.describe(), 80)}" if plan.target else ""
    text = f"*{inline(describe_action(plan.action), 110)}*{where}: {plan_at_stake(plan)}."
    text += " The guardrails are checked again right before."
    if plan.approvals_needed > 1:
        text += f" Approval {given + 1} of {plan.approvals_needed}."
    return confirm("Approve and run it now?", text, "Approve", "Not yet")


def _more(case: Case) -> list[tuple[str, str]]:
    options = [
        ("Mute", names.MORE_MUTE),
        ("Not an incident", names.MORE_NOT_AN_INCIDENT),
        ("Take ownership", names.MORE_TAKE_OWNERSHIP),
        ("Escalate", names.MORE_ESCALATE),
        ("Close", names.MORE_CLOSE),
    ]
    if case.incident.state is IncidentState.ESCALATED:
        options = [option for option in options if option[1] != names.MORE_ESCALATE]
    return [(text, f"{what}:{case.incident.id}") for text, what in options]
