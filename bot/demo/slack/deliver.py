"""Delivery to the bot: questions that want an answer within 3 s, and events that are tried again."""

import asyncio
import secrets
import time
from typing import Any

from bot.demo.slack.transport import Kind, NotAcknowledgedError, Transport
from bot.demo.slack.workspace import APP_ID, BOT_USER_ID, TEAM_ID


class Delivery:
    """Interactions and commands are delivered once; events once and again until acknowledged.

    `retry_delays_s` are the pauses before the second and later tries of an event; Slack's are 0 s, 1 min and 5 min.
    """

    def __init__(self, transport: Transport, ack_timeout_s: float, retry_delays_s: tuple[float, ...]) -> None:
        self.transport = transport
        self.ack_timeout_s = ack_timeout_s
        self._retry_delays_s = retry_delays_s
        self._under_way: set[asyncio.Task[None]] = set()

    async def ask(self, kind: Kind, payload: dict[str, Any]) -> dict[str, Any]:
        """Deliver an interaction or command; what it was acknowledged with. Raises NotAcknowledgedError."""
        return await self.transport.send(kind, payload, attempt=0, reason="", timeout_s=self.ack_timeout_s)

    def event(self, event: dict[str, Any]) -> None:
        """Deliver an event in the background, at least once as long as the bot answers."""
        envelope = {
            "token": "local",
            "team_id": TEAM_ID,
            "api_app_id": APP_ID,
            "event": event,
            "type": "event_callback",
            "event_id": "Ev" + secrets.token_hex(5).upper(),
            "event_time": int(time.time()),
            "authorizations": [
                {
                    "enterprise_id": None,
                    "team_id": TEAM_ID,
                    "user_id": BOT_USER_ID,
                    "is_bot": True,
                    "is_enterprise_install": False,
                }
            ],
            "is_ext_shared_channel": False,
            "event_context": secrets.token_hex(12),
        }
        self._start(self._deliver(envelope))

    def notify(self, payload: dict[str, Any]) -> None:
        """Deliver an interaction nobody waits for (view_closed), once."""
        self._start(self._deliver_once(payload))

    def _start(self, work: Any) -> None:
        task: asyncio.Task[None] = asyncio.create_task(work)
        self._under_way.add(task)
        task.add_done_callback(self._under_way.discard)

    async def _deliver_once(self, payload: dict[str, Any]) -> None:
        try:
            await self.ask("interactive", payload)
        except NotAcknowledgedError:
            return

    async def _deliver(self, envelope: dict[str, Any]) -> None:
        reason = ""
        for attempt, delay_s in enumerate((0.0, *self._retry_delays_s)):
            await asyncio.sleep(delay_s)
            try:
                await self.transport.send(
                    "events_api", envelope, attempt=attempt, reason=reason, timeout_s=self.ack_timeout_s
                )
                return
            except NotAcknowledgedError as error:
                reason = error.reason

    async def stop(self) -> None:
        for task in list(self._under_way):
            task.cancel()
        await asyncio.gather(*self._under_way, return_exceptions=True)
        await self.transport.stop()
