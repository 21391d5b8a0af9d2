"""Tempo: the contract of traces, and what is its own."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import pytest

from pipeline.adapters.telemetry.tempo import CANDIDATES, TempoSource
from pipeline.adapters.telemetry.upstream import Access
from pipeline.domain.errors import ConfigurationError
from pipeline.domain.ids import ServiceName
from pipeline.domain.spans import Trace, TraceReading
from pipeline.domain.telemetry import SourceFailure
from tests.contract.telemetry.faults import Fault, FaultyServer
from tests.contract.telemetry.suite import AGAIN, CART, FOR_GOOD, TracesContract, long_ago, make_trace
from tests.contract.telemetry.tempo_server import Json, TempoServer, as_otlp

MINUTE = timedelta(minutes=1)
START = long_ago()


@dataclass
class World:
    tempo: TempoServer
    server: FaultyServer
    source: TempoSource
    impatient: TempoSource

    async def put(self, traces: Sequence[Trace]) -> None:
        for trace in traces:
            self.tempo.add(trace)

    async def misbehave(self, fault: Fault) -> None:
        await self.server.misbehave(fault)


@pytest.fixture
async def world() -> AsyncIterator[World]:
    tempo = TempoServer()
    async with FaultyServer(tempo.app()) as server:
        sources = TempoSource(server.url, timeout_s=30.0), TempoSource(server.url, timeout_s=0.3)
        yield World(tempo, server, *sources)
        for source in sources:
            await source.close()


class TestContract(TracesContract):
    """Every test of the suite, on a Tempo."""


async def search(world: World, **arguments: Any) -> TraceReading:
    return await world.source.search(CART, START, START + MINUTE, **{"limit": 10, **arguments})


async def changed(world: World, change: Callable[[Json], None]) -> TraceReading:
    """What is read after a change of what the server says about one trace."""
    trace = make_trace(START, 1, 0.4, failing=True)
    world.tempo.add(trace)
    change(world.tempo.bodies[trace.trace_id])
    return await search(world)


async def test_the_question_in_traceql_and_whole_seconds(world: World) -> None:
    since = START + timedelta(milliseconds=400)
    await world.source.search(ServiceName('a"b\\c'), since, since + MINUTE, limit=3, errors_only=True)
    (asked,) = world.tempo.asked
    assert asked["q"] == r'{ resource.service.name = "a\"b\\c" && status = error }'
    start_s = int(START.timestamp())
    assert (asked["start"], asked["end"]) == (str(start_s), str(start_s + 61))


async def test_only_the_slowest_are_fetched(world: World) -> None:
    await world.put([make_trace(START, n, 0.01 * n) for n in range(1, 31)])
    reading = await search(world, limit=2)
    assert [trace.spans[0].duration_s for trace in reading.traces] == pytest.approx([0.3, 0.29])
    assert world.server.asked == 3
    assert world.tempo.asked[0]["limit"] == str(CANDIDATES)


async def test_opentelemetrys_own_json_reads_the_same(world: World) -> None:
    trace = make_trace(START, 1, 0.4, failing=True)
    await world.put([trace])
    tempos = await search(world)
    world.tempo.bodies[trace.trace_id] = as_otlp(trace)
    assert await search(world) == tempos
    assert [span.span_id for span in tempos.traces[0].spans] == [span.span_id for span in trace.spans]
    assert [span.parent_id for span in tempos.traces[0].spans] == ["", *(span.span_id for span in trace.spans[:2])]


@pytest.mark.parametrize(
    ("status", "error"),
    [
        ({"code": 2}, True),
        ({"code": "STATUS_CODE_ERROR"}, True),
        ({"code": "STATUS_CODE_OK"}, False),
        ({"code": 1}, False),
        ({}, False),
        (None, False),
    ],
)
async def test_a_span_failed_by_its_status(world: World, status: Json | None, error: bool) -> None:
    def change(body: Json) -> None:
        for batch in body["batches"]:
            batch["scopeSpans"][0]["spans"][0]["status"] = status

    (trace,) = (await changed(world, change)).traces
    assert {span.error for span in trace.spans} == {error}


async def test_spans_without_a_service_are_left_out(world: World) -> None:
    def change(body: Json) -> None:
        body["batches"][0]["resource"] = {}
        body["batches"][2]["resource"] = {"attributes": [{"key": "service.name", "value": {"intValue": "7"}}]}
        body["batches"].append({"resource": body["batches"][1]["resource"]})

    (trace,) = (await changed(world, change)).traces
    assert [(span.service, span.operation) for span in trace.spans] == [(CART, "POST /items")]


async def test_an_answer_of_another_kind_is_told(world: World) -> None:
    world.tempo.search_says = {"status": "fine"}
    (failure,) = (await search(world)).failures
    assert failure.reason == f'not an answer of Tempo\'s search API: {{"status": "fine"}}; {FOR_GOOD}'
    world.tempo.search_says = {"metrics": {}}
    assert (await search(world)).failures == ()


async def test_a_trace_that_is_found_and_gone_is_told_and_the_others_count(world: World) -> None:
    kept, gone = make_trace(START, 1, 0.4), make_trace(START, 2, 0.9)
    await world.put([kept, gone])
    del world.tempo.bodies[gone.trace_id]
    reading = await search(world)
    assert [trace.trace_id for trace in reading.traces] == [kept.trace_id]
    assert reading.failures == (SourceFailure("tempo trace", f"HTTP 404: trace not found; {AGAIN}"),)


async def test_a_trace_that_is_none_is_told(world: World) -> None:
    reading = await changed(world, lambda body: body.clear())
    assert reading.traces == ()
    assert reading.failures == (SourceFailure("tempo trace", f"not an answer of Tempo's trace API: {{}}; {FOR_GOOD}"),)


async def test_an_id_that_is_none_is_not_made_an_address(world: World) -> None:
    hit = {"traceID": "../../admin?x=", "startTimeUnixNano": f"{int(START.timestamp())}000000000", "durationMs": 5}
    world.tempo.extra_hits.append(hit)
    reading = await search(world)
    assert (reading.traces, reading.failures, world.server.asked) == ((), (), 1)


async def test_a_refused_query_is_told_in_the_servers_words(world: World) -> None:
    reading = await world.source.search(CART, START, START - MINUTE, limit=5)
    (failure,) = reading.failures
    assert failure == SourceFailure("tempo", f"HTTP 400: http parameter start must be before end; {FOR_GOOD}")


async def test_tenant_and_token_are_sent(world: World) -> None:
    world.tempo.tenant = "shop"
    assert "no org id" in (await search(world)).failures[0].reason
    source = TempoSource(world.server.url, tenant="shop", access=Access(headers={"Authorization": "Bearer t"}))
    assert (await source.search(CART, START, START + MINUTE, limit=1)).failures == ()
    assert world.server.headers["Authorization"] == "Bearer t"
    await source.close()


def test_an_address_that_is_none_is_refused() -> None:
    with pytest.raises(ConfigurationError):
        TempoSource("tempo:3200")
