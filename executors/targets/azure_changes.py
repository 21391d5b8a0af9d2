"""What both adapters of Azure change alike, and how it is found out what came of it."""

from __future__ import annotations

import asyncio
import copy
import json
import math
import shlex
import uuid
from collections.abc import Awaitable, Callable, Iterable
from typing import Any

from executors.targets.azure_api import GaveUp, models
from executors.targets.azure_sites import PLAN_WRITE, RESTART, Look, Plan, Sites, Worker
from executors.targets.late import wait_out
from pipeline.domain.action import Bounds
from pipeline.domain.capability import RightCheck
from pipeline.domain.errors import OutcomeUnknown, PermanentError, PreconditionFailed, TemporaryError
from pipeline.domain.execution import Finding, Intent
from pipeline.domain.plan import TargetRef

_API = "2025-05-01"
_SHARED = ("Free", "Shared", "Dynamic", "FlexConsumption")
"""Tiers whose workers nobody can count out."""


class Changes:
    """Writes to apps and plans, each once.

    Resource Manager takes no precondition here, so what was approved is compared with what stands right before a write
    is sent. It keeps no place for the execution on an app either: it is named by the id of the request, which the
    activity log shows some minutes later. What this process itself was answered, it remembers.
    """

    def __init__(self, sites: Sites) -> None:
        self._sites = sites
        self._arm = sites.arm
        self._answered: dict[str, str] = {}  # by request id: where its operation can be asked for
        self._operations: dict[str, str] = {}  # by uid of the app
        self._restarted: dict[str, frozenset[str]] = {}  # by uid of the app: the instances as they were before
        self._asked_s: dict[str, float] = {}  # by uid of the app

    async def send(
        self, ref: TargetRef, intent: Intent, what: str, call: Callable[..., Awaitable[object]], *args: object
    ) -> None:
        """Raises as ``Target.apply`` says."""
        request_id = _request_id(ref, intent)
        under_way = await self._arm.write(what, call, *args, request_id=request_id)
        self._answered[request_id] = under_way
        self._operations[ref.uid] = under_way

    async def restart(self, ref: TargetRef, look: Look, intent: Intent) -> None:
        """Replaces every process at once. Raises PreconditionFailed when this execution has done so already."""
        request_id = _request_id(ref, intent)
        if request_id in self._answered or await self._restart_of(look, request_id):
            raise PreconditionFailed(f"this restart of {ref.describe()} was sent before")
        before = _processes(await self._sites.workers(look.app))
        restart = self._arm.client.web_apps.restart
        try:
            await self.send(ref, intent, RESTART, restart, look.app.group, look.app.name)
        except OutcomeUnknown:
            self._restarted[ref.uid] = before
            raise
        self._restarted[ref.uid] = before

    async def put_plan(
        self, ref: TargetRef, look: Look, intent: Intent, *, capacity: int, up_to: int | None = None
    ) -> None:
        """Writes the plan as it was just read, with the number of its workers changed."""
        plan, put = look.plan, self._arm.client.app_service_plans.begin_create_or_update

        async def without_waiting(body: models.AppServicePlan, **options: Any) -> None:
            await put(plan.group, plan.name, body, polling=False, **options)

        await self.send(ref, intent, PLAN_WRITE, without_waiting, _resized(plan, capacity, up_to))

    def shown_restart(self, look: Look, generation: str) -> str:
        path = self._sites.path(look.app.group, "sites", look.app.name)
        return f"POST {self.url(path + '/restart')} only while the app is at {generation}"

    def shown_plan(self, look: Look, generation: str, *, capacity: int, up_to: int | None = None) -> str:
        plan = look.plan
        path = self._sites.path(plan.group, "serverfarms", plan.name)
        body = json.dumps(_resized(plan, capacity, up_to).as_dict(exclude_readonly=True))
        shared = f"; {plan.apps} apps share the plan" if plan.apps > 1 else ""
        return f"PUT {self.url(path)} {body} only while the app is at {generation}{shared}"

    def url(self, path: str) -> str:
        return f"{self._arm.base_url}{path}?api-version={_API}"

    async def find(
        self,
        ref: TargetRef,
        intent: Intent,
        traces: Callable[[Look], Awaitable[Finding | None]],
        *,
        tells_when_not: bool = True,
    ) -> Finding:
        """What came of a write; takes up to twice the time-out of a call.

        What was answered was applied, unless its operation failed since. Otherwise ``traces`` are looked for until no
        request can be under way any more; without any it is NOT_APPLIED where their absence proves it
        (``tells_when_not``). UNKNOWN when the app was deleted or made anew. Raises TemporaryError while an operation is
        under way that could be ours, PermanentError when Azure does not let its state be read: neither proves anything.
        """
        answered = self._answered.get(_request_id(ref, intent))
        if answered is not None:
            return Finding.NOT_APPLIED if answered and await self._failed(answered) else Finding.APPLIED
        busy = False

        async def look() -> Finding | None:
            nonlocal busy
            try:
                seen = await self._sites.look(ref)
            except PreconditionFailed:
                return Finding.UNKNOWN
            busy = seen.app.busy or seen.plan.busy
            return await traces(seen)

        finding = await wait_out(look, flight_s=self._arm.flight_s)
        if finding is not Finding.NOT_APPLIED:
            return finding
        if busy:
            raise TemporaryError(f"an operation on {ref.describe()} is under way, perhaps ours")
        return finding if tells_when_not else Finding.UNKNOWN

    async def find_restart(self, ref: TargetRef, intent: Intent) -> Finding:
        """Only its line in the activity log, or the change of every process since we sent it, proves it; nothing proves
        that it did not happen but a line that it failed."""
        request_id = _request_id(ref, intent)

        async def traces(look: Look) -> Finding | None:
            if found := await self._restart_of(look, request_id):
                return found
            before = self._restarted.get(ref.uid)
            return Finding.APPLIED if before and not before & _processes(await self._sites.workers(look.app)) else None

        return await self.find(ref, intent, traces, tells_when_not=False)

    async def find_plan(self, ref: TargetRef, intent: Intent, stands: Callable[[Plan], bool]) -> Finding:
        """The plan says what it is to have, not who said so. UNKNOWN when it has changed to something else."""

        async def traces(look: Look) -> Finding | None:
            if stands(look.plan):
                return Finding.APPLIED
            return None if look.generation == intent.generation else Finding.UNKNOWN

        return await self.find(ref, intent, traces)

    async def is_over(self, ref: TargetRef) -> bool:
        """Whether the operation that we began is; takes its time when it was asked just now. Raises PermanentError when
        it failed."""
        clock = asyncio.get_running_loop()
        await asyncio.sleep(self._asked_s.get(ref.uid, -math.inf) + self._arm.pause_s - clock.time())
        self._asked_s[ref.uid] = clock.time()
        under_way = self._operations.get(ref.uid, "")
        return not under_way or await self._arm.is_over(under_way)

    async def has_restarted(self, ref: TargetRef, look: Look) -> bool:
        """By what we saw before, or else by the latest restart in the activity log. Without processes to look at, on
        Linux, that all instances are ready has to do."""
        workers = await self._sites.workers(look.app)
        if not workers:
            return not look.plan.capacity
        if not all(one.ready for one in workers):
            return False
        before = self._restarted.get(ref.uid)
        if before is not None:
            running = _processes(workers)
            return not before & running and (not before or len(running) == len(workers))
        if not (events := await self._sites.restarts(look.app)):
            return False
        latest = max(events, key=lambda one: one.at)
        began = min(one.at for one in events if one.request_id == latest.request_id)
        return not look.app.shows_processes or all(one.started is not None and one.started >= began for one in workers)

    async def why_not_scaled(self, look: Look) -> str:
        """Why nobody may set the number of workers; empty when one may."""
        plan = look.plan
        if not self._sites.is_open(plan.group):
            return f"its plan {plan.name} is in the resource group {plan.group}, which the bot may not touch"
        if plan.tier in _SHARED:
            return f"Azure alone decides on the workers of the {plan.tier} plan {plan.name}"
        if plan.elastic_maximum is not None:
            return f"the plan {plan.name} scales by itself between {plan.bounds}"
        if plan.per_site:
            return f"the plan {plan.name} scales each of its apps by itself (perSiteScaling)"
        ruler = await self._sites.autoscaled_by(plan)
        return f"the autoscale setting {ruler} rules over the plan {plan.name}" if ruler else ""

    async def check(self, look: Look, on_app: Iterable[str], on_plan: Iterable[str]) -> tuple[RightCheck, ...]:
        app, plan = look.app, look.plan
        of_app = await self._rights(self._sites.path(app.group, "sites", app.name), on_app)
        return of_app + await self._rights(self._sites.path(plan.group, "serverfarms", plan.name), on_plan)

    async def _rights(self, path: str, rights: Iterable[str]) -> tuple[RightCheck, ...]:
        try:
            allows = await self._arm.allows(path)
        except TemporaryError:
            raise
        except PermanentError as error:
            return tuple(RightCheck(right, None, str(error)) for right in rights)
        said = "by the account's roles; locks and deny assignments do not show there"
        return tuple(RightCheck(right, allows(right), said) for right in rights)

    async def _failed(self, operation: str) -> bool:
        try:
            await self._arm.is_over(operation)
        except GaveUp:
            return True
        except TemporaryError:
            return False
        return False

    async def _restart_of(self, look: Look, request_id: str) -> Finding | None:
        """What the activity log says of one request; None: nothing, so far."""
        events = [one for one in await self._sites.restarts(look.app) if one.request_id == request_id]
        if not events:
            return None
        return Finding.NOT_APPLIED if any(one.status.value == "Failed" for one in events) else Finding.APPLIED


