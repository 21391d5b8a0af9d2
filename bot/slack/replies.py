"""Words to the bot outside commands: replies in an incident's thread, mentions, direct messages."""

from __future__ import annotations

import re

from slack_bolt.async_app import AsyncApp

from bot.slack import commands
from bot.slack.front import Front, failure_line
from bot.slack.kit import TEXT_CHARS, paragraphs, section
from bot.slack.payloads import Body, EventCall
from bot.slack.text import clip, escape, one_line, sentence
from pipeline.domain.errors import SreBotError
from pipeline.domain.ids import IncidentId

_STOP_WORDS = frozenset({"stop", "halt"})
_OWN_SUBTYPES = frozenset({None, "thread_broadcast", "file_share"})


def register(app: AsyncApp, front: Front) -> None:
    """Listens to messages and mentions."""

    @app.event("app_mention")
    async def mentioned(body: Body) -> None:
        call = EventCall.model_validate(body)
        if not _from_a_person(call) or not await _first_time(front, call):
            return
        incident_id = await _incident_of_thread(front, call)
        if incident_id is not None:
            await _answer_reply(front, call, incident_id)
        else:
            await _answer_as_command(front, call)

    @app.event("message")
    async def said(body: Body) -> None:
        call = EventCall.model_validate(body)
        if not _from_a_person(call):
            return
        if call.event.channel_type == "im":
            if await _first_time(front, call):
                await _answer_as_command(front, call)
            return
        # A mention arrives a second time as app_mention, and is answered there.
        if f"<@{front.identity.bot_user_id}>" in call.event.text or call.event.thread_ts is None:
            return
        incident_id = await _incident_of_thread(front, call)
        if incident_id is not None and await _first_time(front, call):
            await _answer_reply(front, call, incident_id)


def _from_a_person(call: EventCall) -> bool:
    event = call.event
    return event.bot_id is None and event.user is not None and event.subtype in _OWN_SUBTYPES


async def _first_time(front: Front, call: EventCall) -> bool:
    return await front.desk.first_time(f"slack-event:{call.event_id}")


async def _incident_of_thread(front: Front, call: EventCall) -> IncidentId | None:
    if call.event.thread_ts is None:
        return None
    return await front.desk.incident_of_card(call.event.channel, call.event.thread_ts)


def _words(front: Front, call: EventCall) -> str:
    """What was said, without the mention, as it was typed."""
    text = call.event.text.replace(f"<@{front.identity.bot_user_id}>", " ")
    text = re.sub(r"<(https?://[^|>]+)(?:\|[^>]*)?>", r"\1", text)
    return text.replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&").strip()


def _says_stop(words: str) -> bool:
    first = re.match(r"\W*(\w+)", words)
    return first is not None and first.group(1).lower() in _STOP_WORDS and not words.rstrip().endswith("?")


async def _answer_reply(front: Front, call: EventCall, incident_id: IncidentId) -> None:
    event = call.event
    assert event.user is not None
    words = _words(front, call)
    try:
        if _says_stop(words):
            shown = sentence(await front.desk.halt(incident_id, event.user))
            blocks = [section(shown)]
        else:
            shown = escape(await front.desk.ask(incident_id, words or "What is the state?", event.user))
            blocks = paragraphs(shown.split("\n"))
    except SreBotError as error:
        shown = failure_line(error)
        blocks = [section(shown)]
    await front.reply(event.channel, event.thread_ts or event.ts, blocks, clip(one_line(shown), TEXT_CHARS))


async def _answer_as_command(front: Front, call: EventCall) -> None:
    event = call.event
    assert event.user is not None
    blocks = await commands.answer(front, _words(front, call), event.user, call.user_team_id)
    await front.reply(event.channel, event.thread_ts or event.ts, blocks, commands.summary(blocks))
