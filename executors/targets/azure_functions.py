"""Function apps of Azure, and the plan that they run on."""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from typing import Final

from executors.targets.azure_api import Arm
from executors.targets.azure_changes import Changes, az_app, plan_command, within
from executors.targets.azure_sites import PLAN_READS, PLAN_WRITE, READS, RESTART, Look, Sites, instances
from executors.targets.offers import not_offered
from pipeline.domain.action import (
    Action,
    ActionKind,
    BoundsAction,
    ManualAction,
    Operation,
    RolloutRestart,
    RolloutRestartAction,
    ScaleAction,
    ScaleTo,
    SetBounds,
)
from pipeline.domain.capability import Declaration, Offer, RightCheck
from pipeline.domain.catalogue import WorkloadAddress
from pipeline.domain.errors import PermanentError
from pipeline.domain.execution import Finding, Intent
from pipeline.domain.plan import TargetRef, TargetState
from pipeline.ports.targets import Target

_PLATFORM: Final = "azure_functions"


class AzureFunctionsTarget(Target):
    """The function apps of the listed resource groups.

    Their plan is adjusted by its kind: an Elastic Premium one between how many workers it goes by itself, a dedicated
    one to how many it has. On Consumption and Flex Consumption Azure alone decides.
    """

    def __init__(self, arm: Arm, *, resource_groups: Collection[str]) -> None:
        self._arm = arm
        self._sites = Sites(arm, fits="functionapp", groups=resource_groups)
        self._changes = Changes(self._sites)
        self._looks: dict[str, Look] = {}  # by uid, for the commands that a person would type

    @property
    def platform(self) -> str:
        return _PLATFORM

    def declares(self) -> Declaration:
        seen = "state, plan and workers, read right before"
        return Declaration(
            offers=(
                Offer("rollout_restart", False, (RESTART,), f"{seen}; the activity log"),
                Offer("scale", True, (PLAN_WRITE,), seen),
                Offer("bounds", True, (PLAN_WRITE,), seen),
            ),
            observes=("instances and which are ready", "workers of the plan, and up to how many it goes"),
            reads=(*READS, *PLAN_READS),
            privileges="azure-role.json",
            settles_s=600.0,
        )

    async def check(self, ref: TargetRef) -> tuple[RightCheck, ...]:
        look = await self._sites.look(ref)
        return await self._changes.check(look, (*READS, RESTART), (*PLAN_READS, PLAN_WRITE))

    async def resolve(self, address: WorkloadAddress) -> TargetRef:
        _, uid = await self._sites.named(address.namespace, address.name)
        return TargetRef(platform=_PLATFORM, namespace=address.namespace, name=address.name, uid=uid)

    async def observe(self, ref: TargetRef) -> TargetState:
        look = self._looks[ref.uid] = await self._sites.look(ref)
        workers, no_scale = await asyncio.gather(self._sites.workers(look.app), self._changes.why_not_scaled(look))
        refuses: dict[ActionKind, str] = {}
        if no_scale:
            refuses["scale"] = no_scale
        if no_bounds := self._why_not_bound(look):
            refuses["bounds"] = no_bounds
        if not look.app.running:
            refuses["rollout_restart"] = f"the app is {look.app.state.lower()}"
        counted = look.plan.elastic_maximum is None and not look.plan.per_site and look.plan.capacity
        return TargetState(
            ref=ref,
            generation=look.generation,
            replicas=look.plan.capacity if counted else len(workers),
            instances=instances(workers),
            bounds=look.plan.bounds,
            refuses=refuses,
        )

    async def apply(self, ref: TargetRef, operation: Operation, intent: Intent) -> str:
        look = await self._sites.look_at(ref, intent.generation)
        match operation:
            case RolloutRestart():
                await self._changes.restart(ref, look, intent)
                return f"restarted every instance of {ref.describe()}"
            case ScaleTo(replicas=replicas):
                if reason := await self._changes.why_not_scaled(look):
                    raise PermanentError(f"{ref.describe()} cannot be scaled: {reason}")
                within(look.plan, replicas)
                await self._changes.put_plan(ref, look, intent, capacity=replicas)
                return f"scaled the plan {look.plan.name} from {look.plan.capacity} to {replicas} workers"
            case SetBounds(bounds=bounds):
                if reason := self._why_not_bound(look):
                    raise PermanentError(f"the bounds of {ref.describe()} cannot be set: {reason}")
                within(look.plan, bounds)
                await self._changes.put_plan(ref, look, intent, capacity=bounds.minimum, up_to=bounds.maximum)
                return f"let the plan {look.plan.name} go from {bounds} workers, in place of {look.plan.bounds}"
            case _:
                raise not_offered(_PLATFORM, operation)

    async def calls(self, ref: TargetRef, operation: Operation, generation: str) -> tuple[str, ...]:
        look = await self._sites.look(ref)
        match operation:
            case RolloutRestart():
                return (self._changes.shown_restart(look, generation),)
            case ScaleTo(replicas=replicas):
                return (self._changes.shown_plan(look, generation, capacity=replicas),)
            case SetBounds(bounds=bounds):
                return (self._changes.shown_plan(look, generation, capacity=bounds.minimum, up_to=bounds.maximum),)
            case _:
                raise not_offered(_PLATFORM, operation)

    async def settled(self, ref: TargetRef, operation: Operation) -> bool:
        """Raises PermanentError with Azure's words when the operation that we began has failed."""
        if not await self._changes.is_over(ref):
            return False
        look = await self._sites.look(ref)
        match operation:
            case RolloutRestart():
                return await self._changes.has_restarted(ref, look)
            case SetBounds(bounds=bounds):
                return not look.plan.busy and look.plan.bounds == bounds
            case ScaleTo(replicas=replicas):
                workers = await self._sites.workers(look.app)
                ready = sum(one.ready for one in workers)
                return not look.plan.busy and look.plan.capacity == replicas == ready == len(workers)
            case _:
                raise not_offered(_PLATFORM, operation)

    async def find(self, ref: TargetRef, operation: Operation, intent: Intent) -> Finding:
        """See ``Changes.find``. A plan that has what was wanted was adjusted, by whomever."""
        match operation:
            case RolloutRestart():
                return await self._changes.find_restart(ref, intent)
            case ScaleTo(replicas=replicas):
                return await self._changes.find_plan(ref, intent, lambda plan: plan.capacity == replicas)
            case SetBounds(bounds=bounds):
                return await self._changes.find_plan(ref, intent, lambda plan: plan.bounds == bounds)
            case _:
                raise not_offered(_PLATFORM, operation)

    def command(self, ref: TargetRef, action: Action) -> str:
        subscription, look = self._arm.subscription_id, self._looks.get(ref.uid)
        plan = look.plan if look else None
        match action:
            case RolloutRestartAction():
                return f"az functionapp restart {az_app(ref, subscription)}"
            case ScaleAction(to_replicas=replicas):
                return plan_command(
                    ref, subscription, plan, "functionapp plan update", f"--number-of-workers {replicas}"
                )
            case BoundsAction(to_bounds=bounds):
                options = f"--min-instances {bounds.minimum} --max-burst {bounds.maximum}"
                return plan_command(ref, subscription, plan, "functionapp plan update", options)
            case ManualAction(command=command):
                return command
            case _:
                raise not_offered(_PLATFORM, action)

    async def close(self) -> None:
        await self._arm.close()

    def _why_not_bound(self, look: Look) -> str:
        """Why nobody may set between how many workers the plan goes; empty when one may."""
        plan = look.plan
        if plan.bounds is None:
            return f"the {plan.tier} plan {plan.name} has no bounds to set"
        if not self._sites.is_open(plan.group):
            return f"its plan {plan.name} is in the resource group {plan.group}, which the bot may not touch"
        return ""
