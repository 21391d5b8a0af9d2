"""X-Ray through boto3: the contracts of TracesSource and TopologySource, and what is AWS' own."""

from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import datetime, timedelta
from typing import Any, TypeVar

import pytest

from pipeline.adapters.telemetry.aws_client import AwsClient
from pipeline.adapters.telemetry.xray import XRayTopologySource, XRayTracesSource
from pipeline.domain.ids import ServiceName
from pipeline.domain.spans import Trace
from pipeline.domain.telemetry import CallEdge
from tests.contract.telemetry.aws_server import REFUSAL, FakeAws, Refused, use_test_credentials
from tests.contract.telemetry.faults import Fault, FaultyServer
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


class World:
    """One account, with what both contracts need; the subclasses say which source is meant."""

    def __init__(self, aws: FakeAws, server: FaultyServer) -> None:
        self.aws = aws
        self._server = server
        self.patient_client = AwsClient(region="eu-central-1", endpoint_url=server.url)
        self.impatient_client = AwsClient(region="eu-central-1", endpoint_url=server.url, timeout_s=0.3)

    async def misbehave(self, fault: Fault) -> None:
        await self._server.misbehave(fault)

    async def close(self) -> None:
        await self.patient_client.close()
        await self.impatient_client.close()


class TracesAtAws(World):
    @property
    def source(self) -> XRayTracesSource:
        return XRayTracesSource(self.patient_client)

    @property
    def impatient(self) -> XRayTracesSource:
        return XRayTracesSource(self.impatient_client)

    async def put(self, traces: Sequence[Trace]) -> None:
        for trace in traces:
            self.aws.traces[f"1-{trace.trace_id[:8]}-{trace.trace_id[8:]}"] = _segments(trace)


class GraphAtAws(World):
    @property
    def source(self) -> XRayTopologySource:
        return XRayTopologySource(self.patient_client)

    @property
    def impatient(self) -> XRayTopologySource:
        return XRayTopologySource(self.impatient_client)

    async def put(self, edges: Sequence[CallEdge], since: datetime, until: datetime) -> None:
        window_s = (until - since).total_seconds()
        names = list(dict.fromkeys(name for edge in edges for name in (edge.caller, edge.callee)))
        for number, name in enumerate(names):
            called = [
                _edge(names.index(edge.callee), round(edge.calls_per_s * window_s))
                for edge in edges
                if edge.caller == name
            ]
            self.aws.services.append(
                {"ReferenceId": number, "Name": name, "Names": [name], "Type": "AWS::ECS::Container", "Edges": called}
            )


def _edge(callee: int, total: int) -> dict[str, Any]:
    faults = {"OtherCount": 0, "TotalCount": 0}
    statistics = {"OkCount": total, "FaultStatistics": faults, "TotalCount": total, "TotalResponseTime": 0.25 * total}
    return {"ReferenceId": callee, "SummaryStatistics": statistics, "ResponseTimeHistogram": [], "Aliases": []}


def _segments(trace: Trace) -> list[dict[str, Any]]:
    """A segment for each service, its later spans as subsegments of the first, as the daemon would send it."""
    segments: dict[str, dict[str, Any]] = {}
    for span in trace.spans:
        began_s = span.started_at.timestamp()
        document: dict[str, Any] = {
            "id": span.span_id,
            "start_time": began_s,
            "end_time": began_s + span.duration_s,
            "fault": span.error,
        }
        if span.service in segments:
            segments[span.service].setdefault("subsegments", []).append({"name": span.operation, **document})
            continue
        method, path = span.operation.split(" ", 1)
        document |= {"name": span.service, "trace_id": trace.trace_id, "origin": "AWS::ECS::Container"}
        document["http"] = {"request": {"method": method, "url": f"http://{span.service}{path}?q=1"}}
        if span.parent_id:
            document["parent_id"] = span.parent_id
        segments[span.service] = document
    return list(segments.values())


W = TypeVar("W", bound=World)


@asynccontextmanager
async def _at_aws(kind: type[W]) -> AsyncIterator[W]:
    aws = FakeAws()
    async with AsyncExitStack() as stack:
        world = kind(aws, await stack.enter_async_context(FaultyServer(aws.app, refusal=REFUSAL)))
        stack.push_async_callback(world.close)
        yield world


