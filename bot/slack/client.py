"""The Web API client, who we are to Slack, and what its errors mean for what may be done next."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import aiohttp
from slack_sdk.errors import SlackApiError, SlackRequestError
from slack_sdk.web.async_client import AsyncWebClient

from bot.slack.clean import CleanClient
from pipeline.domain.errors import OutcomeUnknown, PermanentError, SreBotError, TemporaryError
from pipeline.ports.store import CardPlace

log = logging.getLogger(__name__)

SLACK_TROUBLE = (SlackApiError, SlackRequestError, aiohttp.ClientError, TimeoutError, OSError)
"""Everything that a call of slack_sdk raises when Slack refuses or cannot be reached."""

PERMALINK_S = 5.0

_RATE_LIMITED = frozenset({"ratelimited", "rate_limited"})
_ITS_FAULT = frozenset({"internal_error", "fatal_error", "service_unavailable", "request_timeout"})
_WHAT_TO_DO = {
    "invalid_auth": "the bot token is wrong: set the one from OAuth & Permissions",
    "not_authed": "no bot token was sent: set the one from OAuth & Permissions",
    "account_inactive": "the bot token belongs to a removed app or workspace: install the app again",
    "token_revoked": "the bot token was revoked: install the app again",
    "missing_scope": "the app lacks a scope: install it again from manifest.yml",
    "not_allowed_token_type": "that is another kind of token: bot tokens start with xoxb-, app tokens with xapp-",
    "channel_not_found": "there is no such channel for the bot: set its id (C…) and invite the bot",
    "not_in_channel": "the bot is not in the channel: /invite it there",
    "is_archived": "the channel is archived: choose another one",
}


@dataclass(frozen=True, slots=True)
class BotIdentity:
    """Who the bot token belongs to."""

    team_id: str
    bot_user_id: str
    bot_id: str


def make_client(token: str, api_url: str, *, timeout_s: int = 10) -> AsyncWebClient:
    """A client that sends each request once.

    The SDK's default sends again after a lost connection, which would post a card twice; whether to try again is for
    the outbox to decide. What it sends is shown without secrets. ``api_url`` ends with ``/api/``.
    """
    client = CleanClient(token=token, base_url=api_url, timeout=timeout_s, retry_handlers=[])
    if is_loopback(api_url):
        client.proxy = None  # the SDK takes the machine's proxy for every address, and none reaches this one
    return client


def is_loopback(url: str) -> bool:
    """Whether the address is this machine's own."""
    return urlsplit(url).hostname in ("localhost", "127.0.0.1", "::1")


async def identify(client: AsyncWebClient) -> BotIdentity:
    """Asks Slack whose token it is. Raises PermanentError (refused, with what to do) or TemporaryError."""
    try:
        answer = await client.auth_test()
    except SLACK_TROUBLE as error:
        raise translate(error, "auth.test") from error
    return BotIdentity(str(answer["team_id"]), str(answer["user_id"]), str(answer.get("bot_id", "")))


async def permalink(client: AsyncWebClient, place: CardPlace) -> str:
    """The address of a message; empty when Slack does not tell it within ``PERMALINK_S``: it is only an extra."""
    try:
        async with asyncio.timeout(PERMALINK_S):
            answer = await client.chat_getPermalink(channel=place.channel, message_ts=place.ts)
    except SLACK_TROUBLE as error:
        log.info("no link to %s in %s: %s", place.ts, place.channel, translate(error, "chat.getPermalink"))
        return ""
    return str(answer.get("permalink") or "")


def translate(error: Exception, method: str, *, posts: bool = False) -> SreBotError:
    """The error of ours for one that a call of ``method`` raised.

    With ``posts`` (chat.postMessage: sent twice means seen twice) a call without an answer is OutcomeUnknown.
    """
    if isinstance(error, aiohttp.ClientConnectorError):
        return TemporaryError(f"Slack cannot be reached for {method}: {error}")
    if not isinstance(error, SlackApiError):
        line = f"no answer from Slack to {method}: {type(error).__name__} {error}".rstrip()
        return OutcomeUnknown(line) if posts else TemporaryError(line)
    status, code, retry_after_s = _read(error.response)
    if status == 429 or code in _RATE_LIMITED:
        return TemporaryError(f"Slack limits the rate of {method}", retry_after_s=retry_after_s)
    if status >= 500 or code in _ITS_FAULT or not code:
        line = f"Slack failed at {method}: HTTP {status} {code}".rstrip()
        return OutcomeUnknown(line) if posts else TemporaryError(line)
    hint = _WHAT_TO_DO.get(code)
    return PermanentError(f"Slack refused {method}: {code}" + (f"; {hint}" if hint else ""))


def error_code(error: SlackApiError) -> str:
    """Slack's code, as ``message_not_found``; empty when the answer carried none."""
    return _read(error.response)[1]


def _read(response: Any) -> tuple[int, str, float | None]:
    """(HTTP status, error code, seconds of Retry-After) of what the SDK attached to its error."""
    status = int(getattr(response, "status_code", getattr(response, "status", 0)))
    data = getattr(response, "data", None)
    code = data.get("error", "") if isinstance(data, dict) else ""
    headers = getattr(response, "headers", None) or {}
    after = next((value for key, value in headers.items() if key.lower() == "retry-after"), None)
    try:
        retry_after_s = float(after) if after is not None else None
    except ValueError:
        retry_after_s = None
    return status, str(code), retry_after_s
