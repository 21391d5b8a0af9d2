"""One trial: a bot with one or two replicas, an approved plan, faults, and afterwards the whole history of it."""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections.abc import AsyncIterator, Coroutine, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from pprint import pformat
from typing import Any

from bot.demo.slack.person import Person
from pipeline.adapters.postgres.pool import Pool
from pipeline.adapters.postgres.unit_of_work import PostgresStore
from pipeline.domain.action import InstanceRef, RestartAction, ScaleAction, TargetAction
from pipeline.domain.ids import ServiceName
from pipeline.domain.plan import TargetRef
from tests.builders import CHECKOUT
from tests.crash.crowd import READY_S, Crowd
from tests.crash.deeds import Deeds
from tests.crash.history import gather
from tests.crash.invariants import Acknowledged, Blind, History, SwitchTime, violations
from tests.crash.model import FaultyModel
from tests.crash.plans import TrialPlan
from tests.crash.proxy import TcpProxy
from tests.crash.recorder import NAMESPACE, SERVICE, SERVICE_UID, Recorder
from tests.crash.replica import ReplicaOrder
from tests.crash.servers import AWAY, Child, Lane, Sql, WarmProcess, address_of, libfaketime, through
from tests.crash.slack import APP_TOKEN, BOT_TOKEN, CHANNEL, FaultySlack
from tests.crash.statements import MILD, NO_ROOM, SPENT, UNDIAGNOSED
from tests.crash.tracing import kill_at, let_go
from tests.stored import Waiting, awaiting

PEOPLE = ("U0ALICE", "U0BOB")
LEASE_S = 1.5
FEED_S = 0.2
LOOK_S = 0.3
REST_S = 75.0
"""After this long without coming to rest a trial is called off, and its history judged as it stands."""
SYSCALL_COMES_S = 12.0
OPEN = ("ready", "claimed", "dispatched", "applied", "unknown")


@dataclass
class Outcome:
    """What came of a trial."""

    plan: TrialPlan
    violations: dict[str, list[str]]
    struck: tuple[str, ...]
    took_s: float
    history: History
    told: str = ""
    """The trial itself failed, with this; it counts as a violation of nothing and is never passed over."""


