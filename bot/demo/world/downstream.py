"""Calls to the next service: round robin over its live instances, measured as edges of the service graph."""

import asyncio

import aiohttp

from bot.demo.world.config_file import ConfigFile
from bot.demo.world.metrics import InstanceMetrics
from bot.demo.world.targets import TargetsView

SERVER_TIMING = "Server-Timing"  # W3C header; the served side tells its own duration


class Downstream:
    """The service behind this one, at `route`."""

    def __init__(self, route: str, targets: TargetsView, config: ConfigFile, metrics: InstanceMetrics) -> None:
        self._route = route
        self._targets = targets
        self._config = config
        self._metrics = metrics
        self._session = aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0))

    async def call(self) -> bool:
        """One request; True when it was answered with success within the configured time-out."""
        self._metrics.edge_requests.inc()
        try:
            async with asyncio.timeout(self._config.upstream_timeout_s):
                success = await self._first_reachable()
        except (TimeoutError, aiohttp.ClientError):
            success = False
        if not success:
            self._metrics.edge_failures.inc()
        return success

    async def close(self) -> None:
        await self._session.close()

    async def _first_reachable(self) -> bool:
        for address in self._targets.in_turn():
            try:
                async with self._session.get(f"http://{address}{self._route}") as response:
                    await response.read()
            except aiohttp.ClientConnectorError:
                continue  # nothing was sent, so the next instance may have it: this one is just gone
            if (header := response.headers.get(SERVER_TIMING)) is not None:
                self._metrics.edge_seconds.observe(float(header.partition("dur=")[2]) / 1000)
            return response.status == 200
        return False
