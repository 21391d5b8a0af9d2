"""Who may say what: a test for each row of the threat table about people, texts and secrets, named after the row."""

from __future__ import annotations

import asyncio
import dataclasses
import io
import json
import logging
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field, replace
from typing import Any, cast

import aiohttp
import pytest
from aiohttp import web

from bot.catalogue import CatalogueFile
from bot.redacting import LEFT_OUT, REDACTOR, RedactingFormatter, clean_entry, redact
from bot.slack import commands, names
from bot.slack.access import Access, AccessPolicy
from bot.slack.app import build_app, http_handler
from bot.slack.cards import render_card
from bot.slack.client import BotIdentity, make_client
from bot.slack.front import Front, text_modal
from bot.slack.thread import render_part
from executors.targets.registry import Registry
from knowledge_base.adapters.web_source import WebSource
from knowledge_base.addresses import HostGuard
from pipeline.adapters.llm.checks import InvalidReply, parse_strictly
from pipeline.adapters.llm.prompts import Wording
from pipeline.adapters.postgres.pool import Connection, Pool
from pipeline.adapters.postgres.unit_of_work import PostgresStore
from pipeline.domain.action import InstanceRef, ScaleAction, ScaleTo
from pipeline.domain.catalogue import WorkloadAddress
from pipeline.domain.diagnosis import Hypothesis
from pipeline.domain.errors import ConfigurationError, PermanentError
from pipeline.domain.ids import IncidentId
from pipeline.domain.notice import ThreadPart
from pipeline.domain.severity import SeverityFacts
from pipeline.domain.trace import TraceEntry, TraceKind
from pipeline.ports.clock import SystemClock
from pipeline.stages.decide import Decider
from pipeline.stages.desk import Desk
from tests.builders import make_case, make_diagnosis, make_evidence, make_passage, make_trace
from tests.contract.targets.places import KubePlace
from tests.injection.attempts import ATTEMPTS, CHANNELS
from tests.injection.outcome import outcome
from tests.integration.test_intake import ALERT, Outside
from tests.integration.test_slack_decisions import CHANNEL, SETTINGS, TEAM, Room
from tests.scenario.test_slack_http import headers
from tests.serving import serving
from tests.slack_stage import SIGNING_SECRET

SECRET = "ghp_" + "a1B2" * 9


def desk_of(room: Room) -> Desk:
    """Another replica's desk on the same database."""
    source, clock, nothing = CatalogueFile(None), SystemClock(), cast(Any, None)
    targets = Registry({"kubernetes": room.place.target})
    decider = Decider(room.store, targets, source, clock, SETTINGS)
    return Desk(
        room.store, targets, source.current(), nothing, nothing, nothing, nothing, decider, clock, SETTINGS, (),
        command="/sre",
    )  # fmt: skip


def handling(**handlers: Any) -> AbstractAsyncContextManager[str]:
    """The URL of a server with each handler at the path of its name."""

    def add(app: web.Application) -> None:
        for name, handler in handlers.items():
            app.router.add_route("*", f"/{name}" + ("/{method}" if name == "api" else ""), handler)

    return serving(add)


@dataclass
class Slack:
    """Says yes to everything, and keeps what it was sent."""

    sent: list[tuple[str, dict[str, Any]]] = field(default_factory=list)

    async def answer(self, request: web.Request) -> web.Response:
        asked: dict[str, Any] = dict(await request.post())
        if request.content_type == "application/json":
            asked |= await request.json()
        self.sent.append((request.match_info["method"], asked))
        return web.json_response({"ok": True, "ts": "1.1", "message_ts": "1.1", "view": {"id": "V1"}})


@pytest.fixture
async def slack() -> AsyncIterator[tuple[Slack, str]]:
    recorded = Slack()
    async with handling(api=recorded.answer) as url:
        yield recorded, f"{url}/api/"


