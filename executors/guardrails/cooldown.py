"""Rest between two actions on one target, whether or not the first one helped."""

from __future__ import annotations

from pydantic import JsonValue

from executors.guardrails.facts import GuardrailFacts, GuardrailLimits
from pipeline.domain.guardrail import RuleAnswer


def cooldown(facts: GuardrailFacts, limits: GuardrailLimits) -> RuleAnswer:
    """``cooldown_s`` since the last call of this kind to this target, ``rest_s`` since any, by the database's clock.

    An action of another kind may be what the first one's failure calls for, so it waits for less. A rollback waits for
    nothing: it puts back what stood before.
    """
    ago_s, of_kind_s = facts.history.last_action_s_ago, facts.history.last_of_kind_s_ago
    kind, rest_s = facts.action.kind, min(limits.rest_s, limits.cooldown_s)
    inputs: dict[str, JsonValue] = {
        "kind": kind,
        "last_action_s_ago": _rounded(ago_s),
        "last_of_kind_s_ago": _rounded(of_kind_s),
        "cooldown_s": limits.cooldown_s,
        "rest_s": rest_s,
        "rollback": facts.rollback,
    }
    if facts.rollback:
        return RuleAnswer("cooldown", True, "a rollback does not wait", inputs)
    if of_kind_s is not None and of_kind_s < limits.cooldown_s:
        left = limits.cooldown_s - of_kind_s
        return RuleAnswer("cooldown", False, f"last {kind} {of_kind_s:.0f} s ago; {left:.0f} s of rest left", inputs)
    if ago_s is not None and ago_s < rest_s:
        left = rest_s - ago_s
        return RuleAnswer("cooldown", False, f"last action {ago_s:.0f} s ago; {left:.0f} s of rest left", inputs)
    if ago_s is None:
        return RuleAnswer("cooldown", True, "no earlier action on this target", inputs)
    return RuleAnswer("cooldown", True, f"last action {ago_s / 60:.0f} min ago", inputs)


def _rounded(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds, 1)
