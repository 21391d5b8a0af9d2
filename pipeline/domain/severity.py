"""Severity from measured facts: no model, no free text; same facts, same severity, with the arithmetic kept."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

from pipeline.domain.anomaly import AnomalyKind


class Severity(StrEnum):
    """SEV1 is the worst."""

    SEV1 = "SEV1"
    SEV2 = "SEV2"
    SEV3 = "SEV3"
    SEV4 = "SEV4"


WEIGHTS = {
    "user_impact": 0.30,
    "tier": 0.25,
    "blast_radius": 0.20,
    "financial": 0.15,
    "irreversibility": 0.10,
}
_TIER_SCORE = {1: 1.0, 2: 0.6, 3: 0.3}
_IRREVERSIBLE = {
    AnomalyKind.DISK_EXHAUSTION: 0.7,
    AnomalyKind.CERTIFICATE_EXPIRY: 0.5,
    AnomalyKind.MEMORY_PRESSURE: 0.3,
    AnomalyKind.ERROR_SURGE: 0.2,
    AnomalyKind.LATENCY: 0.1,
    AnomalyKind.TRAFFIC: 0.1,
    AnomalyKind.DEPLOYMENT_REGRESSION: 0.2,
    AnomalyKind.MULTI_DIMENSIONAL: 0.1,
}


@dataclass(frozen=True, slots=True)
class SeverityFacts:
    """Inputs, all measured or from the service catalogue.

    ``error_ratio``: share of the service's requests failing now (0..1). ``latency_ratio``: p99 now over the baseline's.
    ``affected_services`` counts the service and its transitive callers out of ``known_services``. ``financial``: 0..1
    from the catalogue. ``kinds``: what was seen. ``certificate_over``: a certificate of the service has ended.
    """

    kinds: tuple[AnomalyKind, ...]
    tier: int
    error_ratio: float
    latency_ratio: float
    affected_services: int
    known_services: int
    financial: float
    certificate_over: bool = False


@dataclass(frozen=True, slots=True)
class SeverityResult:
    """The severity and the five products that add up to ``score``."""

    severity: Severity
    score: float
    parts: dict[str, float]
    rule: str = ""
    """The hard rule that made it worse than its score; empty when the score decided."""

    def arithmetic(self) -> str:
        """``0.30·user_impact 0.40 + … = 0.51``, and the hard rule where one decided."""
        terms = " + ".join(
            f"{weight:.2f}·{name.replace('_', ' ')} {self.parts[name]:.2f}" for name, weight in WEIGHTS.items()
        )
        return f"{terms} = {self.score:.2f}" + (f"; {self.severity} because {self.rule}" if self.rule else "")


def classify(facts: SeverityFacts) -> SeverityResult:
    """Five weighted dimensions; SEV1 from 0.75, SEV2 from 0.55, SEV3 from 0.25, else SEV4; then the hard rules.

    The rules only make it worse: see ``_RULES``.
    """
    latency_impact = min(max(facts.latency_ratio - 1.0, 0.0) / 4.0, 1.0)
    parts = {
        "user_impact": max(min(facts.error_ratio / 0.5, 1.0), latency_impact),
        "tier": _TIER_SCORE.get(facts.tier, 0.1),
        "blast_radius": min(facts.affected_services / facts.known_services, 1.0) if facts.known_services else 1.0,
        "financial": min(max(facts.financial, 0.0), 1.0),
        "irreversibility": max((_IRREVERSIBLE[kind] for kind in facts.kinds), default=0.0),
    }
    score = sum(WEIGHTS[name] * part for name, part in parts.items())
    if score >= 0.75:
        severity = Severity.SEV1
    elif score >= 0.55:
        severity = Severity.SEV2
    elif score >= 0.25:
        severity = Severity.SEV3
    else:
        severity = Severity.SEV4
    for worse, why, holds in _RULES:
        if holds(facts) and worse < severity:
            return SeverityResult(worse, score, parts, why)
    return SeverityResult(severity, score, parts)


_RULES: tuple[tuple[Severity, str, Callable[[SeverityFacts], bool]], ...] = (
    (Severity.SEV1, "a tier 1 service fails half of its requests", lambda f: f.tier == 1 and f.error_ratio >= 0.5),
    (Severity.SEV1, "a certificate of a tier 1 service has ended", lambda f: f.tier == 1 and f.certificate_over),
    (Severity.SEV2, "nearly every request of the service fails", lambda f: f.tier <= 2 and f.error_ratio >= 0.9),
    (Severity.SEV2, "a certificate of the service has ended", lambda f: f.tier <= 2 and f.certificate_over),
)
"""The worst first: severity, why, and when."""
