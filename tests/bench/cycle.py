"""One look at a real Prometheus that holds 10,000 series: how long it takes, and how much of it is the bot's own work.

Beside it the way that does not scale: the same figures asked service by service.
"""

from __future__ import annotations

import asyncio
import json
import re
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

from pipeline.adapters.telemetry.prometheus import PrometheusSource
from pipeline.adapters.telemetry.prometheus_api import PrometheusApi
from pipeline.adapters.telemetry.upstream import Access
from pipeline.domain.telemetry import SeriesKey
from tests.contract.metrics_world import Instance
from tests.contract.telemetry.real_prometheus import histogram, line, real_prometheus

SIZES = (50, 500)
"""Services, of 20 series each; the reading of each gives four samples."""
SERIES_EACH, SAMPLES_EACH = 20, 4
ROUNDS = 10
WINDOW, SCRAPE_S = "30s", 5.0
DEADLINE_S = 120.0
SHARES = {0.005: 0.1, 0.01: 0.3, 0.025: 0.5, 0.05: 0.8, 0.1: 0.9, 0.25: 0.98, 0.5: 1.0}
METRIC = "http_server_request_duration_seconds"


def exposition(services: int) -> bytes:
    """Two histograms of nine series each (by status), and a replica's memory with its limit, for each service."""
    now_s = time.time() % 1e6
    text = []
    for n in range(services):
        name = {"service": f"s{n:03}", "namespace": "bench"}
        for status, per_s in (("200", 50.0), ("500", 1.0)):
            text.append(histogram(METRIC, per_s * now_s, SHARES, http_response_status_code=status, **name))
        text.append(line("process_resident_memory_bytes", 3e8, **name))
        text.append(line("container_spec_memory_limit_bytes", 4e8, **name))
    return "".join(text).encode()


def export(services: int) -> None:
    """Serves the exposition until the standard input ends; prints its address."""
    instance = Instance("exporter", "exporter-1", lambda: exposition(services))
    print(instance.address, flush=True)
    sys.stdin.read()


@contextmanager
def _prometheus(services: int) -> Iterator[str]:
    """A server that scrapes an exporter in a process of its own, whose work is not ours."""
    command = [sys.executable, "-m", "tests.bench.cycle", str(services)]
    exporter = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert exporter.stdout is not None
    try:
        with tempfile.TemporaryDirectory() as name:
            listed = Path(name) / "targets.json"
            address = exporter.stdout.readline().strip()
            listed.write_text(json.dumps([{"targets": [address], "labels": {"service": "exporter"}}]))
            with real_prometheus(Path(name), listed, interval_s=SCRAPE_S) as url:
                yield url
    finally:
        exporter.kill()
        exporter.wait()


class Cost(NamedTuple):
    """Of one round: seconds on the wall, and seconds of this process' CPU."""

    wall_s: float
    cpu_s: float


def _now() -> Cost:
    return Cost(time.perf_counter(), time.process_time())


def _since(start: Cost) -> Cost:
    now = _now()
    return Cost(now.wall_s - start.wall_s, now.cpu_s - start.cpu_s)


def _asked(url: str) -> int:
    """Queries that the server has answered, as it counts them itself."""
    with urllib.request.urlopen(f"{url}/metrics") as answer:
        text = answer.read().decode()
    counts = re.findall(
        r'^prometheus_http_requests_total{[^}]*handler="/api/v1/query"[^}]*} (\S+)$', text, re.MULTILINE
    )
    return int(sum(float(count) for count in counts))


async def _ready(url: str, services: int) -> None:
    """Waits until every service has its four samples; RuntimeError when it never does."""
    deadline_s = time.monotonic() + DEADLINE_S
    while True:
        source = PrometheusSource(url, window=WINDOW, timeout_s=60)
        reading = await source.read(datetime.now(UTC))
        await source.close()
        if len(reading.samples) == SAMPLES_EACH * services and not reading.failures:
            return
        if time.monotonic() > deadline_s:
            raise RuntimeError(f"{len(reading.samples)} of {SAMPLES_EACH * services} samples: {reading.failures}")
        await asyncio.sleep(1)


async def _cycles(url: str, services: int) -> tuple[list[Cost], int, set[SeriesKey]]:
    """Costs by round, queries of the first (in which all is asked), and the series that were read."""
    source = PrometheusSource(url, window=WINDOW, timeout_s=60)
    costs, first, keys = [], 0, set()
    before = _asked(url)
    for _ in range(ROUNDS):
        start = _now()
        reading = await source.read(datetime.now(UTC))
        costs.append(_since(start))
        first = first or _asked(url) - before
        keys |= {sample.key for sample in reading.samples}
    await source.close()
    if len(keys) != SAMPLES_EACH * services:
        raise RuntimeError(f"{len(keys)} of {SAMPLES_EACH * services} series were read")
    return costs, first, keys


async def _one_by_one(url: str, keys: set[SeriesKey]) -> Cost:
    """The same figures by a query for each, eight at a time."""
    api = PrometheusApi(url, Access(), timeout_s=60)
    queries = [
        f'histogram_quantile(0.99, sum by (le) (rate({METRIC}_bucket{{service="{key.service}"}}[{WINDOW}])))'
        for key in keys
    ]
    start = _now()
    await asyncio.gather(*(api.instant(query) for query in queries))
    cost = _since(start)
    await api.close()
    return cost


async def _measure(url: str, services: int) -> None:
    await _ready(url, services)
    costs, requests, keys = await _cycles(url, services)
    wall_s = statistics.median(cost.wall_s for cost in costs)
    cpu_s = statistics.median(cost.cpu_s for cost in costs)
    slowest_s = max(cost.wall_s for cost in costs)
    alone = await _one_by_one(url, keys)
    print(
        f"{services * SERIES_EACH:6,} series: {requests} requests, {len(keys):,} samples; a cycle takes"
        f" {wall_s * 1000:.0f} ms (slowest of {ROUNDS}: {slowest_s * 1000:.0f} ms), {cpu_s * 1000:.0f} ms of it in the"
        f" bot ({cpu_s / wall_s:.0%}), the rest is waiting"
    )
    print(
        f"        one query a figure: {len(keys):,} requests, {alone.wall_s * 1000:.0f} ms,"
        f" {alone.cpu_s * 1000:.0f} ms of it in the bot"
    )


def run() -> None:
    for services in SIZES:
        with _prometheus(services) as url:
            asyncio.run(_measure(url, services))


if __name__ == "__main__":
    export(int(sys.argv[1]))
