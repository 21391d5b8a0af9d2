"""Resource locks on one Redis, shared with other agents, who follow the same layout of keys.

``sre:lock:{resource}`` holds ``token:priority:holder`` and expires; ``sre:fence:{resource}`` counts acquisitions and
stays; ``sre:rest:{resource}`` holds the name of who asked for a rest, and expires when it is over.
Pattern: https://redis.io/docs/latest/commands/set/#patterns
"""

from __future__ import annotations

import secrets

from redis.commands.core import AsyncScript

from pipeline.adapters.redis.connection import KEY_PREFIX, answering, connect
from pipeline.ports.locks import Holder, Lock, Priority

# A token found to be ours already means that the answer to a first try was lost.
_ACQUIRE = """
local held = redis.call('GET', KEYS[1])
if held then
  local token, priority = string.match(held, '^(%x+):(%d+):')
  if token == ARGV[1] then return tonumber(redis.call('GET', KEYS[2])) end
  if not priority or tonumber(priority) <= tonumber(ARGV[2]) then return 0 end
end
redis.call('SET', KEYS[1], ARGV[1] .. ':' .. ARGV[2] .. ':' .. ARGV[3], 'PX', ARGV[4])
return redis.call('INCR', KEYS[2])
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
_BREAK = """
local value = redis.call('GET', KEYS[1])
if value then redis.call('DEL', KEYS[1]) end
return value
"""
_REST = """
if redis.call('PTTL', KEYS[1]) < tonumber(ARGV[2]) then redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2]) end
"""


class RedisLocks:
    """One lock a resource, freed by itself after ``ttl_s``. ``url`` is a redis:// URL."""

    def __init__(self, url: str) -> None:
        self._client = connect(url)
        self._acquire: AsyncScript = self._client.register_script(_ACQUIRE)
        self._renew: AsyncScript = self._client.register_script(_RENEW)
        self._release: AsyncScript = self._client.register_script(_RELEASE)
        self._break: AsyncScript = self._client.register_script(_BREAK)
        self._rest: AsyncScript = self._client.register_script(_REST)

    async def acquire(
        self, resource: str, *, holder: str, ttl_s: float, priority: Priority = Priority.SRE
    ) -> Lock | None:
        """A Redis that lost its data counts fences from 1: trust the database's."""
        token = secrets.token_hex(16)
        async with answering(self._client):
            fence = int(
                await self._acquire(
                    keys=[_lock(resource), _fence(resource)], args=[token, int(priority), holder, _ms(ttl_s)]
                )
            )
        return Lock(resource, token, fence) if fence else None

    async def renew(self, lock: Lock, *, ttl_s: float) -> bool:
        """From now ``ttl_s`` more; False when it is not ours any more."""
        async with answering(self._client):
            return bool(await self._renew(keys=[_lock(lock.resource)], args=[f"{lock.token}:", _ms(ttl_s)]))

    async def release(self, lock: Lock) -> bool:
        async with answering(self._client):
            return bool(await self._release(keys=[_lock(lock.resource)], args=[f"{lock.token}:"]))

    async def holder(self, resource: str) -> Holder | None:
        async with answering(self._client):
            value = await self._client.get(_lock(resource))
        return None if value is None else _holder(str(value))

    async def break_(self, resource: str) -> Holder | None:
        async with answering(self._client):
            value = await self._break(keys=[_lock(resource)])
        return None if value is None else _holder(str(value))

    async def rest(self, resource: str, *, holder: str, for_s: float) -> None:
        async with answering(self._client):
            await self._rest(keys=[_rest(resource)], args=[holder, _ms(for_s)])

    async def resting(self, resource: str) -> float:
        async with answering(self._client):
            left_ms = int(await self._client.pttl(_rest(resource)))
        return max(left_ms, 0) / 1000

    async def close(self) -> None:
        await self._client.aclose()


def _holder(value: str) -> Holder:
    """What is not of our form is another agent's of the highest priority: nobody takes it away unasked."""
    token, _, rest = value.partition(":")
    priority, _, name = rest.partition(":")
    return Holder(name, int(priority)) if priority.isdecimal() else Holder(rest or token, Priority.SECOPS)


# Braces: in a cluster all keys of a resource must live on one node, which the part inside them decides.
def _lock(resource: str) -> str:
    return f"{KEY_PREFIX}lock:{{{resource}}}"


def _fence(resource: str) -> str:
    return f"{KEY_PREFIX}fence:{{{resource}}}"


def _rest(resource: str) -> str:
    return f"{KEY_PREFIX}rest:{{{resource}}}"


def _ms(seconds: float) -> int:
    return max(1, round(seconds * 1000))
