"""New Relic through NerdGraph: the contracts of logs, traces and topology, and its metrics."""

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar

import pytest
from aiohttp import web

from pipeline.adapters.telemetry.newrelic import NewRelicSource, NewRelicTopologySource
from pipeline.adapters.telemetry.newrelic_client import NerdGraph
from pipeline.adapters.telemetry.newrelic_logs import NewRelicLogsSource
from pipeline.adapters.telemetry.newrelic_traces import NewRelicTracesSource
from pipeline.domain.errors import ConfigurationError
from pipeline.domain.ids import ServiceName
from pipeline.domain.logs import LogLine
from pipeline.domain.spans import Trace
from pipeline.domain.telemetry import CallEdge, Reading, SeriesKey, Signal
from tests.contract.telemetry.faults import Fault, FaultyServer
from tests.contract.telemetry.newrelic_server import KEY, REFUSAL, FakeNewRelic
from tests.contract.telemetry.suite import (
    AGAIN,
    CART,
    ENDING,
    FOR_GOOD,
    SHOP,
    LogsContract,
    TopologyContract,
    TracesContract,
    long_ago,
    make_trace,
    told,
)

NOW = datetime(2026, 11, 20, 12, 0, 30, tzinfo=UTC)
END = NOW.replace(minute=59, hour=11, second=0)
"""The end of the newest minute that is taken."""
IN_MINUTE_MS = int((END - timedelta(seconds=20)).timestamp() * 1000)


class World:
    """One account, for all ports."""

    def __init__(self, relic: FakeNewRelic, server: FaultyServer) -> None:
        self.relic = relic
        self.server = server
        self.patient_client = NerdGraph(7, KEY, url=server.url)
        self.impatient_client = NerdGraph(7, KEY, url=server.url, timeout_s=0.3)

    async def misbehave(self, fault: Fault) -> None:
        await self.server.misbehave(fault)

    async def close(self) -> None:
        await self.patient_client.close()
        await self.impatient_client.close()


class LogsAtNewRelic(World):
    @property
    def source(self) -> NewRelicLogsSource:
        return NewRelicLogsSource(self.patient_client)

    @property
    def impatient(self) -> NewRelicLogsSource:
        return NewRelicLogsSource(self.impatient_client)

    async def put(self, lines: Sequence[LogLine]) -> None:
        for line in lines:
            self.relic.put("Log", timestamp=_ms(line.at), message=line.text, service__name=str(line.service))


class TracesAtNewRelic(World):
    @property
    def source(self) -> NewRelicTracesSource:
        return NewRelicTracesSource(self.patient_client)

    @property
    def impatient(self) -> NewRelicTracesSource:
        return NewRelicTracesSource(self.impatient_client)

    async def put(self, traces: Sequence[Trace]) -> None:
        for trace in traces:
            for span in trace.spans:
                self.relic.put(
                    "Span",
                    timestamp=_ms(span.started_at),
                    trace__id=trace.trace_id,
                    id=span.span_id,
                    parentId=span.parent_id or None,
                    name=span.operation,
                    duration__ms=span.duration_s * 1000,
                    service__name=str(span.service),
                    otel__status_code="ERROR" if span.error else "UNSET",
                )


