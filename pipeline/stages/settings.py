"""What the stages may be told; the values come from ``bot.config``."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from executors.guardrails.facts import GuardrailLimits
from pipeline.domain.anomaly import DetectionSettings
from pipeline.domain.verification import VerificationSettings

Review = Literal["rule_based", "llm_cross_check", "both"]


@dataclass(frozen=True, slots=True)
class LoopSettings:
    """``approval_ttl_s``: life of a proposal. ``approvals_severe``: people needed at SEV1/SEV2 and for tier 1.

    ``model_deadline_s`` bounds a diagnosis as a whole, ``review_deadline_s`` the second opinion on it, which ``review``
    says whose it is. ``cache_ttl_s``: how long a model's answer may be used again for the same trouble.
    ``tokens_day``: what models may use in 24 hours. ``lease_s``: how long a worker may be silent before another takes
    its work over. ``settle_timeout_s``: how long a target may take to carry out one step.
    """

    detection: DetectionSettings = field(default_factory=DetectionSettings)
    verification: VerificationSettings = field(default_factory=VerificationSettings)
    limits: GuardrailLimits = field(default_factory=GuardrailLimits)
    approval_ttl_s: float = 1800.0
    approvals_severe: int = 2
    resume_people: int = 2
    model_deadline_s: float = 45.0
    review: Review = "rule_based"
    review_deadline_s: float = 15.0
    cache_ttl_s: float = 4 * 3600.0
    tokens_day: int = 5_000_000
    lease_s: float = 15.0
    settle_timeout_s: float = 120.0
    samples_keep_s: float = 86_400.0
