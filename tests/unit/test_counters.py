"""Increases, resets, rates and quantiles."""

from itertools import pairwise
from math import inf

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.adapters.telemetry.counters import CounterWindow, combined, histogram_quantile, increase
from pipeline.adapters.telemetry.exposition import Buckets, Exposition, Labels

OK: Labels = (("status", "200"),)
FAILED: Labels = (("status", "500"),)


def seen(ok: float | None = None, failed: float | None = None, calls: float | None = None) -> Exposition:
    requests: dict[Labels, Buckets] = {}
    if ok is not None:
        requests[OK] = {0.1: ok / 2, inf: ok}
    if failed is not None:
        requests[FAILED] = {0.1: 0.0, inf: failed}
    edges: dict[Labels, Buckets] = {}
    if calls is not None:
        edges[(("client", "web"), ("server", "checkout"))] = {inf: calls}
    return Exposition(requests, edges, {})


def test_rates_are_means_over_the_window() -> None:
    window = CounterWindow(60.0)
    window.add(seen(1000.0, 50.0, 7.0), 100.0)
    assert window.rates() is None
    window.add(seen(1090.0, 60.0, 17.0), 110.0)
    rates = window.rates()
    assert rates is not None
    assert rates.traffic == pytest.approx(10.0)
    assert rates.error_ratio == pytest.approx(0.1)
    assert rates.calls == {("web", "checkout"): pytest.approx(1.0)}


def test_what_lies_before_the_window_is_left_behind() -> None:
    window = CounterWindow(20.0)
    for at_s, count in ((0.0, 0.0), (10.0, 10_000.0), (20.0, 10_010.0), (30.0, 10_020.0)):
        window.add(seen(count), at_s)
    rates = window.rates()
    assert rates is not None
    assert rates.traffic == pytest.approx(1.0)


def test_a_series_that_appears_later_gives_no_increase_at_first() -> None:
    window = CounterWindow(60.0)
    window.add(seen(0.0), 0.0)
    window.add(seen(90.0, failed=1_000_000.0), 10.0)
    assert (rates := window.rates()) is not None
    assert rates.traffic == pytest.approx(9.0)
    assert rates.errors == 0.0
    window.add(seen(180.0, failed=1_000_010.0), 20.0)
    assert (rates := window.rates()) is not None
    assert rates.errors == pytest.approx(0.5)


def test_a_restarted_process_counts_from_zero_in_all_buckets_of_a_histogram() -> None:
    assert increase({0.1: 2.0, inf: 100.0}, {0.1: 4.0, inf: 6.0}) == {0.1: 4.0, inf: 6.0}
    assert increase({0.1: 1.0, inf: 2.0}, {0.2: 1.0, inf: 3.0}) == {}


def test_a_scrape_that_is_no_newer_is_dropped() -> None:
    window = CounterWindow(60.0)
    window.add(seen(0.0), 0.0)
    window.add(seen(100.0), 10.0)
    window.add(seen(900.0), 10.0)
    window.add(seen(900.0), 5.0)
    assert (rates := window.rates()) is not None
    assert rates.traffic == pytest.approx(10.0)


def test_a_long_gap_is_no_rate() -> None:
    window = CounterWindow(60.0)
    window.add(seen(0.0), 0.0)
    window.add(seen(1e9), 3600.0)
    assert window.rates() is None


def test_a_clock_set_back_starts_anew_and_does_not_go_blind() -> None:
    window = CounterWindow(60.0)
    window.add(seen(0.0), 10_000.0)
    window.add(seen(100.0), 6_400.0)
    assert window.rates() is None
    window.add(seen(150.0), 6_410.0)
    assert (rates := window.rates()) is not None
    assert rates.traffic == pytest.approx(5.0)


