"""Values as a person writes them."""

from math import inf, nan

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.domain.ids import ServiceName
from pipeline.domain.telemetry import SIGNAL_TITLE, UNIT_OF, SeriesKey, Signal, Unit, format_value


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0, "0 ms"),
        (0.0004, "0 ms"),
        (0.0421, "42 ms"),
        (0.24, "240 ms"),
        (0.999, "999 ms"),
        (0.9996, "1.0 s"),
        (1.0, "1.0 s"),
        (1.94, "1.9 s"),
        (119.9, "119.9 s"),
        (119.96, "2 min"),
        (120.0, "2 min"),
        (7169.0, "119 min"),
        (7199.0, "2 h"),
        (7200.0, "2 h"),
        (170_000.0, "47 h"),
        (172_799.0, "2 d 0 h"),
        (172_800.0, "2 d 0 h"),
        (187_200.0, "2 d 4 h"),
        (30 * 86_400.0 + 3_599, "30 d 0 h"),
        (-0.24, "-240 ms"),
        (-5.0, "-5.0 s"),
        (-7200.0, "-2 h"),
        (-187_200.0, "-2 d 4 h"),
    ],
)
def test_seconds(value: float, text: str) -> None:
    assert format_value(value, Unit.SECONDS) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0, "0 %"),
        (0.004, "0.4 %"),
        (0.0123, "1.2 %"),
        (0.05, "5.0 %"),
        (0.094, "9.4 %"),
        (0.095, "10 %"),
        (0.1, "10 %"),
        (0.934, "93 %"),
        (1.0, "100 %"),
        (1.5, "150 %"),
        (-0.02, "-2.0 %"),
    ],
)
def test_ratios_are_percent(value: float, text: str) -> None:
    assert format_value(value, Unit.RATIO) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.0, "0.0 /s"), (12.44, "12.4 /s"), (99.9, "99.9 /s"), (99.96, "100 /s"), (100.0, "100 /s"), (1234.5, "1234 /s")],
)
def test_rates(value: float, text: str) -> None:
    assert format_value(value, Unit.PER_SECOND) == text


@pytest.mark.parametrize("unit", Unit)
@pytest.mark.parametrize("value", [nan, inf, -inf])
def test_what_is_no_number_is_said_so(value: float, unit: Unit) -> None:
    assert format_value(value, unit) == "n/a"


@given(st.floats(-1e12, 1e12), st.sampled_from(Unit))
def test_every_number_has_a_short_text_with_its_unit(value: float, unit: Unit) -> None:
    text = format_value(value, unit)
    ends = {Unit.SECONDS: ("ms", "s", "min", "h"), Unit.RATIO: ("%",), Unit.PER_SECOND: ("/s",)}
    assert text.endswith(ends[unit])
    assert len(text) < 25
    assert "e" not in text


@pytest.mark.parametrize("signal", Signal)
def test_every_signal_has_a_unit_and_a_title(signal: Signal) -> None:
    key = SeriesKey(ServiceName("checkout"), signal)
    assert key.unit is UNIT_OF[signal]
    assert key.describe() == f"{SIGNAL_TITLE[signal]} of checkout"
    assert SeriesKey(key.service, signal, "checkout-1").describe().endswith(" of checkout-1")
