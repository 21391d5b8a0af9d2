"""What the stages may be told; the values come from ``bot.config``."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from executors.guardrails.facts import GuardrailLimits
from pipeline.domain.anomaly import DetectionSettings
from pipeline.domain.approval import ApprovalRule, default_rules
from pipeline.domain.canary import CanarySettings
from pipeline.domain.catalogue import Catalogue
from pipeline.domain.verification import VerificationSettings

Review = Literal["rule_based", "llm_cross_check", "both"]


@dataclass(frozen=True, slots=True)
class LoopSettings:
    """``approval_ttl_s``: life of a proposal. ``approvals``: who may approve where the catalogue does not say.
    ``remind_after_s``: when people are reminded of a proposal, ``escalate_after_s``: when the pager is told of it.

    ``model_deadline_s`` bounds a diagnosis as a whole, ``review_deadline_s`` the second opinion on it, which ``review``
    says whose it is. ``cache_ttl_s``: how long a model's answer may be used again for the same trouble.
    ``tokens_day``: what models may use in 24 hours. ``lease_s``: how long a worker may be silent before another takes
    its work over. ``settle_timeout_s``: how long a target may take to carry out one step, and a lock lasts that
    nobody renews. ``batch_share``: of the ready replicas, how many are restarted at once when the canary is well.
    ``catalogue``: when a service may be changed, and how much its callers matter.
    """

    detection: DetectionSettings = field(default_factory=DetectionSettings)
    verification: VerificationSettings = field(default_factory=VerificationSettings)
    limits: GuardrailLimits = field(default_factory=GuardrailLimits)
    canary: CanarySettings = field(default_factory=CanarySettings)
    batch_share: float = 0.25
    catalogue: Catalogue = field(default_factory=lambda: Catalogue({}))
    approval_ttl_s: float = 1800.0
    approvals: tuple[ApprovalRule, ...] = default_rules()
    remind_after_s: tuple[float, ...] = (300.0, 900.0)
    escalate_after_s: float = 1200.0
    resume_people: int = 2
    model_deadline_s: float = 45.0
    review: Review = "rule_based"
    review_deadline_s: float = 15.0
    cache_ttl_s: float = 4 * 3600.0
    tokens_day: int = 5_000_000
    lease_s: float = 15.0
    settle_timeout_s: float = 120.0