async def test_forged_or_replayed_slack_request(room: Room) -> None:
    identity = BotIdentity(TEAM, "U0BOT", "B0BOT")
    access = Access(room.app.client, AccessPolicy(TEAM, frozenset(), "S0SRE"))
    replicas = []
    for _ in range(2):
        desk = desk_of(room)
        app = build_app(
            client=room.app.client, desk=desk, access=access, identity=identity, signing_secret=SIGNING_SECRET
        )
        replicas.append(http_handler(app, desk, SIGNING_SECRET))
    body = "payload=" + json.dumps(
        {
            "type": "block_actions",
            "team": {"id": TEAM},
            "user": {"id": "U0BOB", "team_id": TEAM},
            "trigger_id": "1.2.3",
            "channel": {"id": CHANNEL},
            "message": {"ts": "1.1"},
            "actions": [
                {"action_id": names.APPROVE, "block_id": "b", "type": "button", "value": room.waiting.plan.token}
            ],
        }
    )
    genuine = headers(body)
    forgeries = [
        headers(body, secret="another"),
        headers(body, at_s=1.0),
        {**genuine, "X-Slack-Signature": "v0=" + "0" * 64},
        {**genuine, "X-Slack-Request-Timestamp": "9" * 400},
        {**genuine, "X-Slack-Request-Timestamp": "١٢٣"},
        {**genuine, "X-Slack-Signature": "é"},
        {"Content-Type": genuine["Content-Type"]},
    ]
    async with handling(one=replicas[0], two=replicas[1]) as url, aiohttp.ClientSession() as http:

        async def post(path: str, sent: dict[str, str]) -> int:
            async with http.post(f"{url}/{path}", data=body, headers=sent) as answer:
                return answer.status

        assert [await post("one", forged) for forged in forgeries] == [401] * len(forgeries)
        assert await room.decided() == (0, 0)
        assert await post("one", genuine) == 200
        assert [await post("one", genuine), await post("two", genuine)] == [401, 401], "seen by every replica"
    assert await room.decided() == (1, 0)


async def test_stale_duplicate_tampered_click(room: Room) -> None:
    other = room.other.plan.token
    assert "not known here" in await room.approve("U0ALICE", ts="2.2"), "the button of another card"
    for tampered in ("0" * 32, str(room.waiting.plan.id), other[:-1] + "%", ""):
        assert (await room.click("U0ALICE", value=tampered))[0] == 200
    assert await room.decided() == (0, 0)
    clicks = (room.click(user, value=other, ts="2.2") for user in ["U0ALICE", "U0BOB"] * 10)
    await asyncio.gather(*clicks, return_exceptions=True)  # what others are told in between confuses ``click``
    assert await room.decided() == (2, 1), "twenty clicks of two people"
    await room.sql.execute("UPDATE plans SET expires_at = clock_timestamp() WHERE id = $1", room.waiting.plan.id)
    assert "expired" in await room.approve("U0ALICE")
    await room.sql.execute("UPDATE plans SET state = 'superseded' WHERE id = $1", room.waiting.plan.id)
    assert "Too late" in await room.approve("U0ALICE")
    assert await room.decided() == (2, 1)
    redraws = "SELECT count(*) FROM outbox WHERE kind = 'card' AND incident_id = $1"
    assert await room.sql.fetchval(redraws, room.waiting.incident.id), "whoever clicked late gets the card redrawn"


async def test_who_approves(room: Room) -> None:
    refused = {
        "U0GUEST": "guests",
        "U0GONE": "deactivated",
        "U0APP": "apps",
        "U0FAR": "other workspaces",
        "U0DAN": "neither on the list",
    }
    room.slack.group_error = "fatal_error"
    assert "could not tell who you are" in await room.approve("U0BOB")
    room.slack.group_error = ""
    for user, why in refused.items():
        assert why in await room.approve(user)
    assert "other workspaces" in await room.approve("U0ALICE", team="T0OTHER")
    await room.sql.execute("UPDATE plans SET requested_by = 'U0ALICE'")
    assert "somebody else has to approve" in await room.approve("U0ALICE")
    await room.sql.execute("UPDATE plans SET requested_by = ''")
    assert await room.decided() == (0, 0)
    assert len(await room.denied()) == len(refused) + 3, "each no is in the trail"
    assert await room.approve("U0ALICE") == ""
    assert "another person has to" in await room.approve("U0ALICE"), "SEV2 takes two, and she is one"
    assert await room.decided() == (1, 0)
    assert await room.approve("U0BOB") == ""
    assert await room.decided() == (2, 1)


@pytest.mark.parametrize("channel", sorted(CHANNELS))
async def test_prompt_injection_through_logs_alerts_runbooks_thread_replies(channel: str) -> None:
    """The model obeys; what it wanted does not come about, and a severity has no text to read."""
    tried = [one for one in ATTEMPTS if one.channel == channel][::6]
    came = {one.id: await outcome(one, "greedy") for one in tried}
    assert {name: one.achieved for name, one in came.items() if one.achieved} == {}
    assert any(one.believed for one in came.values()), "else nothing was tried"
    types = {one.name: str(one.type) for one in dataclasses.fields(SeverityFacts)}
    assert not [name for name, kind in types.items() if "str" in kind]


TWICE = '{"kind": "deployment", "service": "checkout", "service": "payments", "revision": "1"}'


