"""Which events the bot hears about, in Slack's shapes. Only what it subscribed to, only where it is a member."""

from typing import Any

from bot.demo.slack.deliver import Delivery
from bot.demo.slack.messages import Message, Messages
from bot.demo.slack.workspace import BOT_USER_ID, TEAM_ID


class Feed:
    """Turns what happened in the workspace into events for the bot, its own messages included."""

    def __init__(self, delivery: Delivery, messages: Messages, subscribed: frozenset[str], members: set[str]) -> None:
        self._delivery = delivery
        self._messages = messages
        self._subscribed = subscribed
        self._members = members

    def _message_event(self, channel: str, event: dict[str, Any]) -> None:
        if "message.channels" in self._subscribed and channel in self._members:
            self._delivery.event({"type": "message", "channel": channel, "channel_type": "channel", **event})

    def posted(self, channel: str, message: Message) -> None:
        """A new message of anyone; a person's mention of the bot is an app_mention beside it."""
        event = {key: value for key, value in message.items() if key != "metadata"}
        event |= {"team": TEAM_ID, "event_ts": message["ts"]}
        self._message_event(channel, event)
        mentions = f"<@{BOT_USER_ID}>" in message["text"] and message["user"] != BOT_USER_ID
        if mentions and channel in self._members and "app_mention" in self._subscribed:
            self._delivery.event({**event, "type": "app_mention", "channel": channel})

    def changed(self, channel: str, message: Message, previous: Message) -> None:
        ts = self._messages.next_ts()
        event = {"subtype": "message_changed", "message": message, "previous_message": previous}
        self._message_event(channel, {**event, "hidden": True, "ts": ts, "event_ts": ts})

    def deleted(self, channel: str, previous: Message) -> None:
        ts = self._messages.next_ts()
        event = {"subtype": "message_deleted", "previous_message": previous, "deleted_ts": previous["ts"]}
        self._message_event(channel, {**event, "hidden": True, "ts": ts, "event_ts": ts})

    def joined(self, channel: str, inviter: str) -> None:
        """The bot became a member of a channel."""
        if "member_joined_channel" in self._subscribed:
            self._delivery.event(
                {
                    "type": "member_joined_channel",
                    "user": BOT_USER_ID,
                    "channel": channel,
                    "channel_type": "C",
                    "team": TEAM_ID,
                    "inviter": inviter,
                    "event_ts": self._messages.next_ts(),
                }
            )

    def home_opened(self, user_id: str, view: dict[str, Any] | None) -> None:
        if "app_home_opened" in self._subscribed:
            event: dict[str, Any] = {
                "type": "app_home_opened",
                "user": user_id,
                "channel": "D" + user_id[1:],
                "tab": "home",
                "event_ts": self._messages.next_ts(),
            }
            self._delivery.event(event if view is None else {**event, "view": view})
