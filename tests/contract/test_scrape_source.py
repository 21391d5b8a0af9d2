"""What can go wrong between the scraper and a target, over real HTTP, and the list of targets."""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from pipeline.adapters.telemetry.scrape import ScrapeSource
from pipeline.adapters.telemetry.targets import ScrapeTarget
from pipeline.domain.ids import ServiceName
from pipeline.domain.telemetry import Reading, Signal, SourceFailure
from tests.contract.metrics_world import Instance, Load, Metrics

HALF_FULL = b"process_resident_memory_bytes 5\ncontainer_spec_memory_limit_bytes 10\n"
NOW = datetime(2027, 1, 2, 3, 4, 5, tzinfo=UTC)


@pytest.fixture
def start() -> Iterator[Callable[..., ScrapeTarget]]:
    """Starts an endpoint with a body (or a function that gives one) and headers."""
    started: list[Instance] = []

    def start(body: bytes | Callable[[], bytes], **headers: str) -> ScrapeTarget:
        name = f"web-{len(started) + 1}"
        sent = {key.replace("_", "-"): value for key, value in headers.items()}
        instance = Instance("web", name, body if callable(body) else lambda: body, sent)
        started.append(instance)
        return ScrapeTarget(f"http://{instance.address}/metrics", ServiceName("web"), name)

    yield start
    for instance in started:
        instance.stop()


@asynccontextmanager
async def scraping(**arguments: Any) -> AsyncIterator[ScrapeSource]:
    source = ScrapeSource(**arguments)
    yield source
    await source.close()


def memory(reading: Reading) -> dict[str, float]:
    return {s.key.instance: s.value for s in reading.samples if s.key.signal is Signal.MEMORY_RATIO}


@pytest.mark.parametrize(
    ("body", "headers", "reason"),
    [
        (b"", {}, "the answer is empty"),
        (b"\xff\xfe", {}, "not Prometheus' text format: not UTF-8"),
        (b'{"error": "no such page"}', {"Content_Type": "application/json"}, "not Prometheus' text format: "),
        (HALF_FULL, {"Content_Type": "application/openmetrics-text; version=1.0.0"}, "answers application/openmetrics"),
        (b"# " + b"x" * 3000, {}, "the answer is larger than "),
    ],
)
async def test_an_answer_of_no_use_is_one_failure(
    start: Callable[..., ScrapeTarget], body: bytes, headers: dict[str, str], reason: str
) -> None:
    async with scraping(fixed=[start(body, **headers), start(HALF_FULL)], max_body_bytes=2048) as source:
        reading = await source.read(NOW)
    assert [failure.source for failure in reading.failures] == ["scrape web-1"]
    assert reading.failures[0].reason.startswith(reason)
    assert "\n" not in reading.failures[0].reason
    assert memory(reading) == {"web-2": 0.5}


async def test_a_target_that_is_not_there_or_not_an_address_is_a_failure(start: Callable[..., ScrapeTarget]) -> None:
    gone = Instance("web", "web-9", lambda: HALF_FULL)
    gone.stop()
    targets = [
        ScrapeTarget(f"http://{gone.address}/metrics", ServiceName("web"), "web-9"),
        ScrapeTarget("http://127.0.0.1:none/metrics", ServiceName("web"), "web-10"),
    ]
    async with scraping(fixed=targets) as source:
        reading = await source.read(NOW)
    assert reading.samples == ()
    assert reading.failures == (
        SourceFailure("scrape web-9", "Connection refused"),
        SourceFailure("scrape web-10", "not a usable address"),
    )


async def test_slow_targets_are_given_up_all_at_once(start: Callable[..., ScrapeTarget]) -> None:
    def late() -> bytes:
        time.sleep(3.0)
        return HALF_FULL

    async with scraping(fixed=[start(late), start(late), start(late), start(HALF_FULL)], timeout_s=0.5) as source:
        async with asyncio.timeout(2.5):
            reading = await source.read(NOW)
    assert [f.reason for f in reading.failures] == ["no answer within 0.5 s"] * 3
    assert memory(reading) == {"web-4": 0.5}


