"""Rest between two actions on one target, whether or not the first one helped."""

from __future__ import annotations

from executors.guardrails.facts import GuardrailFacts, GuardrailLimits
from pipeline.domain.guardrail import RuleAnswer


def cooldown(facts: GuardrailFacts, limits: GuardrailLimits) -> RuleAnswer:
    """At least ``cooldown_s`` since the last action on this target, on the database's clock."""
    ago = facts.history.last_action_s_ago
    if ago is None:
        return RuleAnswer("cooldown", True, "no earlier action on this target")
    if ago < limits.cooldown_s:
        rest = limits.cooldown_s - ago
        return RuleAnswer("cooldown", False, f"last action {ago:.0f} s ago; {rest:.0f} s of rest left")
    return RuleAnswer("cooldown", True, f"last action {ago / 60:.0f} min ago")