def test_a_service_is_the_sum_of_its_instances() -> None:
    windows = [CounterWindow(60.0), CounterWindow(60.0)]
    for n, window in enumerate(windows):
        window.add(seen(0.0, 0.0), 0.0)
        window.add(seen(10.0 + n * 10.0, 10.0), 10.0)
    total = combined(rates for window in windows if (rates := window.rates()))
    assert total.traffic == pytest.approx(5.0)
    assert total.error_ratio == pytest.approx(0.4)


def test_no_requests_have_no_error_ratio_and_no_latency() -> None:
    window = CounterWindow(60.0)
    window.add(seen(5.0, 5.0), 0.0)
    window.add(seen(5.0, 5.0), 10.0)
    assert (rates := window.rates()) is not None
    assert (rates.traffic, rates.error_ratio, rates.latency(0.99)) == (0.0, None, None)


@given(st.lists(st.tuples(st.integers(0, 1000), st.booleans()), min_size=2, max_size=30))
def test_resets_lose_at_most_what_was_counted_before_them_and_never_add(steps: list[tuple[int, bool]]) -> None:
    window = CounterWindow(1e6)
    counter, events = 0, 0
    for at_s, (grown, restarts) in enumerate(steps):
        counter = grown if restarts else counter + grown
        events += grown if at_s else 0
        window.add(seen(float(counter)), float(at_s))
    rates = window.rates()
    assert rates is not None
    assert rates.traffic is not None
    counted = rates.traffic * (len(steps) - 1)
    assert -1e-6 <= counted <= events + 1e-6
    if not any(restarts for _, restarts in steps[1:]):
        assert counted == pytest.approx(events)


finite_bounds = st.lists(st.floats(0.001, 1000.0), min_size=1, max_size=12, unique=True).map(sorted)


@given(bounds=finite_bounds, data=st.data(), q=st.floats(0.01, 1.0))
def test_a_quantile_lies_in_the_bucket_that_holds_its_rank(bounds: list[float], data: st.DataObject, q: float) -> None:
    inside = data.draw(st.lists(st.integers(0, 50), min_size=len(bounds) + 1, max_size=len(bounds) + 1))
    counts = [float(sum(inside[: n + 1])) for n in range(len(inside))]
    value = histogram_quantile(q, dict(zip([*bounds, inf], counts, strict=True)))
    if not counts[-1]:
        assert value is None
        return
    holder = next(n for n, count in enumerate(counts) if count >= q * counts[-1])
    assert value is not None
    if holder == len(bounds):
        assert value == bounds[-1]
    else:
        low = bounds[holder - 1] if holder else 0.0
        assert low * (1 - 1e-9) <= value <= bounds[holder] * (1 + 1e-9)


@given(bounds=finite_bounds, data=st.data())
def test_quantiles_grow_with_their_rank(bounds: list[float], data: st.DataObject) -> None:
    # Counts that fall from bound to bound, as sums over instances read at different moments may.
    counts = data.draw(st.lists(st.floats(0, 50), min_size=len(bounds) + 1, max_size=len(bounds) + 1))
    buckets = dict(zip([*bounds, inf], counts, strict=True))
    values = [histogram_quantile(q, buckets) for q in (0.1, 0.5, 0.9, 0.99)]
    assert all(low is None or high is None or low <= high * (1 + 1e-9) for low, high in pairwise(values))


@pytest.mark.parametrize(
    ("q", "buckets", "expected"),
    [
        (0.5, {1.0: 10.0, inf: 10.0}, 0.5),
        (0.99, {0.1: 98.0, 0.2: 100.0, inf: 100.0}, 0.15),
        (0.99, {0.1: 10.0, inf: 100.0}, 0.1),
        (0.5, {-1.0: 10.0, inf: 10.0}, -1.0),
        (0.5, {inf: 10.0}, None),
        (0.5, {0.1: 10.0, 0.2: 10.0}, None),
        (0.5, {}, None),
        (0.5, {0.1: 0.0, inf: 0.0}, None),
    ],
)
def test_worked_examples(q: float, buckets: Buckets, expected: float | None) -> None:
    assert histogram_quantile(q, buckets) == (expected if expected is None else pytest.approx(expected))
