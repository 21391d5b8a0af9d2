"""chat.* methods: post, update, delete, ephemeral, permalink."""

from typing import Any

from bot.demo.slack.arguments import Arguments
from bot.demo.slack.blockfill import filled, plain_fallback
from bot.demo.slack.core import Core
from bot.demo.slack.errors import SlackError, with_reasons
from bot.demo.slack.messages import Message
from bot.demo.slack.workspace import BOT_USER_ID, USERS
from bot.slack.blocks import MAX_MESSAGE_CHARS, MAX_TEXT_CHARS, blocks_chars, validate_blocks

MAX_POST_CHARS = 40_000
MAX_METADATA_CHARS = 8_000


def _checked(core: Core, blocks: Any, path: str) -> list[dict[str, Any]]:
    if not isinstance(blocks, list):
        raise SlackError("invalid_blocks_format")
    problems = [*validate_blocks(blocks, path=path), *core.unknown_files(blocks)]
    if problems:
        raise with_reasons("invalid_blocks", problems)
    if blocks_chars(blocks) > MAX_MESSAGE_CHARS:
        raise SlackError("msg_blocks_too_long")
    return filled(blocks)


def checked_blocks(core: Core, args: Arguments) -> list[dict[str, Any]] | None:
    """The blocks as Slack stores them. Raises invalid_blocks_format, invalid_blocks, msg_blocks_too_long."""
    blocks = args.json("blocks", "invalid_blocks_format")
    return None if blocks is None else _checked(core, blocks, "/blocks")


def _checked_attachments(core: Core, args: Arguments) -> list[dict[str, Any]] | None:
    attachments = args.json("attachments", "invalid_attachments")
    if attachments is None:
        return None
    if not isinstance(attachments, list) or not all(isinstance(a, dict) for a in attachments):
        raise SlackError("invalid_attachments")
    for index, attachment in enumerate(attachments):
        if attachment.get("blocks") is not None:
            attachment["blocks"] = _checked(core, attachment["blocks"], f"/attachments/{index}/blocks")
    return attachments


def checked_metadata(args: Arguments) -> dict[str, Any] | None:
    metadata = args.json("metadata", "invalid_metadata_format")
    if metadata is None:
        return None
    if (
        not isinstance(metadata, dict)
        or not isinstance(metadata.get("event_type"), str)
        or not isinstance(metadata.get("event_payload"), dict)
    ):
        raise SlackError("invalid_metadata_format")
    if len(str(metadata)) > MAX_METADATA_CHARS:
        raise SlackError("metadata_too_large")
    return {"event_type": metadata["event_type"], "event_payload": metadata["event_payload"]}


def _content(core: Core, args: Arguments, max_text_chars: int) -> dict[str, Any]:
    """text, blocks and attachments of a new message. Raises no_text, msg_too_long and what blocks raise."""
    blocks = checked_blocks(core, args)
    attachments = _checked_attachments(core, args)
    text = args.text("text")
    if not text and not blocks and not attachments:
        raise SlackError("no_text")
    if len(text) > max_text_chars:
        raise SlackError("msg_too_long")
    if not text and blocks:
        text = plain_fallback(blocks)
    return {"text": text, "blocks": blocks or None, "attachments": attachments or None}


def _thread_root(core: Core, channel: str, args: Arguments) -> str | None:
    """The root of the thread to reply in. Raises thread_not_found."""
    if not args.has("thread_ts"):
        return None
    root_ts = core.messages.root_ts(channel, args.text("thread_ts"))
    if root_ts is None:
        raise SlackError("thread_not_found")
    return root_ts


def _warned(answer: dict[str, Any], args: Arguments) -> dict[str, Any]:
    if args.has("text"):
        return answer
    warning = "missing_text_in_message"
    return {**answer, "warning": warning, "response_metadata": {"warnings": [warning]}}


