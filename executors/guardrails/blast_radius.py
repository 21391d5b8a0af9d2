"""How much could be hurt: ready replicas touched at once, and everybody who calls the service."""

from __future__ import annotations

from typing import assert_never

from pydantic import JsonValue

from executors.guardrails.facts import GuardrailFacts, GuardrailLimits
from pipeline.domain.action import (
    BoundsAction,
    CancelRolloutAction,
    ConcurrencyAction,
    CordonAction,
    RenewAction,
    RestartAction,
    RevertAction,
    RollBackAction,
    RolloutRestartAction,
    ScaleAction,
    SyncAction,
    TargetAction,
    TruncateAction,
    touches_replicas,
)
from pipeline.domain.guardrail import RuleAnswer
from pipeline.domain.plan import TargetState


def share_at_once(action: TargetAction, observed: TargetState, at_once: int = 1) -> float:
    """Share of the ready replicas that is down at the same time, 0..1.

    Of restarts ``at_once`` go together, and that of a replica which is not ready takes none away. Of both the worst is
    taken, as of scaling down: that the ready ones go first. A rollout takes away what the platform says, and all where
    it says nothing. What touches no replica takes none.
    """
    if not observed.ready:
        return 0.0
    match action:
        case RestartAction():
            named = {instance.uid for instance in action.instances}
            hit = sum(one.ready and one.uid in named for one in observed.instances)
            return min(at_once, hit) / observed.ready
        case ScaleAction():
            return min(max(len(observed.instances) - action.to_replicas, 0), observed.ready) / observed.ready
        case RolloutRestartAction() | RollBackAction() | SyncAction():
            away = observed.away_at_once
            if isinstance(action, RollBackAction) and observed.away_rolling_back is not None:
                away = observed.away_rolling_back
            return 1.0 if away is None else min(away, observed.ready) / observed.ready
        case BoundsAction():
            return min(max(len(observed.instances) - action.to_bounds.maximum, 0), observed.ready) / observed.ready
        case (
            CancelRolloutAction()
            | ConcurrencyAction()
            | RevertAction()
            | RenewAction()
            | TruncateAction()
            | CordonAction()
        ):
            return 0.0
        case _:
            assert_never(action)


def blast_radius(facts: GuardrailFacts, limits: GuardrailLimits) -> RuleAnswer:
    """Unknown blocks, an empty set blocks, too large a share or too many callers, over any number of hops, block."""
    inputs: dict[str, JsonValue] = {
        "max_share": limits.max_share,
        "max_callers": limits.max_callers,
        "max_tier1_callers": limits.max_tier1_callers,
    }
    if facts.observed is None:
        return RuleAnswer("blast_radius", False, "the target could not be read: unknown radius", inputs)
    ready = facts.observed.ready
    inputs |= {"replicas": len(facts.observed.instances), "ready": ready, "at_once": facts.at_once}
    if facts.rollback and _is_as_we_left_it(facts.action, facts.observed):
        # What stood before is put back, however few are ready by now: not to would leave them like that.
        inputs |= {"rollback": True}
        return RuleAnswer("blast_radius", True, f"back to what stood before, {ready} replicas are ready now", inputs)
    if touches_replicas(facts.action) and not ready and not _only_restarts_unready(facts.action, facts.observed):
        return RuleAnswer("blast_radius", False, "no ready replica: empty set", inputs)
    if facts.callers is None:
        return RuleAnswer("blast_radius", False, "callers unknown: the service is in no dependency graph yet", inputs)
    share = share_at_once(facts.action, facts.observed, facts.at_once)
    callers, tier1 = len(facts.callers), len(facts.tier1_callers)
    inputs |= {"share": round(share, 4), "callers": [*sorted(facts.callers)], "tier1": [*sorted(facts.tier1_callers)]}
    touches = touches_replicas(facts.action) or share > 0
    touched = f"{share:.0%} of {ready} ready replicas at once" if touches else "no replica is touched"
    figures = f"{touched}, {callers} calling service{'s' if callers != 1 else ''}"
    if tier1:
        figures += f", {tier1} of tier 1"
    over = [
        (share > limits.max_share, f"{limits.max_share:.0%} allowed"),
        (callers > limits.max_callers, f"{limits.max_callers} callers allowed"),
        (tier1 > limits.max_tier1_callers, f"{limits.max_tier1_callers} callers of tier 1 allowed"),
    ]
    broken = "; ".join(f"at most {limit}" for is_over, limit in over if is_over)
    return RuleAnswer("blast_radius", not broken, f"{figures}; {broken}" if broken else figures, inputs)


def _is_as_we_left_it(action: TargetAction, observed: TargetState) -> bool:
    """Whether nobody has set another number of replicas since: taking those away is no part of the rollback."""
    return not isinstance(action, ScaleAction) or observed.replicas == action.from_replicas


def _only_restarts_unready(action: TargetAction, observed: TargetState) -> bool:
    unready = {one.uid for one in observed.instances if not one.ready}
    return isinstance(action, RestartAction) and all(one.uid in unready for one in action.instances)
