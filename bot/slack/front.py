"""What every listener needs, in one place, and the few ways to answer a person."""

from __future__ import annotations

import logging
from dataclasses import dataclass

from slack_sdk.web.async_client import AsyncWebClient

from bot.slack.access import Access
from bot.slack.blocks import validate_view
from bot.slack.clean import without_secrets
from bot.slack.client import SLACK_TROUBLE, BotIdentity, translate
from bot.slack.kit import Block, View, fit, modal, paragraphs, section
from bot.slack.payloads import Click
from bot.slack.text import SECTION_CHARS, clip, sentence
from pipeline.domain.errors import OutcomeUnknown, SreBotError
from pipeline.domain.ids import IncidentId, SlackUserId
from pipeline.stages.desk import Desk

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Front:
    """The bot's side of the conversation. ``command`` is the slash command's name with its slash."""

    client: AsyncWebClient
    desk: Desk
    access: Access
    identity: BotIdentity
    command: str

    async def whisper(self, channel: str, user: SlackUserId, text: str, thread_ts: str | None = None) -> None:
        """Says something (mrkdwn) that only ``user`` sees. Not reaching the person is logged and changes nothing."""
        shown = clip(text, SECTION_CHARS)
        try:
            await self.client.chat_postEphemeral(
                channel=channel, user=user, text=shown, blocks=[section(shown)], thread_ts=thread_ts
            )
        except SLACK_TROUBLE as error:
            log.warning("%s was not told %r: %s", user, shown, translate(error, "chat.postEphemeral"))

    async def reply(self, channel: str, thread_ts: str, blocks: list[Block], text: str) -> None:
        """Answers in a thread for everyone. Not reaching it is logged and changes nothing."""
        try:
            await self.client.chat_postMessage(
                channel=channel,
                thread_ts=thread_ts,
                text=text,
                blocks=fit(blocks, "… shortened for Slack"),
                unfurl_links=False,
                unfurl_media=False,
            )
        except SLACK_TROUBLE as error:
            log.warning("the answer in %s was not posted: %s", channel, translate(error, "chat.postMessage"))

    async def open_modal(self, trigger_id: str, view: View) -> str:
        """Opens a window; its id. Raises SreBotError when Slack would not (the trigger lives 3 s)."""
        for problem in validate_view(view):
            log.error("window %s: Slack would refuse it: %s", view["title"]["text"], problem)
            view = modal("Shortened", [section("This is too long for a window. It stands in the incident's thread.")])
            break
        try:
            answer = await self.client.views_open(trigger_id=trigger_id, view=view)
        except SLACK_TROUBLE as error:
            raise translate(error, "views.open") from error
        return str(answer["view"]["id"])

    async def update_modal(self, view_id: str, view: View) -> None:
        """Replaces what an open window shows; one that was closed meanwhile is left alone."""
        try:
            await self.client.views_update(view_id=view_id, view=view)
        except SLACK_TROUBLE as error:
            log.info("window %s was not updated: %s", view_id, translate(error, "views.update"))

    async def incident_of_click(self, click: Click) -> IncidentId | None:
        """The incident in whose card or thread was clicked, by where Slack says it was; None outside of those."""
        if click.channel is None or click.root_ts is None:
            return None
        return await self.desk.incident_of_card(click.channel.id, click.root_ts)

    async def record_denial(self, incident_id: IncidentId | None, user: SlackUserId, what: str, why: str) -> None:
        """Writes the audit row of somebody who was told no."""
        try:
            await self.desk.denied(incident_id, user, what, why)
        except SreBotError as error:
            log.error("denial of %s for %s (%s) is not in the trail: %s", what, user, why, error)


def failure_line(error: SreBotError) -> str:
    """What a person is told when something did not work; safe mrkdwn."""
    if isinstance(error, OutcomeUnknown):
        why = sentence(str(error))
        return f"❔ It is not known whether that was recorded ({why}). Look at the card before you repeat it."
    return f"⚠️ {sentence(str(error))}"


def text_modal(title: str, text: str) -> View:
    """A window to be read; ``text`` is safe mrkdwn."""
    return without_secrets(modal(title, paragraphs(text.split("\n")) or [section("Nothing to show.")]))
