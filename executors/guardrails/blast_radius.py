"""How much could be hurt: ready replicas touched at once, and everybody who calls the service."""

from __future__ import annotations

from typing import assert_never

from executors.guardrails.facts import GuardrailFacts, GuardrailLimits
from pipeline.domain.guardrail import RuleAnswer
from pipeline.domain.plan import (
    RestartAction,
    ScaleAction,
    TargetAction,
    TargetState,
)


def share_at_once(action: TargetAction, observed: TargetState) -> float:
    """Share of the ready replicas that is down at the same time, 0..1; there must be one.

    Restarts go one replica at a time, and that of a replica which is not ready takes none away. Of scaling down the
    worst is taken: that the ready ones go first.
    """
    match action:
        case RestartAction():
            named = {instance.uid for instance in action.instances}
            return any(one.ready and one.uid in named for one in observed.instances) / observed.ready
        case ScaleAction():
            return min(max(len(observed.instances) - action.to_replicas, 0), observed.ready) / observed.ready
        case _:
            assert_never(action)


def blast_radius(facts: GuardrailFacts, limits: GuardrailLimits) -> RuleAnswer:
    """Unknown blocks, an empty set blocks, too large a share or too many callers block."""
    if facts.observed is None:
        return RuleAnswer("blast_radius", False, "the target could not be read: unknown radius")
    ready = facts.observed.ready
    if not ready and not _only_restarts_unready(facts.action, facts.observed):
        return RuleAnswer("blast_radius", False, "no ready replica: empty set")
    if facts.callers is None:
        return RuleAnswer("blast_radius", False, "callers unknown: the service is in no dependency graph yet")
    share = share_at_once(facts.action, facts.observed) if ready else 0.0
    callers = len(facts.callers)
    figures = f"{share:.0%} of {ready} ready replicas at once, {callers} calling service{'s' if callers != 1 else ''}"
    if share > limits.max_share:
        return RuleAnswer("blast_radius", False, f"{figures}; at most {limits.max_share:.0%} allowed")
    if callers > limits.max_callers:
        return RuleAnswer("blast_radius", False, f"{figures}; at most {limits.max_callers} callers allowed")
    return RuleAnswer("blast_radius", True, figures)


def _only_restarts_unready(action: TargetAction, observed: TargetState) -> bool:
    unready = {one.uid for one in observed.instances if not one.ready}
    return isinstance(action, RestartAction) and all(one.uid in unready for one in action.instances)