async def test_more_targets_than_may_be_asked_at_once_all_get_their_turn(start: Callable[..., ScrapeTarget]) -> None:
    async with scraping(fixed=[start(HALF_FULL) for _ in range(5)], concurrency=2) as source:
        assert len(memory(await source.read(NOW))) == 5


async def test_a_moment_is_told_once(start: Callable[..., ScrapeTarget]) -> None:
    async with scraping(fixed=[start(HALF_FULL)]) as source:
        assert memory(await source.read(NOW)) == {"web-1": 0.5}
        assert memory(await source.read(NOW)) == {}
        assert memory(await source.read(NOW + timedelta(seconds=1))) == {"web-1": 0.5}


async def test_a_clock_set_back_costs_one_reading_of_rates(start: Callable[..., ScrapeTarget]) -> None:
    async with scraping(fixed=[start(Metrics(loads=[Load(10.0)]).text)]) as source:
        seen = [
            any(s.key.signal is Signal.TRAFFIC for s in (await source.read(NOW + timedelta(seconds=after_s))).samples)
            for after_s in (0, 5, -3600, -3595)
        ]
    assert seen == [False, True, False, True]


async def test_a_scrape_interval_as_long_as_the_window_still_gives_rates(start: Callable[..., ScrapeTarget]) -> None:
    async with scraping(fixed=[start(Metrics(loads=[Load(10.0)]).text)], window_s=60.0) as source:
        await source.read(NOW)
        reading = await source.read(NOW + timedelta(seconds=75))
    assert [s.key.signal for s in reading.samples if s.key.signal is Signal.TRAFFIC]


async def test_the_file_is_followed_and_what_was_known_stays_while_it_is_broken(
    start: Callable[..., ScrapeTarget], tmp_path: Path
) -> None:
    addresses = [start(HALF_FULL).url.split("/")[2] for _ in range(2)]
    file = tmp_path / "targets.json"
    moments = (NOW + timedelta(seconds=n) for n in range(100))

    def write(text: str) -> None:
        fresh = tmp_path / "fresh"
        fresh.write_text(text)
        fresh.replace(file)

    async with scraping(sd_file=file) as source:
        missing = await source.read(next(moments))
        assert missing.failures == (SourceFailure("scrape targets", f"{file}: No such file or directory"),)
        write(json.dumps([{"targets": addresses[:1], "labels": {"job": "web"}}]))
        assert await source.read(next(moments)) != missing
        assert memory(await source.read(next(moments))) == {addresses[0]: 0.5}
        write('[{"targets": [')
        broken = await source.read(next(moments))
        assert [failure.source for failure in broken.failures] == ["scrape targets"]
        assert memory(broken) == {addresses[0]: 0.5}
        write(json.dumps([{"targets": addresses[1:], "labels": {"service": "web", "instance_name": "web-2"}}]))
        mended = await source.read(next(moments))
        assert (mended.failures, memory(mended)) == ((), {"web-2": 0.5})


async def test_a_yaml_file_with_scheme_and_path(start: Callable[..., ScrapeTarget], tmp_path: Path) -> None:
    address = start(HALF_FULL).url.split("/")[2]
    file = tmp_path / "targets.yml"
    file.write_text(f"- targets: ['{address}']\n  labels: {{service: web, __scheme__: http, __metrics_path__: /m}}\n")
    async with scraping(sd_file=file) as source:
        assert memory(await source.read(NOW)) == {address: 0.5}


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ('{"targets": []}', "not in file_sd format"),
        ('[{"targets": "127.0.0.1:1"}]', "not in file_sd format"),
        ('[{"targets": ["127.0.0.1:1"], "lables": {}}]', "not in file_sd format"),
        ('[{"targets": ["127.0.0.1:1"]}]', "target 127.0.0.1:1 has neither a service nor a job label"),
    ],
)
async def test_a_file_of_another_shape_is_told_in_one_line(tmp_path: Path, text: str, reason: str) -> None:
    file = tmp_path / "targets.json"
    file.write_text(text)
    async with scraping(sd_file=file) as source:
        (failure,) = (await source.read(NOW)).failures
    assert failure.source == "scrape targets"
    assert failure.reason.startswith(f"{file}: {reason}")
    assert "\n" not in failure.reason