class Trial(Crowd, Deeds):
    """``await Trial(...).run()``, once."""

    def __init__(self, plan: TrialPlan, lane: Lane, warm: WarmProcess, *, keep_logs: Path | None = None) -> None:
        self._plan = plan
        self._lane = lane
        self._warm = warm
        self._folder = (keep_logs or lane.folder) / f"trial-{plan.number}-{random.randrange(10**6)}"
        self._children: dict[int, Child] = {}
        self._pending = list(plan.strikes)
        self._background: set[asyncio.Task[None]] = set()
        self._up: dict[int, asyncio.Event] = {}
        self._struck: list[str] = []
        self._decided: list[tuple[datetime, int, str, str]] = []
        self._acknowledged: list[Acknowledged] = []
        self._switches: list[SwitchTime] = []
        self._blind: list[Blind] = []
        self._heads: list[tuple[int, int, str]] = []
        self._faults_over_at: datetime | None = None
        self._foreign = 0
        self._troubles: list[str] = []
        self._done = False
        self._armed = False

    async def run(self) -> Outcome:
        began_s = time.monotonic()
        try:
            history = await self._story()
        except Exception as error:  # noqa: BLE001 - whatever it is, it is told and counted
            told = f"{type(error).__name__}: {error}"
            return Outcome(
                self._plan, {"trial": [told]}, tuple(self._struck), time.monotonic() - began_s, History(), told
            )
        took_s = time.monotonic() - began_s
        found = violations(history) | ({"trial": self._troubles} if self._troubles else {})
        if found:
            (self._folder / "history.txt").write_text(f"{self._plan}\n{found}\n{pformat(history, width=200)}\n")
        return Outcome(self._plan, found, tuple(self._struck), took_s, history)

    async def _story(self) -> History:
        plan = self._plan
        self._folder.mkdir(parents=True)
        self._clock.write_text(f"{plan.clock_offset_s or 0:+.0f}\n")
        async with AsyncExitStack() as stack:
            self._dsn = await stack.enter_async_context(self._lane.database())
            self._sql = Sql(self._dsn)
            stack.push_async_callback(self._sql.close)
            self._recorder = await stack.enter_async_context(Recorder())
            self._recorder.faults = dict(plan.target_faults)
            self._slack = await stack.enter_async_context(FaultySlack())
            self._postgres = await stack.enter_async_context(TcpProxy(lambda: address_of(self._dsn)))
            self._redis = await stack.enter_async_context(TcpProxy(lambda: address_of(self._lane.redis_url)))
            self._slack_way = await stack.enter_async_context(TcpProxy(lambda: address_of(self._slack.base_url)))
            self._slack.heard_through(self._slack_way.port)
            await stack.enter_async_context(self._listening())
            stack.push_async_callback(self._tear_down)
            pool = Pool(self._dsn, max_size=2)
            if plan.model is not None:
                self._model = await stack.enter_async_context(FaultyModel(plan.model))
            cases = await self._cases(PostgresStore(pool))
            await pool.close()
            feeding = asyncio.create_task(self._feed())
            stack.push_async_callback(_cancelled, feeding)
            await asyncio.gather(*(self._start(number) for number in range(1, plan.replicas + 1)))
            self._people = [await stack.enter_async_context(Person(self._slack.base_url, who)) for who in PEOPLE]
            places = [await self._card(case) for case in cases if plan.model is None]
            self._postgres.delay_s = plan.delay_s
            self._recorder.unreadable = {self._recorder.reads + nth: times for nth, times in plan.unreadable.items()}
            self._armed = True
            async with self._traced():
                if plan.model is None:
                    await self._clicks(list(zip(cases, places, strict=True)))
                ended_at = await self._rest()
                if plan.model is not None and self._model.asked:
                    self._struck.append(f"model {plan.model}")
            self._postgres.delay_s = 0.0
            told = {
                "requests": tuple(self._recorder.requests),
                "acknowledged": tuple(self._acknowledged),
                "switches": tuple(self._switches),
                "blind": tuple(self._blind),
                "heads_seen": tuple(self._heads),
                "replicas_at_last": self._recorder.replicas,
                "foreign_changes": self._foreign,
                "faults_over_at": self._faults_over_at,
                "ended_at": ended_at,
                "looked_at": datetime.now(UTC),
            }
            self._struck += self._recorder.struck
            return await gather(self._dsn, self._slack.messages(CHANNEL), told)

    async def _cases(self, store: PostgresStore) -> list[Waiting]:
        """Diagnosed incidents whose plans wait for a decision; with two of them both are about one target."""
        ref = TargetRef(platform="local_process", namespace=NAMESPACE, name=SERVICE, uid=SERVICE_UID)
        uids = self._recorder.instances
        names = [f"{SERVICE}-1", f"{SERVICE}-2"][: 2 if self._plan.action == "restart_two" else 1]
        action: TargetAction = RestartAction(instances=tuple(InstanceRef(name=one, uid=uids[one]) for one in names))
        if self._plan.action == "scale":
            action = ScaleAction(from_replicas=3, to_replicas=5)
        services = (CHECKOUT, ServiceName("payments")) if self._plan.click == "two_cards" else (CHECKOUT,)
        cases = [
            await awaiting(
                store,
                service=service,
                action=action,
                target=ref,
                generation=str(self._recorder.generation),
                approvals_needed=self._plan.people,
            )
            for service in services
        ]
        if self._plan.model is not None:
            await self._one(UNDIAGNOSED)
        if self._plan.people == 1:
            await self._one(MILD)
        if any(strike.deed == "trail_full" for strike in self._plan.strikes):
            await self._one(NO_ROOM)
        if self._plan.budget_spent:
            await self._one(SPENT)
        return cases

    @asynccontextmanager
    async def _traced(self) -> AsyncIterator[None]:
        """Kills the replica at a system call, where the plan wants that."""
        if not self._plan.syscall:
            yield
            return
        tracer = await kill_at(self._children[1], self._plan.syscall, self._plan.syscall_nth)
        self._later(self._revive_from(tracer))
        try:
            yield
        finally:
            await let_go(tracer)

    async def _revive_from(self, tracer: asyncio.subprocess.Process) -> None:
        """When the traced replica has died."""
        child = self._children[1]
        waits = [asyncio.create_task(child.gone.wait()), asyncio.create_task(tracer.wait())]
        await asyncio.wait([waits[0]], timeout=SYSCALL_COMES_S)
        for wait in waits:
            wait.cancel()
        if child.gone.is_set():
            self._struck.append(f"kill at {self._plan.syscall}")
            await self._revive(1)

    # -- replicas

    async def _start(self, number: int) -> None:
        """Returns when it is up, or has died on the way."""
        up = self._up[number] = asyncio.Event()
        preload = libfaketime() if self._plan.clock_offset_s is not None else None
        child = self._children[number] = await self._warm.start(self._order(number), preload)
        waits = [asyncio.create_task(up.wait()), asyncio.create_task(child.gone.wait())]
        try:
            await asyncio.wait(waits, timeout=READY_S, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()
        if not self._armed and not up.is_set():
            raise RuntimeError(f"replica {number} did not come up: {self._log(number)[-600:]}")

    def _order(self, number: int) -> ReplicaOrder:
        armed: dict[str, list[int]] = {}
        for strike in self._plan.strikes:
            armed.setdefault(strike.moment, []).append(strike.nth)
        environment = {
            "DATABASE_URL": through(self._dsn, self._postgres.port),
            "REDIS_URL": through(self._lane.redis_url, self._redis.port),
            "SLACK_BOT_TOKEN": BOT_TOKEN,
            "SLACK_APP_TOKEN": APP_TOKEN,
            "SLACK_API_URL": f"http://127.0.0.1:{self._slack_way.port}/api/",
            "SRE_SLACK_CHANNEL": CHANNEL,
            "SRE_APPROVERS": ",".join(PEOPLE),
            "SRE_LOCAL_TARGET_URL": self._recorder.url,
            "SRE_SCRAPE_FILE": str(self._nothing_to_scrape()),
            "SRE_DATA_DIR": str(self._folder),
            "SRE_HTTP_PORT": "0",
            "SRE_LEASE_S": str(LEASE_S),
            "SRE_SETTLE_TIMEOUT_S": "6",
            "SRE_VERIFY_HOLD_S": "1",
            "SRE_VERIFY_DEADLINE_S": "3",
            "SRE_INTERVAL_S": "3600",
            "SRE_CANARY_WATCH_S": "1",
            "SRE_INITIAL_PHASE": "assist",
            "SRE_MODEL_PROVIDER": "rules",
        }
        if self._plan.model is not None:
            environment |= {
                "SRE_MODEL_PROVIDER": "anthropic",
                "ANTHROPIC_API_KEY": "sk-ant-nothing",
                "ANTHROPIC_BASE_URL": self._model.url,
                "SRE_MODEL_DEADLINE_S": "3",
                "SRE_REVIEW": "rule_based",
            }
        return ReplicaOrder(
            number=number,
            environment=environment,
            armed=armed,
            trial=str(self._socket),
            log=str(self._folder / f"replica-{number}.log"),
            clock_file=str(self._clock) if self._plan.clock_offset_s is not None else "",
        )

    def _nothing_to_scrape(self) -> Path:
        path = self._folder / "scrape.json"
        path.write_text("[]")
        return path

    def _log(self, number: int) -> str:
        path = self._folder / f"replica-{number}.log"
        return path.read_text(errors="replace") if path.exists() else ""

    async def _revive(self, number: int) -> None:
        child = self._children[number]
        await child.gone.wait()
        if self._plan.revive and not self._done:
            await self._start(number)

    async def _tear_down(self) -> None:
        self._done = True
        for task in list(self._background):
            task.cancel()
        await asyncio.gather(*self._background, return_exceptions=True)
        for child in self._children.values():
            await child.end()

    # -- what replicas tell

    @property
    def _socket(self) -> Path:
        return self._folder / "trial.sock"

    @property
    def _clock(self) -> Path:
        return self._folder / "clock"

    @asynccontextmanager
    async def _listening(self) -> AsyncIterator[None]:
        server = await asyncio.start_unix_server(self._told, str(self._socket))
        try:
            yield
        finally:
            server.close()

    async def _told(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError, json.JSONDecodeError, asyncio.CancelledError):
            said = json.loads(await reader.readline())
            if "up" in said:
                self._up[said["replica"]].set()
            elif "decision" in said:
                self._decided.append((datetime.now(UTC), said["plan"], said["user"], said["decision"]))
            elif self._armed:
                await self._strike(said)
            writer.write(b"go")
            await writer.drain()
        writer.close()

    async def _strike(self, said: dict[str, Any]) -> None:
        match = [one for one in self._pending if (one.moment, one.nth) == (said["moment"], said["nth"])]
        for strike in match:
            self._pending.remove(strike)
            self._struck.append(strike.deed)
            await self._witness()
            with self._own_trouble():
                await self._do(strike, said)

    @contextmanager
    def _own_trouble(self) -> Iterator[None]:
        """A fault that could not be done is told at the end: a trial that did not do its work proves nothing."""
        try:
            yield
        except Exception as error:  # noqa: BLE001
            self._troubles.append(f"{type(error).__name__}: {error}")

    def _later(self, work: Coroutine[Any, Any, None]) -> None:
        async def run() -> None:
            with self._own_trouble():
                await work
            self._faults_over_at = datetime.now(UTC)

        task = asyncio.create_task(run())
        self._background.add(task)
        task.add_done_callback(self._background.discard)

    # -- the end

    async def _rest(self) -> datetime | None:
        """Waits until nothing moves any more; when that was."""
        deadline = time.monotonic() + REST_S
        quiet = 0
        while time.monotonic() < deadline:
            await asyncio.sleep(LOOK_S)
            if self._background or not await self._is_quiet():
                quiet = 0
                continue
            quiet += 1
            if quiet >= 3:
                return datetime.now(UTC)
        return None

    async def _is_quiet(self) -> bool:
        try:
            await self._witness()
            busy = await self._one(
                """SELECT (SELECT count(*) FROM executions
                           WHERE state = ANY ($1::text[]) AND NOT (kind = 'rollback' AND state = 'applied'))
                        + (SELECT count(*) FROM outbox WHERE state = 'pending')
                        + (SELECT count(*) FROM incidents
                           WHERE state IN ('open', 'diagnosing', 'mitigating', 'verifying'))
                        + (SELECT count(*) FROM plans WHERE state = 'proposed' AND expires_at < clock_timestamp())""",
                list(OPEN),
            )
        except AWAY:
            return False
        return bool(busy == 0)

    async def _witness(self) -> None:
        """Notes the heads of the chains as they are now."""
        with suppress(*AWAY):
            rows = await self._sql.rows("SELECT incident_id, seq, hash FROM trace_heads")
            for row in rows:
                seen = (int(row["incident_id"]), int(row["seq"]), str(row["hash"]))
                if seen not in self._heads:
                    self._heads.append(seen)

    async def _one(self, statement: str, *arguments: Any) -> Any:
        return await self._sql.value(statement, *arguments)

    async def _feed(self) -> None:
        """Samples of the series in trouble, and of what a canary is judged by, straight into the database."""
        while True:
            after = bool(self._recorder.effects)
            memory = 0.46 if after and self._plan.recovers else 0.93
            with suppress(*AWAY):
                await self._one(
                    """INSERT INTO samples (service, signal, instance, at, value)
                       VALUES ('checkout', 'memory_ratio', 'checkout-1', clock_timestamp(), $1),
                              ('checkout', 'error_ratio', '', clock_timestamp(), 0.001),
                              ('checkout', 'latency_p99', '', clock_timestamp(), 0.1),
                              ('checkout', 'traffic', '', clock_timestamp(), 20.0) ON CONFLICT DO NOTHING""",
                    memory,
                )
            await asyncio.sleep(FEED_S)


async def _cancelled(task: asyncio.Task[None]) -> None:
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task
