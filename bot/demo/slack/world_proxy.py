"""The page's window on the demo world: its control API, passed through."""

import aiohttp
from aiohttp import web

TIMEOUT_S = 10.0


class WorldProxy:
    """Passes /local/world… on to the world's supervisor at `url`; 503 {"error"} when there is none."""

    def __init__(self, url: str | None) -> None:
        self._url = url
        self._session = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=TIMEOUT_S))

    def routes(self) -> list[web.RouteDef]:
        return [web.get("/local/world", self.world), web.post("/local/world/faults/{name}", self.fault)]

    async def world(self, request: web.Request) -> web.Response:
        return await self._pass_on(request, "/v1/world")

    async def fault(self, request: web.Request) -> web.Response:
        if request.content_type != "application/json":
            raise web.HTTPUnsupportedMediaType(text="application/json only")
        return await self._pass_on(request, f"/v1/faults/{request.match_info['name']}")

    async def _pass_on(self, request: web.Request, path: str) -> web.Response:
        if self._url is None:
            return web.json_response({"error": "There is no demo world here."}, status=503)
        body = await request.read() if request.can_read_body else None
        headers = {"Content-Type": "application/json"}
        try:
            async with self._session.request(
                request.method, self._url.rstrip("/") + path, data=body, headers=headers
            ) as answer:
                content = await answer.read()
                return web.Response(body=content, status=answer.status, content_type=answer.content_type)
        except (aiohttp.ClientError, TimeoutError):
            return web.json_response({"error": "The demo world does not answer."}, status=503)

    async def stop(self) -> None:
        await self._session.close()
