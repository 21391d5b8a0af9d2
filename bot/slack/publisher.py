"""From the outbox to Slack: the card, posted once and then updated, and the parts of its thread."""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
import time
from typing import Any

from slack_sdk.errors import SlackApiError
from slack_sdk.web.async_client import AsyncWebClient

from bot.slack import names
from bot.slack.blocks import validate_message
from bot.slack.cards import minimal_card, render_card
from bot.slack.chart_files import ChartFiles
from bot.slack.client import SLACK_TROUBLE, error_code, translate
from bot.slack.kit import Block, Message, section
from bot.slack.thread import render_part
from pipeline.domain.errors import PermanentError, TemporaryError
from pipeline.domain.ids import IncidentId, OutboxId, incident_label
from pipeline.domain.incident import Case
from pipeline.domain.notice import BusNotice, CardNotice, PagerNotice, ThreadNotice, ThreadPart
from pipeline.ports.outbox import OutboxRow
from pipeline.ports.store import CardPlace, Store
from pipeline.stages.desk import Desk

log = logging.getLogger(__name__)

UPDATE_EVERY_S = 2.0
"""One card is updated no more often; what happens in between is in the next update."""
POST_EVERY_S = 1.05
"""Posts to one channel, its threads among them: Slack takes about one a second, and answers more with 429.
https://docs.slack.dev/apis/web-api/rate-limits"""
LOOK_BACK_S = 120.0
MAX_PAGES = 20
_GONE = frozenset({"message_not_found", "cant_update_message", "edit_window_closed"})
_THREAD_GONE = frozenset({"thread_not_found", "message_not_found"})


