"""Reading what of a service can be acted on, when a plan is made."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from pipeline.domain.catalogue import Catalogue, Role, WorkloadAddress
from pipeline.domain.errors import PermanentError, TemporaryError
from pipeline.domain.ids import ServiceName
from pipeline.domain.plan import TargetState
from pipeline.domain.sites import Site, Sites
from pipeline.ports.targets import Targets

READ_S = 15.0
"""One of them, all in all: a repository may have to be fetched."""
NODES = "kubernetes_node"
CLUSTER = "cluster"
"""The namespace of what belongs to none."""


class SiteReader:
    """Resolves and observes; changes nothing."""

    def __init__(self, targets: Targets, catalogue: Catalogue) -> None:
        self._targets = targets
        self._catalogue = catalogue

    async def read(
        self, service: ServiceName, workload: TargetState | None, problem: str, suspects: Sequence[str]
    ) -> Sites:
        """All that the catalogue names of ``service``; its workload as it was read already, or why it was not.

        The node is read where every one of ``suspects`` is on it and another replica is not.
        """
        entry = self._catalogue[service]
        addresses: dict[Role, WorkloadAddress] = {}
        for role in (Role.CONFIG, Role.CERTIFICATE, Role.LOGS):
            if (found := entry.address(role)) is not None:
                addresses[role] = found
        if (node := _node_of(workload, suspects)) and NODES in self._targets.platforms():
            addresses[Role.NODE] = WorkloadAddress(platform=NODES, namespace=CLUSTER, name=node)
        read = await asyncio.gather(*(self._site(role, address) for role, address in addresses.items()))
        sites = {site.role: site for site in read}
        own = entry.target
        if workload is not None or problem:
            declared = self._targets.for_platform(own.platform).declares() if own and workload else None
            site = Site(Role.WORKLOAD, workload, problem)
            sites[Role.WORKLOAD] = site if declared is None else Site(Role.WORKLOAD, workload, problem, declared)
        return sites

    async def _site(self, role: Role, address: WorkloadAddress) -> Site:
        try:
            target = self._targets.for_platform(address.platform)
            async with asyncio.timeout(READ_S):
                return Site(role, await target.observe(await target.resolve(address)), "", target.declares())
        except TimeoutError:
            return Site(role, problem=f"{address.platform} {address.namespace}/{address.name} gave no answer in time")
        except (TemporaryError, PermanentError) as error:
            return Site(role, problem=str(error))


def _node_of(workload: TargetState | None, suspects: Sequence[str]) -> str:
    instances = workload.instances if workload is not None else ()
    on = {one.node for one in instances if one.name in suspects}
    others = {one.node for one in instances if one.name not in suspects}
    return next(iter(on)) if len(on) == 1 and others - on else ""
