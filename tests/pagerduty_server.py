"""A server that takes events as PagerDuty's Events API v2 does, folds them by dedup key, and fails when told to."""

from __future__ import annotations

import asyncio
import json
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Literal

from aiohttp import web
from aiohttp.test_utils import TestServer

ROUTING_KEY = "R0" + "k" * 30
Trouble = Literal["refuse", "429", "500", "silence", "lost answer", "garbage"]
_SEVERITIES = ("critical", "error", "warning", "info")
_STATE = {"trigger": "triggered", "acknowledge": "acknowledged", "resolve": "resolved"}


@dataclass
class PagerDutyServer:
    """``events``: what was accepted; ``incidents``: the state by dedup key; ``trouble`` is used up one a request."""

    url: str = ""
    requests: int = 0
    events: list[dict[str, Any]] = field(default_factory=list)
    incidents: dict[str, str] = field(default_factory=dict)
    trouble: deque[Trouble] = field(default_factory=deque)

    @property
    def actions(self) -> list[str]:
        return [event["event_action"] for event in self.events]

    async def enqueue(self, request: web.Request) -> web.StreamResponse:
        self.requests += 1
        trouble = self.trouble.popleft() if self.trouble else None
        if trouble == "429":
            return web.json_response({"status": "throttle exceeded"}, status=429, headers={"Retry-After": "77"})
        if trouble == "500":
            return web.Response(status=500, text="internal error")
        if trouble == "garbage":
            return web.Response(status=404, text="<html>nginx</html>")
        if trouble == "silence":
            await asyncio.sleep(30)
        event = json.loads(await request.text())
        errors = ["told to refuse"] if trouble == "refuse" else _errors(event)
        if errors:
            answer = {"status": "invalid event", "message": "Event object is invalid", "errors": errors}
            return web.json_response(answer, status=400)
        self._take(event)
        if trouble == "lost answer":
            assert request.transport is not None
            request.transport.abort()
        answer = {"status": "success", "message": "Event processed", "dedup_key": event["dedup_key"]}
        return web.json_response(answer, status=202)

    def _take(self, event: dict[str, Any]) -> None:
        self.events.append(event)
        key, action = event["dedup_key"], event["event_action"]
        open_ = self.incidents.get(key) in ("triggered", "acknowledged")
        if action == "trigger" and not open_:
            self.incidents[key] = "triggered"
        elif action != "trigger" and open_:
            self.incidents[key] = _STATE[action]


def _errors(event: dict[str, Any]) -> list[str]:
    errors = []
    if len(str(event.get("routing_key", ""))) != 32:
        errors.append("Length of 'routing_key' is incorrect (should be 32 characters)")
    if event.get("event_action") not in _STATE:
        errors.append("'event_action' must be trigger, acknowledge or resolve")
    if not 0 < len(str(event.get("dedup_key", ""))) <= 255:
        errors.append("'dedup_key' is missing or too long")
    if event.get("event_action") == "trigger":
        payload = event.get("payload") or {}
        if not 0 < len(payload.get("summary", "")) <= 1024:
            errors.append("'payload.summary' is missing, blank or longer than 1024 characters")
        if payload.get("severity") not in _SEVERITIES:
            errors.append("'payload.severity' is invalid")
        if not payload.get("source"):
            errors.append("'payload.source' is missing or blank")
        errors += ["'links' need a href" for link in event.get("links", ()) if not link.get("href")]
    return errors


@asynccontextmanager
async def pagerduty_server() -> AsyncIterator[PagerDutyServer]:
    pagerduty = PagerDutyServer()
    app = web.Application()
    app.router.add_post("/v2/enqueue", pagerduty.enqueue)
    async with TestServer(app) as server:
        pagerduty.url = str(server.make_url("/v2/enqueue"))
        yield pagerduty
