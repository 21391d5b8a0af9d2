"""What a run of a case was worth: pure, from what was expected and what was told."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Literal

from pydantic import BaseModel, ConfigDict

from bot.eval_cases import RecordedCase
from bot.eval_files import parse_series
from bot.eval_forms import Cause, Cited, Expected
from bot.eval_runner import Run, Told
from pipeline.domain.changes import SHORT_REVISION
from pipeline.domain.diagnosis import Category, Conclusion, Evidence

Right = Callable[[Cause, Told], bool]
FIRST = 3
NOTHING = "no incident"


class CaseResult(BaseModel):
    """One row of the table. None stands for what does not apply to the case, as a root cause where nothing broke."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    id: str
    expected: str
    got: str
    conclusion_right: bool
    category_right: bool | None
    top1: bool | None
    top3: bool | None
    evidence_found: int
    evidence_wanted: int
    path_holds: bool | None
    path_problem: str
    offered: bool
    should_offer: bool | None
    why_not_offered: str
    forbidden: tuple[str, ...]
    false_alarm: bool
    severity: str
    severity_right: bool | None
    confidence: float | None
    incidents: int
    """That a person has to look at: without those folded into others."""
    said: str
    source: str
    fell_back: bool
    """The model gave no answer, and another's counts."""
    tokens_in: int
    tokens_out: int
    cost_usd: float | None
    seconds: float
    diagnosis_s: float

    @property
    def right(self) -> bool:
        """Whether there is nothing to find fault with."""
        told_right = self.conclusion_right and self.category_right is not False and self.top1 is not False
        return told_right and not self.forbidden and not self.false_alarm and not self.offered_wrongly

    @property
    def offered_wrongly(self) -> bool:
        return self.offered and self.should_offer is False


class Totals(BaseModel):
    """Over all cases; each share with how many cases it is a share of."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    cases: int
    right: int
    conclusion: tuple[int, int]
    category: tuple[int, int]
    top1: tuple[int, int]
    top3: tuple[int, int]
    evidence: tuple[int, int]
    path: tuple[int, int]
    offered: tuple[int, int]
    """Of the cases in which an Approve button should be there, those in which it was."""
    offered_wrongly: int
    forbidden: int
    false_alarms: tuple[int, int]
    """Of the healthy cases, those in which something was said to be wrong."""
    severity: tuple[int, int]
    fell_back: int
    tokens_in: int
    tokens_out: int
    cost_usd: float | None
    seconds: float


class Report(BaseModel):
    """What `--out` writes and `--baseline` reads."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    schema_version: Literal[1] = 1
    model: str
    totals: Totals
    cases: tuple[CaseResult, ...]


def score(case: RecordedCase, run: Run, model: str, price: tuple[float, float] | None) -> CaseResult:
    """Compares. ``model``: who was asked. ``price``: USD for a million tokens sent and written; None: not known."""
    expected = case.expected
    standing = sorted((told for told in run.told if not told.folded), key=_first)
    mine = [_for(cause, standing) for cause in expected.causes] if expected.causes else standing[:1]
    found = [told for told in mine if told is not None]
    lead = found[0] if found else (standing[0] if standing else None)
    wanted = expected.causes
    roots = list(dict.fromkeys([one.root for one in standing])) if len(wanted) > 1 else []
    blamed = list(dict.fromkeys([*(lead.suspects[:1] if lead else ()), *roots, *(lead.suspects if lead else ())]))
    tokens_in, tokens_out = sum(told.tokens_in for told in run.told), sum(told.tokens_out for told in run.told)
    cited = [item for told in standing for item in told.cited]
    offered = any(told.offered for told in run.told)
    worst = min((told.severity for told in standing), default="")
    return CaseResult(
        id=case.id,
        expected=_in_words(expected.conclusion, wanted),
        got=_got(found or standing[:1]),
        conclusion_right=_conclusion_right(expected, standing, found),
        category_right=_each(wanted, mine, lambda cause, told: _category_right(expected, cause, told)),
        top1=_each(wanted, mine, lambda cause, told: told.root in (cause.service, *expected.acceptable.services)),
        top3=_in_first(expected, blamed),
        evidence_found=sum(any(_is(wish, item) for item in cited) for wish in expected.evidence),
        evidence_wanted=len(expected.evidence),
        path_holds=_each(wanted, mine, lambda _, told: told.path_holds),
        path_problem=next((told.path_problem for told in found if not told.path_holds), ""),
        offered=offered,
        should_offer=expected.offers,
        why_not_offered=lead.why_not_offered if lead and not offered else "",
        forbidden=_forbidden(expected, standing),
        false_alarm=expected.conclusion is Conclusion.HEALTHY
        and any(told.conclusion is not Conclusion.HEALTHY or told.offered for told in run.told),
        severity=worst,
        severity_right=worst in {one.value for one in expected.severity} if expected.severity else None,
        confidence=round(lead.confidence, 3) if lead else None,
        incidents=len(standing),
        said=lead.cause if lead else "",
        source=lead.source if lead else "",
        fell_back=any(told.source not in ("", model) for told in run.told),
        tokens_in=tokens_in,
        tokens_out=tokens_out,
        cost_usd=_cost(tokens_in, tokens_out, price),
        seconds=round(run.seconds, 3),
        diagnosis_s=round(run.diagnosis_s, 3),
    )


