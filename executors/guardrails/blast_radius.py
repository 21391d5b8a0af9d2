"""How much could be hurt: live replicas touched at once, and everybody who calls the service."""

from __future__ import annotations

from typing import assert_never

from executors.guardrails.facts import GuardrailFacts, GuardrailLimits
from pipeline.domain.guardrail import RuleAnswer
from pipeline.domain.plan import RestartAction, ScaleAction, TargetState


def share_at_once(action: RestartAction | ScaleAction, observed: TargetState) -> float:
    """Share of the live replicas that is down at the same time, 0..1. Restarts go one replica at a time."""
    live = len(observed.instances)
    match action:
        case RestartAction():
            return 1 / live
        case ScaleAction():
            return max(live - action.to_replicas, 0) / live
        case _:
            assert_never(action)


def blast_radius(facts: GuardrailFacts, limits: GuardrailLimits) -> RuleAnswer:
    """Unknown blocks, an empty set blocks, too large a share or too many callers block."""
    if facts.observed is None:
        return RuleAnswer("blast_radius", False, "the target could not be read: unknown radius")
    live = len(facts.observed.instances)
    if live == 0:
        return RuleAnswer("blast_radius", False, "no live replica: empty set")
    if facts.callers is None:
        return RuleAnswer("blast_radius", False, "callers unknown: the service is in no dependency graph yet")
    share = share_at_once(facts.action, facts.observed)
    callers = len(facts.callers)
    figures = f"{share:.0%} of {live} live replicas at once, {callers} calling service{'s' if callers != 1 else ''}"
    if share > limits.max_share:
        return RuleAnswer("blast_radius", False, f"{figures}; at most {limits.max_share:.0%} allowed")
    if callers > limits.max_callers:
        return RuleAnswer("blast_radius", False, f"{figures}; at most {limits.max_callers} callers allowed")
    return RuleAnswer("blast_radius", True, figures)
