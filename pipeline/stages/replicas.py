"""How many replicas targets have, read now and then: some platforms cannot say how many there were one hour ago."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

from pipeline.domain.catalogue import Catalogue
from pipeline.domain.errors import PermanentError, TemporaryError
from pipeline.domain.ids import ServiceName
from pipeline.domain.plan import TargetState
from pipeline.ports.store import Store
from pipeline.ports.targets import Targets

READ_EVERY_S = 300.0
"""A dozen readings lie between now and one hour ago."""
MOST = 200
"""Targets read in one run: each costs a platform two requests or three."""
AT_ONCE = 4
READ_S = 10.0
"""One target, all in all."""


class ReplicaWatch:
    """Notes the replicas of every target that the catalogue knows, whoever sets them."""

    def __init__(self, store: Store, targets: Targets, catalogue: Catalogue) -> None:
        self._store = store
        self._targets = targets
        self._catalogue = catalogue
        self._turn = asyncio.Semaphore(AT_ONCE)

    async def run(self, seen: Iterable[ServiceName]) -> int:
        """Reads the targets of listed services, then of ``seen`` ones. Returns how many could be read.

        One that cannot be read is passed over: the scale cap says which reading it rests on.
        """
        listed = list(self._catalogue)
        services = [*listed, *sorted(set(seen) - set(listed))]
        with_target = [service for service in services if self._catalogue[service].target is not None][:MOST]
        states = [state for state in await asyncio.gather(*map(self._read, with_target)) if state is not None]
        async with self._store.begin() as uow:
            for state in states:
                await uow.history.saw(state.ref.uid, state.replicas)
        return len(states)

    async def _read(self, service: ServiceName) -> TargetState | None:
        address = self._catalogue[service].target
        if address is None:
            return None
        try:
            async with self._turn, asyncio.timeout(READ_S):
                target = self._targets.for_platform(address.platform)
                return await target.observe(await target.resolve(address))
        except (TemporaryError, PermanentError, TimeoutError):
            return None
