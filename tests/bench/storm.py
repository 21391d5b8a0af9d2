"""An alert storm: 10,000 anomalies of 20 services within a minute, through correlation, diagnosis and outbox to Slack.

The detector's results are made up; what follows is real: PostgreSQL, Redis, the correlator at every tick, the rules'
diagnosis, two relays, and the local Slack with Slack's rate limits. In the middle of it somebody approves a SEV1.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from typing import Any, cast

from bot.catalogue import CatalogueFile
from bot.demo.slack.manifest import read_manifest
from bot.demo.slack.server import LocalSlack
from bot.embedded.redis import EmbeddedRedis
from bot.relay import Relay
from bot.slack.client import make_client
from bot.slack.publisher import SlackPublisher
from executors.ledger import Ledger
from executors.runner import Runner
from executors.targets.registry import Registry
from pipeline.adapters.llm.rules import RulesDiagnostician
from pipeline.adapters.postgres.pool import Pool
from pipeline.adapters.postgres.unit_of_work import PostgresStore
from pipeline.adapters.redis.bus import RedisBus
from pipeline.adapters.redis.locks import RedisLocks
from pipeline.domain.anomaly import Anomaly, AnomalyKind, DetectionResult, DetectionSettings
from pipeline.domain.approval import default_rules
from pipeline.domain.baseline import BaselineBank
from pipeline.domain.catalogue import Catalogue
from pipeline.domain.ids import ServiceName, SlackUserId
from pipeline.domain.lifecycle import IncidentState
from pipeline.domain.telemetry import SeriesKey, Signal
from pipeline.ports.clock import SystemClock
from pipeline.stages.correlate import Correlator
from pipeline.stages.decide import Decider
from pipeline.stages.desk import Desk
from pipeline.stages.detect import Detector
from pipeline.stages.diagnose import Authors, Diagnoser
from pipeline.stages.investigate import Investigator
from pipeline.stages.propose import Proposer
from pipeline.stages.reads import Ports
from pipeline.stages.settings import LoopSettings
from pipeline.stages.witnesses import Witnesses
from tests.bench.decisions import Answering, database
from tests.builders import T0, make_anomaly, make_target, restart
from tests.databases import open_directory
from tests.integration.test_loop_stages import Shelf
from tests.slack_stage import BOT_TOKEN, CHANNEL, MANIFEST
from tests.stored import Waiting, awaiting

SERVICES, ANOMALIES = 20, int(os.environ.get("BENCH_ANOMALIES", "10000"))
SECONDS = float(os.environ.get("BENCH_STORM_SECONDS", "60"))
IDLE_S, WANTED_DRAINED_S, WANTED_SEV1_S = 1.0, 300.0, 5.0
KINDS = {
    Signal.LATENCY_P99: AnomalyKind.LATENCY,
    Signal.ERROR_RATIO: AnomalyKind.ERROR_SURGE,
    Signal.MEMORY_RATIO: AnomalyKind.MEMORY_PRESSURE,
}


def run() -> None:
    """Prints incidents, posts a second, seconds until Slack had all, and how long a SEV1 took, quiet and amid it."""
    asyncio.run(_run())


def anomalies() -> list[Anomaly]:
    """Every service slow, failing and out of memory, replica after replica."""
    made = []
    for number in range(ANOMALIES):
        signal = list(KINDS)[number // SERVICES % len(KINDS)]
        key = SeriesKey(ServiceName(f"shop-{number % SERVICES}"), signal, f"pod-{number // SERVICES}")
        made.append(make_anomaly(key, kind=KINDS[signal]))
    return made


async def _run() -> None:
    async with AsyncExitStack() as stack:
        pool, store = await stack.enter_async_context(database())
        redis = EmbeddedRedis(stack.enter_context(open_directory()))
        redis_url = await redis.start()
        stack.push_async_callback(redis.stop)
        bus, locks = RedisBus(redis_url), RedisLocks(redis_url)
        stack.push_async_callback(bus.close)
        stack.push_async_callback(locks.close)
        slack = LocalSlack(
            data_dir=None, bot_token=BOT_TOKEN, app_token="xapp-local", signing_secret="bench",
            manifest=read_manifest(MANIFEST), rate_limits=True,
        )  # fmt: skip
        await slack.start()
        stack.push_async_callback(slack.stop)
        bench = _Bench(pool, store, bus, locks, slack.api_url)
        calm, worst = await bench.proposed("quiet"), await bench.proposed("amid")
        loops = [asyncio.create_task(_for_ever(step)) for step in bench.loops()]
        try:
            quiet_s = await bench.sev1(calm)
            await bench.drained()
            bench.posts.clear()
            began = time.monotonic()
            amid = asyncio.create_task(bench.sev1(worst, after_s=SECONDS / 2))
            opened, slowest_s = await bench.strike()
            amid_s = await amid
            stormed_s = time.monotonic() - began
            await bench.drained()
            drained_s = time.monotonic() - began
        finally:
            for loop in loops:
                loop.cancel()
            await asyncio.gather(*loops, return_exceptions=True)
    print(
        f"   {ANOMALIES} anomalies of {SERVICES} services in {SECONDS:.0f} s (it took {stormed_s:.0f} s, one tick"
        f" {slowest_s:.1f} s at most): {opened} incidents (wanted: at most {SERVICES})"
    )
    print(
        f"   {len(bench.posts)} posts to one channel, {_most(bench.posts, 0.95)} within a second at most (wanted: 1),"
        f" {bench.refused} refused by Slack's rate limit"
    )
    print(f"   Slack had everything {drained_s:.0f} s after the storm began (wanted: at most {WANTED_DRAINED_S:.0f} s)")
    print(
        f"   a SEV1 from the approval to the call at its target: quiet {quiet_s:.2f} s, amid the storm {amid_s:.2f} s"
        f" ({amid_s / quiet_s:.1f}x; wanted: at most {WANTED_SEV1_S:.0f} s)"
    )


class _Bench:
    """The loops of one replica, without detection."""

    def __init__(self, pool: Pool, store: PostgresStore, bus: RedisBus, locks: RedisLocks, api_url: str) -> None:
        settings = LoopSettings(approvals=default_rules(1, (), ["S0SRE"]))
        detection, catalogue, clock = DetectionSettings(), Catalogue({}), SystemClock()
        self.target = Answering()
        targets, source, nothing = Registry({"kubernetes": self.target}), CatalogueFile(None), cast(Any, None)
        self._pool = pool
        self.store, self.posts, self.refused = store, list[float](), 0
        self._detector = Detector(store, detection)
        self._correlator = Correlator(store, catalogue, detection)
        rules, shelf = RulesDiagnostician(), Shelf()
        self._diagnoser = Diagnoser(
            store,
            Investigator(Ports(store, targets, catalogue, Witnesses((), ()), shelf), detection),
            shelf,
            Authors(rules, rules, None),
            Proposer(store, targets, catalogue, settings),
            catalogue,
            clock,
            settings,
        )
        self._decider = Decider(store, targets, source, clock, settings)
        desk = Desk(
            store, targets, source.current(), self._detector, nothing, nothing, nothing, self._decider, clock,
            settings, (), command="/sre",
        )  # fmt: skip
        client = make_client(BOT_TOKEN, api_url)
        post = client.chat_postMessage

        async def counted(**what: Any) -> Any:
            try:
                answer = await post(**what)
            except Exception:
                self.refused += 1
                raise
            self.posts.append(time.monotonic())
            return answer

        cast(Any, client).chat_postMessage = counted
        publisher = SlackPublisher(client, desk, store, CHANNEL)
        self._relay = Relay(store, publisher, bus, worker="bench", lease_s=15.0)
        self._runner = Runner(store, targets, locks, Ledger(store, clock), settings, worker="bench")

    def loops(self) -> Sequence[Callable[[], Awaitable[bool]]]:
        return (self._relay.run_once, self._relay.run_once, self._runner.run_once, self._diagnose)

    async def _diagnose(self) -> bool:
        states = (IncidentState.OPEN, IncidentState.DIAGNOSING)
        async with self.store.begin() as uow:
            incident = await uow.incidents.claim(states, worker="bench", lease_s=60.0)
        if incident is None:
            return False
        await self._diagnoser.run(incident, await self._detector.bank())
        async with self.store.begin() as uow:
            await uow.incidents.release(incident.id, worker="bench")
        return True

    async def strike(self) -> tuple[int, float]:
        """A tick a second, each with everything that is wrong by then. Incidents opened, and the longest tick's s."""
        loop, everything, opened, slowest_s = asyncio.get_running_loop(), anomalies(), 0, 0.0
        began = loop.time()
        ticks = int(SECONDS)
        for tick in range(1, ticks + 1):
            await asyncio.sleep(max(0.0, began + tick - loop.time()))
            told_s = loop.time()
            told = DetectionResult(tuple(everything[: ANOMALIES * tick // ticks]), ())
            opened += await self._correlator.run(told, BaselineBank(), T0)
            slowest_s = max(slowest_s, loop.time() - told_s)
        return opened, slowest_s

    async def proposed(self, name: str) -> Waiting:
        """A SEV1 with a plan that waits for one person."""
        target = make_target(name=name, uid=f"uid-{name}")
        waiting = await awaiting(self.store, service=ServiceName(name), action=restart(f"{name}-1"), target=target)
        async with self._pool.transaction() as connection:
            await connection.execute("UPDATE incidents SET severity = 'SEV1' WHERE id = $1", waiting.incident.id)
        return waiting

    async def sev1(self, waiting: Waiting, *, after_s: float = 0.0) -> float:
        """Seconds from the approval of a SEV1 to the first call at its target."""
        await asyncio.sleep(after_s)
        before, began = len(self.target.applied), time.monotonic()
        result = await self._decider.approve(waiting.plan.id, SlackUserId("U0ALICE"))
        while len(self.target.applied) == before:
            assert time.monotonic() - began < 120, result
            await asyncio.sleep(0.01)
        return self.target.applied[before] - began

    async def drained(self) -> None:
        """Until nothing waits to be sent, nor to be diagnosed."""
        while True:
            async with self.store.begin() as uow:
                pending = (await uow.outbox.counts()).get("pending", 0)
                busy = [
                    one
                    for one in await uow.incidents.open()
                    if one.state in (IncidentState.OPEN, IncidentState.DIAGNOSING)
                ]
            if not pending and not busy:
                return
            await asyncio.sleep(0.2)


async def _for_ever(step: Callable[[], Awaitable[bool]]) -> None:
    while True:
        if not await step():
            await asyncio.sleep(IDLE_S)


def _most(times: Sequence[float], window_s: float) -> int:
    """Within any window of so many seconds."""
    return max((sum(one <= other < one + window_s for other in times) for one in times), default=0)
