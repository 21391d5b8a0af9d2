"""Web apps of Azure App Service: instances, the plan that they run on, deployment slots."""

from __future__ import annotations

import asyncio
import json
import shlex
from collections.abc import Collection
from datetime import datetime, timedelta
from typing import Any, Final

from executors.targets.azure_api import Arm, Missing, models
from executors.targets.azure_changes import Changes, az_app, plan_command, within
from executors.targets.azure_sites import (
    NEVER,
    PLAN_READS,
    PLAN_WRITE,
    PRODUCTION,
    READS,
    RESTART,
    App,
    Look,
    Plan,
    Sites,
    Swap,
    instances,
    swap_of,
    utc,
)
from executors.targets.offers import not_offered
from pipeline.domain.action import (
    Action,
    ActionKind,
    InstanceRef,
    ManualAction,
    Operation,
    RestartAction,
    RestartInstance,
    RollBackAction,
    RollBackTo,
    RolloutRestart,
    RolloutRestartAction,
    ScaleAction,
    ScaleTo,
)
from pipeline.domain.capability import Declaration, Offer, RightCheck
from pipeline.domain.catalogue import WorkloadAddress
from pipeline.domain.errors import PermanentError, PreconditionFailed
from pipeline.domain.execution import Finding, Intent
from pipeline.domain.plan import Revision, TargetRef, TargetState
from pipeline.ports.targets import Target

_PLATFORM: Final = "azure_app_service"
_KILL = "Microsoft.Web/sites/instances/processes/Delete"
_SWAP = "Microsoft.Web/sites/slots/slotsswap/Action"
_SLOT_READS = (
    "Microsoft.Web/sites/slots/Read",
    "Microsoft.Web/sites/slots/deployments/Read",
    "Microsoft.Web/sites/slots/operationresults/Read",
)
_APART = timedelta(minutes=1)
"""By how much the two slots of one swap may date it differently."""


