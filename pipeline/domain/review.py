"""The rule-based second opinion: does a hypothesis hold against the measured facts? Pure: it cannot be argued with."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol, assert_never

from pipeline.domain.anomaly import Anomaly, AnomalyKind
from pipeline.domain.diagnosis import Category, Conclusion, Evidence, Hypothesis, Sign
from pipeline.domain.facts import Facts
from pipeline.domain.ids import ServiceName
from pipeline.domain.telemetry import Signal

SURGE_RATIO = 1.5
"""Traffic at this multiple of its baseline is a surge, not the usual swing of a day."""
USUAL_RATIO = 1.2
"""Traffic below this multiple is as usual; between the two nothing is said."""
NOT_INDEPENDENT_CAP = 0.8
"""Highest score when the author is the rules engine itself: the reviewer reasons as the author did."""
INVENTED_CAP = 0.3
"""Highest score when an instance is named that nobody measured."""

_WEIGHTS = {"citations": 0.25, "anomalies": 0.25, "facts": 0.2, "instances": 0.1, "agreement": 0.2}

KINDS_OF: dict[Category, frozenset[AnomalyKind]] = {
    Category.MEMORY: frozenset({AnomalyKind.MEMORY_PRESSURE}),
    Category.SATURATION: frozenset(
        {AnomalyKind.LATENCY, AnomalyKind.ERROR_SURGE, AnomalyKind.TRAFFIC, AnomalyKind.MULTI_DIMENSIONAL}
    ),
    Category.BAD_CHANGE: frozenset({AnomalyKind.ERROR_SURGE, AnomalyKind.LATENCY, AnomalyKind.DEPLOYMENT_REGRESSION}),
    Category.DISK: frozenset({AnomalyKind.DISK_EXHAUSTION}),
    Category.CERTIFICATE: frozenset({AnomalyKind.CERTIFICATE_EXPIRY}),
    Category.UNKNOWN: frozenset(AnomalyKind),
}
"""Which anomalies of the service itself a category can explain."""


def surged(traffic_ratio: float | None) -> bool | None:
    """Whether traffic is a surge, or as usual (False); None when it was not read or lies between the two."""
    if traffic_ratio is None or USUAL_RATIO <= traffic_ratio < SURGE_RATIO:
        return None
    return traffic_ratio >= SURGE_RATIO


class Examined(Protocol):
    """What was diagnosed; see ``pipeline.ports.model.Question``."""

    @property
    def service(self) -> ServiceName: ...
    @property
    def anomalies(self) -> Sequence[Anomaly]: ...
    @property
    def read(self) -> Sequence[Evidence]: ...
    @property
    def facts(self) -> Facts: ...


class Review(NamedTuple):
    """``score`` (0..1) is the reviewer's part of the confidence; ``notes`` say what was found wrong, for the thread."""

    score: float
    notes: tuple[str, ...]


def known_instances(question: Examined) -> tuple[str, ...]:
    """The instances of the service that were measured: no other may be named as a suspect."""
    own = {item.key.instance for item in question.anomalies if item.key.service == question.service}
    return tuple(sorted((own | set(question.facts.memory_ratio_by_instance)) - {"", question.service}))


def review(hypothesis: Hypothesis, question: Examined, rules_hypothesis: Hypothesis | None) -> Review:
    """Scores ``hypothesis``; ``rules_hypothesis`` is the rules engine's own, or None when that engine is the author.

    score = Σ weight · part / Σ weight over the parts: citations .25 (share of claims whose ids all exist), anomalies
    .25 (the category explains an anomaly of the service), facts .20, instances .10 (the suspects were measured),
    agreement .20 (same category as the rules engine; 0.5 when one of the two does not know).
    Caps: NOT_INDEPENDENT_CAP, INVENTED_CAP.
    """
    notes: list[str] = []
    parts = {
        "citations": _citations(hypothesis, question, notes),
        "anomalies": _anomalies(hypothesis, question, notes),
        "facts": _facts(hypothesis, question, notes),
        "instances": _instances(hypothesis, question, notes),
    }
    cap = 1.0 if parts["instances"] == 1.0 else INVENTED_CAP
    if rules_hypothesis is None:
        cap = min(cap, NOT_INDEPENDENT_CAP)
        notes.append(f"the rules engine is author and reviewer: not independent, at most {NOT_INDEPENDENT_CAP:.2f}")
    else:
        parts["agreement"] = _agreement(hypothesis, rules_hypothesis, notes)
    weighed = sum(_WEIGHTS[name] * part for name, part in parts.items()) / sum(_WEIGHTS[name] for name in parts)
    return Review(min(weighed, cap), tuple(notes))


