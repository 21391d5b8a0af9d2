"""Flags to pages, and pages against labels."""

from __future__ import annotations

from itertools import pairwise
from math import isnan

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.domain.detection.pages import MERGE_S, RESEND_S, Page, Quality, judge, pages, pooled

HOUR = 3600.0
DAY = 86_400.0


def sent_at(*at: float) -> list[Page]:
    return [Page(start, start, (start,)) for start in at]


def test_flags_close_together_are_one_page() -> None:
    assert pages([0.0, 60.0, 120.0, 1920.0, 3721.0], [True, False, True, True, True]) == [
        Page(0.0, 1920.0, (0.0,)),
        Page(3721.0, 3721.0, (3721.0,)),
    ]


def test_a_long_run_is_sent_again_every_four_hours() -> None:
    ts = 60.0 * np.arange(10 * 60)
    (page,) = pages(ts, np.ones(len(ts), dtype=bool))
    assert page.sent == (0.0, 4 * HOUR, 8 * HOUR)
    assert page.stretches() == [(0.0, 4 * HOUR), (4 * HOUR, 8 * HOUR), (8 * HOUR, ts[-1])]


def test_no_flags_no_pages() -> None:
    assert pages([1.0, 2.0], [False, False]) == []
    assert pages([], []) == []


@given(st.lists(st.booleans(), max_size=300), st.floats(60.0, 7200.0))
def test_every_flag_is_in_a_run_and_runs_lie_apart(flags: list[bool], period_s: float) -> None:
    ts = period_s * np.arange(len(flags))
    found = pages(ts, flags)
    for at, flag in zip(ts, flags, strict=True):
        assert not flag or sum(page.start <= at <= page.end for page in found) == 1
    for earlier, later in pairwise(found):
        assert later.start - earlier.end > MERGE_S
    for page in found:
        assert page.sent[0] == page.start
        assert all(b - a >= RESEND_S for a, b in pairwise(page.sent))


def test_pages_are_true_when_they_meet_a_label() -> None:
    labels = [(1000.0, 2000.0), (50_000.0, 51_000.0), (80_000.0, 80_060.0)]
    quality = judge(sent_at(1300.0, 2300.0, 2301.0, 49_700.0), labels, since=0.0, until=DAY)
    assert (quality.sent, quality.true, quality.events, quality.touched) == (4, 3, 3, 2)
    assert quality.precision == pytest.approx(3 / 4)
    assert quality.recall == pytest.approx(2 / 3)
    assert quality.f1 == pytest.approx(2 * 0.75 * (2 / 3) / (0.75 + 2 / 3))
    assert quality.delays_s == (300.0, 0.0)
    assert quality.delay_s == 150.0
    assert quality.false_pages_per_day == pytest.approx(1.0)


def test_each_sending_counts_for_its_own_stretch() -> None:
    run = Page(0.0, 9 * HOUR, (0.0, 4 * HOUR, 8 * HOUR))
    quality = judge([run], [(5 * HOUR, 5.5 * HOUR)], since=0.0, until=DAY)
    assert (quality.sent, quality.true, quality.touched) == (3, 1, 1)
    assert quality.delays_s == (0.0,)


def test_history_is_left_out() -> None:
    quality = judge(sent_at(10.0, 5000.0), [(0.0, 20.0), (4990.0, 5010.0)], since=1000.0, until=1000.0 + DAY)
    assert (quality.sent, quality.true, quality.events, quality.touched, quality.days) == (1, 1, 1, 1, 1.0)


def test_nothing_to_judge_is_no_number() -> None:
    nothing = judge([], [], since=0.0, until=0.0)
    for share in (nothing.precision, nothing.recall, nothing.f1, nothing.delay_s, nothing.false_pages_per_day):
        assert isnan(share)
    assert judge([], [(1.0, 2.0)], since=0.0, until=DAY).f1 == 0.0


def test_series_are_pooled_by_adding_up() -> None:
    one = Quality(sent=2, true=1, events=1, touched=1, days=1.0, delays_s=(60.0,))
    two = Quality(sent=0, true=0, events=3, touched=0, days=2.0, delays_s=())
    both = pooled([one, two])
    assert (both.precision, both.recall, both.delay_s) == (0.5, 0.25, 60.0)
    assert both.false_pages_per_day == pytest.approx(1 / 3)
    assert pooled([]).days == 0.0
    assert isnan(pooled([]).f1)
