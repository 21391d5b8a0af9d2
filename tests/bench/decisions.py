"""The decision path: clicks at a steady rate through the real Bolt app over signed HTTP, and one card clicked often.

Slack's side is a server that answers at once, the target one that answers after ``READ_S``: what is measured is the
bot. Clicks are sent when they are due, whether earlier ones were answered or not, and timed from then.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
import os
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any, cast
from urllib.parse import urlencode

import aiohttp
from aiohttp import web
from slack_bolt.async_app import AsyncAck

from bot.catalogue import CatalogueFile
from bot.embedded.postgres import EmbeddedPostgres
from bot.slack import names
from bot.slack.access import Access, AccessPolicy
from bot.slack.app import build_app, http_handler
from bot.slack.client import BotIdentity, make_client
from executors.targets.registry import Registry
from migrations.runner import migrate
from pipeline.adapters.postgres.pool import Pool
from pipeline.adapters.postgres.unit_of_work import PostgresStore
from pipeline.domain.action import Action, Operation
from pipeline.domain.approval import default_rules
from pipeline.domain.capability import Declaration, RightCheck
from pipeline.domain.catalogue import WorkloadAddress
from pipeline.domain.execution import Finding, Intent
from pipeline.domain.ids import ServiceName
from pipeline.domain.plan import InstanceState, TargetRef, TargetState
from pipeline.ports.clock import SystemClock
from pipeline.ports.store import CardPlace
from pipeline.ports.targets import Target
from pipeline.stages.decide import Decider
from pipeline.stages.desk import Desk
from pipeline.stages.settings import LoopSettings
from tests.builders import BOTH, make_target
from tests.databases import open_directory
from tests.serving import serving
from tests.stored import Waiting, awaiting

SECONDS = float(os.environ.get("BENCH_SECONDS", "120"))
RATE, CARDS, DUPLICATES, AT_ONCE = 50, 50, 1000, 50
READ_S = 0.02
TEAM, CHANNEL, SECRET = "T0LOCAL", "C0INCIDENTS", "bench"
ACK_ONLY = "bench_ack_only"
PEOPLE = [f"U{number:05}" for number in range(10_000)]

Send = Callable[[int], Awaitable[tuple[int, float]]]


def run() -> None:
    """Prints time to the ack at ``RATE`` clicks/s, beside clicks that decide nothing, and what 1,000 duplicates did."""
    asyncio.run(_run())


class Answering(Target):
    """checkout with three replicas, as the plans were made for; reading it takes ``READ_S``."""

    platform = "kubernetes"

    def __init__(self, read_s: float = READ_S) -> None:
        self._read_s = read_s
        self.applied: list[float] = []
        """When writes came, by the monotonic clock."""

    def declares(self) -> Declaration:
        return BOTH

    async def check(self, ref: TargetRef) -> tuple[RightCheck, ...]:
        return ()

    async def resolve(self, address: WorkloadAddress) -> TargetRef:
        del address
        return make_target()

    async def observe(self, ref: TargetRef) -> TargetState:
        await asyncio.sleep(self._read_s)
        replicas = tuple(InstanceState(f"{ref.name}-{one}", f"uid-{ref.name}-{one}", True) for one in range(1, 4))
        return TargetState(ref, "12", 3, replicas)

    async def apply(self, ref: TargetRef, operation: Operation, intent: Intent) -> str:
        del ref, operation, intent
        self.applied.append(time.monotonic())
        await asyncio.sleep(self._read_s)
        return "done"

    async def calls(self, ref: TargetRef, operation: Operation, generation: str) -> tuple[str, ...]:
        del ref, operation, generation
        return ()

    async def settled(self, ref: TargetRef, operation: Operation) -> bool:
        del ref, operation
        return True

    async def find(self, ref: TargetRef, operation: Operation, intent: Intent) -> Finding:
        del ref, operation, intent
        return Finding.APPLIED

    def command(self, ref: TargetRef, action: Action) -> str:
        del ref, action
        return ""

    async def close(self) -> None:
        return


async def slack_answers(request: web.Request) -> web.Response:
    """A workspace in which everybody is a member of the approvers' group."""
    method = request.match_info["method"]
    asked = {**request.query, **await request.post()}
    if method == "users.info":
        return web.json_response({"ok": True, "user": {"id": asked["user"], "team_id": TEAM}})
    if method == "usergroups.users.list":
        return web.json_response({"ok": True, "users": PEOPLE})
    return web.json_response({"ok": True, "message_ts": "1.1", "view": {"id": "V1"}})


@asynccontextmanager
async def database() -> AsyncIterator[tuple[Pool, PostgresStore]]:
    """A migrated PostgreSQL of its own, and the store on a pool of the usual size."""
    with open_directory() as directory:
        server = EmbeddedPostgres(directory)
        url = await server.start()
        await migrate(url)
        pool = Pool(url)
        try:
            yield pool, PostgresStore(pool)
        finally:
            await pool.close()
            await server.stop()


