"""Whether the diagnosis and the phase carry an action at all."""

from __future__ import annotations

import math

from pydantic import JsonValue

from executors.guardrails.facts import GuardrailFacts, GuardrailLimits
from pipeline.domain.guardrail import RuleAnswer
from pipeline.domain.phase import Phase


def confidence(facts: GuardrailFacts, limits: GuardrailLimits) -> RuleAnswer:
    """The diagnosis' confidence reaches ``min_confidence``."""
    figures = f"{facts.confidence:.2f}, at least {limits.min_confidence:.2f} needed"
    score = round(facts.confidence, 4) if math.isfinite(facts.confidence) else None
    inputs: dict[str, JsonValue] = {"confidence": score, "min_confidence": limits.min_confidence}
    return RuleAnswer("confidence", facts.confidence >= limits.min_confidence, figures, inputs)


def causal_path(facts: GuardrailFacts, limits: GuardrailLimits) -> RuleAnswer:
    """Every hop from the cause to the symptom was checked against what was measured."""
    del limits
    problem = facts.path_problem
    return RuleAnswer("causal_path", not problem, problem or "every hop is checked", {"problem": problem or None})


def phase(facts: GuardrailFacts, limits: GuardrailLimits) -> RuleAnswer:
    """Shadow changes nothing."""
    del limits
    return RuleAnswer("phase", facts.phase is not Phase.SHADOW, facts.phase.value, {"phase": facts.phase.value})
