"""What goes round in circles: an action that did not help, and opposite actions that alternate."""

from __future__ import annotations

from itertools import pairwise

from pydantic import JsonValue

from executors.guardrails.facts import HOUR_S, GuardrailFacts, GuardrailLimits
from pipeline.domain.action import BoundsAction, ScaleAction, TargetAction
from pipeline.domain.guardrail import RuleAnswer
from pipeline.ports.history import ReplicaReading

_SHOWN = 12
_IN_WORDS = {"not_verified": "did not help", "inconclusive": "could not be shown to have helped"}


def ineffective(facts: GuardrailFacts, limits: GuardrailLimits) -> RuleAnswer:
    """The same kind of action on the same target has not failed to help the same trouble lately.

    One of which it could not be told counts too: the trouble is still there, and doing it again would tell no more.
    """
    last = facts.history.unhelpful
    inputs: dict[str, JsonValue] = {
        "kind": facts.action.kind,
        "ineffective_s": limits.ineffective_s,
        "rollback": facts.rollback,
    }
    if last is None:
        return RuleAnswer("ineffective", True, f"no {facts.action.kind} was in vain", inputs)
    inputs |= {"execution": last.execution_id, "verdict": last.verdict, "last_s_ago": round(last.ago_s, 1)}
    said = f"a {facts.action.kind} {_IN_WORDS.get(last.verdict, last.verdict)} {last.ago_s / 60:.0f} min ago"
    if last.ago_s >= limits.ineffective_s or facts.rollback:
        return RuleAnswer("ineffective", True, said, inputs)
    return RuleAnswer("ineffective", False, f"{said}: not done again, a person has to", inputs)


def oscillation(facts: GuardrailFacts, limits: GuardrailLimits) -> RuleAnswer:
    """The target's replicas, by whomever they are set, have not gone up and down too often in an hour.

    The proposed direction counts as the next one. A rollback may go on: it is the last of its plan.
    """
    wanted = _wanted(facts.action)
    if wanted is None:
        return RuleAnswer("oscillation", True, "no scaling")
    readings = _of_the_hour(facts.history.readings)
    now = [facts.observed.replicas] if facts.observed is not None else []
    course = [one.replicas for one in readings] + [*now, wanted]
    steps = [after - before for before, after in pairwise(course) if after != before]
    reversals = sum((before > 0) != (after > 0) for before, after in pairwise(steps))
    inputs: dict[str, JsonValue] = {
        "reversals": reversals,
        "max_reversals": limits.max_reversals,
        "readings": [
            {"replicas": one.replicas, "s_ago": round(one.ago_s, 1), "ours": one.ours} for one in readings[-_SHOWN:]
        ],
        "now": now[0] if now else None,
        "wanted": wanted,
        "rollback": facts.rollback,
    }
    turned = _without_repeats(course)[-_SHOWN:]
    figures = f"{reversals} of {limits.max_reversals} changes of direction this hour"
    if facts.rollback or reversals < limits.max_reversals:
        return RuleAnswer("oscillation", True, figures, inputs)
    return RuleAnswer("oscillation", False, f"{figures}: {' → '.join(map(str, turned))} replicas", inputs)


def _wanted(action: TargetAction) -> int | None:
    match action:
        case ScaleAction():
            return action.to_replicas
        case BoundsAction():
            return max(action.to_bounds.minimum, 1)
        case _:
            return None


def _of_the_hour(readings: tuple[ReplicaReading, ...]) -> list[ReplicaReading]:
    """Those of the last hour, and the one that stood when it began."""
    before = [one for one in readings if one.ago_s >= HOUR_S]
    return [*before[-1:], *(one for one in readings if one.ago_s < HOUR_S)]


def _without_repeats(course: list[int]) -> list[int]:
    return [one for at, one in enumerate(course) if at == 0 or one != course[at - 1]]
