"""What the bot serves over HTTP: health, metrics, the intake, and Slack's signed requests."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Gauge, generate_latest

from bot.intake import Door
from pipeline.domain.errors import ConfigurationError, TemporaryError
from pipeline.stages.desk import Desk

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Web:
    """A small server beside the bot."""

    def __init__(self, desk: Desk, slack_events: Handler | None, door: Door) -> None:
        self._desk = desk
        self._door = door
        self._slack_events = slack_events
        self._runner: web.AppRunner | None = None

    async def start(self, host: str, port: int) -> str:
        """Listens and returns the base URL. Raises ConfigurationError when the port is taken."""
        app = web.Application(client_max_size=1_000_000)
        app.router.add_get("/healthz", self._health)
        app.router.add_get("/metrics", self._metrics)
        app.router.add_post("/intake/changes", self._door.changes)
        app.router.add_post("/intake/alerts", self._door.alerts)
        if self._slack_events is not None:
            app.router.add_post("/slack/events", self._slack_events)
        self._runner = web.AppRunner(app, access_log=None)
        await self._runner.setup()
        site = web.TCPSite(self._runner, host, port)
        try:
            await site.start()
        except OSError as error:
            await self._runner.cleanup()
            raise ConfigurationError(
                f"SRE_HTTP_PORT: {host}:{port} cannot be listened on ({error.strerror or error}); "
                "stop what uses it, or set another port (0 takes a free one)"
            ) from error
        address = self._runner.addresses[0]
        return f"http://{address[0]}:{address[1]}"

    async def stop(self) -> None:
        if self._runner is not None:
            await self._runner.cleanup()

    async def _health(self, request: web.Request) -> web.Response:
        del request
        try:
            status = await self._desk.status()
        except TemporaryError as error:
            return web.json_response({"ok": False, "reason": str(error)}, status=503)
        return web.json_response(
            {
                "ok": True,
                "phase": status.phase.value,
                "open_incidents": len(status.open_incidents),
                "outbox": dict(status.outbox),
                "sources": {source.source: list(source.failures) for source in status.sources},
                "fallbacks": list(status.fallbacks),
            }
        )

    async def _metrics(self, request: web.Request) -> web.Response:
        del request
        status = await self._desk.status()
        registry = CollectorRegistry()
        Gauge("sre_bot_open_incidents", "Incidents that are not over.", registry=registry).set(
            len(status.open_incidents)
        )
        Gauge("sre_bot_plans_waiting", "Plans that wait for a decision.", registry=registry).set(status.waiting)
        Gauge("sre_bot_series_watched", "Series with a baseline.", registry=registry).set(status.series_watched)
        Gauge("sre_bot_kill_switches_engaged", "Kill switches that are on.", registry=registry).set(
            len(status.switches)
        )
        outbox = Gauge("sre_bot_outbox_rows", "Outbox rows by state.", ["state"], registry=registry)
        for state, rows in status.outbox.items():
            outbox.labels(state).set(rows)
        failing = Gauge("sre_bot_source_failures", "Failures of the last reading.", ["source"], registry=registry)
        for source in status.sources:
            failing.labels(source.source).set(len(source.failures))
        return web.Response(body=generate_latest(registry), headers={"Content-Type": CONTENT_TYPE_LATEST})
