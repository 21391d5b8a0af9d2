"""The target is still what the plan was made for."""

from __future__ import annotations

from executors.guardrails.facts import GuardrailFacts, GuardrailLimits
from pipeline.domain.guardrail import RuleAnswer
from pipeline.domain.plan import RestartAction


def preconditions(facts: GuardrailFacts, limits: GuardrailLimits) -> RuleAnswer:
    """Same workload, same generation, same replicas to restart. Our own earlier steps are no difference."""
    del limits
    observed = facts.observed
    if observed is None:
        return RuleAnswer("preconditions", False, "the target could not be read")
    if observed.ref.uid != facts.target.uid:
        return RuleAnswer("preconditions", False, "the workload was recreated since the plan was made")
    if facts.started or facts.rollback:
        return RuleAnswer("preconditions", True, "continuing our own change")
    if observed.generation != facts.planned_generation:
        return RuleAnswer(
            "preconditions",
            False,
            "the target changed since the plan was made"
            f" (generation {facts.planned_generation} → {observed.generation}, {observed.replicas} replicas now)",
        )
    if isinstance(facts.action, RestartAction):
        live = {instance.uid for instance in observed.instances}
        gone = [instance.name for instance in facts.action.instances if instance.uid not in live]
        if gone:
            return RuleAnswer("preconditions", False, f"already replaced: {', '.join(gone)}")
    return RuleAnswer("preconditions", True, f"target unchanged, {observed.replicas} replicas")
