"""One instance of a demo service, an operating-system process: python -m bot.demo.world.instance …

Serves its route, /metrics and, for the fault switches, /faults/{name} on a loopback port of the kernel's choice, told
to the supervisor as one JSON line on standard output.
"""

import argparse
import asyncio
import gc
import json
import logging
import signal
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

from aiohttp import web

from bot.demo.world.ailments import Ailment, LogBurst, MemoryLeak
from bot.demo.world.config_file import ConfigError, ConfigFile
from bot.demo.world.downstream import SERVER_TIMING, Downstream
from bot.demo.world.log_volume import LogVolume
from bot.demo.world.metrics import InstanceMetrics
from bot.demo.world.order_book import OrderBook
from bot.demo.world.process_guard import ParentGoneError, die_with_parent
from bot.demo.world.spec import LOG_VOLUME_BYTES, SPECS, ServiceSpec, WorldPaths
from bot.demo.world.targets import TargetsView
from bot.demo.world.timing import gap_s
from bot.demo.world.workload import Workload

REFRESH_TARGETS_S = 0.5
_REFRESH_CONFIG_S = 1.0
_LOG_EVERY_S = 60.0
_FINISH_REQUESTS_S = 4.0

_log = logging.getLogger(__name__)


class Instance:
    """The parts of one instance and its background loops."""

    def __init__(self, spec: ServiceSpec, name: str, paths: WorldPaths) -> None:
        """Raises: ConfigError."""
        self._spec = spec
        self._config = ConfigFile(paths.config_file(spec.name))
        self._volume = LogVolume(paths.log_directory(name), LOG_VOLUME_BYTES)
        self._metrics = InstanceMetrics(
            spec,
            self._volume,
            paths.certificate if spec.has_certificate else None,
            _certificate_reader() if spec.has_certificate else None,
        )
        self._targets = TargetsView(paths.targets, spec.calls) if spec.calls else None
        self._downstream = (
            Downstream(SPECS[spec.calls].route, self._targets, self._config, self._metrics)
            if spec.calls and self._targets
            else None
        )
        order_book = OrderBook(paths.order_book) if spec.has_order_book else None
        self._workload = Workload(spec, self._config, self._downstream, self._metrics, order_book)
        self._ailments: dict[str, Ailment] = {
            "memory-leak": MemoryLeak(),
            "disk-fill": LogBurst(self._volume),
        }
        self._served = 0

    def app(self) -> web.Application:
        app = web.Application()
        app.router.add_get(self._spec.route, self._handle)
        app.router.add_get("/metrics", self._handle_metrics)
        app.router.add_get("/faults/{name}", self._handle_fault)
        app.router.add_put("/faults/{name}", self._handle_fault)
        app.router.add_delete("/faults/{name}", self._handle_fault)
        return app

    async def run(self, stop: asyncio.Event) -> None:
        """Serve until `stop`, then finish the requests that are in hand."""
        runner = web.AppRunner(self.app(), access_log=None, shutdown_timeout=_FINISH_REQUESTS_S)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        if self._targets:
            self._targets.refresh()
        loops = [asyncio.create_task(self._every(_REFRESH_CONFIG_S, self._refresh_config))]
        loops.append(asyncio.create_task(self._every(_LOG_EVERY_S, self._write_log)))
        if self._targets:
            loops.append(asyncio.create_task(self._every(REFRESH_TARGETS_S, self._targets.refresh)))
        if self._spec.job_interval_s is not None:
            loops.append(asyncio.create_task(self._jobs(1 / self._spec.job_interval_s)))
        # What was built up to here stays: the collector need not walk through it again in the middle of a request.
        gc.freeze()
        sys.stdout.write(json.dumps({"port": runner.addresses[0][1]}) + "\n")
        sys.stdout.flush()
        await stop.wait()
        await runner.cleanup()
        for task in loops:
            task.cancel()
        for ailment in self._ailments.values():
            await ailment.stop()
        if self._downstream:
            await self._downstream.close()

    async def _handle(self, request: web.Request) -> web.Response:
        status, duration_s = await self._workload.serve()
        self._served += 1
        timing = f"total;dur={duration_s * 1000:.3f}"
        return web.Response(status=status, headers={SERVER_TIMING: timing})

    async def _handle_metrics(self, request: web.Request) -> web.Response:
        content_type = "text/plain; version=0.0.4; charset=utf-8"
        return web.Response(body=self._metrics.exposition(), headers={"Content-Type": content_type})

    async def _handle_fault(self, request: web.Request) -> web.Response:
        ailment = self._ailments.get(request.match_info["name"])
        if ailment is None:
            return web.json_response({"error": "not_found"}, status=404)
        if request.method == "PUT":
            ailment.start()
        elif request.method == "DELETE":
            await ailment.stop()
        return web.json_response({"running": ailment.running})

    async def _jobs(self, rate_per_s: float) -> None:
        """The worker's own trigger: it pulls one job after the other, and counts each like a request."""
        while True:
            await asyncio.sleep(gap_s(rate_per_s))
            await self._workload.serve()
            self._served += 1

    async def _every(self, seconds: float, action: Callable[[], None]) -> None:
        while True:
            await asyncio.sleep(seconds)
            action()

    def _refresh_config(self) -> None:
        if not self._config.refresh():
            _log.warning("settings of %s cannot be read; the last good ones stay in force", self._spec.name)

    def _write_log(self) -> None:
        stamp = datetime.now(UTC).isoformat(timespec="seconds")
        self._volume.append(f"{stamp} INFO {self._spec.name} served={self._served}\n")


def _certificate_reader() -> Callable[[Path], float]:
    # Imported here: cryptography takes 8 MB, and one service of four has a certificate.
    from bot.demo.world.certificate import not_after

    return lambda path: not_after(path).timestamp()


async def _run(arguments: argparse.Namespace) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGTERM, stop.set)
    loop.add_signal_handler(signal.SIGINT, stop.set)
    await Instance(SPECS[arguments.service], arguments.name, WorldPaths(arguments.world_dir)).run(stop)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bot.demo.world.instance")
    parser.add_argument("--service", required=True, choices=list(SPECS))
    parser.add_argument("--name", required=True)
    parser.add_argument("--world-dir", required=True, type=Path)
    parser.add_argument("--parent-pid", required=True, type=int)
    arguments = parser.parse_args()
    logging.Formatter.converter = time.gmtime
    logging.basicConfig(format="%(asctime)s %(levelname)s %(message)s", level=logging.WARNING)
    try:
        die_with_parent(arguments.parent_pid, signal.SIGKILL)
        asyncio.run(_run(arguments))
    except (ConfigError, ParentGoneError, OSError) as error:
        sys.stderr.write(f"{arguments.name}: {error}\n")
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
