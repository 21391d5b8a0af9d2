"""Apps of Azure App Service with their plans and instances, as both adapters read them."""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Literal

from pydantic import AwareDatetime, Field

from executors.targets.azure_api import Arm, Foreign, Missing, models, validated
from pipeline.domain.action import Bounds
from pipeline.domain.errors import PermanentError, PreconditionFailed, TemporaryError
from pipeline.domain.plan import InstanceState, TargetRef

PRODUCTION = "production"
NEVER = "never"
"""In place of the time of a swap that there was not."""
READS = (
    "Microsoft.Web/sites/Read",
    "Microsoft.Web/sites/instances/Read",
    "Microsoft.Web/sites/instances/processes/Read",
    "Microsoft.Insights/autoscalesettings/Read",
    "Microsoft.Insights/eventtypes/values/Read",
    "Microsoft.Resources/subscriptions/resourceGroups/resources/Read",
)
PLAN_READS = ("Microsoft.Web/serverfarms/Read", "Microsoft.Web/serverfarms/operationresults/Read")
RESTART = "Microsoft.Web/sites/restart/Action"
PLAN_WRITE = "Microsoft.Web/serverfarms/Write"
_RESTART_LOG = timedelta(days=1)
"""How far back a restart is looked for in the activity log."""
_AT_ONCE = 8
"""Instances that are read at the same time."""
_HANGS_S = 5.0
"""How long one of them may take to tell its processes."""

Fits = Literal["app", "functionapp"]


@dataclass(frozen=True, slots=True)
class Swap:
    """The last time that two slots changed places."""

    source: str
    destination: str
    at: datetime

    @property
    def stamp(self) -> str:
        return self.at.isoformat().replace("+00:00", "Z")

    @property
    def other(self) -> str:
        """The slot that changed places with production."""
        return self.destination if self.source == PRODUCTION else self.source

    def __str__(self) -> str:
        return f"{self.source}>{self.destination}@{self.stamp}"


@dataclass(frozen=True, slots=True)
class App:
    """``shows_processes``: on Windows, where App Service tells the processes of an instance. ``busy``: a swap or the
    like is under way."""

    group: str
    name: str
    kind: str
    state: str
    plan_group: str
    plan_name: str
    shows_processes: bool
    busy: bool
    swap: Swap | None

    @property
    def running(self) -> bool:
        return self.state == "Running"


@dataclass(frozen=True, slots=True)
class Plan:
    """``capacity``: workers wanted, of an elastic plan those that are kept ready; ``elastic_maximum`` is up to how many
    it then goes by itself. ``raw`` is what a write sends back with one thing changed."""

    group: str
    name: str
    tier: str
    size: str
    capacity: int
    maximum: int
    elastic_maximum: int | None
    per_site: bool
    busy: bool
    apps: int
    raw: models.AppServicePlan

    @property
    def bounds(self) -> Bounds | None:
        if self.elastic_maximum is None:
            return None
        return Bounds(minimum=self.capacity, maximum=max(self.elastic_maximum, self.capacity, 1))


@dataclass(frozen=True, slots=True)
class Look:
    """An app and its plan, read one right after the other."""

    app: App
    plan: Plan

    @property
    def generation(self) -> str:
        """State, plan, size and number of its workers, last swap: what App Service says of what is wanted. Settings of
        the app and what is deployed into it are not in it."""
        plan, app = self.plan, self.app
        elastic = "" if plan.elastic_maximum is None else f"..{plan.elastic_maximum}"
        workers = f"{plan.size}x{plan.capacity}{elastic}"
        return "/".join((app.state, plan.name, workers, str(app.swap or NEVER)))


@dataclass(frozen=True, slots=True)
class Worker:
    """One instance of an app. ``process`` and ``started`` are None where App Service does not tell them."""

    name: str
    ready: bool
    process: str | None = None
    started: datetime | None = None

    @property
    def uid(self) -> str:
        """Changes when the app's process is replaced; the instance keeps its name."""
        if self.process is None or self.started is None:
            return self.name
        return f"{self.name}/{self.process}@{self.started.isoformat()}"


class Event(Foreign):
    """One line of the activity log."""

    class _Request(Foreign):
        client_request_id: str = Field(default="", alias="clientRequestId")

    class _Value(Foreign):
        value: str = ""

    at: AwareDatetime = Field(alias="eventTimestamp")
    operation: _Value = Field(default=_Value(), alias="operationName")
    status: _Value = _Value()
    request: _Request | None = Field(default=None, alias="httpRequest")

    @property
    def request_id(self) -> str:
        return self.request.client_request_id if self.request else ""


class _Resource(Foreign):
    created: AwareDatetime = Field(alias="createdTime")


class _Autoscale(Foreign):
    class _Properties(Foreign):
        target: str = Field(default="", alias="targetResourceUri")
        enabled: bool = True

    name: str
    properties: _Properties = _Properties()


