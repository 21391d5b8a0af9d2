"""A small Azure Resource Manager: the calls that the adapters make, with its roles, long operations and words."""

from __future__ import annotations

import json
import re
import uuid
from collections.abc import Awaitable, Callable
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from aiohttp import web

import executors.targets
from tests.arm_world import (
    GROUP,
    ROOT,
    Plan,
    Process,
    Site,
    Slot,
    Worker,
    World,
    shown_site,
    site_id,
    text,
)

TOKEN = "the-bot"
ROLE = Path(executors.targets.__file__).parent / "azure-role.json"
_WEB = f"{ROOT}/resourceGroups/{{group}}/providers/Microsoft.Web"
_SITE = f"{_WEB}/sites/{{site}}"
_SLOT = f"{_SITE}/slots/{{slot}}"
_INSTANCES = f"{_SITE}/instances"
_PROCESSES = f"{_INSTANCES}/{{instance}}/processes"
_PAGE = 2
Handler = Callable[[web.Request], Awaitable[web.Response]]


class Refused(Exception):
    """``bare``: as App Service itself answers, not Resource Manager before it."""

    def __init__(self, status: int, code: str, message: str, *, bare: bool = False) -> None:
        super().__init__(message)
        self.status, self.code, self.bare = status, code, bare


class ArmServer:
    """``async with ArmServer() as server``: talk to ``server.url`` with the bearer token TOKEN.

    The account holds ``granted`` (at first what the shipped role grants); ``used`` are the rights that were needed.
    ``roles`` are shown in place of it, where there are any. ``refuses_writes`` is thrown at the next write.
    """

    def __init__(self, world: World | None = None) -> None:
        self.world = world or World()
        self.granted: set[str] = {one.casefold() for one in json.loads(ROLE.read_text())["Actions"]}
        self.used: set[str] = set()
        self.writes: list[str] = []
        self.request_ids: list[str] = []
        self.roles: list[dict[str, Any]] = []
        self.locked = False
        self.refuses_writes: Refused | None = None
        self.url = ""
        self._runner: web.AppRunner | None = None

    async def __aenter__(self) -> Self:
        app = web.Application()
        for method, path, action, handler in self._routes():
            app.router.add_route(method, path, self._guarded(action, handler))
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        self.url = f"http://127.0.0.1:{self._runner.addresses[0][1]}"
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._runner is not None
        self.world.close()
        await self._runner.cleanup()

    def _routes(self) -> tuple[tuple[str, str, str, Handler], ...]:
        sites, farms, insights = "Microsoft.Web/sites", "Microsoft.Web/serverfarms", "Microsoft.Insights"
        log = f"{ROOT}/providers/{insights}/eventtypes/management/values"
        scale = f"{ROOT}/resourceGroups/{{group}}/providers/{insights}/autoscalesettings"
        permissions = "/providers/Microsoft.Authorization/permissions"
        resources = "Microsoft.Resources/subscriptions/resourceGroups/resources/Read"
        return (
            ("GET", f"{ROOT}/resourceGroups/{{group}}/resources", resources, self._resources),
            ("GET", _SITE, f"{sites}/Read", self._site),
            ("POST", f"{_SITE}/restart", f"{sites}/restart/Action", self._restart),
            ("GET", _INSTANCES, f"{sites}/instances/Read", self._instances),
            ("GET", _PROCESSES, f"{sites}/instances/processes/Read", self._processes),
            ("GET", f"{_PROCESSES}/{{pid}}", f"{sites}/instances/processes/Read", self._process),
            ("DELETE", f"{_PROCESSES}/{{pid}}", f"{sites}/instances/processes/Delete", self._end_process),
            ("GET", _SLOT, f"{sites}/slots/Read", self._slot),
            ("GET", f"{_SLOT}/deployments", f"{sites}/slots/deployments/Read", self._deployments),
            ("POST", f"{_SLOT}/slotsswap", f"{sites}/slots/slotsswap/Action", self._swap),
            ("GET", f"{_SLOT}/operationresults/{{id}}", f"{sites}/slots/operationresults/Read", self._result),
            ("GET", f"{_WEB}/serverfarms/{{plan}}", f"{farms}/Read", self._plan),
            ("PUT", f"{_WEB}/serverfarms/{{plan}}", f"{farms}/Write", self._put_plan),
            (
                "GET",
                f"{_WEB}/serverfarms/{{plan}}/operationresults/{{id}}",
                f"{farms}/operationresults/Read",
                self._status,
            ),
            ("GET", scale, f"{insights}/autoscalesettings/Read", self._autoscale),
            ("GET", log, f"{insights}/eventtypes/values/Read", self._log),
            ("GET", _SITE + permissions, "Microsoft.Authorization/permissions/read", self._permissions),
            (
                "GET",
                f"{_WEB}/serverfarms/{{plan}}{permissions}",
                "Microsoft.Authorization/permissions/read",
                self._permissions,
            ),
        )

    def _guarded(self, action: str, handler: Handler) -> Handler:
        async def guarded(request: web.Request) -> web.Response:
            try:
                self._allow(request, action)
                answer = await handler(request)
            except Refused as refused:
                answer = _refusal(refused)
            answer.headers["x-ms-request-id"] = str(uuid.uuid4())
            answer.headers["x-ms-correlation-request-id"] = str(uuid.uuid4())
            return answer

        return guarded

    def _allow(self, request: web.Request, action: str) -> None:
        if request.headers.get("Authorization") != f"Bearer {TOKEN}":
            raise Refused(401, "AuthenticationFailed", "Authentication failed. The 'Authorization' header is missing.")
        if "api-version" not in request.query:
            message = "The api-version query parameter (?api-version=) is required for all requests."
            raise Refused(400, "MissingApiVersionParameter", message)
        is_write = request.method != "GET"
        if is_write:
            self.writes.append(f"{request.method} {request.path}")
            self.request_ids.append(request.headers.get("x-ms-client-request-id", ""))
        self.used.add(action.casefold())
        if action.casefold() not in self.granted:
            message = (
                f"The client 'sre-bot' with object id '{uuid.UUID(int=7)}' does not have authorization to perform "
                f"action '{action}' over scope '{request.path}' or the scope is invalid. If access was recently "
                "granted, please refresh your credentials."
            )
            raise Refused(403, "AuthorizationFailed", message)
        if is_write and self.locked:
            message = (
                f"The scope '{request.path}' cannot perform write operation because following scope(s) are locked: "
                f"'{ROOT}/resourceGroups/{GROUP}'. Please remove the lock and try again."
            )
            raise Refused(409, "ScopeLocked", message)
        if is_write and self.refuses_writes is not None:
            refused, self.refuses_writes = self.refuses_writes, None
            raise refused

    async def _resources(self, request: web.Request) -> web.Response:
        wanted = re.fullmatch(
            r"resourceType eq 'Microsoft.Web/sites' and name eq '([^']*)'", request.query.get("$filter", "")
        )
        if wanted is None or request.query.get("$expand") != "createdTime":
            raise Refused(400, "InvalidFilterInQueryString", "Invalid $filter specified in the query string.")
        site = self.world.sites.get(wanted[1])
        value = [{"id": site_id(site), "name": site.name, "createdTime": text(site.created)}] if site else []
        return web.json_response({"value": value})

    async def _site(self, request: web.Request) -> web.Response:
        site = self._find(request)
        return web.json_response(shown_site(site, site.production, site_id(site)))

    async def _slot(self, request: web.Request) -> web.Response:
        site, name = self._find(request), request.match_info["slot"]
        return web.json_response(shown_site(site, self._find_slot(request), f"{site_id(site)}/slots/{name}"))

    async def _instances(self, request: web.Request) -> web.Response:
        site = self._find(request)
        skip = int(request.query.get("$skipToken", "0"))
        page: dict[str, Any] = {
            "value": [
                {"name": one.name, "properties": {"state": one.state}} for one in site.workers[skip : skip + _PAGE]
            ]
        }
        if skip + _PAGE < len(site.workers):
            query = f"api-version={request.query['api-version']}&$skipToken={skip + _PAGE}"
            page["nextLink"] = f"http://{request.host}{request.path}?{query}"
        return web.json_response(page)

    async def _processes(self, request: web.Request) -> web.Response:
        site, worker = self._find(request), self._find_worker(request)
        value = [
            {"name": f"{site.name}/{worker.name}/{one.pid}", "properties": {"id": one.pid, "name": one.name}}
            for one in worker.processes
        ]
        return web.json_response({"value": value})

    async def _process(self, request: web.Request) -> web.Response:
        one = self._find_process(request)
        says = {
            "identifier": one.pid,
            "file_name": one.file,
            "start_time": text(one.started),
            "is_scm_site": one.scm,
            "is_webjob": False,
        }
        return web.json_response({"name": str(one.pid), "properties": says})

    async def _end_process(self, request: web.Request) -> web.Response:
        process = self._find_process(request)
        self.world.end_process(self._find(request), self._find_worker(request), process)
        return web.Response(status=204)

    async def _restart(self, request: web.Request) -> web.Response:
        site = self._find(request)
        self._not_busy(site)
        request_id = request.headers["x-ms-client-request-id"]
        self.world.log("Microsoft.Web/sites/restart/Action", site_id(site), request_id, "Started", "Succeeded")
        self.world.restart(site)
        return web.Response(status=200)

    async def _deployments(self, request: web.Request) -> web.Response:
        value = [
            {
                "name": f"d{number}",
                "properties": {
                    "active": one.active,
                    "message": one.message,
                    "start_time": text(one.start),
                    "end_time": text(one.start),
                },
            }
            for number, one in enumerate(self._find_slot(request).deployments)
        ]
        return web.json_response({"value": value})

    async def _swap(self, request: web.Request) -> web.Response:
        site, source, wish = self._find(request), request.match_info["slot"], await request.json()
        slot = self._find_slot(request)
        self._not_busy(site)
        if set(wish) != {"targetSlot", "preserveVnet"} or wish["targetSlot"] not in site.slots:
            raise Refused(400, "BadRequest", "The parameter targetSlot has an invalid value.", bare=True)
        if "Running" not in (slot.state, site.production.state):
            raise Refused(409, "Conflict", "one of the slots is in stopped state.", bare=True)
        operation = self.world.begin_swap(site, source, wish["targetSlot"])
        where = (
            f"http://{request.host}{site_id(site)}/slots/{source}/operationresults/{operation}?api-version=2025-05-01"
        )
        return web.Response(status=202, headers={"Location": where, "Retry-After": "15"})

    async def _result(self, request: web.Request) -> web.Response:
        """What Location leads to: 202 until it is over."""
        status, failure = self._operation(request)
        if status == "Failed":
            raise Refused(400, "BadRequest", failure, bare=True)
        return web.Response(status=202 if status == "InProgress" else 200)

    async def _status(self, request: web.Request) -> web.Response:
        """What Azure-AsyncOperation leads to: 200 with the status in it."""
        status, failure = self._operation(request)
        body: dict[str, Any] = {"status": status}
        if failure:
            body["error"] = {"code": "Conflict", "message": failure}
        return web.json_response(body)

    async def _plan(self, request: web.Request) -> web.Response:
        return web.json_response(self._shown_plan(self._find_plan(request)))

    async def _put_plan(self, request: web.Request) -> web.Response:
        plan, wish = self._find_plan(request), await request.json()
        if plan.provisioning != "Succeeded":
            raise Refused(
                409, "Conflict", "Cannot modify this plan because another operation is in progress.", bare=True
            )
        if wish.get("location") != "West Europe" or wish.get("sku", {}).get("name") != plan.size:
            raise Refused(400, "BadRequest", "The plan was not sent back as it was.", bare=True)
        capacity, most = wish["sku"]["capacity"], wish["properties"].get("maximumElasticWorkerCount")
        if max(capacity, most or 0) > plan.maximum:
            raise Refused(400, "BadRequest", f"The maximum number of workers is {plan.maximum}.", bare=True)
        operation = self.world.begin_scale(plan, capacity, most)
        where = f"http://{request.host}{request.path}/operationresults/{operation}?api-version=2025-05-01"
        shown = self._shown_plan(plan)
        return web.json_response(shown, status=202, headers={"Azure-AsyncOperation": where, "Retry-After": "5"})

    async def _autoscale(self, request: web.Request) -> web.Response:
        del request
        return web.json_response({"value": self.world.autoscale})

    async def _log(self, request: web.Request) -> web.Response:
        wanted = re.fullmatch(r"eventTimestamp ge '([^']+)' and resourceUri eq '([^']+)'", request.query["$filter"])
        if wanted is None:
            raise Refused(400, "BadRequest", "Query parameter $filter is not valid.")
        events = [] if self.world.log_is_late else self.world.events
        return web.json_response({"value": [one for one in events if one["resourceId"] == wanted[2]]})

    async def _permissions(self, request: web.Request) -> web.Response:
        del request
        roles = [{"actions": sorted(self.granted), "notActions": [], "dataActions": [], "notDataActions": []}]
        return web.json_response({"value": self.roles or roles})

    def _find(self, request: web.Request) -> Site:
        name = request.match_info["site"]
        if name not in self.world.sites or request.match_info["group"] != GROUP:
            raise _not_found(f"Microsoft.Web/sites/{name}")
        return self.world.sites[name]

    def _find_slot(self, request: web.Request) -> Slot:
        site, name = self._find(request), request.match_info["slot"]
        if name == "production" or name not in site.slots:
            raise _not_found(f"Microsoft.Web/sites/{site.name}/slots/{name}")
        return site.slots[name]

    def _find_plan(self, request: web.Request) -> Plan:
        name = request.match_info["plan"]
        if name not in self.world.plans:
            raise _not_found(f"Microsoft.Web/serverFarms/{name}")
        return self.world.plans[name]

    def _find_worker(self, request: web.Request) -> Worker:
        for one in self._find(request).workers:
            if one.name == request.match_info["instance"]:
                if not one.answers:
                    raise Refused(502, "BadGateway", "The web server received an invalid response.", bare=True)
                return one
        raise Refused(404, "NotFound", "Cannot find the instance.", bare=True)

    def _find_process(self, request: web.Request) -> Process:
        for one in self._find_worker(request).processes:
            if str(one.pid) == request.match_info["pid"]:
                return one
        raise Refused(404, "NotFound", "Cannot find the process.", bare=True)

    def _operation(self, request: web.Request) -> tuple[str, str]:
        name = request.match_info["id"]
        if name not in self.world.operations:
            raise Refused(404, "NotFound", f"The operation {name} is not found.", bare=True)
        return self.world.operations[name]

    def _not_busy(self, site: Site) -> None:
        if site.busy:
            message = (
                "Cannot modify this site because another operation is in progress. Details: Id: "
                f"{site.busy}, OperationName: SwapSiteSlots, SiteName: {site.name}"
            )
            raise Refused(409, "Conflict", message, bare=True)

    def _shown_plan(self, plan: Plan) -> dict[str, Any]:
        apps = [site for site in self.world.sites.values() if site.plan is plan]
        return {
            "id": f"{ROOT}/resourceGroups/{GROUP}/providers/Microsoft.Web/serverfarms/{plan.name}",
            "name": plan.name,
            "type": "Microsoft.Web/serverfarms",
            "location": "West Europe",
            "tags": {"team": "shop"},
            "sku": {"name": plan.size, "tier": plan.tier, "size": plan.size, "capacity": plan.capacity},
            "properties": {
                "status": "Ready",
                "provisioningState": plan.provisioning,
                "maximumNumberOfWorkers": plan.maximum,
                "numberOfWorkers": plan.capacity,
                "numberOfSites": len(apps),
                "perSiteScaling": plan.per_site,
                "elasticScaleEnabled": plan.elastic_maximum is not None,
                "maximumElasticWorkerCount": plan.elastic_maximum or 1,
                "zoneRedundant": False,
            },
        }


def _not_found(resource: str) -> Refused:
    message = (
        f"The Resource '{resource}' under resource group '{GROUP}' was not found. For more details please go to "
        "https://aka.ms/ARMResourceNotFoundFix"
    )
    return Refused(404, "ResourceNotFound", message)


def _refusal(refused: Refused) -> web.Response:
    said: dict[str, Any] = {"code": refused.code, "message": str(refused)}
    if refused.bare:
        said = {"Code": refused.code, "Message": str(refused), "Target": None, "Details": [{"Message": str(refused)}]}
    else:
        said = {"error": said}
    headers = {"Retry-After": "17"} if refused.status == 429 else {}
    return web.json_response(said, status=refused.status, headers=headers)
