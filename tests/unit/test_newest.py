"""What may leave a source of samples."""

from datetime import UTC, datetime, timedelta
from math import inf, nan

from pipeline.adapters.telemetry.newest import NewestOnly
from pipeline.domain.ids import ServiceName
from pipeline.domain.telemetry import Sample, SeriesKey, Signal

NOW = datetime(2027, 1, 2, 3, 4, tzinfo=UTC)
KEY = SeriesKey(ServiceName("web"), Signal.TRAFFIC)


def at(seconds: float, value: float = 1.0) -> Sample:
    return Sample(KEY, NOW + timedelta(seconds=seconds), value)


def test_a_moment_is_told_once_and_time_does_not_run_back() -> None:
    newest = NewestOnly()
    assert newest.keep([at(0), at(0, 2.0), at(-1)], NOW) == (at(0),)
    assert newest.keep([at(0)], NOW + timedelta(seconds=1)) == ()
    assert newest.keep([at(2)], NOW + timedelta(seconds=2)) == (at(2),)


def test_values_that_are_none_and_stale_ones_are_dropped() -> None:
    assert NewestOnly().keep([at(0, nan), at(0, inf), at(0, -inf), at(-301)], NOW) == ()


def test_a_clock_set_back_by_an_hour_does_not_go_blind() -> None:
    newest = NewestOnly()
    newest.keep([at(0)], NOW)
    assert newest.keep([at(-3600)], NOW - timedelta(hours=1)) == (at(-3600),)
