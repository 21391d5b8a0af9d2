"""conversations.* and reactions.add: reading channels and threads, joining."""

import base64
from collections.abc import Sequence
from typing import Any

from bot.demo.slack.arguments import Arguments
from bot.demo.slack.core import Core
from bot.demo.slack.errors import SlackError
from bot.demo.slack.messages import Message
from bot.demo.slack.workspace import BOT_USER_ID, CHANNELS

DEFAULT_PAGE = 100
MAX_PAGE = 999


def cursor_page(items: Sequence[Any], args: Arguments) -> tuple[list[Any], str]:
    """(one page of the items, cursor of the next or ""). Raises invalid_limit, invalid_cursor."""
    limit = args.integer("limit", DEFAULT_PAGE)
    if not 1 <= limit <= MAX_PAGE:
        raise SlackError("invalid_limit")
    start = 0
    if args.has("cursor"):
        try:
            start = int(base64.urlsafe_b64decode(args.text("cursor")).decode().removeprefix("next:"))
        except ValueError:
            raise SlackError("invalid_cursor") from None
    end = start + limit
    cursor = base64.urlsafe_b64encode(f"next:{end}".encode()).decode() if end < len(items) else ""
    return list(items[start:end]), cursor


def paged(key: str, items: Sequence[Any], args: Arguments) -> dict[str, Any]:
    """A list answer with its cursor."""
    page, cursor = cursor_page(items, args)
    return {key: page, "response_metadata": {"next_cursor": cursor}}


def _within(messages: Sequence[Message], args: Arguments) -> list[Message]:
    """The messages between `oldest` and `latest` (exclusive unless `inclusive`)."""
    oldest, latest, inclusive = args.text("oldest", "0"), args.text("latest"), args.flag("inclusive")
    try:
        low, high = float(oldest or 0), float(latest) if latest else float("inf")
    except ValueError:
        raise SlackError("invalid_ts_oldest") from None

    def fits(ts: str) -> bool:
        # Compared as text where they are equal: a float cannot tell neighbouring microseconds apart.
        return (low < float(ts) and ts != oldest and float(ts) < high and ts != latest) or (
            inclusive and ts in (oldest, latest)
        )

    return [message for message in messages if fits(message["ts"])]


def _shown(messages: Sequence[Message], args: Arguments) -> list[Message]:
    if args.flag("include_all_metadata"):
        return list(messages)
    return [{key: value for key, value in m.items() if key != "metadata"} for m in messages]


def _message_page(messages: Sequence[Message], args: Arguments) -> dict[str, Any]:
    page, cursor = cursor_page(messages, args)
    answer: dict[str, Any] = {"messages": _shown(page, args), "has_more": bool(cursor)}
    return answer | ({"response_metadata": {"next_cursor": cursor}} if cursor else {})


async def history(core: Core, args: Arguments) -> dict[str, Any]:
    """Newest first, without replies."""
    channel = core.member_channel(args.required("channel")[0])
    roots = _within(core.messages.roots(channel), args)
    return {**_message_page(roots[::-1], args), "pin_count": 0}


async def replies(core: Core, args: Arguments) -> dict[str, Any]:
    """The root and its replies, oldest first; the root is there whatever the window, as in Slack."""
    channel_id, ts = args.required("channel", "ts")
    channel = core.member_channel(channel_id)
    root_ts = core.messages.root_ts(channel, ts)
    if root_ts is None:
        raise SlackError("thread_not_found")
    root, *rest = core.messages.thread(channel, root_ts)
    return _message_page([root, *_within(rest, args)], args)


async def info(core: Core, args: Arguments) -> dict[str, Any]:
    channel = core.channel(args.required("channel")[0])
    return {"channel": CHANNELS[channel].for_api(channel in core.members)}


async def list_channels(core: Core, args: Arguments) -> dict[str, Any]:
    public = "public_channel" in args.text("types", "public_channel")
    channels = [channel.for_api(channel.id in core.members) for channel in CHANNELS.values()]
    return paged("channels", channels if public else [], args)


async def join(core: Core, args: Arguments) -> dict[str, Any]:
    channel = core.channel(args.required("channel")[0])
    answer: dict[str, Any] = {"channel": CHANNELS[channel].for_api(True)}
    if channel in core.members:
        return {**answer, "warning": "already_in_channel"}
    core.join(channel, BOT_USER_ID)
    return answer


async def add_reaction(core: Core, args: Arguments) -> dict[str, Any]:
    channel_id, name, timestamp = args.required("channel", "name", "timestamp")
    channel = core.member_channel(channel_id)
    message = core.messages.get(channel, timestamp)
    if message is None:
        raise SlackError("message_not_found")
    reactions = message.setdefault("reactions", [])
    reaction = next((r for r in reactions if r["name"] == name), None)
    if reaction is None:
        reaction = {"name": name, "users": [], "count": 0}
        reactions.append(reaction)
    if BOT_USER_ID in reaction["users"]:
        raise SlackError("already_reacted")
    reaction["users"].append(BOT_USER_ID)
    reaction["count"] += 1
    core.messages.put(channel, message)
    return {}
