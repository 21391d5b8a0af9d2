"""Resource locks shared with other agents (FinOps, SecOps): advice among them. Safety rests on the database's fence."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Lock:
    """A lock that is held. ``token`` proves the holder, ``fence`` grows with every acquisition of ``resource``."""

    resource: str
    token: str
    fence: int


class Locks(Protocol):
    """Raises TemporaryError when the lock service cannot be reached."""

    async def acquire(self, resource: str, *, holder: str, ttl_s: float) -> Lock | None:
        """None when another agent holds it."""
        ...

    async def renew(self, lock: Lock, *, ttl_s: float) -> bool:
        """False when it is not ours any more."""
        ...

    async def release(self, lock: Lock) -> bool:
        """False when it was not ours any more."""
        ...

    async def holder(self, resource: str) -> str | None:
        """Who holds it, as given at ``acquire``; None when it is free."""
        ...
