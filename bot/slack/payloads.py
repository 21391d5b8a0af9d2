"""What Slack sends, as far as it is used: parsed once, at the door. Other keys are passed over."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from bot.slack import names
from pipeline.domain.ids import IncidentId, SlackUserId

Body = Mapping[str, Any]


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")


class _Id(_Part):
    id: str


class _User(_Part):
    id: str
    team_id: str | None = None


class _Option(_Part):
    value: str


class _Action(_Part):
    action_id: str
    value: str = ""
    selected_option: _Option | None = None


class _MessageRef(_Part):
    ts: str
    thread_ts: str | None = None


class _State(_Part):
    values: dict[str, dict[str, dict[str, Any]]] = Field(default_factory=dict)


class _View(_Part):
    id: str
    type: str
    private_metadata: str = ""
    state: _State = Field(default_factory=_State)


class _Interaction(_Part):
    user: _User
    team: _Id | None = None
    trigger_id: str = ""

    @property
    def user_id(self) -> SlackUserId:
        return SlackUserId(self.user.id)

    @property
    def team_id(self) -> str:
        """The person's own workspace; that of the channel where Slack does not say."""
        return self.user.team_id or (self.team.id if self.team else "")


class Click(_Interaction):
    """A block_actions payload: one element of a message or of App Home."""

    actions: tuple[_Action, ...] = Field(min_length=1)
    channel: _Id | None = None
    message: _MessageRef | None = None
    view: _View | None = None

    @property
    def value(self) -> str:
        """The button's value, or that of the option chosen in a menu."""
        action = self.actions[0]
        return action.selected_option.value if action.selected_option else action.value

    @property
    def token(self) -> str:
        """The random name of a plan; empty when the button bears something else, as those of older versions do."""
        return parse_token(self.value)

    @property
    def root_ts(self) -> str | None:
        """The message at the top of the thread that was clicked in; None outside messages."""
        return None if self.message is None else self.message.thread_ts or self.message.ts

    @property
    def incident_id(self) -> IncidentId | None:
        number = parse_number(self.value.rpartition(":")[2])
        return None if number is None else IncidentId(number)

    @property
    def on_home(self) -> bool:
        return self.view is not None and self.view.type == "home"


class Submission(_Interaction):
    """A view_submission payload."""

    view: _View

    def typed(self, block_id: str) -> str:
        """The text entered in that block, stripped; empty when nothing was."""
        value = self.view.state.values.get(block_id, {}).get(names.TYPED, {}).get("value")
        return value.strip() if isinstance(value, str) else ""

    def chosen(self, block_id: str) -> str:
        """The value of the option chosen in that block; empty when none was."""
        option = self.view.state.values.get(block_id, {}).get(names.TYPED, {}).get("selected_option")
        return str(option.get("value", "")) if isinstance(option, dict) else ""


class SlashCommand(_Part):
    """A slash command as typed: ``command`` with its slash, ``text`` what follows."""

    command: str
    text: str = ""
    user_id: SlackUserId
    team_id: str
    channel_id: str
    trigger_id: str = ""


class _Event(_Part):
    type: str
    user: SlackUserId | None = None
    team: str | None = None
    user_team: str | None = None
    text: str = ""
    channel: str = ""
    channel_type: str = ""
    ts: str = ""
    thread_ts: str | None = None
    parent_user_id: str | None = None
    """Who wrote the message that the thread hangs on."""
    subtype: str | None = None
    bot_id: str | None = None
    tab: str = ""


class EventCall(_Part):
    """An event with its envelope; ``event_id`` is the same when Slack delivers it again."""

    event_id: str
    team_id: str
    event: _Event

    @property
    def user_team_id(self) -> str:
        return self.event.user_team or self.event.team or self.team_id


_TOKEN = re.compile(r"[0-9a-f]{32}")


def parse_token(text: str) -> str:
    """A plan's random name as it stands on a button; empty when the text is none."""
    return text if _TOKEN.fullmatch(text) else ""


def parse_number(text: str) -> int | None:
    """An id as we wrote it on a button: ASCII digits that fit a bigint, else None."""
    return int(text) if text.isascii() and text.isdecimal() and len(text) <= 18 else None
