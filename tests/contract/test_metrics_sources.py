"""One set of expectations for every source of metrics: read from the endpoints directly, and through a Prometheus."""

import asyncio
import math
import time
from collections.abc import AsyncIterator, Callable, Iterator
from datetime import UTC, datetime
from functools import partial

import pytest

from pipeline.adapters.telemetry.prometheus import PrometheusSource
from pipeline.adapters.telemetry.scrape import ScrapeSource
from pipeline.domain.telemetry import Reading, Signal
from pipeline.ports.metrics import MetricsSource
from tests.contract.metrics_world import DEADLINE_S, Load, Metrics, World
from tests.contract.telemetry.real_prometheus import real_prometheus

WINDOW_S = 8
RESTART_S = 3.0
DAY_S = 86_400.0


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    world = World(tmp_path_factory.mktemp("world"))
    slow_failures = Load(20.0, status="503", shares=(0.0, 0.0, 0.0, 1.0, 1.0, 1.0))
    for n in (1, 2):
        world.start(
            "checkout",
            f"checkout-{n}",
            Metrics(
                loads=[Load(180.0), slow_failures],
                gauges={
                    "process_resident_memory_bytes": {(): 300e6},
                    "container_spec_memory_limit_bytes": {(): 400e6 if n == 1 else 0.0},
                    "node_filesystem_size_bytes": {
                        (("mountpoint", "/"), ("fstype", "ext4")): 100.0,
                        (("mountpoint", "/logs"), ("fstype", "ext4")): 50.0,
                        (("mountpoint", "/broken"), ("fstype", "ext4")): 100.0,
                        (("mountpoint", "/none"), ("fstype", "ext4")): 0.0,
                        (("mountpoint", "/image"), ("fstype", "squashfs")): 100.0,
                    },
                    "node_filesystem_avail_bytes": {
                        (("mountpoint", "/"), ("fstype", "ext4")): 40.0,
                        (("mountpoint", "/logs"), ("fstype", "ext4")): 5.0,
                        (("mountpoint", "/broken"), ("fstype", "ext4")): math.nan,
                        (("mountpoint", "/none"), ("fstype", "ext4")): 0.0,
                        (("mountpoint", "/image"), ("fstype", "squashfs")): 0.0,
                    },
                },
                calls={("checkout", "payments"): 5.0, ("checkout", "ledger"): 0.0},
            ),
        )
    world.start(
        "payments",
        "payments-1",
        Metrics(
            loads=[Load(100.0)],
            gauges={
                "container_memory_working_set_bytes": {(): 100e6},
                "container_spec_memory_limit_bytes": {(): 400e6},
                "x509_cert_not_after": {
                    (("filepath", "/a.pem"),): time.time() + 90 * DAY_S,
                    (("filepath", "/b.pem"),): time.time() + 2 * DAY_S,
                },
            },
        ),
    )
    world.start("idle", "idle-1", Metrics(loads=[Load(0.0), Load(0.0, status="500")]))
    world.start("restarting", "restarting-1", Metrics(loads=[Load(50.0, restart_s=RESTART_S)]))
    older = partial(Load, metric="http_request_duration_seconds", status_label="status")
    world.start("older", "older-1", Metrics(loads=[older(150.0, status="2xx"), older(50.0, status="5xx")]))
    world.start("page", "page-1", lambda: b"<!DOCTYPE html>\n<html><body>Welcome</body></html>")
    yield world
    world.stop()


