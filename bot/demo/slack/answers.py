"""Answers of the bot to an interaction: by response URL, or in the acknowledgement of a command."""

from typing import Any

from aiohttp import web

from bot.demo.slack.arguments import read_arguments
from bot.demo.slack.core import Core
from bot.demo.slack.errors import SlackError
from bot.demo.slack.methods_chat import response_content
from bot.demo.slack.tickets import ResponseUrl


def _flag(body: dict[str, Any], name: str) -> bool:
    return str(body.get(name, "")).lower() in ("1", "true")


def give(core: Core, to: ResponseUrl, body: dict[str, Any]) -> None:
    """Post, replace or delete as the body asks; without `response_type` only the person sees it.

    Raises SlackError for content Slack refuses or a message that is gone.
    """
    replaces = _flag(body, "replace_original") and to.message_ts is not None
    if _flag(body, "delete_original") and to.message_ts is not None:
        if to.is_ephemeral:
            core.messages.remove_ephemeral(to.user_id, to.channel, to.message_ts)
        elif core.messages.get(to.channel, to.message_ts) is not None:
            core.delete(to.channel, to.message_ts)
        if not (body.get("text") or body.get("blocks")):
            return
    content = response_content(core, body)
    if replaces and to.message_ts is not None:
        _replace(core, to, to.message_ts, content)
        return
    thread_ts = body.get("thread_ts") or (None if to.thread_ts == to.message_ts else to.thread_ts)
    message = core.bot_message(**content, thread_ts=thread_ts)
    if body.get("response_type") == "in_channel":
        core.post(to.channel, message)
    else:
        core.messages.put_ephemeral(to.user_id, to.channel, message)


def _replace(core: Core, to: ResponseUrl, ts: str, content: dict[str, Any]) -> None:
    if to.is_ephemeral:
        old = core.messages.get_ephemeral(to.user_id, to.channel, ts)
    else:
        old = core.messages.get(to.channel, ts)
    if old is None:
        raise SlackError("message_not_found")
    kept = {key: value for key, value in old.items() if key not in ("text", "blocks", "attachments")}
    message = kept | {key: value for key, value in content.items() if value is not None}
    if to.is_ephemeral:
        core.messages.put_ephemeral(to.user_id, to.channel, message)
    else:
        core.change(to.channel, message)


async def handle(core: Core, request: web.Request) -> web.Response:
    """POST to a response URL: "ok", or 404 with why the URL or 400 with why the content is refused."""
    if core.trouble.outage:
        return web.Response(status=500, text="<html>Internal Server Error</html>", content_type="text/html")
    try:
        to = core.response_urls.use(request.path)
    except SlackError as error:
        return web.json_response(error.body(), status=404)
    try:
        give(core, to, await read_arguments(request))
    except SlackError as error:
        return web.json_response(error.body(), status=400)
    return web.Response(text="ok")
