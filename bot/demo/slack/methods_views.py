"""views.* methods: open, push, update, publish."""

from typing import Any

from bot.demo.slack.arguments import Arguments
from bot.demo.slack.core import Core
from bot.demo.slack.errors import SlackError, missing, with_reasons
from bot.demo.slack.workspace import USERS
from bot.slack.blocks import Problem, validate_view


def checked_view(core: Core, view: Any, kind: str) -> dict[str, Any]:
    """The view, known to be what Slack accepts. Raises invalid_arguments with the reasons."""
    problems = validate_view(view)
    if not problems:
        problems = core.unknown_files(view["blocks"])
    if not problems and view["type"] != kind:
        problems = [Problem("/type", f"must be {kind}")]
    if problems:
        shown = [Problem(f"/view{problem.path}", problem.reason) for problem in problems]
        raise with_reasons("invalid_arguments", shown)
    checked: dict[str, Any] = view
    return checked


def _view(core: Core, args: Arguments, kind: str) -> dict[str, Any]:
    if not args.has("view"):
        raise missing("view")
    return checked_view(core, args.json("view"), kind)


async def open_view(core: Core, args: Arguments) -> dict[str, Any]:
    view = _view(core, args, "modal")
    trigger = core.triggers.exchange(args.required("trigger_id")[0])
    return {"view": core.views.open(trigger.user_id, view)}


async def push(core: Core, args: Arguments) -> dict[str, Any]:
    view = _view(core, args, "modal")
    trigger = core.triggers.exchange(args.required("trigger_id")[0])
    if trigger.from_view_id is None:
        raise SlackError("invalid_trigger_id")
    return {"view": core.views.push(trigger.user_id, view)}


async def update(core: Core, args: Arguments) -> dict[str, Any]:
    view = _view(core, args, "modal")
    view_id = args.text("view_id") or core.views.id_of(args.text("external_id"))
    if not view_id:
        raise SlackError("not_found")
    return {"view": core.views.update(view_id, view, args.text("hash") or None)}


async def publish(core: Core, args: Arguments) -> dict[str, Any]:
    view = _view(core, args, "home")
    user_id = args.required("user_id")[0]
    if user_id not in USERS:
        raise SlackError("user_not_found")
    return {"view": core.views.publish(user_id, view, args.text("hash") or None)}
