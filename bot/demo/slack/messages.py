"""The messages of each channel, with their threads, and the ones only one person sees."""

import copy
import time
from collections.abc import Iterator
from typing import Any

from bot.demo.slack.changes import Changes
from bot.demo.slack.journal import Journal
from bot.demo.slack.workspace import CHANNELS

Message = dict[str, Any]


class Messages:
    """Messages as Slack's JSON, by channel and ts. A thread is its root's ts in `thread_ts` of the replies.

    What is handed out are copies: the stored ones change only through `put` and `remove`.
    """

    def __init__(self, journal: Journal, changes: Changes) -> None:
        self._journal = journal
        self._changes = changes
        self._by_channel: dict[str, dict[str, Message]] = {channel: {} for channel in CHANNELS}
        self._replies: dict[tuple[str, str], list[str]] = {}
        self._ephemeral: dict[str, dict[tuple[str, str], Message]] = {}
        self._last_ts_us = 0
        for key, message in journal.all("message"):
            self._keep(key.partition("/")[0], message)

    def next_ts(self) -> str:
        """A new ts: seconds and microseconds, later than every other."""
        self._last_ts_us = max(time.time_ns() // 1000, self._last_ts_us + 1)
        return f"{self._last_ts_us // 1_000_000}.{self._last_ts_us % 1_000_000:06d}"

    def _keep(self, channel: str, message: Message) -> None:
        ts = message["ts"]
        self._by_channel[channel][ts] = message
        thread_ts = message.get("thread_ts")
        if thread_ts is not None and thread_ts != ts:
            replies = self._replies.setdefault((channel, thread_ts), [])
            if ts not in replies:
                replies.append(ts)
        self._last_ts_us = max(self._last_ts_us, int(ts.replace(".", "")))

    def put(self, channel: str, message: Message) -> None:
        """Store a new message, or the new content of one that has its ts."""
        self._keep(channel, copy.deepcopy(message))
        self._journal.put("message", f"{channel}/{message['ts']}", message)
        self._changes.bump()

    def remove(self, channel: str, ts: str) -> None:
        """Take a message away; the root of a thread stays as a tombstone, as in Slack."""
        message = self._by_channel[channel][ts]
        if self._replies.get((channel, ts)):
            tombstone = {
                "type": "message",
                "subtype": "tombstone",
                "hidden": True,
                "user": "USLACKBOT",
                "text": "This message was deleted.",
                "ts": ts,
                "thread_ts": ts,
            }
            self.put(channel, tombstone)
            return
        del self._by_channel[channel][ts]
        thread_ts = message.get("thread_ts")
        if thread_ts is not None and thread_ts != ts:
            self._replies[channel, thread_ts].remove(ts)
        self._journal.remove("message", f"{channel}/{ts}")
        self._changes.bump()

    def get(self, channel: str, ts: str) -> Message | None:
        message = self._by_channel.get(channel, {}).get(ts)
        return None if message is None else self._shown(channel, message)

    def root_ts(self, channel: str, ts: str) -> str | None:
        """The ts of the thread that message is in or would start; None when there is no such message."""
        message = self._by_channel[channel].get(ts)
        return None if message is None else str(message.get("thread_ts") or ts)

    def roots(self, channel: str) -> list[Message]:
        """What the channel itself shows, oldest first: no replies but those also sent to the channel."""
        return [m for m in self.all(channel) if self._is_root(m) or m.get("subtype") == "thread_broadcast"]

    def thread(self, channel: str, root_ts: str) -> list[Message]:
        """The root and its replies, oldest first."""
        stored = self._by_channel[channel]
        thread = [root_ts, *sorted(self._replies.get((channel, root_ts), ()))]
        return [self._shown(channel, stored[ts]) for ts in thread if ts in stored]

    def all(self, channel: str) -> list[Message]:
        """Roots and replies, by ts."""
        return [self._shown(channel, message) for _, message in sorted(self._by_channel[channel].items())]

    @staticmethod
    def _is_root(message: Message) -> bool:
        return message.get("thread_ts") in (None, message["ts"])

    def _shown(self, channel: str, message: Message) -> Message:
        shown = copy.deepcopy(message)
        replies = self._replies.get((channel, message["ts"]))
        if replies:
            users = list(dict.fromkeys(self._by_channel[channel][ts]["user"] for ts in sorted(replies)))
            shown |= {
                "thread_ts": message["ts"],
                "reply_count": len(replies),
                "reply_users": users,
                "reply_users_count": len(users),
                "latest_reply": max(replies),
                "is_locked": False,
                "subscribed": False,
            }
        return shown

    def put_ephemeral(self, user_id: str, channel: str, message: Message) -> None:
        """Show a message to one person. Slack keeps these nowhere, so a restart forgets them here too."""
        mine = self._ephemeral.setdefault(user_id, {})
        mine[channel, message["ts"]] = {**copy.deepcopy(message), "ephemeral": True}
        self._changes.bump(only=user_id)

    def get_ephemeral(self, user_id: str, channel: str, ts: str) -> Message | None:
        return copy.deepcopy(self._ephemeral.get(user_id, {}).get((channel, ts)))

    def remove_ephemeral(self, user_id: str, channel: str, ts: str) -> None:
        self._ephemeral.get(user_id, {}).pop((channel, ts), None)
        self._changes.bump(only=user_id)

    def ephemeral(self, user_id: str) -> Iterator[tuple[str, Message]]:
        """(channel, message) of everything only this person sees."""
        for (channel, _), message in self._ephemeral.get(user_id, {}).items():
            yield channel, copy.deepcopy(message)
