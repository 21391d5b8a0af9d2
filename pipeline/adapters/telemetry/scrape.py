"""Metrics read straight from the services' own endpoints, with no Prometheus between."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import aiohttp

from pipeline.adapters.telemetry.counters import CounterWindow, Rates, combined
from pipeline.adapters.telemetry.exposition import Exposition, Gauge, parse_exposition
from pipeline.adapters.telemetry.http import HTTP_FAILURES, MAX_BODY_BYTES, read_body, why
from pipeline.adapters.telemetry.newest import NewestOnly
from pipeline.adapters.telemetry.targets import ScrapeTarget, TargetList
from pipeline.domain.errors import TemporaryError
from pipeline.domain.ids import ServiceName
from pipeline.domain.telemetry import CallEdge, Reading, Sample, SeriesKey, Signal, SourceFailure

_ACCEPT = "text/plain;version=0.0.4;q=1,*/*;q=0.1"
_OTHER_FORMATS = ("application/openmetrics-text", "application/vnd.google.protobuf")


@dataclass(frozen=True, slots=True)
class _Scraped:
    target: ScrapeTarget
    exposition: Exposition
    taken_s: float


class ScrapeSource:
    """Scrapes every target at each ``read`` and derives the signals by the conventions of ``exposition``.

    Rates are means over the last ``window_s`` seconds of what was scraped, so the first ``read`` gives gauges alone,
    and reads must not be further apart than twice that. A target that does not answer takes no part in its service's
    figures: what is reported is fresh. ``timeout_s`` bounds each target's whole answer, ``concurrency`` how many are
    asked at once.
    """

    def __init__(
        self,
        *,
        sd_file: Path | None = None,
        fixed: Sequence[ScrapeTarget] = (),
        window_s: float = 60.0,
        timeout_s: float = 3.0,
        concurrency: int = 20,
        max_body_bytes: int = MAX_BODY_BYTES,
    ) -> None:
        self._list = TargetList(sd_file, fixed)
        self._window_s = window_s
        self._timeout_s = timeout_s
        self._max_body_bytes = max_body_bytes
        self._slots = asyncio.Semaphore(concurrency)
        self._windows: dict[ScrapeTarget, CounterWindow] = {}
        self._newest = NewestOnly()
        self._session: aiohttp.ClientSession | None = None

    @property
    def name(self) -> str:
        return "scrape"

    async def read(self, now: datetime) -> Reading:
        """One scrape of all targets; a sample's time is ``now``, or earlier where the exposition states it."""
        failures: list[SourceFailure] = []
        try:
            await asyncio.to_thread(self._list.refresh)
        except TemporaryError as error:
            failures.append(SourceFailure("scrape targets", str(error)))
        targets = self._list.targets
        began_s = asyncio.get_running_loop().time()
        outcomes = await asyncio.gather(*(self._scrape(target, now, began_s) for target in targets))
        failures.extend(outcome for outcome in outcomes if isinstance(outcome, SourceFailure))
        scraped = [outcome for outcome in outcomes if isinstance(outcome, _Scraped)]

        self._windows = {target: self._windows.get(target, CounterWindow(self._window_s)) for target in targets}
        for one in scraped:
            self._windows[one.target].add(one.exposition, one.taken_s)
        samples = [*_instance_samples(scraped, now), *self._service_samples(scraped, now)]
        sifted = self._newest.sift(samples, now)
        return Reading(sifted.samples, tuple(self._edges(scraped)), tuple(failures), sifted.rejected)

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def _scrape(self, target: ScrapeTarget, now: datetime, began_s: float) -> _Scraped | SourceFailure:
        try:
            async with self._slots:
                body = await self._fetch(target.url)
                answered_s = now.timestamp() + asyncio.get_running_loop().time() - began_s
                # In a thread: the largest bodies take seconds, and the loop also serves Slack.
                exposition = await asyncio.to_thread(parse_exposition, body.decode(), now_s=answered_s)
        except HTTP_FAILURES as error:
            return SourceFailure(f"scrape {target.instance}", why(error, timeout_s=self._timeout_s))
        except UnicodeDecodeError:
            return SourceFailure(f"scrape {target.instance}", "not Prometheus' text format: not UTF-8")
        except ValueError as error:
            return SourceFailure(f"scrape {target.instance}", str(error))
        return _Scraped(target, exposition, min(answered_s, exposition.counted_at_s or answered_s))

    async def _fetch(self, url: str) -> bytes:
        if self._session is None:
            self._session = aiohttp.ClientSession(
                timeout=aiohttp.ClientTimeout(total=self._timeout_s), headers={"Accept": _ACCEPT}
            )
        async with self._session.get(url, max_redirects=3) as response:
            if response.status != 200:
                raise ValueError(f"HTTP {response.status} {response.reason or ''}".rstrip())
            # OpenMetrics would parse as text but for its exemplars and time stamps, and so lose samples unnoticed.
            if response.content_type.startswith(_OTHER_FORMATS):
                raise ValueError(f"answers {response.content_type}, not Prometheus' text format")
            return await read_body(response, max_bytes=self._max_body_bytes)

    def _service_samples(self, scraped: Sequence[_Scraped], now: datetime) -> Iterator[Sample]:
        instances: dict[ServiceName, list[tuple[float, Rates]]] = {}
        for target in (one.target for one in scraped):
            if (rates := self._windows[target].rates()) is not None:
                instances.setdefault(target.service, []).append((self._windows[target].taken_s, rates))
        for service, parts in instances.items():
            at = min(now, _utc(min(taken_s for taken_s, _ in parts)))
            total = combined(rates for _, rates in parts)
            for signal, value in (
                (Signal.TRAFFIC, total.traffic),
                (Signal.ERROR_RATIO, total.error_ratio),
                (Signal.LATENCY_P99, total.latency(0.99)),
            ):
                if value is not None:
                    yield Sample(SeriesKey(service, signal), at, value)

    def _edges(self, scraped: Sequence[_Scraped]) -> Iterator[CallEdge]:
        rates = [rates for one in scraped if (rates := self._windows[one.target].rates()) is not None]
        for (caller, callee), calls_per_s in combined(rates).calls.items():
            if calls_per_s > 0:
                yield CallEdge(ServiceName(caller), ServiceName(callee), calls_per_s)


def _instance_samples(scraped: Sequence[_Scraped], now: datetime) -> Iterator[Sample]:
    for one in scraped:
        for signal, gauge in (
            (Signal.MEMORY_RATIO, one.exposition.memory_ratio()),
            (Signal.DISK_RATIO, one.exposition.disk_ratio()),
            (Signal.CERT_REMAINING, _remaining(one.exposition.cert_end(), now)),
        ):
            if gauge is not None:
                at = now if gauge.at_s is None else min(now, _utc(gauge.at_s))
                yield Sample(SeriesKey(one.target.service, signal, one.target.instance), at, gauge.value)


def _remaining(end: Gauge | None, now: datetime) -> Gauge | None:
    return end and Gauge(end.value - now.timestamp(), end.at_s)


def _utc(epoch_s: float) -> datetime:
    return datetime.fromtimestamp(epoch_s, UTC)