async def post_message(core: Core, args: Arguments) -> dict[str, Any]:
    channel = core.member_channel(args.required("channel")[0])
    content = _content(core, args, MAX_POST_CHARS)
    root_ts = _thread_root(core, channel, args)
    more: dict[str, Any] = {"metadata": checked_metadata(args), "thread_ts": root_ts}
    if root_ts is not None:
        root = core.messages.get(channel, root_ts)
        more["parent_user_id"] = None if root is None else root["user"]
        if args.flag("reply_broadcast"):
            more["subtype"] = "thread_broadcast"
    posted = core.post(channel, core.bot_message(**content, **more))
    return _warned({"channel": channel, "ts": posted["ts"], "message": posted}, args)


def _own_message(core: Core, channel: str, ts: str, refusal: str) -> Message:
    """The bot's own message. Raises message_not_found, or `refusal` when somebody else wrote it."""
    message = core.messages.get(channel, ts)
    if message is None or message.get("subtype") == "tombstone":
        raise SlackError("message_not_found")
    if message["user"] != BOT_USER_ID:
        raise SlackError(refusal)
    return message


async def update(core: Core, args: Arguments) -> dict[str, Any]:
    """Blocks stay when neither text nor blocks is given anew; text alone takes them away, as in Slack."""
    channel_id, ts = args.required("channel", "ts")
    channel = core.channel(channel_id)
    message = _own_message(core, channel, ts, "cant_update_message")
    blocks = checked_blocks(core, args)
    attachments = _checked_attachments(core, args)
    if not (args.has("text") or blocks or attachments):
        raise SlackError("no_text")
    if len(args.text("text")) > MAX_TEXT_CHARS:
        raise SlackError("msg_too_long")
    if message.get("streaming"):
        raise SlackError("streaming_state_conflict")
    if blocks:
        message["blocks"] = blocks
        message["text"] = args.text("text") or plain_fallback(blocks)
    elif args.has("text"):
        message.pop("blocks", None)
        message["text"] = args.text("text")
        message["edited"] = {"user": BOT_USER_ID, "ts": core.messages.next_ts()}
    if attachments is not None:
        message["attachments"] = attachments
    metadata = args.json("metadata", "invalid_metadata_format")
    if metadata == {}:
        message.pop("metadata", None)
    elif metadata is not None:
        message["metadata"] = checked_metadata(args)
    changed = core.change(channel, message)
    return {"channel": channel, "ts": ts, "text": changed["text"], "message": changed}


async def delete(core: Core, args: Arguments) -> dict[str, Any]:
    channel_id, ts = args.required("channel", "ts")
    channel = core.channel(channel_id)
    _own_message(core, channel, ts, "cant_delete_message")
    core.delete(channel, ts)
    return {"channel": channel, "ts": ts}


async def post_ephemeral(core: Core, args: Arguments) -> dict[str, Any]:
    channel_id, user_id = args.required("channel", "user")
    channel = core.member_channel(channel_id)
    if user_id not in USERS:
        raise SlackError("user_not_in_channel")
    content = _content(core, args, MAX_TEXT_CHARS)
    message = core.bot_message(**content, thread_ts=_thread_root(core, channel, args))
    core.messages.put_ephemeral(user_id, channel, message)
    return {"message_ts": message["ts"]}


async def get_permalink(core: Core, args: Arguments) -> dict[str, Any]:
    """Slack's form of link; here it opens the page."""
    channel_id, ts = args.required("channel", "message_ts")
    channel = core.channel(channel_id)
    message = core.messages.get(channel, ts)
    if message is None:
        raise SlackError("message_not_found")
    link = f"{core.base_url}/archives/{channel}/p{ts.replace('.', '')}"
    root_ts = message.get("thread_ts", ts)
    if root_ts != ts:
        link += f"?thread_ts={root_ts}&cid={channel}"
    return {"channel": channel, "permalink": link}


def response_content(core: Core, body: dict[str, Any]) -> dict[str, Any]:
    """text and blocks of an answer sent to a response URL or with an acknowledgement. Raises SlackError."""
    return _content(core, Arguments(body), MAX_TEXT_CHARS)
