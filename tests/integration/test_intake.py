"""What others tell: through the signed door onto a real Redis, from there once into the real store."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from bot.intake import MAX_BODY_BYTES, Door
from bot.redacting import redact
from pipeline.adapters.postgres.unit_of_work import PostgresStore
from pipeline.adapters.redis import bus as redis_bus
from pipeline.adapters.redis.bus import RedisBus
from pipeline.domain.changes import ChangeKind
from pipeline.domain.errors import TemporaryError
from pipeline.domain.ids import ServiceName
from pipeline.ports.bus import BusEvent
from pipeline.ports.trail import SYSTEM
from pipeline.stages.intake import TOPIC, Intake
from tests.serving import serving
from tests.stored import opened

TOKEN = "a-token-of-the-pipelines"
SHOP = ServiceName("checkout")
AT = "2026-11-23T12:00:00+01:00"
CHANGE = {"service": SHOP, "revision": "3f2a91c", "at": AT, "title": "raise pool size", "author": "alice"}
ALERT = {
    "status": "firing",
    "labels": {"alertname": "CheckoutMemoryHigh", "service": SHOP, "severity": "page"},
    "annotations": {"summary": "memory of checkout is high, password=hunter2hunter2"},
    "startsAt": "2026-11-23T11:00:00.123456789Z",
    "endsAt": "0001-01-01T00:00:00Z",
    "fingerprint": "00ff",
    "generatorURL": "http://prometheus:9090/graph",
}


@dataclass
class Outside:
    """Somebody who knows the address, and what stands behind it."""

    url: str
    bus: RedisBus
    intake: Intake
    store: PostgresStore

    async def post(self, path: str, body: Any, **headers: str) -> tuple[int, str]:
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        async with (
            aiohttp.ClientSession() as session,
            session.post(f"{self.url}/intake/{path}", data=data, headers=headers) as answer,
        ):
            return answer.status, await answer.text()

    async def trusted(self, path: str, body: Any, **headers: str) -> tuple[int, str]:
        return await self.post(path, body, Authorization=f"Bearer {TOKEN}", **headers)

    async def taken_in(self) -> int:
        """New events until there are no more."""
        total, quiet = 0, 0
        while quiet < 2:
            new = await self.intake.run_once()
            total, quiet = total + new, 0 if new else quiet + 1
        return total


@pytest.fixture
async def outside(store: PostgresStore, redis_url: str, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Outside]:
    monkeypatch.setattr(redis_bus, "_BLOCK_MS", 20)
    bus = RedisBus(redis_url)
    async with at_the_door(bus, TOKEN) as url:
        yield Outside(url, bus, Intake(store, bus, redact, worker="one"), store)
    await bus.close()


def at_the_door(bus: RedisBus, token: str | None) -> AbstractAsyncContextManager[str]:
    """The URL of the door alone."""
    door = Door(bus, token)

    def add(app: web.Application) -> None:
        app.router.add_post("/intake/changes", door.changes)
        app.router.add_post("/intake/alerts", door.alerts)

    return serving(add)


class Impatient:
    """The bus of a replica that waits for nobody."""

    def __init__(self, bus: RedisBus) -> None:
        self._bus = bus
        self.publish, self.listen, self.done = bus.publish, bus.listen, bus.done

    async def take(self, topic: str, *, group: str, consumer: str, idle_s: float) -> Sequence[BusEvent]:
        events = await self._bus.take(topic, group=group, consumer=consumer, idle_s=0.0)
        assert events, "nothing was left open"
        return events


async def changes(store: PostgresStore) -> list[tuple[str, ChangeKind, str, str]]:
    async with store.begin() as uow:
        found = await uow.telemetry.changes(datetime(2026, 11, 1, tzinfo=UTC))
    return [(one.service, one.kind, one.revision, one.author) for one in found]


async def test_a_change_is_taken_in_once_however_often_it_is_told(outside: Outside) -> None:
    for _ in range(3):
        assert await outside.trusted("changes", CHANGE) == (202, '{"accepted": 1}')
    assert await outside.taken_in() == 1
    assert await changes(outside.store) == [(SHOP, ChangeKind.DEPLOYMENT, "3f2a91c", "alice")]


async def test_the_senders_key_tells_what_is_the_same(outside: Outside) -> None:
    later = {**CHANGE, "title": "the same, told in other words"}
    for body in (CHANGE, later):
        assert (await outside.trusted("changes", [body, {**body, "revision": "b"}], **{"Idempotency-Key": "run 7"}))[
            0
        ] == 202
    assert await outside.taken_in() == 2


async def test_an_event_that_is_delivered_again_after_its_effect_counts_once(outside: Outside) -> None:
    """The replica dies between its commit and its word to the bus."""

    async def cut(topic: str, *, group: str, event_id: str) -> None:
        raise TemporaryError("the connection broke")

    await outside.trusted("changes", CHANGE)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(outside.bus, "done", cut)
        with pytest.raises(TemporaryError):
            await outside.taken_in()
    assert len(await changes(outside.store)) == 1
    another = Intake(outside.store, Impatient(outside.bus), redact, worker="two")
    assert await another.run_once() == 0  # it came, and was known
    assert await outside.bus.take(TOPIC, group="sre-bot", consumer="three", idle_s=0.0) == []


async def test_alerts_of_alertmanager_are_kept_and_end(outside: Outside) -> None:
    unnamed = {**ALERT, "labels": {"alertname": "Watchdog"}}
    body = {"version": "4", "status": "firing", "alerts": [ALERT, unnamed]}
    assert await outside.trusted("alerts", body) == (202, '{"accepted": 1, "left_out": 1}')
    over = {**ALERT, "status": "resolved", "endsAt": "2026-11-23T11:30:00Z"}
    await outside.trusted("alerts", {"alerts": [over]})
    assert await outside.taken_in() == 2
    async with outside.store.begin() as uow:
        (kept,) = await uow.intake.alerts(SHOP, datetime(2026, 11, 23, tzinfo=UTC))
    assert (kept.name, kept.ended_at) == ("CheckoutMemoryHigh", datetime(2026, 11, 23, 11, 30, tzinfo=UTC))
    assert "hunter2" not in kept.summary


async def test_an_incident_finds_the_alerts_around_it(outside: Outside) -> None:
    incident = await opened(outside.store, service=SHOP)
    now = incident.opened_at
    for name, at, service in (
        ("MemoryHigh", now - timedelta(minutes=5), SHOP),
        ("MemoryHigh", now - timedelta(minutes=4), SHOP),
        ("Elsewhere", now, "payments"),
    ):
        labels = {"alertname": name, "app": service, "at": str(at)}
        await outside.trusted(
            "alerts", {"alerts": [{"status": "firing", "labels": labels, "startsAt": at.isoformat()}]}
        )
    assert await outside.taken_in() == 3
    assert await outside.intake.alerts_around(incident) == ("MemoryHigh",)


def signature(body: bytes, token: str = TOKEN) -> str:
    return "sha256=" + hmac.new(token.encode(), body, hashlib.sha256).hexdigest()


async def test_a_signature_of_the_body_lets_in(outside: Outside) -> None:
    body = json.dumps(CHANGE).encode()
    assert (await outside.post("changes", body, **{"X-Sre-Signature": signature(body)}))[0] == 202


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Authorization": "Bearer "},
        {"Authorization": "Bearer a-token-of-the-pipeline"},
        {"Authorization": f"Basic {TOKEN}"},
        {"X-Sre-Signature": "sha256="},
        {"X-Sre-Signature": signature(b"another body")},
        {"X-Sre-Signature": signature(json.dumps(CHANGE).encode(), "another token, just as long")},
        {"Authorization": "Bearer t\u00f6ken"},
    ],
)
@pytest.mark.parametrize("path", ["changes", "alerts"])
async def test_nobody_else_comes_in(outside: Outside, path: str, headers: dict[str, str]) -> None:
    status, said = await outside.post(path, CHANGE, **headers)
    assert status == 401
    assert TOKEN not in said
    assert await outside.taken_in() == 0


async def test_without_a_token_the_door_is_shut(outside: Outside) -> None:
    async with at_the_door(outside.bus, None) as url:
        shut = Outside(url, outside.bus, outside.intake, outside.store)
        assert await shut.post("changes", CHANGE, Authorization="Bearer ") == (
            403,
            "the intake is shut: set SRE_INTAKE_TOKEN",
        )


@pytest.mark.parametrize(
    ("path", "body", "status", "said"),
    [
        ("changes", b"{", 400, "Invalid JSON"),
        ("changes", {**CHANGE, "at": "yesterday"}, 400, "at"),
        ("changes", {**CHANGE, "at": "2026-11-23T12:00:00"}, 400, "timezone"),
        ("changes", {**CHANGE, "change": "sabotage"}, 400, "'deployment', 'configuration' or 'scaling'"),
        ("changes", {**CHANGE, "service": ""}, 400, "service"),
        ("changes", {**CHANGE, "extra": 1}, 400, "extra"),
        ("changes", {**CHANGE, "title": "a\u0000b"}, 400, "NUL"),
        ("changes", {**CHANGE, "at": "0001-01-01T00:00:00+14:00"}, 400, "year"),
        ("changes", [CHANGE] * 501, 413, "at most 500"),
        ("changes", b" " * (MAX_BODY_BYTES + 1), 413, "Maximum request body size"),
        ("alerts", {"alerts": [{**ALERT, "startsAt": "soon"}]}, 400, "startsAt"),
        ("alerts", {"alerts": [{**ALERT, "fingerprint": "\u0000"}]}, 400, "NUL"),
        ("alerts", {"alerts": [{**ALERT, "startsAt": "0001-01-01T00:00:00+14:00"}]}, 400, "year"),
        ("alerts", {"alerts": [{**ALERT, "labels": {"alertname": "A" * 300, "service": "s"}}]}, 400, "name"),
        ("alerts", {"alerts": [ALERT] * 501}, 400, "alerts"),
    ],
)
async def test_bad_input_is_named_and_nothing_of_it_is_taken(
    outside: Outside, path: str, body: Any, status: int, said: str
) -> None:
    found, text = await outside.trusted(path, body)
    assert (found, said in text) == (status, True), text
    assert await outside.taken_in() == 0


async def test_a_bus_that_is_away_asks_to_be_told_again(outside: Outside, tmp_path: Any) -> None:
    away = RedisBus(f"unix://{tmp_path}/nobody.sock")
    async with at_the_door(away, TOKEN) as url:
        status, said = await Outside(url, away, outside.intake, outside.store).trusted("changes", CHANGE)
    assert (status, "send it again" in said) == (503, True)
    await away.close()


async def test_what_another_agent_wrote_wrongly_is_noted_once_and_holds_nobody_up(outside: Outside) -> None:
    await outside.bus.publish(TOPIC, {"key": "odd", "told": '{"kind": "change"}'})
    await outside.bus.publish(TOPIC, {"key": "odd", "told": '{"kind": "change"}'})
    await outside.trusted("changes", CHANGE)
    assert await outside.taken_in() == 1
    async with outside.store.begin() as uow:
        notes = [one.entry.summary for one in await uow.trace.read(SYSTEM)]
    assert [note for note in notes if "was not understood" in note] == [
        "an event on the bus was not understood and is left out: change.service: Field required"
    ]


async def test_two_replicas_take_each_event_once(outside: Outside) -> None:
    other = Intake(outside.store, outside.bus, redact, worker="two")
    await outside.taken_in()
    for number in range(40):
        await outside.trusted("changes", {**CHANGE, "revision": f"r{number}"})
    counts = {"one": 0, "two": 0}

    async def work(name: str, intake: Intake) -> None:
        while sum(counts.values()) < 40:
            counts[name] += await intake.run_once()

    async with asyncio.timeout(30):
        await asyncio.gather(work("one", outside.intake), work("two", other))
    assert len(await changes(outside.store)) == 40