async def test_invented_or_universal_target(place: KubePlace, outside: Outside, tmp_path: Any) -> None:
    for name in ("", "*", "app=checkout", "сheckout", "checkout,web", "checkout/../web", "check out", "a" * 254):
        with pytest.raises(ValueError, match="name"):
            WorkloadAddress(platform="kubernetes", namespace="shop", name=name)
        with pytest.raises(ValueError, match="name"):
            InstanceRef(name=name, uid="u")
    for namespace, name in (("kube-system", "checkout"), ("shop", "invented")):
        address = WorkloadAddress(platform="kubernetes", namespace=namespace, name=name)
        with pytest.raises(PermanentError):
            await place.target.resolve(address)
    counts: list[Any] = [0, -1, 10**9, 4.0, 4.5, "4", True, None, "４", float("nan"), float("inf")]
    for count in counts:
        with pytest.raises(ValueError, match="replicas"):
            ScaleAction(from_replicas=2, to_replicas=count)
        with pytest.raises(ValueError, match="replicas"):
            ScaleTo(replicas=count)
    with pytest.raises(InvalidReply, match="twice"):
        parse_strictly('{"conclusion": "unknown", "conclusion": "cause"}', Hypothesis)
    status, said = await outside.trusted("changes", TWICE.encode())
    assert (status, "twice" in said) == (400, True)
    doubled = json.dumps({"version": "4", "alerts": [ALERT]}).replace('"labels": {', '"labels": {}, "labels": {')
    assert (await outside.trusted("alerts", doubled.encode()))[0] == 400
    assert await outside.taken_in() == 0
    catalogue = tmp_path / "services.yaml"
    catalogue.write_text("services:\n  checkout: {tier: 1}\n  checkout: {tier: 4}\n")
    with pytest.raises(ConfigurationError, match=r"line 3: 'checkout' stands twice"):
        CatalogueFile(catalogue)
    assert place.server.writes == []


async def test_secrets(slack: tuple[Slack, str], database_dsn: str) -> None:
    """Taken out at each exit, whoever wrote the text and forgot to."""
    recorded, url = slack
    client = make_client("xoxb-test", url)
    block = {"type": "section", "text": {"type": "mrkdwn", "text": f"password=hunter2-in-a-log {SECRET}"}}
    await client.chat_postMessage(channel="C1", text=f"token {SECRET}", blocks=[block])
    await client.chat_update(channel="C1", ts="1.1", text=f"token {SECRET}", blocks=[block])
    await client.views_open(trigger_id="1.2.3", view={"type": "modal", "title": block["text"], "blocks": [block]})
    await client.chat_appendStream(channel="C1", ts="1.1", markdown_text=f"password=hunter2-in-a-log {SECRET}")
    told = json.dumps([*recorded.sent, text_modal("Evidence", f"password=hunter2-in-a-log {SECRET}")])
    assert len(recorded.sent) == 4
    assert SECRET not in told
    assert "hunter2" not in told
    assert told.count("secret:github") >= 6
    assert SECRET not in Wording(redact).text(f"token {SECRET}", 200)
    assert SECRET not in logged(f"token {SECRET}")
    pool = Pool(database_dsn, max_size=1)
    async with PostgresStore(pool, clean_entry).begin() as uow:
        await uow.trace.add(IncidentId(1), TraceEntry(TraceKind.NOTE, f"token {SECRET}", {SECRET: [SECRET]}))
        stored = str(await uow.trace.read(IncidentId(1)))
    await pool.close()
    assert SECRET not in stored


