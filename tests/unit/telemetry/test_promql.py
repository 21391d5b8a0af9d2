"""The queries' text; what they mean is tested on a real Prometheus."""

import re

import pytest

from pipeline.adapters.telemetry.conventions import GAUGES, REQUESTS, Convention
from pipeline.adapters.telemetry.promql import GAUGE_SIGNALS, SERVICE_SIGNALS, PromQL, duration_s
from pipeline.domain.telemetry import Signal


def queries(promql: PromQL, *, native: bool = True) -> list[str]:
    return [*promql.signals(native=native).values(), promql.calls(), promql.down(), promql.places()]


def of(*conventions: Convention) -> PromQL:
    return PromQL(("service",), "instance", "1m", "", conventions)


def test_every_signal_has_one_query() -> None:
    signals = of(*Convention).signals(native=True)
    assert set(signals) == set(Signal) == {*SERVICE_SIGNALS, *GAUGE_SIGNALS}


@pytest.mark.parametrize("convention", list(Convention))
def test_each_convention_gives_something_by_itself(convention: Convention) -> None:
    promql = of(convention)
    assert promql.signals(native=False) or promql.calls()


def test_a_convention_that_is_not_chosen_is_nowhere() -> None:
    text = " ".join(queries(of(Convention.OTEL, Convention.NODE)))
    assert "http_server_request_duration_seconds" in text
    for other in ("istio_", "kube_", "kubelet_", "x509_", "traces_", "response_total"):
        assert other not in text


def test_what_is_preferred_comes_first() -> None:
    for first, second in (("istio", "otel"), ("otel", "istio")):
        traffic = of(Convention(first), Convention(second)).signals(native=False)[Signal.TRAFFIC]
        assert (traffic.index("istio_requests") < traffic.index("http_server_request")) is (first == "istio")


def test_native_histograms_are_asked_for_where_they_are_known() -> None:
    assert "histogram_count" in " ".join(queries(of(*Convention)))
    assert "histogram_count" not in " ".join(queries(of(*Convention), native=False))


@pytest.mark.parametrize("services", [("service",), ("app", "service_name", "job", "pod")])
def test_no_query_grows_beyond_reason_and_all_brackets_close(services: tuple[str, ...]) -> None:
    for query in queries(PromQL(services, "pod", "5m", 'cluster="eu"', tuple(Convention), ("shop", "pay"))):
        assert len(query) < 32_000
        for opening, closing in ("()", "{}", "[]"):
            assert query.count(opening) == query.count(closing)
        assert "{," not in query
        assert ",," not in query
        assert ",}" not in query


def test_namespaces_narrow_every_selector_that_can_name_one() -> None:
    promql = PromQL(("service",), "instance", "1m", "", tuple(Convention), ("shop", "pay"))
    selectors = {selector for query in queries(promql) for selector in re.findall(r"[a-z_A-Z0-9]+{[^}]*}", query)}
    without = {one for one in selectors if 'namespace=~"shop|pay|"' not in one}
    assert len(without) < len(selectors)
    # A probe and an edge are of no namespace, or of two.
    assert all(one.startswith(("probe_ssl", "traces_service_graph", "istio_re", "response_to")) for one in without)


def test_the_table_holds_no_row_twice() -> None:
    assert len(set(REQUESTS)) == len(REQUESTS)
    assert len({(gauge.signal, gauge.formula, str(gauge.selectors)) for gauge in GAUGES}) == len(GAUGES)


@pytest.mark.parametrize(("text", "seconds"), [("90s", 90.0), ("1m", 60.0), ("1m30s", 90.0), ("500ms", 0.5)])
def test_durations(text: str, seconds: float) -> None:
    assert duration_s(text) == seconds


@pytest.mark.parametrize("text", ["", "1", "s", "1 m", "-1m", "1m x", "1.5m"])
def test_what_is_no_duration(text: str) -> None:
    with pytest.raises(ValueError, match="no duration"):
        duration_s(text)
