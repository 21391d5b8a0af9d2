"""Phrases about parts of a case that the card, the thread and the lists share. All of them are safe mrkdwn."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from math import isfinite

from bot.slack.text import code, inline, one_line
from pipeline.domain.action import is_reversible
from pipeline.domain.diagnosis import Claim, Diagnosis
from pipeline.domain.incident import Case
from pipeline.domain.plan import Alternative, Plan, Risk
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


def at_stake(risk: Risk | None, *, reversible: bool) -> str:
    """``medium risk · cannot be undone``; without the risk where it was not weighed."""
    undone = "can be undone" if reversible else "cannot be undone"
    return f"{risk} risk · {undone}" if risk else undone


def plan_at_stake(plan: Plan) -> str:
    """The same of a plan's own action."""
    return at_stake(plan.risk, reversible=is_reversible(plan.action))


def way_lines(plan: Plan, most: int, *, by_hand: bool = True) -> list[str]:
    """The plan's alternatives, each on a line: ``Or: *Scale …* · low risk · can be undone · what it brings``.

    At most ``most``; with ``by_hand`` what a person would type is always among them.
    """
    manual = [one for one in plan.alternatives if one.kind == "manual"][: int(by_hand)]
    lines = [
        f"Or: *{inline(way_name(plan, one), 160)}* · {at_stake(one.risk, reversible=one.reversible)}"
        f" · {inline(one.effect, 120)}"
        for _, one in takeable(plan)[: most - len(manual)]
    ]
    return [*lines, *(f"Or by hand: {code(one.what, 300)}" for one in manual)]


def takeable(plan: Plan) -> list[tuple[int, Alternative]]:
    """The alternatives that an executor could do, with their place in the plan."""
    return [(number, one) for number, one in enumerate(plan.alternatives) if one.kind != "manual"]


def way_name(plan: Plan, way: Alternative) -> str:
    """What it is, and where when that is another platform than the plan's; not escaped."""
    here = plan.target.platform if plan.target else None
    return way.what if way.platform in (None, here) else f"{way.what} on {str(way.platform).replace('_', ' ')}"