class TestTraces(TracesContract):
    @pytest.fixture
    async def world(self, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[TracesAtAws]:
        use_test_credentials(monkeypatch)
        async with _at_aws(TracesAtAws) as world:
            yield world

    async def test_many_traces_come_five_a_call_from_many_pages(self, world: TracesAtAws) -> None:
        start = long_ago()
        world.aws.summaries_a_page = 4
        await world.put([make_trace(start, n, 0.1 * n) for n in range(1, 15)])
        reading = await world.source.search(SHOP, start, start + timedelta(minutes=1), limit=12)
        assert [round(trace.spans[0].duration_s, 1) for trace in reading.traces] == [
            round(0.1 * n, 1) for n in range(14, 2, -1)
        ]
        assert len(world.aws.calls("GetTraceSummaries")) == 4
        assert sorted(len(body["TraceIds"]) for body in world.aws.calls("BatchGetTraces")) == [2, 5, 5]

    async def test_subsegments_lie_in_each_other_and_remote_calls_between_services(self, world: TracesAtAws) -> None:
        start = long_ago()
        began_s = start.timestamp()
        call = {"id": "c", "name": "cart", "namespace": "remote", "start_time": began_s + 1, "end_time": began_s + 4}
        step = {"id": "b", "name": "checkout", "start_time": began_s, "subsegments": [call]}
        world.aws.traces["1-00000001-000000000000000000000001"] = [
            {"id": "a", "name": "shop", "start_time": began_s, "end_time": began_s + 5, "subsegments": [step]},
            {
                "id": "d",
                "name": "cart",
                "parent_id": "c",
                "start_time": began_s + 2,
                "end_time": began_s + 3,
                "throttle": True,
            },
        ]
        (trace,) = (await world.source.search(CART, start, start + timedelta(minutes=1), limit=5)).traces
        assert [(span.span_id, span.parent_id, span.service, span.duration_s, span.error) for span in trace.spans] == [
            ("a", "", "shop", 5.0, False),
            ("b", "a", "shop", 0.0, False),
            ("c", "b", "shop", 3.0, False),
            ("d", "c", "cart", 1.0, True),
        ]

    async def test_a_segment_that_cannot_be_read_leaves_the_others(self, world: TracesAtAws) -> None:
        start = long_ago()
        await world.put([make_trace(start, 1, 0.5)])
        world.aws.traces["1-00000000-000000000000000000000001"].append({"id": "x", "name": "y"})
        reading = await world.source.search(SHOP, start, start + timedelta(minutes=1), limit=5)
        assert [len(trace.spans) for trace in reading.traces] == [3]
        (failure,) = reading.failures
        assert failure.reason.startswith("not a segment document: start_time: ")
        assert failure.reason.endswith(FOR_GOOD)

    async def test_throttling_in_aws_own_words(self, world: TracesAtAws) -> None:
        start = long_ago()
        world.aws.refuse["GetTraceSummaries"] = Refused("ThrottledException", "Rate exceeded", 429)
        reading = await world.source.search(SHOP, start, start + timedelta(minutes=1), limit=5)
        assert [failure.reason for failure in reading.failures] == [f"ThrottledException: Rate exceeded; {AGAIN}"]

    async def test_of_a_long_window_the_end_is_read(self, world: TracesAtAws) -> None:
        start = long_ago()
        await world.put([make_trace(start, 1, 0.5)])
        reading = await world.source.search(SHOP, start - timedelta(days=2), start + timedelta(minutes=1), limit=5)
        assert (len(reading.traces), reading.failures) == (1, ())


class TestTopology(TopologyContract):
    @pytest.fixture
    async def world(self, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[GraphAtAws]:
        use_test_credentials(monkeypatch)
        async with _at_aws(GraphAtAws) as world:
            yield world

    async def test_edges_lead_across_pages(self, world: GraphAtAws) -> None:
        start = long_ago()
        until = start + timedelta(minutes=5)
        world.aws.services_a_page = 1
        await world.put([CallEdge(SHOP, CART, 4.0), CallEdge(CART, ServiceName("ledger"), 0.5)], start, until)
        reading = await world.source.edges(start, until)
        assert set(reading.edges) == {CallEdge(SHOP, CART, 4.0), CallEdge(CART, ServiceName("ledger"), 0.5)}
        assert len(world.aws.calls("GetServiceGraph")) == 3

    async def test_clients_twins_and_edges_without_calls_are_left_out(self, world: GraphAtAws) -> None:
        start = long_ago()
        world.aws.services = [
            {"ReferenceId": 0, "Name": "shop", "Type": "client", "Edges": [_edge(2, 300)]},
            {"ReferenceId": 4, "Name": "browser", "Type": "client", "Edges": [_edge(2, 300)]},
            {"ReferenceId": 1, "Name": "resize", "Type": "AWS::Lambda", "Edges": [_edge(3, 300), _edge(2, 0)]},
            {"ReferenceId": 2, "Name": "shop", "Type": "AWS::ECS::Container", "Edges": [_edge(1, 300), _edge(9, 5)]},
            {"ReferenceId": 3, "Name": "resize", "Type": "AWS::Lambda::Function", "Edges": []},
        ]
        reading = await world.source.edges(start, start + timedelta(minutes=5))
        assert reading.edges == (CallEdge(SHOP, ServiceName("resize"), 1.0),)

    async def test_the_rate_of_a_long_window_is_that_of_its_end(self, world: GraphAtAws) -> None:
        until = long_ago()
        await world.put([CallEdge(SHOP, CART, 2.0)], until - timedelta(hours=6), until)
        reading = await world.source.edges(until - timedelta(days=1), until)
        assert reading.edges == (CallEdge(SHOP, CART, 2.0),)