class SlackPublisher:
    """Sends one outbox row at a time. ``client`` must send a request once (``make_client``).

    ``publish`` raises TemporaryError (nothing was sent), OutcomeUnknown (a post without an answer: send the row again
    with ``in_doubt``) or PermanentError (Slack refused, and will again).
    """

    def __init__(
        self, client: AsyncWebClient, desk: Desk, store: Store, channel: str, *, post_every_s: float = POST_EVERY_S
    ) -> None:
        if client.retry_handlers:
            raise ValueError("the client sends requests more than once: use make_client")
        self._client = client
        self._desk = desk
        self._store = store
        self._channel = channel
        self._charts = ChartFiles(client, desk)
        self._last: dict[IncidentId, tuple[float, str]] = {}
        self._post_every_s = post_every_s
        self._next_post_s: dict[str, float] = {}

    async def publish(self, row: OutboxRow) -> None:
        """Sends what ``row`` asks for, drawn from the case as it is now."""
        if row.incident_id is None or isinstance(row.notice, BusNotice | PagerNotice):
            raise PermanentError(f"outbox row {row.id} is not for Slack")
        if isinstance(row.notice, CardNotice):
            await self._card(row, row.incident_id)
        else:
            await self._reply(row, row.incident_id, row.notice)

    async def _card(self, row: OutboxRow, incident_id: IncidentId) -> None:
        await self._pace(incident_id)
        case = await self._case(incident_id)
        place = await self._place(incident_id)
        if place is None and row.in_doubt:
            place = await self._find_card(case)
            if place is not None:
                await self._remember(incident_id, place)
        message = await self._draw(case)
        content = _digest(message, case)
        if place is not None:
            if self._last.get(incident_id, (0.0, ""))[1] == content:
                return
            if await self._update(place, case, message):
                self._last[incident_id] = (time.monotonic(), content)
                return
            await self._remember(incident_id, None)
        await self._post_card(row.id, case, message)
        self._last[incident_id] = (time.monotonic(), content)

    async def _reply(self, row: OutboxRow, incident_id: IncidentId, notice: ThreadNotice) -> None:
        case = await self._case(incident_id)
        place = await self._place(incident_id)
        if place is None:
            raise TemporaryError(f"the card of {incident_label(incident_id)} is not posted yet")
        if row.in_doubt and await self._find_reply(place, row.id):
            return
        chart_file_id = await self._charts.file_id(case) if notice.part is ThreadPart.VERIFICATION else None
        trace = await self._desk.trace(incident_id)
        message = render_part(notice.part, case, trace, text=notice.text, chart_file_id=chart_file_id)
        problems = validate_message(message.text, message.blocks)
        if problems:
            log.error("%s of %s: Slack would refuse it: %s", notice.part, incident_label(incident_id), problems[0])
            message = Message(message.text, [section(message.text)])
        try:
            await self._send(place.channel, message, row.id, incident_id, thread_ts=place.ts)
        except SlackApiError as error:
            if error_code(error) not in _THREAD_GONE:
                raise translate(error, "chat.postMessage", posts=True) from error
            # Somebody deleted the card: a new one, and the reply goes below it with the next attempt.
            await self._remember(incident_id, None)
            await self._post_card(row.id, case, await self._draw(case))
            raise TemporaryError(f"the card of {incident_label(incident_id)} was gone and is posted anew") from error

    async def _pace(self, incident_id: IncidentId) -> None:
        sent_s, _ = self._last.get(incident_id, (float("-inf"), ""))
        wait_s = sent_s + UPDATE_EVERY_S - time.monotonic()
        if wait_s > 0:
            await asyncio.sleep(wait_s)

    async def _turn(self, channel: str) -> None:
        """Waits until another post to ``channel`` is due."""
        now_s = time.monotonic()
        turn_s = max(now_s, self._next_post_s.get(channel, now_s))
        self._next_post_s[channel] = turn_s + self._post_every_s
        await asyncio.sleep(turn_s - now_s)

    async def _case(self, incident_id: IncidentId) -> Case:
        case = await self._desk.case(incident_id)
        if case is None:
            raise PermanentError(f"there is no {incident_label(incident_id)}")
        return case

    async def _place(self, incident_id: IncidentId) -> CardPlace | None:
        async with self._store.begin() as unit:
            return await unit.incidents.card(incident_id)

    async def _remember(self, incident_id: IncidentId, place: CardPlace | None) -> None:
        async with self._store.begin() as unit:
            await unit.incidents.set_card(incident_id, place)

    async def _draw(self, case: Case) -> Message:
        message = render_card(case, chart_file_id=await self._charts.file_id(case))
        problems = validate_message(message.text, message.blocks)
        if not problems:
            return message
        log.error("card of %s: Slack would refuse it: %s", incident_label(case.incident.id), problems[0])
        return minimal_card(case)

    async def _draw_without_chart(self, case: Case) -> Message:
        log.error("card of %s: Slack refused its blocks; it goes without a chart", incident_label(case.incident.id))
        self._charts.forget(case)
        return await self._draw(case)

    async def _update(self, place: CardPlace, case: Case, message: Message) -> bool:
        """False when the message is not there any more."""
        for attempt in (1, 2):
            try:
                await self._client.chat_update(
                    channel=place.channel, ts=place.ts, text=message.text, blocks=message.blocks
                )
            except SLACK_TROUBLE as error:
                code = error_code(error) if isinstance(error, SlackApiError) else ""
                if code in _GONE:
                    return False
                if code != "invalid_blocks" or attempt == 2:
                    raise translate(error, "chat.update") from error
                message = await self._draw_without_chart(case)
            else:
                return True
        return False

    async def _post_card(self, outbox_id: OutboxId, case: Case, message: Message) -> None:
        try:
            try:
                ts = await self._send(self._channel, message, outbox_id, case.incident.id)
            except SlackApiError as error:
                if error_code(error) != "invalid_blocks":
                    raise
                message = await self._draw_without_chart(case)
                ts = await self._send(self._channel, message, outbox_id, case.incident.id)
        except SlackApiError as error:
            raise translate(error, "chat.postMessage", posts=True) from error
        await self._remember(case.incident.id, CardPlace(self._channel, ts))

    async def _send(
        self,
        channel: str,
        message: Message,
        outbox_id: OutboxId,
        incident_id: IncidentId,
        *,
        thread_ts: str | None = None,
    ) -> str:
        """Posts once; the message's ts. Raises SlackApiError only for answers that say what is wrong with the call."""
        payload = {"outbox_id": outbox_id, "incident_id": incident_id}
        await self._turn(channel)
        try:
            answer = await self._client.chat_postMessage(
                channel=channel,
                text=message.text,
                blocks=message.blocks,
                thread_ts=thread_ts,
                metadata={"event_type": names.EVENT_TYPE, "event_payload": payload},
                unfurl_links=False,
                unfurl_media=False,
            )
        except SLACK_TROUBLE as error:
            known = translate(error, "chat.postMessage", posts=True)
            if isinstance(error, SlackApiError) and isinstance(known, PermanentError):
                raise
            raise known from error
        return str(answer["ts"])

    async def _find_card(self, case: Case) -> CardPlace | None:
        """The card of this incident among the channel's messages: there is only one of it."""
        oldest = f"{case.incident.opened_at.timestamp() - LOOK_BACK_S:.6f}"
        cursor = ""
        for _ in range(MAX_PAGES):
            try:
                answer = await self._client.conversations_history(
                    channel=self._channel, oldest=oldest, limit=200, cursor=cursor, include_all_metadata=True
                )
            except SLACK_TROUBLE as error:
                raise translate(error, "conversations.history") from error
            for found in answer["messages"]:
                if _payload(found).get("incident_id") == case.incident.id:
                    return CardPlace(self._channel, str(found["ts"]))
            cursor = _next_cursor(answer)
            if not cursor:
                return None
        raise TemporaryError(f"too many messages to look for the card of {incident_label(case.incident.id)}")

    async def _find_reply(self, place: CardPlace, outbox_id: OutboxId) -> bool:
        cursor = ""
        for _ in range(MAX_PAGES):
            try:
                answer = await self._client.conversations_replies(
                    channel=place.channel, ts=place.ts, limit=200, cursor=cursor, include_all_metadata=True
                )
            except SLACK_TROUBLE as error:
                if isinstance(error, SlackApiError) and error_code(error) in _THREAD_GONE:
                    return False
                raise translate(error, "conversations.replies") from error
            if any(_payload(found).get("outbox_id") == outbox_id for found in answer["messages"]):
                return True
            cursor = _next_cursor(answer)
            if not cursor:
                return False
        raise TemporaryError("too many replies to look for one that may have been sent")


def _digest(message: Message, case: Case) -> str:
    """Equal for two drawings that differ in nothing a person sees."""
    blocks: list[Block] = [{**block, "block_id": ""} for block in message.blocks]
    drawn = json.dumps([message.text, blocks, case.incident.version], sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(drawn.encode()).hexdigest()


def _payload(message: dict[str, Any]) -> dict[str, Any]:
    metadata = message.get("metadata") or {}
    if metadata.get("event_type") != names.EVENT_TYPE:
        return {}
    payload: dict[str, Any] = metadata.get("event_payload") or {}
    return payload


def _next_cursor(answer: Any) -> str:
    return str((answer.get("response_metadata") or {}).get("next_cursor") or "")
