"""How many actions an hour, and how many at once."""

from __future__ import annotations

from executors.guardrails.facts import GuardrailFacts, GuardrailLimits
from pipeline.domain.guardrail import RuleAnswer


def budget(facts: GuardrailFacts, limits: GuardrailLimits) -> RuleAnswer:
    """Per target and over all, by the hour, plus the number of executions open elsewhere. A rollback is always paid."""
    history = facts.history
    figures = (
        f"{history.last_hour}/{limits.max_actions_target_hour} on this target, "
        f"{history.last_hour_everywhere}/{limits.max_actions_hour} in all this hour, {history.open_elsewhere} running"
    )
    spent = (
        history.last_hour >= limits.max_actions_target_hour or history.last_hour_everywhere >= limits.max_actions_hour
    )
    crowded = history.open_elsewhere >= limits.max_concurrent
    return RuleAnswer("budget", facts.rollback or not (spent or crowded), figures)
