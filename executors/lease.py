"""Keeping a lease alive while work goes on, and the lock that other agents heed until it has been verified."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress

from pipeline.domain.errors import TemporaryError
from pipeline.domain.execution import Execution
from pipeline.domain.trace import TraceEntry, TraceKind
from pipeline.ports.executions import TAKEN_OVER, HeldLock
from pipeline.ports.locks import Lock, Locks
from pipeline.ports.store import Store
from pipeline.stages.advance import record

OURS = "sre-bot "
"""How the holder of a lock of ours begins."""
TEND_S = 3.0
"""How often the locks of executions that nobody works on are renewed or released."""
AWAY_S = 2.0
"""How long the lock service is waited for where nothing hangs on it."""


@asynccontextmanager
async def kept_alive(renew: Callable[[], Awaitable[bool]], *, lease_s: float) -> AsyncIterator[None]:
    """Calls ``renew`` three times a lease until the block ends.

    A lease that is lost is not announced here: every write names its fence, and the database refuses it.
    """

    async def beat() -> None:
        while True:
            await asyncio.sleep(lease_s / 3)
            with suppress(TemporaryError):
                if not await renew():
                    return

    task = asyncio.create_task(beat())
    try:
        yield
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


class ResourceLocks:
    """The locks of executions: taken before the first call, renewed by whoever works, released after the verdict.

    They are advice among agents. With no lock service in reach the database's fence alone has to do.
    """

    def __init__(self, store: Store, locks: Locks, *, worker: str, ttl_s: float, rest_s: float) -> None:
        self._store = store
        self._locks = locks
        self._me = f"{OURS}{worker}"
        self._ttl_s = ttl_s
        self._rest_s = rest_s
        self._tended_at = -TEND_S

    async def take(self, execution: Execution) -> str:
        """Takes the lock, or goes on with the one that was taken for this plan. Empty, or why to wait."""
        resource = resource_of(execution)
        async with self._store.begin() as uow:
            kept = await uow.executions.held(execution.plan_id)
        try:
            if kept is not None and await self._locks.renew(kept, ttl_s=self._ttl_s):
                return ""
            begins = execution.kind == "apply" and execution.physical_changes == 0
            if begins and (rest_s := await self._locks.resting(resource)) > 0:
                return f"another agent asked to let {resource} rest for {rest_s:.0f} s more"
            lock = await self._acquire(resource)
            if lock is None:
                return await self._taken(execution, resource)
        except TemporaryError as error:
            await self._note(execution, f"lock service away, going on by the database's fence alone: {error}")
            return ""
        return await self._keep(execution, lock)

    async def lost(self, execution: Execution) -> str:
        """Why the next call must not go out; empty when the lock is still ours, or nobody can tell."""
        async with self._store.begin() as uow:
            lock = await uow.executions.held(execution.plan_id)
        if lock is None:
            return ""
        try:
            if await self._locks.renew(lock, ttl_s=self._ttl_s):
                return ""
            again = await self._acquire(lock.resource)
            if again is None:
                return await self._pre_empted(lock.resource)
            if again.fence > lock.fence:
                # The service counted on, so it lost nothing: a person broke the lock.
                await self._locks.release(again)
                return f"the lock on {lock.resource} was taken away"
        except TemporaryError as error:
            await self._note(execution, f"lock service away, going on by the database's fence alone: {error}")
            return ""
        await self._note(execution, f"the lock service had lost the lock on {lock.resource}; taken again")
        async with self._store.begin() as uow:
            return "" if await uow.executions.hold(execution.id, execution.fence, again) else TAKEN_OVER

    async def renew(self, execution: Execution) -> None:
        """The whole time anew, while a step or a watch takes long; a loss is noticed before the next call."""
        async with self._store.begin() as uow:
            lock = await uow.executions.held(execution.plan_id)
        if lock is not None:
            with suppress(TemporaryError, TimeoutError):
                async with asyncio.timeout(AWAY_S):
                    await self._locks.renew(lock, ttl_s=self._ttl_s)

    async def tend(self) -> None:
        """Renews the locks of what is being verified and releases those of what is over, whoever took them."""
        if time.monotonic() - self._tended_at < TEND_S:
            return
        self._tended_at = time.monotonic()
        async with self._store.begin() as uow:
            kept = await uow.executions.holding()
        with suppress(TemporaryError, TimeoutError):
            async with asyncio.timeout(AWAY_S):
                for one in kept:
                    await self._tend(one)

    async def _tend(self, held: HeldLock) -> None:
        if not held.over:
            await self._locks.renew(held.lock, ttl_s=self._ttl_s)
            return
        if held.acted_s_ago is not None and held.acted_s_ago < self._rest_s:
            for_s = self._rest_s - held.acted_s_ago
            await self._locks.rest(held.lock.resource, holder=self._me, for_s=for_s)
        await self._locks.release(held.lock)
        async with self._store.begin() as uow:
            await uow.executions.let_go(held.lock)

    async def _acquire(self, resource: str) -> Lock | None:
        return await self._locks.acquire(resource, holder=self._me, ttl_s=self._ttl_s)

    async def _taken(self, execution: Execution, resource: str) -> str:
        try:
            holder = await self._locks.holder(resource)
        except TemporaryError:
            return f"another agent holds {resource}: one that cannot be asked for now"
        if holder is not None and holder.name.startswith(OURS):
            # The database lets one execution of ours be open on a target: this one was left by a worker that died.
            said = f"lock on {resource} left behind by {holder.name}; going on by the database's fence"
            await self._note(execution, said)
            return ""
        name = holder.name if holder else "an agent that has just let go"
        return f"another agent holds {resource}: {name}"

    async def _keep(self, execution: Execution, lock: Lock) -> str:
        async with self._store.begin() as uow:
            if await uow.executions.hold(execution.id, execution.fence, lock):
                said = TraceEntry(TraceKind.LOCK, f"lock on {lock.resource} taken, fence {lock.fence}", {})
                await record(uow, execution.incident_id, entries=[said], redraw=False)
                return ""
        with suppress(TemporaryError):
            await self._locks.release(lock)
        return TAKEN_OVER

    async def _pre_empted(self, resource: str) -> str:
        holder = await self._locks.holder(resource)
        if holder is not None and holder.name.startswith(OURS):
            return ""
        return f"{holder.name if holder else 'another agent'} took the lock on {resource} over"

    async def _note(self, execution: Execution, said: str) -> None:
        async with self._store.begin() as uow:
            await record(uow, execution.incident_id, entries=[TraceEntry(TraceKind.LOCK, said, {})], redraw=False)


def resource_of(execution: Execution) -> str:
    """The name of the lock that all agents know the target by: ``kubernetes/shop/checkout``."""
    return f"{execution.target.platform}/{execution.target.describe()}"
