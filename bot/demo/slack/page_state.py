"""What one person sees of the workspace, as the page gets it."""

from typing import Any

from bot.demo.slack.blockfill import slack_files
from bot.demo.slack.core import Core
from bot.demo.slack.errors import SlackError
from bot.demo.slack.messages import Message
from bot.demo.slack.workspace import CHANNELS, TEAM_DOMAIN, TEAM_ID, TEAM_NAME, USERS, User


def _with_urls(core: Core, blocks: list[dict[str, Any]]) -> None:
    for _, file in slack_files(blocks):
        file_id = core.files.id_of(file)
        if file_id is not None:
            file["url"] = core.files.path(file_id)


def _shown(core: Core, message: Message) -> Message:
    shown = {key: value for key, value in message.items() if key != "metadata"}
    _with_urls(core, shown.get("blocks", []))
    if "files" in shown:
        shown["files"] = [_file(core, file["id"]) for file in shown["files"]]
    return shown


def _file(core: Core, file_id: str) -> dict[str, Any]:
    try:
        described = core.files.describe(file_id, "")
    except SlackError:
        return {"id": file_id, "name": "deleted file"}
    # The page need not wait for the processing that the bot has to wait for.
    return {**described, "mimetype": core.files.mimetype(file_id), "url": core.files.path(file_id)}


def _view(core: Core, view: dict[str, Any] | None) -> dict[str, Any] | None:
    if view is not None:
        _with_urls(core, view["blocks"])
    return view


def state_for(core: Core, user: User) -> dict[str, Any]:
    """Users, channels, messages, views, commands, and how the bot is doing, as seen by `user`."""
    messages = {channel: [_shown(core, m) for m in core.messages.all(channel)] for channel in CHANNELS}
    for channel, message in core.messages.ephemeral(user.id):
        messages[channel].append(_shown(core, message))
    for listed in messages.values():
        listed.sort(key=lambda message: str(message["ts"]))
    transport = core.delivery.transport
    is_http = transport.mode == "http"
    return {
        "rev": core.changes.rev,
        "team": {"id": TEAM_ID, "name": TEAM_NAME, "domain": TEAM_DOMAIN},
        "me": user.id,
        "users": [each.for_page() for each in USERS.values()],
        "channels": [
            {"id": channel.id, "name": channel.name, "is_member": channel.id in core.members}
            for channel in CHANNELS.values()
        ],
        "messages": messages,
        "home": _view(core, core.views.home(user.id)),
        "modals": [_view(core, view) for view in core.views.stack(user.id)],
        "commands": [
            {"command": c.command, "usage_hint": c.usage_hint, "description": c.description}
            for c in core.manifest.commands
        ],
        "bot": {
            "connected": transport.connected,
            "mode": transport.mode if transport.connected or is_http else "none",
        },
        "trouble": core.trouble.for_page(),
    }
