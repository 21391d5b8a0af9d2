"""What the card and the thread say of a cause: the chain as it was checked, who agrees, what else it may be."""

from __future__ import annotations

from typing import assert_never

from bot.slack.kit import Block, section
from bot.slack.text import inline, one_line
from bot.slack.wording import evidence_refs, refs
from pipeline.domain.confidence import Trust
from pipeline.domain.diagnosis import CheckedStep, Conclusion, Diagnosis, Opinion

CAUSE_CHARS = 280
"""About two lines on a phone in all."""
DISAGREES_BELOW = 0.5
"""A reviewer's score from which on it rather agrees."""
SHOWN_ALTERNATIVES = 3
_TRUST_SIGN = {Trust.NOTHING: "⛔", Trust.PROPOSAL: "👤", Trust.AUTONOMY: "✅"}


def cause_blocks(diagnosis: Diagnosis | None) -> list[Block]:
    """The cause in two lines and the checked chain; where it is not proven, what else it may be and what is missing."""
    if diagnosis is None:
        return []
    claims = [claim for claim in diagnosis.claims if one_line(claim.text) != one_line(diagnosis.root_cause)]
    said = [claim for claim in diagnosis.claims if claim not in claims] or list(diagnosis.claims)
    lines = [
        f"*{_title(diagnosis)}*",
        f"{inline(diagnosis.root_cause, CAUSE_CHARS // 2 + 40)} {evidence_refs(said, most=3)}".rstrip(),
    ]
    if claims and not diagnosis.path.steps:
        lines.append(f"{inline(claims[0].text, CAUSE_CHARS // 2)} {evidence_refs(claims[:1], most=3)}")
    lines += [_chain(diagnosis), *(_disagreement(one) for one in diagnosis.opinions if one.score < DISAGREES_BELOW)]
    blocks = [section("\n".join(line for line in lines if line))]
    if not diagnosis.path.holds and (open_questions := _open_questions(diagnosis)):
        blocks.append(section("\n".join(open_questions)))
    return blocks


def confidence_words(diagnosis: Diagnosis | None) -> str:
    """The score, what it is enough for, and the four parts it is made of."""
    if diagnosis is None:
        return "—"
    confidence = diagnosis.confidence
    trust = confidence.trust
    return f"*{confidence.score:.2f}* {_TRUST_SIGN[trust]} {trust.value}\n{confidence.parts()}"


def path_lines(diagnosis: Diagnosis) -> list[str]:
    """Every step of the chain with its evidence and what the check found."""
    steps = diagnosis.path.steps
    if not steps:
        return [f"\n*Causal path*: {inline(diagnosis.path.why_not(), 300)}"]
    head = "every hop is checked" if diagnosis.path.holds else inline(diagnosis.path.why_not(), 300)
    lines = [f"\n*Causal path*: {head}"]
    for number, step in enumerate(steps, start=1):
        sign, remark = ("✗", step.problem) if step.problem else ("✓", step.found)
        note = f": _{inline(remark, 200)}_" if remark else ""
        lines.append(
            f"{number}. {sign} {inline(step.service, 60)}: {inline(step.what, 300)} {refs(step.evidence)}{note}"
        )
    return lines


def opinion_lines(diagnosis: Diagnosis) -> list[str]:
    """What each reviewer said."""
    if not diagnosis.opinions:
        return []
    lines = ["\n*Second opinion*"]
    for opinion in diagnosis.opinions:
        notes = "; ".join(inline(note, 200) for note in opinion.notes[:5]) or "nothing to object"
        lines.append(f"• {_reviewer(opinion)} `{opinion.score:.2f}` {notes}")
    return lines


def alternative_lines(diagnosis: Diagnosis) -> list[str]:
    """Competing causes, and what would have to be read to be sure."""
    lines = _open_questions(diagnosis)
    return [f"\n{lines[0]}", *lines[1:]] if lines else []


def _title(diagnosis: Diagnosis) -> str:
    match diagnosis.conclusion:
        case Conclusion.CAUSE:
            return "Likely cause" if diagnosis.path.holds else "Possible cause, not proven"
        case Conclusion.INSUFFICIENT_EVIDENCE:
            return "Insufficient evidence"
        case Conclusion.HEALTHY:
            return "Healthy now"
        case _:
            assert_never(diagnosis.conclusion)


def _chain(diagnosis: Diagnosis) -> str:
    """``✓ traffic of checkout 2.4× [E2] → ✓ p99 latency 1.9 s [E1]``."""
    if not diagnosis.path.steps:
        return ""
    return " → ".join(_link(step) for step in diagnosis.path.steps)


def _link(step: CheckedStep) -> str:
    sign = "✗" if step.problem else "✓"
    return f"{sign} {inline(step.what, 90)} {refs(step.evidence[:2])}".rstrip()


def _disagreement(opinion: Opinion) -> str:
    first = inline(opinion.notes[0], 160) if opinion.notes else "it gives no reason"
    return f"⚠️ {_reviewer(opinion)} does not agree ({opinion.score:.2f}): {first}"


def _reviewer(opinion: Opinion) -> str:
    return "rule engine" if opinion.reviewer == "rules" else inline(opinion.reviewer, 60)


def _open_questions(diagnosis: Diagnosis) -> list[str]:
    lines: list[str] = []
    if diagnosis.alternatives:
        lines.append("*It may also be*")
        lines += [
            f"• {inline(other.root_cause, 160)} _but {inline(other.why_not, 160)}_"
            for other in diagnosis.alternatives[:SHOWN_ALTERNATIVES]
        ]
    if diagnosis.missing:
        lines.append("*Missing to be sure*")
        lines += [f"• {inline(what, 200)}" for what in diagnosis.missing]
    return lines