class Sites:
    """The apps of one kind in the listed resource groups; everything else is refused before anything is sent."""

    def __init__(self, arm: Arm, *, fits: Fits, groups: Collection[str]) -> None:
        self.arm = arm
        self._fits = fits
        self._groups = frozenset(groups)

    def path(self, group: str, kind: Literal["sites", "serverfarms"], name: str) -> str:
        """The resource id."""
        root = f"/subscriptions/{self.arm.subscription_id}/resourceGroups/{group}"
        return f"{root}/providers/Microsoft.Web/{kind}/{name}"

    def is_open(self, group: str) -> bool:
        return group in self._groups

    async def named(self, group: str, name: str) -> tuple[App, str]:
        """An app and its uid. Raises PermanentError when there is none of this kind."""
        if not self.is_open(group):
            allowed = ", ".join(sorted(self._groups)) or "none"
            raise PermanentError(f"the resource group {group} is not one that the bot may touch (allowed: {allowed})")
        app, created = await asyncio.gather(self._app(group, name), self._created(group, name))
        if app is None:
            raise Missing(f"there is no app {name} in the resource group {group}")
        if created is None:  # the list of resources is a copy that lags behind
            raise TemporaryError(f"Azure does not say yet when the app {group}/{name} was made")
        is_function = "functionapp" in app.kind
        if is_function != (self._fits == "functionapp"):
            other = "azure_functions" if is_function else "azure_app_service"
            raise PermanentError(f"{group}/{name} is of kind {app.kind!r}: write platform {other}")
        return app, f"{self.arm.subscription_id}@{created.astimezone(UTC).isoformat()}"

    async def app(self, ref: TargetRef) -> App:
        """Raises PreconditionFailed when it is not the one that ``ref`` means."""
        app, uid = await self.named(ref.namespace, ref.name)
        if uid != ref.uid:
            raise PreconditionFailed(f"{ref.describe()} with uid {ref.uid} is gone")
        return app

    async def look(self, ref: TargetRef) -> Look:
        app = await self.app(ref)
        return Look(app, await self._plan(app.plan_group, app.plan_name))

    async def look_at(self, ref: TargetRef, generation: str) -> Look:
        """Raises PreconditionFailed when it is at another generation."""
        look = await self.look(ref)
        if look.generation != generation:
            raise PreconditionFailed(f"{ref.describe()} has changed: it is at {look.generation}, not {generation}")
        return look

    async def workers(self, app: App) -> tuple[Worker, ...]:
        """The app's instances. One that does not answer for its processes in time is not ready."""
        async with self.arm.reading("Microsoft.Web/sites/instances/Read"):
            pages = self.arm.client.web_apps.list_instance_identifiers(app.group, app.name)
            found = [one async for one in pages]
        some = asyncio.Semaphore(_AT_ONCE)
        return tuple(await asyncio.gather(*(self._worker(app, one, some) for one in found)))

    async def runs(self, app: App, instance: str, process: str, started: str) -> bool:
        """Whether this very process is still there; its number may have gone to another one."""
        try:
            async with self.arm.reading("Microsoft.Web/sites/instances/processes/Read"):
                found = await self._process(app, instance, process)
        except Missing:
            return False
        return found.start_time is not None and utc(found.start_time).isoformat() == started

    async def autoscaled_by(self, plan: Plan) -> str:
        """The autoscale setting that rules over a plan; empty when none does."""
        path = f"/subscriptions/{self.arm.subscription_id}/resourceGroups/{plan.group}/providers/Microsoft.Insights"
        found = await self.arm.listed(
            "Microsoft.Insights/autoscalesettings/Read", f"{path}/autoscalesettings", **{"api-version": "2022-10-01"}
        )
        target = self.path(plan.group, "serverfarms", plan.name).casefold()
        for setting in (validated(_Autoscale, one) for one in found):
            if setting.properties.enabled and setting.properties.target.casefold() == target:
                return setting.name
        return ""

    async def restarts(self, app: App) -> list[Event]:
        """Of the last day, as far as the activity log has them by now: it runs minutes behind."""
        since = (datetime.now(UTC) - _RESTART_LOG).strftime("%Y-%m-%dT%H:%M:%SZ")
        query = f"eventTimestamp ge '{since}' and resourceUri eq '{self.path(app.group, 'sites', app.name)}'"
        found = await self.arm.listed(
            "Microsoft.Insights/eventtypes/values/Read",
            f"/subscriptions/{self.arm.subscription_id}/providers/Microsoft.Insights/eventtypes/management/values",
            **{"api-version": "2015-04-01", "$filter": query},
        )
        events = [validated(Event, one) for one in found]
        return [one for one in events if one.request_id and one.operation.value.casefold() == RESTART.casefold()]

    async def _created(self, group: str, name: str) -> datetime | None:
        """What changes when an app is deleted and made anew; its resource id stays the same."""
        found = await self.arm.listed(
            "Microsoft.Resources/subscriptions/resourceGroups/resources/Read",
            f"/subscriptions/{self.arm.subscription_id}/resourceGroups/{group}/resources",
            **{
                "api-version": "2021-04-01",
                "$filter": f"resourceType eq 'Microsoft.Web/sites' and name eq '{name}'",
                "$expand": "createdTime",
            },
        )
        return validated(_Resource, found[0]).created if found else None

    async def _app(self, group: str, name: str) -> App | None:
        try:
            async with self.arm.reading("Microsoft.Web/sites/Read"):
                found = await self.arm.client.web_apps.get(group, name)
        except Missing:
            return None
        says = found.properties
        if says is None or not says.state or not says.server_farm_id:
            raise TemporaryError(f"Azure described the app {group}/{name} without its state or plan")
        plan = says.server_farm_id.strip("/").split("/")
        kind = found.kind or ""
        return App(
            group=group,
            name=name,
            kind=kind,
            state=says.state,
            plan_group=plan[3] if len(plan) > 3 else "",
            plan_name=plan[-1],
            shows_processes=not says.reserved and "linux" not in kind and "container" not in kind,
            busy=bool(says.in_progress_operation_id or says.target_swap_slot),
            swap=swap_of(says.slot_swap_status),
        )

    async def _plan(self, group: str, name: str) -> Plan:
        async with self.arm.reading("Microsoft.Web/serverfarms/Read"):
            found = await self.arm.client.app_service_plans.get(group, name)
        says, sku = found.properties, found.sku
        if says is None or sku is None:
            raise TemporaryError(f"Azure described the plan {group}/{name} without its size")
        elastic = says.elastic_scale_enabled or sku.tier == "ElasticPremium"
        return Plan(
            group=group,
            name=name,
            tier=sku.tier or "",
            size=sku.name or "",
            capacity=sku.capacity or 0,
            maximum=says.maximum_number_of_workers or 0,
            elastic_maximum=(says.maximum_elastic_worker_count or 0) if elastic else None,
            per_site=bool(says.per_site_scaling),
            busy=says.provisioning_state not in (None, "Succeeded", "Failed", "Canceled"),
            apps=says.number_of_sites or 0,
            raw=found,
        )

    async def _worker(self, app: App, found: models.WebSiteInstanceStatus, some: asyncio.Semaphore) -> Worker:
        name = found.name or ""
        ready = found.properties is not None and found.properties.state == "READY"
        if not app.shows_processes:
            return Worker(name, ready)
        async with some:
            try:
                return await self._with_process(app, Worker(name, ready))
            except TemporaryError:  # the instance's own site, which is asked for it, hangs when the instance does
                return Worker(name, ready=False)
            except PermanentError:  # gone meanwhile, or that site lets nobody in
                return Worker(name, ready)

    async def _with_process(self, app: App, worker: Worker) -> Worker:
        right = "Microsoft.Web/sites/instances/processes/Read"
        async with self.arm.reading(right, within_s=_HANGS_S):
            pages = self.arm.client.web_apps.list_instance_processes(app.group, app.name, worker.name)
            numbers = [(one.name or "").rpartition("/")[2] async for one in pages if _may_serve(one)]
            for number in numbers:
                says = await self._process(app, worker.name, number)
                if _serves(says) and says.start_time is not None:
                    return replace(worker, process=number, started=utc(says.start_time))
        return worker

    async def _process(self, app: App, instance: str, number: str) -> models.ProcessInfoProperties:
        found = await self.arm.client.web_apps.get_instance_process(app.group, app.name, number, instance)
        return found.properties or models.ProcessInfoProperties()


