"""api.test, auth.test, users.*, usergroups.*, bots.info: who is who."""

from typing import Any

from bot.demo.slack.arguments import Arguments
from bot.demo.slack.core import Core
from bot.demo.slack.errors import SlackError
from bot.demo.slack.methods_conversations import paged
from bot.demo.slack.workspace import (
    APP_ID,
    APPROVERS_GROUP_ID,
    BORN_AT_S,
    BOT,
    BOT_ID,
    BOT_USER_ID,
    PEOPLE,
    TEAM_ID,
    TEAM_NAME,
    USERS,
)

APPROVERS = [user.id for user in PEOPLE if user.role == "approver"]


async def api_test(_core: Core, args: Arguments) -> dict[str, Any]:
    if args.has("error"):
        raise SlackError(args.text("error"))
    return {"args": args.shown()}


async def auth_test(core: Core, _args: Arguments) -> dict[str, Any]:
    return {
        "url": core.base_url + "/",
        "team": TEAM_NAME,
        "user": BOT.name,
        "team_id": TEAM_ID,
        "user_id": BOT_USER_ID,
        "bot_id": BOT_ID,
        "is_enterprise_install": False,
    }


async def user_info(_core: Core, args: Arguments) -> dict[str, Any]:
    user = USERS.get(args.required("user")[0])
    if user is None:
        raise SlackError("user_not_found")
    return {"user": user.for_api()}


async def list_users(_core: Core, args: Arguments) -> dict[str, Any]:
    return paged("members", [user.for_api() for user in USERS.values()], args)


async def list_groups(_core: Core, args: Arguments) -> dict[str, Any]:
    group = {
        "id": APPROVERS_GROUP_ID,
        "team_id": TEAM_ID,
        "is_usergroup": True,
        "name": "sre-approvers",
        "handle": "sre-approvers",
        "description": "May approve what sre-bot proposes",
        "is_external": False,
        "date_create": BORN_AT_S,
        "date_update": BORN_AT_S,
        "date_delete": 0,
        "user_count": len(APPROVERS),
    }
    return {"usergroups": [group | ({"users": APPROVERS} if args.flag("include_users") else {})]}


async def list_group_users(_core: Core, args: Arguments) -> dict[str, Any]:
    if args.required("usergroup")[0] != APPROVERS_GROUP_ID:
        raise SlackError("no_such_subteam")
    return {"users": APPROVERS}


async def bot_info(_core: Core, args: Arguments) -> dict[str, Any]:
    if args.text("bot", BOT_ID) != BOT_ID:
        raise SlackError("bot_not_found")
    bot = {"id": BOT_ID, "deleted": False, "name": BOT.name, "updated": BORN_AT_S}
    return {"bot": {**bot, "app_id": APP_ID, "user_id": BOT_USER_ID}}
