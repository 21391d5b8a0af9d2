"""How the local Slack delivers: acknowledgement, redelivery, connections, signatures."""

import asyncio
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from slack_sdk.errors import SlackApiError
from slack_sdk.signature import SignatureVerifier

from bot.demo.slack.people import RefusedError
from bot.demo.slack.person import Person
from bot.demo.slack.server import LocalSlack
from tests.contract.slack_bots import (
    APP_TOKEN,
    INCIDENTS,
    PATIENCE_S,
    SIGNING_SECRET,
    bot_on,
    card,
    local_slack,
    reason_modal,
    running,
    web_client,
)

Json = dict[str, Any]


async def connect(http: aiohttp.ClientSession, slack: LocalSlack) -> aiohttp.ClientWebSocketResponse:
    """A bare Socket Mode connection, after its hello."""
    url = (await web_client(slack).apps_connections_open(app_token=APP_TOKEN))["url"]
    socket = await http.ws_connect(url)
    hello = await socket.receive_json(timeout=PATIENCE_S)
    assert hello["type"] == "hello"
    assert hello["connection_info"] == {"app_id": "A0SREBOT"}
    return socket


async def test_an_event_comes_again_until_it_is_acknowledged() -> None:
    slack = local_slack(ack_timeout_s=1.0, retry_delays_s=(0.0, 0.0, 0.0))
    async with running(slack), aiohttp.ClientSession() as http, Person(slack.base_url, "U0BOB") as bob:
        socket = await connect(http, slack)
        await bob.say("hello?", INCIDENTS)
        tries = [await socket.receive_json(timeout=PATIENCE_S) for _ in range(2)]
        assert [t["retry_attempt"] for t in tries] == [0, 1]
        assert tries[1]["retry_reason"] == "timeout"
        assert len({t["envelope_id"] for t in tries}) == 2
        assert len({t["payload"]["event_id"] for t in tries}) == 1
        await socket.send_json({"envelope_id": tries[1]["envelope_id"]})
        await bob.say("next", INCIDENTS)
        # An event tried again meanwhile would come before this one's second try.
        texts = [(await socket.receive_json(timeout=PATIENCE_S))["payload"]["event"]["text"] for _ in range(2)]
        assert texts == ["next", "next"]


async def test_a_listener_that_fails_gets_the_event_again() -> None:
    attempts: asyncio.Queue[str] = asyncio.Queue()
    async with bot_on("http", retry_delays_s=(0.0, 0.0, 0.0)) as bot:

        async def fail_first(req: Any, next: Any) -> Any:
            if req.body.get("type") == "event_callback":
                number = req.headers.get("x-slack-retry-num", ["first"])[0]
                attempts.put_nowait(number)
                if number != "2":
                    raise RuntimeError("not yet")
            return await next()

        bot.app.middleware(fail_first)
        bot.app.event("message")(_nothing)
        await bot.connect()
        async with Person(bot.slack.base_url, "U0BOB") as bob:
            await bob.say("hello", INCIDENTS)
        tries = [await asyncio.wait_for(attempts.get(), PATIENCE_S) for _ in range(3)]
        assert tries == ["first", "1", "2"]


async def _nothing() -> None:
    """Makes Bolt answer 200."""


async def test_a_click_that_is_not_acknowledged_is_told_and_not_repeated() -> None:
    slack = local_slack(ack_timeout_s=0.2, retry_delays_s=(0.0,))
    async with running(slack), aiohttp.ClientSession() as http, Person(slack.base_url, "U0BOB") as bob:
        posted = await web_client(slack).chat_postMessage(channel=INCIDENTS, text="card", blocks=card())
        with pytest.raises(RefusedError, match="not connected"):
            await bob.click(INCIDENTS, posted["ts"], "approve")
        socket = await connect(http, slack)
        with pytest.raises(RefusedError, match=r"did not respond within 0\.2 s"):
            await bob.click(INCIDENTS, posted["ts"], "approve")
        with pytest.raises(RefusedError, match="did not respond"):
            await bob.command("/sre status", INCIDENTS)
        kinds: list[str] = []
        while len(kinds) < 2:
            envelope = await socket.receive_json(timeout=PATIENCE_S)
            if envelope["type"] != "events_api":
                kinds.append(envelope["type"])
        assert kinds == ["interactive", "slash_commands"]


