"""Resource locks on one Redis, shared with other agents, who follow the same layout of keys.

``sre:lock:{resource}`` holds ``token:holder`` and expires; ``sre:fence:{resource}`` counts acquisitions and stays.
Pattern: https://redis.io/docs/latest/commands/set/#patterns
"""

from __future__ import annotations

import secrets

from redis.commands.core import AsyncScript

from pipeline.adapters.redis.connection import KEY_PREFIX, answering, connect
from pipeline.ports.locks import Lock

# A token found to be ours already means that the answer to a first try was lost.
_ACQUIRE = """
if redis.call('SET', KEYS[1], ARGV[1], 'NX', 'PX', ARGV[2]) then return redis.call('INCR', KEYS[2]) end
if redis.call('GET', KEYS[1]) == ARGV[1] then return tonumber(redis.call('GET', KEYS[2])) end
return 0
"""
_RENEW = """
local value = redis.call('GET', KEYS[1])
if value and string.sub(value, 1, #ARGV[1]) == ARGV[1] then return redis.call('PEXPIRE', KEYS[1], ARGV[2]) end
return 0
"""
_RELEASE = """
local value = redis.call('GET', KEYS[1])
if value and string.sub(value, 1, #ARGV[1]) == ARGV[1] then return redis.call('DEL', KEYS[1]) end
return 0
"""


class RedisLocks:
    """One lock a resource, freed by itself after ``ttl_s``. ``url`` is a redis:// URL."""

    def __init__(self, url: str) -> None:
        self._client = connect(url)
        self._acquire: AsyncScript = self._client.register_script(_ACQUIRE)
        self._renew: AsyncScript = self._client.register_script(_RENEW)
        self._release: AsyncScript = self._client.register_script(_RELEASE)

    async def acquire(self, resource: str, *, holder: str, ttl_s: float) -> Lock | None:
        """None when another holds it. A Redis that lost its data counts fences from 1: trust the database's."""
        token = secrets.token_hex(16)
        async with answering(self._client):
            fence = int(
                await self._acquire(keys=[_lock(resource), _fence(resource)], args=[f"{token}:{holder}", _ms(ttl_s)])
            )
        return Lock(resource, token, fence) if fence else None

    async def renew(self, lock: Lock, *, ttl_s: float) -> bool:
        """From now ``ttl_s`` more; False when it is not ours any more."""
        async with answering(self._client):
            return bool(await self._renew(keys=[_lock(lock.resource)], args=[f"{lock.token}:", _ms(ttl_s)]))

    async def release(self, lock: Lock) -> bool:
        """False when it was not ours any more."""
        async with answering(self._client):
            return bool(await self._release(keys=[_lock(lock.resource)], args=[f"{lock.token}:"]))

    async def holder(self, resource: str) -> str | None:
        """Who holds it; None when it is free."""
        async with answering(self._client):
            value = await self._client.get(_lock(resource))
        return None if value is None else str(value).partition(":")[2]

    async def close(self) -> None:
        await self._client.aclose()


# Braces: in a cluster both keys must live on one node, which the part inside them decides.
def _lock(resource: str) -> str:
    return f"{KEY_PREFIX}lock:{{{resource}}}"


def _fence(resource: str) -> str:
    return f"{KEY_PREFIX}fence:{{{resource}}}"


def _ms(seconds: float) -> int:
    return max(1, round(seconds * 1000))
