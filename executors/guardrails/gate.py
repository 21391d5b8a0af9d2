"""All rules as one answer. Asked when a plan is proposed, and afresh inside the claim."""

from __future__ import annotations

from collections.abc import Callable

from executors.guardrails.blast_radius import blast_radius
from executors.guardrails.budget import budget, concurrency
from executors.guardrails.change_window import change_window
from executors.guardrails.cooldown import cooldown
from executors.guardrails.facts import GuardrailFacts, GuardrailLimits
from executors.guardrails.kill_switch import kill_switch
from executors.guardrails.preconditions import preconditions
from executors.guardrails.runaway import ineffective, oscillation
from executors.guardrails.scale_cap import scale_cap
from executors.guardrails.trust import causal_path, confidence, phase
from pipeline.domain.guardrail import GuardrailResult, RuleAnswer

RULES: tuple[Callable[[GuardrailFacts, GuardrailLimits], RuleAnswer], ...] = (
    kill_switch,
    phase,
    confidence,
    causal_path,
    preconditions,
    blast_radius,
    scale_cap,
    cooldown,
    budget,
    concurrency,
    change_window,
    ineffective,
    oscillation,
)


def decide(facts: GuardrailFacts, limits: GuardrailLimits) -> GuardrailResult:
    """Every rule's answer; allowed only when all say yes."""
    return GuardrailResult(tuple(rule(facts, limits) for rule in RULES))
