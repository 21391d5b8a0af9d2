"""How a replica works off requests: a few slots, a bounded queue, its own work, then the service behind it."""

import asyncio
import logging

from bot.demo.world.config_file import ConfigFile
from bot.demo.world.downstream import Downstream
from bot.demo.world.metrics import InstanceMetrics
from bot.demo.world.order_book import OrderBook
from bot.demo.world.spec import ServiceSpec
from bot.demo.world.timing import service_time_s

_log = logging.getLogger(__name__)
_LINES_PER_S = 5.0
"""A failing service may fail hundreds of times a second; its log says so this often."""
_ALONE_SHARE = 0.75
"""Of a replica's own work, what it does at the order book: 41 ms of checkout's 55, so that all of its replicas together
take at most 24 requests/s where one has to wait for the other, and the surge is 32."""


class Workload:
    """The request path of one replica. A service without a downstream calls an outside provider instead."""

    def __init__(
        self,
        spec: ServiceSpec,
        config: ConfigFile,
        downstream: Downstream | None,
        metrics: InstanceMetrics,
        order_book: OrderBook | None,
    ) -> None:
        self._spec = spec
        self._config = config
        self._downstream = downstream
        self._metrics = metrics
        self._order_book = order_book
        self._slots = asyncio.Semaphore(spec.slots)
        self._waiting = 0
        self._silent_until = 0.0

    async def serve(self) -> tuple[int, float]:
        """Work off one request and count it. Returns its HTTP status and its duration in seconds."""
        loop = asyncio.get_running_loop()
        started = loop.time()
        if self._waiting >= self._spec.queue_limit:
            self._complain("request refused: %d requests are waiting already", self._waiting)
            status = 503
        else:
            self._waiting += 1
            try:
                await self._slots.acquire()
            finally:
                self._waiting -= 1
            try:
                status = await self._work()
            finally:
                self._slots.release()
        duration_s = loop.time() - started
        self._metrics.served(status, duration_s)
        return status, duration_s

    async def _work(self) -> int:
        needed_s = service_time_s(self._spec.work_median_s, self._spec.work_sigma)
        if self._downstream is None:
            # The provider's answer takes `needed_s`; the service gives up at its time-out, like any client of one.
            timeout_s = self._config.upstream_timeout_s
            await asyncio.sleep(min(needed_s, timeout_s))
            if needed_s <= timeout_s:
                return 200
            self._complain("card provider did not answer within %d ms, payment refused", round(timeout_s * 1000))
            return self._spec.failure_status
        alone_s = 0.0
        if self._order_book is not None:
            alone_s = _ALONE_SHARE * needed_s
            async with self._order_book.turn():
                await asyncio.sleep(alone_s)
        await asyncio.sleep(needed_s - alone_s)
        if await self._downstream.call():
            return 200
        self._complain("call of %s failed", self._spec.calls)
        return self._spec.failure_status

    def _complain(self, message: str, about: object) -> None:
        now_s = asyncio.get_running_loop().time()
        if now_s >= self._silent_until:
            self._silent_until = now_s + 1 / _LINES_PER_S
            _log.warning(message, about)
