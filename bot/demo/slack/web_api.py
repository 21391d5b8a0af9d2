"""The Web API under /api/: who may call, how often, and what answers."""

import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from aiohttp import web

from bot.demo.slack import (
    methods_chat,
    methods_conversations,
    methods_files,
    methods_people,
    methods_stream,
    methods_views,
)
from bot.demo.slack.arguments import Arguments, read_arguments
from bot.demo.slack.core import Core
from bot.demo.slack.errors import SlackError
from bot.demo.slack.limits import RateLimits
from bot.demo.slack.sockets import Sockets

Run = Callable[[Core, Arguments], Awaitable[dict[str, Any]]]


@dataclass(frozen=True, slots=True)
class Method:
    """One method: its code, the scope it needs, its limit a minute (Slack's tiers; None = not enforced here)."""

    run: Run
    scope: str | None
    per_minute: int | None


METHODS = {
    "auth.test": Method(methods_people.auth_test, None, None),
    "bots.info": Method(methods_people.bot_info, "users:read", 50),
    "chat.postMessage": Method(methods_chat.post_message, "chat:write", None),
    "chat.update": Method(methods_chat.update, "chat:write", 50),
    "chat.delete": Method(methods_chat.delete, "chat:write", 50),
    "chat.postEphemeral": Method(methods_chat.post_ephemeral, "chat:write", 100),
    "chat.getPermalink": Method(methods_chat.get_permalink, None, None),
    "chat.startStream": Method(methods_stream.start, "chat:write", 20),
    "chat.appendStream": Method(methods_stream.append, "chat:write", 100),
    "chat.stopStream": Method(methods_stream.stop, "chat:write", 20),
    "conversations.info": Method(methods_conversations.info, "channels:read", 50),
    "conversations.history": Method(methods_conversations.history, "channels:history", 50),
    "conversations.replies": Method(methods_conversations.replies, "channels:history", 50),
    "conversations.list": Method(methods_conversations.list_channels, "channels:read", 20),
    "conversations.join": Method(methods_conversations.join, "channels:join", 50),
    "reactions.add": Method(methods_conversations.add_reaction, "reactions:write", 50),
    "users.info": Method(methods_people.user_info, "users:read", 100),
    "users.list": Method(methods_people.list_users, "users:read", 20),
    "usergroups.list": Method(methods_people.list_groups, "usergroups:read", 20),
    "usergroups.users.list": Method(methods_people.list_group_users, "usergroups:read", 20),
    "views.open": Method(methods_views.open_view, None, 100),
    "views.push": Method(methods_views.push, None, 100),
    "views.update": Method(methods_views.update, None, 100),
    "views.publish": Method(methods_views.publish, None, 100),
    "files.getUploadURLExternal": Method(methods_files.get_upload_url, "files:write", 100),
    "files.completeUploadExternal": Method(methods_files.complete_upload, "files:write", 100),
    "files.info": Method(methods_files.info, "files:read", 100),
}


class WebApi:
    """Answers /api/{method} as Slack does: HTTP 200 with ok:false for refusals, 429 and 500 for trouble."""

    def __init__(
        self, core: Core, bot_token: str, app_token: str, rate_limits: RateLimits | None, sockets: Sockets | None
    ) -> None:
        self._core = core
        self._bot_token = bot_token
        self._app_token = app_token
        self._rate_limits = rate_limits
        self._sockets = sockets

    async def handle(self, request: web.Request) -> web.Response:
        method = request.match_info["method"]
        if self._core.trouble.outage:
            return web.Response(status=500, text="<html>Internal Server Error</html>", content_type="text/html")
        retry_after_s = self._core.trouble.retry_after_s()
        if retry_after_s:
            return _limited(retry_after_s)
        try:
            given = await read_arguments(request)
            args = Arguments(given)
            if method == "api.test":
                return _answer(await methods_people.api_test(self._core, args))
            token = self._token(request, given)
            if method == "apps.connections.open":
                return _answer(self._connect(request, token))
            known = METHODS.get(method)
            if known is None:
                raise SlackError("unknown_method", req_method=method)
            self._authorise(token, known)
            if self._rate_limits is not None:
                channel = args.text("channel")
                wait_s = self._rate_limits.retry_after_s(method, known.per_minute, channel)
                if wait_s:
                    return _limited(wait_s)
            response = _answer(await known.run(self._core, args))
        except SlackError as error:
            response = web.json_response(error.body(), dumps=_dumps)
        response.headers["X-OAuth-Scopes"] = ",".join(sorted(self._core.manifest.scopes))
        return response

    @staticmethod
    def _token(request: web.Request, given: dict[str, Any]) -> str:
        scheme, _, token = request.headers.get("Authorization", "").partition(" ")
        if scheme.lower() != "bearer":
            token = str(given.get("token", ""))
        if not token:
            raise SlackError("not_authed")
        return token.strip()

    def _authorise(self, token: str, method: Method) -> None:
        if token == self._app_token:
            raise SlackError("not_allowed_token_type")
        if token != self._bot_token:
            raise SlackError("invalid_auth")
        scopes = self._core.manifest.scopes
        if method.scope is not None and method.scope not in scopes:
            raise SlackError("missing_scope", needed=method.scope, provided=",".join(sorted(scopes)))

    def _connect(self, request: web.Request, token: str) -> dict[str, Any]:
        if token == self._bot_token:
            raise SlackError("not_allowed_token_type")
        if token != self._app_token:
            raise SlackError("invalid_auth")
        if self._sockets is None:
            raise SlackError("forbidden_team")
        return {"url": f"ws://{request.host}/link/?ticket={self._sockets.issue_ticket()}"}


def _dumps(body: Any) -> str:
    return json.dumps(body, ensure_ascii=False)


def _answer(body: dict[str, Any]) -> web.Response:
    return web.json_response({"ok": True, **body}, dumps=_dumps)


def _limited(retry_after_s: int) -> web.Response:
    body = {"ok": False, "error": "ratelimited"}
    return web.json_response(body, status=429, headers={"Retry-After": str(retry_after_s)})
