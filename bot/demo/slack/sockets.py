"""Socket Mode: tickets for a connection, the connections themselves, and envelopes with their acknowledgement.

https://docs.slack.dev/apis/events-api/using-socket-mode
"""

import asyncio
import json
import random
import secrets
import time
import uuid
from typing import Any

from aiohttp import WSMsgType, web

from bot.demo.slack.changes import Changes
from bot.demo.slack.transport import Kind, NotAcknowledgedError
from bot.demo.slack.workspace import APP_ID

MAX_CONNECTIONS = 10
TICKET_LIFE_S = 30.0
HEARTBEAT_S = 10.0


class Sockets:
    """The live connections. Every payload goes to one of them, picked at random."""

    mode = "socket"

    def __init__(self, changes: Changes) -> None:
        self._changes = changes
        self._tickets: dict[str, float] = {}
        self._live: dict[web.WebSocketResponse, dict[str, asyncio.Future[dict[str, Any]]]] = {}

    @property
    def connected(self) -> bool:
        return bool(self._live)

    def issue_ticket(self) -> str:
        """The right to open one connection within 30 s."""
        ticket = str(uuid.uuid4())
        self._tickets[ticket] = time.monotonic() + TICKET_LIFE_S
        return ticket

    async def connection(self, request: web.Request) -> web.StreamResponse:
        """The whole life of one connection, from the upgrade to its end."""
        if self._tickets.pop(request.query.get("ticket", ""), 0.0) < time.monotonic():
            raise web.HTTPForbidden(text="invalid ticket")
        socket = web.WebSocketResponse(heartbeat=HEARTBEAT_S)
        await socket.prepare(request)
        if len(self._live) >= MAX_CONNECTIONS:
            await self._dismiss(socket, "too_many_websockets")
            return socket
        self._live[socket] = {}
        self._changes.bump()
        try:
            await socket.send_json(
                {
                    "type": "hello",
                    "num_connections": len(self._live),
                    "debug_info": {"host": "local", "approximate_connection_time": 18060},
                    "connection_info": {"app_id": APP_ID},
                }
            )
            async for message in socket:
                if message.type is WSMsgType.TEXT:
                    self._acknowledge(socket, message.data)
        finally:
            for waiting in self._live.pop(socket).values():
                if not waiting.done():
                    waiting.set_exception(NotAcknowledgedError("connection_lost"))
            self._changes.bump()
        return socket

    def _acknowledge(self, socket: web.WebSocketResponse, text: str) -> None:
        try:
            answer = json.loads(text)
        except json.JSONDecodeError:
            return
        if not isinstance(answer, dict):
            return
        waiting = self._live[socket].pop(str(answer.get("envelope_id")), None)
        if waiting is not None and not waiting.done():
            payload = answer.get("payload")
            waiting.set_result(payload if isinstance(payload, dict) else {})

    async def send(
        self, kind: Kind, payload: dict[str, Any], *, attempt: int, reason: str, timeout_s: float
    ) -> dict[str, Any]:
        """Hand one payload to one connection; what it was acknowledged with. Raises NotAcknowledgedError."""
        open_sockets = [socket for socket in self._live if not socket.closed]
        if not open_sockets:
            raise NotAcknowledgedError("not_connected")
        socket = random.choice(open_sockets)  # noqa: S311 - spreads load, protects nothing
        envelope_id = str(uuid.UUID(bytes=secrets.token_bytes(16), version=4))
        envelope: dict[str, Any] = {
            "envelope_id": envelope_id,
            "type": kind,
            "accepts_response_payload": kind != "events_api",
            "payload": payload,
        }
        if kind == "events_api":
            envelope |= {"retry_attempt": attempt, "retry_reason": reason}
        waiting: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()
        self._live[socket][envelope_id] = waiting
        try:
            async with asyncio.timeout(timeout_s):
                await socket.send_json(envelope)
                return await waiting
        except TimeoutError:
            raise NotAcknowledgedError("timeout") from None
        except ConnectionError:
            raise NotAcknowledgedError("connection_lost") from None
        finally:
            self._live.get(socket, {}).pop(envelope_id, None)

    async def drop(self) -> None:
        """Close every connection, as Slack does about once an hour."""
        await asyncio.gather(*(self._dismiss(socket, "refresh_requested") for socket in list(self._live)))

    @staticmethod
    async def _dismiss(socket: web.WebSocketResponse, reason: str) -> None:
        if not socket.closed:
            await socket.send_json({"type": "disconnect", "reason": reason, "debug_info": {"host": "local"}})
        await socket.close()

    async def stop(self) -> None:
        await asyncio.gather(*(socket.close(code=1001) for socket in list(self._live)))