async def _run() -> None:
    async with database() as (_, store):
        settings = LoopSettings(approvals=default_rules(1, (), ["S0SRE"]))
        targets = Registry({"kubernetes": Answering()})
        source, clock, nothing = CatalogueFile(None), SystemClock(), cast(Any, None)
        decider = Decider(store, targets, source, clock, settings)
        desk = Desk(
            store, targets, source.current(), nothing, nothing, nothing, nothing, decider, clock, settings, (),
            command="/sre",
        )  # fmt: skip
        cards = [await _card(store, number, approvals_needed=len(PEOPLE)) for number in range(CARDS)]
        one = await _card(store, CARDS, approvals_needed=1)
        async with (
            serving(lambda app: app.router.add_route("*", "/api/{method}", slack_answers) and None) as slack_url,
            aiohttp.ClientSession() as http,
        ):
            client = make_client("xoxb-bench", f"{slack_url}/api/")
            access = Access(client, AccessPolicy(TEAM, frozenset(), "S0SRE"))
            bolt = build_app(
                client=client, desk=desk, access=access, identity=BotIdentity(TEAM, "U0BOT", "B0BOT"),
                signing_secret=SECRET,
            )  # fmt: skip

            @bolt.action(ACK_ONLY)
            async def only(ack: AsyncAck) -> None:
                await ack()

            handler = http_handler(bolt, desk, SECRET)
            async with serving(lambda app: app.router.add_post("/slack/events", handler) and None) as url:
                send = _Sender(http, f"{url}/slack/events")
                await asyncio.gather(*(send.click(cards[at % CARDS], at, names.APPROVE, "9") for at in range(10)))
                plain = await _steady(lambda at: send.click(cards[at % CARDS], at, ACK_ONLY, "0"))
                decided = await _steady(lambda at: send.click(cards[at % CARDS], at, names.APPROVE, "0"))
                await _thousand(store, send, one)
        async with store.begin() as uow:
            words = sum([len(await uow.plans.approvals(card.plan.id)) for card in cards])
    _tell("only acknowledged", plain)
    _tell("decided on", decided)
    print(f"   {words - 10} of {len(decided)} clicks stand as approvals (10 more warmed up)")
    print(f"   p99 of a decision {_p(decided, 0.99) / _p(plain, 0.99):.1f}x that of a bare ack")


async def _card(store: PostgresStore, number: int, *, approvals_needed: int) -> Waiting:
    waiting = await awaiting(store, service=ServiceName(f"shop-{number}"), approvals_needed=approvals_needed)
    async with store.begin() as uow:
        await uow.incidents.set_card(waiting.incident.id, CardPlace(CHANNEL, f"{number}.1"))
    return waiting


class _Sender:
    """Signs and posts clicks as Slack does."""

    def __init__(self, http: aiohttp.ClientSession, url: str) -> None:
        self._http = http
        self._url = url
        self.statuses: Counter[int] = Counter()

    async def click(self, card: Waiting, at: int, action_id: str, trigger: str) -> tuple[int, float]:
        """The status, and seconds until it came."""
        began = time.perf_counter()
        user = PEOPLE[(int(trigger) * 5000 + at // CARDS) % len(PEOPLE)] if trigger.isdigit() else trigger
        payload = {
            "type": "block_actions",
            "team": {"id": TEAM},
            "user": {"id": user, "team_id": TEAM},
            "trigger_id": f"{trigger}.{at}",
            "channel": {"id": CHANNEL},
            "message": {"ts": f"{card.incident.service.removeprefix('shop-')}.1"},
            "actions": [{"action_id": action_id, "block_id": "b", "type": "button", "value": card.plan.token}],
        }
        body = urlencode({"payload": json.dumps(payload)})
        stamp = str(int(time.time()))
        digest = hmac.new(SECRET.encode(), f"v0:{stamp}:{body}".encode(), hashlib.sha256).hexdigest()
        headers = {
            "Content-Type": "application/x-www-form-urlencoded",
            "X-Slack-Request-Timestamp": stamp,
            "X-Slack-Signature": f"v0={digest}",
        }
        async with self._http.post(self._url, data=body, headers=headers) as answer:
            await answer.read()
        self.statuses[answer.status] += 1
        return answer.status, time.perf_counter() - began


async def _steady(send: Send) -> list[float]:
    """Seconds to the ack of each click; one that was not acknowledged counts as Slack's 3 s and more."""
    loop = asyncio.get_running_loop()
    began, sent = loop.time(), []
    for at in range(int(SECONDS * RATE)):
        due = began + at / RATE
        await asyncio.sleep(max(0.0, due - loop.time()))
        sent.append(asyncio.create_task(_timed(send, at, late_s=loop.time() - due)))
    return list(await asyncio.gather(*sent))


async def _timed(send: Send, at: int, *, late_s: float) -> float:
    status, took_s = await send(at)
    return late_s + (took_s if status == 200 else max(took_s, 3.0))


async def _thousand(store: PostgresStore, send: _Sender, card: Waiting) -> None:
    room = asyncio.Semaphore(AT_ONCE)

    async def click(at: int) -> None:
        async with room:
            await send.click(card, at, names.APPROVE, f"U{at % 10:05}")

    began = time.perf_counter()
    await asyncio.gather(*(click(at) for at in range(DUPLICATES)))
    took_s = time.perf_counter() - began
    async with store.begin() as uow:
        approvals = await uow.plans.approvals(card.plan.id)
        case = await uow.incidents.case(card.incident.id)
    executions = int(case is not None and case.execution is not None)
    print(
        f"   {DUPLICATES} clicks of 10 people on one card in {took_s:.1f} s: {len(approvals)} approval,"
        f" {executions} execution (wanted: exactly 1)"
    )


def _tell(what: str, took_s: Sequence[float]) -> None:
    within = sum(one < 1.0 for one in took_s) / len(took_s)
    print(
        f"   {RATE} clicks/s for {SECONDS:.0f} s, {what:17} ack p50 {1000 * _p(took_s, 0.5):4.0f} ms,"
        f" p99 {1000 * _p(took_s, 0.99):5.0f} ms, {within:.1%} within 1 s (wanted: p99 < 1 s)"
    )


def _p(values: Sequence[float], share: float) -> float:
    return sorted(values)[max(0, round(share * len(values)) - 1)]
