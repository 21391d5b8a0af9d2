"""Everything the local Slack knows, put together once and handed to its endpoints."""

from dataclasses import dataclass
from typing import Any

from bot.demo.slack.blockfill import slack_files
from bot.demo.slack.changes import Changes
from bot.demo.slack.deliver import Delivery
from bot.demo.slack.errors import SlackError
from bot.demo.slack.feed import Feed
from bot.demo.slack.files import Files
from bot.demo.slack.journal import Journal
from bot.demo.slack.limits import Trouble
from bot.demo.slack.manifest import AppManifest
from bot.demo.slack.messages import Message, Messages
from bot.demo.slack.tickets import ResponseUrls, Triggers
from bot.demo.slack.views import Views
from bot.demo.slack.workspace import APP_ID, BOT_ID, BOT_USER_ID, CHANNELS, TEAM_ID
from bot.slack.blocks import Problem


@dataclass(slots=True)
class Core:
    """The stores and services of one local Slack; `base_url` is known once it listens."""

    manifest: AppManifest
    journal: Journal
    changes: Changes
    messages: Messages
    views: Views
    files: Files
    triggers: Triggers
    response_urls: ResponseUrls
    trouble: Trouble
    members: set[str]
    delivery: Delivery
    feed: Feed
    base_url: str = ""

    def channel(self, channel_id: str) -> str:
        """The id if the bot can see that channel. Raises channel_not_found."""
        if channel_id not in CHANNELS:
            raise SlackError("channel_not_found")
        return channel_id

    def member_channel(self, channel_id: str) -> str:
        """The id if the bot is a member there. Raises channel_not_found or not_in_channel."""
        if self.channel(channel_id) not in self.members:
            raise SlackError("not_in_channel")
        return channel_id

    def join(self, channel_id: str, inviter: str) -> None:
        """Make the bot a member of a channel."""
        self.members.add(channel_id)
        self.journal.put("member", channel_id, {"inviter": inviter})
        self.changes.bump()
        self.feed.joined(channel_id, inviter)

    def bot_message(self, text: str, **more: Any) -> Message:
        """A message by the bot with a ts of its own; keys whose value is None are left out."""
        message = {
            "type": "message",
            "user": BOT_USER_ID,
            "bot_id": BOT_ID,
            "app_id": APP_ID,
            "team": TEAM_ID,
            "bot_profile": self.bot_profile(),
            "text": text,
            "ts": self.messages.next_ts(),
        }
        return message | {key: value for key, value in more.items() if value is not None}

    @staticmethod
    def bot_profile() -> dict[str, Any]:
        return {
            "id": BOT_ID,
            "app_id": APP_ID,
            "user_id": BOT_USER_ID,
            "name": "sre-bot",
            "team_id": TEAM_ID,
            "deleted": False,
        }

    def post(self, channel: str, message: Message) -> Message:
        """Store a new message, tell the bot, return it as the API shows it."""
        self.messages.put(channel, message)
        posted = self.messages.get(channel, message["ts"])
        assert posted is not None
        self.feed.posted(channel, posted)
        return posted

    def change(self, channel: str, message: Message) -> Message:
        """Replace a message by one with the same ts, tell the bot, return it as the API shows it."""
        previous = self.messages.get(channel, message["ts"])
        self.messages.put(channel, message)
        changed = self.messages.get(channel, message["ts"])
        assert changed is not None
        assert previous is not None
        self.feed.changed(channel, changed, previous)
        return changed

    def delete(self, channel: str, ts: str) -> None:
        """Take a message away and tell the bot."""
        previous = self.messages.get(channel, ts)
        self.messages.remove(channel, ts)
        assert previous is not None
        self.feed.deleted(channel, previous)

    def unknown_files(self, blocks: Any) -> list[Problem]:
        """Pictures in the blocks whose file was never uploaded or is still being processed."""
        return [
            Problem(pointer, "invalid slack file")
            for pointer, file in slack_files(blocks)
            if self.files.id_of(file) is None
        ]
