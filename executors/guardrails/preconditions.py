"""The target is still what the plan was made for."""

from __future__ import annotations

from pydantic import JsonValue

from executors.guardrails.facts import GuardrailFacts, GuardrailLimits
from pipeline.domain.action import RestartAction, TruncateAction
from pipeline.domain.guardrail import RuleAnswer


def preconditions(facts: GuardrailFacts, limits: GuardrailLimits) -> RuleAnswer:
    """Same workload, same generation, same replicas to restart. Our own earlier steps are no difference."""
    del limits
    observed = facts.observed
    inputs: dict[str, JsonValue] = {
        "uid_planned": facts.target.uid,
        "generation_planned": facts.planned_generation,
        "started": facts.started,
        "rollback": facts.rollback,
    }
    if observed is None:
        return RuleAnswer("preconditions", False, "the target could not be read", inputs)
    inputs |= {"uid": observed.ref.uid, "generation": observed.generation, "replicas": observed.replicas}
    if observed.ref.uid != facts.target.uid:
        return RuleAnswer("preconditions", False, "the workload was recreated since the plan was made", inputs)
    if facts.started or facts.rollback:
        return RuleAnswer("preconditions", True, "continuing our own change", inputs)
    if observed.generation != facts.planned_generation:
        return RuleAnswer(
            "preconditions",
            False,
            "the target changed since the plan was made"
            f" (generation {facts.planned_generation} → {observed.generation}, {observed.replicas} replicas now)",
            inputs,
        )
    if isinstance(facts.action, RestartAction):
        live = {instance.uid for instance in observed.instances}
        gone = [instance.name for instance in facts.action.instances if instance.uid not in live]
        inputs["gone"] = [*gone]
        if gone:
            return RuleAnswer("preconditions", False, f"already replaced: {', '.join(gone)}", inputs)
    if isinstance(facts.action, TruncateAction):
        there = {(file.instance, file.path, file.uid) for file in observed.files}
        moved = [file.path for file in facts.action.files if (file.instance, file.path, file.uid) not in there]
        inputs["moved"] = [*moved]
        if moved:
            return RuleAnswer("preconditions", False, f"rotated or gone meanwhile: {', '.join(moved)}", inputs)
    replicas = f", {observed.replicas} replicas" if observed.replicas else ""
    return RuleAnswer("preconditions", True, f"target unchanged{replicas}", inputs)
