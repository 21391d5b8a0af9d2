"""A person said stop."""

from __future__ import annotations

from executors.guardrails.facts import GuardrailFacts, GuardrailLimits
from pipeline.domain.guardrail import RuleAnswer


def kill_switch(facts: GuardrailFacts, limits: GuardrailLimits) -> RuleAnswer:
    """No engaged switch covers the service."""
    del limits
    if facts.switch is None:
        return RuleAnswer("kill_switch", True, "off")
    return RuleAnswer("kill_switch", False, f"engaged for {facts.switch.scope}: {facts.switch.reason}")
