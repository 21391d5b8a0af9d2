"""How many actions an hour, and how many at once."""

from __future__ import annotations

from pydantic import JsonValue

from executors.guardrails.facts import GuardrailFacts, GuardrailLimits
from pipeline.domain.guardrail import RuleAnswer


def budget(facts: GuardrailFacts, limits: GuardrailLimits) -> RuleAnswer:
    """Actions of the last hour, on this target and over all. A rollback is always paid."""
    here, everywhere = facts.history.last_hour, facts.history.last_hour_everywhere
    spent = here >= limits.max_actions_target_hour or everywhere >= limits.max_actions_hour
    figures = (
        f"{here}/{limits.max_actions_target_hour} on this target, "
        f"{everywhere}/{limits.max_actions_hour} in all this hour"
    )
    inputs: dict[str, JsonValue] = {
        "last_hour_here": here,
        "max_here": limits.max_actions_target_hour,
        "last_hour_everywhere": everywhere,
        "max_everywhere": limits.max_actions_hour,
        "rollback": facts.rollback,
    }
    return RuleAnswer("budget", facts.rollback or not spent, figures, inputs)


def concurrency(facts: GuardrailFacts, limits: GuardrailLimits) -> RuleAnswer:
    """Executions open at a time: one on a target, which binds a rollback too, and so many in all, which does not."""
    here, elsewhere = facts.history.open_here, facts.history.open_elsewhere
    allowed = here < limits.max_concurrent_target and (facts.rollback or here + elsewhere < limits.max_concurrent)
    figures = (
        f"{here}/{limits.max_concurrent_target} open on this target, {here + elsewhere}/{limits.max_concurrent} in all"
    )
    inputs: dict[str, JsonValue] = {
        "open_here": here,
        "max_here": limits.max_concurrent_target,
        "open_in_all": here + elsewhere,
        "max_in_all": limits.max_concurrent,
        "rollback": facts.rollback,
    }
    return RuleAnswer("concurrency", allowed, figures, inputs)
