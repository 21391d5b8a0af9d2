"""What a provider's server may do instead of answering, and a local server that does it on request."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from enum import Enum
from types import TracebackType
from typing import Any, Self

from aiohttp import web

SAID = "the token has expired"
"""The words of a refusal; they must reach the person who reads the failure."""
RETRY_AFTER_S = 600


class Fault(Enum):
    """``BUSY``: 503. ``LIMITED``: 429 with Retry-After. ``REFUSED``: 403 with ``SAID``. ``BROKEN``: a 200 with half
    of the JSON. ``CUT``: the connection ends within the body. ``DRIP``: a byte now and then, for ever. ``REDIRECT``: to
    another address. ``HUGE``: more than anybody should read. ``DOWN``: nobody listens."""

    BUSY = "busy"
    LIMITED = "limited"
    REFUSED = "refused"
    BROKEN = "broken"
    CUT = "cut"
    DRIP = "drip"
    REDIRECT = "redirect"
    HUGE = "huge"
    DOWN = "down"


class FaultyServer:
    """``async with FaultyServer(app) as server``: the app behind ``server.url``, until ``server.fault`` is set.

    ``asked`` counts requests, ``most_at_once`` is the largest number that were under way together. ``refusal`` is the
    body of a 403, in the vendor's shape.
    """

    def __init__(self, app: web.Application, *, refusal: str = SAID, ssl_context: Any = None) -> None:
        app.middlewares.append(self._between)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0)
        self._refusal = refusal
        self._ssl = ssl_context
        self._under_way = 0
        self.fault: Fault | None = None
        self.asked = 0
        self.most_at_once = 0
        self.headers: Mapping[str, str] = {}
        self.url = ""

    async def __aenter__(self) -> Self:
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0, ssl_context=self._ssl).start()
        scheme = "https" if self._ssl else "http"
        self.url = f"{scheme}://127.0.0.1:{self._runner.addresses[0][1]}"
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._runner.cleanup()

    async def misbehave(self, fault: Fault | None) -> None:
        """From now on every request meets the fault; after ``DOWN`` there is no way back."""
        self.fault = fault
        if fault is Fault.DOWN:
            await self._runner.cleanup()

    @web.middleware
    async def _between(self, request: web.Request, handler: Any) -> web.StreamResponse:
        self.asked += 1
        self.headers = request.headers
        self._under_way += 1
        self.most_at_once = max(self.most_at_once, self._under_way)
        try:
            if self.fault is not None:
                return await self._fail(request, self.fault)
            answer: web.StreamResponse = await handler(request)
            return answer
        finally:
            self._under_way -= 1

    async def _fail(self, request: web.Request, fault: Fault) -> web.StreamResponse:
        match fault:
            case Fault.BUSY:
                return web.Response(status=503, text="<html>too much to do</html>")
            case Fault.LIMITED:
                return web.Response(status=429, text="slower, please", headers={"Retry-After": str(RETRY_AFTER_S)})
            case Fault.REFUSED:
                return web.Response(status=403, text=self._refusal)
            case Fault.BROKEN:
                return web.Response(text='{"status": "success", "data": {"result": [', content_type="application/json")
            case Fault.REDIRECT:
                return web.Response(status=302, headers={"Location": "https://login.example.com/?from=api"})
            case Fault.HUGE:
                return web.Response(body=b"x" * (11 * 2**20), content_type="application/json")
        answer = web.StreamResponse(headers={"Content-Length": "100000"} if fault is Fault.CUT else None)
        await answer.prepare(request)
        if fault is Fault.CUT:
            await answer.write(b'{"status": ')
            assert request.transport is not None
            request.transport.close()
            return answer
        while True:
            await answer.write(b" ")
            await asyncio.sleep(0.05)