def swap_of(status: models.SlotSwapStatus | None) -> Swap | None:
    if status is None or status.timestamp_utc is None:
        return None
    return Swap(
        (status.source_slot_name or PRODUCTION).lower(),
        (status.destination_slot_name or PRODUCTION).lower(),
        utc(status.timestamp_utc),
    )


def utc(at: datetime) -> datetime:
    """App Service leaves the Z away in times that it calls UTC."""
    return at if at.tzinfo is not None else at.replace(tzinfo=UTC)


def instances(workers: Collection[Worker]) -> tuple[InstanceState, ...]:
    return tuple(InstanceState(one.name, one.uid, one.ready) for one in workers)


def _may_serve(listed: models.ProcessInfo) -> bool:
    """A list tells of each process little more than its name, and not always that."""
    name = listed.properties.get("name") if listed.properties is not None else None
    return str(name or "w3wp").casefold() == "w3wp"


def _serves(process: models.ProcessInfoProperties) -> bool:
    """The app's own w3wp, which IIS starts again when it ends; the other one is that of its deployment site."""
    name = (process.file_name or str(process.get("name", ""))).replace("\\", "/").rpartition("/")[2].casefold()
    return name in ("w3wp.exe", "w3wp") and not process.is_scm_site and not process.is_webjob