def totals(results: Sequence[CaseResult]) -> Totals:
    """Adds up."""

    def share(values: Sequence[bool | None]) -> tuple[int, int]:
        known = [value for value in values if value is not None]
        return sum(known), len(known)

    costs = [one.cost_usd for one in results]
    healthy = [one for one in results if one.expected == Conclusion.HEALTHY.value]
    return Totals(
        cases=len(results),
        right=sum(one.right for one in results),
        conclusion=share([one.conclusion_right for one in results]),
        category=share([one.category_right for one in results]),
        top1=share([one.top1 for one in results]),
        top3=share([one.top3 for one in results]),
        evidence=(sum(one.evidence_found for one in results), sum(one.evidence_wanted for one in results)),
        path=share([one.path_holds for one in results]),
        offered=share([one.offered if one.should_offer else None for one in results]),
        offered_wrongly=sum(one.offered_wrongly for one in results),
        forbidden=sum(bool(one.forbidden) for one in results),
        false_alarms=(sum(one.false_alarm for one in healthy), len(healthy)),
        severity=share([one.severity_right for one in results]),
        fell_back=sum(one.fell_back for one in results),
        tokens_in=sum(one.tokens_in for one in results),
        tokens_out=sum(one.tokens_out for one in results),
        cost_usd=None if any(cost is None for cost in costs) else round(sum(cost or 0.0 for cost in costs), 4),
        seconds=round(sum(one.seconds for one in results), 1),
    )


def _first(told: Told) -> tuple[bool, str, int]:
    """The order in which a person would look: what has a proof, then what is worst, then what came first."""
    proven = told.conclusion is Conclusion.CAUSE and told.path_holds
    return not proven, told.severity, int(told.label.partition("-")[2])


def _for(cause: Cause, standing: Sequence[Told]) -> Told | None:
    """The incident that is about ``cause``, else the first one."""
    there = [told for told in standing if told.root == cause.service]
    exact = [told for told in there if told.category is cause.category]
    return next(iter([*exact, *there, *standing]), None)


def _each(causes: Sequence[Cause], mine: Sequence[Told | None], right: Right) -> bool | None:
    """Whether it is right of every cause; None where none is expected."""
    if not causes:
        return None
    return all(told is not None and right(cause, told) for cause, told in zip(causes, mine, strict=True))


def _category_right(expected: Expected, cause: Cause, told: Told) -> bool:
    return told.category in (cause.category, *expected.acceptable.categories)


def _conclusion_right(expected: Expected, standing: Sequence[Told], found: Sequence[Told]) -> bool:
    match expected.conclusion:
        case Conclusion.HEALTHY:
            return all(told.conclusion is Conclusion.HEALTHY for told in standing)
        case Conclusion.CAUSE:
            return bool(found) and all(told.conclusion is Conclusion.CAUSE for told in found)
        case Conclusion.INSUFFICIENT_EVIDENCE:
            lead = standing[0] if standing else None
            accepted = lead is not None and lead.category in expected.acceptable.categories
            return lead is not None and (accepted or lead.conclusion is Conclusion.INSUFFICIENT_EVIDENCE)


def _in_first(expected: Expected, blamed: Sequence[str]) -> bool | None:
    if not expected.causes:
        return None
    first = blamed[:FIRST]
    accepted = set(expected.acceptable.services) & set(first)
    return bool(accepted) or all(cause.service in first for cause in expected.causes)


def _is(wish: Cited, item: Evidence) -> bool:
    """Whether ``item`` is the evidence that ``wish`` asks for."""
    if wish.service and item.service != wish.service:
        return False
    if wish.series:
        key = parse_series(wish.series)
        same = (item.service, item.signal) == (key.service, key.signal)
        return same and (not key.instance or item.subject == key.instance)
    if wish.change:
        return item.kind == "change" and wish.change[:SHORT_REVISION] in item.statement
    if wish.log:
        return item.kind == "log" and wish.log.lower() in item.statement.lower()
    return item.kind == wish.kind


def _forbidden(expected: Expected, standing: Sequence[Told]) -> tuple[str, ...]:
    said = [text for told in standing for text in told.said]
    return tuple(pattern for pattern in expected.forbidden if any(re.search(pattern, text) for text in said))


def _got(told: Sequence[Told]) -> str:
    if not told:
        return NOTHING
    return " + ".join(
        _in_words(one.conclusion, [Cause(service=one.root, category=one.category)])
        for one in {one.label: one for one in told}.values()
    )


def _in_words(conclusion: Conclusion | None, causes: Sequence[Cause]) -> str:
    if conclusion is None:
        return "not diagnosed"
    named = [cause for cause in causes if conclusion is Conclusion.CAUSE or cause.category is not Category.UNKNOWN]
    where = " + ".join(f"{cause.category.value} at {cause.service}" for cause in named)
    return where if conclusion is Conclusion.CAUSE and where else conclusion.value


def _cost(tokens_in: int, tokens_out: int, price: tuple[float, float] | None) -> float | None:
    if not tokens_in and not tokens_out:
        return 0.0
    return None if price is None else round((tokens_in * price[0] + tokens_out * price[1]) / 1e6, 6)
