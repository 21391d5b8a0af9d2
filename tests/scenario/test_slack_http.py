"""Signed HTTP: what Slack signed freshly is handled once, everything else is 401 and never a 500."""

from __future__ import annotations

import hashlib
import hmac
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import cast
from urllib.parse import urlencode

import pytest
from aiohttp import ClientSession, web
from aiohttp.test_utils import TestServer

from bot.slack import names
from bot.slack.access import Access, AccessPolicy
from bot.slack.app import build_app, http_handler, signed
from bot.slack.client import identify
from pipeline.domain.errors import TemporaryError
from pipeline.stages.desk import Desk
from tests.builders import ALICE, PLAN
from tests.slack_stage import CHANNEL, SIGNING_SECRET, WAIT_S, Stage, stage

COMMAND = {
    "command": "/sre",
    "text": "kill all deploy freeze",
    "user_id": "U0CARLA",
    "team_id": "T0LOCAL",
    "channel_id": CHANNEL,
    "trigger_id": "1.2.3",
    "response_url": "http://127.0.0.1:9/",
}


@dataclass
class Served:
    """The stage, with the app behind ``url``."""

    on_stage: Stage
    url: str


@pytest.fixture
async def served() -> AsyncIterator[Served]:
    handlers = {}

    async def events(request: web.Request) -> web.StreamResponse:
        if "ready" not in handlers:
            return web.Response(status=503)
        return await handlers["ready"](request)

    web_app = web.Application()
    web_app.router.add_post("/slack/events", events)
    async with TestServer(web_app) as server:
        url = str(server.make_url("/slack/events"))
        async with stage(connected=False, events_url=url) as on_stage:
            identity = await identify(on_stage.client)
            desk = cast(Desk, on_stage.desk)
            access = Access(on_stage.client, AccessPolicy(identity.team_id, frozenset({"U0ALICE"})))
            app = build_app(
                client=on_stage.client, desk=desk, access=access, identity=identity, signing_secret=SIGNING_SECRET
            )
            handlers["ready"] = http_handler(app, desk, SIGNING_SECRET)
            yield Served(on_stage, url)


def headers(body: str, *, at_s: float | None = None, secret: str = SIGNING_SECRET) -> dict[str, str]:
    stamp = str(int(time.time() if at_s is None else at_s))
    digest = hmac.new(secret.encode(), f"v0:{stamp}:{body}".encode(), hashlib.sha256).hexdigest()
    return {
        "Content-Type": "application/x-www-form-urlencoded",
        "X-Slack-Request-Timestamp": stamp,
        "X-Slack-Signature": f"v0={digest}",
    }


async def post(served: Served, body: str | bytes, sent: dict[str, str]) -> int:
    async with ClientSession() as http, http.post(served.url, data=body, headers=sent) as answer:
        return answer.status


async def test_clicks_arrive_and_a_replayed_request_does_nothing(served: Served) -> None:
    body = urlencode(COMMAND)
    sent = headers(body)
    assert await post(served, body, sent) == 200
    assert await post(served, body, sent) == 401
    assert served.on_stage.desk.called("kill") == [("all", "deploy freeze", "U0CARLA")]


async def test_a_person_approves_over_http(served: Served) -> None:
    ts = await served.on_stage.post_card()
    async with served.on_stage.person("U0ALICE") as alice:
        await alice.wait_for(lambda state: state["bot"]["connected"], WAIT_S)
        await alice.click(CHANNEL, ts, names.APPROVE)
    assert served.on_stage.desk.called("approve") == [(PLAN, ALICE)]


@pytest.mark.parametrize(
    "change",
    [
        {"X-Slack-Request-Timestamp": "yesterday"},
        {"X-Slack-Request-Timestamp": ""},
        {"X-Slack-Request-Timestamp": "-1"},
        {"X-Slack-Request-Timestamp": "9" * 400},
        {"X-Slack-Request-Timestamp": "١٢٣"},
        {"X-Slack-Signature": ""},
        {"X-Slack-Signature": "v0=" + "0" * 64},
        {"X-Slack-Signature": "v0=é"},
    ],
)
async def test_bad_headers_are_401(served: Served, change: dict[str, str]) -> None:
    body = urlencode(COMMAND)
    assert await post(served, body, headers(body) | change) == 401
    assert served.on_stage.desk.calls == []


async def test_old_foreign_and_changed_requests_are_401(served: Served) -> None:
    body = urlencode(COMMAND)
    assert await post(served, body, headers(body, at_s=time.time() - 400)) == 401
    assert await post(served, body, headers(body, at_s=time.time() + 400)) == 401
    assert await post(served, body, headers(body, secret="another")) == 401
    assert await post(served, body + "&x=1", headers(body)) == 401
    assert served.on_stage.desk.calls == []


async def test_a_signed_body_that_is_not_utf8_is_no_500(served: Served) -> None:
    body = b"text=\xff\xfe"
    stamp = str(int(time.time()))
    digest = hmac.new(SIGNING_SECRET.encode(), b"v0:" + stamp.encode() + b":" + body, hashlib.sha256).hexdigest()
    sent = headers("") | {"X-Slack-Request-Timestamp": stamp, "X-Slack-Signature": f"v0={digest}"}
    assert await post(served, body, sent) == 400


async def test_without_the_database_slack_is_asked_to_come_again(served: Served) -> None:
    body = urlencode(COMMAND)
    served.on_stage.desk.failing = TemporaryError("the database is away")
    assert await post(served, body, headers(body)) == 503


def test_an_empty_secret_signs_nothing() -> None:
    digest = hmac.new(b"", b"v0:1:", hashlib.sha256).hexdigest()
    assert not signed(b"", "1", f"v0={digest}", b"", now_s=1.0)