@pytest.fixture(scope="module")
def prometheus_url(world: World, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with real_prometheus(tmp_path_factory.mktemp("prometheus"), world.file) as url:
        yield url


@pytest.fixture(params=["scrape", "prometheus"])
async def source(request: pytest.FixtureRequest, world: World) -> AsyncIterator[MetricsSource]:
    it: MetricsSource
    if request.param == "scrape":
        it = ScrapeSource(sd_file=world.file, window_s=WINDOW_S)
    else:
        url = request.getfixturevalue("prometheus_url")
        it = PrometheusSource(url, instance_label="instance_name", window=f"{WINDOW_S}s")
    assert it.name == request.param
    yield it
    await it.close()


async def reading(source: MetricsSource, holds: Callable[[Reading], bool]) -> Reading:
    """The first reading of which ``holds`` is true."""
    deadline_s = time.monotonic() + DEADLINE_S
    while True:
        last = await source.read(datetime.now(UTC))
        if holds(last):
            return last
        assert time.monotonic() < deadline_s, last
        await asyncio.sleep(0.3)


def value(reading: Reading, service: str, signal: Signal, instance: str = "") -> float | None:
    found = [
        s.value for s in reading.samples if (s.key.service, s.key.signal, s.key.instance) == (service, signal, instance)
    ]
    assert len(found) <= 1
    return found[0] if found else None


def has(service: str, signal: Signal, instance: str = "") -> Callable[[Reading], bool]:
    return lambda reading: value(reading, service, signal, instance) is not None


async def test_traffic_errors_and_latency_are_of_the_service_over_its_instances(source: MetricsSource) -> None:
    def settled(reading: Reading) -> bool:
        traffic = value(reading, "checkout", Signal.TRAFFIC)
        ratio = value(reading, "checkout", Signal.ERROR_RATIO)
        return traffic == pytest.approx(400.0, rel=0.2) and ratio == pytest.approx(0.1, abs=0.03)

    seen = await reading(source, settled)
    latency_s = value(seen, "checkout", Signal.LATENCY_P99)
    assert latency_s is not None
    assert 0.3 < latency_s <= 0.4
    assert not [s for s in seen.samples if s.key.signal is Signal.TRAFFIC and s.key.instance]


async def test_a_first_look_at_old_counters_is_no_rate(source: MetricsSource) -> None:
    seen = await reading(source, has("payments", Signal.TRAFFIC))
    traffic = value(seen, "payments", Signal.TRAFFIC)
    assert traffic is not None
    assert 0.0 <= traffic < 1000.0


async def test_no_failed_request_so_far_is_an_error_ratio_of_zero(source: MetricsSource) -> None:
    seen = await reading(source, has("payments", Signal.ERROR_RATIO))
    assert value(seen, "payments", Signal.ERROR_RATIO) == 0.0


async def test_no_requests_are_no_latency_and_no_error_ratio(source: MetricsSource) -> None:
    seen = await reading(source, has("idle", Signal.TRAFFIC))
    assert value(seen, "idle", Signal.TRAFFIC) == 0.0
    assert value(seen, "idle", Signal.LATENCY_P99) is None
    assert value(seen, "idle", Signal.ERROR_RATIO) is None


async def test_older_names_of_metric_and_status_label_are_understood(source: MetricsSource) -> None:
    def settled(reading: Reading) -> bool:
        traffic = value(reading, "older", Signal.TRAFFIC)
        ratio = value(reading, "older", Signal.ERROR_RATIO)
        return traffic == pytest.approx(200.0, rel=0.2) and ratio == pytest.approx(0.25, abs=0.05)

    await reading(source, settled)


async def test_counters_that_start_anew_again_and_again_give_no_wild_rates(source: MetricsSource) -> None:
    def settled(reading: Reading) -> bool:
        return 10.0 < (value(reading, "restarting", Signal.TRAFFIC) or 0.0) < 65.0

    await reading(source, settled)
    restarted_s = time.monotonic() + RESTART_S * 1.5
    while time.monotonic() < restarted_s:
        await asyncio.sleep(0.1)
        seen = await reading(source, has("restarting", Signal.TRAFFIC))
        traffic = value(seen, "restarting", Signal.TRAFFIC)
        assert traffic is not None
        assert 0.0 <= traffic < 100.0
        latency_s = value(seen, "restarting", Signal.LATENCY_P99)
        assert latency_s is None or 0.0 < latency_s <= 0.4


async def test_memory_is_a_share_of_the_limit_by_instance_and_nothing_without_a_limit(source: MetricsSource) -> None:
    seen = await reading(source, has("payments", Signal.MEMORY_RATIO, "payments-1"))
    memory = {s.key.instance: s.value for s in seen.samples if s.key.signal is Signal.MEMORY_RATIO}
    assert memory == {"checkout-1": pytest.approx(0.75), "payments-1": pytest.approx(0.25)}


async def test_disk_is_the_fullest_volume_of_the_instance(source: MetricsSource) -> None:
    seen = await reading(source, has("checkout", Signal.DISK_RATIO, "checkout-2"))
    disk = {s.key.instance: s.value for s in seen.samples if s.key.signal is Signal.DISK_RATIO}
    assert disk == {"checkout-1": pytest.approx(0.9), "checkout-2": pytest.approx(0.9)}


async def test_the_certificate_that_ends_first_counts(source: MetricsSource) -> None:
    seen = await reading(source, has("payments", Signal.CERT_REMAINING, "payments-1"))
    remaining_s = value(seen, "payments", Signal.CERT_REMAINING, "payments-1")
    assert remaining_s == pytest.approx(2 * DAY_S, abs=900)


async def test_calls_become_edges_where_there_are_any(source: MetricsSource) -> None:
    def settled(reading: Reading) -> bool:
        return any(edge.calls_per_s == pytest.approx(10.0, rel=0.2) for edge in reading.edges)

    seen = await reading(source, settled)
    assert {(edge.caller, edge.callee) for edge in seen.edges} == {("checkout", "payments")}


async def test_a_target_that_serves_something_else_is_a_failure_that_names_it(source: MetricsSource) -> None:
    seen = await reading(source, lambda seen: bool(seen.failures) and has("payments", Signal.TRAFFIC)(seen))
    assert [failure.source for failure in seen.failures] == [f"{source.name} page-1"]
    assert "\n" not in seen.failures[0].reason


async def test_a_target_that_is_gone_fails_alone_and_is_forgotten_when_no_longer_listed(
    source: MetricsSource, world: World
) -> None:
    name = f"mortal-{source.name}"
    mortal = world.start(
        "mortal",
        name,
        Metrics(
            loads=[Load(10.0)],
            gauges={"process_resident_memory_bytes": {(): 1.0}, "container_spec_memory_limit_bytes": {(): 2.0}},
        ),
    )
    await reading(
        source, lambda seen: has("mortal", Signal.TRAFFIC)(seen) and has("mortal", Signal.MEMORY_RATIO, name)(seen)
    )
    mortal.stop()
    failed = f"{source.name} {name}"
    seen = await reading(source, lambda seen: failed in [failure.source for failure in seen.failures])
    assert value(seen, "mortal", Signal.MEMORY_RATIO, name) is None
    assert has("checkout", Signal.MEMORY_RATIO, "checkout-1")(seen)
    await reading(source, lambda seen: not has("mortal", Signal.TRAFFIC)(seen))
    world.unlist(mortal)
    await reading(source, lambda seen: failed not in [failure.source for failure in seen.failures])


async def test_every_sample_is_finite_aware_and_newer_than_the_one_before(source: MetricsSource) -> None:
    first = await reading(source, has("checkout", Signal.TRAFFIC))
    second = await reading(source, has("checkout", Signal.TRAFFIC))
    before = {sample.key: sample for sample in first.samples}
    assert len(before) == len(first.samples)
    for sample in second.samples:
        assert math.isfinite(sample.value)
        assert sample.at.utcoffset() is not None
        assert abs((sample.at - datetime.now(UTC)).total_seconds()) < DEADLINE_S
        assert sample.key not in before or sample.at > before[sample.key].at
