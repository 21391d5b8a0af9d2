"""The running bot: ticks, workers and the relay, from start to a clean stop."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from bot.anchoring import AnchorKeeper
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
from pipeline.stages.intake import Intake
from pipeline.stages.observe import Observer
from pipeline.stages.reconsider import Reconsiderer
from pipeline.stages.remind import Reminder
from pipeline.stages.replicas import READ_EVERY_S, ReplicaWatch
from pipeline.stages.verify import Verifier

log = logging.getLogger(__name__)

IDLE_S = 1.0
"""How long a worker sleeps when there is nothing to do and nobody wakes it."""
DRAIN_S = 10.0
"""How long a stop waits for work in hand; what is left is taken over when its lease ends."""
HOUSEKEEPING_S = 600.0
EXECUTING = 3
"""Executions at a time in one replica; the guardrails bound them over all."""
ANCHOR_CHECK_S = 30.0
"""How often it is looked whether the trail is due for an anchor."""


@dataclass(frozen=True, slots=True)
class Stages:
    """What the loops call."""

    observer: Observer
    detector: Detector
    correlator: Correlator
    diagnoser: Diagnoser
    verifier: Verifier
    decider: Decider
    reminder: Reminder
    reconsiderer: Reconsiderer
    replicas: ReplicaWatch
    runner: Runner
    recovery: Recovery
    relay: Relay
    intake: Intake


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
        anchors: AnchorKeeper,
    ) -> None:
        self._store = store
        self._bus = bus
        self._clock = clock
        self._stages = stages
        self._worker = worker
        self._interval_s = interval_s
        self._lease_s = lease_s
        self._samples_keep_s = samples_keep_s
        self._anchors = anchors
        self._ticker = Ticker(store, clock)
        self._stopping = asyncio.Event()
        self._wake = asyncio.Condition()
        self._tasks: list[asyncio.Task[None]] = []

    def start(self) -> None:
        """Begins to work; returns at once."""
        self._ticker.every(self._interval_s, "detect", self._detect)
        self._ticker.every(min(self._interval_s, 2.0), "verify", self._verify)
        self._ticker.every(5.0, "expire", self._expire)
        self._ticker.every(5.0, "remind", self._remind)
        self._ticker.every(5.0, "reconsider", self._reconsider)
        self._ticker.every(READ_EVERY_S, "replicas", self._replicas)
        self._ticker.every(HOUSEKEEPING_S, "prune", self._prune)
        self._ticker.every(ANCHOR_CHECK_S, "anchor", self._anchor)
        self._ticker.start()
        loops = {
            "diagnose": self._diagnose,
            # Several: one that watches a canary for minutes must not hold up a decision on another target.
            **{f"execute-{number}": self._stages.runner.run_once for number in range(1, EXECUTING + 1)},
            "recover": self._stages.recovery.run_once,
            "relay-1": self._stages.relay.run_once,
            "relay-2": self._stages.relay.run_once,
        }
        self._tasks = [asyncio.create_task(self._loop(name, step), name=name) for name, step in loops.items()]
        self._tasks.append(asyncio.create_task(self._listen(), name="listen"))
        self._tasks.append(asyncio.create_task(self._take_in(), name="take in"))

    async def stop(self) -> None:
        """Lets work in hand end, then cancels what is left; nothing is lost by that, another start takes over."""
        self._stopping.set()
        self._ticker.stop()
        await self._wake_up()
        working = [task for task in self._tasks if task.get_name() not in ("listen", "take in")]
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

    async def _remind(self, others_ran: bool) -> None:
        del others_ran
        if await self._stages.reminder.run():
            await self._wake_up()

    async def _reconsider(self, others_ran: bool) -> None:
        del others_ran
        if await self._stages.reconsiderer.run():
            await self._wake_up()

    async def _replicas(self, others_ran: bool) -> None:
        del others_ran
        bank = await self._stages.detector.bank()
        await self._stages.replicas.run({key.service for key in bank})

    async def _prune(self, others_ran: bool) -> None:
        del others_ran
        async with self._store.begin() as uow:
            gone = await uow.telemetry.prune(keep_s=self._samples_keep_s)
        await self._stages.intake.forget()
        log.info("%d samples past their time deleted", gone)

    async def _anchor(self, others_ran: bool) -> None:
        del others_ran
        if await self._anchors.anchor_if_due():
            log.info("the trail was anchored")

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
            alerts = await self._stages.intake.alerts_around(incident)
            await self._stages.diagnoser.run(incident, await self._stages.detector.bank(), alerts=alerts)
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

    async def _take_in(self) -> None:
        """What others tell; an event that fails stays on the bus and comes again."""
        while not self._stopping.is_set():
            try:
                await self._stages.intake.run_once()
                continue
            except TemporaryError as error:
                log.warning("nothing is taken in for now: %s", error)
            except Exception:
                log.exception("an event could not be taken in; it is delivered again")
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
