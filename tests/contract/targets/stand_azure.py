"""App Service and Functions before an ARM-shaped server."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

from azure.core.credentials import AccessToken
from azure.core.credentials_async import AsyncTokenCredential
from azure.core.pipeline import PipelineRequest
from azure.core.pipeline.policies import SansIOHTTPPolicy

from executors.targets.azure_api import Arm
from executors.targets.azure_app_service import AzureAppServiceTarget
from executors.targets.azure_functions import AzureFunctionsTarget
from pipeline.domain.action import (
    Bounds,
    BoundsAction,
    InstanceRef,
    RestartAction,
    RollBackAction,
    RolloutRestartAction,
    ScaleAction,
    TargetAction,
)
from pipeline.domain.catalogue import WorkloadAddress
from pipeline.domain.plan import Platform, TargetRef, TargetState
from pipeline.ports.targets import Target
from tests.arm_server import TOKEN, ArmServer
from tests.arm_world import GROUP, SLOW_S, SUBSCRIPTION, Site
from tests.contract.targets.places import BRIEF_S
from tests.contract.targets.stand import Opens, Stand
from tests.faults import Answer, Fault, Proxy

_SLOW_DOWN = b'{"error": {"code": "SubscriptionRequestsThrottled", "message": "Number of requests exceeded the limit"}}'


class OverPlainHttp(SansIOHTTPPolicy[Any, Any]):
    """In place of the SDK's own, which sends no token where there is no TLS."""

    def on_request(self, request: PipelineRequest[Any]) -> None:
        request.http_request.headers["Authorization"] = f"Bearer {TOKEN}"


class NoCredential(AsyncTokenCredential):
    async def get_token(self, *scopes: str, **options: Any) -> AccessToken:
        raise AssertionError(f"nobody needs a token for {scopes}")

    async def close(self) -> None: ...

    async def __aexit__(self, *details: object) -> None: ...


def azure_target(platform: Platform, url: str, *, timeout_s: float = 20.0, flight_s: float | None = None) -> Target:
    arm = Arm(
        SUBSCRIPTION,
        timeout_s=timeout_s,
        base_url=url,
        credential=NoCredential(),
        authentication=OverPlainHttp(),
        pause_s=SLOW_S,
    )
    arm.flight_s = arm.flight_s if flight_s is None else flight_s
    if platform == "azure_functions":
        return AzureFunctionsTarget(arm, resource_groups=[GROUP])
    return AzureAppServiceTarget(arm, resource_groups=[GROUP])


class AzurePlace:
    """A server with what a test puts into it, and adapters that reach it through a proxy."""

    def __init__(self, server: ArmServer, proxy: Proxy) -> None:
        self.server, self.world, self.proxy = server, server.world, proxy
        self._targets: list[Target] = []

    def site(self, kind: str = "app,linux", **plan: object) -> Site:
        """An app that was swapped with its slot once."""
        site = self.world.add("checkout", kind=kind, **plan)
        self.world.add_slot(site, "staging", "code-2")
        self.world.swap(site, "staging", "production")
        return site

    def connect(self, platform: Platform = "azure_app_service", *, flight_s: float | None = None) -> Target:
        made = azure_target(platform, self.proxy.url, flight_s=flight_s)
        self._targets.append(made)
        return made

    async def seen(self, platform: Platform = "azure_app_service") -> tuple[Target, TargetRef, TargetState]:
        target = self.connect(platform)
        ref = await target.resolve(WorkloadAddress(platform=platform, namespace=GROUP, name="checkout"))
        return target, ref, await target.observe(ref)

    async def close(self) -> None:
        for target in self._targets:
            await target.close()


class AzureStand(Stand):
    def __init__(self, server: ArmServer, proxy: Proxy, site: Site, platform: Platform, kind: str) -> None:
        self._server, self._proxy, self._site, self._kind = server, proxy, site, kind
        self._targets: list[Target] = []
        self._platform = platform
        self.address = WorkloadAddress(platform=platform, namespace=GROUP, name=site.name)
        self.target = self._connect(20.0)

    async def action(self, state: TargetState) -> TargetAction:
        match self._kind:
            case "restart":
                first = state.instances[0]
                return RestartAction(instances=(InstanceRef(name=first.name, uid=first.uid),))
            case "rollout_restart":
                return RolloutRestartAction()
            case "scale":
                return ScaleAction(from_replicas=state.replicas, to_replicas=state.replicas + 1)
            case "bounds":
                assert state.bounds is not None
                wider = Bounds(minimum=state.bounds.minimum + 1, maximum=state.bounds.maximum + 3)
                return BoundsAction(from_bounds=state.bounds, to_bounds=wider)
            case _:
                return RollBackAction(from_revision=state.rollout, to_revision=state.revisions[0].name)

    async def facts(self) -> object:
        match self._kind:
            case "restart":
                return frozenset((one.name, process.pid) for one in self._site.workers for process in one.processes)
            case "rollout_restart":
                return len([event for event in self._server.world.events if event["status"]["value"] == "Succeeded"])
            case "roll_back":
                return {name: slot.content for name, slot in self._site.slots.items()}
            case _:
                return self._site.plan.capacity, self._site.plan.elastic_maximum

    async def change_by_another(self) -> None:
        if self._kind in ("scale", "bounds"):
            self._server.world.scale(self._site.plan, self._site.plan.capacity + 2)
        else:
            self._server.world.swap(self._site, "staging", "production")

    async def former(self, ref: TargetRef) -> TargetRef:
        self._server.world.recreate(self._site)
        return ref

    async def deny(self) -> None:
        self._server.granted = {one for one in self._server.granted if one.endswith("/read")}

    async def throttle(self) -> None:
        self._proxy.strike(Answer(429, _SLOW_DOWN, {"Retry-After": "17"}))

    async def lose_answer(self) -> None:
        self._proxy.strike(Fault.CUT)

    def another(self) -> Target:
        return self._connect(BRIEF_S)

    def writes(self) -> int:
        return len(self._proxy.writes)

    def _connect(self, timeout_s: float) -> Target:
        made = azure_target(self._platform, self._proxy.url, timeout_s=timeout_s)
        self._targets.append(made)
        return made

    async def close(self) -> None:
        for target in self._targets:
            await target.close()


@asynccontextmanager
async def _opened(platform: Platform, kind: str, app: str, **plan: Any) -> AsyncIterator[Stand]:
    async with ArmServer() as server, Proxy(server.url) as proxy:
        site = server.world.add("checkout", kind=app, **plan)
        server.world.add_slot(site, "staging", "code-2")
        server.world.swap(site, "staging", "production")
        stand = AzureStand(server, proxy, site, platform, kind)
        try:
            yield stand
        finally:
            await stand.close()


_web = partial(_opened, "azure_app_service")
_functions = partial(_opened, "azure_functions")
_PREMIUM = {"tier": "ElasticPremium", "size": "EP1", "capacity": 1, "elastic_maximum": 4, "maximum": 20}

STANDS: Mapping[str, Opens] = {
    "azure_app_service: restart": partial(_web, "restart", "app"),
    "azure_app_service: rollout_restart": partial(_web, "rollout_restart", "app,linux"),
    "azure_app_service: scale": partial(_web, "scale", "app,linux"),
    "azure_app_service: roll_back": partial(_web, "roll_back", "app,linux"),
    "azure_functions: rollout_restart": partial(_functions, "rollout_restart", "functionapp"),
    "azure_functions: scale": partial(_functions, "scale", "functionapp,linux"),
    "azure_functions: bounds": partial(_functions, "bounds", "functionapp", **_PREMIUM),
}
