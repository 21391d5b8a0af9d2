"""A local Slack with a real Bolt app on it, over Socket Mode or signed HTTP."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from aiohttp import web
from slack_bolt.adapter.aiohttp import to_aiohttp_response, to_bolt_request
from slack_bolt.adapter.socket_mode.aiohttp import AsyncSocketModeHandler
from slack_bolt.async_app import AsyncApp
from slack_sdk.web.async_client import AsyncWebClient

from bot.demo.slack.person import Person
from bot.demo.slack.server import LocalSlack

BOT_TOKEN = "xoxb-local-bot"
APP_TOKEN = "xapp-local-app"
SIGNING_SECRET = "local-signing-secret"
INCIDENTS = "C0INCIDENTS"
GENERAL = "C0GENERAL"
PATIENCE_S = 20.0


def local_slack(data_dir: Path | None = None, **options: Any) -> LocalSlack:
    return LocalSlack(
        data_dir=data_dir,
        bot_token=BOT_TOKEN,
        app_token=APP_TOKEN,
        signing_secret=SIGNING_SECRET,
        **options,
    )


@asynccontextmanager
async def running(slack: LocalSlack) -> AsyncIterator[LocalSlack]:
    await slack.start()
    try:
        yield slack
    finally:
        await slack.stop()


@dataclass
class Bot:
    """A Bolt app that is, or will be, connected."""

    slack: LocalSlack
    app: AsyncApp
    mode: str
    stack: AsyncExitStack = field(default_factory=AsyncExitStack)

    @property
    def client(self) -> AsyncWebClient:
        return self.app.client

    async def connect(self) -> None:
        """Start taking payloads; returns when the local Slack shows the bot as connected."""
        if self.mode == "socket":
            handler = AsyncSocketModeHandler(self.app, APP_TOKEN, ping_interval=1)
            await handler.connect_async()  # type: ignore[no-untyped-call]
            self.stack.push_async_callback(handler.close_async)
        async with Person(self.slack.base_url, "U0ALICE") as alice:
            await alice.wait_for(_bot_connected, PATIENCE_S)


def _bot_connected(state: dict[str, Any]) -> bool:
    return bool(state["bot"]["connected"])


def web_client(slack: LocalSlack, token: str = BOT_TOKEN) -> AsyncWebClient:
    return AsyncWebClient(token=token, base_url=slack.api_url)


@asynccontextmanager
async def bot_on(mode: str, *, hears_itself: bool = False, **options: Any) -> AsyncIterator[Bot]:
    """A local Slack and an app for it; register listeners, then `await bot.connect()`."""
    async with AsyncExitStack() as stack:
        apps: list[AsyncApp] = []
        if mode == "http":

            async def events(request: web.Request) -> web.Response:
                if not apps:
                    return web.Response(status=503)
                return await to_aiohttp_response(await apps[0].async_dispatch(await to_bolt_request(request)))

            served = web.Application()
            served.router.add_post("/slack/events", events)
            runner = web.AppRunner(served)
            await runner.setup()
            stack.push_async_callback(runner.cleanup)
            await web.TCPSite(runner, "127.0.0.1", 0).start()
            port = runner.addresses[0][1]
            options["events_url"] = f"http://127.0.0.1:{port}/slack/events"
        slack = await stack.enter_async_context(running(local_slack(**options)))
        app = AsyncApp(
            client=web_client(slack),
            signing_secret=SIGNING_SECRET,
            ignoring_self_events_enabled=not hears_itself,
        )
        apps.append(app)
        yield Bot(slack, app, mode, stack)


def card(*, value: str = "INC-1") -> list[dict[str, Any]]:
    """A small card with an Approve and a Reject button."""
    return [
        {"type": "section", "text": {"type": "mrkdwn", "text": "*checkout* is slow"}},
        {
            "type": "actions",
            "block_id": "decide",
            "elements": [
                {
                    "type": "button",
                    "action_id": "approve",
                    "style": "primary",
                    "text": {"type": "plain_text", "text": "Approve"},
                    "value": value,
                },
                {"type": "button", "action_id": "reject", "text": {"type": "plain_text", "text": "Reject"}},
            ],
        },
    ]


def reason_modal() -> dict[str, Any]:
    return {
        "type": "modal",
        "callback_id": "reason",
        "title": {"type": "plain_text", "text": "Why not?"},
        "submit": {"type": "plain_text", "text": "Reject"},
        "notify_on_close": True,
        "blocks": [
            {
                "type": "input",
                "block_id": "why",
                "label": {"type": "plain_text", "text": "Reason"},
                "element": {"type": "plain_text_input", "action_id": "text"},
            }
        ],
    }
