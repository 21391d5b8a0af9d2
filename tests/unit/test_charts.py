"""Charts are pictures of the right size, and say in words what they show."""

from __future__ import annotations

import struct

import pytest

from bot.slack.charts import HEIGHT_PX, WIDTH_PX, render_chart
from pipeline.domain.baseline import Expectation
from tests.builders import MEMORY, after, make_case, make_samples, states_of_a_case

EXPECTED = Expectation(mean=0.48, sigma=0.02, weight=500.0, generated=True)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("awaiting", "memory use of checkout-1 93 %, usually 48 %, above its bound of 85 %"),
        (
            "recovered",
            "memory use of checkout-1 93 % → 46 % after the action, usually 48 %, back inside its bound of 85 %",
        ),
        ("cannot-tell", "after the action nobody can tell: no fresh samples since the action"),
    ],
)
async def test_a_chart_is_drawn(name: str, said: str) -> None:
    values = [0.48] * 60 + [0.93] * 30 + [0.46] * 20
    samples = make_samples(MEMORY, [*values, float("nan")], start=after(-600))
    chart = await render_chart(states_of_a_case()[name], samples, EXPECTED)
    assert chart.png.startswith(b"\x89PNG")
    assert struct.unpack(">II", chart.png[16:24]) == (WIDTH_PX, HEIGHT_PX)
    assert said in chart.alt_text
    assert ("→" in chart.alt_text) == (name == "recovered")


async def test_without_a_baseline_and_with_one_sample_it_is_still_drawn() -> None:
    unknown = Expectation(mean=float("nan"), sigma=float("nan"), weight=0.0)
    chart = await render_chart(make_case(), make_samples(MEMORY, [0.9], start=after(0)), unknown)
    assert chart.png.startswith(b"\x89PNG")


async def test_without_samples_there_is_no_chart() -> None:
    with pytest.raises(ValueError, match="no samples"):
        await render_chart(make_case(), make_samples(MEMORY, [float("nan")], start=after(0)), EXPECTED)
