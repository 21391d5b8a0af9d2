"""chat.startStream, appendStream, stopStream: a reply that grows while it is written.

Text chunks are joined into markdown blocks, task updates into task cards or one plan, in the order they came.
"""

from typing import Any

from bot.demo.slack.arguments import Arguments
from bot.demo.slack.blockfill import filled, plain_fallback
from bot.demo.slack.core import Core
from bot.demo.slack.errors import SlackError, missing, with_reasons
from bot.demo.slack.messages import Message
from bot.demo.slack.methods_chat import checked_metadata
from bot.demo.slack.workspace import BOT_USER_ID, USERS
from bot.slack.blocks import validate_blocks


def _chunks(args: Arguments) -> list[dict[str, Any]]:
    chunks = args.json("chunks") or []
    if not isinstance(chunks, list) or not all(isinstance(chunk, dict) for chunk in chunks):
        raise SlackError("invalid_chunks")
    if args.has("markdown_text"):
        chunks = [{"type": "markdown_text", "text": args.text("markdown_text")}, *chunks]
    return chunks


def _rich(text: str) -> dict[str, Any]:
    section = {"type": "rich_text_section", "elements": [{"type": "text", "text": text}]}
    return {"type": "rich_text", "elements": [section]}


def _task(chunk: dict[str, Any], old: dict[str, Any]) -> dict[str, Any]:
    task = {**old, "type": "task_card", "task_id": chunk["id"], "title": chunk["title"]}
    task["status"] = chunk["status"]
    for key in ("details", "output"):
        if chunk.get(key):
            task[key] = _rich(str(chunk[key]))
    if chunk.get("sources"):
        task["sources"] = [*old.get("sources", ()), *chunk["sources"]]
    return task


def _place_task(blocks: list[dict[str, Any]], chunk: dict[str, Any], mode: str) -> None:
    places = blocks
    if mode == "plan":
        plan = next((block for block in blocks if block["type"] == "plan"), None)
        if plan is None:
            plan = {"type": "plan", "title": "Plan", "tasks": []}
            blocks.append(plan)
        places = plan["tasks"]
    for index, task in enumerate(places):
        if task.get("task_id") == chunk["id"]:
            places[index] = _task(chunk, task)
            return
    places.append(_task(chunk, {}))


def _apply(blocks: list[dict[str, Any]], chunks: list[dict[str, Any]], mode: str) -> list[dict[str, Any]]:
    """The blocks with the chunks added. Raises invalid_chunks, invalid_blocks."""
    for chunk in chunks:
        kind = chunk.get("type")
        try:
            if kind == "markdown_text" and blocks and blocks[-1]["type"] == "markdown":
                blocks[-1]["text"] += chunk["text"]
            elif kind == "markdown_text":
                blocks.append({"type": "markdown", "text": chunk["text"]})
            elif kind == "task_update":
                _place_task(blocks, chunk, mode)
            elif kind == "plan_update":
                plan = next((block for block in blocks if block["type"] == "plan"), None)
                if plan is None:
                    blocks.append({"type": "plan", "title": chunk["title"], "tasks": []})
                else:
                    plan["title"] = chunk["title"]
            elif kind == "blocks":
                blocks += chunk["blocks"]
            else:
                raise SlackError("invalid_chunks")
        except KeyError as error:
            raise missing(f"chunks/{error.args[0]}") from None
    problems = validate_blocks(blocks)
    if problems:
        raise with_reasons("invalid_blocks", problems)
    return filled(blocks)


async def start(core: Core, args: Arguments) -> dict[str, Any]:
    """Begin a streamed reply to a person's request in a thread."""
    channel_id, thread_ts = args.required("channel", "thread_ts")
    channel = core.member_channel(channel_id)
    if args.text("recipient_user_id") not in USERS:
        raise SlackError("missing_recipient_user_id")
    if not args.has("recipient_team_id"):
        raise SlackError("missing_recipient_team_id")
    root_ts = core.messages.root_ts(channel, thread_ts)
    if root_ts is None:
        raise SlackError("thread_not_found")
    mode = args.text("task_display_mode", "timeline")
    blocks = _apply([], _chunks(args), mode)
    message = core.bot_message(plain_fallback(blocks), thread_ts=root_ts, blocks=blocks, streaming=mode)
    posted = core.post(channel, message)
    return {"channel": channel, "ts": posted["ts"]}


def _streaming(core: Core, channel: str, ts: str) -> Message:
    message = core.messages.get(channel, ts)
    if message is None or message["user"] != BOT_USER_ID:
        raise SlackError("message_not_found")
    if "streaming" not in message:
        raise SlackError("message_not_in_streaming_state")
    return message


async def append(core: Core, args: Arguments) -> dict[str, Any]:
    channel, ts = args.required("channel", "ts")
    message = _streaming(core, core.channel(channel), ts)
    message["blocks"] = _apply(message.get("blocks", []), _chunks(args), message["streaming"])
    message["text"] = plain_fallback(message["blocks"])
    core.messages.put(channel, message)
    return {"channel": channel, "ts": ts}


async def stop(core: Core, args: Arguments) -> dict[str, Any]:
    """Finish: last chunks, then the closing blocks; only now does the bot get its message_changed event."""
    channel, ts = args.required("channel", "ts")
    message = _streaming(core, core.channel(channel), ts)
    closing = args.json("blocks", "invalid_blocks_format") or []
    chunks = [*_chunks(args), {"type": "blocks", "blocks": closing}]
    message["blocks"] = _apply(message.get("blocks", []), chunks, message.pop("streaming"))
    message["text"] = plain_fallback(message["blocks"])
    metadata = checked_metadata(args)
    if metadata is not None:
        message["metadata"] = metadata
    changed = core.change(channel, message)
    return {"channel": channel, "ts": ts, "message": changed}
