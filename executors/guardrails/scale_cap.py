"""Scaling up is bounded, cumulatively over plans."""

from __future__ import annotations

from pydantic import JsonValue

from executors.guardrails.facts import HOUR_S, GuardrailFacts, GuardrailLimits
from pipeline.domain.action import BoundsAction, ConcurrencyAction, ScaleAction, TargetAction
from pipeline.domain.guardrail import RuleAnswer
from pipeline.domain.plan import TargetState
from pipeline.ports.history import ReplicaReading


def scale_cap(facts: GuardrailFacts, limits: GuardrailLimits) -> RuleAnswer:
    """At most ``max_scale_factor`` times the replicas of one hour ago; scaling down and rollbacks are not bounded here.

    They are what the platform says where it keeps such a history; else our last reading of an hour ago or before, else
    the oldest since. Without any nothing is scaled up. Of an autoscaler's bounds the one that is raised counts, the
    upper before the lower; the concurrency of a function is held against what stands now.
    """
    if isinstance(facts.action, ConcurrencyAction):
        return _concurrency(facts.action, limits, rollback=facts.rollback)
    wanted = _wanted(facts.action)
    if wanted is None:
        return RuleAnswer("scale_cap", True, "no scaling")
    inputs: dict[str, JsonValue] = {"wanted": wanted, "factor": limits.max_scale_factor}
    inputs["rollback"] = facts.rollback
    if facts.observed is None:
        return RuleAnswer("scale_cap", False, "the target could not be read", inputs)
    now = facts.observed.replicas
    inputs["now"] = now
    base, taken, ago_s = _an_hour_ago(facts.observed, facts.history.readings)
    inputs |= {"base": base, "base_taken_from": taken, "base_s_ago": ago_s}
    if facts.rollback:
        return RuleAnswer("scale_cap", True, f"{wanted} wanted: what stood before", inputs)
    if wanted <= now:
        return RuleAnswer("scale_cap", True, f"{wanted} wanted, {now} now: no scaling up", inputs)
    if base is None:
        return RuleAnswer("scale_cap", False, f"{wanted} wanted, and {taken}", inputs)
    cap = max(int(base * limits.max_scale_factor), 1)
    inputs["cap"] = cap
    return RuleAnswer("scale_cap", wanted <= cap, f"{wanted} wanted, {base} {taken}, cap {cap}", inputs)


def _wanted(action: TargetAction) -> int | None:
    """The replicas that there may be because of ``action``; None where it is not about their number."""
    match action:
        case ScaleAction():
            return action.to_replicas
        case BoundsAction():
            raised = action.to_bounds.maximum > action.from_bounds.maximum
            return action.to_bounds.maximum if raised else max(action.to_bounds.minimum, 1)
        case _:
            return None


def _concurrency(action: ConcurrencyAction, limits: GuardrailLimits, *, rollback: bool) -> RuleAnswer:
    before, after = action.from_concurrency, action.to_concurrency
    inputs: dict[str, JsonValue] = {
        "from": before.model_dump(mode="json"),
        "wanted": after.model_dump(mode="json"),
        "factor": limits.max_scale_factor,
        "rollback": rollback,
    }
    if rollback:
        return RuleAnswer("scale_cap", True, f"{after} wanted: what stood before", inputs)
    pairs = ((before.reserved, after.reserved), (before.provisioned, after.provisioned))
    over = any(
        old is not None and new is not None and new > limits.max_scale_factor * max(old, 1) for old, new in pairs
    )
    said = f"{after} wanted, {before} now, at most {limits.max_scale_factor:g} times that"
    return RuleAnswer("scale_cap", not over, said, inputs)


def _an_hour_ago(observed: TargetState, readings: tuple[ReplicaReading, ...]) -> tuple[int | None, str, float | None]:
    """The replicas to start from, where they were taken from, and how many seconds ago they stood."""
    if observed.replicas_1h_ago is not None:
        return observed.replicas_1h_ago, "one hour ago", HOUR_S
    before = [one for one in readings if one.ago_s >= HOUR_S]
    if before:
        return before[-1].replicas, f"{before[-1].ago_s / 60:.0f} min ago, as last read", round(before[-1].ago_s, 1)
    if readings:
        oldest = readings[0]
        return oldest.replicas, f"{oldest.ago_s / 60:.0f} min ago, the oldest reading", round(oldest.ago_s, 1)
    return None, "how many there were one hour ago is not known", None
