"""Whether the diagnosis and the phase carry an action at all."""

from __future__ import annotations

from executors.guardrails.facts import GuardrailFacts, GuardrailLimits
from pipeline.domain.guardrail import RuleAnswer
from pipeline.domain.phase import Phase


def confidence(facts: GuardrailFacts, limits: GuardrailLimits) -> RuleAnswer:
    """The diagnosis' confidence reaches ``min_confidence``."""
    figures = f"{facts.confidence:.2f}, at least {limits.min_confidence:.2f} needed"
    return RuleAnswer("confidence", facts.confidence >= limits.min_confidence, figures)


def causal_path(facts: GuardrailFacts, limits: GuardrailLimits) -> RuleAnswer:
    """Every hop from the cause to the symptom was checked against what was measured."""
    del limits
    return RuleAnswer("causal_path", not facts.path_problem, facts.path_problem or "every hop is checked")


def phase(facts: GuardrailFacts, limits: GuardrailLimits) -> RuleAnswer:
    """Shadow changes nothing."""
    del limits
    return RuleAnswer("phase", facts.phase is not Phase.SHADOW, facts.phase.value)
