"""The endpoints of the page under /local/: what a person sees, and what a person does."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from aiohttp import web
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from bot.demo.slack.core import Core
from bot.demo.slack.page_state import state_for
from bot.demo.slack.people import People, RefusedError, person
from bot.demo.slack.sockets import Sockets

PING_EVERY_S = 15.0


def _option_value(option: Any) -> Any:
    return option.get("value") if isinstance(option, dict) else option


class _Body(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)

    me: str = Field(alias="as")


class _Action(_Body):
    """What was pressed; a choice comes as the option itself or as its value."""

    block_id: str
    action_id: str
    channel: str | None = None
    ts: str | None = None
    view_id: str | None = None
    type: str | None = None
    value: Any = None
    selected_option: Any = None
    selected_options: list[Any] | None = None
    selected_user: str | None = None
    selected_date: str | None = None
    selected_time: str | None = None

    def chosen(self) -> Any:
        if self.selected_options is not None:
            return [_option_value(option) for option in self.selected_options]
        if self.selected_option is not None:
            return _option_value(self.selected_option)
        return self.selected_user or self.selected_date or self.selected_time or self.value


class _Message(_Body):
    channel: str
    text: str
    thread_ts: str | None = None


class _Command(_Body):
    channel: str
    text: str


class _Submission(_Body):
    view_id: str
    values: dict[str, dict[str, Any]] = Field(default_factory=dict)


class _Closing(_Body):
    view_id: str


class _TroubleSwitch(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    rate_limit_s: float | None = Field(default=None, ge=0, le=3600)
    outage: bool | None = None
    drop_socket: bool = False


Parsed = TypeVar("Parsed", bound=BaseModel)


async def _parse(request: web.Request, shape: type[Parsed]) -> Parsed:
    """The body as that shape. Only JSON is taken: a foreign page cannot send that without asking first."""
    if request.content_type != "application/json":
        raise web.HTTPUnsupportedMediaType(text="application/json only")
    try:
        return shape.model_validate_json(await request.read())
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise RefusedError(f"{where}: {first['msg']}") from None


def _told(handler: Callable[[Any, web.Request], Awaitable[dict[str, Any]]]) -> Any:
    """Answer {"ok": true, …}, or {"ok": false} with what the person is told."""

    async def answer(self: Any, request: web.Request) -> web.Response:
        try:
            return web.json_response({"ok": True, **await handler(self, request)})
        except RefusedError as error:
            more = {"errors": error.errors} if error.errors else {"error": error.told}
            return web.json_response({"ok": False, **more})

    return answer


class PageApi:
    """Handlers of /local/…; every POST answers HTTP 200 with {"ok", "error"?, "errors"?}."""

    def __init__(self, core: Core, sockets: Sockets | None) -> None:
        self._core = core
        self._people = People(core)
        self._sockets = sockets

    def routes(self) -> list[web.RouteDef]:
        return [
            web.get("/local/state", self.state),
            web.get("/local/events", self.events),
            web.post("/local/action", self.action),
            web.post("/local/message", self.message),
            web.post("/local/command", self.command),
            web.post("/local/view/submit", self.submit),
            web.post("/local/view/close", self.close),
            web.post("/local/home", self.home),
            web.post("/local/trouble", self.trouble),
        ]

    async def state(self, request: web.Request) -> web.Response:
        try:
            user = person(request.query.get("as", ""))
        except RefusedError as error:
            return web.json_response({"error": error.told}, status=404)
        return web.json_response(state_for(self._core, user), headers={"Cache-Control": "no-store"})

    async def events(self, request: web.Request) -> web.StreamResponse:
        """Server-sent events: the revision now, and at every change this person may see."""
        try:
            user = person(request.query.get("as", ""))
        except RefusedError as error:
            return web.json_response({"error": error.told}, status=404)
        response = web.StreamResponse(
            headers={"Content-Type": "text/event-stream", "Cache-Control": "no-store", "X-Accel-Buffering": "no"}
        )
        await response.prepare(request)
        with self._core.changes.subscribe(user.id) as revisions:
            rev: int | None = self._core.changes.rev
            while rev is not None:
                try:
                    await response.write(f"data: {json.dumps({'rev': rev})}\n\n".encode())
                    rev = await self._next(revisions, response)
                except ConnectionError:
                    break
        return response

    @staticmethod
    async def _next(revisions: "asyncio.Queue[int | None]", response: web.StreamResponse) -> int | None:
        """The newest revision there is, with a comment every 15 s so that a dead page is noticed."""
        while True:
            try:
                rev = await asyncio.wait_for(revisions.get(), PING_EVERY_S)
            except TimeoutError:
                await response.write(b": ping\n\n")
                continue
            while rev is not None and not revisions.empty():
                rev = revisions.get_nowait()
            return rev

    @_told
    async def action(self, request: web.Request) -> dict[str, Any]:
        body = await _parse(request, _Action)
        user, where = person(body.me), (body.block_id, body.action_id)
        if body.view_id is not None:
            await self._people.press_in_view(user, body.view_id, where, body.chosen())
        elif body.channel is not None and body.ts is not None:
            await self._people.press(user, body.channel, body.ts, where, body.chosen())
        else:
            raise RefusedError("Neither a message nor a view was named.")
        return {}

    @_told
    async def message(self, request: web.Request) -> dict[str, Any]:
        body = await _parse(request, _Message)
        return {"ts": self._people.say(person(body.me), body.channel, body.text, body.thread_ts)}

    @_told
    async def command(self, request: web.Request) -> dict[str, Any]:
        body = await _parse(request, _Command)
        await self._people.command(person(body.me), body.channel, body.text)
        return {}

    @_told
    async def submit(self, request: web.Request) -> dict[str, Any]:
        body = await _parse(request, _Submission)
        await self._people.submit(person(body.me), body.view_id, body.values)
        return {}

    @_told
    async def close(self, request: web.Request) -> dict[str, Any]:
        body = await _parse(request, _Closing)
        self._people.close(person(body.me), body.view_id)
        return {}

    @_told
    async def home(self, request: web.Request) -> dict[str, Any]:
        body = await _parse(request, _Body)
        self._people.open_home(person(body.me))
        return {}

    @_told
    async def trouble(self, request: web.Request) -> dict[str, Any]:
        body = await _parse(request, _TroubleSwitch)
        if body.rate_limit_s is not None:
            self._core.trouble.limit(body.rate_limit_s)
        if body.outage is not None:
            self._core.trouble.set_outage(body.outage)
        if body.drop_socket and self._sockets is not None:
            await self._sockets.drop()
        return {"trouble": self._core.trouble.for_page()}
