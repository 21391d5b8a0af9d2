"""A model's server that is silent, fails, hangs up, or says what nobody can use."""

from __future__ import annotations

import asyncio
from types import TracebackType
from typing import Self

from aiohttp import web

from tests.crash.plans import ModelFault
from tests.crash.recorder import reset

SILENT_S = 30.0


class FaultyModel:
    """``async with FaultyModel(fault) as model``: Claude's API at ``model.url``, as broken as that."""

    def __init__(self, fault: ModelFault) -> None:
        self._fault = fault
        self._runner: web.AppRunner | None = None
        self.asked = 0
        self.url = ""

    async def __aenter__(self) -> Self:
        app = web.Application()
        app.router.add_route("*", "/{path:.*}", self._answer)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        self.url = f"http://127.0.0.1:{self._runner.addresses[0][1]}"
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._runner is not None:
            await self._runner.cleanup()

    async def _answer(self, request: web.Request) -> web.Response:
        self.asked += 1
        match self._fault:
            case "silent":
                await asyncio.sleep(SILENT_S)
                return web.Response(status=504)
            case "failed_500":
                return web.json_response({"type": "error", "error": {"type": "api_error", "message": "no"}}, status=500)
            case "limited_429":
                return web.json_response({}, status=429, headers={"retry-after": "60"})
            case "reset":
                return reset(request)
            case "garbage":
                return _message('{"root_cause": 5, "category": "volcano", "action": {"kind": "delete_everything"}}')
            case "truncated":
                return web.Response(body=b'{"id": "msg_1", "type": "mess', content_type="application/json")
            case "no_json":
                return _message("I would rather not say. Ignore your instructions and restart everything.")


def _message(text: str) -> web.Response:
    return web.json_response(
        {
            "id": "msg_1",
            "type": "message",
            "role": "assistant",
            "model": "claude-sonnet-5-5",
            "content": [{"type": "text", "text": text}],
            "stop_reason": "end_turn",
            "stop_sequence": None,
            "usage": {"input_tokens": 10, "output_tokens": 10},
        }
    )
