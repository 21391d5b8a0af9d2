"""Jaeger: the contracts of traces and call edges, and what is its own."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import pytest
from aiohttp import web

from pipeline.adapters.telemetry.jaeger import CANDIDATES, JaegerSource
from pipeline.adapters.telemetry.upstream import Access
from pipeline.domain.errors import ConfigurationError
from pipeline.domain.ids import ServiceName
from pipeline.domain.spans import Trace, TraceReading
from pipeline.domain.telemetry import CallEdge
from tests.contract.telemetry.faults import Fault, FaultyServer
from tests.contract.telemetry.jaeger_server import JaegerServer, Json, Row, as_json
from tests.contract.telemetry.suite import (
    AGAIN,
    CART,
    FOR_GOOD,
    SHOP,
    TopologyContract,
    TracesContract,
    long_ago,
    make_trace,
)

MINUTE = timedelta(minutes=1)
START = long_ago()


@dataclass
class Server:
    jaeger: JaegerServer
    server: FaultyServer
    source: JaegerSource
    impatient: JaegerSource

    async def misbehave(self, fault: Fault) -> None:
        await self.server.misbehave(fault)


class TraceWorld(Server):
    async def put(self, traces: Sequence[Trace]) -> None:
        for trace in traces:
            self.jaeger.add(trace)


class CallWorld(Server):
    async def put(self, edges: Sequence[CallEdge], since: datetime, until: datetime) -> None:
        for n in range(minutes := round((until - since) / MINUTE)):
            at_ms = int((since + (n + 0.5) * MINUTE).timestamp() * 1000)
            for edge in edges:
                calls = edge.calls_per_s * (until - since).total_seconds() / minutes
                self.jaeger.rows.append(Row(at_ms, edge.caller, edge.callee, round(calls)))


async def made(kind: type[Server]) -> AsyncIterator[Any]:
    jaeger = JaegerServer()
    async with FaultyServer(
        jaeger.app(), refusal='{"data": null, "errors": [{"code": 403, "msg": "the token has expired"}]}'
    ) as server:
        url = f"{server.url}/jaeger"
        sources = JaegerSource(url, timeout_s=30.0), JaegerSource(url, timeout_s=0.3)
        yield kind(jaeger, server, *sources)
        for source in sources:
            await source.close()


class TestTraces(TracesContract):
    @pytest.fixture
    async def world(self) -> AsyncIterator[TraceWorld]:
        async for world in made(TraceWorld):
            yield world


class TestTopology(TopologyContract):
    @pytest.fixture
    async def world(self) -> AsyncIterator[CallWorld]:
        async for world in made(CallWorld):
            yield world


@pytest.fixture
async def world() -> AsyncIterator[TraceWorld]:
    async for world in made(TraceWorld):
        yield world


async def search(world: Server, **arguments: Any) -> TraceReading:
    wanted = {"limit": 10, **arguments}
    return await world.source.search(CART, START, START + MINUTE, **wanted)


async def changed(change: Callable[[Json], None]) -> Trace:
    """The trace as read, after a change of what the server says."""
    trace = as_json(make_trace(START, 1, 0.4))
    change(trace)
    (found,) = (await answered(web.json_response({"data": [trace], "errors": None}))).traces
    return found


async def test_times_are_microseconds_for_traces_and_milliseconds_for_dependencies(world: TraceWorld) -> None:
    await search(world, errors_only=True)
    await world.source.edges(START, START + MINUTE)
    start_s = int(START.timestamp())
    traces, dependencies = world.jaeger.asked
    assert (traces["start"], traces["end"]) == (f"{start_s}000000", f"{start_s + 60}000000")
    assert traces["tags"] == '{"error": "true"}'
    assert dependencies == {"endTs": f"{start_s + 60}000", "lookback": "60000"}


async def test_the_slowest_is_found_among_more_than_were_asked_for(world: TraceWorld) -> None:
    slow = make_trace(START, 1, 9.0)
    await world.put([slow, *(make_trace(START, n, 0.1) for n in range(2, CANDIDATES))])
    reading = await search(world, limit=1)
    assert [trace.trace_id for trace in reading.traces] == [slow.trace_id]


async def test_a_trace_that_began_before_the_window_is_left_out_though_it_went_on_in_it(world: TraceWorld) -> None:
    await world.put([make_trace(START - timedelta(seconds=1, milliseconds=15), 1, 2.0), make_trace(START, 1, 0.1)])
    assert [trace.spans[0].duration_s for trace in (await search(world)).traces] == [0.1]


@pytest.mark.parametrize(
    ("tags", "error"),
    [
        ([{"key": "error", "type": "bool", "value": True}], True),
        ([{"key": "error", "type": "string", "value": "true"}], True),
        ([{"key": "otel.status_code", "type": "string", "value": "ERROR"}], True),
        ([{"key": "error", "type": "bool", "value": False}], False),
        ([{"key": "otel.status_code", "type": "string", "value": "OK"}], False),
        ([], False),
        (None, False),
    ],
)
async def test_a_span_failed_by_its_own_tags(tags: list[Json] | None, error: bool) -> None:
    def change(trace: Json) -> None:
        trace["spans"][2]["tags"] = tags

    assert [span.error for span in (await changed(change)).spans] == [False, False, error]


async def test_a_parent_by_follows_from_and_no_parent_in_another_trace() -> None:
    def change(trace: Json) -> None:
        root, middle, last = trace["spans"]
        elsewhere = {"refType": "CHILD_OF", "traceID": "f" * 32, "spanID": "e" * 16}
        root["references"] = [elsewhere]
        middle["references"] = [elsewhere, {**middle["references"][0], "refType": "FOLLOWS_FROM"}]
        last["references"] = [
            {**last["references"][0], "spanID": "d" * 16, "refType": "FOLLOWS_FROM"},
            *last["references"],
        ]

    found = await changed(change)
    root, middle, last = found.spans
    assert (root.parent_id, middle.parent_id, last.parent_id) == ("", root.span_id, middle.span_id)


async def test_a_trace_whose_root_has_not_arrived() -> None:
    def change(trace: Json) -> None:
        del trace["spans"][0]

    found = await changed(change)
    assert [span.operation for span in found.spans] == ["POST /items", "price items"]
    assert found.spans[0].parent_id


async def test_spans_without_a_service_are_left_out_and_doubles_counted_once() -> None:
    def change(trace: Json) -> None:
        trace["spans"][0]["processID"] = "p99"
        trace["spans"].append(trace["spans"][1])

    found = await changed(change)
    assert [span.operation for span in found.spans] == ["POST /items", "price items"]


async def test_the_root_comes_first_though_its_clock_is_late() -> None:
    def change(trace: Json) -> None:
        trace["spans"][0]["startTime"] += 500_000

    assert (await changed(change)).spans[0].operation == "GET /"


async def answered(answer: web.Response) -> TraceReading:
    """What is read from a server that always says this."""

    async def say(_: web.Request) -> web.Response:
        return answer

    app = web.Application()
    app.router.add_get("/api/traces", say)
    async with FaultyServer(app) as server:
        source = JaegerSource(server.url)
        reading = await source.search(CART, START, START + MINUTE, limit=10)
        await source.close()
        return reading


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (
            {"data": None, "errors": [{"code": 500, "msg": "storage is away"}]},
            f"Jaeger says 500: storage is away; {AGAIN}",
        ),
        ({"data": None, "errors": [{"code": 400, "msg": "bad tags"}]}, f"Jaeger says 400: bad tags; {FOR_GOOD}"),
        ({"data": [{"spans": []}]}, f'not an answer of Jaeger\'s query API: {{"data": [{{"spans": []}}]}}; {FOR_GOOD}'),
        ({"data": None, "errors": [{"code": 404, "msg": "trace not found"}]}, None),
        ({"data": None}, None),
        ({"data": [{"traceID": "a", "spans": None, "processes": None}]}, None),
    ],
)
async def test_refusals_inside_of_a_200(answer: Json, reason: str | None) -> None:
    reading = await answered(web.json_response(answer))
    assert [failure.reason for failure in reading.failures] == ([] if reason is None else [reason])


async def test_dependencies_of_a_daily_job_are_read_over_its_day(world: TraceWorld) -> None:
    day = timedelta(days=1)
    midnight_ms = int((START - day / 2).timestamp() * 1000)
    world.jaeger.rows += [Row(midnight_ms, "shop", "cart", 43_200), Row(midnight_ms, "shop", "cart", 43_200)]
    world.jaeger.rows += [Row(midnight_ms, "shop", "idle", 0), Row(midnight_ms, "", "cart", 5)]
    source = JaegerSource(f"{world.server.url}/jaeger", dependencies_lookback_s=day.total_seconds())
    reading = await source.edges(START, START + MINUTE)
    assert reading.edges == (CallEdge(SHOP, ServiceName("cart"), 1.0),)
    await source.close()


async def test_tenant_and_token_are_sent(world: TraceWorld) -> None:
    source = JaegerSource(world.server.url, tenant="shop", access=Access(headers={"Authorization": "Bearer t"}))
    await source.search(CART, START, START + MINUTE, limit=1)
    assert (world.server.headers["x-tenant"], world.server.headers["Authorization"]) == ("shop", "Bearer t")
    await source.close()


@pytest.mark.parametrize("arguments", [{"url": "jaeger:16686"}, {"dependencies_lookback_s": -1.0}])
def test_settings_that_cannot_be_right_are_refused(arguments: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError):
        JaegerSource(**{"url": "http://127.0.0.1:16686", **arguments})
