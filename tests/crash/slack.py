"""The local Slack with more faults: a payload handed to all connections at once, and its traffic through a proxy."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any, Self
from unittest.mock import patch

import bot.demo.slack.server as slack_server
from bot.demo.slack.manifest import read_manifest
from bot.demo.slack.server import LocalSlack
from bot.demo.slack.sockets import Sockets
from bot.demo.slack.transport import Kind, NotAcknowledgedError

BOT_TOKEN, APP_TOKEN = "xoxb-local", "xapp-local"
CHANNEL = "C0INCIDENTS"
MANIFEST = Path(__file__).parent.parent.parent / "manifest.yml"


class _Sockets(Sockets):
    """``to_all``: what goes to one connection goes to all of them, as a delivery that is repeated."""

    to_all = False

    async def send(
        self, kind: Kind, payload: dict[str, Any], *, attempt: int, reason: str, timeout_s: float
    ) -> dict[str, Any]:
        if not self.to_all or kind != "interactive":
            return await super().send(kind, payload, attempt=attempt, reason=reason, timeout_s=timeout_s)
        live = dict(self._live)
        deliveries = []
        for socket in live:
            alone = _Sockets(self._changes)
            alone._live = {socket: self._live[socket]}
            deliveries.append(alone.send(kind, payload, attempt=attempt, reason=reason, timeout_s=timeout_s))
        answers = await asyncio.gather(*deliveries, return_exceptions=True)
        for answer in answers:
            if isinstance(answer, dict):
                return answer
        raise NotAcknowledgedError("timeout")


class FaultySlack:
    """``async with FaultySlack() as slack``."""

    def __init__(self) -> None:
        self._slack = LocalSlack(
            data_dir=None,
            bot_token=BOT_TOKEN,
            app_token=APP_TOKEN,
            signing_secret="local-signing-secret",
            manifest=read_manifest(MANIFEST),
            processing_s=0.05,
        )
        self.base_url = ""

    async def __aenter__(self) -> Self:
        with patch.object(slack_server, "Sockets", _Sockets):
            self.base_url = await self._slack.start()
        return self

    async def __aexit__(self, *_: Any) -> None:
        await self._slack.stop()

    def heard_through(self, port: int) -> None:
        """What it tells the bot about its own address is that of a proxy."""
        assert self._slack._core is not None
        self._slack._core.base_url = f"http://127.0.0.1:{port}"

    @property
    def deliver_to_all(self) -> bool:
        return self._sockets.to_all

    @deliver_to_all.setter
    def deliver_to_all(self, on: bool) -> None:
        self._sockets.to_all = on

    def messages(self, channel: str) -> list[dict[str, Any]]:
        """Everything in it, metadata included."""
        assert self._slack._core is not None
        return [dict(message) for message in self._slack._core.messages.all(channel)]

    @property
    def _sockets(self) -> _Sockets:
        assert self._slack._core is not None
        transport = self._slack._core.delivery.transport
        assert isinstance(transport, _Sockets)
        return transport
