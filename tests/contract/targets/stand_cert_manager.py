"""cert-manager's Certificates: renew."""

from __future__ import annotations

import copy
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

from executors.targets.cert_manager import CertManagerTarget
from pipeline.domain.action import RenewAction, TargetAction
from pipeline.domain.catalogue import WorkloadAddress
from pipeline.domain.plan import TargetRef, TargetState
from pipeline.ports.targets import Target
from tests.cert_manager_server import CertManagerServer
from tests.contract.targets.places import kube_configuration
from tests.contract.targets.stand import Opens, Stand
from tests.faults import Answer, Fault, Proxy

NAMESPACE, NAME = "shop", "shop-tls"
KEY = ("certificates", NAMESPACE, NAME)


class CertManagerStand(Stand):
    """The Certificate shop/shop-tls, which ends in two days, behind a proxy that can spoil requests."""

    address = WorkloadAddress(platform="cert_manager", namespace=NAMESPACE, name=NAME)

    def __init__(self, server: CertManagerServer, proxy: Proxy) -> None:
        self.server = server
        self.manager = server.manager
        self.proxy = proxy
        self._targets: list[Target] = []
        self.target = self.connect()

    def connect(self, *, timeout_s: float = 20.0) -> Target:
        made = CertManagerTarget(kube_configuration(self.proxy.url), namespaces=[NAMESPACE], timeout_s=timeout_s)
        self._targets.append(made)
        return made

    async def action(self, state: TargetState) -> TargetAction:
        assert state.not_after is not None
        return RenewAction(not_after=state.not_after)

    async def facts(self) -> object:
        stored = self.manager.objects[KEY]
        return copy.deepcopy((stored["spec"], stored["status"])), self.manager.secrets[KEY]

    async def change_by_another(self) -> None:
        self.manager.edit_spec(KEY, dnsNames=["another.example"])

    async def former(self, ref: TargetRef) -> TargetRef:
        self.manager.add(KEY)
        return ref

    async def deny(self) -> None:
        self.server.granted = {("get", "cert-manager.io", "certificates")}

    async def throttle(self) -> None:
        said = b'{"kind": "Status", "message": "too many requests, please try again later", "code": 429}'
        self.proxy.strike(Answer(429, said, {"Retry-After": "1"}))

    async def lose_answer(self) -> None:
        self.proxy.strike(Fault.CUT)

    def another(self) -> Target:
        return self.connect(timeout_s=1.0)

    def writes(self) -> int:
        # Asking for rights is a POST that changes nothing.
        return sum(request.path.partition("?")[0].endswith("/status") for request in self.proxy.writes)

    async def close(self) -> None:
        for target in self._targets:
            await target.close()


@asynccontextmanager
async def cert_manager_stand() -> AsyncIterator[CertManagerStand]:
    async with CertManagerServer() as server, Proxy(server.url) as proxy:
        server.manager.add(KEY)
        stand = CertManagerStand(server, proxy)
        try:
            yield stand
        finally:
            await stand.close()


STANDS: Mapping[str, Opens] = {"cert_manager: renew": cert_manager_stand}
