"""The forecast: growth is foreseen, and what only looks like growth is not."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import numpy.typing as npt
import pytest

from pipeline.domain.detection.capacity import CapacityDetector, Forecast, forecast

FloatArray = npt.NDArray[np.float64]
HOUR = 3600.0
DAY = 86_400.0
START = 1_750_000_000.0
NOTHING = Forecast(None, None, None, False)


def run(ts: FloatArray, values: FloatArray, limit: float, *, falling: bool = False) -> list[Forecast]:
    detector = CapacityDetector(limit, falling=falling)
    return [detector.update(at, value) for at, value in zip(ts.tolist(), values.tolist(), strict=True)]


def onsets(said: list[Forecast]) -> list[int]:
    pages = [False, *(one.page for one in said)]
    return [at for at, (before, now) in enumerate(pairwise(pages)) if now and not before]


def times(days: float, period_s: float = 300.0) -> FloatArray:
    return np.arange(START, START + days * DAY, period_s)


def noise(count: int, sigma: float) -> FloatArray:
    return np.random.default_rng(7).normal(0.0, sigma, count)


def sawtooth(ts: FloatArray, tooth_s: float, low: float, high: float) -> FloatArray:
    return low + (high - low) * ((ts - START) % tooth_s) / tooth_s


@pytest.mark.parametrize(("days", "period_s"), [(2.0, 60.0), (14.0, 300.0), (56.0, 3600.0)])
def test_a_steady_growth_pages_once_and_ahead(days: float, period_s: float) -> None:
    ts = times(days, period_s)
    values = 30.0 + 75.0 * (ts - START) / (days * DAY) + noise(len(ts), 0.1)
    said = run(ts, values, 100.0)
    breach = ts[np.argmax(values >= 100.0)]
    (page,) = onsets(said)
    assert 0.25 * HOUR <= breach - ts[page] <= 24 * HOUR


def test_the_interval_holds_the_breach() -> None:
    ts = times(4.0)
    values = 20.0 + 60.0 * (ts - START) / (4.0 * DAY) + noise(len(ts), 0.2)
    said = run(ts, values, 100.0)[-1]
    assert said.eta_s is not None
    assert said.low_s is not None
    assert said.high_s is not None
    assert said.low_s <= said.eta_s <= said.high_s
    assert said.eta_s == pytest.approx(4.0 * DAY * 20.0 / 60.0, rel=0.25)
    assert not said.page


def test_a_fill_in_twenty_minutes_pages_before_it_is_full() -> None:
    ts = times(3.0, 60.0)
    begin = START + 2.5 * DAY
    values = np.minimum(40.0 + 60.0 * np.maximum(ts - begin, 0.0) / 1200.0, 100.0) + noise(len(ts), 0.05)
    said = run(ts, values, 100.0)
    (page,) = onsets(said)
    assert begin < ts[page] <= begin + 1200.0 - 180.0


@pytest.mark.parametrize(
    ("tooth_s", "low", "high", "period_s"),
    [(6 * HOUR, 30.0, 80.0, 60.0), (1.2 * DAY, 20.0, 85.0, 300.0), (45 * 60.0, 50.0, 90.0, 60.0)],
)
def test_clean_up_cycles_do_not_page(tooth_s: float, low: float, high: float, period_s: float) -> None:
    ts = times(7.0, period_s)
    assert onsets(run(ts, sawtooth(ts, tooth_s, low, high) + noise(len(ts), 0.3), 100.0)) == []


def test_a_clean_up_that_fails_pages() -> None:
    ts = times(7.0, 60.0)
    values = sawtooth(ts, 6 * HOUR, 30.0, 80.0)
    last = START + 6 * DAY
    values[ts >= last] = 30.0 + 50.0 * (ts[ts >= last] - last) / (6 * HOUR)
    said = run(ts, values, 100.0)
    (page,) = onsets(said)
    breach = ts[np.argmax(values >= 100.0)]
    assert 600.0 <= breach - ts[page] <= 6 * HOUR


def test_a_heap_whose_floor_grows_pages_and_one_that_is_collected_does_not() -> None:
    ts = times(5.0, 60.0)
    teeth = sawtooth(ts, 1800.0, 0.0, 20.0) + noise(len(ts), 0.2)
    assert onsets(run(ts, 60.0 + teeth, 100.0)) == []
    leaking = 40.0 + teeth + 45.0 * (ts - START) / (5.0 * DAY)
    first = onsets(run(ts, leaking, 100.0))[0]
    breach = ts[np.argmax(leaking >= 100.0)]
    assert 0.0 < breach - ts[first] <= 24 * HOUR


def test_steps_of_deployments_do_not_page() -> None:
    ts = times(14.0)
    values = 40.0 + 8.0 * np.floor((ts - START) / (2.5 * DAY)) + noise(len(ts), 0.2)
    assert values.max() < 85.0
    assert onsets(run(ts, values, 100.0)) == []


@pytest.mark.parametrize("low_weekends", [False, True])
def test_daily_cycles_do_not_page(low_weekends: bool) -> None:
    ts = times(21.0)
    wave = np.sin(2 * np.pi * ts / DAY)
    if low_weekends:
        wave *= np.where(np.floor(ts / DAY) % 7 < 5, 1.0, 0.3)
    assert onsets(run(ts, 60.0 + 25.0 * wave + noise(len(ts), 0.5), 100.0)) == []


def test_growth_that_levels_off_below_the_limit_does_not_page() -> None:
    ts = times(14.0)
    values = 30.0 + 60.0 * (1.0 - np.exp(-np.maximum(ts - START - 2 * DAY, 0.0) / DAY)) + noise(len(ts), 0.1)
    assert onsets(run(ts, values, 100.0)) == []


def test_a_nearly_full_disk_that_stays_so_does_not_page() -> None:
    ts = times(14.0)
    assert onsets(run(ts, 95.0 + noise(len(ts), 0.5), 100.0)) == []


def test_a_certificate_that_runs_out_pages_and_a_renewed_one_does_not() -> None:
    ts = times(28.0, 3600.0)
    left = 20 * DAY - (ts - START)
    (page,) = onsets(run(ts, left, 0.0, falling=True))
    assert HOUR <= left[page] <= 24 * HOUR
    renewed = np.where(left > 7 * DAY, left, left + 90 * DAY)
    assert onsets(run(ts, renewed, 0.0, falling=True)) == []


def test_a_volume_made_larger_ends_the_page_and_the_next_growth_is_a_new_one() -> None:
    ts = times(8.0)
    at = (ts - START) / DAY
    values = np.where(at < 2.99, 40.0 + 20.0 * at, 30.0 + 20.0 * (at - 2.99))
    said = run(ts, values, 100.0)
    first, second = onsets(said)
    assert 2.0 <= at[first] <= 2.99
    assert 5.5 <= at[second] <= 6.5
    assert not said[int(np.argmax(at > 3.5))].page


def test_at_the_limit_there_is_no_time_left() -> None:
    detector = CapacityDetector(100.0)
    assert detector.update(START, 100.0) == Forecast(0.0, 0.0, 0.0, True)
    assert forecast(np.array([START]), np.array([100.5]), 100.0) == Forecast(0.0, 0.0, 0.0, True)


def test_what_is_no_sample_changes_nothing() -> None:
    ts = times(3.0)
    values = 40.0 + 65.0 * (ts - START) / (3.0 * DAY) + noise(len(ts), 0.1)
    clean = run(ts, values, 100.0)
    detector = CapacityDetector(100.0)
    dirty = []
    for at, value in zip(ts.tolist(), values.tolist(), strict=True):
        dirty.append(detector.update(at, value))
        for other in ((at + 1.0, float("nan")), (at + 1.0, float("inf")), (at, 5.0), (at - 900.0, 99.0)):
            assert detector.update(*other) == dirty[-1]
    assert dirty == clean


def test_each_answer_rests_on_earlier_samples_only() -> None:
    ts = times(2.0)
    values = 40.0 + 70.0 * (ts - START) / (2.0 * DAY) + noise(len(ts), 0.1)
    assert run(ts, values, 100.0)[:400] == run(ts[:400], values[:400], 100.0)


def test_a_stored_window_is_read_as_the_stream_is() -> None:
    ts = times(6.0, 60.0)
    values = 30.0 + 65.0 * (ts - START) / (6.0 * DAY) + noise(len(ts), 0.2)
    shuffled = np.random.default_rng(3).permutation(len(ts))
    said = forecast(ts, values, 100.0)
    assert said.page
    assert said.eta_s == pytest.approx(6.0 * DAY * 5.0 / 65.0, rel=0.3)
    assert forecast(ts[shuffled], values[shuffled], 100.0) == said
    holed = values.copy()
    holed[::7] = np.nan
    assert forecast(ts, holed, 100.0).eta_s == pytest.approx(said.eta_s, rel=0.2)


@pytest.mark.parametrize("count", [0, 1, 3, 40])
def test_short_and_constant_series_foresee_nothing(count: int) -> None:
    ts = START + 60.0 * np.arange(count)
    assert forecast(ts, np.full(count, 5.0), 100.0) == NOTHING
    assert set(run(ts, np.full(count, 5.0), 100.0)) <= {NOTHING}


def test_a_limit_that_is_no_number_is_refused() -> None:
    with pytest.raises(ValueError, match="finite"):
        CapacityDetector(float("nan"))


def test_one_time_in_the_future_does_not_end_the_watch() -> None:
    clean, struck = CapacityDetector(1.0), CapacityDetector(1.0)
    pages = []
    for minute in range(720):
        ts, value = 1_760_000_000.0 + 60 * minute, 0.3 + minute / 1000
        if minute == 300:
            struck.update(ts + 30 * 86_400.0, value)
        pages.append((clean.update(ts, value).page, struck.update(ts, value).page))
    assert pages[-1] == (True, True)
    assert sum(one for one, _ in pages) - sum(other for _, other in pages) < 60
