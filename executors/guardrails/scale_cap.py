"""Scaling up is bounded, cumulatively over plans."""

from __future__ import annotations

from executors.guardrails.facts import GuardrailFacts, GuardrailLimits
from pipeline.domain.guardrail import RuleAnswer
from pipeline.domain.plan import RestartAction


def scale_cap(facts: GuardrailFacts, limits: GuardrailLimits) -> RuleAnswer:
    """At most ``max_scale_factor`` times the replicas of one hour ago (of now, where no history is kept)."""
    if isinstance(facts.action, RestartAction):
        return RuleAnswer("scale_cap", True, "no scaling")
    if facts.observed is None:
        return RuleAnswer("scale_cap", False, "the target could not be read")
    before = facts.observed.replicas_1h_ago
    base = before if before is not None else facts.observed.replicas
    cap = int(base * limits.max_scale_factor)
    figures = f"{facts.action.to_replicas} wanted, {base} {'one hour ago' if before is not None else 'now'}, cap {cap}"
    return RuleAnswer("scale_cap", facts.action.to_replicas <= max(cap, 1), figures)
