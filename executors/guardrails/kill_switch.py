"""A person said stop."""

from __future__ import annotations

from executors.guardrails.facts import GuardrailFacts, GuardrailLimits
from pipeline.domain.guardrail import RuleAnswer
from pipeline.domain.ids import ServiceName
from pipeline.ports.control import KillSwitch, scopes_of


def kill_switch(facts: GuardrailFacts, limits: GuardrailLimits) -> RuleAnswer:
    """No engaged switch covers the service, its environment or everything. The ledger asks again before each call."""
    del limits
    return kill_switch_answer(facts.switch, facts.service, facts.environment)


def kill_switch_answer(switch: KillSwitch | None, service: ServiceName, environment: str) -> RuleAnswer:
    """The rule's answer for the engaged switch, if any."""
    asked = list(scopes_of(service, environment))
    if switch is None:
        return RuleAnswer("kill_switch", True, "off", {"scopes": [*asked], "engaged": None})
    return RuleAnswer(
        "kill_switch",
        False,
        f"engaged for {switch.scope}: {switch.reason}",
        {
            "scopes": [*asked],
            "engaged": switch.scope,
            "by": switch.changed_by,
            "since": switch.changed_at.isoformat(),
        },
    )