class AzureAppServiceTarget(Target):
    """The web apps of the listed resource groups. One instance is restarted by ending the app's worker process on it,
    which is what the portal's Advanced Application Restart does; IIS starts it anew. On Linux and in containers no
    process is shown, and only the whole app can be restarted.

    A revision is a slot and the time of its last swap, ``staging@2026-11-23T15:00:00Z``; ``production@…`` is what stood
    in production since then and was swapped out by the latest swap.
    """

    def __init__(self, arm: Arm, *, resource_groups: Collection[str]) -> None:
        self._arm = arm
        self._sites = Sites(arm, fits="app", groups=resource_groups)
        self._changes = Changes(self._sites)
        self._looks: dict[str, Look] = {}  # by uid, for the commands that a person would type

    @property
    def platform(self) -> str:
        return _PLATFORM

    def declares(self) -> Declaration:
        seen = "state, plan, workers and last swap, read right before"
        return Declaration(
            offers=(
                Offer("restart", False, (_KILL,), "the number and start of the process, read right before"),
                Offer("rollout_restart", False, (RESTART,), f"{seen}; the activity log"),
                Offer("scale", True, (PLAN_WRITE,), seen),
                Offer("roll_back", True, (_SWAP,), f"{seen}; the slot's own last swap and deployments"),
            ),
            observes=("instances and which are ready", "workers of the plan", "slots, swaps and deployments"),
            reads=(*READS, *PLAN_READS, *_SLOT_READS),
            privileges="azure-role.json",
            settles_s=600.0,
        )

    async def check(self, ref: TargetRef) -> tuple[RightCheck, ...]:
        on_app, on_plan = (*READS, *_SLOT_READS, _KILL, RESTART, _SWAP), (*PLAN_READS, PLAN_WRITE)
        return await self._changes.check(await self._sites.look(ref), on_app, on_plan)

    async def resolve(self, address: WorkloadAddress) -> TargetRef:
        _, uid = await self._sites.named(address.namespace, address.name)
        return TargetRef(platform=_PLATFORM, namespace=address.namespace, name=address.name, uid=uid)

    async def observe(self, ref: TargetRef) -> TargetState:
        look = self._looks[ref.uid] = await self._sites.look(ref)
        workers, earlier, no_scale = await asyncio.gather(
            self._sites.workers(look.app), self._earlier(look.app), self._changes.why_not_scaled(look)
        )
        refuses: dict[ActionKind, str] = {}
        if not any(one.process for one in workers):
            refuses["restart"] = "App Service shows the app's process on no instance; the whole app can be restarted"
        if no_scale:
            refuses["scale"] = no_scale
        if isinstance(earlier, str):
            refuses["roll_back"] = earlier
        if not look.app.running:
            stopped = f"the app is {look.app.state.lower()}"
            refuses |= {"restart": stopped, "rollout_restart": stopped, "roll_back": stopped}
        counted = look.plan.elastic_maximum is None and not look.plan.per_site and look.plan.capacity
        return TargetState(
            ref=ref,
            generation=look.generation,
            replicas=look.plan.capacity if counted else len(workers),
            instances=instances(workers),
            rollout=f"{PRODUCTION}@{_stamp(look.app.swap)}",
            revisions=() if isinstance(earlier, str) else (earlier,),
            away_rolling_back=0,  # a slot is warmed up before it is swapped
            refuses=refuses,
        )

    async def apply(self, ref: TargetRef, operation: Operation, intent: Intent) -> str:
        look = await self._sites.look_at(ref, intent.generation)
        match operation:
            case RestartInstance(instance=instance):
                return await self._end(ref, look, instance, intent)
            case RolloutRestart():
                await self._changes.restart(ref, look, intent)
                return f"restarted every instance of {ref.describe()}"
            case ScaleTo(replicas=replicas):
                if reason := await self._changes.why_not_scaled(look):
                    raise PermanentError(f"{ref.describe()} cannot be scaled: {reason}")
                within(look.plan, replicas)
                await self._changes.put_plan(ref, look, intent, capacity=replicas)
                return f"scaled the plan {look.plan.name} from {look.plan.capacity} to {replicas} workers"
            case RollBackTo(revision=revision):
                slot = await self._slot_of(look.app, revision)
                swap = self._arm.client.web_apps.begin_swap_slot

                async def without_waiting(body: models.CsmSlotEntity, **options: Any) -> None:
                    await swap(ref.namespace, ref.name, slot, body, polling=False, **options)

                await self._changes.send(ref, intent, _SWAP, without_waiting, _into_production())
                return f"began to swap the slot {slot} of {ref.describe()} with production"
            case _:
                raise not_offered(_PLATFORM, operation)

    async def calls(self, ref: TargetRef, operation: Operation, generation: str) -> tuple[str, ...]:
        look = await self._sites.look(ref)
        path = self._sites.path(ref.namespace, "sites", ref.name)
        while_there = f"only while the app is at {generation}"
        match operation:
            case RestartInstance(instance=instance):
                process, started = _process_of(instance)
                url = self._changes.url(f"{path}/instances/{instance.name}/processes/{process}")
                return (f"DELETE {url} only while that process is the one that started at {started}",)
            case RolloutRestart():
                return (self._changes.shown_restart(look, generation),)
            case ScaleTo(replicas=replicas):
                return (self._changes.shown_plan(look, generation, capacity=replicas),)
            case RollBackTo(revision=revision):
                slot = await self._slot_of(look.app, revision)
                body = json.dumps(_into_production().as_dict())
                return (f"POST {self._changes.url(f'{path}/slots/{slot}/slotsswap')} {body} {while_there}",)
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
            case RollBackTo(revision=revision):
                _, _, stamp = revision.partition("@")
                return look.app.running and not look.app.busy and _stamp(look.app.swap) not in (stamp, NEVER)
        workers = await self._sites.workers(look.app)
        complete = not look.plan.busy and bool(workers) and all(one.ready for one in workers)
        match operation:
            case RestartInstance(instance=instance):
                there = [one for one in workers if one.name == instance.name]
                return complete and all(one.uid != instance.uid and one.process is not None for one in there)
            case ScaleTo(replicas=replicas):
                return complete and look.plan.capacity == replicas == len(workers)
            case _:
                raise not_offered(_PLATFORM, operation)

    async def find(self, ref: TargetRef, operation: Operation, intent: Intent) -> Finding:
        """See ``Changes.find``. A process that is gone was restarted, by whomever; a plan that has the wanted workers
        was scaled, by whomever. A swap is ours when the latest one is not that of the intent's generation and is one of
        the very slot."""

        async def has_ended(look: Look) -> Finding | None:
            assert isinstance(operation, RestartInstance)
            process, started = _process_of(operation.instance)
            there = await self._sites.runs(look.app, operation.instance.name, process, started)
            return None if there else Finding.APPLIED

        async def has_swapped(look: Look) -> Finding | None:
            assert isinstance(operation, RollBackTo)
            before, now = intent.generation.rpartition("/")[2], look.app.swap
            if now is None or str(now) == before:
                return None
            slot = operation.revision.partition("@")[0]
            ours = before.partition("@")[0].split(">") if slot == PRODUCTION else [slot]
            return Finding.APPLIED if now.other in ours else Finding.UNKNOWN

        match operation:
            case RestartInstance():
                return await self._changes.find(ref, intent, has_ended)
            case RolloutRestart():
                return await self._changes.find_restart(ref, intent)
            case ScaleTo(replicas=replicas):
                return await self._changes.find_plan(ref, intent, lambda plan: plan.capacity == replicas)
            case RollBackTo():
                return await self._changes.find(ref, intent, has_swapped)
            case _:
                raise not_offered(_PLATFORM, operation)

    def command(self, ref: TargetRef, action: Action) -> str:
        app, look = az_app(ref, self._arm.subscription_id), self._looks.get(ref.uid)
        plan: Plan | None = look.plan if look else None
        match action:
            case RestartAction(instances=several):
                path = self._sites.path(ref.namespace, "sites", ref.name)
                return " && ".join(
                    f"az rest --method delete --url {shlex.quote(self._changes.url(f'{path}/instances/{rest}'))}"
                    for rest in (f"{one.name}/processes/{_process_of(one)[0]}" for one in several)
                )
            case RolloutRestartAction():
                return f"az webapp restart {app}"
            case ScaleAction(to_replicas=replicas):
                subscription = self._arm.subscription_id
                return plan_command(
                    ref, subscription, plan, "appservice plan update", f"--number-of-workers {replicas}"
                )
            case RollBackAction(to_revision=revision):
                slot = revision.partition("@")[0]
                if slot == PRODUCTION and look is not None and look.app.swap is not None:
                    slot = look.app.swap.other
                return f"az webapp deployment slot swap {app} --slot {shlex.quote(slot)} --target-slot {PRODUCTION}"
            case ManualAction(command=command):
                return command
            case _:
                raise not_offered(_PLATFORM, action)

    async def close(self) -> None:
        await self._arm.close()

    async def _end(self, ref: TargetRef, look: Look, instance: InstanceRef, intent: Intent) -> str:
        process, started = _process_of(instance)
        if not await self._sites.runs(look.app, instance.name, process, started):
            raise PreconditionFailed(f"the process {process} of {started} runs no more on {instance.name}")
        end = self._arm.client.web_apps.delete_instance_process
        await self._changes.send(ref, intent, _KILL, end, ref.namespace, ref.name, process, instance.name)
        return f"ended the app's process {process} on the instance {instance.name}; IIS starts it anew"

    async def _earlier(self, app: App) -> Revision | str:
        """What a swap would bring back, or why there is nothing."""
        if app.swap is None:
            return "no slot was ever swapped with production, so none holds what ran before"
        try:
            return await self._held_by(app, app.swap.other)
        except PreconditionFailed as error:
            return str(error)

    async def _slot_of(self, app: App, revision: str) -> str:
        """The slot that holds a revision. Raises PreconditionFailed when none does any more."""
        slot, _, stamp = revision.partition("@")
        if app.swap is None:
            raise PreconditionFailed(f"no slot of {app.name} was ever swapped with production")
        if slot == PRODUCTION:  # what the latest swap has put into its slot
            if stamp != NEVER and _time(stamp) >= app.swap.at:
                raise PreconditionFailed(f"{revision} still runs in production")
            return (await self._held_by(app, app.swap.other)).name.partition("@")[0]
        held = await self._held_by(app, slot)
        if held.name != revision:
            raise PreconditionFailed(f"the slot {slot} holds {held.name} by now, not {revision}")
        return slot

    async def _held_by(self, app: App, slot: str) -> Revision:
        """Raises PreconditionFailed when a slot does not hold what the latest swap has put into it."""
        latest, client = app.swap, self._arm.client.web_apps
        try:
            async with self._arm.reading(_SLOT_READS[0]):
                found = await client.get_slot(app.group, app.name, slot)
        except Missing as error:
            raise PreconditionFailed(f"the slot {slot} of {app.name} is gone: {error}") from error
        says = found.properties
        own = swap_of(says.slot_swap_status) if says else None
        if latest is None or latest.other != slot or (own is not None and own.at - latest.at > _APART):
            raise PreconditionFailed(f"the slot {slot} holds something else since the swap {latest or NEVER}")
        if says is None or says.state != "Running":
            raise PreconditionFailed(f"the slot {slot} is stopped, and Azure swaps only what runs")
        async with self._arm.reading(_SLOT_READS[1]):
            deployments = [
                one.properties
                async for one in client.list_deployments_slot(app.group, app.name, slot)
                if one.properties is not None
            ]
        if any(one.start_time is not None and utc(one.start_time) > latest.at for one in deployments):
            raise PreconditionFailed(f"something else was deployed into the slot {slot} since the swap")
        active = next((one for one in deployments if one.active), None)
        ended = active.end_time if active else None
        title = (active.message or "") if active else ""
        return Revision(f"{slot}@{latest.stamp}", title=title, at=utc(ended) if ended else None)


def _into_production() -> models.CsmSlotEntity:
    return models.CsmSlotEntity(target_slot=PRODUCTION, preserve_vnet=True)


def _stamp(swap: Swap | None) -> str:
    return swap.stamp if swap is not None else NEVER


def _time(stamp: str) -> datetime:
    try:
        return datetime.fromisoformat(stamp)
    except ValueError as error:
        raise PermanentError(f"{stamp!r} is no time of a swap") from error


def _process_of(instance: InstanceRef) -> tuple[str, str]:
    """The number and start that stand in the uid of an instance. Raises PermanentError where there are none."""
    process, _, started = instance.uid.removeprefix(f"{instance.name}/").partition("@")
    if not process.isdecimal() or not started:
        raise PermanentError(f"the app's process on the instance {instance.name} is not known: nothing was sent")
    return process, started
