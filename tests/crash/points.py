"""The moments of a replica at which a fault can strike: ports wrapped from outside, nothing of it in the product.

A moment has a name, as ``commit Ledger.dispatched before`` or ``target.apply after``. At the nth passing of one that a
trial has armed the replica tells the trial, and stands still until it is told to go on; the trial may kill it, stop
it, cut its connection, or let something else happen meanwhile.
"""

from __future__ import annotations

import json
import os
import socket
import sys
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import _AsyncGeneratorContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

from bot.slack.publisher import SlackPublisher
from executors.targets.local_process import LocalProcessTarget
from pipeline.adapters.postgres.unit_of_work import PostgresStore, PostgresUnitOfWork
from pipeline.adapters.redis.bus import RedisBus
from pipeline.adapters.redis.locks import RedisLocks
from pipeline.domain.action import Operation
from pipeline.domain.execution import Finding, Intent
from pipeline.domain.plan import TargetRef, TargetState
from pipeline.ports.locks import Lock
from pipeline.ports.outbox import OutboxRow

ANY_COMMIT = "commit *"
FOLLOWED = ("Decider.", "Runner.", "Ledger.", "Recovery.", "Verifier.", "Relay.", "Diagnoser.", "Proposer.")
"""Transactions begun by these are moments, where they have written something."""
NOT_COUNTED = ("Relay.", "Decider.expire")
"""Of those, what goes on beside the story and is no part of the count of any commit."""


class Moments:
    """``armed`` maps a moment's name to the passings (from 1) of which the trial wants to hear."""

    def __init__(self, replica: int, armed: Mapping[str, frozenset[int]], trial: Path) -> None:
        self._replica = replica
        self._armed = armed
        self._trial = trial
        self._passed: Counter[str] = Counter()

    def pass_by(self, name: str, side: str, **more: Any) -> None:
        """Blocks the whole process while the trial has its way."""
        moment = f"{name} {side}"
        self._passed[moment] += 1
        if self._passed[moment] in self._armed.get(moment, frozenset()):
            self.tell(moment=moment, nth=self._passed[moment], **more)

    def tell(self, **what: Any) -> None:
        """Says something to the trial and waits for its leave."""
        line = json.dumps({"replica": self._replica, "pid": os.getpid(), **what}).encode() + b"\n"
        with socket.socket(socket.AF_UNIX) as trial:
            trial.connect(str(self._trial))
            trial.sendall(line)
            trial.recv(16)


def wrapped_store(moments: Moments) -> type[PostgresStore]:
    class Store(PostgresStore):
        def begin(self) -> _AsyncGeneratorContextManager[PostgresUnitOfWork]:
            name = sys._getframe(1).f_code.co_qualname
            if not name.startswith(FOLLOWED):
                return PostgresStore.begin(self)
            return self._followed(name)

        @asynccontextmanager
        async def _followed(self, name: str) -> AsyncIterator[PostgresUnitOfWork]:
            counted = not name.startswith(NOT_COUNTED)
            async with PostgresStore.begin(self) as uow:
                yield uow
                connection = uow.trace._connection
                wrote = await connection.fetchval("SELECT pg_current_xact_id_if_assigned() IS NOT NULL")
                if wrote:
                    port = _port_of(connection)
                    if counted:
                        moments.pass_by(ANY_COMMIT, "before", port=port)
                    moments.pass_by(f"commit {name}", "before", port=port)
            if wrote:
                if counted:
                    moments.pass_by(ANY_COMMIT, "after")
                moments.pass_by(f"commit {name}", "after")

    return Store


def _port_of(connection: Any) -> int:
    raw = getattr(connection, "_con", None) or connection
    return int(raw._transport.get_extra_info("sockname")[1])


def wrapped_target(moments: Moments, timeout_s: float) -> type[LocalProcessTarget]:
    class Target(LocalProcessTarget):
        def __init__(self, base_url: str) -> None:
            super().__init__(base_url, timeout_s=timeout_s)

        async def observe(self, ref: TargetRef) -> TargetState:
            moments.pass_by("target.observe", "before")
            state = await super().observe(ref)
            moments.pass_by("target.observe", "after")
            return state

        async def apply(self, ref: TargetRef, operation: Operation, intent: Intent) -> str:
            moments.pass_by("target.apply", "before")
            said = await super().apply(ref, operation, intent)
            moments.pass_by("target.apply", "after")
            return said

        async def find(self, ref: TargetRef, operation: Operation, intent: Intent) -> Finding:
            moments.pass_by("target.find", "before")
            finding = await super().find(ref, operation, intent)
            moments.pass_by("target.find", "after")
            return finding

    return Target


def wrapped_publisher(moments: Moments) -> type[SlackPublisher]:
    class Publisher(SlackPublisher):
        async def publish(self, row: OutboxRow) -> None:
            moments.pass_by("slack.publish", "before")
            await super().publish(row)
            moments.pass_by("slack.publish", "after")

    return Publisher


def wrapped_bus(moments: Moments) -> type[RedisBus]:
    class Bus(RedisBus):
        async def publish(self, topic: str, fields: Mapping[str, str]) -> None:
            moments.pass_by("bus.publish", "before")
            await super().publish(topic, fields)
            moments.pass_by("bus.publish", "after")

    return Bus


def wrapped_locks(moments: Moments) -> type[RedisLocks]:
    class Locks(RedisLocks):
        async def acquire(self, *args: Any, **kwargs: Any) -> Lock | None:
            moments.pass_by("lock.acquire", "before")
            lock: Lock | None = await super().acquire(*args, **kwargs)
            moments.pass_by("lock.acquire", "after")
            return lock

        async def release(self, lock: Lock) -> bool:
            moments.pass_by("lock.release", "before")
            released = await super().release(lock)
            moments.pass_by("lock.release", "after")
            return released

    return Locks


def wrapped_approve(approve: Callable[..., Awaitable[Any]], moments: Moments) -> Callable[..., Awaitable[Any]]:
    """Tells the trial what a person is told of an approval, before the click is acknowledged."""

    async def approve_and_tell(self: Any, plan_id: int, user: str, *, noted: Any = None) -> Any:
        result = await approve(self, plan_id, user, noted=noted)
        moments.tell(decision=str(result.outcome.value), plan=int(plan_id), user=str(user), said=result.message)
        moments.pass_by("click.answered", "before")
        return result

    return approve_and_tell
