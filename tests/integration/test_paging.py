"""From the outbox to PagerDuty over HTTP: in order, again after trouble, and to the end after a restart."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from typing import cast

import pytest
from pydantic import SecretStr

from bot.paging import PagePublisher
from bot.relay import Relay
from pipeline.adapters.notify.pagerduty import PagerDuty
from pipeline.adapters.postgres.pool import Connection, Pool
from pipeline.adapters.postgres.unit_of_work import PostgresStore
from pipeline.domain.errors import TemporaryError
from pipeline.domain.incident import Incident
from pipeline.domain.lifecycle import IncidentState
from pipeline.ports.bus import Bus
from pipeline.ports.outbox import OutboxRow
from pipeline.ports.store import CardPlace
from pipeline.stages.advance import advance
from tests.pagerduty_server import ROUTING_KEY, PagerDutyServer, pagerduty_server
from tests.stored import lapse, opened

STATES = (IncidentState.ESCALATED, IncidentState.DIAGNOSING, IncidentState.AWAITING_DECISION, IncidentState.MITIGATING)


class SlackIsAway:
    async def publish(self, row: OutboxRow) -> None:
        raise TemporaryError("slack away")


class NoBus:
    """Takes everything; nobody listens."""

    async def publish(self, topic: str, fields: Mapping[str, str]) -> None: ...


NO_BUS = cast(Bus, NoBus())


class Replica:
    """A relay with its own connection to PagerDuty; another one stands for the bot after a restart."""

    def __init__(self, store: PostgresStore, server: PagerDutyServer, worker: str = "one") -> None:
        self.pager = PagerDuty(SecretStr(ROUTING_KEY), url=server.url, timeout_s=0.5)
        pages = PagePublisher(store, self.pager, self._permalink, lambda text: text.replace("hunter2", "…"))
        self.relay = Relay(store, SlackIsAway(), NO_BUS, worker=worker, lease_s=60.0, pages=pages)

    async def _permalink(self, place: CardPlace) -> str:
        return f"https://shop.slack.com/archives/{place.channel}/p{place.ts}"

    async def send_all(self, sql: Connection) -> None:
        for _ in range(20):
            await sql.execute("UPDATE outbox SET available_at = clock_timestamp() WHERE kind = 'pager'")
            if not await sql.fetchval("SELECT count(*) FROM outbox WHERE kind = 'pager' AND state = 'pending'"):
                return
            await self.relay.run_once()
        raise AssertionError("the pager's rows do not go out")


@pytest.fixture
async def paged(database_dsn: str) -> AsyncIterator[PostgresStore]:
    pool = Pool(database_dsn, max_size=4)
    await pool.open()
    yield PostgresStore(pool, paging=True)
    await pool.close()


@pytest.fixture
async def server() -> AsyncIterator[PagerDutyServer]:
    async with pagerduty_server() as running:
        yield running


async def go(store: PostgresStore, incident: Incident, *states: IncidentState, outcome: str = "") -> Incident:
    async with store.begin() as uow:
        for state in states:
            moved = await advance(uow, incident, state, outcome=outcome)
            assert moved is not None
            incident = moved
    return incident


async def test_trouble_on_the_way_loses_nothing_and_turns_nothing_around(
    paged: PostgresStore, server: PagerDutyServer, sql: Connection
) -> None:
    """Slack is away all the while, and the bot is started anew before the end."""
    server.trouble.extend(["500", "429", "lost answer", "silence"])
    first, second = Replica(paged, server), Replica(paged, server, "two")
    incident = await opened(paged)
    async with paged.begin() as uow:
        await uow.incidents.set_card(incident.id, CardPlace("C0INCIDENTS", "17"))
    incident = await go(paged, incident, STATES[0], outcome="needs a person, password hunter2")
    await first.send_all(sql)
    assert server.actions == ["trigger", "trigger"], "one answer was lost, so it was said again"
    assert server.requests == 5
    incident = await go(paged, incident, *STATES[1:])
    incident = await go(paged, incident, IncidentState.VERIFYING, IncidentState.RESOLVED, outcome="recovered")
    await first.pager.close()
    await lapse(sql, "outbox")
    await second.send_all(sql)
    await second.pager.close()
    assert server.actions == ["trigger", "trigger", "acknowledge", "resolve"]
    assert list(server.incidents.values()) == ["resolved"], "one incident there for the one here"
    (trigger, *_) = server.events
    summary = f"INC-{incident.id} SEV2 checkout: memory of checkout: needs a person, password …"
    assert trigger["payload"]["summary"] == summary
    assert trigger["links"][0]["href"] == "https://shop.slack.com/archives/C0INCIDENTS/p17"
    assert await sql.fetchval("SELECT count(*) FROM outbox WHERE kind = 'card' AND state = 'pending'") > 0


async def test_what_is_refused_is_set_aside_and_holds_nothing_up(
    paged: PostgresStore, server: PagerDutyServer, sql: Connection
) -> None:
    server.trouble.append("refuse")
    replica = Replica(paged, server)
    incident = await go(paged, await opened(paged), IncidentState.ESCALATED, outcome="needs a person")
    await go(paged, incident, IncidentState.CLOSED)
    await replica.send_all(sql)
    await replica.pager.close()
    rows = await sql.fetch("SELECT state, error FROM outbox WHERE kind = 'pager' ORDER BY id")
    assert [row["state"] for row in rows] == ["dead", "done"]
    assert "400 Event object is invalid; told to refuse" in rows[0]["error"]
    assert server.actions == ["resolve"]


async def test_a_page_of_a_bot_with_a_key_is_set_aside_by_one_without(paged: PostgresStore, sql: Connection) -> None:
    await go(paged, await opened(paged), IncidentState.ESCALATED, outcome="needs a person")
    relay = Relay(paged, SlackIsAway(), NO_BUS, worker="one", lease_s=60.0)
    while await relay.run_once():
        pass
    assert await sql.fetchval("SELECT error FROM outbox WHERE kind = 'pager'") == (
        "no pager is set up here: PAGERDUTY_ROUTING_KEY"
    )
