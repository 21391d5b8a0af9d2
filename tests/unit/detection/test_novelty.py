"""The novelty lane: what leaves the range a series has kept is found once; what was seen before is not."""

import os
import subprocess
import sys
from collections.abc import Iterable

import numpy as np
import numpy.typing as npt
import pytest

from pipeline.domain.detection.novelty import NOVELTY_SIZE, novelty_init, novelty_update

Values = npt.NDArray[np.float64]

MONDAY = 1_756_684_800.0
PERIOD_S = 300.0
DAY = 288
PAGE = 0.5
SHAPES = ("steady", "spiky", "daily")


def scores(values: Iterable[float], *, period_s: float = PERIOD_S, start: float = MONDAY) -> Values:
    state = np.empty(NOVELTY_SIZE)
    novelty_init(state, period_s)
    return np.array([novelty_update(state, float(v), start + at * period_s, period_s) for at, v in enumerate(values)])


def pages(values: Iterable[float], *, period_s: float = PERIOD_S) -> list[int]:
    return [int(at) for at in np.nonzero(scores(values, period_s=period_s) >= PAGE)[0]]


def steady(days: int = 10, seed: int = 5) -> Values:
    return np.random.default_rng(seed).normal(50.0, 1.0, days * DAY)


def series(shape: str) -> Values:
    values = steady(6)
    if shape == "spiky":
        values[::97] *= np.random.default_rng(1).lognormal(0.5, 0.5, len(values[::97]))
    if shape == "daily":
        values += 20.0 * np.sin(2 * np.pi * np.arange(len(values)) / DAY)
    return values


@pytest.mark.parametrize("level", [0.0, 5.0, -1e9])
def test_a_constant_series_scores_nothing(level: float) -> None:
    assert scores([level] * 1500).max() == 0.0


@pytest.mark.parametrize("shape", SHAPES)
def test_scores_lie_between_0_and_1(shape: str) -> None:
    found = scores(series(shape))

    assert found.min() >= 0.0
    assert found.max() <= 1.0
    assert found.any()


def test_a_new_series_is_not_judged() -> None:
    assert not scores(np.random.default_rng(2).lognormal(0.0, 2.0, 50)).any()


def test_a_level_shift_is_reported_once_and_at_once() -> None:
    values = steady()
    quiet = set(pages(values))
    values[2000:] += 15.0

    assert [at for at in pages(values) if at >= 2000 and at not in quiet] == [2000]


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_a_spike_is_reported_on_both_sides(sign: float) -> None:
    values = steady()
    values[2000:2003] += sign * 15.0

    assert 2000 in pages(values)


def test_noise_alone_is_all_but_quiet() -> None:
    assert sum(len(pages(steady(14, seed))) for seed in range(6)) <= 3 * 6


def test_a_daily_peak_that_has_been_seen_is_no_news() -> None:
    values = steady(14)
    values[np.arange(len(values)) % DAY < 6] += 40.0

    late = [at for at in pages(values) if at >= 7 * DAY and at % DAY < 24]

    assert late == []


def test_the_missing_daily_peak_is_news() -> None:
    values = steady(14)
    in_peak = (np.arange(len(values)) % DAY >= 96) & (np.arange(len(values)) % DAY < 192)
    values[in_peak] += 40.0
    values[9 * DAY : 10 * DAY][in_peak[9 * DAY : 10 * DAY]] -= 40.0

    assert any(9 * DAY + 96 <= at < 9 * DAY + 204 for at in pages(values))


def test_the_second_weekend_is_less_news_than_the_first() -> None:
    hours = np.arange(28 * 24)
    values = np.random.default_rng(4).normal(100.0, 1.0, len(hours)) - 25.0 * (hours // 24 % 7 >= 5)
    found = scores(values, period_s=3600.0)
    saturdays = [float(found[(7 * week + 5) * 24]) for week in range(4)]

    assert saturdays[0] >= PAGE
    assert max(saturdays[1:]) < PAGE


def test_a_slow_drift_is_found_before_it_has_gone_far() -> None:
    values = steady(14)
    quiet = set(pages(values))
    values[2000:] += np.linspace(0.0, 25.0, len(values) - 2000)

    first = min(at for at in pages(values) if at > 2000 and at not in quiet)

    assert values[first] < 60.0


def test_the_same_spike_days_later_is_news_again() -> None:
    values = steady(14)
    values[[1500, 3100]] += 20.0

    assert {1500, 3100} <= set(pages(values))


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_what_is_no_number_is_passed_over(bad: float) -> None:
    state, untouched = np.empty(NOVELTY_SIZE), np.empty(NOVELTY_SIZE)
    novelty_init(state, PERIOD_S)
    for at, value in enumerate(steady(2)):
        novelty_update(state, value, MONDAY + at * PERIOD_S, PERIOD_S)
    untouched[:] = state

    assert novelty_update(state, bad, MONDAY + 3 * DAY * PERIOD_S, PERIOD_S) == 0.0
    np.testing.assert_array_equal(state, untouched)


@pytest.mark.parametrize("late_s", [0.0, 300.0, 86_400.0])
def test_a_point_that_is_not_the_newest_is_passed_over(late_s: float) -> None:
    state = np.empty(NOVELTY_SIZE)
    novelty_init(state, PERIOD_S)
    for at, value in enumerate(steady(2)):
        novelty_update(state, value, MONDAY + at * PERIOD_S, PERIOD_S)
    untouched = state.copy()

    assert novelty_update(state, 1e6, MONDAY + (2 * DAY - 1) * PERIOD_S - late_s, PERIOD_S) == 0.0
    np.testing.assert_array_equal(state, untouched)


def test_a_gap_is_no_news_and_what_comes_after_it_is_judged() -> None:
    values = steady(10)
    quiet = set(pages(values))
    state = np.empty(NOVELTY_SIZE)
    novelty_init(state, PERIOD_S)
    found = {}
    for at, value in enumerate(values):
        if not 1500 <= at < 1900:
            raised = 30.0 if at == 2500 else 0.0
            found[at] = novelty_update(state, value + raised, MONDAY + at * PERIOD_S, PERIOD_S)

    assert {at for at, score in found.items() if score >= PAGE and at >= 1500} - quiet == {2500}


@pytest.mark.parametrize("shape", SHAPES)
def test_a_score_does_not_depend_on_what_comes_later(shape: str) -> None:
    values = series(shape)

    np.testing.assert_array_equal(scores(values)[:900], scores(values[:900]))


def test_the_unit_does_not_matter() -> None:
    values = series("spiky")

    np.testing.assert_allclose(scores(values), scores(values * 1024.0), atol=1e-6)


PLAIN = """
import sys
import numpy as np
from pipeline.domain.detection.novelty import NOVELTY_SIZE, novelty_init, novelty_update
values = np.load(sys.argv[1])
state = np.empty(NOVELTY_SIZE)
novelty_init(state, 300.0)
np.save(sys.argv[2], [novelty_update(state, float(v), 1756684800.0 + at * 300.0, 300.0) for at, v in enumerate(values)])
"""


@pytest.mark.parametrize("shape", SHAPES)
def test_plain_python_gives_the_same_scores(shape: str, tmp_path: os.PathLike[str]) -> None:
    values = series(shape)
    given, got = os.path.join(tmp_path, "values.npy"), os.path.join(tmp_path, "scores.npy")
    np.save(given, values)
    environment = {**os.environ, "NUMBA_DISABLE_JIT": "1"}
    subprocess.run([sys.executable, "-c", PLAIN, given, got], env=environment, check=True)

    np.testing.assert_allclose(np.load(got), scores(values), rtol=1e-9, atol=1e-12)
