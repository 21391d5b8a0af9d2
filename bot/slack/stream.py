"""An answer that grows in its thread while it is written, and is replaced by the checked one at the end."""

from __future__ import annotations

import logging
import time

from slack_sdk.web.async_client import AsyncWebClient

from bot.slack.client import SLACK_TROUBLE, translate
from bot.slack.kit import Block
from bot.slack.text import clip, escape
from pipeline.domain.untrusted import without_links

log = logging.getLogger(__name__)

EVERY_S = 1.0
"""Pieces are gathered this long: Slack takes about one call a second."""
MAX_CHARS = 11_000
"""Slack's limit of a message's markdown is 12,000."""


class StreamedAnswer:
    """One reply to a person. Where Slack does not stream, the answer comes whole at the end instead."""

    def __init__(self, client: AsyncWebClient, channel: str, thread_ts: str, team: str, user: str) -> None:
        self._client = client
        self._channel = channel
        self._thread_ts = thread_ts
        self._team = team
        self._user = user
        self._ts = ""
        self._held = ""
        self._sent = 0
        self._last_s = 0.0
        self._broken = False

    async def add(self, text: str) -> None:
        """Takes a piece of the answer; it is shown with the next call that is due."""
        self._held += text
        # A link may be cut in two: only whole words go out.
        if self._broken or time.monotonic() - self._last_s < EVERY_S or not self._held[-1:].isspace():
            return
        await self._flush()

    async def finish(self, blocks: list[Block], text: str) -> bool:
        """Replaces what was streamed by the checked answer; False when nothing was streamed and it is to be posted."""
        if not self._ts:
            return False
        try:
            await self._client.chat_stopStream(channel=self._channel, ts=self._ts)
            await self._client.chat_update(channel=self._channel, ts=self._ts, text=text, blocks=blocks)
        except SLACK_TROUBLE as error:
            log.warning("a streamed answer was not finished: %s", translate(error, "chat.stopStream"))
            return False
        return True

    async def _flush(self) -> None:
        shown = clip(escape(without_links(self._held)), max(MAX_CHARS - self._sent, 0))
        self._held, self._last_s = "", time.monotonic()
        if not shown.strip():
            return
        try:
            if self._ts:
                await self._client.chat_appendStream(channel=self._channel, ts=self._ts, markdown_text=shown)
            else:
                started = await self._client.chat_startStream(
                    channel=self._channel,
                    thread_ts=self._thread_ts,
                    recipient_team_id=self._team,
                    recipient_user_id=self._user,
                    markdown_text=shown,
                )
                self._ts = str(started["ts"])
            self._sent += len(shown)
        except SLACK_TROUBLE as error:
            self._broken = True
            log.info("the answer comes whole, Slack does not stream it: %s", translate(error, "chat.startStream"))
