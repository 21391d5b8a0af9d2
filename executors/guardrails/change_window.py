"""When people do not want anything changed."""

from __future__ import annotations

from pydantic import JsonValue

from executors.guardrails.facts import GuardrailFacts, GuardrailLimits
from pipeline.domain.guardrail import RuleAnswer


def change_window(facts: GuardrailFacts, limits: GuardrailLimits) -> RuleAnswer:
    """In no freeze, and in a change window where the service has any; a rollback undoes a change and may go on."""
    del limits
    at, calendar = facts.history.at, facts.calendar
    frozen, is_open = calendar.frozen(at), calendar.is_open(at)
    inputs: dict[str, JsonValue] = {
        "at": at.isoformat(),
        "freezes": len(calendar.freezes),
        "frozen": frozen or None,
        "windows": len(calendar.windows),
        "inside": is_open,
        "rollback": facts.rollback,
    }
    if frozen:
        reason = f"frozen: {frozen}"
    elif not is_open:
        reason = "outside of the service's change windows"
    else:
        reason = "inside a change window" if calendar.windows else "no freeze"
    return RuleAnswer("change_window", facts.rollback or (is_open and not frozen), reason, inputs)
