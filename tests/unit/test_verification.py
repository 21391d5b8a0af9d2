"""Did it help? Success needs fresh samples inside the bound; all else is a failure or an open question."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.domain.anomaly import Bound
from pipeline.domain.telemetry import Sample, SeriesKey, Signal, Unit
from pipeline.domain.verification import MIN_SPAN, Verdict, Verification, VerificationSettings, verify
from tests.builders import CHECKOUT, LATENCY, MEMORY, T0, make_samples, make_verification

SETTINGS = VerificationSettings()
TRAFFIC = SeriesKey(CHECKOUT, Signal.TRAFFIC)
STEP_S = 10.0
BOUND = {MEMORY: Bound(0.85), LATENCY: Bound(0.42)}
GOOD, BAD, NAN = 0.2, 0.95, float("nan")


def since_action(values: Sequence[float], key: SeriesKey = MEMORY) -> list[Sample]:
    """Samples every 10 s, the first one 10 s after the action at T0."""
    return make_samples(key, values, start=T0 + timedelta(seconds=STEP_S), step_s=STEP_S)


FLOWING = since_action([12.0] * 200, TRAFFIC)


def judged(fresh: Sequence[Sample], waited_s: float, **changes: Any) -> Verification:
    """The verdict ``waited_s`` after the action, on what was there by then."""
    now = T0 + timedelta(seconds=waited_s)
    key = changes.get("key", MEMORY)
    values: dict[str, Any] = {
        "key": key,
        "before": 0.93,
        "expected": 0.48,
        "bound": BOUND.get(key),
        "fresh": [sample for sample in fresh if sample.at <= now],
        "traffic": [sample for sample in FLOWING if sample.at <= now],
        "applied_at": T0,
        "now": now,
        "settings": SETTINGS,
        **changes,
    }
    return verify(**values)


def test_recovered_when_it_held_inside_the_bound() -> None:
    found = judged(since_action([GOOD] * 11 + [0.25]), 120)
    assert found.verdict is Verdict.RECOVERED
    assert (found.before, found.after, found.expected, found.samples) == (0.93, 0.25, 0.48, 12)
    assert (found.unit, found.bound, found.took_s) == (Unit.RATIO, Bound(0.85), 120)
    assert found.at == T0 + timedelta(seconds=120)


def test_it_has_to_hold_for_its_whole_time() -> None:
    values = [GOOD] * 60
    assert judged(since_action(values), 119).verdict is Verdict.PENDING
    assert judged(since_action([BAD] * 5 + values), 170).verdict is Verdict.PENDING
    assert judged(since_action([BAD] * 5 + values), 171).verdict is Verdict.RECOVERED


def test_too_few_samples_prove_nothing() -> None:
    every_50_s = make_samples(MEMORY, [GOOD] * 20, start=T0 + timedelta(seconds=50), step_s=50)
    assert judged(every_50_s, 149).verdict is Verdict.PENDING
    every_40_s = make_samples(MEMORY, [GOOD] * 4, start=T0 + timedelta(seconds=40), step_s=40)
    assert judged(every_40_s, 120).verdict is Verdict.PENDING, "80 s are seen of 120"
    assert judged(every_40_s, 160).verdict is Verdict.RECOVERED
    sparse = make_samples(MEMORY, [GOOD] * 20, start=T0 + timedelta(seconds=70), step_s=70)
    assert judged(sparse, 400).verdict is Verdict.PENDING
    found = judged(sparse, 600)
    assert found.verdict is Verdict.INCONCLUSIVE
    assert "too few" in found.reason
    assert judged(every_50_s, 150, settings=replace(SETTINGS, min_samples=2)).verdict is Verdict.RECOVERED


def test_not_recovered_only_when_the_time_is_over() -> None:
    still = since_action([BAD] * 100)
    assert judged(still, 599).verdict is Verdict.PENDING
    found = judged(still, 600)
    assert found.verdict is Verdict.NOT_RECOVERED
    assert (found.after, found.took_s) == (BAD, 600)
    assert "600 s" in found.reason


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ([], "no fresh samples"),
        ([NAN] * 60, "no fresh samples"),
        ([float("inf")] * 60, "no fresh samples"),
        ([GOOD] * 10, "no fresh samples"),
        ([BAD] * 10, "no fresh samples"),
        ([GOOD] * 30 + [NAN] * 30, "no fresh samples"),
        ([BAD, BAD, BAD, GOOD] * 15, "in and out"),
    ],
    ids=["none", "NaN", "infinite", "stale and good", "stale and bad", "good, then blind", "flapping"],
)
def test_inconclusive_is_neither_success_nor_failure(values: list[float], reason: str) -> None:
    found = judged(since_action(values), 600)
    assert found.verdict is Verdict.INCONCLUSIVE
    assert reason in found.reason


def test_silence_after_a_good_start_is_no_success() -> None:
    fresh = make_samples(MEMORY, [GOOD] * 3, start=T0 + timedelta(seconds=5), step_s=5)
    assert judged(fresh, 120).verdict is Verdict.PENDING
    found = judged(fresh, 600)
    assert found.verdict is Verdict.INCONCLUSIVE
    assert found.reason == "no fresh samples: the newest is 585 s old"


def test_silence_after_a_bad_start_is_no_failure() -> None:
    until_520_s = since_action([BAD] * 52)
    found = judged(until_520_s, 600)
    assert (found.verdict, found.reason) == (Verdict.INCONCLUSIVE, "no fresh samples: the newest is 80 s old")
    every_70_s = make_samples(MEMORY, [BAD] * 8, start=T0 + timedelta(seconds=30), step_s=70)
    assert judged(every_70_s, 600).verdict is Verdict.NOT_RECOVERED, "80 s are little for a series every 70 s"


def test_a_burst_of_samples_is_no_time() -> None:
    fresh = make_samples(MEMORY, [GOOD] * 3, start=T0 + timedelta(seconds=118), step_s=1)
    assert judged(fresh, 121).verdict is Verdict.PENDING


def test_a_short_hold_with_quick_samples_recovers() -> None:
    quick = replace(SETTINGS, hold_s=14, deadline_s=90)
    fresh = make_samples(MEMORY, [GOOD] * 40, start=T0 + timedelta(seconds=4), step_s=2)
    assert judged(fresh, 12, settings=quick).verdict is Verdict.PENDING
    assert judged(fresh, 15, settings=quick).verdict is Verdict.RECOVERED


def test_flapping_is_never_recovered() -> None:
    for at in range(70):
        assert judged(since_action([GOOD, GOOD, GOOD, BAD] * 20), at * STEP_S).verdict is not Verdict.RECOVERED


def test_nothing_measured_shows_as_nothing() -> None:
    found = judged([], 600)
    assert (found.after, found.samples) == (None, 0)
    assert found.sentence() == "memory use of checkout-1 93 % → no samples"


def test_samples_from_before_the_action_count_for_nothing() -> None:
    before = make_samples(MEMORY, [GOOD] * 60, start=T0 - timedelta(seconds=590), step_s=10)
    assert before[-1].at == T0
    for waited_s, verdict in ((120, Verdict.PENDING), (600, Verdict.INCONCLUSIVE)):
        found = judged(before, waited_s)
        assert (found.verdict, found.samples, found.after) == (verdict, 0, None)
    bad_before = make_samples(MEMORY, [BAD] * 60, start=T0 - timedelta(seconds=590), step_s=10)
    assert judged([*bad_before, *since_action([GOOD] * 12)], 120).verdict is Verdict.RECOVERED


def test_a_gap_of_nan_in_good_samples_is_bridged() -> None:
    assert judged(since_action([GOOD, NAN] * 6), 120).verdict is Verdict.RECOVERED


def test_requests_prove_something_only_with_traffic() -> None:
    fast = since_action([GOOD] * 60, LATENCY)
    assert judged(fast, 120, key=LATENCY).verdict is Verdict.RECOVERED
    before = make_samples(TRAFFIC, [12.0] * 9, start=T0 - timedelta(seconds=80))
    for silent in ([], before, since_action([0.0] * 60, TRAFFIC), since_action([NAN] * 60, TRAFFIC)):
        assert judged(fast, 120, key=LATENCY, traffic=silent).verdict is Verdict.PENDING
        found = judged(fast, 600, key=LATENCY, traffic=silent)
        assert (found.verdict, found.reason) == (Verdict.INCONCLUSIVE, "no traffic in the last 120 s")
    trickle = since_action([0.1] * 60, TRAFFIC)
    assert judged(fast, 120, key=LATENCY, traffic=trickle).verdict is Verdict.RECOVERED
    slow = since_action([BAD] * 60, LATENCY)
    assert judged(slow, 600, key=LATENCY, traffic=[]).verdict is Verdict.INCONCLUSIVE
    assert judged(slow, 600, key=LATENCY).verdict is Verdict.NOT_RECOVERED


def test_traffic_must_flow_now_and_not_once() -> None:
    fast = since_action([GOOD] * 60, LATENCY)
    once = since_action([12.0] + [0.0] * 60, TRAFFIC)
    assert judged(fast, 400, key=LATENCY, traffic=once).verdict is Verdict.PENDING
    assert judged(fast, 600, key=LATENCY, traffic=once).verdict is Verdict.INCONCLUSIVE


def test_memory_needs_no_traffic() -> None:
    assert judged(since_action([GOOD] * 12), 120, traffic=[]).verdict is Verdict.RECOVERED


def test_a_bound_from_below() -> None:
    cert = SeriesKey(CHECKOUT, Signal.CERT_REMAINING, "checkout-1")
    week = Bound(604_800.0, breach_above=False)
    renewed, expiring = ([days * 86_400.0] * 60 for days in (90, 3))
    assert judged(since_action(renewed, cert), 120, key=cert, bound=week).verdict is Verdict.RECOVERED
    assert judged(since_action(expiring, cert), 600, key=cert, bound=week).verdict is Verdict.NOT_RECOVERED


VALUES = st.lists(st.sampled_from([GOOD, BAD, NAN]), max_size=70)


@given(VALUES, st.floats(0, 700), st.sampled_from([MEMORY, LATENCY]), st.booleans())
def test_no_verdict_says_more_than_was_measured(
    values: list[float], waited_s: float, key: SeriesKey, flowing: bool
) -> None:
    traffic = since_action([12.0 if flowing else 0.0] * 70, TRAFFIC)
    found = judged(since_action(values, key), waited_s, key=key, traffic=traffic)
    seen = values[: int(waited_s / STEP_S)]
    lately = [value for at, value in enumerate(seen, 1) if waited_s - at * STEP_S <= SETTINGS.hold_s and value == value]
    reported = [at * STEP_S for at, value in enumerate(seen, 1) if waited_s - at * STEP_S <= 120 and value == value]
    match found.verdict:
        case Verdict.RECOVERED:
            assert waited_s >= SETTINGS.hold_s
            assert set(lately) == {GOOD}
            assert len(lately) >= SETTINGS.min_samples
            assert max(reported) - min(reported) >= MIN_SPAN * SETTINGS.hold_s
            assert flowing or key is MEMORY
        case Verdict.NOT_RECOVERED:
            assert waited_s >= SETTINGS.deadline_s
            assert lately[-1] == BAD
        case Verdict.PENDING:
            assert waited_s < SETTINGS.deadline_s
        case Verdict.INCONCLUSIVE:
            assert waited_s >= SETTINGS.deadline_s
    assert judged(since_action(values, key), waited_s, key=key, traffic=traffic).reason == found.reason


def test_the_sentence() -> None:
    found = make_verification(key=LATENCY, unit=Unit.SECONDS, before=1.9, after=0.24)
    assert found.sentence() == "p99 latency of checkout 1.9 s → 240 ms"
