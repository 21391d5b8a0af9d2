"""Phrases about parts of a case that the card, the thread and the lists share. All of them are safe mrkdwn."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from math import isfinite

from bot.slack.text import inline, one_line
from pipeline.domain.action import is_reversible
from pipeline.domain.diagnosis import Claim, Diagnosis
from pipeline.domain.incident import Case
from pipeline.domain.plan import Plan
from pipeline.domain.telemetry import TRENDING, format_value
from pipeline.domain.verification import Verdict, Verification


def started_at(case: Case) -> datetime:
    """When the first of its anomalies began."""
    return min((item.anomaly.started_at for item in case.anomalies), default=case.incident.opened_at)


def trend_in_words(case: Case) -> str:
    """What the chart shows, for a screen reader; plain text."""
    if not case.anomalies:
        return "no metric"
    lead, found = case.lead, case.verification
    if found is not None and found.verdict is Verdict.RECOVERED:
        return one_line(", ".join([f"{found.sentence()} after the action", *_back_inside(found)]))
    unit = lead.key.unit
    words = [f"{lead.key.describe()} {format_value(lead.value, unit)}"]
    if isfinite(lead.expected) and lead.key.signal not in TRENDING:
        words.append(f"usually {format_value(lead.expected, unit)}")
    side = "above" if lead.bound.breach_above else "below"
    words.append(f"{side} its bound of {format_value(lead.bound.threshold, unit)} since {lead.started_at:%H:%M} UTC")
    if found is not None and found.verdict is Verdict.NOT_RECOVERED:
        words.append(f"not recovered after the action: {found.sentence()}")
    elif found is not None and found.verdict is Verdict.INCONCLUSIVE:
        words.append(f"after the action nobody can tell: {found.reason}")
    return one_line(", ".join(words))


def _back_inside(found: Verification) -> list[str]:
    usual = [] if found.expected is None else [f"usually {format_value(found.expected, found.unit)}"]
    return [*usual, f"back inside its bound of {format_value(found.bound.threshold, found.unit)}"]


def evidence_refs(claims: Iterable[Claim], *, most: int = 99) -> str:
    """``[E1][E3]`` of these claims, each once, in order; the first ``most`` of them."""
    cited = dict.fromkeys(evidence_id for claim in claims for evidence_id in claim.ids)
    return refs(list(cited)[:most])


def refs(ids: Iterable[str]) -> str:
    """``[E1][E3]``."""
    return "".join(f"[{inline(evidence_id, 12)}]" for evidence_id in ids)


def source_name(diagnosis: Diagnosis) -> str:
    """``rule engine`` or the model's name."""
    return "rule engine" if diagnosis.source == "rules" else inline(diagnosis.source, 60)


def reversibility(plan: Plan) -> str:
    return "can be undone" if is_reversible(plan.action) else "cannot be undone"
