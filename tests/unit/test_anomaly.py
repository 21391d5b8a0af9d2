"""The rules that turn a window of samples into anomalies."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta
from math import isnan

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.domain.anomaly import (
    SENSITIVITY,
    AnomalyKind,
    Bound,
    DetectionResult,
    DetectionSettings,
    Policy,
    bound_for,
    detect,
)
from pipeline.domain.baseline import BaselineBank, Expectation
from pipeline.domain.changes import ChangeEvent, ChangeKind
from pipeline.domain.telemetry import Sample, SeriesKey, Signal
from tests.builders import CHECKOUT, LATENCY, MEMORY, T0, WEB, make_anomaly, make_samples

SETTINGS = DetectionSettings(clear_after_s=120.0)
ERRORS = SeriesKey(CHECKOUT, Signal.ERROR_RATIO)
TRAFFIC = SeriesKey(CHECKOUT, Signal.TRAFFIC)
DISK = SeriesKey(CHECKOUT, Signal.DISK_RATIO, "checkout-1")
CERT = SeriesKey(CHECKOUT, Signal.CERT_REMAINING, "checkout-1")
DAY_S = 86_400.0
NOTHING = DetectionResult()


def bank_of(mean: float, key: SeriesKey = LATENCY, *, wobble: float = 0.1, count: int = 200) -> BaselineBank:
    """A baseline around ``mean`` that swings by the share ``wobble``."""
    bank = BaselineBank()
    for number in range(count):
        bank.learn([key], [mean * (1 + wobble * (-1) ** number)], T0)
    return bank


BANKS_OF_04 = {key: bank_of(0.4, key) for key in (LATENCY, ERRORS)}


def up_to_now(key: SeriesKey, values: Sequence[float], *, step_s: float = 15.0, age_s: float = 0.0) -> list[Sample]:
    """Samples that end ``age_s`` before T0."""
    start = T0 - timedelta(seconds=step_s * (len(values) - 1) + age_s)
    return make_samples(key, values, start=start, step_s=step_s)


def look(*series: list[Sample], bank: BaselineBank | None = None) -> DetectionResult:
    window = {samples[0].key: samples for samples in series}
    return detect(window, bank or BaselineBank(), SETTINGS, T0)


def test_memory_must_stay_high_for_its_whole_time() -> None:
    assert (SETTINGS.memory_ratio, SETTINGS.memory_sustain_s) == (0.85, 300)
    (found,) = look(up_to_now(MEMORY, [0.5] * 3 + [0.9] * 19 + [0.93, 0.91])).anomalies
    assert (found.kind, found.key, found.bound) == (AnomalyKind.MEMORY_PRESSURE, MEMORY, Bound(0.85))
    assert (found.value, found.peak, found.seen_at) == (0.91, 0.93, T0)
    assert found.started_at == T0 - timedelta(seconds=300)
    assert isnan(found.expected)


@pytest.mark.parametrize(
    "values",
    [
        [0.99] * 14,
        [0.99] * 20 + [0.84],
        [0.99] * 20 + [0.85],
        [0.99] * 10 + [0.8] + [0.99] * 10,
        [0.99],
    ],
    ids=["too short", "back inside", "on the line", "one dip", "one sample"],
)
def test_memory_that_is_not_high_throughout_is_no_anomaly(values: list[float]) -> None:
    assert look(up_to_now(MEMORY, values)).anomalies == ()


def test_a_gap_neither_fakes_nor_hides_a_sustained_breach() -> None:
    full = up_to_now(MEMORY, [0.95] * 21)
    assert look(full[:1] + full[-3:]).anomalies
    assert look([full[0], full[-1]]).anomalies == ()
    assert look(full[-12:]).anomalies == ()
    assert look(full[:8] + full[13:]).anomalies


def test_a_shorter_time_can_be_set() -> None:
    window = {MEMORY: up_to_now(MEMORY, [0.95] * 5)}
    assert detect(window, BaselineBank(), DetectionSettings(clear_after_s=120.0, memory_sustain_s=60), T0).anomalies
    assert detect(window, BaselineBank(), SETTINGS, T0).anomalies == ()


def test_latency_is_judged_by_its_own_sigmas() -> None:
    bank = bank_of(1.0)
    expected = bank.expect(LATENCY, T0)
    line = expected.upper(SETTINGS.latency_sigmas)
    assert line == pytest.approx(1.63, abs=0.02)
    assert look(up_to_now(LATENCY, [line - 0.01] * 6), bank=bank).anomalies == ()
    (found,) = look(up_to_now(LATENCY, [line + 0.01] * 6), bank=bank).anomalies
    assert (found.kind, found.expected, found.sigma) == (AnomalyKind.LATENCY, expected.mean, expected.sigma)
    assert found.sigmas == pytest.approx(5.1, abs=0.1)


def test_latency_must_be_worse_by_a_least_effect_too() -> None:
    bank = bank_of(0.010)
    assert bank.expect(LATENCY, T0).upper(5) < 0.02
    assert look(up_to_now(LATENCY, [0.055] * 6), bank=bank).anomalies == ()
    assert look(up_to_now(LATENCY, [0.065] * 6), bank=bank).anomalies


def test_latency_without_a_baseline_says_nothing() -> None:
    young = bank_of(0.01, count=19)
    result = look(up_to_now(LATENCY, [9.0] * 6), bank=young)
    assert (result.anomalies, result.cleared) == ((), ())
    assert LATENCY in result.within, "what cannot be judged yet still has to be learned"
    assert look(up_to_now(LATENCY, [9.0] * 6), bank=bank_of(0.01, count=20)).anomalies


@given(st.floats(0, 1.0), st.sampled_from([LATENCY, ERRORS]))
def test_an_improvement_never_alarms(share: float, key: SeriesKey) -> None:
    bank = BANKS_OF_04[key]
    result = look(up_to_now(key, [0.4 * share] * 12), bank=bank)
    assert result.anomalies == ()
    assert result.cleared == (key,)


def test_errors_from_zero_alarm() -> None:
    bank = bank_of(0.0, ERRORS)
    (found,) = look(up_to_now(ERRORS, [0.2] * 6), bank=bank).anomalies
    assert (found.kind, found.bound.threshold) == (AnomalyKind.ERROR_SURGE, SETTINGS.error_min_ratio)
    assert look(up_to_now(ERRORS, [0.05] * 6), bank=bank).anomalies == ()


def test_a_service_that_always_fails_a_little_is_judged_by_its_sigmas() -> None:
    bank = bank_of(0.10, ERRORS)
    assert look(up_to_now(ERRORS, [0.13] * 6), bank=bank).anomalies == ()
    assert look(up_to_now(ERRORS, [0.30] * 6), bank=bank).anomalies


@pytest.mark.parametrize(("key", "slow"), [(LATENCY, 9.0), (ERRORS, 1.0)])
def test_quiet_traffic_tells_nothing(key: SeriesKey, slow: float) -> None:
    bank = bank_of(0.01, key)
    for per_s, count in ((0.4, 0), (0.5, 1)):
        result = look(up_to_now(key, [slow] * 6), up_to_now(TRAFFIC, [30.0, per_s]), bank=bank)
        assert len(result.anomalies) == count
    calm = look(up_to_now(key, [0.01] * 12), up_to_now(TRAFFIC, [0.0] * 12), bank=bank)
    assert calm.cleared == (), "silence is no recovery"


def test_quiet_traffic_elsewhere_or_of_one_instance_does_not_count() -> None:
    bank = bank_of(0.01)
    for key in (SeriesKey(WEB, Signal.TRAFFIC), replace(TRAFFIC, instance="checkout-1")):
        assert look(up_to_now(LATENCY, [9.0] * 6), up_to_now(key, [0.0] * 6), bank=bank).anomalies


def test_memory_counts_without_traffic() -> None:
    assert look(up_to_now(MEMORY, [0.95] * 25), up_to_now(TRAFFIC, [0.0] * 25)).anomalies


def test_a_certificate_must_not_fall_below_its_bound() -> None:
    fine = look(up_to_now(CERT, [30 * DAY_S] * 12))
    assert (fine.anomalies, fine.cleared) == ((), (CERT,))
    (found,) = look(up_to_now(CERT, [7.1 * DAY_S, 6.9 * DAY_S, 6.8 * DAY_S])).anomalies
    assert (found.kind, found.bound) == (AnomalyKind.CERTIFICATE_EXPIRY, Bound(7 * DAY_S, breach_above=False))
    assert (found.value, found.peak) == (6.8 * DAY_S, 6.8 * DAY_S)
    assert found.started_at == T0 - timedelta(seconds=15)
    assert look(up_to_now(CERT, [-5.0])).anomalies, "one sample is enough, expired most of all"


def test_a_full_disk() -> None:
    (found,) = look(up_to_now(DISK, [0.95] * 9)).anomalies
    assert found.kind is AnomalyKind.DISK_EXHAUSTION
    assert look(up_to_now(DISK, [0.90] * 9)).anomalies == ()


@pytest.mark.parametrize("age_s", [0, 60, 89])
def test_samples_a_little_late_still_count(age_s: float) -> None:
    assert look(up_to_now(MEMORY, [0.95] * 40, age_s=age_s)).anomalies


@pytest.mark.parametrize("key", [MEMORY, DISK, CERT, LATENCY])
@pytest.mark.parametrize("level", ["high", "low"])
def test_a_stale_series_neither_alarms_nor_clears(key: SeriesKey, level: str) -> None:
    value = {MEMORY: (0.95, 0.5), DISK: (0.95, 0.5), CERT: (DAY_S, 30 * DAY_S), LATENCY: (9.0, 1.0)}[key]
    samples = up_to_now(key, [value[level == "low"]] * 40, age_s=121)
    result = look(samples, bank=bank_of(1.0))
    assert (result.anomalies, result.cleared, result.fresh) == ((), (), frozenset())


def test_fresh_are_those_that_reported_lately() -> None:
    late = up_to_now(MEMORY, [0.5] * 3, age_s=120)
    silent = up_to_now(DISK, [0.5] * 3, age_s=121)
    assert look(late, silent).fresh == {MEMORY}


def test_clearing_takes_its_time_and_every_sample() -> None:
    assert SETTINGS.clear_after_s == 120
    assert look(up_to_now(MEMORY, [0.95] * 10 + [0.5] * 9)).cleared == (MEMORY,)
    for values in ([0.95] * 10 + [0.5] * 5, [0.5] * 5 + [0.95] + [0.5] * 3, [0.5] * 9 + [0.95], [0.5]):
        result = look(up_to_now(MEMORY, values))
        assert (result.anomalies, result.cleared) == ((), ())


def before_now(key: SeriesKey, value: float, ages_s: Sequence[float]) -> list[Sample]:
    return [Sample(key, T0 - timedelta(seconds=age), value) for age in ages_s]


@pytest.mark.parametrize(
    ("ages_s", "enough"),
    [((210, 100, 0), True), ((209, 100, 0), False), ((210, 0), False), ((300, 90), False), ((300, 200, 90), True)],
)
def test_a_breach_is_seven_tenths_of_its_time_and_three_samples(ages_s: Sequence[float], enough: bool) -> None:
    assert bool(look(before_now(MEMORY, 0.95, ages_s)).anomalies) is enough


@pytest.mark.parametrize(
    ("ages_s", "enough"),
    [((84, 0), True), ((83, 0), False), ((120, 36), True), ((121, 36), False), ((121, 84, 40, 0), True)],
)
def test_clearing_is_seven_tenths_of_its_time_and_two_samples(ages_s: Sequence[float], enough: bool) -> None:
    assert bool(look(before_now(MEMORY, 0.5, ages_s)).cleared) is enough


@given(st.lists(st.floats(0, 1), min_size=1, max_size=40), st.floats(0, 400), st.sampled_from([5.0, 15.0, 60.0]))
def test_no_series_is_in_breach_and_well_at_once(values: list[float], age_s: float, step_s: float) -> None:
    samples = up_to_now(MEMORY, values, age_s=age_s, step_s=step_s)
    result = look(samples)
    alarmed = {anomaly.key for anomaly in result.anomalies}
    assert not alarmed & set(result.cleared)
    assert not alarmed & result.within
    assert set(result.cleared) <= result.within & result.fresh
    assert (MEMORY in result.within) == (values[-1] <= 0.85)
    for found in result.anomalies:
        assert found.peak == max(sample.value for sample in samples if sample.at >= found.started_at)
        assert all(sample.value > 0.85 for sample in samples if sample.at >= found.started_at)


def test_what_is_in_breach_must_not_teach_the_baseline() -> None:
    bank = bank_of(1.0)
    assert look(up_to_now(LATENCY, [1.0, 1.0, 9.0]), bank=bank).within == frozenset()
    assert look(up_to_now(LATENCY, [9.0, 9.0, 1.0]), bank=bank).within == {LATENCY}
    beyond = look(up_to_now(TRAFFIC, [1e9]), bank=bank_of(1.0, TRAFFIC))
    assert (beyond.within, beyond.beyond) == (frozenset(), {TRAFFIC})


@pytest.mark.parametrize(("per_s", "above"), [(20.0, True), (4.0, False), (0.0, False)])
def test_traffic_far_from_usual_is_an_anomaly_once_it_lasts(per_s: float, above: bool) -> None:
    bank = bank_of(10.0, TRAFFIC)
    (found,) = look(up_to_now(TRAFFIC, [per_s] * 17), bank=bank).anomalies
    assert (found.kind, found.key, found.bound.breach_above) == (AnomalyKind.TRAFFIC, TRAFFIC, above)
    assert look(up_to_now(TRAFFIC, [per_s] * 11), bank=bank).anomalies == (), "not yet"


@pytest.mark.parametrize("per_s", [10.0, 14.0, 7.0])
def test_traffic_near_the_usual_is_none(per_s: float) -> None:
    result = look(up_to_now(TRAFFIC, [per_s] * 17), bank=bank_of(10.0, TRAFFIC))
    assert (result.anomalies, result.cleared) == ((), (TRAFFIC,))


def test_a_trickle_of_traffic_says_nothing() -> None:
    assert look(up_to_now(TRAFFIC, [0.0] * 17), bank=bank_of(0.4, TRAFFIC)).anomalies == ()


def test_empty_windows() -> None:
    assert detect({}, BaselineBank(), SETTINGS, T0) == NOTHING
    assert detect({MEMORY: []}, BaselineBank(), SETTINGS, T0) == NOTHING


@pytest.mark.parametrize("key", [LATENCY, ERRORS, TRAFFIC])
def test_no_bound_without_a_baseline(key: SeriesKey) -> None:
    assert bound_for(key, Expectation(1.0, 0.1, 19), SETTINGS) is None
    assert bound_for(key, Expectation(1.0, 0.1, 20), SETTINGS) is not None


def test_a_bound_is_breached_beyond_the_line_only() -> None:
    assert [Bound(1.0).breached(value) for value in (0.9, 1.0, 1.1)] == [False, False, True]
    assert [Bound(1.0, breach_above=False).breached(value) for value in (0.9, 1.0, 1.1)] == [True, False, False]


def test_the_window_reaches_further_than_the_longest_rule() -> None:
    for changes in ({}, {"memory_sustain_s": 900.0}, {"clear_after_s": 1200.0}, {"disk_sustain_s": 800.0}):
        settings = replace(SETTINGS, **changes)
        longest = max(settings.memory_sustain_s, settings.disk_sustain_s, settings.clear_after_s)
        assert settings.window_s > longest
        assert settings.sustain_s(Signal.MEMORY_RATIO) == settings.memory_sustain_s
    assert SETTINGS.sustain_s(Signal.CERT_REMAINING) == 0


def test_a_baseline_without_spread_has_no_sigmas() -> None:
    quiet = bank_of(0.0, ERRORS)
    (found,) = look(up_to_now(ERRORS, [0.2] * 6), bank=quiet).anomalies
    assert (found.expected, found.bound.threshold) == (0.0, SETTINGS.error_min_ratio)
    assert isnan(found.sigmas)
    assert found.distance == ""


@pytest.mark.parametrize(
    ("sigma", "said"), [(0.1, "5.0σ"), (0.005, "over 50σ"), (1e-7, ""), (0.0, ""), (float("nan"), "")]
)
def test_the_distance_is_said_as_far_as_it_means_something(sigma: float, said: str) -> None:
    assert make_anomaly(LATENCY, value=0.7, expected=0.2, sigma=sigma).distance == said


@pytest.mark.parametrize("key", [MEMORY, LATENCY, TRAFFIC])
def test_nan_clears_nothing_and_teaches_nothing(key: SeriesKey) -> None:
    blind = look(up_to_now(key, [float("nan")] * 13), bank=BANKS_OF_04[LATENCY])
    assert (blind.anomalies, blind.cleared) == ((), ())
    assert key not in blind.within
    assert key in blind.fresh, "it reports, and is not gone"


def test_nan_between_samples_is_no_sample() -> None:
    nan = float("nan")
    assert look(up_to_now(MEMORY, [0.9, nan] * 12)).anomalies
    assert look(up_to_now(MEMORY, [0.5, nan] * 12)).cleared == (MEMORY,)
    assert look(up_to_now(MEMORY, [0.5, nan] * 12)).within == frozenset()
    assert look(up_to_now(MEMORY, [0.5] + [nan] * 12)).cleared == ()


def test_memory_that_always_stands_high_is_judged_by_its_own_baseline() -> None:
    bank = bank_of(0.88, MEMORY, wobble=0.005)
    assert look(up_to_now(MEMORY, [0.90] * 24), bank=bank).anomalies == ()
    assert look(up_to_now(MEMORY, [0.96] * 24), bank=bank).anomalies
    assert look(up_to_now(MEMORY, [0.90] * 24), bank=bank_of(0.6, MEMORY, wobble=0.2)).anomalies, (
        "a wide spread is none"
    )


def test_one_of_three_failing_is_no_surge_and_hundreds_are() -> None:
    bank = bank_of(0.0, ERRORS)
    for per_s, count in ((0.6, 0), (20.0, 1)):
        found = look(up_to_now(ERRORS, [0.06] * 6), up_to_now(TRAFFIC, [per_s] * 6), bank=bank).anomalies
        assert len(found) == count


def deployed(age_s: float, kind: ChangeKind = ChangeKind.DEPLOYMENT) -> ChangeEvent:
    return ChangeEvent(CHECKOUT, T0 - timedelta(seconds=age_s), kind, "3f2a91c", "raise pool size")


@pytest.mark.parametrize(
    ("age_s", "lasting_s", "kind"),
    [
        (60, 75, None),
        (170, 75, None),
        (190, 75, AnomalyKind.DEPLOYMENT_REGRESSION),
        (700, 75, AnomalyKind.DEPLOYMENT_REGRESSION),
        (900, 75, AnomalyKind.LATENCY),
        (190, 400, AnomalyKind.LATENCY),
    ],
    ids=["rolling out", "still", "with it", "soon after", "long after", "before it"],
)
def test_what_begins_with_a_release_is_put_down_to_it(age_s: float, lasting_s: int, kind: AnomalyKind | None) -> None:
    window = {LATENCY: up_to_now(LATENCY, [9.0] * (lasting_s // 15 + 1))}
    found = detect(window, bank_of(1.0), SETTINGS, T0, changes=[deployed(age_s)]).anomalies
    assert [one.kind for one in found] == ([kind] if kind else [])
    assert [one.change is not None for one in found] == ([kind is AnomalyKind.DEPLOYMENT_REGRESSION] if kind else [])
    other = replace(deployed(age_s), service=WEB)
    for unrelated in (other, deployed(age_s, ChangeKind.SCALING)):
        (alone,) = detect(window, bank_of(1.0), SETTINGS, T0, changes=[unrelated]).anomalies
        assert (alone.kind, alone.change) == (AnomalyKind.LATENCY, None)


def test_a_release_that_fails_half_of_all_requests_is_told_at_once() -> None:
    window = {ERRORS: up_to_now(ERRORS, [0.7] * 6)}
    (found,) = detect(window, bank_of(0.0, ERRORS), SETTINGS, T0, changes=[deployed(60)]).anomalies
    assert found.change is not None


def test_people_say_what_is_muted_and_how_keen_the_rules_are() -> None:
    window, bank = {LATENCY: up_to_now(LATENCY, [1.75] * 6)}, bank_of(1.0)
    assert detect(window, bank, SETTINGS, T0, policy=Policy()).anomalies
    muted = Policy(muted=lambda service, at: "maintenance")
    keen = {name: Policy(factor=lambda service, signal, factor=factor: factor) for name, factor in SENSITIVITY.items()}
    assert detect(window, bank, SETTINGS, T0, policy=muted).anomalies == ()
    assert detect(window, bank, SETTINGS, T0, policy=keen["low"]).anomalies == ()
    slight = {LATENCY: up_to_now(LATENCY, [1.5] * 6)}
    assert detect(slight, bank, SETTINGS, T0, policy=keen["normal"]).anomalies == ()
    assert detect(slight, bank, SETTINGS, T0, policy=keen["high"]).anomalies


def test_only_what_is_asked_for_is_looked_at_for_clearing() -> None:
    window = {key: up_to_now(key, [0.1] * 12) for key in (MEMORY, DISK)}
    bank = BaselineBank()
    assert set(detect(window, bank, SETTINGS, T0).cleared) == {MEMORY, DISK}
    assert detect(window, bank, SETTINGS, T0, clearing={DISK}).cleared == (DISK,)
    assert detect(window, bank, SETTINGS, T0, clearing=()).cleared == ()
