"""The platforms that the target contract is run on, each behind a proxy that spoils requests on demand."""

from __future__ import annotations

import asyncio
import itertools
import time
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Literal, TypeVar

from kubernetes.client import Configuration

from executors.targets.kubernetes import KubernetesTarget
from executors.targets.local_process import LocalProcessTarget
from pipeline.domain.action import ScaleTo
from pipeline.domain.catalogue import WorkloadAddress
from pipeline.domain.errors import TemporaryError
from pipeline.domain.execution import Intent
from pipeline.domain.ids import ExecutionId
from pipeline.domain.plan import TargetRef, TargetState
from pipeline.ports.targets import Target
from tests.faults import Proxy
from tests.kube_objects import Cluster
from tests.kube_server import TOKEN, KubeServer

PATIENCE_S = 90.0
BRIEF_S = 1.0
"""A time-out for the adapters that are meant to meet it."""

T = TypeVar("T")

_executions = itertools.count(1)


def intent_for(state: TargetState) -> Intent:
    """A new execution's first step. Its fence is higher than those before, which the supervisor asks for."""
    number = next(_executions)
    return Intent(execution_id=ExecutionId(number), step=1, fence=number, generation=state.generation)


async def until(condition: Callable[[], Awaitable[bool]]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not await condition():
        assert time.monotonic() < deadline, "it did not come about"
        await asyncio.sleep(0.05)


async def as_soon_as_readable(call: Callable[[], Awaitable[T]]) -> T:
    """Tries again while it says that nothing happened: a busy machine may take longer to answer than BRIEF_S."""
    deadline = time.monotonic() + PATIENCE_S
    while True:
        try:
            return await call()
        except TemporaryError:
            assert time.monotonic() < deadline


class Place(ABC):
    """One workload on one platform. ``target`` goes through ``proxy``, what another party does does not."""

    address: WorkloadAddress

    def __init__(self, proxy: Proxy) -> None:
        self.proxy = proxy
        self._targets: list[Target] = []
        self.target = self.connect()

    def connect(self, *, timeout_s: float = 20.0) -> Target:
        made = self._make(self.proxy.url, timeout_s)
        self._targets.append(made)
        return made

    @abstractmethod
    def _make(self, url: str, timeout_s: float) -> Target: ...

    @abstractmethod
    async def scale_by_another(self, ref: TargetRef, replicas: int) -> None:
        """Somebody who is not the bot sets the replicas."""

    async def close(self) -> None:
        for target in self._targets:
            await target.close()


class LocalPlace(Place):
    address = WorkloadAddress(platform="local_process", namespace="demo", name="worker")

    def __init__(self, proxy: Proxy, world_url: str) -> None:
        self.world_url = world_url
        super().__init__(proxy)

    def _make(self, url: str, timeout_s: float) -> Target:
        return LocalProcessTarget(url, timeout_s=timeout_s)

    async def scale_by_another(self, ref: TargetRef, replicas: int) -> None:
        direct = LocalProcessTarget(self.world_url, timeout_s=20.0)
        try:
            await direct.apply(ref, ScaleTo(replicas=replicas), intent_for(await direct.observe(ref)))
        finally:
            await direct.close()


class KubePlace(Place):
    address = WorkloadAddress(platform="kubernetes", namespace="shop", name="checkout")

    def __init__(self, proxy: Proxy, server: KubeServer, resource: str) -> None:
        self.server = server
        self.key = (resource, self.address.namespace, self.address.name)
        server.cluster.add_workload(*self.key, replicas=2)
        super().__init__(proxy)

    def _make(self, url: str, timeout_s: float) -> Target:
        return KubernetesTarget(kube_configuration(url), namespaces=["shop"], timeout_s=timeout_s)

    async def scale_by_another(self, ref: TargetRef, replicas: int) -> None:
        self.server.cluster.edit_spec(self.key, replicas=replicas)


def kube_configuration(url: str, token: str = TOKEN) -> Configuration:
    # Whatever proxy the environment names, it is not for this machine's own addresses.
    return Configuration(host=url, api_key={"BearerToken": f"Bearer {token}"}, no_proxy="*")


@asynccontextmanager
async def kube_place(
    resource: Literal["deployments", "statefulsets", "daemonsets"] = "deployments",
    *,
    then: Sequence[str] = (),
    cluster: Cluster | None = None,
) -> AsyncIterator[KubePlace]:
    """Two pods that run ``main:1``, or the last of the images that came ``then``."""
    async with KubeServer(cluster) as server, Proxy(server.url) as proxy:
        place = KubePlace(proxy, server, resource)
        for image in then:
            server.cluster.number_template(place.key)
            server.cluster.set_image(place.key, image)
        ref = await place.target.resolve(place.address)
        await until(lambda: place.target.settled(ref, ScaleTo(replicas=2)))
        server.calls.clear()
        proxy.requests.clear()
        try:
            yield place
        finally:
            await place.close()


@asynccontextmanager
async def local_place(world_url: str) -> AsyncIterator[LocalPlace]:
    """The worker service with one replica, whatever was done to it before."""
    async with Proxy(world_url) as proxy:
        place = LocalPlace(proxy, world_url)
        try:
            ref = await place.target.resolve(place.address)
            if (await place.target.observe(ref)).replicas != 1:
                await place.scale_by_another(ref, 1)
            await until(lambda: place.target.settled(ref, ScaleTo(replicas=1)))
            proxy.requests.clear()
            yield place
        finally:
            await place.close()
