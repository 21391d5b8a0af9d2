"""Severity from measured facts: no model, no free text; same facts, same severity, with the arithmetic kept."""

from __future__ import annotations

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
    from the catalogue. ``kinds``: what was seen.
    """

    kinds: tuple[AnomalyKind, ...]
    tier: int
    error_ratio: float
    latency_ratio: float
    affected_services: int
    known_services: int
    financial: float


@dataclass(frozen=True, slots=True)
class SeverityResult:
    """The severity and the five products that add up to ``score``."""

    severity: Severity
    score: float
    parts: dict[str, float]

    def arithmetic(self) -> str:
        """``0.30·user_impact 0.40 + … = 0.51``."""
        terms = " + ".join(
            f"{WEIGHTS[name]:.2f}·{name.replace('_', ' ')} {part:.2f}" for name, part in self.parts.items()
        )
        return f"{terms} = {self.score:.2f}"


def classify(facts: SeverityFacts) -> SeverityResult:
    """Five weighted dimensions; SEV1 from 0.75, SEV2 from 0.55, SEV3 from 0.25, else SEV4.

    Hard rule: a tier 1 service failing at least half of its requests is SEV1.
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
    if (facts.tier == 1 and facts.error_ratio >= 0.5) or score >= 0.75:
        severity = Severity.SEV1
    elif score >= 0.55:
        severity = Severity.SEV2
    elif score >= 0.25:
        severity = Severity.SEV3
    else:
        severity = Severity.SEV4
    return SeverityResult(severity, score, parts)
