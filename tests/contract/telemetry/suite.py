"""What every provider of logs, traces and call edges must do, whatever its API. Subclass and give a ``world``.

A world holds one provider's server and the source under test; its ``put`` fills the server in the vendor's own shape.
Times are whole milliseconds, since some vendors keep no more.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Protocol

import pytest

from pipeline.domain.ids import ServiceName
from pipeline.domain.logs import LogLine
from pipeline.domain.spans import SpanSummary, Trace
from pipeline.domain.telemetry import CallEdge, SourceFailure
from pipeline.ports.logs import LogsSource
from pipeline.ports.topology import TopologySource
from pipeline.ports.traces import TracesSource
from tests.contract.telemetry.faults import SAID, Fault

AGAIN = "asked again at the next reading"
FOR_GOOD = "it will fail again until the settings are changed"
ENDING = {
    Fault.BUSY: AGAIN,
    Fault.LIMITED: AGAIN,
    Fault.REFUSED: FOR_GOOD,
    Fault.BROKEN: FOR_GOOD,
    Fault.CUT: AGAIN,
    Fault.DRIP: AGAIN,
    Fault.REDIRECT: FOR_GOOD,
    Fault.HUGE: FOR_GOOD,
    Fault.DOWN: AGAIN,
}
"""How the reason of a failure ends."""

SHOP, CART = ServiceName("shop"), ServiceName("cart")
AWKWARD = (
    'it\'s "quoted"',
    r"C:\temp\new",
    "100 % of {a} [b] (c) .* + ? ^ $ |",
    "back`tick",
    "Umlaut ü → ✓",
    "a/*b*/--c",
)
"""Texts that mean something in one query language or another."""


class LogsWorld(Protocol):
    @property
    def source(self) -> LogsSource: ...

    @property
    def impatient(self) -> LogsSource:
        """The same with a time-out of a fraction of a second."""
        ...

    async def put(self, lines: Sequence[LogLine]) -> None: ...

    async def misbehave(self, fault: Fault) -> None: ...


class TracesWorld(Protocol):
    @property
    def source(self) -> TracesSource: ...

    @property
    def impatient(self) -> TracesSource: ...

    async def put(self, traces: Sequence[Trace]) -> None: ...

    async def misbehave(self, fault: Fault) -> None: ...


class TopologyWorld(Protocol):
    @property
    def source(self) -> TopologySource: ...

    @property
    def impatient(self) -> TopologySource: ...

    async def put(self, edges: Sequence[CallEdge], since: datetime, until: datetime) -> None:
        """Calls at these rates throughout the window."""
        ...

    async def misbehave(self, fault: Fault) -> None: ...


def long_ago() -> datetime:
    """Ten minutes: old enough to be settled, young enough for every retention."""
    return datetime.now(UTC).replace(microsecond=0) - timedelta(minutes=10)


def told(failures: Sequence[SourceFailure], name: str, fault: Fault) -> None:
    """One line each, which says whether it is asked again."""
    assert failures
    for failure in failures:
        assert failure.source.startswith(name)
        assert failure.reason.endswith(ENDING[fault]), failure
        assert "\n" not in failure.reason
        assert len(failure.reason) < 400
        assert fault is not Fault.REFUSED or SAID in failure.reason


class LogsContract:
    """A subclass has a fixture ``world`` that yields a LogsWorld."""

    async def test_the_newest_lines_of_all_services_oldest_first(self, world: LogsWorld) -> None:
        start = long_ago()
        lines = [_line(start, n, SHOP if n % 3 else CART) for n in range(10)]
        await world.put(lines)
        reading = await world.source.tail(start, start + timedelta(minutes=1), limit=4)
        assert reading.failures == ()
        assert [_seen(line) for line in reading.lines] == [_seen(line) for line in lines[-4:]]
        assert reading.truncated

    async def test_all_lines_are_no_cut_short_tail(self, world: LogsWorld) -> None:
        start = long_ago()
        await world.put([_line(start, n, SHOP) for n in range(4)])
        reading = await world.source.tail(start, start + timedelta(minutes=1), limit=5)
        assert (len(reading.lines), reading.truncated, reading.failures) == (4, False, ())

    async def test_the_window_holds_its_start_and_not_its_end(self, world: LogsWorld) -> None:
        start = long_ago()
        await world.put([_line(start, n, SHOP) for n in range(5)])
        reading = await world.source.tail(start + timedelta(seconds=1), start + timedelta(seconds=3), limit=10)
        assert [line.text for line in reading.lines] == ["line 1", "line 2"]
        assert all(line.at.utcoffset() == timedelta(0) for line in reading.lines)

    async def test_a_search_is_for_one_service(self, world: LogsWorld) -> None:
        start = long_ago()
        await world.put([_line(start, n, SHOP if n % 2 else CART) for n in range(6)])
        reading = await world.source.search(SHOP, "line", start, start + timedelta(minutes=1), limit=10)
        assert [(line.service, line.text) for line in reading.lines] == [(SHOP, f"line {n}") for n in (1, 3, 5)]

    @pytest.mark.parametrize("text", AWKWARD)
    async def test_a_search_takes_the_text_as_it_stands(self, world: LogsWorld, text: str) -> None:
        start = long_ago()
        hit = LogLine(start + timedelta(seconds=1), SHOP, f"before {text} after")
        await world.put([_line(start, 0, SHOP), hit, _line(start, 2, SHOP)])
        reading = await world.source.search(SHOP, text, start, start + timedelta(minutes=1), limit=10)
        assert (reading.failures, [line.text for line in reading.lines]) == ((), [hit.text])

    async def test_a_search_for_nothing_finds_all_and_keeps_the_newest(self, world: LogsWorld) -> None:
        start = long_ago()
        await world.put([_line(start, n, SHOP) for n in range(5)])
        reading = await world.source.search(SHOP, "", start, start + timedelta(minutes=1), limit=2)
        assert [line.text for line in reading.lines] == ["line 3", "line 4"]
        assert reading.truncated

    async def test_silence_is_no_failure(self, world: LogsWorld) -> None:
        start = long_ago()
        reading = await world.source.search(ServiceName("nobody"), "x", start, start + timedelta(minutes=1), limit=10)
        assert (reading.lines, reading.failures, reading.truncated) == ((), (), False)

    @pytest.mark.parametrize("fault", ENDING)
    async def test_a_provider_in_trouble_is_a_failure_in_the_reading(self, world: LogsWorld, fault: Fault) -> None:
        start = long_ago()
        await world.put([_line(start, 0, SHOP)])
        await world.misbehave(fault)
        source = world.impatient if fault is Fault.DRIP else world.source
        for reading in (
            await source.tail(start, start + timedelta(minutes=1), limit=5),
            await source.search(SHOP, "line", start, start + timedelta(minutes=1), limit=5),
        ):
            assert reading.lines == ()
            told(reading.failures, source.name, fault)


class TracesContract:
    """A subclass has a fixture ``world`` that yields a TracesWorld."""

    async def test_traces_come_with_all_their_spans_the_slowest_first(self, world: TracesWorld) -> None:
        start = long_ago()
        quick, slow = make_trace(start, 1, 0.2), make_trace(start, 2, 1.5, failing=True)
        await world.put([quick, slow])
        reading = await world.source.search(CART, start, start + timedelta(minutes=1), limit=10)
        assert reading.failures == ()
        assert [_tree(trace) for trace in reading.traces] == [_tree(slow), _tree(quick)]
        for trace, put in zip(reading.traces, (slow, quick), strict=True):
            assert [span.duration_s for span in trace.spans] == pytest.approx([span.duration_s for span in put.spans])
            for span, original in zip(trace.spans, put.spans, strict=True):
                assert abs((span.started_at - original.started_at).total_seconds()) < 0.001

    async def test_only_traces_through_the_service(self, world: TracesWorld) -> None:
        start = long_ago()
        await world.put([make_trace(start, 1, 0.2), make_trace(start, 2, 0.3, callee=ServiceName("search"))])
        reading = await world.source.search(ServiceName("search"), start, start + timedelta(minutes=1), limit=10)
        assert [{span.service for span in trace.spans} for trace in reading.traces] == [{"shop", "search"}]

    async def test_errors_only(self, world: TracesWorld) -> None:
        start = long_ago()
        failing = make_trace(start, 2, 0.1, failing=True)
        await world.put([make_trace(start, 1, 0.9), failing])
        reading = await world.source.search(CART, start, start + timedelta(minutes=1), limit=10, errors_only=True)
        assert [_tree(trace) for trace in reading.traces] == [_tree(failing)]

    async def test_no_more_than_the_limit(self, world: TracesWorld) -> None:
        start = long_ago()
        await world.put([make_trace(start, n, 0.1 * n) for n in range(1, 6)])
        reading = await world.source.search(SHOP, start, start + timedelta(minutes=1), limit=3)
        durations = [trace.spans[0].duration_s for trace in reading.traces]
        assert len(durations) == 3
        assert durations == sorted(durations, reverse=True)

    async def test_traces_of_another_time_are_left_out(self, world: TracesWorld) -> None:
        start = long_ago()
        await world.put([make_trace(start, 1, 0.2), make_trace(start - timedelta(minutes=5), 2, 0.3)])
        reading = await world.source.search(SHOP, start, start + timedelta(minutes=1), limit=10)
        assert len(reading.traces) == 1

    async def test_a_service_nobody_heard_of_has_no_traces(self, world: TracesWorld) -> None:
        start = long_ago()
        await world.put([make_trace(start, 1, 0.2)])
        reading = await world.source.search(
            ServiceName('no"bo\\dy'), start, start + timedelta(minutes=1), limit=10, errors_only=True
        )
        assert (reading.traces, reading.failures) == ((), ())

    @pytest.mark.parametrize("fault", ENDING)
    async def test_a_provider_in_trouble_is_a_failure_in_the_reading(self, world: TracesWorld, fault: Fault) -> None:
        start = long_ago()
        await world.put([make_trace(start, 1, 0.2)])
        await world.misbehave(fault)
        source = world.impatient if fault is Fault.DRIP else world.source
        reading = await source.search(SHOP, start, start + timedelta(minutes=1), limit=5)
        assert reading.traces == ()
        told(reading.failures, source.name, fault)


class TopologyContract:
    """A subclass has a fixture ``world`` that yields a TopologyWorld."""

    async def test_edges_with_their_calls_a_second(self, world: TopologyWorld) -> None:
        start = long_ago()
        until = start + timedelta(minutes=5)
        edges = [CallEdge(SHOP, CART, 4.0), CallEdge(CART, ServiceName("ledger"), 0.5)]
        await world.put(edges, start, until)
        reading = await world.source.edges(start, until)
        assert reading.failures == ()
        found = {(edge.caller, edge.callee): edge.calls_per_s for edge in reading.edges}
        assert found == pytest.approx({(edge.caller, edge.callee): edge.calls_per_s for edge in edges}, rel=0.05)

    async def test_no_calls_no_edges(self, world: TopologyWorld) -> None:
        start = long_ago()
        reading = await world.source.edges(start, start + timedelta(minutes=5))
        assert (reading.edges, reading.failures) == ((), ())

    @pytest.mark.parametrize("fault", ENDING)
    async def test_a_provider_in_trouble_is_a_failure_in_the_reading(self, world: TopologyWorld, fault: Fault) -> None:
        start = long_ago()
        await world.put([CallEdge(SHOP, CART, 4.0)], start, start + timedelta(minutes=5))
        await world.misbehave(fault)
        source = world.impatient if fault is Fault.DRIP else world.source
        reading = await source.edges(start, start + timedelta(minutes=5))
        assert reading.edges == ()
        told(reading.failures, source.name, fault)


def make_trace(
    start: datetime, number: int, duration_s: float, *, callee: ServiceName = CART, failing: bool = False
) -> Trace:
    """``shop`` calls ``callee``, which takes a step of its own; ``failing`` concerns the callee's spans.

    Ids are hexadecimal: 32 digits for the trace, 16 for a span.
    """
    began = start + timedelta(seconds=number)
    ids = [f"{number:08x}{step:08x}" for step in (1, 2, 3)]

    def span(step: int, service: ServiceName, operation: str, share: float) -> SpanSummary:
        return SpanSummary(
            span_id=ids[step],
            parent_id=ids[step - 1] if step else "",
            service=service,
            operation=operation,
            started_at=began + timedelta(milliseconds=10 * step),
            duration_s=duration_s * share,
            error=failing and step > 0,
        )

    spans = (span(0, SHOP, "GET /", 1.0), span(1, callee, "POST /items", 0.75), span(2, callee, "price items", 0.5))
    return Trace(f"{number:032x}", spans)


def _line(start: datetime, n: int, service: ServiceName) -> LogLine:
    return LogLine(start + timedelta(seconds=n), service, f"line {n}")


def _seen(line: LogLine) -> tuple[datetime, ServiceName, str]:
    return line.at, line.service, line.text


def _tree(trace: Trace) -> list[tuple[str, str, str, bool]]:
    """Each span with its parent by operation: ids are the provider's own business."""
    operations = {span.span_id: span.operation for span in trace.spans}
    return [(span.service, span.operation, operations.get(span.parent_id, ""), span.error) for span in trace.spans]
