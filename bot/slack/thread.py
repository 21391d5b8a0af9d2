"""The parts of an incident's thread: evidence, reasoning, single lines, verification, closing summary."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import assert_never

from bot.slack import names
from bot.slack.cause import alternative_lines, opinion_lines, path_lines
from bot.slack.kit import (
    TEXT_CHARS,
    Block,
    Message,
    actions,
    button,
    context,
    fit,
    header,
    image,
    paragraphs,
    section,
)
from bot.slack.standing import recovery_s, standing
from bot.slack.summary import postmortem
from bot.slack.text import (
    calling,
    clip,
    clock,
    code,
    code_block,
    counted,
    duration,
    escape,
    inline,
    one_line,
    sentence,
    utc,
)
from bot.slack.wording import evidence_refs, plan_at_stake, source_name, trend_in_words, way_lines
from pipeline.domain.action import ManualAction
from pipeline.domain.action_words import describe_action
from pipeline.domain.confidence import ACT_FROM, PROPOSE_FROM
from pipeline.domain.diagnosis import Evidence
from pipeline.domain.ids import incident_label
from pipeline.domain.incident import Case
from pipeline.domain.notice import ThreadPart
from pipeline.domain.strategy import ALTERNATIVES
from pipeline.domain.telemetry import format_value
from pipeline.domain.trace import StoredTraceEntry, TraceKind
from pipeline.domain.verification import Verdict

LINE_CHARS = 2900
PROMPT_CHARS = 700
"""How much of the prompt the reasoning shows."""
SHOWN_TRACE = frozenset(
    {
        TraceKind.TOOL_CALL,
        TraceKind.PROMPT,
        TraceKind.HYPOTHESIS,
        TraceKind.PATH,
        TraceKind.REVIEW,
        TraceKind.NOTE,
        TraceKind.PLANNED,
    }
)
"""Kinds of the trail that the reasoning shows as steps; the other parts have a paragraph of their own."""
_VERDICT = {
    Verdict.RECOVERED: "✅ Recovered",
    Verdict.NOT_RECOVERED: "❌ Not recovered",
    Verdict.INCONCLUSIVE: "❔ Cannot tell",
    Verdict.PENDING: "⏳ Not judged yet",
}


def render_part(
    part: ThreadPart,
    case: Case,
    trace: Sequence[StoredTraceEntry],
    *,
    text: str = "",
    chart_file_id: str | None = None,
) -> Message:
    """One message for the thread. ``text`` belongs to LINE and REMINDER, ``chart_file_id`` to VERIFICATION."""
    match part:
        case ThreadPart.LINE | ThreadPart.REMINDER:
            shown = calling(text) if part is ThreadPart.REMINDER else sentence(text)
            line = clip(shown, LINE_CHARS) or " "
            return Message(clip(one_line(line), TEXT_CHARS), [section(line)])
        case ThreadPart.EVIDENCE:
            title = f"Evidence: {counted(len(case.evidence), 'fact')}"
            return _message(case, title, evidence_blocks(case))
        case ThreadPart.REASONING:
            wrong = [] if case.diagnosis is None else [actions(_wrong_cause(case))]
            return _message(case, "How this was reasoned", reasoning_blocks(case, trace), last=wrong)
        case ThreadPart.VERIFICATION:
            return _message(case, "Verification", _verification(case, chart_file_id))
        case ThreadPart.SUMMARY:
            feedback = actions(
                button("👍 Helpful", names.HELPFUL, str(case.incident.id)),
                button("👎 Not helpful", names.NOT_HELPFUL, str(case.incident.id)),
                _wrong_cause(case),
            )
            return _message(case, "Closing summary", _summary(case, trace), last=[feedback])
        case _:
            assert_never(part)


def _wrong_cause(case: Case) -> Block:
    return button("Wrong cause", names.WRONG_CAUSE, str(case.incident.id))


def evidence_blocks(case: Case) -> list[Block]:
    """Each fact with the query and the window it was read from."""
    if not case.evidence:
        return [section("No evidence has been gathered yet.")]
    return paragraphs([_fact(item) for item in case.evidence])


def reasoning_blocks(case: Case, trace: Sequence[StoredTraceEntry]) -> list[Block]:
    """Passages with scores, the steps taken, and the arithmetic of confidence and severity."""
    lines = [*_claims(case), *_ways(case), *_passages(case), *_steps(trace), *_asked(trace), *_arithmetic(case)]
    whole = code(f"sre-bot trace {incident_label(case.incident.id)}")
    return [
        *paragraphs([*lines, *_guardrails(case), *_notes(case)]),
        context(f"The whole trail is printed by {whole}."),
    ]


def _message(case: Case, title: str, blocks: Sequence[Block], *, last: Sequence[Block] = ()) -> Message:
    label = incident_label(case.incident.id)
    note = f"… shortened for Slack. The whole trail is printed by `sre-bot trace {label}`."
    text = clip(escape(one_line(f"{label} · {case.incident.service} · {title}")), TEXT_CHARS)
    return Message(text, fit([header(title), *blocks], note, last=last))


def _fact(item: Evidence) -> str:
    window = f"{utc(item.window_from)} to {utc(item.window_to)}"
    asked = f"\n{code(item.query, 700)} · {window}" if item.query else f"\n{window}"
    return f"*[{inline(item.id, 12)}]* {inline(item.statement, 1200)}{asked}"


def _claims(case: Case) -> list[str]:
    diagnosis = case.diagnosis
    if diagnosis is None:
        return ["No diagnosis was reached."]
    lines = [f"*Cause* ({source_name(diagnosis)}): {inline(diagnosis.root_cause, 800)}"]
    lines += [f"• {inline(claim.text, 700)} {evidence_refs([claim])}" for claim in diagnosis.claims]
    return [*lines, *path_lines(diagnosis), *opinion_lines(diagnosis), *alternative_lines(diagnosis)]


def _ways(case: Case) -> list[str]:
    """What is proposed and what was weighed against it, with what each may cost."""
    plan = case.plan
    if plan is None:
        return []
    if isinstance(plan.action, ManualAction):
        first = f"By hand: {code(plan.action.command, 300)}"
    else:
        first = f"First: *{inline(describe_action(plan.action), 300)}* · {plan_at_stake(plan)}"
    tried = [f"Tried before: {inline(one, 300)}" for one in case.tried]
    return ["\n*Ways to go*", first, *way_lines(plan, ALTERNATIVES), *tried]


def _passages(case: Case) -> list[str]:
    if not case.passages:
        return ["\n*Retrieved*: nothing in the runbooks fits."]
    lines = ["\n*Retrieved from the runbooks*"]
    for passage in case.passages:
        title = " › ".join(part for part in (passage.document, passage.heading) if part)
        lines.append(f"• `{passage.score:.2f}` {inline(title, 200)} ({passage.method}): {inline(passage.text, 220)}")
    return lines


def _steps(trace: Sequence[StoredTraceEntry]) -> list[str]:
    shown = [stored for stored in trace if stored.entry.kind in SHOWN_TRACE]
    if not shown:
        return []
    steps = [
        f"• {clock(stored.at)} _{stored.entry.kind.replace('_', ' ')}_ {inline(stored.entry.summary, 400)}"
        for stored in shown
    ]
    return ["\n*Steps*", *steps]


def _asked(trace: Sequence[StoredTraceEntry]) -> list[str]:
    """The beginning of what was asked for the newest diagnosis: a model's prompt, or the rules' facts."""
    exchange = next((s.entry.data for s in reversed(trace) if s.entry.kind is TraceKind.PROMPT), {})
    prompt, facts = exchange.get("prompt"), exchange.get("facts")
    if isinstance(prompt, dict):
        title, asked = "Prompt", str(prompt.get("user", ""))
    elif isinstance(prompt, str):
        title, asked = "Prompt", prompt
    elif facts:
        title, asked = "Facts given to the rules", json.dumps(facts, ensure_ascii=False, indent=1)
    else:
        return []
    more = f", the first {PROMPT_CHARS} of {len(asked)} characters" if len(asked) > PROMPT_CHARS else ""
    return [f"\n*{title}*{more}", code_block(asked[:PROMPT_CHARS], LINE_CHARS)]


def _arithmetic(case: Case) -> list[str]:
    lines = []
    if case.diagnosis is not None:
        confidence = case.diagnosis.confidence
        needs = f"{PROPOSE_FROM:.2f} for a proposal, {ACT_FROM:.2f} to act by itself where the phase allows"
        lines.append(f"\n*Confidence* {confidence.arithmetic()}\n{confidence.trust.value}: it takes {needs}")
    if case.severity is not None:
        lines.append(f"\n*Severity* {case.severity.severity}: {inline(case.severity.arithmetic(), 600)}")
    return lines


def _guardrails(case: Case) -> list[str]:
    if not case.guardrails.answers:
        return []
    answers = [
        f"{'✅' if answer.allowed else '⛔'} {answer.rule.replace('_', ' ')}: {inline(answer.reason, 400)}"
        for answer in case.guardrails.answers
    ]
    return ["\n*Guardrails*", *answers]


def _notes(case: Case) -> list[str]:
    notes = case.diagnosis.notes if case.diagnosis is not None else ()
    return ["\n*Notes*", *[f"• {inline(note, 400)}" for note in notes]] if notes else []


def _verification(case: Case, chart_file_id: str | None) -> list[Block]:
    verification = case.verification
    if verification is None:
        return [section("Nothing has been measured after the action yet.")]
    unit = verification.unit
    usual = "" if verification.expected is None else f" · usually {format_value(verification.expected, unit)}"
    side = "at most" if verification.bound.breach_above else "at least"
    lines = [
        f"*{_VERDICT[verification.verdict]}* after {duration(recovery_s(case, verification))}",
        f"*{inline(verification.sentence(), 300)}*",
        f"Bound: {side} {format_value(verification.bound.threshold, unit)}{usual}",
        f"{inline(verification.reason, 500)} · {counted(verification.samples, 'sample')} newer than the action",
    ]
    blocks = paragraphs(lines)
    if chart_file_id is not None:
        blocks.append(image(chart_file_id, trend_in_words(case)))
    return [*blocks, context(f"measured {clock(verification.at)}")]


def _summary(case: Case, trace: Sequence[StoredTraceEntry]) -> list[Block]:
    now = standing(case)
    lasted = (case.incident.closed_at or case.read_at) - case.incident.opened_at
    lines = [f"*{now.emoji} {now.word}* · open for {duration(lasted.total_seconds())}"]
    if now.line:
        lines.append(now.line)
    return [*paragraphs(lines), *postmortem(case, trace)]
