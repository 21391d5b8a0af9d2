"""Scaling up is bounded, cumulatively over plans."""

from __future__ import annotations

from pydantic import JsonValue

from executors.guardrails.facts import HOUR_S, GuardrailFacts, GuardrailLimits
from pipeline.domain.guardrail import RuleAnswer
from pipeline.domain.plan import RestartAction, TargetState
from pipeline.ports.history import ReplicaReading


def scale_cap(facts: GuardrailFacts, limits: GuardrailLimits) -> RuleAnswer:
    """At most ``max_scale_factor`` times the replicas of one hour ago; scaling down and rollbacks are not bounded here.

    They are what the platform says where it keeps such a history; else our last reading of an hour ago or before, else
    the oldest since. Without any nothing is scaled up.
    """
    if isinstance(facts.action, RestartAction):
        return RuleAnswer("scale_cap", True, "no scaling")
    inputs: dict[str, JsonValue] = {"wanted": facts.action.to_replicas, "factor": limits.max_scale_factor}
    inputs["rollback"] = facts.rollback
    if facts.observed is None:
        return RuleAnswer("scale_cap", False, "the target could not be read", inputs)
    wanted, now = facts.action.to_replicas, facts.observed.replicas
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
