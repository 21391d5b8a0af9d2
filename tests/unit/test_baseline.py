"""The rolling baselines: robust, hour by hour, and the same after a restart."""

from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from math import isnan
from zoneinfo import ZoneInfo

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bot.demo.warmup import generate
from pipeline.domain.baseline import (
    CLIP_SIGMAS,
    MAD_TO_SIGMA,
    MEMORY_SAMPLES,
    MIN_WEIGHT_GLOBAL,
    MIN_WEIGHT_HOUR,
    RELATIVE_FLOOR,
    BaselineBank,
)
from pipeline.domain.baseline_rows import Table
from pipeline.domain.telemetry import SeriesKey, Signal
from tests.builders import CHECKOUT, LATENCY, MEMORY, T0, WEB

WEB_LATENCY = SeriesKey(WEB, Signal.LATENCY_P99)
NEXT_HOUR = T0 + timedelta(hours=1)
FINITE = st.floats(0.001, 1e6)


def taught(values: Sequence[float], *, at: datetime = T0, key: SeriesKey = LATENCY) -> BaselineBank:
    bank = BaselineBank()
    for value in values:
        bank.learn([key], [value], at)
    return bank


def noisy(count: int, mean: float = 0.2, spread: float = 0.02) -> list[float]:
    return [float(value) for value in np.random.default_rng(1).normal(mean, spread, count)]


def test_a_series_never_seen_is_unknown() -> None:
    expected = BaselineBank().expect(LATENCY, T0)
    assert (expected.weight, expected.known, expected.generated) == (0, False, False)
    assert isnan(expected.mean)
    assert isnan(expected.sigma)


def test_nothing_is_known_before_twenty_samples() -> None:
    assert MIN_WEIGHT_GLOBAL == 20
    values = noisy(20)
    assert not taught(values[:19]).expect(LATENCY, T0).known
    assert taught(values).expect(LATENCY, T0).known


def test_mean_and_sigma_of_normal_noise_are_found() -> None:
    expected = taught(noisy(1500)).expect(LATENCY, T0)
    assert expected.mean == pytest.approx(0.2, rel=0.02)
    assert expected.sigma == pytest.approx(0.02, rel=0.1)
    assert expected.upper(5) == expected.mean + 5 * expected.sigma


def test_until_it_settles_the_mean_is_the_plain_mean() -> None:
    values = noisy(20)
    assert taught(values).expect(LATENCY, T0).mean == pytest.approx(np.mean(values))


def test_an_incidents_values_barely_move_the_baseline() -> None:
    calm = noisy(500)
    before = taught(calm).expect(LATENCY, T0)
    after = taught([*calm, *[5.0] * 20]).expect(LATENCY, T0)
    assert after.mean < before.mean + before.sigma
    assert after.upper(5) < 2 * before.upper(5) < 5.0


@given(st.floats(-1e300, 1e300), st.integers(20, 80))
def test_no_single_value_moves_the_mean_further_than_its_clipped_share(value: float, count: int) -> None:
    bank = taught(noisy(count))
    before = bank.expect(LATENCY, T0)
    bank.learn([LATENCY], [value], T0)
    # Over 60 samples the hour's own segment answers, which saw the same values here.
    allowed = CLIP_SIGMAS * before.sigma / (count + 1)
    assert abs(bank.expect(LATENCY, T0).mean - before.mean) <= allowed * (1 + 1e-4), "kept as 32-bit floats"


def test_old_samples_fade_with_the_stated_horizon() -> None:
    bank = taught([1.0] * int(MEMORY_SAMPLES + 500))
    bank.learn([LATENCY], [1.1], T0)
    assert bank.expect(LATENCY, T0).mean == pytest.approx(1 + 0.1 / MEMORY_SAMPLES)


def test_a_lasting_new_level_is_learned_in_the_end() -> None:
    expected = taught([*noisy(200), *[0.6] * 4000]).expect(LATENCY, T0)
    assert expected.mean == pytest.approx(0.6, rel=0.1)