def plan_command(ref: TargetRef, subscription_id: str, plan: Plan | None, command: str, options: str) -> str:
    """``az`` on the plan of an app, which is looked up in the same line when nobody has read it yet."""
    if plan is not None:
        name = shlex.join(("--resource-group", plan.group, "--name", plan.name))
        return f"az {command} --subscription {shlex.quote(subscription_id)} {name} {options}"
    show = f"az resource show {az_app(ref, subscription_id)} --resource-type Microsoft.Web/sites"
    return f'az {command} --ids "$({show} --query properties.serverFarmId --output tsv)" {options}'


def az_app(ref: TargetRef, subscription_id: str) -> str:
    words = ("--subscription", subscription_id, "--resource-group", ref.namespace, "--name", ref.name)
    return shlex.join(words)


def within(plan: Plan, wanted: Bounds | int) -> None:
    """Raises PermanentError when a plan has no so many workers."""
    most = wanted.maximum if isinstance(wanted, Bounds) else wanted
    if plan.maximum and most > plan.maximum:
        raise PermanentError(
            f"the {plan.tier} plan {plan.name} takes {plan.maximum} workers at most, not {most}: nothing was sent"
        )


def _resized(plan: Plan, capacity: int, up_to: int | None) -> models.AppServicePlan:
    body = copy.deepcopy(plan.raw)
    if body.sku is None or body.properties is None:
        raise TemporaryError(f"Azure described the plan {plan.name} without its size")
    body.sku.capacity = capacity
    if up_to is not None:
        body.properties.maximum_elastic_worker_count = up_to
    return body


def _processes(workers: Iterable[Worker]) -> frozenset[str]:
    return frozenset(one.uid for one in workers if one.process is not None)


def _request_id(ref: TargetRef, intent: Intent) -> str:
    """The same for the same step, whoever sends it: a bot that takes over finds what its predecessor sent."""
    named = f"{ref.namespace}/{ref.name}/{ref.uid}/{intent.execution_id}/{intent.step}/{intent.generation}"
    return str(uuid.uuid5(uuid.NAMESPACE_URL, f"sre-bot/{named}"))
