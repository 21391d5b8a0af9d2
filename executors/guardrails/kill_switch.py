"""A person said stop."""

from __future__ import annotations

from executors.guardrails.facts import GuardrailFacts, GuardrailLimits
from pipeline.domain.guardrail import RuleAnswer
from pipeline.ports.control import KillSwitch


def kill_switch(facts: GuardrailFacts, limits: GuardrailLimits) -> RuleAnswer:
    """No engaged switch covers the service."""
    del limits
    return kill_switch_answer(facts.switch)


def kill_switch_answer(switch: KillSwitch | None) -> RuleAnswer:
    """The rule's answer for the engaged switch, if any."""
    if switch is None:
        return RuleAnswer("kill_switch", True, "off")
    return RuleAnswer("kill_switch", False, f"engaged for {switch.scope}: {switch.reason}")
