"""The local Slack with the real Bolt app connected to it, and a desk that records: for tests of the Slack front."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import aiohttp
from slack_sdk.web.async_client import AsyncWebClient

from bot.demo.slack.manifest import read_manifest
from bot.demo.slack.person import Person
from bot.demo.slack.server import LocalSlack
from bot.slack.access import Access, AccessPolicy
from bot.slack.app import build_app, start_socket
from bot.slack.client import identify, make_client
from bot.slack.publisher import SlackPublisher
from pipeline.domain.ids import IncidentId, OutboxId
from pipeline.domain.notice import CardNotice, ThreadNotice
from pipeline.ports.outbox import OutboxRow
from pipeline.ports.store import CardPlace, Store
from pipeline.stages.desk import Desk
from tests.builders import INCIDENT
from tests.desk_double import DeskDouble

BOT_TOKEN, APP_TOKEN, SIGNING_SECRET = "xoxb-local", "xapp-local", "local-signing-secret"
CHANNEL = "C0INCIDENTS"
MANIFEST = Path(__file__).parent.parent / "manifest.yml"
WAIT_S = 20.0


@dataclass
class CardPlaces:
    """The one part of a store that the publisher writes: where cards stand."""

    places: dict[IncidentId, CardPlace] = field(default_factory=dict)

    @asynccontextmanager
    async def begin(self) -> AsyncIterator[CardPlaces]:
        yield self

    @property
    def incidents(self) -> CardPlaces:
        return self

    async def card(self, incident_id: IncidentId) -> CardPlace | None:
        return self.places.get(incident_id)

    async def set_card(self, incident_id: IncidentId, place: CardPlace | None) -> None:
        if place is None:
            self.places.pop(incident_id, None)
        else:
            self.places[incident_id] = place


@dataclass
class Stage:
    """Everything on it, running."""

    slack: LocalSlack
    client: AsyncWebClient
    desk: DeskDouble
    store: CardPlaces
    publisher: SlackPublisher

    def person(self, user_id: str) -> Person:
        return Person(self.slack.base_url, user_id)

    async def trouble(self, **what: Any) -> None:
        async with (
            aiohttp.ClientSession() as http,
            http.post(f"{self.slack.base_url}/local/trouble", json=what) as answer,
        ):
            answer.raise_for_status()

    async def post_card(self) -> str:
        """Publishes the desk's case and returns the card's ts."""
        await self.publisher.publish(card_row())
        place = self.store.places[INCIDENT]
        self.desk.cards[place.channel, place.ts] = INCIDENT
        return place.ts


def card_row(number: int = 1, **changes: Any) -> OutboxRow:
    values = {"incident_id": INCIDENT, "notice": CardNotice(), "attempts": 1, "in_doubt": False, **changes}
    return OutboxRow(id=OutboxId(number), **values)


def thread_row(number: int, notice: ThreadNotice, **changes: Any) -> OutboxRow:
    return card_row(number, notice=notice, **changes)


@asynccontextmanager
async def stage(*, connected: bool = True, **slack_options: Any) -> AsyncIterator[Stage]:
    """A started local Slack; with ``connected`` the app listens by Socket Mode."""
    slack = LocalSlack(
        data_dir=None,
        bot_token=BOT_TOKEN,
        app_token=APP_TOKEN,
        signing_secret=SIGNING_SECRET,
        manifest=read_manifest(MANIFEST),
        processing_s=0.05,
        **slack_options,
    )
    await slack.start()
    desk, store = DeskDouble(), CardPlaces()
    client = make_client(BOT_TOKEN, slack.api_url)
    publisher = SlackPublisher(client, cast(Desk, desk), cast(Store, store), CHANNEL, post_every_s=0.0)
    on_stage = Stage(slack, client, desk, store, publisher)
    try:
        if not connected:
            yield on_stage
            return
        identity = await identify(client)
        policy = AccessPolicy(identity.team_id, frozenset({"U0ALICE"}), "S0SRE")
        app = build_app(
            client=client, desk=cast(Desk, desk), access=Access(client, policy), identity=identity, command="/sre"
        )
        handler = await start_socket(app, APP_TOKEN)
        try:
            async with on_stage.person("U0ALICE") as alice:
                await alice.wait_for(lambda state: state["bot"]["connected"], WAIT_S)
            yield on_stage
        finally:
            await handler.close_async()  # type: ignore[no-untyped-call]
    finally:
        await slack.stop()
