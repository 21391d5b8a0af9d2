"""files.* methods: upload in three steps, and files.info to see when a file is ready."""

from typing import Any

from bot.demo.slack.arguments import Arguments
from bot.demo.slack.core import Core
from bot.demo.slack.errors import SlackError
from bot.demo.slack.methods_chat import checked_blocks

MAX_FILE_BYTES = 32 * 1024 * 1024
"""Enough for charts and logs; Slack itself takes 1 GB."""


async def get_upload_url(core: Core, args: Arguments) -> dict[str, Any]:
    name, _ = args.required("filename", "length")
    length = args.integer("length", 0)
    if not 0 < length <= MAX_FILE_BYTES:
        raise SlackError("file_upload_size_restricted" if length > 0 else "invalid_arguments")
    file_id, secret = core.files.issue_upload(name, length, args.text("alt_txt"))
    return {"upload_url": f"{core.base_url}/upload/v1/{secret}", "file_id": file_id}


async def complete_upload(core: Core, args: Arguments) -> dict[str, Any]:
    """Finish uploads; with `channel_id` they are shared there in one message by the bot."""
    wanted = args.json("files")
    if not isinstance(wanted, list) or not wanted or not all(isinstance(f, dict) and "id" in f for f in wanted):
        raise SlackError("invalid_arguments")
    channel = core.member_channel(args.text("channel_id")) if args.has("channel_id") else None
    root_ts = None
    if channel is not None and args.has("thread_ts"):
        root_ts = core.messages.root_ts(channel, args.text("thread_ts"))
        if root_ts is None:
            raise SlackError("invalid_thread_ts")
    blocks = checked_blocks(core, args)
    for file in wanted:
        core.files.complete(str(file["id"]), file.get("title"))
    described = [core.files.describe(str(file["id"]), core.base_url) for file in wanted]
    if channel is not None:
        text = args.text("initial_comment")
        shared = {"files": described, "upload": True, "subtype": "file_share"}
        message = core.bot_message(text, thread_ts=root_ts, blocks=None if text else blocks, **shared)
        core.post(channel, message)
    return {"files": described}


async def info(core: Core, args: Arguments) -> dict[str, Any]:
    file = core.files.describe(args.required("file")[0], core.base_url)
    return {"file": file, "comments": [], "response_metadata": {"next_cursor": ""}}