class MapAtNewRelic(World):
    @property
    def source(self) -> NewRelicTopologySource:
        return NewRelicTopologySource(self.patient_client)

    @property
    def impatient(self) -> NewRelicTopologySource:
        return NewRelicTopologySource(self.impatient_client)

    async def put(self, edges: Sequence[CallEdge], since: datetime, until: datetime) -> None:
        minutes = int((until - since).total_seconds() // 60)
        for edge in edges:
            for minute in range(minutes):
                self.relic.put(
                    "Metric",
                    timestamp=_ms(since + timedelta(minutes=minute)),
                    client=str(edge.caller),
                    server=str(edge.callee),
                    traces_service_graph_request_total=edge.calls_per_s * 60,
                )


W = TypeVar("W", bound=World)


def _ms(at: datetime) -> int:
    return int(at.timestamp() * 1000)


@asynccontextmanager
async def at_new_relic(kind: type[W]) -> AsyncIterator[W]:
    relic = FakeNewRelic()
    async with AsyncExitStack() as stack:
        world = kind(relic, await stack.enter_async_context(FaultyServer(relic.app, refusal=REFUSAL)))
        stack.push_async_callback(world.close)
        yield world


class TestLogs(LogsContract):
    @pytest.fixture
    async def world(self) -> AsyncIterator[LogsAtNewRelic]:
        async with at_new_relic(LogsAtNewRelic) as world:
            yield world

    async def test_logs_in_context_name_their_entity_and_pods_come_before_hosts(self, world: LogsAtNewRelic) -> None:
        start = long_ago()
        where = {"hostname": "node-1", "pod_name": "cart-5f-x"}
        world.relic.put("Log", timestamp=_ms(start), message="from APM\n", entity__name="cart", **where)
        world.relic.put("Log", timestamp=_ms(start), message="nobody's")
        reading = await world.source.tail(start, start + timedelta(minutes=1), limit=5)
        assert reading.lines == (LogLine(start, CART, "from APM", "cart-5f-x"),)

    async def test_more_than_new_relic_gives_is_said_to_be_cut(self, world: LogsAtNewRelic) -> None:
        start = long_ago()
        for n in range(5001):
            world.relic.put("Log", timestamp=_ms(start) + n, message=f"line {n}", service__name="shop")
        reading = await world.source.tail(start, start + timedelta(minutes=1), limit=6000)
        assert (len(reading.lines), reading.lines[-1].text, reading.truncated) == (5000, "line 5000", True)

    async def test_rows_that_are_no_lines_are_passed_over(self, world: LogsAtNewRelic) -> None:
        start = long_ago()
        world.relic.put("Log", timestamp=_ms(start), message=None, service__name="shop")
        world.relic.put("Log", timestamp=_ms(start), message={"a": 1}, service__name="shop")
        world.relic.put("Log", timestamp=_ms(start), message="a line", service__name="shop")
        reading = await world.source.search(SHOP, "", start, start + timedelta(minutes=1), limit=5)
        assert [line.text for line in reading.lines] == ["a line"]


class TestTraces(TracesContract):
    @pytest.fixture
    async def world(self) -> AsyncIterator[TracesAtNewRelic]:
        async with at_new_relic(TracesAtNewRelic) as world:
            yield world

    async def test_spans_of_apm_agents(self, world: TracesAtNewRelic) -> None:
        start = long_ago()
        common = {"timestamp": _ms(start), "trace__id": "f00", "appName": "shop", "duration__ms": 200.0}
        world.relic.put("Span", id="a", name="WebTransaction/checkout", **common)
        failed = {"parent__id": "a", "error__class": "TimeoutError"}
        world.relic.put("Span", id="b", name="Datastore/select", **failed, **{**common, "timestamp": _ms(start) + 1})
        world.relic.put("Span", id=None, name="half a span", **common)
        (trace,) = (await world.source.search(SHOP, start, start + timedelta(minutes=1), limit=5)).traces
        assert [(span.span_id, span.parent_id, span.service, span.duration_s, span.error) for span in trace.spans] == [
            ("a", "", "shop", 0.2, False),
            ("b", "a", "shop", 0.2, True),
        ]

    async def test_a_trace_that_began_before_the_window_is_left_out(self, world: TracesAtNewRelic) -> None:
        start = long_ago()
        await world.put([make_trace(start, 1, 0.5), make_trace(start, 2, 0.5)])
        window = start + timedelta(milliseconds=1005), start + timedelta(minutes=1)
        reading = await world.source.search(CART, *window, limit=5)
        assert [trace.spans[0].started_at for trace in reading.traces] == [start + timedelta(seconds=2)]

    async def test_two_requests_whatever_the_number_of_traces(self, world: TracesAtNewRelic) -> None:
        start = long_ago()
        await world.put([make_trace(start, n, 0.1 * n) for n in range(1, 30)])
        reading = await world.source.search(SHOP, start, start + timedelta(minutes=1), limit=25)
        assert (len(reading.traces), len(world.relic.asked)) == (25, 2)


class TestTopology(TopologyContract):
    @pytest.fixture
    async def world(self) -> AsyncIterator[MapAtNewRelic]:
        async with at_new_relic(MapAtNewRelic) as world:
            yield world

    async def test_transactions_know_the_application_that_called(self, world: MapAtNewRelic) -> None:
        start = long_ago()
        for n in range(120):
            world.relic.put("Transaction", timestamp=_ms(start) + n, appId=11, appName="shop", duration=0.1)
            world.relic.put("Transaction", timestamp=_ms(start) + n, appId=12, appName="cart", parent__app="11")
        world.relic.put("Transaction", timestamp=_ms(start), appId=12, appName="cart", parent__app="99")
        reading = await world.source.edges(start, start + timedelta(minutes=1))
        assert (reading.edges, reading.failures) == ((CallEdge(SHOP, CART, 2.0),), ())

    async def test_one_part_that_fails_leaves_the_others(self, world: MapAtNewRelic) -> None:
        start = long_ago()
        await world.put([CallEdge(SHOP, CART, 4.0)], start, start + timedelta(minutes=5))
        world.relic.errors["calls"] = ("TIMEOUT", "the query took too long")
        reading = await world.source.edges(start, start + timedelta(minutes=5))
        assert reading.edges == (CallEdge(SHOP, CART, 4.0),)
        assert [(failure.source, failure.reason) for failure in reading.failures] == [
            ("newrelic service map calls", f"TIMEOUT: the query took too long; {AGAIN}")
        ]


@pytest.fixture
async def world() -> AsyncIterator[World]:
    async with at_new_relic(World) as world:
        yield world


async def read(world: World, **arguments: Any) -> Reading:
    return await NewRelicSource(world.patient_client, **arguments).read(NOW)


def values(reading: Reading) -> dict[tuple[str, Signal, str], float]:
    return {(sample.key.service, sample.key.signal, sample.key.instance): sample.value for sample in reading.samples}


async def test_services_of_apm_agents(world: World) -> None:
    for _ in range(60):
        world.relic.put("Metric", timestamp=IN_MINUTE_MS, appName="shop", apm__service__transaction__duration=0.2)
    for _ in range(3):
        world.relic.put("Metric", timestamp=IN_MINUTE_MS, appName="shop", apm__service__error__count=1)
    for duration_s in [0.1] * 99 + [9.0] * 3:
        world.relic.put("Transaction", timestamp=IN_MINUTE_MS, appName="shop", duration=duration_s)
    # Of the minutes before and after:
    world.relic.put("Transaction", timestamp=_ms(END), appName="shop", duration=99.0)
    world.relic.put("Transaction", timestamp=_ms(END) - 60_001, appName="shop", duration=99.0)
    reading = await read(world)
    assert reading.failures == ()
    assert values(reading) == {
        ("shop", Signal.TRAFFIC, ""): 1.0,
        ("shop", Signal.ERROR_RATIO, ""): 0.05,
        ("shop", Signal.LATENCY_P99, ""): pytest.approx(9.0),
    }
    assert {sample.at for sample in reading.samples} == {END}
    assert len(world.relic.asked) == 1


async def test_services_of_opentelemetry(world: World) -> None:
    for status, durations in {"200": [0.2] * 108, "503": [0.4] * 12, "404": []}.items():
        world.relic.put(
            "Metric",
            timestamp=IN_MINUTE_MS,
            service__name="cart",
            http__response__status_code=status,
            http__server__request__duration=durations,
        )
    assert values(await read(world)) == {
        ("cart", Signal.TRAFFIC, ""): 2.0,
        ("cart", Signal.ERROR_RATIO, ""): pytest.approx(0.1),
        ("cart", Signal.LATENCY_P99, ""): pytest.approx(0.4),
    }


async def test_a_service_without_requests_has_a_traffic_of_none_and_no_ratio(world: World) -> None:
    world.relic.put("Metric", timestamp=IN_MINUTE_MS, service__name="cart", http__server__request__duration=[])
    assert values(await read(world)) == {("cart", Signal.TRAFFIC, ""): 0.0}


async def test_hosts_disks_and_pods(world: World) -> None:
    host = {"timestamp": IN_MINUTE_MS, "hostname": "db-1"}
    world.relic.put("SystemSample", **host, role="ledger", memoryUsedPercent=60.0, cpuPercent=20.0)
    world.relic.put("SystemSample", **host, role="ledger", memoryUsedPercent=71.0, cpuPercent=40.0)
    world.relic.put("SystemSample", timestamp=IN_MINUTE_MS, hostname="x", memoryUsedPercent=99.0, cpuPercent=99.0)
    world.relic.put("StorageSample", **host, role="ledger", mountPoint="/data", diskUsedPercent=93.0)
    pod = {"timestamp": IN_MINUTE_MS, "deploymentName": "shop", "podName": "shop-7d-a"}
    world.relic.put("K8sContainerSample", **pod, memoryWorkingSetUtilization=88.0, cpuCoresUtilization=50.0)
    world.relic.put("K8sContainerSample", **pod, memoryWorkingSetUtilization=None, cpuCoresUtilization=None)
    assert values(await read(world, host_service="role")) == {
        ("ledger", Signal.MEMORY_RATIO, "db-1"): 0.71,
        ("ledger", Signal.CPU_RATIO, "db-1"): 0.3,
        ("ledger", Signal.DISK_RATIO, "db-1:/data"): 0.93,
        ("shop", Signal.MEMORY_RATIO, "shop-7d-a"): 0.88,
        ("shop", Signal.CPU_RATIO, "shop-7d-a"): 0.5,
    }


async def test_one_service_seen_by_two_agents_is_told_once(world: World) -> None:
    world.relic.put("Metric", timestamp=IN_MINUTE_MS, appName="shop", apm__service__transaction__duration=0.2)
    for _ in range(60):
        world.relic.put("Metric", timestamp=IN_MINUTE_MS, service__name="shop", http__server__request__duration=[0.2])
    reading = await read(world)
    assert values(reading)["shop", Signal.TRAFFIC, ""] == pytest.approx(1 / 60)
    assert reading.rejected == {}


async def test_a_minute_is_asked_for_once_and_its_failures_stay(world: World) -> None:
    world.relic.errors["otel"] = ("SERVER_ERROR", "An error happened")
    world.relic.put("Transaction", timestamp=IN_MINUTE_MS, appName="shop", duration=0.5)
    source = NewRelicSource(world.patient_client)
    first = await source.read(NOW)
    soon = await source.read(NOW + timedelta(seconds=20))
    assert [sample.key for sample in first.samples] == [SeriesKey(SHOP, Signal.LATENCY_P99)]
    assert [(failure.source, failure.reason) for failure in first.failures] == [
        ("newrelic otel", f"SERVER_ERROR: An error happened; {AGAIN}")
    ]
    assert (soon.samples, soon.failures, len(world.relic.asked)) == ((), first.failures, 1)
    await source.read(NOW + timedelta(seconds=30))
    assert len(world.relic.asked) == 2


@pytest.mark.parametrize(
    ("kind", "ending"),
    [
        ("TOO_MANY_REQUESTS", AGAIN),
        ("TIMEOUT", AGAIN),
        ("SERVER_ERROR", AGAIN),
        ("ACCESS_DENIED", FOR_GOOD),
        ("UNAUTHENTICATED", FOR_GOOD),
        ("NRQL_SYNTAX_ERROR", FOR_GOOD),
    ],
)
async def test_errors_that_come_with_http_200(world: World, kind: str, ending: str) -> None:
    world.relic.errors["*"] = (kind, "in New Relic's words")
    reading = await read(world)
    assert [(failure.source, failure.reason) for failure in reading.failures] == [
        ("newrelic", f"{kind}: in New Relic's words; {ending}")
    ]


async def test_limits_told_with_http_200_open_the_breaker(world: World) -> None:
    world.relic.errors["*"] = ("TOO_MANY_REQUESTS", "slower")
    source = NewRelicLogsSource(world.patient_client)
    for _ in range(9):
        reading = await source.tail(NOW, NOW + timedelta(minutes=1), limit=5)
    assert len(world.relic.asked) == 5
    assert "left alone" in reading.failures[0].reason


async def test_a_wrong_key(world: World) -> None:
    source = NewRelicSource(NerdGraph(7, "NRAK-OTHER", url=world.server.url))
    (failure,) = (await source.read(NOW)).failures
    assert failure.reason == f"HTTP 401: Invalid API key; {FOR_GOOD}"
    await source.close()


@pytest.mark.parametrize(
    "body",
    ["{}", '{"data": null}', '{"data": {"actor": {"account": null}}}', '{"data": {"actor": {"account": {"apm": {}}}}}'],
)
async def test_answers_without_an_answer(body: str) -> None:
    async def answer(_: web.Request) -> web.Response:
        return web.Response(text=body, content_type="application/json")

    app = web.Application()
    app.router.add_post("/graphql", answer)
    async with FaultyServer(app) as server:
        source = NewRelicSource(NerdGraph(7, KEY, url=server.url))
        (failure,) = (await source.read(NOW)).failures
        await source.close()
    assert failure.reason == f"not an answer of NerdGraph: it has no results; {FOR_GOOD}"


@pytest.mark.parametrize("fault", ENDING)
async def test_a_provider_in_trouble_is_a_failure_in_the_reading(world: World, fault: Fault) -> None:
    await world.misbehave(fault)
    source = NewRelicSource(world.impatient_client if fault is Fault.DRIP else world.patient_client)
    reading = await source.read(NOW)
    assert reading.samples == ()
    told(reading.failures, "newrelic", fault)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"account_id": 0}, "account id"),
        ({"key": ""}, "user key"),
        ({"key": "NRAK-1\n"}, "line break"),
        ({"region": "mars"}, "region"),
        ({"url": "api.newrelic.com"}, "http"),
    ],
)
def test_settings_of_the_account_that_cannot_be(arguments: Mapping[str, Any], words: str) -> None:
    with pytest.raises(ConfigurationError, match=words):
        NerdGraph(**{"account_id": 7, "key": KEY, **arguments})


@pytest.mark.parametrize("arguments", [{"host_service": "a`b"}, {"pod_service": ""}, {"delay_s": 500.0}])
def test_settings_that_cannot_be(arguments: Mapping[str, Any]) -> None:
    client = NerdGraph(7, KEY)
    with pytest.raises(ConfigurationError):
        NewRelicSource(client, **arguments)
    with pytest.raises(ConfigurationError):
        NewRelicLogsSource(client, service_attributes=())


async def test_a_name_with_a_quote_finds_nobody_else(world: World) -> None:
    start = long_ago()
    for name in ("o'neil", "oo'neil's"):
        world.relic.put("Log", timestamp=_ms(start), message="x", service__name=name)
    source = NewRelicLogsSource(world.patient_client)
    reading = await source.search(ServiceName("o'neil"), "x", start, start + timedelta(minutes=1), limit=5)
    assert [line.service for line in reading.lines] == ["o'neil"]
