"""The running bot: ticks, workers and the relay, from start to a clean stop."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from bot.relay import Relay
from bot.scheduler import Ticker
from executors.lease import kept_alive
from executors.recovery import Recovery
from executors.runner import Runner
from pipeline.domain.errors import TemporaryError
from pipeline.domain.lifecycle import IncidentState
from pipeline.ports.bus import Bus
from pipeline.ports.clock import Clock
from pipeline.ports.store import Store
from pipeline.stages.advance import WAKE_TOPIC
from pipeline.stages.correlate import Correlator
from pipeline.stages.decide import Decider
from pipeline.stages.detect import Detector
from pipeline.stages.diagnose import Diagnoser
from pipeline.stages.observe import Observer
from pipeline.stages.verify import Verifier

log = logging.getLogger(__name__)

IDLE_S = 1.0
"""How long a worker sleeps when there is nothing to do and nobody wakes it."""
DRAIN_S = 10.0
"""How long a stop waits for work in hand; what is left is taken over when its lease ends."""
HOUSEKEEPING_S = 600.0


@dataclass(frozen=True, slots=True)
class Stages:
    """What the loops call."""

    observer: Observer
    detector: Detector
    correlator: Correlator
    diagnoser: Diagnoser
    verifier: Verifier
    decider: Decider
    runner: Runner
    recovery: Recovery
    relay: Relay


class Runtime:
    """Starts and stops everything that moves."""

    def __init__(
        self,
        store: Store,
        bus: Bus,
        clock: Clock,
        stages: Stages,
        *,
        worker: str,
        interval_s: float,
        lease_s: float,
        samples_keep_s: float,
    ) -> None:
        self._store = store
        self._bus = bus
        self._clock = clock
        self._stages = stages
        self._worker = worker
        self._interval_s = interval_s
        self._lease_s = lease_s
        self._samples_keep_s = samples_keep_s
        self._ticker = Ticker(store)
        self._stopping = asyncio.Event()
        self._wake = asyncio.Condition()
        self._tasks: list[asyncio.Task[None]] = []

    def start(self) -> None:
        """Begins to work; returns at once."""
        self._ticker.every(self._interval_s, "detect", self._detect)
        self._ticker.every(min(self._interval_s, 2.0), "verify", self._verify)
        self._ticker.every(5.0, "expire", self._expire)
        self._ticker.every(HOUSEKEEPING_S, "prune", self._prune)
        self._ticker.start()
        loops = {
            "diagnose": self._diagnose,
            "execute": self._stages.runner.run_once,
            "recover": self._stages.recovery.run_once,
            "relay-1": self._stages.relay.run_once,
            "relay-2": self._stages.relay.run_once,
        }
        self._tasks = [asyncio.create_task(self._loop(name, step), name=name) for name, step in loops.items()]
        self._tasks.append(asyncio.create_task(self._listen(), name="listen"))

    async def stop(self) -> None:
        """Lets work in hand end, then cancels what is left; nothing is lost by that, another start takes over."""
        self._stopping.set()
        self._ticker.stop()
        await self._wake_up()
        working = [task for task in self._tasks if task.get_name() != "listen"]
        if working:
            await asyncio.wait(working, timeout=DRAIN_S)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        try:
            await self._stages.detector.save()
        except TemporaryError as error:
            log.warning("baselines of the last minutes not stored: %s", error)

    async def _detect(self, others_ran: bool) -> None:
        now = self._clock.now()
        fresh = await self._stages.observer.run(now)
        result = await self._stages.detector.run(self._clock.now(), reload=others_ran, fresh=fresh)
        opened = await self._stages.correlator.run(result, await self._stages.detector.bank(), self._clock.now())
        if opened:
            await self._wake_up()

    async def _verify(self, others_ran: bool) -> None:
        del others_ran
        async with self._store.begin() as uow:
            waiting = [incident for incident in await uow.incidents.open() if incident.state is IncidentState.VERIFYING]
        for incident in waiting:
            if await self._stages.verifier.run(incident):
                await self._wake_up()

    async def _expire(self, others_ran: bool) -> None:
        del others_ran
        if await self._stages.decider.expire():
            await self._wake_up()

    async def _prune(self, others_ran: bool) -> None:
        del others_ran
        async with self._store.begin() as uow:
            gone = await uow.telemetry.prune(keep_s=self._samples_keep_s)
        log.info("%d samples past their time deleted", gone)

    async def _diagnose(self) -> bool:
        async with self._store.begin() as uow:
            incident = await uow.incidents.claim(
                (IncidentState.OPEN, IncidentState.DIAGNOSING), worker=self._worker, lease_s=self._lease_s
            )
        if incident is None:
            return False
        claimed = incident

        async def renew() -> bool:
            async with self._store.begin() as uow:
                return await uow.incidents.keep(claimed.id, worker=self._worker, lease_s=self._lease_s)

        async with kept_alive(renew, lease_s=self._lease_s):
            await self._stages.diagnoser.run(incident, await self._stages.detector.bank())
        async with self._store.begin() as uow:
            await uow.incidents.release(incident.id, worker=self._worker)
        return True

    async def _loop(self, name: str, step: Callable[[], Awaitable[bool]]) -> None:
        while not self._stopping.is_set():
            busy = False
            try:
                busy = await step()
            except TemporaryError as error:
                log.warning("%s put off: %s", name, error)
            except Exception:
                log.exception("%s failed; its lease ends by itself", name)
            if busy:
                await self._wake_up()
            else:
                await self._sleep(IDLE_S)

    async def _listen(self) -> None:
        """Wakes the workers on events of other replicas; without a bus they poll."""
        while not self._stopping.is_set():
            try:
                async for _ in self._bus.listen(WAKE_TOPIC):
                    await self._wake_up()
            except TemporaryError as error:
                log.warning("bus away, polling meanwhile: %s", error)
            await self._sleep(5 * IDLE_S)

    async def _wake_up(self) -> None:
        async with self._wake:
            self._wake.notify_all()

    async def _sleep(self, seconds: float) -> None:
        async with self._wake:
            try:
                async with asyncio.timeout(seconds):
                    await self._wake.wait()
            except TimeoutError:
                return