def test_the_hours_own_segment_is_preferred_once_mature() -> None:
    bank = taught([0.1] * 500, at=NEXT_HOUR)
    for _ in range(int(MIN_WEIGHT_HOUR) - 1):
        bank.learn([LATENCY], [0.5], T0)
    young = bank.expect(LATENCY, T0)
    assert young.mean < 0.2
    assert young.weight == 500 + MIN_WEIGHT_HOUR - 1
    bank.learn([LATENCY], [0.5], T0)
    mature = bank.expect(LATENCY, T0)
    assert mature.mean == pytest.approx(0.5)
    assert mature.weight == MIN_WEIGHT_HOUR
    assert bank.expect(LATENCY, NEXT_HOUR + timedelta(minutes=28)).mean == pytest.approx(0.1)
    assert bank.expect(LATENCY, T0 + timedelta(hours=5)).mean < 0.2
    assert 0.15 < bank.expect(LATENCY, NEXT_HOUR).mean < 0.45, "drawn from one hour's middle to the next one's"


def test_hours_are_utc_whatever_zone_the_time_is_given_in() -> None:
    bank = taught([0.1] * 500, at=NEXT_HOUR)
    for _ in range(60):
        bank.learn([LATENCY], [0.5], T0.astimezone(timezone(timedelta(hours=-7))))
    assert bank.expect(LATENCY, T0).mean == pytest.approx(0.5)
    assert bank.expect(LATENCY, T0.astimezone(timezone(timedelta(hours=3)))).mean == pytest.approx(0.5)


def test_a_constant_series_still_has_a_sigma() -> None:
    expected = taught([0.2] * 300).expect(LATENCY, T0)
    assert expected.mean == pytest.approx(0.2)
    assert expected.sigma == pytest.approx(RELATIVE_FLOOR * 0.2)


def test_a_series_that_is_always_zero_has_a_sigma_of_next_to_nothing() -> None:
    expected = taught([0.0] * 300).expect(LATENCY, T0)
    assert 0 < expected.sigma < 1e-6


def test_sigma_comes_from_the_mean_absolute_deviation() -> None:
    expected = taught([0.0, 2.0] * 400).expect(LATENCY, T0)
    assert expected.sigma == pytest.approx(MAD_TO_SIGMA * 1.0, rel=0.05)


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf")])
def test_what_is_not_finite_is_passed_over(bad: float) -> None:
    bank = taught(noisy(100))
    before = bank.rows([LATENCY])
    bank.learn([LATENCY, MEMORY], [bad, bad], T0)
    assert bank.rows([LATENCY]) == before
    assert MEMORY not in bank
    bank.learn([LATENCY, MEMORY], [bad, 0.5], T0)
    assert bank.rows([LATENCY]) == before
    assert bank.expect(MEMORY, T0).weight == 1


def test_as_many_values_as_keys_are_needed() -> None:
    with pytest.raises(ValueError, match=r"shorter|longer"):
        BaselineBank().learn([LATENCY, MEMORY], [0.1], T0)


def test_series_do_not_touch_each_other() -> None:
    bank = BaselineBank()
    for value in noisy(100):
        bank.learn([LATENCY, WEB_LATENCY], [value, 10 * value], T0)
    assert bank.expect(WEB_LATENCY, T0).mean == pytest.approx(10 * bank.expect(LATENCY, T0).mean)
    assert bank.expect(LATENCY, T0) == taught(noisy(100)).expect(LATENCY, T0)
    assert (list(bank), len(bank)) == ([LATENCY, WEB_LATENCY], 2)


