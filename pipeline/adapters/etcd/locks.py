"""Resource locks on etcd, shared with other agents, who follow the same layout of keys.

``/sre/lock/<resource>`` holds a JSON object (token, priority, holder) and hangs on a lease; the version of
``/sre/fence/<resource>`` counts acquisitions, for etcd raises it with each write; ``/sre/rest/<resource>`` hangs on the
lease of the rest asked for. Every change is one transaction that compares what was read.
https://etcd.io/docs/v3.5/learning/api/#transaction

A lease is of whole seconds, and the server makes a shorter one longer (2 s with its default election time-out).
"""

from __future__ import annotations

import asyncio
import math
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from urllib.parse import urlsplit

from aetcd import Client
from aetcd.exceptions import ClientError
from aetcd.rtypes import Get
from pydantic import BaseModel, ConfigDict, ValidationError

from pipeline.domain.errors import ConfigurationError, TemporaryError
from pipeline.ports.locks import Holder, Lock, Priority

ANSWER_TIMEOUT_S = 5.0
"""A healthy etcd answers in milliseconds; longer means that it is stopped, without a leader, or cut off."""
_TRIES = 5
"""Transactions lost to somebody who changed the key between our reading and our writing."""
_LEASE_NOT_FOUND = "requested lease not found"


class _Held(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")
    token: str
    priority: int
    holder: str


class EtcdLocks:
    """One lock a resource, freed by itself after ``ttl_s``. ``url`` is http://[user:password@]host:port, without TLS,
    which the client does not speak."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        try:
            port = parts.port or 2379
        except ValueError as error:
            raise ConfigurationError("ETCD_URL must be http://host:port") from error
        if parts.scheme != "http" or not parts.hostname:
            raise ConfigurationError("ETCD_URL must be http://host:port")
        self._address = f"{parts.hostname}:{port}"
        self._client = Client(parts.hostname, port, parts.username, parts.password)

    async def acquire(
        self, resource: str, *, holder: str, ttl_s: float, priority: Priority = Priority.SRE
    ) -> Lock | None:
        ours = _Held(token=secrets.token_hex(16), priority=int(priority), holder=holder)
        async with self._answering():
            seen = await self._client.get(_lock(resource))
            if seen is not None and _held(seen).priority <= priority:
                return None
            lease = await self._client.lease(_seconds(ttl_s))
            with_lease = self._client.transactions
            won, answers = await self._client.transaction(
                compare=[self._as_seen(resource, seen)],
                success=[
                    with_lease.put(_lock(resource), ours.model_dump_json().encode(), lease),
                    with_lease.put(_fence(resource), b""),
                    with_lease.get(_fence(resource)),
                ],
                failure=[],
            )
            if not won:
                await lease.revoke()
                return None
        fence: Get = answers[2][0][1]
        return Lock(resource, ours.token, fence.version)

    async def renew(self, lock: Lock, *, ttl_s: float) -> bool:
        """From now ``ttl_s`` more, on a lease of its own; False when it is not ours any more."""
        async with self._answering():
            for _ in range(_TRIES):
                seen = await self._client.get(_lock(lock.resource))
                if seen is None or _held(seen).token != lock.token:
                    return False
                lease = await self._client.lease(_seconds(ttl_s))
                won, _answers = await self._client.transaction(
                    compare=[self._as_seen(lock.resource, seen)],
                    success=[self._client.transactions.put(_lock(lock.resource), seen.value, lease)],
                    failure=[],
                )
                if won:
                    await self._let_go(seen.lease)
                    return True
                await lease.revoke()
        return False

    async def release(self, lock: Lock) -> bool:
        async with self._answering():
            for _ in range(_TRIES):
                seen = await self._client.get(_lock(lock.resource))
                if seen is None or _held(seen).token != lock.token:
                    return False
                if await self._deleted(lock.resource, seen):
                    return True
        return False

    async def holder(self, resource: str) -> Holder | None:
        async with self._answering():
            seen = await self._client.get(_lock(resource))
        return _who(seen) if seen is not None else None

    async def break_(self, resource: str) -> Holder | None:
        async with self._answering():
            while (seen := await self._client.get(_lock(resource))) is not None:
                if await self._deleted(resource, seen):
                    return _who(seen)
        return None

    async def rest(self, resource: str, *, holder: str, for_s: float) -> None:
        async with self._answering():
            seen = await self._client.get(_rest(resource))
            if seen is None or await self._left_s(seen.lease) < for_s:
                await self._client.put(_rest(resource), holder.encode(), await self._client.lease(_seconds(for_s)))

    async def resting(self, resource: str) -> float:
        async with self._answering():
            seen = await self._client.get(_rest(resource))
            return await self._left_s(seen.lease) if seen is not None else 0.0

    async def close(self) -> None:
        await self._client.close()

    def _as_seen(self, resource: str, seen: Get | None) -> object:
        return self._client.transactions.mod(_lock(resource)) == (seen.mod_revision if seen is not None else 0)

    async def _deleted(self, resource: str, seen: Get) -> bool:
        won, _answers = await self._client.transaction(
            compare=[self._as_seen(resource, seen)],
            success=[self._client.transactions.delete(_lock(resource))],
            failure=[],
        )
        if won:
            await self._let_go(seen.lease)
        return bool(won)

    async def _let_go(self, lease_id: int) -> None:
        try:
            await self._client.revoke_lease(lease_id)
        except ClientError as error:
            if _LEASE_NOT_FOUND not in str(error):  # it ran out by itself
                raise

    async def _left_s(self, lease_id: int) -> float:
        """Seconds that a lease has left, 0 for one that is over."""
        return max(float((await self._client.get_lease_info(lease_id)).TTL), 0.0)

    @asynccontextmanager
    async def _answering(self) -> AsyncIterator[None]:
        try:
            async with asyncio.timeout(ANSWER_TIMEOUT_S):
                yield
        except TimeoutError as error:
            raise TemporaryError(f"etcd at {self._address} gave no answer within {ANSWER_TIMEOUT_S:g} s") from error
        except (ClientError, OSError) as error:
            said = " ".join(str(error).split()) or type(error).__name__
            raise TemporaryError(f"etcd at {self._address}: {said}") from error


def _held(seen: Get) -> _Held:
    """What is not of our form is another agent's of the highest priority: nobody takes it away unasked."""
    try:
        return _Held.model_validate_json(seen.value)
    except ValidationError:
        name = seen.value.decode(errors="replace")[:200]
        return _Held(token="", priority=int(Priority.SECOPS), holder=name)


def _who(seen: Get) -> Holder:
    held = _held(seen)
    return Holder(held.holder, held.priority)


def _lock(resource: str) -> bytes:
    return f"/sre/lock/{resource}".encode()


def _fence(resource: str) -> bytes:
    return f"/sre/fence/{resource}".encode()


def _rest(resource: str) -> bytes:
    return f"/sre/rest/{resource}".encode()


def _seconds(seconds: float) -> int:
    return max(1, math.ceil(seconds))
