"""Interaction and command payloads in Slack's shapes."""

import time
from typing import Any

from bot.demo.slack.core import Core
from bot.demo.slack.messages import Message
from bot.demo.slack.workspace import APP_ID, CHANNELS, TEAM_DOMAIN, TEAM_ID, User


def _common(user: User, kind: str) -> dict[str, Any]:
    return {
        "type": kind,
        "team": {"id": TEAM_ID, "domain": TEAM_DOMAIN},
        "user": {"id": user.id, "username": user.name, "name": user.name, "team_id": TEAM_ID},
        "api_app_id": APP_ID,
        "token": "local",
        "enterprise": None,
        "is_enterprise_install": False,
    }


def action(element: dict[str, Any], block_id: str, state: dict[str, Any], value: str | None) -> dict[str, Any]:
    """The entry of `actions` for a pressed or changed element."""
    kind = element["type"]
    pressed: dict[str, Any] = {
        "type": kind,
        "action_id": element["action_id"],
        "block_id": block_id,
        "action_ts": f"{time.time():.6f}",
    }
    if kind in ("button", "icon_button", "feedback_buttons"):
        kept = ("text", "style", "url", "confirm", "value")
        pressed |= {key: element[key] for key in kept if key in element}
        if kind == "feedback_buttons":
            choices = (element["positive_button"], element["negative_button"])
            pressed |= next((choice for choice in choices if choice["value"] == value), choices[0])
    else:
        pressed |= {key: content for key, content in state.items() if key != "type"}
    return pressed


def message_action(core: Core, user: User, channel: str, message: Message, pressed: dict[str, Any]) -> dict[str, Any]:
    """block_actions for an element of a message; an ephemeral message is not in its payload."""
    is_ephemeral = bool(message.get("ephemeral"))
    thread_ts = message.get("thread_ts")
    container: dict[str, Any] = {
        "type": "message",
        "message_ts": message["ts"],
        "channel_id": channel,
        "is_ephemeral": is_ephemeral,
    }
    if thread_ts is not None:
        container["thread_ts"] = thread_ts
    path = core.response_urls.issue(
        user.id, channel, thread_ts=thread_ts, message_ts=message["ts"], is_ephemeral=is_ephemeral
    )
    payload = {
        **_common(user, "block_actions"),
        "container": container,
        "channel": {"id": channel, "name": CHANNELS[channel].name},
        "trigger_id": core.triggers.issue(user.id),
        "response_url": core.base_url + path,
        "state": {"values": {}},
        "actions": [pressed],
    }
    return payload if is_ephemeral else {**payload, "message": message}


def view_action(core: Core, user: User, view: dict[str, Any], pressed: dict[str, Any]) -> dict[str, Any]:
    """block_actions for an element of a modal or of the Home tab."""
    return {
        **_common(user, "block_actions"),
        "container": {"type": "view", "view_id": view["id"]},
        "trigger_id": core.triggers.issue(user.id, view["id"] if view["type"] == "modal" else None),
        "view": view,
        "actions": [pressed],
    }


def view_submission(core: Core, user: User, view: dict[str, Any]) -> dict[str, Any]:
    trigger_id = core.triggers.issue(user.id, view["id"])
    return {**_common(user, "view_submission"), "trigger_id": trigger_id, "view": view, "response_urls": []}


def view_closed(user: User, view: dict[str, Any], is_cleared: bool) -> dict[str, Any]:
    return {**_common(user, "view_closed"), "view": view, "is_cleared": is_cleared}


def command(core: Core, user: User, channel: str, name: str, text: str) -> dict[str, Any]:
    """A slash command; every value is text, as in the form Slack posts."""
    return {
        "token": "local",
        "team_id": TEAM_ID,
        "team_domain": TEAM_DOMAIN,
        "channel_id": channel,
        "channel_name": CHANNELS[channel].name,
        "user_id": user.id,
        "user_name": user.name,
        "command": name,
        "text": text,
        "api_app_id": APP_ID,
        "is_enterprise_install": "false",
        "response_url": core.base_url + core.response_urls.issue(user.id, channel),
        "trigger_id": core.triggers.issue(user.id),
    }
