"""The rules engine: trees of checks over what was measured, with the tools where something is missing. Needs no key.

Every cause that the facts may carry is put together with its checks and its path; the best of them is the hypothesis,
the others are its alternatives. A path is given only when code accepts it, and without one nothing is called a cause.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace

from pipeline.adapters.llm.evidence_index import EvidenceIndex, cited
from pipeline.adapters.llm.rule_replies import answer
from pipeline.adapters.llm.rules_case import Candidate, Check
from pipeline.adapters.llm.rules_elsewhere import below, over, traffic_alone, unexplained
from pipeline.adapters.llm.rules_own import Case, bad_change, certificate, disk, load, memory, used_up
from pipeline.adapters.llm.rules_reading import wanted
from pipeline.domain.diagnosis import MAX_CLAIMS, Alternative, Category, Claim, Conclusion, Hypothesis
from pipeline.domain.strategy import REMEDIES
from pipeline.domain.trace import JsonValue
from pipeline.ports.model import Answer, Diagnostician, OnText, Question, Reply

CAUSE_FROM = 0.5
"""Certainty below which a path alone makes no cause."""
SURE_FROM = 0.8
"""From this certainty on nothing more is read."""
UNPROVEN = 0.5
"""Highest certainty of what no path leads from."""
LOGS_TOLD = 2
IN_VAIN_WEIGHT = 8
"""As much as all other checks of a cause together, about: what was tried tells more than what was thought."""
RIVALLED = 0.9
"""Factor on the certainty when another cause has a path too: both may be at work."""


def decide(question: Question) -> Hypothesis:
    """What follows from everything that was read so far. Pure: the same question, the same answer."""
    case = _case(question)
    ranked = _ranked(case)
    if question.facts.recovered:
        return _healthy(case, over(case), ranked)
    best, others = ranked[0], ranked[1:]
    sure = best.certainty if best.path else min(best.certainty, UNPROVEN)
    is_cause = bool(best.path) and sure >= CAUSE_FROM
    if is_cause and any(_rivals(best, one) for one in others):
        sure *= RIVALLED
    return Hypothesis(
        conclusion=Conclusion.CAUSE if is_cause else Conclusion.INSUFFICIENT_EVIDENCE,
        category=best.category,
        root_cause=best.cause[:600],
        suspect_instances=best.suspects,
        claims=_claims(case, best),
        path=best.path if is_cause else (),
        alternatives=_alternatives(others),
        missing=tuple(dict.fromkeys(line[:200] for line in best.missing))[:5],
        certainty=round(sure, 3),
    )


class RulesDiagnostician(Diagnostician):
    """Deterministic: the same question and the same answers of the tools, the same hypothesis."""

    @property
    def name(self) -> str:
        return "rules"

    async def diagnose(self, question: Question) -> Answer:
        started = time.monotonic()
        hypothesis = decide(question)
        if hypothesis.conclusion is not Conclusion.HEALTHY and hypothesis.certainty < SURE_FROM:
            calls = wanted(EvidenceIndex(question), hypothesis)
            await asyncio.gather(*(question.tools.call(call.tool, call.arguments) for call in calls))
            hypothesis = decide(question) if calls else hypothesis
        facts = question.facts
        figures: dict[str, JsonValue] = {
            "traffic_ratio": facts.traffic_ratio,
            "latency_ratio": facts.latency_ratio,
            "error_ratio": facts.error_ratio,
            "memory_ratio_by_instance": dict(facts.memory_ratio_by_instance),
            "memory_slope_per_min": facts.memory_slope_per_min,
            "slow_callees": list(facts.slow_callees),
            "replicas": facts.replicas,
            "recent_changes": [change.describe() for change in facts.recent_changes],
            "recovered": facts.recovered,
            "in_vain": list(facts.in_vain),
        }
        candidates: list[JsonValue] = [
            {"category": one.category.value, "cause": one.cause, "certainty": one.certainty, "path": bool(one.path)}
            for one in _ranked(_case(question))
        ]
        exchange: dict[str, JsonValue] = {
            "facts": figures,
            "candidates": candidates,
            "reply": hypothesis.model_dump(mode="json"),
            "latency_ms": round((time.monotonic() - started) * 1000),
        }
        shown = {str(item.id): item.statement for item in question.read}
        return Answer(hypothesis, self.name, exchange, shown)

    async def reply(self, question: Question, asked: str, on_text: OnText | None = None) -> Reply:
        said = await answer(question, question.known or decide(question), asked)
        if on_text is not None:
            await on_text(said)
        return Reply(said, {})

    async def close(self) -> None:
        """Nothing is held open."""


def _case(question: Question) -> Case:
    return Case(EvidenceIndex(question), question.facts)


def _ranked(case: Case) -> list[Candidate]:
    """All candidates, the best first; there is always one."""
    trees = (memory, disk, certificate, load, bad_change, used_up, below, traffic_alone)
    found = [candidate for tree in trees if (candidate := tree(case)) is not None]
    return sorted([*(_tried(case, one) for one in found), unexplained(case)], key=lambda one: one.rank, reverse=True)


def _tried(case: Case, one: Candidate) -> Candidate:
    """A cause whose remedy was carried out and did not help is a likely one no more."""
    kinds = [kind for kind in case.facts.in_vain if kind in REMEDIES[one.category]]
    if not kinds:
        return one
    shown = tuple(item for item in case.index.kind("target", case.service) if item.snapshot.get("in_vain") in kinds)
    says = f"A {kinds[-1].replace('_', ' ')} was carried out for it and did not help."
    return replace(one, checks=(*one.checks, Check(says, False, IN_VAIN_WEIGHT, shown)))


def _rivals(best: Candidate, other: Candidate) -> bool:
    """Whether the other could be the cause in its place: what is a part of its path is no rival, but an effect."""
    if not other.path or other.certainty < CAUSE_FROM or other.category is best.category:
        return False
    told = {name for step in best.path for name in step.evidence}
    return not told.issuperset(other.path[0].evidence)


def _claims(case: Case, best: Candidate) -> tuple[Claim, ...]:
    claims = [check.claim() for check in best.checks if check.verdict]
    told = {name for claim in claims for name in claim.ids}
    written = [item for item in case.index.written(case.service) if item.id not in told][:LOGS_TOLD]
    if written:
        claims.append(Claim(text="Its logs say what they did not say before.", evidence=cited(written)))
    targets = case.index.kind("target", case.service)[:1]
    if case.facts.replicas is not None and targets:
        said = f"{case.service} runs with {case.facts.replicas} replicas."
        claims.append(Claim(text=said, evidence=cited(targets)))
    return tuple(claims[:MAX_CLAIMS])


def _alternatives(others: list[Candidate]) -> tuple[Alternative, ...]:
    known = [one for one in others if one.category is not Category.UNKNOWN or one.path]
    return tuple(
        Alternative(category=one.category, root_cause=one.cause[:300], why_not=one.weakness()[:300])
        for one in known[:3]
    )


def _healthy(case: Case, now: Candidate, ranked: list[Candidate]) -> Hypothesis:
    was = tuple(
        Alternative(
            category=one.category,
            root_cause=one.cause[:300],
            why_not="what it brought about is over: all is well again",
        )
        for one in ranked[:1]
        if one.path
    )
    return Hypothesis(
        conclusion=Conclusion.HEALTHY,
        category=Category.UNKNOWN,
        root_cause=now.cause[:600],
        claims=_claims(case, now),
        alternatives=was,
        certainty=now.certainty,
    )
