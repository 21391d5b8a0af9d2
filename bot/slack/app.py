"""The Bolt app with its listeners, and the two ways Slack reaches it: Socket Mode and signed HTTP."""

from __future__ import annotations

import hashlib
import hmac
import logging
import re
import time
from collections.abc import Awaitable, Callable, Sequence

from aiohttp import web
from slack_bolt.adapter.aiohttp import to_aiohttp_response
from slack_bolt.adapter.socket_mode.aiohttp import AsyncSocketModeHandler
from slack_bolt.async_app import AsyncApp
from slack_bolt.authorization import AuthorizeResult
from slack_bolt.request.async_request import AsyncBoltRequest
from slack_sdk.web.async_client import AsyncWebClient

from bot.slack import actions, commands, home, modals, replies
from bot.slack.access import Access
from bot.slack.client import SLACK_TROUBLE, BotIdentity, is_loopback, translate
from bot.slack.front import Front
from pipeline.domain.errors import SreBotError
from pipeline.stages.desk import Desk

log = logging.getLogger(__name__)

MAX_AGE_S = 300
"""How old a signed request may be. https://docs.slack.dev/authentication/verifying-requests-from-slack"""
_TIMESTAMP = re.compile(r"[0-9]{1,12}")
PING_EVERY_S = 5.0


def build_app(
    *,
    client: AsyncWebClient,
    desk: Desk,
    access: Access,
    identity: BotIdentity,
    command: str = "/sre",
    signing_secret: str = "",
) -> AsyncApp:
    """The app with every listener. ``command`` starts with a slash; signed HTTP needs ``signing_secret``."""

    async def authorize() -> AuthorizeResult:
        return AuthorizeResult(
            enterprise_id=None,
            team_id=identity.team_id,
            bot_user_id=identity.bot_user_id,
            bot_id=identity.bot_id,
            bot_token=client.token,
        )

    logging.getLogger("slack_bolt.AsyncApp").addFilter(_is_news)
    app = AsyncApp(name="sre-bot", client=client, authorize=authorize, signing_secret=signing_secret)
    front = Front(client=client, desk=desk, access=access, identity=identity, command=command)
    for room in (actions, modals, commands, replies, home):
        room.register(app, front)

    @app.error
    async def failed(error: Exception) -> None:
        if isinstance(error, SreBotError):
            log.warning("a request from Slack failed: %s", error)
        else:
            log.error("a request from Slack failed", exc_info=error)

    return app


def _is_news(record: logging.LogRecord) -> bool:
    """Bolt warns at every start that ``authorize`` is used instead of the client's token, which is what is wanted."""
    return "will be ignored" not in record.getMessage()


async def start_socket(app: AsyncApp, app_token: str) -> AsyncSocketModeHandler:
    """Connects by Socket Mode; call ``close_async`` at the end. Raises PermanentError or TemporaryError."""
    handler = AsyncSocketModeHandler(app, app_token, ping_interval=PING_EVERY_S)
    if is_loopback(app.client.base_url):
        handler.client.proxy = None
    try:
        await handler.connect_async()  # type: ignore[no-untyped-call]
    except SLACK_TROUBLE as error:
        await handler.close_async()  # type: ignore[no-untyped-call]
        raise translate(error, "apps.connections.open") from error
    return handler


def http_handler(
    app: AsyncApp, desk: Desk, signing_secret: str
) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
    """The handler of POST /slack/events: 401 for what is not freshly signed by Slack or was handled before."""
    secret = signing_secret.encode()

    async def handle(request: web.Request) -> web.StreamResponse:
        body = await request.read()
        stamp = request.headers.get("X-Slack-Request-Timestamp", "")
        signature = request.headers.get("X-Slack-Signature", "")
        if not signed(secret, stamp, signature, body, now_s=time.time()):
            return web.json_response({"error": "not signed by Slack"}, status=401)
        try:
            text = body.decode()
        except UnicodeDecodeError:
            return web.json_response({"error": "not UTF-8"}, status=400)
        try:
            fresh = await desk.first_time(f"slack-http:{signature}")
        except SreBotError as error:
            log.warning("a request from Slack has to come again: %s", error)
            return web.json_response({"error": "try again"}, status=503)
        if not fresh:
            return web.json_response({"error": "handled before"}, status=401)
        headers: dict[str, str | Sequence[str]] = dict(request.headers)
        answer = await app.async_dispatch(AsyncBoltRequest(body=text, query=request.query_string, headers=headers))
        return await to_aiohttp_response(answer)

    return handle


def signed(secret: bytes, stamp: str, signature: str, body: bytes, *, now_s: float) -> bool:
    """Whether the body carries Slack's signature of the last five minutes; any header value is just a yes or no."""
    if not secret or not _TIMESTAMP.fullmatch(stamp) or abs(now_s - int(stamp)) > MAX_AGE_S:
        return False
    digest = hmac.new(secret, b"v0:" + stamp.encode() + b":" + body, hashlib.sha256).hexdigest()
    return hmac.compare_digest(f"v0={digest}".encode(), signature.encode(errors="surrogateescape"))
