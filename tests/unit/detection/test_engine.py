"""The streaming detector of one series: what pages, what does not, and what it does with bad input."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.domain.detection import kernel, lane, novelty
from pipeline.domain.detection.compiled import COMPILED
from pipeline.domain.detection.fleet import SeriesDetector
from pipeline.domain.detection.kinds import KINDS, TWO_SIDED, SeriesKind, gates, tuned
from pipeline.domain.detection.layout import Arrays
from pipeline.domain.detection.state import empty, grown
from pipeline.domain.errors import ConfigurationError

MONDAY = 1_750_032_000.0
"""2025-06-16 00:00 UTC."""
MINUTE = 60.0
DAY = 1440
UPWARD_KINDS = sorted(set(KINDS) - TWO_SIDED)

Floats = npt.NDArray[np.float64]


def times(count: int, period_s: float = MINUTE) -> Floats:
    return MONDAY + period_s * np.arange(count)


def daily(count: int, *, period_s: float = MINUTE, level: float = 100.0, noise: float = 0.03, seed: int = 1) -> Floats:
    """A daily wave of half the level with noise, both as shares of the level."""
    rng = np.random.default_rng(seed)
    wave = 1.0 + 0.5 * np.sin(2 * np.pi * times(count, period_s) / 86_400.0)
    return np.asarray(level * (wave + noise * rng.normal(size=count)))


def flags(values: Floats, kind: SeriesKind = SeriesKind.GENERIC, period_s: float = MINUTE) -> npt.NDArray[np.bool_]:
    return SeriesDetector(kind, period_s).replay(times(len(values), period_s), values)[1]


@pytest.mark.parametrize("kind", KINDS)
def test_a_surge_pages_for_every_kind(kind: SeriesKind) -> None:
    values = daily(8 * DAY)
    values[7 * DAY : 7 * DAY + 30] += 150.0
    found = flags(values, kind)
    assert found[7 * DAY : 7 * DAY + 5].any()
    assert found[: 7 * DAY].sum() == 0


@pytest.mark.parametrize("kind", UPWARD_KINDS)
def test_an_improvement_never_pages(kind: SeriesKind) -> None:
    values = daily(8 * DAY)
    values[7 * DAY :] *= 0.05
    assert not flags(values, kind).any()


@pytest.mark.parametrize("kind", sorted(TWO_SIDED))
def test_a_fall_pages_where_falls_are_trouble(kind: SeriesKind) -> None:
    values = daily(8 * DAY)
    values[7 * DAY : 7 * DAY + 30] *= 0.05
    assert flags(values, kind)[7 * DAY : 7 * DAY + 5].any()


@pytest.mark.parametrize("period_s", [10.0, 60.0, 300.0, 900.0, 3600.0])
def test_service_kinds_work_at_every_period(period_s: float) -> None:
    a_day = round(86_400 / period_s)
    days = 3 if period_s < 60 else 15
    values = daily(days * a_day, period_s=period_s)
    at = (days - 1) * a_day + a_day // 2
    values[at : at + 3] += 200.0
    found = flags(values, SeriesKind.LATENCY, period_s)
    assert found[at : at + 3].any()
    assert not found[:at].any()


@pytest.mark.parametrize("level", [5.0, 1e-6, 8e9])
def test_a_constant_series_pages_for_a_step_and_not_for_a_crumb(level: float) -> None:
    values = np.full(3 * DAY, level)
    values[2 * DAY :] = level * 1.001
    assert not flags(values).any()
    values[2 * DAY :] = level * 2
    assert flags(values)[2 * DAY : 2 * DAY + 10].any()


def test_one_value_off_a_constant_does_not_page() -> None:
    values = np.zeros(3 * DAY)
    values[2 * DAY] = 1e-3
    assert not flags(values).any()


def test_errors_from_zero_page_and_a_few_do_not() -> None:
    values = np.zeros(3 * DAY)
    values[2 * DAY : 2 * DAY + 20] = 0.2
    assert flags(values, SeriesKind.ERRORS)[2 * DAY : 2 * DAY + 10].any()
    values[2 * DAY : 2 * DAY + 20] = 0.002
    assert not flags(values, SeriesKind.ERRORS).any()


def test_a_new_series_does_not_page() -> None:
    rng = np.random.default_rng(3)
    assert not flags(rng.lognormal(0.0, 2.0, DAY - 1)).any()


def test_a_new_level_is_learned_within_hours() -> None:
    values = daily(9 * DAY)
    values[7 * DAY :] += 300.0
    found = flags(values)
    assert found[7 * DAY : 7 * DAY + 5].any()
    assert not found[7 * DAY + 360 :].any()


def test_a_gap_and_the_return_from_it_do_not_page() -> None:
    values, ts = daily(9 * DAY), times(9 * DAY)
    there = np.ones(len(ts), dtype=bool)
    there[7 * DAY + 60 : 7 * DAY + 660] = False
    _, found = SeriesDetector("traffic", MINUTE).replay(ts[there], values[there])
    assert not found.any()


def test_an_incident_does_not_poison_what_is_expected() -> None:
    values = daily(9 * DAY)
    values[7 * DAY : 7 * DAY + 30] += 150.0
    values[7 * DAY + 300 : 7 * DAY + 330] += 150.0
    found = flags(values)
    assert found[7 * DAY + 300 : 7 * DAY + 305].any()


def test_a_nightly_job_pages_at_first_and_is_known_after_some_nights() -> None:
    days = 12
    values = daily(days * DAY)
    for day in range(days):
        values[day * DAY + 180 : day * DAY + 200] += 100.0
    by_day = flags(values).reshape(days, DAY).any(axis=1)
    assert not by_day[-4:].any()


def test_the_hour_follows_the_zone() -> None:
    """A wall-clock pattern over the change to summer time: in its own zone there is nothing to see."""
    start = datetime(2026, 3, 2, tzinfo=UTC).timestamp()
    change = datetime(2026, 3, 29, 1, tzinfo=UTC).timestamp()
    ts = start + 300.0 * np.arange(35 * 288)
    local = ts + np.where(ts >= change, 7200.0, 3600.0)
    rng = np.random.default_rng(5)
    values = 100.0 + 80.0 * (local % 86_400.0 // 3600.0 == 6) + rng.normal(size=len(ts))
    detector = SeriesDetector("traffic", 300.0, zone="Europe/Berlin")
    _, found = detector.replay(ts, values)
    assert not found[ts >= change].any()


def test_bad_values_are_counted_and_teach_nothing() -> None:
    values, ts = daily(3 * DAY), times(3 * DAY)
    clean, dirty = SeriesDetector("latency", MINUTE), SeriesDetector("latency", MINUTE)
    for at in range(len(ts)):
        expected = clean.update(ts[at], values[at])
        assert dirty.update(ts[at], values[at]) == expected
        if at % 50 == 10:
            assert dirty.update(ts[at] + 20.0, float("nan")) == (0.0, False)
            assert dirty.update(ts[at] + 30.0, float("inf")) == (0.0, False)
            assert dirty.update(float("nan"), 1.0) == (0.0, False)
            assert dirty.update(ts[at] - 90.0, 1e9) == (0.0, False)
            assert dirty.update(ts[at] + 86_400.0 * 365, 1e9) == (0.0, False)
            dirty.update(ts[at], 1e9)
    times_bad = len(range(10, len(ts), 50))
    seen = dirty.ignored
    assert (seen.not_finite, seen.late, seen.duplicate) == (3 * times_bad, times_bad, times_bad)
    assert seen.future == times_bad
    assert clean.ignored.future == 0


def test_a_clock_set_back_is_followed_after_a_while() -> None:
    detector = SeriesDetector("latency", MINUTE)
    values = daily(4 * DAY)
    detector.replay(times(2 * DAY) + 86_400.0, values[: 2 * DAY])
    detector.replay(times(2 * DAY) + 600.0, values[2 * DAY :])
    assert detector.ignored.late == 30
    scores, found = detector.replay(times(5) + 86_400.0 * 2 + 600.0, values[:5] + 400.0)
    assert found.any(), scores


def test_the_period_is_settled_from_the_first_points() -> None:
    known, settled = SeriesDetector("latency", 120.0), SeriesDetector("latency")
    ts, values = times(800, 120.0), daily(800, period_s=120.0)
    assert settled.period_s is None
    streamed = [settled.update(at, value)[0] for at, value in zip(ts, values, strict=True)]
    assert settled.period_s == 120.0
    expected, _ = known.replay(ts, values)
    assert streamed[7:] == expected[7:].tolist()
    again, _ = SeriesDetector("latency").replay(ts, values)
    assert again.tolist() == streamed


def test_update_and_replay_say_the_same_and_look_at_the_past_only() -> None:
    ts, values = times(2 * DAY), daily(2 * DAY)
    one, many, cut = (SeriesDetector("traffic", MINUTE) for _ in range(3))
    streamed = [one.update(at, value)[0] for at, value in zip(ts, values, strict=True)]
    assert streamed == many.replay(ts, values)[0].tolist()
    assert streamed[:DAY] == cut.replay(ts[:DAY], values[:DAY])[0].tolist()


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.tuples(st.floats(-1e4, 1e6) | st.just(float("nan")), st.floats(allow_nan=True)), max_size=60),
    st.sampled_from([None, 10.0, 3600.0]),
)
def test_whatever_comes_a_score_is_a_share(points: list[tuple[float, float]], period_s: float | None) -> None:
    detector = SeriesDetector("generic", period_s)
    for ts, value in points:
        score, found = detector.update(ts, value)
        assert 0.0 <= score <= 1.0
        assert found == (score >= 0.5)


@pytest.mark.parametrize("zone", ["UTC", "Europe/Berlin"])
@pytest.mark.parametrize("ts", [-1e-20, -5e-324, 86_399.99999999999, 604_799.9999999999, -1e18, 1e18, 1e300])
def test_times_at_the_edges_stay_inside_the_profiles(ts: float, zone: str) -> None:
    detector = SeriesDetector("generic", MINUTE, zone=zone)
    for _ in range(3):
        assert detector.update(ts, 1.0)[1] is False


def test_an_unknown_zone_is_named() -> None:
    with pytest.raises(ConfigurationError, match="Mars/Olympus"):
        SeriesDetector("generic", MINUTE, zone="Mars/Olympus")


def test_unknown_kinds_and_periods_are_named() -> None:
    with pytest.raises(ConfigurationError, match="latency"):
        SeriesDetector("latencies", MINUTE)
    with pytest.raises(ConfigurationError, match="period_s"):
        SeriesDetector("latency", 0.0)
    with pytest.raises(ConfigurationError, match="time for each value"):
        SeriesDetector("latency", MINUTE).replay([1.0, 2.0], [1.0])


@pytest.mark.skipif(not COMPILED, reason="numba is not installed: there is only the one way")
@pytest.mark.parametrize("period_s", [60.0, 3600.0])
def test_the_compiled_kernel_says_what_its_python_says(period_s: float, monkeypatch: pytest.MonkeyPatch) -> None:
    values = daily(400, period_s=period_s, noise=0.3)
    values[300:310] += 400.0
    values[50] = np.nan
    machine = _scores(kernel.run, values, period_s)
    _in_python(monkeypatch)
    plain = _scores(kernel.run, values, period_s)
    np.testing.assert_allclose(machine, plain, rtol=1e-9, atol=1e-9)
    assert machine.max() > 0.0


def _in_python(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every compiled function the kernel calls, replaced by its Python original."""
    for module in (lane, novelty, kernel):
        for name, member in list(vars(module).items()):
            if hasattr(member, "py_func"):
                monkeypatch.setattr(module, name, member.py_func)


def _scores(run: Callable[..., None], values: Floats, period_s: float) -> Floats:
    tuning = tuned(period_s)
    arrays: Arrays = grown(empty(0, 0, tuning), 0, np.array([period_s >= 300.0]), tuning)
    scores = np.zeros((len(values), 1))
    kinds = np.zeros(1, dtype=np.int8)
    ts = times(len(values), period_s)
    run(arrays, ts, np.zeros(len(ts)), values.reshape(-1, 1), tuning, gates(period_s), kinds, scores)
    return scores[:, 0]