@given(st.lists(st.tuples(FINITE, FINITE, st.integers(0, 23), st.booleans()), max_size=30), FINITE)
def test_a_restart_changes_nothing(history: list[tuple[float, float, int, bool]], later: float) -> None:
    bank = BaselineBank()
    for first, second, hour, generated in history:
        bank.learn([LATENCY, MEMORY], [first, second], T0.replace(hour=hour), generated=generated)
    restarted = BaselineBank(bank.rows([LATENCY, MEMORY]))
    assert list(restarted) == list(bank)
    for one in (bank, restarted):
        one.learn([MEMORY, WEB_LATENCY], [later, later], T0)
    assert restarted.rows(bank) == bank.rows(bank)
    assert all(restarted.expect(key, T0) == bank.expect(key, T0) for key in bank)


def test_only_the_rows_asked_for_are_handed_out() -> None:
    bank = taught([0.2] * 3)
    bank.learn([MEMORY], [0.5], T0)
    assert [row.key for row in bank.rows([MEMORY, WEB_LATENCY])] == [MEMORY]


def test_the_generated_mark_stays() -> None:
    bank = BaselineBank()
    bank.learn([LATENCY, MEMORY], [0.2, 0.5], T0, generated=True)
    bank.learn([LATENCY, WEB_LATENCY], [0.2, 0.3], T0)
    for one in (bank, BaselineBank(bank.rows(bank))):
        assert one.expect(LATENCY, T0).generated
        assert one.expect(MEMORY, T0).generated
        assert not one.expect(WEB_LATENCY, T0).generated
    assert [row.generated_samples for row in bank.rows(bank)] == [1, 1, 0]


def test_generated_history_speaks_at_every_hour_and_is_labelled() -> None:
    keys = [LATENCY, SeriesKey(CHECKOUT, Signal.TRAFFIC)]
    bank = BaselineBank()
    generate(bank, keys, [0.2, 12.0])
    for hour in range(24):
        for key, centre in zip(keys, (0.2, 12.0), strict=True):
            expected = bank.expect(key, T0.replace(hour=hour))
            assert expected.generated
            assert MIN_WEIGHT_HOUR <= expected.weight < 24 * MIN_WEIGHT_HOUR
            assert expected.mean == pytest.approx(centre, rel=0.1)
            assert centre * 0.04 < expected.sigma < centre * 0.1


def test_a_series_that_was_always_zero_can_leave_zero() -> None:
    bank = taught([*[0.0] * 20, 100.0])
    assert 0 < bank.expect(LATENCY, T0).mean < 1, "one value alone pulls little"
    for count in (20, 500):
        expected = taught([*[0.0] * count, *[100.0] * 5000]).expect(LATENCY, T0)
        assert expected.mean == pytest.approx(100, rel=0.2)


def minutes(
    bank: BaselineBank,
    days: range,
    value: Callable[[datetime], float],
    *,
    outside: Collection[SeriesKey] = (),
    step_min: int = 5,
) -> None:
    for number in range(days.start * 288, days.stop * 288):
        at = MONDAY + timedelta(minutes=step_min * number)
        bank.learn([LATENCY], [value(at)], at, outside=outside)


MONDAY = datetime(2026, 10, 12, tzinfo=UTC)


def test_weekends_are_told_from_weekdays_after_some_weeks() -> None:
    bank = BaselineBank()
    minutes(bank, range(28), lambda at: 50.0 if at.weekday() >= 5 else 100.0)
    wednesday, saturday = MONDAY + timedelta(days=30, hours=12), MONDAY + timedelta(days=33, hours=12)
    assert bank.expect(LATENCY, wednesday).mean == pytest.approx(100, rel=0.1)
    assert bank.expect(LATENCY, saturday).mean < 75


def test_a_new_level_is_followed_within_a_day_once_it_lasts() -> None:
    bank = BaselineBank()
    noise = np.random.default_rng(3)
    minutes(bank, range(7), lambda at: 100.0 + noise.normal(0, 3))
    later = MONDAY + timedelta(days=7, hours=4)
    minutes(bank, range(7, 8), lambda at: 200.0 + noise.normal(0, 3), outside={LATENCY})
    assert bank.expect(LATENCY, MONDAY + timedelta(days=8)).mean == pytest.approx(200, rel=0.15)
    held = BaselineBank()
    minutes(held, range(7), lambda at: 100.0)
    for number in range(48):
        at = later + timedelta(minutes=5 * number)
        held.learn([LATENCY], [200.0], at, outside={LATENCY})
    assert held.expect(LATENCY, later + timedelta(hours=4)).mean < 110, "four hours of an incident teach little"


