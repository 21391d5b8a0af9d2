"""What a plan would do, call by call, without doing it."""

from __future__ import annotations

from collections.abc import Sequence

from executors.guardrails.blast_radius import share_at_once
from executors.guardrails.gate import decide
from executors.guardrails.inputs import observe_or_none, read_facts
from pipeline.domain.action import ManualAction, Operation, TargetAction, operations, touches_replicas
from pipeline.domain.action_words import describe_action, describe_operation
from pipeline.domain.errors import PermanentError, SreBotError, TemporaryError
from pipeline.domain.execution import batches, has_canary
from pipeline.domain.ids import ServiceName
from pipeline.domain.incident import Case
from pipeline.domain.lifecycle import PlanState
from pipeline.domain.plan import Plan, TargetRef, TargetState
from pipeline.ports.store import Store
from pipeline.ports.targets import Target, Targets
from pipeline.stages.settings import LoopSettings

SHOWN = 10
"""Steps whose calls are shown and rehearsed; the others are of the same form."""


async def dry_run(case: Case | None, store: Store, targets: Targets, settings: LoopSettings) -> str:
    """The exact calls, their order, what the platform and the guardrails say now, and how much could be hurt.

    Raises PermanentError when the target's platform is not set up, TemporaryError when the store cannot be read.
    """
    if case is None or case.plan is None:
        return "There is no plan for this incident."
    plan = case.plan
    if isinstance(plan.action, ManualAction) or plan.target is None:
        return f"Nothing would be called. By hand: {getattr(plan.action, 'command', '')}"
    if plan.state not in (PlanState.PROPOSED, PlanState.APPROVED) or case.incident.over:
        state = plan.state.value if not case.incident.over else case.incident.state.value.replace("_", " ")
        return f"This plan is over ({state}): nothing would be called."
    target = targets.for_platform(plan.target.platform)
    observed = await observe_or_none(target, plan.target)
    share = min(settings.batch_share, settings.limits.max_share)
    steps = operations(plan.action)
    order = batches("apply", steps, ready=observed.ready if observed else 0, share=share)
    async with store.begin() as uow:
        facts = await read_facts(
            uow,
            catalogue=settings.catalogue,
            incident=case.incident,
            action=plan.action,
            ref=plan.target,
            generation=plan.generation,
            observed=observed,
            diagnosis=case.diagnosis,
            plan_id=plan.id,
            started=case.execution is not None and case.execution.physical_changes > 0,
            rollback=False,
            at_once=max(len(batch) for batch in order),
        )
    result = decide(facts, settings.limits)
    verdict = "would be carried out" if result.allowed else "would be refused"
    lines = [f"{describe_action(plan.action)} on {plan.target.platform} {plan.target.describe()} {verdict} now:"]
    lines += await _steps(target, plan.target, plan.action, plan.generation)
    lines += _order(steps, order, settings.canary.watch_s)
    lines.append(f"Predicted blast radius: {_radius(plan, order, observed)}; {_callers(facts.callers)}")
    lines.append(f"By hand: {target.command(plan.target, plan.action)}")
    lines += [f"{'✅' if one.allowed else '⛔'} {one.rule.replace('_', ' ')}: {one.reason}" for one in result.answers]
    return "\n".join(lines)


def by_hand(plan: Plan | None, targets: Targets) -> str:
    """What a person would type to do the plan without the bot; empty where nobody knows."""
    if plan is None:
        return ""
    if isinstance(plan.action, ManualAction):
        return plan.action.command
    if plan.target is None:
        return ""
    try:
        return targets.for_platform(plan.target.platform).command(plan.target, plan.action)
    except PermanentError:
        return ""  # the platform is not set up any more


async def _steps(target: Target, ref: TargetRef, action: TargetAction, generation: str) -> list[str]:
    steps = operations(action)
    lines: list[str] = []
    for number, operation in enumerate(steps[:SHOWN], start=1):
        lines.append(f"{number}. {describe_operation(operation)}")
        lines += [f"    {line}" for line in await _calls(target, ref, operation, generation)]
    more = len(steps) - SHOWN
    return lines if more <= 0 else [*lines, f"… and {more} more of the same form"]


async def _calls(target: Target, ref: TargetRef, operation: Operation, generation: str) -> list[str]:
    try:
        sent = list(await target.calls(ref, operation, generation))
    except (TemporaryError, PermanentError) as error:
        return [f"the call cannot be made up: {error}"]
    try:
        said = await target.rehearse(ref, operation, generation)
    except SreBotError as error:
        said = f"refused when rehearsed: {error}"
    return [*sent, said] if said else sent


def _order(steps: Sequence[Operation], order: tuple[tuple[int, ...], ...], watch_s: float) -> list[str]:
    if not has_canary("apply", steps):
        return []
    said = [f"batch 1 is the canary: step 1, watched for {watch_s:g} s once it is ready"]
    said += [
        f"batch {number}: step{'s' if len(batch) > 1 else ''} {', '.join(map(str, batch))}"
        for number, batch in enumerate(order[1:], start=2)
    ]
    return [f"Order, each through the gate again: {'; '.join(said)}"]


def _radius(plan: Plan, order: tuple[tuple[int, ...], ...], observed: TargetState | None) -> str:
    if observed is None:
        return "unknown, the target cannot be read"
    if isinstance(plan.action, ManualAction):
        return "no replica is touched"
    away = round(share_at_once(plan.action, observed, max(len(batch) for batch in order)) * observed.ready)
    if not away and not touches_replicas(plan.action):
        return "no replica is touched"
    return f"at most {away} of {observed.ready} ready replicas away at once"


def _callers(callers: frozenset[ServiceName] | None) -> str:
    if callers is None:
        return "callers unknown"
    return f"{len(callers)} calling: {', '.join(sorted(callers))}" if callers else "nobody calls it"
