"""Every target that the catalogue names, found and asked what it may do. Changes nothing."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace

from pipeline.domain.capability import Declaration, RightCheck
from pipeline.domain.catalogue import Catalogue, Role, WorkloadAddress
from pipeline.domain.errors import PermanentError, TemporaryError
from pipeline.domain.ids import ServiceName
from pipeline.domain.plan import TargetState
from pipeline.domain.sites import NOTHING
from pipeline.ports.targets import Target, Targets

AT_ONCE = 4
FIND_S = 20.0
"""One target, all in all: a repository may have to be fetched for the first time."""


@dataclass(frozen=True, slots=True)
class Surveyed:
    """One target of one service. ``problem`` says why ``state`` is None, or what else is wrong with it."""

    service: ServiceName
    role: Role
    address: WorkloadAddress
    declared: Declaration = NOTHING
    state: TargetState | None = None
    problem: str = ""
    rights: tuple[RightCheck, ...] = ()

    @property
    def missing(self) -> tuple[RightCheck, ...]:
        """Rights that the account surely does not hold."""
        return tuple(one for one in self.rights if one.held is False)


class Surveyor:
    """Goes through the listed services; those that telemetry shows besides are resolved when they have an incident."""

    def __init__(self, targets: Targets, catalogue: Catalogue) -> None:
        self._targets = targets
        self._catalogue = catalogue
        self._turn = asyncio.Semaphore(AT_ONCE)

    async def find(self, *, rights: bool = False) -> Sequence[Surveyed]:
        """In the order of the catalogue. ``rights``: prove them too, as far as the platforms can tell."""
        named = [
            Surveyed(service, role, address)
            for service in self._catalogue
            for role in Role
            if (address := self._catalogue[service].address(role)) is not None
        ]
        return _alone(await asyncio.gather(*(self._look(one, rights) for one in named)))

    async def _look(self, one: Surveyed, rights: bool) -> Surveyed:
        try:
            async with self._turn, asyncio.timeout(FIND_S):
                target = self._targets.for_platform(one.address.platform)
                one = replace(one, declared=target.declares())
                ref = await target.resolve(one.address)
                one = replace(one, state=await target.observe(ref))
                return replace(one, rights=await _rights(target, one)) if rights else one
        except TimeoutError:
            return replace(one, problem=f"gave no answer within {FIND_S:.0f} s")
        except (TemporaryError, PermanentError) as error:
            return replace(one, problem=str(error))


async def _rights(target: Target, one: Surveyed) -> tuple[RightCheck, ...]:
    return await target.check(one.state.ref) if one.state is not None else ()


def _alone(found: Sequence[Surveyed]) -> list[Surveyed]:
    """One thing that runs belongs to one service: of two that claim it, neither can be told to be harmed alone."""
    claimed: dict[str, list[ServiceName]] = defaultdict(list)
    for one in found:
        if one.state is not None and one.role is Role.WORKLOAD:
            claimed[one.state.ref.uid].append(one.service)
    told = []
    for one in found:
        others = claimed[one.state.ref.uid] if one.state is not None and one.role is Role.WORKLOAD else []
        shared = ", ".join(name for name in others if name != one.service)
        told.append(replace(one, problem=f"is the target of {shared} as well") if shared and not one.problem else one)
    return told
