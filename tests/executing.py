"""Runner and recovery on the real store, a Kubernetes API server and Redis; the target can be stopped in mid-call."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from executors.ledger import Ledger
from executors.recovery import Recovery
from executors.runner import Runner
from executors.targets.registry import Registry
from pipeline.adapters.postgres.unit_of_work import PostgresStore
from pipeline.domain.action import Action, InstanceRef, Operation, RestartAction, ScaleAction, ScaleTo, TargetAction
from pipeline.domain.canary import CanarySettings
from pipeline.domain.capability import Declaration, RightCheck
from pipeline.domain.catalogue import WorkloadAddress
from pipeline.domain.execution import Execution, Finding, Intent
from pipeline.domain.ids import ExecutionId
from pipeline.domain.incident import Case
from pipeline.domain.plan import TargetRef, TargetState
from pipeline.domain.telemetry import Sample, SeriesKey, Signal
from pipeline.domain.trace import TraceKind
from pipeline.ports.clock import SystemClock
from pipeline.ports.locks import Locks
from pipeline.ports.targets import Target, Targets
from pipeline.stages.settings import LoopSettings
from tests.builders import CHECKOUT
from tests.contract.targets.places import KubePlace
from tests.kube_server import Call
from tests.stored import approved, case_of, execution_of, until

SETTINGS = LoopSettings(lease_s=60.0, settle_timeout_s=30.0, canary=CanarySettings(watch_s=0.1))
RESOURCE = "kubernetes/shop/checkout"

Moment = Callable[[], Awaitable[None]]


class Stoppable(Target):
    """A target to which something happens before ``observe``, ``apply`` or ``find``, or once it has ``applied``."""

    def __init__(self, inner: Target) -> None:
        self._inner = inner
        self._moments: dict[tuple[str, int], Moment] = {}
        self._always: dict[str, Moment] = {}
        self._calls: dict[str, int] = {}

    def at(self, moment: str, action: Moment, *, nth: int = 1) -> None:
        self._moments[moment, nth] = action

    def always(self, moment: str, action: Moment) -> None:
        self._always[moment] = action

    async def _reach(self, moment: str) -> None:
        self._calls[moment] = self._calls.get(moment, 0) + 1
        action = self._moments.get((moment, self._calls[moment])) or self._always.get(moment)
        if action is not None:
            await action()

    @property
    def platform(self) -> str:
        return self._inner.platform

    def declares(self) -> Declaration:
        return self._inner.declares()

    async def check(self, ref: TargetRef) -> tuple[RightCheck, ...]:
        return await self._inner.check(ref)

    async def resolve(self, address: WorkloadAddress) -> TargetRef:
        return await self._inner.resolve(address)

    async def observe(self, ref: TargetRef) -> TargetState:
        await self._reach("observe")
        return await self._inner.observe(ref)

    async def apply(self, ref: TargetRef, operation: Operation, intent: Intent) -> str:
        await self._reach("apply")
        said = await self._inner.apply(ref, operation, intent)
        await self._reach("applied")
        return said

    async def calls(self, ref: TargetRef, operation: Operation, generation: str) -> tuple[str, ...]:
        return await self._inner.calls(ref, operation, generation)

    async def rehearse(self, ref: TargetRef, operation: Operation, generation: str) -> str:
        return await self._inner.rehearse(ref, operation, generation)

    async def settled(self, ref: TargetRef, operation: Operation) -> bool:
        return await self._inner.settled(ref, operation)

    async def find(self, ref: TargetRef, operation: Operation, intent: Intent) -> Finding:
        await self._reach("find")
        return await self._inner.find(ref, operation, intent)

    def command(self, ref: TargetRef, action: Action) -> str:
        return self._inner.command(ref, action)

    async def close(self) -> None:
        await self._inner.close()


@dataclass(frozen=True, slots=True)
class Bench:
    """One approved plan on ``checkout``, a Deployment of two replicas, not yet begun."""

    store: PostgresStore
    place: KubePlace
    locks: Locks
    target: Stoppable
    before: TargetState
    execution_id: ExecutionId

    def runner(self, worker: str = "one", **changes: Any) -> Runner:
        parts = self._parts(changes)
        return Runner(
            parts["store"], parts["targets"], parts["locks"], parts["ledger"], parts["settings"], worker=worker
        )

    def recovery(self, worker: str = "two", **changes: Any) -> Recovery:
        parts = self._parts(changes)
        runner = self.runner(worker, **changes)
        return Recovery(parts["store"], parts["targets"], runner, parts["ledger"], parts["settings"], worker=worker)

    def _parts(self, changes: dict[str, Any]) -> dict[str, Any]:
        store = changes.get("store", self.store)
        targets: Targets = Registry({"kubernetes": changes.get("target", self.target)})
        parts = {"store": store, "targets": targets, "locks": self.locks, "settings": SETTINGS}
        return parts | {"ledger": Ledger(store, SystemClock())} | changes

    def briefly(self) -> Target:
        """The same target for a look-up that is not meant to wait long for a request that never comes."""
        return self.place.connect(timeout_s=1.0)

    @property
    def changes(self) -> list[Call]:
        """What reached the cluster."""
        return self.place.server.writes

    async def execution(self) -> Execution:
        return await execution_of(self.store, self.execution_id)

    async def case(self) -> Case:
        return await case_of(self.store, (await self.execution()).incident_id)

    async def told(self, *kinds: TraceKind) -> list[str]:
        execution = await self.execution()
        async with self.store.begin() as uow:
            entries = await uow.trace.read(execution.incident_id)
            assert await uow.trace.first_broken(execution.incident_id) is None
        return [one.entry.summary for one in entries if not kinds or one.entry.kind in kinds]

    async def instances(self) -> set[str]:
        return {one.uid for one in (await self.place.target.observe(self.before.ref)).instances}


async def bench(
    store: PostgresStore,
    place: KubePlace,
    locks: Locks,
    *,
    replicas: int = 2,
    restarts: int = 2,
    to_replicas: int | None = None,
) -> Bench:
    """Approves a restart of ``restarts`` replicas, or a scale to ``to_replicas``; the service does well throughout."""
    await measured(store, Signal.ERROR_RATIO, before=0.001, after=0.001)
    await measured(store, Signal.LATENCY_P99, before=0.2, after=0.21)
    ref = await place.target.resolve(place.address)
    await place.scale_by_another(ref, replicas)
    await until(lambda: place.target.settled(ref, ScaleTo(replicas=replicas)))
    before = await place.target.observe(ref)
    names = [InstanceRef(name=one.name, uid=one.uid) for one in before.instances[:restarts]]
    action: TargetAction = RestartAction(instances=tuple(names))
    if to_replicas is not None:
        action = ScaleAction(from_replicas=before.replicas, to_replicas=to_replicas)
    execution_id = await approved(store, action, target=ref, generation=before.generation)
    return Bench(store, place, locks, Stoppable(place.target), before, execution_id)


async def measured(
    store: PostgresStore,
    signal: Signal,
    *,
    instance: str = "",
    before: float | None = None,
    after: float | None = None,
) -> None:
    """Samples of checkout from before any step and from after all of them: their times lie beyond the test's end."""
    now, key = datetime.now(UTC), SeriesKey(CHECKOUT, signal, instance)
    told = [(before, -10 * number) for number in range(1, 6)] + [(after, 3600 + number) for number in range(5)]
    async with store.begin() as uow:
        await uow.telemetry.save_samples(
            [Sample(key, now + timedelta(seconds=at_s), value) for value, at_s in told if value is not None]
        )


async def run_and_die(runner: Runner, target: Stoppable, moment: str, *, nth: int = 1) -> None:
    """Runs a worker until it gets to ``moment``, and kills it there; the lease it held stays behind."""
    reached = asyncio.Event()

    async def stop() -> None:
        reached.set()
        await asyncio.Event().wait()

    target.at(moment, stop, nth=nth)
    working = asyncio.create_task(runner.run_once())
    try:
        async with asyncio.timeout(60):
            await reached.wait()
    finally:
        working.cancel()
        with suppress(asyncio.CancelledError):
            await working
