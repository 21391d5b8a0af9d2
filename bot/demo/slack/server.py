"""The local Slack: one aiohttp server with the Web API, Socket Mode, the page and its endpoints."""

import asyncio
from pathlib import Path

from aiohttp import web

from bot.demo.slack import answers
from bot.demo.slack.changes import Changes
from bot.demo.slack.core import Core
from bot.demo.slack.deliver import Delivery
from bot.demo.slack.feed import Feed
from bot.demo.slack.files import Files
from bot.demo.slack.journal import Journal
from bot.demo.slack.limits import RateLimits, Trouble
from bot.demo.slack.manifest import DEFAULT_MANIFEST, AppManifest
from bot.demo.slack.messages import Messages
from bot.demo.slack.methods_files import MAX_FILE_BYTES
from bot.demo.slack.page_api import PageApi
from bot.demo.slack.signed_http import SignedHttp
from bot.demo.slack.sockets import Sockets
from bot.demo.slack.tickets import ResponseUrls, Triggers
from bot.demo.slack.transport import Transport
from bot.demo.slack.views import Views
from bot.demo.slack.web_api import WebApi
from bot.demo.slack.workspace import HOME_CHANNELS
from bot.demo.slack.world_proxy import WorldProxy

PAGE_DIR = Path(__file__).parent / "page"
RETRY_DELAYS_S = (1.0, 10.0, 60.0)
"""Pauses before an event is tried again. Slack waits 0 s, 1 min and 5 min; shorter here, for somebody watches."""


class LocalSlack:
    """A workspace on this machine that slack_bolt and slack_sdk talk to as they talk to Slack.

    With `events_url` payloads are POSTed there, signed; without it the bot connects by Socket Mode. `data_dir`
    keeps messages, files and Home tabs over a restart; None keeps nothing. Times are in seconds.
    """

    def __init__(
        self,
        *,
        data_dir: Path | None,
        bot_token: str,
        app_token: str,
        signing_secret: str,
        world_url: str | None = None,
        events_url: str | None = None,
        manifest: AppManifest = DEFAULT_MANIFEST,
        rate_limits: bool = False,
        ack_timeout_s: float = 3.0,
        retry_delays_s: tuple[float, ...] = RETRY_DELAYS_S,
        trigger_life_s: float = 3.0,
        processing_s: float = 0.3,
    ) -> None:
        self._data_dir = data_dir
        self._bot_token = bot_token
        self._app_token = app_token
        self._signing_secret = signing_secret
        self._world_url = world_url
        self._events_url = events_url
        self._manifest = manifest
        self._rate_limits = rate_limits
        self._ack_timeout_s = ack_timeout_s
        self._retry_delays_s = retry_delays_s
        self._trigger_life_s = trigger_life_s
        self._processing_s = processing_s
        self._core: Core | None = None
        self._world: WorldProxy | None = None
        self._runner: web.AppRunner | None = None

    @property
    def base_url(self) -> str:
        """The page's address; empty before start()."""
        return "" if self._core is None else self._core.base_url

    @property
    def api_url(self) -> str:
        """What slack_sdk takes as base_url."""
        return self.base_url + "/api/"

    async def start(self, host: str = "127.0.0.1", port: int = 0) -> str:
        """Listen; the address of the page. Raises OSError when the port is taken or data_dir not writable."""
        journal = Journal(self._data_dir)
        changes = Changes()
        if self._events_url is None:
            sockets = Sockets(changes)
            transport: Transport = sockets
        else:
            sockets = None
            transport = SignedHttp(self._events_url, self._signing_secret, changes)
        core = self._core = self._build(journal, changes, transport)
        self._world = WorldProxy(self._world_url)
        limits = RateLimits() if self._rate_limits else None
        api = WebApi(core, self._bot_token, self._app_token, limits, sockets)
        app = web.Application(client_max_size=MAX_FILE_BYTES + 1024 * 1024)
        app.add_routes(
            [
                web.route("*", "/api/{method}", api.handle),
                web.post("/response/{team}/{secret}", self._response),
                web.post("/upload/v1/{secret}", self._upload),
                web.put("/upload/v1/{secret}", self._upload),
                web.get("/files/{id}/{name}", self._file),
                web.get("/", self._page),
                web.get("/archives/{channel}/{message}", self._page),
                web.get("/page/{file}", self._page),
                *PageApi(core, sockets).routes(),
                *self._world.routes(),
            ]
        )
        if sockets is not None:
            app.router.add_get("/link/", sockets.connection)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=1.0)
        await self._runner.setup()
        try:
            site = web.TCPSite(self._runner, host, port)
            await site.start()
        except OSError:
            await self.stop()
            raise
        bound_port = self._runner.addresses[0][1]
        shown_host = "127.0.0.1" if host in ("0.0.0.0", "::") else host  # noqa: S104  # nosec B104
        core.base_url = f"http://{shown_host}:{bound_port}"
        return core.base_url

    def _build(self, journal: Journal, changes: Changes, transport: Transport) -> Core:
        messages = Messages(journal, changes)
        members = set(HOME_CHANNELS) | {channel for channel, _ in journal.all("member")}
        delivery = Delivery(transport, self._ack_timeout_s, self._retry_delays_s)
        return Core(
            manifest=self._manifest,
            journal=journal,
            changes=changes,
            messages=messages,
            views=Views(journal, changes),
            files=Files(journal, changes, self._data_dir, self._processing_s),
            triggers=Triggers(self._trigger_life_s),
            response_urls=ResponseUrls(),
            trouble=Trouble(changes),
            members=members,
            delivery=delivery,
            feed=Feed(delivery, messages, self._manifest.events, members),
        )

    async def stop(self) -> None:
        """Close every connection and the store. May be called twice."""
        core, self._core = self._core, None
        if core is None:
            return
        core.changes.end()
        await core.delivery.stop()
        if self._runner is not None:
            await self._runner.cleanup()
        if self._world is not None:
            await self._world.stop()
        core.journal.close()

    def _running(self) -> Core:
        if self._core is None:
            raise web.HTTPServiceUnavailable(text="stopping")
        return self._core

    async def _response(self, request: web.Request) -> web.Response:
        return await answers.handle(self._running(), request)

    async def _upload(self, request: web.Request) -> web.Response:
        """The content of one file, raw or as the one file of a multipart form."""
        core = self._running()
        if core.trouble.outage:
            return web.Response(status=500, text="Internal Server Error")
        content = b""
        if request.content_type == "multipart/form-data":
            for part in (await request.post()).values():
                if isinstance(part, web.FileField):
                    content = part.file.read()
        else:
            content = await request.read()
        if not core.files.receive(request.match_info["secret"], content):
            return web.Response(status=400, text="unknown upload or wrong length")
        return web.Response(text=f"OK - {len(content)}")

    async def _file(self, request: web.Request) -> web.Response:
        core = self._running()
        file_id = request.match_info["id"]
        content = await asyncio.to_thread(core.files.content, file_id)
        if content is None:
            return web.Response(status=404, text="no such file")
        # An uploaded page or picture with scripts must not run as part of ours.
        headers = {"Content-Security-Policy": "sandbox", "X-Content-Type-Options": "nosniff"}
        return web.Response(body=content, content_type=core.files.mimetype(file_id), headers=headers)

    async def _page(self, request: web.Request) -> web.StreamResponse:
        name = request.match_info.get("file", "index.html")
        path = PAGE_DIR / name
        if "/" in name or path.parent != PAGE_DIR or not path.is_file():
            return web.Response(status=404, text=f"{name}: not found")
        return web.FileResponse(path, headers={"Cache-Control": "no-cache"})
