"""Words to the bot outside commands: replies in an incident's thread, mentions, direct messages."""

from __future__ import annotations

import asyncio
import logging
import re
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

from slack_bolt.async_app import AsyncApp

from bot.slack import commands
from bot.slack.front import Front, failure_line
from bot.slack.kit import Block, fit, paragraphs, section
from bot.slack.payloads import Body, EventCall
from bot.slack.stream import StreamedAnswer
from bot.slack.text import escape, sentence
from pipeline.domain.errors import OutcomeUnknown, SreBotError, TemporaryError
from pipeline.domain.ids import IncidentId
from pipeline.domain.untrusted import without_links

log = logging.getLogger(__name__)

T = TypeVar("T")
Trouble = tuple[type[SreBotError], ...]

INSIST_S = 30.0
"""How long an event is tried again while the database is away; then the person is told."""
FIRST_WAIT_S, LONGEST_WAIT_S = 0.5, 4.0
_STOP_WORDS = frozenset({"stop", "halt"})
_OWN_SUBTYPES = frozenset({None, "thread_broadcast", "file_share"})


def register(app: AsyncApp, front: Front) -> None:
    """Listens to messages and mentions."""

    @app.event("app_mention")
    async def mentioned(body: Body) -> None:
        call = EventCall.model_validate(body)
        if _from_a_person(call):
            await _answer(front, call)

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
        await _answer(front, call)


def _from_a_person(call: EventCall) -> bool:
    event = call.event
    return event.bot_id is None and event.user is not None and event.subtype in _OWN_SUBTYPES


async def _first_time(front: Front, call: EventCall) -> bool:
    """Whether this delivery is the first; yes where nobody can tell, for said twice is better than lost."""
    try:
        return await front.desk.first_time(f"slack-event:{call.event_id}")
    except SreBotError as error:
        log.warning("event %s may be one handled before: %s", call.event_id, error)
        return True


async def _insisting(attempt: Callable[[], Awaitable[T]], until_s: float, also: Trouble = ()) -> T:
    """The result of ``attempt``, made again on TemporaryError (and ``also``) until the clock shows ``until_s``.

    Bolt acknowledges an event before its listener runs, so Slack delivers it no second time.
    """
    passing: Trouble = (TemporaryError, *also)
    wait_s = FIRST_WAIT_S
    while True:
        try:
            return await attempt()
        except passing as error:
            if time.monotonic() + wait_s > until_s:
                raise
            log.info("tried again in %.1f s: %s", wait_s, error)
        await asyncio.sleep(wait_s)
        wait_s = min(2 * wait_s, LONGEST_WAIT_S)


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


async def _answer(front: Front, call: EventCall) -> None:
    """Answers a reply in an incident's thread, or a mention anywhere else; other talk is left alone."""
    event = call.event
    until_s = time.monotonic() + INSIST_S
    addressed = f"<@{front.identity.bot_user_id}>" in event.text
    try:
        incident_id = await _insisting(lambda: _incident_of_thread(front, call), until_s)
    except SreBotError as error:
        # Whose thread this is cannot be read; one that a person began has no card above it.
        if addressed or event.parent_user_id in (None, front.identity.bot_user_id):
            await _say(front, call, [section(_failure(error, stop=_says_stop(_words(front, call))))])
        return
    if (incident_id is None and not addressed) or not await _first_time(front, call):
        return
    if incident_id is None:
        await _answer_as_command(front, call)
    else:
        await _answer_reply(front, call, incident_id, until_s)


async def _answer_reply(front: Front, call: EventCall, incident_id: IncidentId, until_s: float) -> None:
    user = call.event.user
    assert user is not None
    words = _words(front, call)
    stop = _says_stop(words)
    event = call.event
    growing = StreamedAnswer(front.client, event.channel, event.thread_ts or event.ts, call.user_team_id, user)
    try:
        if stop:
            # Stopping what is stopped does no harm, so one without an answer is asked for again too.
            halted = await _insisting(lambda: front.desk.halt(incident_id, user), until_s, (OutcomeUnknown,))
            blocks = [section(sentence(halted))]
        else:
            question = words or "What is the state?"
            may_propose = not await front.access.check_member(user, call.user_team_id)

            async def asked() -> str:
                return await front.desk.ask(incident_id, question, user, may_propose=may_propose, on_text=growing.add)

            told = await _insisting(asked, until_s)
            blocks = paragraphs(escape(without_links(told)).split("\n"))
    except SreBotError as error:
        blocks = [section(_failure(error, stop=stop))]
    if not await growing.finish(fit(blocks, "… shortened for Slack"), commands.summary(blocks)):
        await _say(front, call, blocks)


def _failure(error: SreBotError, *, stop: bool) -> str:
    """What is said when insisting did not help; safe mrkdwn."""
    why = sentence(str(error)).rstrip(".")
    if not stop:
        return failure_line(error) if isinstance(error, OutcomeUnknown) else f"⚠️ Not answered: {why}."
    what = "❔ It is not known whether that stopped it" if isinstance(error, OutcomeUnknown) else "⚠️ NOT stopped"
    return f'{what}: {why}. `sre-bot kill all "{escape("<reason>")}"` stops from the command line.'


async def _say(front: Front, call: EventCall, blocks: list[Block]) -> None:
    event = call.event
    await front.reply(event.channel, event.thread_ts or event.ts, blocks, commands.summary(blocks))


async def _answer_as_command(front: Front, call: EventCall) -> None:
    event = call.event
    assert event.user is not None
    await _say(front, call, await commands.answer(front, _words(front, call), event.user, call.user_team_id))
