"""Clicks of all sorts of people through the real Bolt app, with the real desk and store behind it."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from slack_bolt.async_app import AsyncApp
from slack_bolt.request.async_request import AsyncBoltRequest

from bot.catalogue import CatalogueFile
from bot.slack import names
from bot.slack.access import Access, AccessPolicy
from bot.slack.app import build_app
from bot.slack.client import BotIdentity, make_client
from executors.targets.registry import Registry
from pipeline.adapters.postgres.pool import Connection
from pipeline.adapters.postgres.unit_of_work import PostgresStore
from pipeline.domain.action import InstanceRef, RestartAction
from pipeline.domain.approval import default_rules
from pipeline.domain.ids import ServiceName
from pipeline.domain.lifecycle import IncidentState
from pipeline.domain.trace import TraceKind
from pipeline.ports.clock import SystemClock
from pipeline.ports.store import CardPlace
from pipeline.stages.decide import Decider
from pipeline.stages.desk import Desk
from pipeline.stages.settings import LoopSettings
from tests.builders import ALICE, WEB
from tests.contract.targets.places import KubePlace
from tests.stored import Waiting, awaiting, case_of

TEAM, CHANNEL = "T0LOCAL", "C0INCIDENTS"
SETTINGS = LoopSettings(approvals=default_rules(2, ["U0ALICE", "U0GUEST", "U0GONE", "U0APP", "U0FAR"], ["S0SRE"]))
POLICY = "approvals:\n  - {severities: [sev2], people: 2, users: [U0CTO], groups: [S0LEADS]}\n"
PEOPLE: dict[str, dict[str, Any]] = {
    "U0ALICE": {},
    "U0BOB": {},
    "U0CTO": {},
    "U0DAN": {},
    "U0GUEST": {"is_restricted": True},
    "U0GONE": {"deleted": True},
    "U0APP": {"is_bot": True},
    "U0FAR": {"team_id": "T0OTHER"},
}


@dataclass
class SlackServer:
    """Answers what listeners ask, and keeps what people are shown."""

    groups: dict[str, list[str]] = field(default_factory=lambda: {"S0SRE": ["U0BOB"], "S0LEADS": []})
    group_error: str = ""
    whispers: list[tuple[str, str]] = field(default_factory=list)
    views: list[dict[str, Any]] = field(default_factory=list)

    async def answer(self, request: web.Request) -> web.Response:
        method = request.match_info["method"]
        asked: dict[str, Any] = {**request.query, **await request.post()}
        if request.content_type == "application/json":
            asked |= await request.json()
        if method == "users.info":
            user = PEOPLE.get(asked["user"])
            if user is None:
                return web.json_response({"ok": False, "error": "user_not_found"})
            return web.json_response({"ok": True, "user": {"id": asked["user"], "team_id": TEAM, **user}})
        if method == "usergroups.users.list":
            if self.group_error:
                return web.json_response({"ok": False, "error": self.group_error})
            return web.json_response({"ok": True, "users": self.groups[asked["usergroup"]]})
        if method == "chat.postEphemeral":
            self.whispers.append((asked["user"], asked["text"]))
        if method == "views.open":
            self.views.append(json.loads(asked["view"]) if isinstance(asked["view"], str) else asked["view"])
        return web.json_response({"ok": True, "message_ts": "1.1", "view": {"id": "V1"}})


@dataclass
class Room:
    """A card with a proposal that waits, and everybody who may click on it."""

    store: PostgresStore
    sql: Connection
    place: KubePlace
    slack: SlackServer
    app: AsyncApp
    waiting: Waiting
    other: Waiting

    async def click(
        self, user: str, action_id: str = names.APPROVE, value: str = "", *, team: str = TEAM, ts: str = "1.1"
    ) -> tuple[int, str]:
        """The status that Slack is answered, and what the person was shown."""
        seen = len(self.slack.whispers)
        menu = {"selected_option": {"value": value}} if action_id == names.MORE else {"value": value}
        body = {
            "type": "block_actions",
            "team": {"id": TEAM},
            "user": {"id": user, "team_id": team},
            "trigger_id": "1.2.3",
            "channel": {"id": CHANNEL},
            "message": {"ts": ts},
            "actions": [{"action_id": action_id, "block_id": "b", "type": "button", **menu}],
        }
        answer = await self.app.async_dispatch(AsyncBoltRequest(body=json.dumps(body), mode="socket_mode"))
        told = [text for who, text in self.slack.whispers[seen:] if who == user]
        assert len(told) == len(self.slack.whispers[seen:]), "nobody else sees it"
        return answer.status, "\n".join(told)

    async def approve(self, user: str, **more: Any) -> str:
        status, told = await self.click(user, value=self.waiting.plan.token, **more)
        assert status == 200
        return told

    async def denied(self, waiting: Waiting | None = None) -> list[str]:
        async with self.store.begin() as uow:
            trail = await uow.trace.read((waiting or self.waiting).incident.id)
        return [one.entry.summary for one in trail if one.entry.kind is TraceKind.DENIED]

    async def decided(self) -> tuple[int, int]:
        """How many words on any plan there are, and how many executions."""
        approvals = await self.sql.fetchval("SELECT count(*) FROM approvals")
        return approvals, await self.sql.fetchval("SELECT count(*) FROM executions")


@pytest.fixture
async def room(store: PostgresStore, place: KubePlace, sql: Connection, tmp_path: Path) -> AsyncIterator[Room]:
    ref = await place.target.resolve(place.address)
    state = await place.target.observe(ref)
    first = state.instances[0]
    seen: dict[str, Any] = {
        "action": RestartAction(instances=(InstanceRef(name=first.name, uid=first.uid),)),
        "target": ref,
        "generation": state.generation,
        "replicas_before": state.replicas,
        "target_revision": state.revision,
        "approvals_needed": 2,
    }
    waiting, other = await awaiting(store, **seen), await awaiting(store, service=ServiceName(WEB), **seen)
    async with store.begin() as uow:
        await uow.incidents.set_card(waiting.incident.id, CardPlace(CHANNEL, "1.1"))
        await uow.incidents.set_card(other.incident.id, CardPlace(CHANNEL, "2.2"))
    targets = Registry({"kubernetes": place.target})
    path = tmp_path / "services.yaml"
    source = CatalogueFile(path if path.exists() else None)
    decider = Decider(store, targets, source, SystemClock(), SETTINGS)
    nothing = cast(Any, None)  # parts of the desk that no decision needs
    parts = (nothing, nothing, nothing, nothing, decider, SystemClock(), SETTINGS, ())
    desk = Desk(store, targets, source.current(), *parts, command="/sre")
    slack = SlackServer()
    web_app = web.Application()
    web_app.router.add_route("*", "/api/{method}", slack.answer)
    async with TestServer(web_app) as server:
        client = make_client("xoxb-test", str(server.make_url("/api/")))
        access = Access(client, AccessPolicy(TEAM, frozenset({"U0ALICE"}), "S0SRE"))
        app = build_app(client=client, desk=desk, access=access, identity=BotIdentity(TEAM, "U0BOT", "B0BOT"))
        app.listener_runner.process_before_response = True  # the answer comes when the listener is through
        yield Room(store, sql, place, slack, app, waiting, other)


@pytest.fixture
def _leads_decide(tmp_path: Path) -> None:
    (tmp_path / "services.yaml").write_text(POLICY)


async def test_one_of_the_list_and_one_of_the_group_approve_it(room: Room) -> None:
    assert await room.approve("U0ALICE") == ""
    assert "You have approved this already; another person has to" in await room.approve("U0ALICE")
    assert await room.decided() == (1, 0)
    assert await room.approve("U0BOB") == ""
    assert await room.decided() == (2, 1)
    assert await room.approve("U0ALICE") == "Too late: already approved by <@U0BOB>."
    assert await room.decided() == (2, 1)
    again = "You have approved this already; another person has to."
    assert await room.denied() == [f"approval by {ALICE} refused: {again}"]


async def test_everybody_else_is_told_why_not_and_stands_in_the_trail(room: Room) -> None:
    plan = f"approve plan {room.waiting.plan.id}"
    for user, why in (
        ("U0DAN", "you are neither on the list nor in the user group of approvers"),
        ("U0GUEST", "guests may not do this"),
        ("U0GONE", "this account is deactivated"),
        ("U0APP", "apps may not do this"),
        ("U0FAR", "people of other workspaces may not do this"),
        ("U0NOBODY", "Slack could not tell who you are (user_not_found), so nothing is done. Try again in a minute"),
    ):
        assert await room.approve(user) == f"🔒 You may not decide: {why}. Nothing was changed."
        assert (await room.denied())[-1] == f"{plan} by {user} denied: {why}"
    told = await room.approve("U0ALICE", team="T0OTHER")
    assert "people of other workspaces" in told
    assert len(await room.denied()) == 7
    assert await room.decided() == (0, 0)


async def test_a_group_that_cannot_be_read_lets_nobody_in(room: Room) -> None:
    for number, error in enumerate(("ratelimited", "missing_scope", "internal_error"), start=1):
        room.slack.group_error = error
        assert f"Slack could not tell who you are ({error})" in await room.approve("U0BOB")
        assert len(await room.denied()) == number
    assert await room.decided() == (0, 0)
    assert await room.approve("U0ALICE") == "", "who is on the list needs no group"


async def test_who_asked_for_the_plan_does_not_approve_it(room: Room) -> None:
    await room.sql.execute("UPDATE plans SET requested_by = 'U0ALICE'")
    assert await room.approve("U0ALICE") == "You asked for this plan: somebody else has to approve it."
    assert len(await room.denied()) == 1
    assert await room.decided() == (0, 0)


@pytest.mark.usefixtures("_leads_decide")
async def test_the_rule_of_the_severity_says_who(room: Room) -> None:
    room.slack.groups["S0LEADS"] = ["U0DAN"]
    for user in ("U0ALICE", "U0BOB"):
        assert "You may not decide" in await room.approve(user), "approvers elsewhere, not at SEV2"
    assert await room.decided() == (0, 0)
    assert await room.approve("U0CTO") == ""
    assert await room.approve("U0DAN") == ""
    assert await room.decided() == (2, 1)


async def test_a_stale_or_tampered_button_decides_nothing(room: Room) -> None:
    for action_id in (names.APPROVE, names.REJECT):
        status, told = await room.click("U0ALICE", action_id, str(room.waiting.plan.id))
        assert (status, told) == (200, "This button is from an older version of the card.")
        for value in ("0" * 32, room.other.plan.token):
            status, told = await room.click("U0ALICE", action_id, value)
            assert (status, told) == (200, "This proposal is not known here. Nothing was changed.")
    assert len(await room.denied()) == 4
    assert await room.decided() == (0, 0)
    assert room.slack.views == []


async def test_a_menu_acts_on_the_incident_of_its_card_only(room: Room) -> None:
    status, told = await room.click("U0DAN", names.MORE, f"close:{room.other.incident.id}")
    assert (status, told) == (200, "This button is from an older version of the card.")
    other = await case_of(room.store, room.other.incident.id)
    assert other.incident.state is IncidentState.AWAITING_DECISION
    assert len(await room.denied()) == 1
    await room.click("U0DAN", names.MORE, f"close:{room.other.incident.id}", ts="2.2")
    other = await case_of(room.store, room.other.incident.id)
    assert other.incident.state is IncidentState.CLOSED


async def test_what_changed_is_shown_to_who_clicked_and_in_the_thread(room: Room) -> None:
    await room.place.scale_by_another(room.waiting.plan.target, 3)  # type: ignore[arg-type]
    told = await room.approve("U0ALICE")
    assert told == "Not carried out, the target has changed: replicas 2 → 3, generation 1 → 2. A new proposal follows."
    case = await case_of(room.store, room.waiting.incident.id)
    assert case.incident.state is IncidentState.DIAGNOSING, "a new proposal is on its way"
    assert await room.decided() == (0, 0)
    texts = await room.sql.fetch("SELECT payload ->> 'text' AS text FROM outbox WHERE kind = 'thread'")
    assert any("replicas 2 → 3, generation 1 → 2" in row["text"] for row in texts)


async def test_rejecting_takes_the_same_rights(room: Room) -> None:
    await room.click("U0GUEST", names.REJECT, room.waiting.plan.token)
    assert room.slack.views == []
    await room.click("U0ALICE", names.REJECT, room.waiting.plan.token)
    (view,) = room.slack.views
    assert view["private_metadata"] == room.waiting.plan.token

    async def submit(user: str) -> str:
        typed = {names.REASON_BLOCK: {names.TYPED: {"type": "plain_text_input", "value": "deploy running"}}}
        body = {
            "type": "view_submission",
            "team": {"id": TEAM},
            "user": {"id": user, "team_id": TEAM},
            "view": {**view, "id": "V1", "state": {"values": typed}},
        }
        answer = await room.app.async_dispatch(AsyncBoltRequest(body=json.dumps(body), mode="socket_mode"))
        return answer.body

    assert "You may not decide: guests may not do this" in await submit("U0GUEST")
    assert await room.decided() == (0, 0)
    await submit("U0ALICE")
    assert await room.decided() == (1, 0)
    case = await case_of(room.store, room.waiting.incident.id)
    assert case.incident.outcome == f"rejected by <@{ALICE}>: deploy running"
    assert [summary.split(" by ")[0] for summary in await room.denied()] == [f"reject plan {room.waiting.plan.id}"] * 2
