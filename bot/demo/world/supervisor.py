"""Keeps as many processes of each service running as wanted, and changes the number only against the journal."""

import asyncio
import logging
from collections.abc import Iterator
from functools import partial

from bot.demo.world.journal import Journal
from bot.demo.world.messages import (
    InstanceView,
    JournalEntry,
    LastChange,
    RestartRequest,
    ScaleRequest,
    ServiceView,
)
from bot.demo.world.process_guard import resident_bytes
from bot.demo.world.replica import Replica, new_uid
from bot.demo.world.spec import MAX_REPLICAS, MEMORY_LIMIT_BYTES, NAMESPACE, SPECS, WorldPaths
from bot.demo.world.targets import Target, write_targets

_log = logging.getLogger(__name__)


class Refusal(Exception):
    """A request that changes nothing: HTTP `status`, a short `error` word and the reason in words."""

    def __init__(self, status: int, error: str, reason: str) -> None:
        super().__init__(reason)
        self.status = status
        self.error = error


class Supervisor:
    """The control plane. Between a check, its journal entry and the effect there is no await, so no race."""

    def __init__(self, paths: WorldPaths, journal: Journal) -> None:
        self.journal = journal
        self._paths = paths
        self._replicas: dict[str, list[Replica]] = {name: [] for name in SPECS}

    def start(self) -> None:
        """Start the wanted replicas of every service; returns before they are ready."""
        self._publish()
        for service in SPECS:
            self._reconcile(service)

    async def wait_ready(self, timeout_s: float) -> None:
        """Raises: TimeoutError naming the instances that did not come up."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + timeout_s
        while missing := [replica.name for replica in self._all() if not replica.ready]:
            if loop.time() > deadline:
                raise TimeoutError(f"not up after {timeout_s:g} s: {', '.join(missing)}")
            await asyncio.sleep(0.05)

    async def stop(self) -> None:
        """Stop every process; returns when none is left."""
        lives = [replica.life for replica in self._all()]
        for replica in self._all():
            replica.stop_now()
        if lives:
            await asyncio.wait(lives)

    def view(self, service: str) -> ServiceView:
        """Raises: Refusal 404."""
        if service not in SPECS:
            raise Refusal(404, "not_found", f"there is no service {service!r}")
        changes = self.journal.entries(service)
        return ServiceView(
            name=service,
            namespace=NAMESPACE,
            uid=self.journal.uid(service),
            generation=self.journal.generation(service),
            replicas=self.journal.replicas(service),
            max_replicas=MAX_REPLICAS,
            instances=tuple(_view(replica) for replica in self._replicas[service]),
            replicas_1h_ago=self.journal.replicas_1h_ago(service),
            last_change=_last_change(changes[-1]) if changes else None,
        )

    def views(self) -> list[ServiceView]:
        return [self.view(service) for service in SPECS]

    def ready(self, service: str) -> list[Replica]:
        """The replicas of a service that take requests, lowest number first."""
        return [replica for replica in self._replicas[service] if replica.ready]

    def scale(self, service: str, request: ScaleRequest) -> ServiceView:
        """Raises: Refusal 404, 409, 422."""
        now = self.view(service)
        if not 1 <= request.replicas <= MAX_REPLICAS:
            raise Refusal(422, "out_of_range", f"replicas must be from 1 to {MAX_REPLICAS}")
        self._check_fence(service, request.fence)
        if request.if_generation != now.generation:
            reason = f"{service} is at generation {now.generation}, not {request.if_generation}"
            raise Refusal(409, "conflict", reason)
        self.journal.record(
            service=service,
            kind="scale",
            execution_id=request.execution_id,
            step=request.step,
            fence=request.fence,
            detail={"from": now.replicas, "to": request.replicas},
        )
        self._reconcile(service)
        return self.view(service)

    def restart(self, service: str, request: RestartRequest) -> ServiceView:
        """Raises: Refusal 404, 409."""
        self.view(service)
        self._check_fence(service, request.fence)
        replica = next((it for it in self._replicas[service] if it.name == request.instance), None)
        if replica is None or replica.retiring or replica.uid != request.if_instance_uid:
            reason = f"{request.instance} with uid {request.if_instance_uid} is gone"
            raise Refusal(409, "conflict", reason)
        # The new uid is journalled with the request, so whoever asks later can tell which process came of it.
        successor = new_uid()
        self.journal.record(
            service=service,
            kind="restart",
            execution_id=request.execution_id,
            step=request.step,
            fence=request.fence,
            detail={"instance": replica.name, "old_uid": replica.uid, "new_uid": successor},
        )
        replica.restart(successor)
        return self.view(service)

    def _check_fence(self, service: str, fence: int) -> None:
        if fence < (highest := self.journal.highest_fence(service)):
            raise Refusal(409, "conflict", f"fence {fence} is lower than {highest}, seen before for {service}")

    def _reconcile(self, service: str) -> None:
        wanted = self.journal.replicas(service)
        replicas = self._replicas[service]
        lasting = [replica for replica in replicas if not replica.retiring]
        for replica in lasting[wanted:]:
            replica.retire()
        for _ in range(wanted - len(lasting)):
            taken = {replica.name for replica in replicas}
            name = next(name for name in _names(service) if name not in taken)
            replica = Replica(service, name, self._paths, self._publish)
            replica.life.add_done_callback(partial(self._ended, replica))
            replicas.append(replica)
            replicas.sort(key=lambda it: int(it.name.rpartition("-")[2]))

    def _ended(self, replica: Replica, life: asyncio.Task[None]) -> None:
        if not life.cancelled() and (error := life.exception()) is not None:
            _log.error("%s cannot be kept running: %s", replica.name, error)
        self._replicas[replica.service].remove(replica)

    def _publish(self) -> None:
        targets = [
            Target(replica.service, replica.name, replica.port) for replica in self._all() if replica.port is not None
        ]
        write_targets(self._paths.targets, targets)

    def _all(self) -> list[Replica]:
        return [replica for replicas in self._replicas.values() for replica in replicas]


def _names(service: str) -> Iterator[str]:
    number = 1
    while True:
        yield f"{service}-{number}"
        number += 1


def _view(replica: Replica) -> InstanceView:
    return InstanceView(
        name=replica.name,
        uid=replica.uid,
        pid=replica.pid,
        port=replica.port,
        ready=replica.ready,
        started_at=replica.started_at,
        memory_bytes=resident_bytes(replica.pid) if replica.pid is not None else 0,
        memory_limit_bytes=MEMORY_LIMIT_BYTES,
    )


def _last_change(entry: JournalEntry) -> LastChange:
    return LastChange(execution_id=entry.execution_id, step=entry.step, kind=entry.kind, at=entry.at, fence=entry.fence)
