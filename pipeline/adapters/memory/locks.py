"""Locks among the agents of one process."""

from __future__ import annotations

import secrets
import time
from dataclasses import dataclass

from pipeline.ports.locks import Holder, Lock, Priority


@dataclass(frozen=True, slots=True)
class _Held:
    lock: Lock
    by: Holder
    until_s: float


class MemoryLocks:
    """One lock a resource, freed by itself after ``ttl_s`` of the monotonic clock."""

    def __init__(self) -> None:
        self._held: dict[str, _Held] = {}
        self._fences: dict[str, int] = {}
        self._rests: dict[str, float] = {}

    async def acquire(
        self, resource: str, *, holder: str, ttl_s: float, priority: Priority = Priority.SRE
    ) -> Lock | None:
        held = self._now(resource)
        if held is not None and held.by.priority <= priority:
            return None
        self._fences[resource] = self._fences.get(resource, 0) + 1
        lock = Lock(resource, secrets.token_hex(16), self._fences[resource])
        self._held[resource] = _Held(lock, Holder(holder, priority), time.monotonic() + ttl_s)
        return lock

    async def renew(self, lock: Lock, *, ttl_s: float) -> bool:
        held = self._now(lock.resource)
        if held is None or held.lock.token != lock.token:
            return False
        self._held[lock.resource] = _Held(held.lock, held.by, time.monotonic() + ttl_s)
        return True

    async def release(self, lock: Lock) -> bool:
        held = self._now(lock.resource)
        if held is None or held.lock.token != lock.token:
            return False
        del self._held[lock.resource]
        return True

    async def holder(self, resource: str) -> Holder | None:
        held = self._now(resource)
        return held.by if held else None

    async def break_(self, resource: str) -> Holder | None:
        held = self._now(resource)
        self._held.pop(resource, None)
        return held.by if held else None

    async def rest(self, resource: str, *, holder: str, for_s: float) -> None:
        del holder  # nobody else is here to be told
        self._rests[resource] = max(self._rests.get(resource, 0.0), time.monotonic() + for_s)

    async def resting(self, resource: str) -> float:
        return max(self._rests.get(resource, 0.0) - time.monotonic(), 0.0)

    async def close(self) -> None:
        """Nothing is open."""

    def _now(self, resource: str) -> _Held | None:
        held = self._held.get(resource)
        return held if held is not None and held.until_s > time.monotonic() else None
