"""What may leave a source of samples."""

from datetime import UTC, datetime, timedelta
from math import inf, nan

from pipeline.adapters.telemetry.newest import NewestOnly, Sifted
from pipeline.domain.ids import ServiceName
from pipeline.domain.telemetry import Sample, SeriesKey, Signal

NOW = datetime(2027, 1, 2, 3, 4, tzinfo=UTC)
KEY = SeriesKey(ServiceName("web"), Signal.TRAFFIC)


def at(seconds: float, value: float = 1.0) -> Sample:
    return Sample(KEY, NOW + timedelta(seconds=seconds), value)


def test_a_moment_is_told_once_and_time_does_not_run_back() -> None:
    newest = NewestOnly()
    assert newest.sift([at(-1), at(0), at(0, 2.0)], NOW) == Sifted((at(-1), at(0, 2.0)), {"twice in one reading": 1})
    assert newest.sift([at(0), at(-1)], NOW + timedelta(seconds=1)) == Sifted((), {"out of order": 1})
    assert newest.sift([at(2)], NOW + timedelta(seconds=2)) == Sifted((at(2),), {})


def test_values_that_are_none_and_those_of_another_time_are_counted_and_dropped() -> None:
    found = NewestOnly().sift([at(0, nan), at(0, inf), at(0, -inf), at(-301), at(301)], NOW)
    assert found == Sifted((), {"not finite": 3, "too old": 1, "from the future": 1})


def test_a_clock_set_back_by_an_hour_does_not_go_blind() -> None:
    newest = NewestOnly()
    newest.sift([at(0)], NOW)
    assert newest.sift([at(-3600)], NOW - timedelta(hours=1)).samples == (at(-3600),)
