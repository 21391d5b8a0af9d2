"""Loki: the contract of every provider of logs, and what is its own."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from datetime import timedelta

import pytest

from pipeline.adapters.telemetry.loki import MAX_LINES, LokiSource
from pipeline.adapters.telemetry.upstream import Access
from pipeline.domain.errors import ConfigurationError
from pipeline.domain.logs import LogLine, LogReading
from tests.contract.telemetry.faults import Fault, FaultyServer
from tests.contract.telemetry.loki_server import MAX_ENTRIES, Entry, LokiServer
from tests.contract.telemetry.suite import AWKWARD, CART, SHOP, LogsContract, long_ago

MINUTE = timedelta(minutes=1)
START = long_ago()


@dataclass
class World:
    loki: LokiServer
    server: FaultyServer
    source: LokiSource
    impatient: LokiSource

    async def put(self, lines: Sequence[LogLine]) -> None:
        for line in lines:
            labels = {"service_name": line.service, "namespace": "prod"}
            self.loki.push(labels, Entry(int(line.at.timestamp() * 1000) * 1_000_000, line.text))

    async def misbehave(self, fault: Fault) -> None:
        await self.server.misbehave(fault)


@pytest.fixture
async def world() -> AsyncIterator[World]:
    loki = LokiServer()
    async with FaultyServer(loki.app()) as server:
        sources = LokiSource(server.url, timeout_s=30.0), LokiSource(server.url, timeout_s=0.3)
        yield World(loki, server, *sources)
        for source in sources:
            await source.close()


class TestContract(LogsContract):
    """Every test of the suite, on a Loki."""


def ns(seconds: float) -> int:
    return int(START.timestamp()) * 10**9 + int(seconds * 10**9)


async def read(world: World, limit: int = 100) -> LogReading:
    return await world.source.tail(START - MINUTE, START + MINUTE, limit=limit)


@pytest.mark.parametrize(
    ("raw", "text"),
    [
        ("plain text, level=info", "plain text, level=info"),
        ('{"level": "error", "msg": "boom", "n": 3}', "error boom"),
        ('{"message": "boom", "severity": "WARN"}', "WARN boom"),
        ('{"level": "error", "msg": "boom", "err": "dial tcp: refused"}', "error boom: dial tcp: refused"),
        ('{"msg": "boom: why", "error": "why"}', "boom: why"),
        ('{"log": "boom\\n", "stream": "stderr"}', "boom"),
        ('{"log": "{\\"lvl\\": \\"warn\\", \\"msg\\": \\"inner\\"}\\n"}', "warn inner"),
        ('{"code": 7}', '{"code": 7}'),
        ('{"msg": {"nested": 1}}', '{"msg": {"nested": 1}}'),
        ('{"msg": "cut', '{"msg": "cut'),
        ("[1, 2]", "[1, 2]"),
        ("", ""),
    ],
)
async def test_the_message_is_picked_out_of_json(world: World, raw: str, text: str) -> None:
    world.loki.push({"service_name": "shop"}, Entry(ns(0), raw))
    assert [line.text for line in (await read(world)).lines] == [text]


@pytest.mark.parametrize("text", AWKWARD)
@pytest.mark.parametrize("ascii_only", [True, False])
async def test_a_text_is_found_as_json_writes_it(world: World, text: str, ascii_only: bool) -> None:
    raw = json.dumps({"msg": f"before {text} after"}, ensure_ascii=ascii_only)
    world.loki.push({"service_name": "shop"}, Entry(ns(0), raw), Entry(ns(1), '{"msg": "other"}'))
    reading = await world.source.search(SHOP, text, START - MINUTE, START + MINUTE, limit=10)
    assert [line.text for line in reading.lines] == [f"before {text} after"]


async def test_lines_of_one_moment_keep_their_order_and_streams_are_merged(world: World) -> None:
    world.loki.push({"service_name": "shop", "pod": "a"}, *(Entry(ns(1), f"same {n}") for n in range(3)))
    world.loki.push({"service_name": "cart", "pod": "b"}, Entry(ns(0.5), "first"), Entry(ns(2), "last"))
    # The server hands lines of one moment out newest first, as it read them.
    texts = [line.text for line in (await read(world)).lines]
    assert texts == ["first", "same 0", "same 1", "same 2", "last"]


async def test_the_end_of_the_window_is_left_out_whatever_the_server_thinks(world: World) -> None:
    world.loki.end_counts = True
    world.loki.push({"service_name": "shop"}, Entry(ns(0), "inside"), Entry(ns(60), "at its end"))
    reading = await world.source.tail(START, START + MINUTE, limit=9)
    assert [line.text for line in reading.lines] == ["inside"]


async def test_the_instance_is_a_label_or_structured_metadata(world: World) -> None:
    world.loki.push({"service_name": "shop", "pod": "shop-1"}, Entry(ns(0), "label"))
    nested: dict[str, object] = {"structuredMetadata": {"k8s_pod_name": "shop-2"}, "parsed": {}}
    world.loki.push({"service_name": "shop", "job": "x"}, Entry(ns(1), "nested", nested))
    world.loki.push({"service_name": "shop"}, Entry(ns(2), "flat", {"service_instance_id": "shop-3"}))
    world.loki.push({"service_name": "shop", "env": "x"}, Entry(ns(3), "none", {}))
    assert [line.instance for line in (await read(world)).lines] == ["shop-1", "shop-2", "shop-3", ""]


async def test_a_label_of_ones_own_and_matchers(world: World) -> None:
    world.loki.push({"app": "shop", "cluster": "eu", "host": "h1"}, Entry(ns(0), "ours"))
    world.loki.push({"app": "shop", "cluster": "us", "host": "h2"}, Entry(ns(0), "theirs"))
    world.loki.push({"service_name": "cart", "cluster": "eu"}, Entry(ns(0), "named otherwise"))
    source = LokiSource(world.server.url, service_label="app", instance_label="host", matchers='cluster="eu"')
    since, until = START - MINUTE, START + MINUTE
    for reading in (await source.tail(since, until, limit=9), await source.search(SHOP, "", since, until, limit=9)):
        assert [(line.service, line.text, line.instance) for line in reading.lines] == [(SHOP, "ours", "h1")]
    await source.close()


async def test_tenant_and_token_are_sent(world: World) -> None:
    world.loki.tenant = "shop"
    assert "no org id" in (await read(world)).failures[0].reason
    access = Access(headers={"Authorization": "Bearer t0k3n"})
    source = LokiSource(world.server.url, tenant="shop", access=access)
    assert (await source.tail(START - MINUTE, START, limit=9)).failures == ()
    assert world.server.headers["Authorization"] == "Bearer t0k3n"
    await source.close()


async def test_more_than_the_server_gives_at_once_is_not_asked_for(world: World) -> None:
    assert MAX_LINES == MAX_ENTRIES
    world.loki.push({"service_name": "shop"}, *(Entry(ns(0) + n, f"line {n}") for n in range(MAX_LINES + 1)))
    reading = await read(world, limit=10 * MAX_LINES)
    assert (len(reading.lines), reading.truncated, reading.failures) == (MAX_LINES, True, ())
    assert reading.lines[-1].text == f"line {MAX_LINES}"


async def test_a_service_with_a_quote_in_its_name_stays_a_name(world: World) -> None:
    name = 'a"} or {x="'
    world.loki.push({"service_name": name}, Entry(ns(0), "odd"))
    world.loki.push({"service_name": "cart"}, Entry(ns(0), "other"))
    since, until = START - MINUTE, START + MINUTE
    reading = await world.source.search(type(CART)(name), "", since, until, limit=9)
    assert [line.text for line in reading.lines] == ["odd"]


async def test_a_query_that_the_server_cannot_read_is_told_in_its_words(world: World) -> None:
    source = LokiSource(world.server.url, matchers="cluster=eu")
    (failure,) = (await source.tail(START - MINUTE, START, limit=9)).failures
    assert failure.source == "loki"
    assert failure.reason.startswith("HTTP 400: parse error : syntax error")
    await source.close()


@pytest.mark.parametrize("arguments", [{"url": "loki:3100"}, {"service_label": "a-b"}, {"instance_label": ""}])
def test_settings_that_cannot_be_right_are_refused(arguments: dict[str, str]) -> None:
    with pytest.raises(ConfigurationError):
        LokiSource(**{"url": "http://127.0.0.1:3100", **arguments})  # type: ignore[arg-type]