async def test_secrets_when_the_redactor_fails(
    slack: tuple[Slack, str], database_dsn: str, sql: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is sent, stored or logged, and no error has the text in it."""

    def broken(text: Any) -> Any:
        raise RuntimeError(f"cannot read {text}")

    monkeypatch.setattr(type(REDACTOR), "text", lambda self, text: broken(text))
    monkeypatch.setattr(type(REDACTOR), "json", lambda self, value: broken(value))
    recorded, url = slack
    client = make_client("xoxb-test", url)
    front = Front(client, cast(Any, None), cast(Any, None), BotIdentity(TEAM, "U0BOT", "B0BOT"), "/sre")
    pool = Pool(database_dsn, max_size=1)
    store = PostgresStore(pool, clean_entry)
    entry = TraceEntry(TraceKind.NOTE, f"token {SECRET}", {})

    async def into_the_trail() -> None:
        async with store.begin() as uow:
            await uow.trace.add(IncidentId(1), entry)

    ways = {
        "post": lambda: client.chat_postMessage(channel="C1", text=f"token {SECRET}"),
        "update": lambda: client.chat_update(channel="C1", ts="1.1", text=f"token {SECRET}"),
        "whisper": lambda: front.whisper("C1", cast(Any, "U1"), f"token {SECRET}"),
        "window": lambda: front.open_modal("1.2", {"type": "modal", "title": {"text": f"token {SECRET}"}}),
        "command": lambda: commands.answer(front, f"unknown {SECRET}", cast(Any, "U1"), TEAM),
        "trail": into_the_trail,
    }
    for way, go in ways.items():
        with pytest.raises(PermanentError, match="nothing was sent or stored") as refused:
            await cast(Any, go())
        shown = f"{refused.value} {refused.value.__cause__} {refused.value.__context__}"
        assert SECRET not in shown, way
    with pytest.raises(PermanentError, match="nothing was sent to a model"):
        Wording(redact).text(f"token {SECRET}", 200)
    assert logged(f"token {SECRET}") == f"ERROR threats (line 1): {LEFT_OUT}\n"
    await pool.close()
    assert recorded.sent == []
    assert await sql.fetchval("SELECT count(*) FROM trace") == 0


def logged(text: str, *arguments: object) -> str:
    """What reaches stderr when a line with ``text`` is logged as the bot does."""
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(RedactingFormatter("%(message)s"))
    handler.handle(logging.LogRecord("threats", logging.ERROR, "x.py", 1, text, arguments, None))
    return stream.getvalue()


def test_secrets_in_a_log_line_that_cannot_be_formed() -> None:
    assert SECRET not in logged(f"%d of {SECRET}", SECRET)


OUTSIDE = "<!channel> <@U0ALICE> <https://evil.example/x|details> https://evil.example/y [z](https://evil.example/z)"


async def test_text_from_outside_in_slack(slack: tuple[Slack, str]) -> None:
    case = make_case(
        evidence=(make_evidence(1, statement=OUTSIDE, query=OUTSIDE, subject=OUTSIDE), make_evidence(2)),
        passages=(make_passage(text=OUTSIDE, heading=OUTSIDE, document=OUTSIDE),),
        diagnosis=make_diagnosis(root_cause=OUTSIDE),
    )
    case = replace(case, incident=replace(case.incident, title=OUTSIDE, outcome=OUTSIDE), by_hand=OUTSIDE)
    trail = make_trace((TraceKind.TOOL_CALL, OUTSIDE))
    shown = [
        render_card(case, chart_file_id=None),
        *(render_part(part, case, trail, text=OUTSIDE, chart_file_id=None) for part in ThreadPart),
    ]
    drawn = json.dumps([[message.text, message.blocks] for message in shown])
    assert "evil" in drawn, "else nothing was shown"
    for call in ("<!channel>", "<https://evil", "<http://evil"):
        assert call not in drawn
    linked = [one for one in _texts([message.blocks for message in shown]) if one["type"] == "mrkdwn"]
    assert linked
    assert all(one["verbatim"] for one in linked), "else Slack makes links of addresses"
    recorded, url = slack
    front = Front(make_client("xoxb-test", url), cast(Any, None), cast(Any, None), BotIdentity(TEAM, "U", "B"), "/sre")
    await front.reply("C1", "1.1", shown[0].blocks, shown[0].text)
    ((_, sent),) = recorded.sent
    assert (sent["unfurl_links"], sent["unfurl_media"]) == (False, False)


def _texts(value: Any) -> list[dict[str, Any]]:
    if isinstance(value, list):
        return [found for one in value for found in _texts(one)]
    if not isinstance(value, dict):
        return []
    own = [value] if value.get("type") in ("mrkdwn", "plain_text") else []
    return own + [found for one in value.values() for found in _texts(one)]


async def test_knowledge_ingest_by_url() -> None:
    reached = []

    async def page(request: web.Request) -> web.Response:
        reached.append(request.path)
        if request.path == "/away":
            raise web.HTTPFound("http://169.254.169.254/latest/meta-data")
        return web.Response(text="# Runbook", content_type="text/markdown")

    async with handling(page=page, away=page) as url:

        async def read(path: str, guard: HostGuard) -> None:
            source = WebSource(f"{url}/{path}", guard, timeout_s=10.0)
            try:
                for one in (await source.listing()).paths:
                    await source.read(one)
            finally:
                await source.close()

        with pytest.raises(PermanentError, match="no public address"):
            await read("page", HostGuard())
        assert reached == [], "refused before anything was asked"
        with pytest.raises(PermanentError, match="no document may be read from there"):
            await read("away", HostGuard(allow_hosts=("127.0.0.1",)))
        await read("page", HostGuard(allow_hosts=("127.0.0.1",)))
    assert reached == ["/away", "/page"]
