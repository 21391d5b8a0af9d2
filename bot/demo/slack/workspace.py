"""The people and channels of the local workspace, and how text typed by a person is stored."""

import re
from dataclasses import dataclass
from typing import Any, Literal

TEAM_ID = "T0LOCAL"
TEAM_NAME = "Local"
TEAM_DOMAIN = "local"
APP_ID = "A0SREBOT"
BOT_ID = "B0SREBOT"
BOT_USER_ID = "U0SREBOT"
APPROVERS_GROUP_ID = "S0SRE"
BORN_AT_S = 1_700_000_000
"""`created` and `updated` of everything that was there from the start, in epoch seconds."""

Role = Literal["approver", "engineer", "guest", "bot"]


@dataclass(frozen=True, slots=True)
class User:
    """A member of the workspace; `name` is the handle, `color` six hex digits."""

    id: str
    name: str
    real_name: str
    role: Role
    color: str

    @property
    def initials(self) -> str:
        return "".join(word[0] for word in re.split(r"[\s-]", self.real_name)).upper()[:2]

    def for_page(self) -> dict[str, Any]:
        return {
            "id": self.id,
            "name": self.name,
            "real_name": self.real_name,
            "role": self.role,
            "color": "#" + self.color,
            "initials": self.initials,
        }

    def for_api(self) -> dict[str, Any]:
        """The user object of users.info."""
        is_bot = self.role == "bot"
        profile = {
            "real_name": self.real_name,
            "real_name_normalized": self.real_name,
            "display_name": self.name,
            "display_name_normalized": self.name,
            "team": TEAM_ID,
        }
        if is_bot:
            profile |= {"bot_id": BOT_ID, "api_app_id": APP_ID}
        return {
            "id": self.id,
            "team_id": TEAM_ID,
            "name": self.name,
            "real_name": self.real_name,
            "color": self.color,
            "deleted": False,
            "tz": "Etc/UTC",
            "tz_label": "Coordinated Universal Time",
            "tz_offset": 0,
            "profile": profile,
            "is_admin": False,
            "is_owner": False,
            "is_primary_owner": False,
            "is_restricted": self.role == "guest",
            "is_ultra_restricted": False,
            "is_bot": is_bot,
            "is_app_user": False,
            "updated": BORN_AT_S,
        }


@dataclass(frozen=True, slots=True)
class Channel:
    """A public channel; every person is a member of each, the bot of some."""

    id: str
    name: str

    def for_api(self, bot_is_member: bool) -> dict[str, Any]:
        """The channel object of conversations.info."""
        return {
            "id": self.id,
            "name": self.name,
            "name_normalized": self.name,
            "is_channel": True,
            "is_group": False,
            "is_im": False,
            "is_mpim": False,
            "is_private": False,
            "is_archived": False,
            "is_general": self.name == "general",
            "is_shared": False,
            "is_ext_shared": False,
            "is_org_shared": False,
            "is_member": bot_is_member,
            "created": BORN_AT_S,
            "creator": "U0ALICE",
            "num_members": len(PEOPLE) + bot_is_member,
            "topic": {"value": "", "creator": "", "last_set": 0},
            "purpose": {"value": "", "creator": "", "last_set": 0},
        }


PEOPLE = (
    User("U0ALICE", "alice", "Alice Moreau", "approver", "2f7ed8"),
    User("U0BOB", "bob", "Bob Tanaka", "approver", "e06b56"),
    User("U0CARLA", "carla", "Carla Diaz", "engineer", "3a9b6b"),
    User("U0GIL", "gil", "Gil Novak", "guest", "8d6cab"),
)
BOT = User(BOT_USER_ID, "sre-bot", "sre-bot", "bot", "1d1c1d")
USERS = {user.id: user for user in (*PEOPLE, BOT)}
CHANNELS = {c.id: c for c in (Channel("C0INCIDENTS", "incidents"), Channel("C0GENERAL", "general"))}
HOME_CHANNELS = frozenset({"C0INCIDENTS"})
"""Where the bot is a member from the start."""

_KEPT = re.compile(r"<(?:@(?P<user>\w+)|#(?P<channel>\w+)(?:\|[^>]*)?|!(?:here|channel|everyone))>")
_URL = re.compile(r"https?://[^\s<>|]+")


def escape(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _mentions(text: str) -> str:
    names = {user.name: user.id for user in USERS.values()} | {u.real_name: u.id for u in USERS.values()}
    names["sre"] = BOT_USER_ID
    for name in sorted(names, key=len, reverse=True):
        text = re.sub(rf"(?<![\w@])@{re.escape(name)}(?![\w-])", f"<@{names[name]}>", text, flags=re.IGNORECASE)
    for channel in CHANNELS.values():
        text = re.sub(rf"(?<![\w#])#{channel.name}(?![\w-])", f"<#{channel.id}|{channel.name}>", text)
    return text


def typed_text(text: str) -> str:
    """What Slack stores for text a person typed: escaped, with names as <@U…>, channels as <#C…> and <links>.

    `@sre-bot`, `@sre` and people's names or handles become mentions, as picked from the client's list.
    """
    parts: list[str] = []
    end = 0
    for match in _KEPT.finditer(text):
        known = match["user"] in USERS or match["channel"] in CHANNELS or text[match.start() + 1] == "!"
        if known:
            parts += [text[end : match.start()], match.group()]
            end = match.end()
    parts.append(text[end:])
    for index in range(0, len(parts), 2):
        linked = _URL.sub(lambda found: f"\0{found.group()}\1", parts[index])
        parts[index] = _mentions(escape(linked).replace("\0", "<").replace("\1", ">"))
    return "".join(parts)
