"""Error budgets, and before and after a change."""

import numpy as np
import pytest

from pipeline.domain.detection.burn import BurnRate
from pipeline.domain.detection.change_test import failing_more, slower

RANDOM = np.random.default_rng(11)


def burnt(objective: float, *spans: tuple[float, float]) -> BurnRate:
    """``spans``: minutes and the share failing in them, of 600 requests a minute."""
    rate, ts = BurnRate(objective), 1_000_000.0
    for minutes, share in spans:
        for _ in range(int(minutes)):
            rate.take(ts, 600.0, 600.0 * share)
            ts += 60.0
    return rate


@pytest.mark.parametrize(
    ("spans", "factor"),
    [
        ([(600, 0.0005), (70, 0.016)], 14.4),
        ([(600, 0.0005), (400, 0.007)], 6.0),
        ([(3000, 0.0005), (4400, 0.0012)], 1.0),
        ([(600, 0.0005)], None),
        ([(600, 0.0005), (20, 0.03)], None),
        ([(600, 0.0005), (70, 0.016), (40, 0.0)], None),
    ],
    ids=["an hour", "six hours", "three days", "within the budget", "too short", "over"],
)
def test_each_window_has_its_own_pace(spans: list[tuple[float, float]], factor: float | None) -> None:
    found = burnt(0.999, *spans).burning()
    assert (found.window.rate if found else None) == factor


def test_a_few_failures_burn_nothing() -> None:
    rate = BurnRate(0.999)
    for minute in range(90):
        rate.take(60.0 * minute, 1.0, 0.1)
    assert rate.burning() is None


def test_counts_older_than_three_days_are_gone() -> None:
    rate = burnt(0.999, (600, 0.5))
    rate.take(1_000_000.0 + 5 * 86_400.0, 600.0, 0.0)
    assert rate.burning() is None


@pytest.mark.parametrize("objective", [0.0, 1.0, 99.9])
def test_an_objective_is_a_share(objective: float) -> None:
    with pytest.raises(ValueError, match="share of good requests"):
        BurnRate(objective)


def noise(count: int, level: float = 1.0, spread: float = 0.05) -> np.ndarray:
    return (level * RANDOM.normal(1.0, spread, count)).astype(np.float32)


def test_slower_since_the_change_beyond_the_hour_of_the_day() -> None:
    usual_before, usual_after = np.full(60, 0.1, np.float32), np.full(15, 0.2, np.float32)
    assert slower(noise(60, 0.1), usual_before, noise(15, 0.2), usual_after) is None, "as the hour has it"
    worse = slower(noise(60, 0.1), usual_before, noise(15, 0.28), usual_after)
    assert worse is not None
    assert (worse.before, worse.after) == (pytest.approx(0.2, rel=0.05), pytest.approx(0.28, rel=0.05))
    assert slower(noise(60, 0.1), usual_before, noise(15, 0.14), usual_after) is None, "faster"


def test_too_little_before_or_after_says_nothing() -> None:
    usual = np.full(60, 0.1, np.float32)
    assert slower(noise(60, 0.1), usual, noise(4, 0.9), usual[:4]) is None
    assert slower(noise(19, 0.1), usual[:19], noise(15, 0.9), usual[:15]) is None
    gaps = np.full(60, np.nan, np.float32)
    assert slower(gaps, usual, noise(15, 0.9), usual[:15]) is None


def test_a_hiccup_of_the_rollout_is_no_regression() -> None:
    usual = np.full(60, 0.1, np.float32)
    after = np.concatenate((noise(3, 0.4), noise(7, 0.1)))
    assert slower(noise(60, 0.1), usual, after, usual[:10]) is None


@pytest.mark.parametrize(
    ("share", "asked", "worse"),
    [(0.03, 1200.0, True), (0.002, 1200.0, False), (0.03, 2.0, False), (0.005, 1200.0, False)],
)
def test_failing_more_needs_requests_and_a_least_effect(share: float, asked: float, worse: bool) -> None:
    before = RANDOM.binomial(int(asked), 0.001, 60) / asked
    after = RANDOM.binomial(int(asked), share, 12) / asked
    volume = np.full(60, asked, np.float32)
    found = failing_more(before.astype(np.float32), volume, after.astype(np.float32), volume[:12])
    assert (found is not None) is worse
