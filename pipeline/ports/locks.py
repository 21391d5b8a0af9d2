"""Resource locks shared with other agents (FinOps, SecOps): advice among them. Safety rests on the database's fence."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import Protocol


class Priority(IntEnum):
    """Who may take a lock away from whom: the lower number from the higher, never from its like."""

    SECOPS = 1
    SRE = 2
    FINOPS = 3


@dataclass(frozen=True, slots=True)
class Lock:
    """A lock that is held. ``token`` proves the holder, ``fence`` grows with every acquisition of ``resource``."""

    resource: str
    token: str
    fence: int


@dataclass(frozen=True, slots=True)
class Holder:
    """Who holds a lock, in the words given at ``acquire``, and with which priority."""

    name: str
    priority: int


class Locks(Protocol):
    """Raises TemporaryError when the lock service cannot be reached."""

    async def acquire(
        self, resource: str, *, holder: str, ttl_s: float, priority: Priority = Priority.SRE
    ) -> Lock | None:
        """None when another agent of the same or a higher priority holds it; one of a lower loses it at once."""
        ...

    async def renew(self, lock: Lock, *, ttl_s: float) -> bool:
        """False when it is not ours any more."""
        ...

    async def release(self, lock: Lock) -> bool:
        """False when it was not ours any more."""
        ...

    async def holder(self, resource: str) -> Holder | None:
        """Who holds it; None when it is free."""
        ...

    async def break_(self, resource: str) -> Holder | None:
        """A person takes the lock away from whoever holds it; returns whom, None when it was free."""
        ...

    async def rest(self, resource: str, *, holder: str, for_s: float) -> None:
        """Asks all agents to leave ``resource`` alone for ``for_s`` seconds after an action on it."""
        ...

    async def resting(self, resource: str) -> float:
        """Seconds of rest that are left, 0 when there is none."""
        ...