def test_a_job_of_every_night_becomes_usual_at_its_time_only() -> None:
    bank = BaselineBank()
    noise = np.random.default_rng(3)

    def nightly(at: datetime) -> float:
        busy = at.hour == 2 and at.minute < 20
        return (300.0 if busy else 100.0) + float(noise.normal(0, 4))

    minutes(bank, range(9), nightly)
    there = bank.expect(LATENCY, MONDAY + timedelta(days=9, hours=2, minutes=10))
    assert there.mean + 1.3 * there.excess * there.sigma > 280
    assert bank.expect(LATENCY, MONDAY + timedelta(days=9, hours=12)).excess == 0


def test_hours_of_a_zone_follow_its_daylight_saving() -> None:
    berlin = ZoneInfo("Europe/Berlin")
    bank = BaselineBank(zone=berlin)
    minutes(bank, range(13), lambda at: 100.0 if at.astimezone(berlin).hour == 9 else 10.0)
    winter = datetime(2026, 10, 26, 9, 30, tzinfo=berlin)
    assert bank.expect(LATENCY, winter).mean == pytest.approx(100, rel=0.1)
    assert bank.expect(LATENCY, winter - timedelta(hours=3)).mean == pytest.approx(10, rel=0.1)


def test_after_a_gap_the_last_hours_say_nothing() -> None:
    bank = taught([0.1] * 30)
    late = T0 + timedelta(hours=2)
    bank.learn([LATENCY], [0.1], late)
    assert bank.expect(LATENCY, late + timedelta(hours=30)).known


def test_many_are_answered_as_one_by_one() -> None:
    bank = BaselineBank()
    for value in noisy(100):
        bank.learn([LATENCY, WEB_LATENCY], [value, 10 * value], T0)
    many = bank.expect_many([WEB_LATENCY, MEMORY, LATENCY], T0)
    assert many.mean[[0, 2]].tolist() == [bank.expect(key, T0).mean for key in (WEB_LATENCY, LATENCY)]
    assert isnan(many.mean[1])
    assert many.known.tolist() == [True, False, True]


def test_a_series_takes_no_more_than_its_share_of_memory() -> None:
    table = Table(1000)
    size = sum(getattr(table, name).nbytes for name in Table.__annotations__)
    assert size / 1000 <= 2500


def test_a_row_of_another_layout_is_learned_anew() -> None:
    kept = BaselineBank()
    for _ in range(30):
        kept.learn([LATENCY, WEB_LATENCY], [0.2, 0.4], T0)
    rows = kept.rows([LATENCY, WEB_LATENCY])
    loaded = BaselineBank([replace(rows[0], state=rows[0].state[:-1]), rows[1]])
    assert not loaded.expect(LATENCY, T0).known
    assert loaded.expect(WEB_LATENCY, T0) == kept.expect(WEB_LATENCY, T0)


def test_a_series_that_is_always_zero_takes_nothing_from_what_others_do_every_night() -> None:
    quiet = SeriesKey(CHECKOUT, Signal.ERROR_RATIO)
    alone, together = BaselineBank(), BaselineBank()
    for minute in range(6 * 24 * 60):
        at = T0 + timedelta(minutes=minute)
        value = 2.0 if (at.hour, at.minute // 10) == (3, 0) else 0.2 + 0.001 * (minute % 7)
        alone.learn([LATENCY], [value], at)
        together.learn([LATENCY, quiet], [value, 0.0], at)
    night = (T0 + timedelta(days=6)).replace(hour=3, minute=5)
    assert alone.expect(LATENCY, night).excess > 3
    assert together.expect(LATENCY, night).excess == pytest.approx(alone.expect(LATENCY, night).excess)