def _citations(hypothesis: Hypothesis, question: Examined, notes: list[str]) -> float:
    known = {str(item.id) for item in question.read}
    if not hypothesis.claims:
        notes.append("no claim cites any evidence")
        return 0.0
    unknown = {cited for claim in hypothesis.claims for cited in claim.ids if cited not in known}
    if unknown:
        notes.append(f"cites evidence that does not exist: {', '.join(sorted(unknown))[:120]}")
    return sum(known.issuperset(claim.ids) for claim in hypothesis.claims) / len(hypothesis.claims)


def _anomalies(hypothesis: Hypothesis, question: Examined, notes: list[str]) -> float:
    if hypothesis.category is Category.UNKNOWN:
        return 0.5
    own = {item.kind for item in question.anomalies if item.key.service == question.service}
    if own & KINDS_OF[hypothesis.category]:
        return 1.0
    seen = ", ".join(sorted(kind.value for kind in own)) or "none"
    notes.append(f"{hypothesis.category.value} explains no anomaly of {question.service} (seen: {seen})")
    return 0.0


def _facts(hypothesis: Hypothesis, question: Examined, notes: list[str]) -> float:
    """1 where the figures speak for the category, 0 where they speak against it, 0.5 where they were not read."""
    facts, category = question.facts, hypothesis.category
    if hypothesis.conclusion is Conclusion.HEALTHY:
        if not facts.recovered:
            notes.append("said to be healthy, but not every series is back inside its bound")
        return 1.0 if facts.recovered else 0.0
    surge = surged(facts.traffic_ratio)
    match category:
        case Category.MEMORY:
            against = f"memory as a cause, but traffic is {facts.traffic_ratio or 0:.1f} times the usual"
            speaks = None if surge is None else not surge
        case Category.SATURATION if facts.slow_callees:
            against = f"saturation here, but {', '.join(facts.slow_callees)} below is slow too"
            speaks = False
        case Category.SATURATION:
            against = f"saturation, but traffic is only {facts.traffic_ratio or 0:.1f} times the usual"
            speaks = True if _used_up(question) else surge
        case Category.BAD_CHANGE:
            against = "a change as a cause, but traffic surged or a callee is slow"
            speaks = None if surge is None else not surge and not facts.slow_callees
        case Category.DISK | Category.CERTIFICATE:
            return _anomalies(hypothesis, question, [])
        case Category.UNKNOWN:
            return 0.5
        case _:
            assert_never(category)
    if speaks is None:
        notes.append(f"traffic neither confirms nor refutes {category.value}")
        return 0.5
    if not speaks:
        notes.append(against)
    return 1.0 if speaks else 0.0


def _used_up(question: Examined) -> bool:
    """Whether processor or quota of the service itself are: more traffic need not be the reason."""
    return any(
        item.service == question.service
        and item.sign is Sign.ABNORMAL
        and item.signal in (Signal.CPU_RATIO, Signal.QUOTA_RATIO)
        for item in question.read
    )


def _instances(hypothesis: Hypothesis, question: Examined, notes: list[str]) -> float:
    if not hypothesis.suspect_instances:
        return 1.0
    invented = set(hypothesis.suspect_instances) - set(known_instances(question))
    if invented:
        notes.append(f"names instances that nobody measured: {', '.join(sorted(invented))[:120]}")
    return 1.0 - len(invented) / len(set(hypothesis.suspect_instances))


def _agreement(hypothesis: Hypothesis, rules: Hypothesis, notes: list[str]) -> float:
    if hypothesis.category is rules.category:
        return 1.0
    notes.append(f"the rules engine says {rules.category.value}, the author {hypothesis.category.value}")
    return 0.5 if Category.UNKNOWN in (hypothesis.category, rules.category) else 0.0