async def test_each_payload_goes_to_one_of_the_connections() -> None:
    slack = local_slack(ack_timeout_s=PATIENCE_S)
    async with running(slack), aiohttp.ClientSession() as http, Person(slack.base_url, "U0BOB") as bob:
        sockets = [await connect(http, slack) for _ in range(3)]
        received: list[tuple[int, str]] = []

        async def take(number: int, socket: aiohttp.ClientWebSocketResponse) -> None:
            async for message in socket:
                envelope = message.json()
                received.append((number, envelope["payload"]["event"]["text"]))
                await socket.send_json({"envelope_id": envelope["envelope_id"]})

        tasks = [asyncio.create_task(take(n, s)) for n, s in enumerate(sockets)]
        texts = [f"message {n}" for n in range(30)]
        for text in texts:
            await bob.say(text, INCIDENTS)
        async with asyncio.timeout(PATIENCE_S):
            while len(received) < 30:
                await asyncio.sleep(0.02)
        assert sorted(text for _, text in received) == sorted(texts)
        assert len({number for number, _ in received}) > 1
        for task in tasks:
            task.cancel()


async def test_tickets_and_the_eleventh_connection() -> None:
    slack = local_slack()
    async with running(slack), aiohttp.ClientSession() as http:
        url = (await web_client(slack).apps_connections_open(app_token=APP_TOKEN))["url"]
        first = await http.ws_connect(url)
        with pytest.raises(aiohttp.WSServerHandshakeError):
            await http.ws_connect(url)
        others = [await connect(http, slack) for _ in range(9)]
        url = (await web_client(slack).apps_connections_open(app_token=APP_TOKEN))["url"]
        eleventh = await http.ws_connect(url)
        assert (await eleventh.receive_json())["reason"] == "too_many_websockets"
        for socket in (first, *others, eleventh):
            await socket.close()


async def test_a_dropped_bot_comes_back_and_still_hears() -> None:
    heard: asyncio.Queue[str] = asyncio.Queue()
    async with bot_on("socket", retry_delays_s=(0.5,) * 20) as bot:

        @bot.app.event("message")
        async def message(event: Json) -> None:
            heard.put_nowait(event["text"])

        await bot.connect()
        async with Person(bot.slack.base_url, "U0BOB") as bob, aiohttp.ClientSession() as http:
            await http.post(f"{bot.slack.base_url}/local/trouble", json={"drop_socket": True})
            await bob.say("are you there?", INCIDENTS)
            assert await asyncio.wait_for(heard.get(), PATIENCE_S) == "are you there?"


async def test_a_trigger_dies_of_age() -> None:
    triggers: asyncio.Queue[str] = asyncio.Queue()
    async with bot_on("socket", trigger_life_s=0.0) as bot:

        @bot.app.command("/sre")
        async def command(ack: Any, body: Json) -> None:
            await ack()
            triggers.put_nowait(body["trigger_id"])

        await bot.connect()
        async with Person(bot.slack.base_url, "U0BOB") as bob:
            await bob.command("/sre", INCIDENTS)
        with pytest.raises(SlackApiError, match="expired_trigger_id"):
            await bot.client.views_open(trigger_id=await triggers.get(), view=reason_modal())


async def test_http_requests_are_signed_and_verified_first() -> None:
    verifier = SignatureVerifier(SIGNING_SECRET)
    kinds: asyncio.Queue[str] = asyncio.Queue()

    async def app(request: web.Request) -> web.Response:
        body = await request.text()
        assert verifier.is_valid_request(body, dict(request.headers))
        given = await request.json()
        kinds.put_nowait(given["type"])
        return web.json_response({"challenge": given.get("challenge")})

    served = web.Application()
    served.router.add_post("/slack/events", app)
    runner = web.AppRunner(served)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    url = f"http://127.0.0.1:{runner.addresses[0][1]}/slack/events"
    slack = local_slack(events_url=url)
    async with running(slack), Person(slack.base_url, "U0BOB") as bob:
        state = await bob.wait_for(lambda state: state if state["bot"]["connected"] else None, PATIENCE_S)
        assert state["bot"]["mode"] == "http"
        await bob.say("signed?", INCIDENTS)
        assert await asyncio.wait_for(kinds.get(), PATIENCE_S) == "url_verification"
        assert await asyncio.wait_for(kinds.get(), PATIENCE_S) == "event_callback"
        await runner.cleanup()
        await bob.say("gone?", INCIDENTS)
        await bob.wait_for(lambda state: not state["bot"]["connected"], PATIENCE_S)
