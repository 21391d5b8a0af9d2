"""A fleet: the same numbers as one series, rows that come later, what is expected, and the way to bytes and back."""

from __future__ import annotations

import json

import numpy as np
import numpy.typing as npt
import pytest

from pipeline.domain.detection import state
from pipeline.domain.detection.fleet import FleetDetector, SeriesDetector
from pipeline.domain.detection.kinds import KINDS
from pipeline.domain.errors import ConfigurationError, PermanentError

MONDAY = 1_750_032_000.0
MINUTE = 60.0
HOUR = 3600.0
Floats = npt.NDArray[np.float64]


def wave(steps: int, rows: int, period_s: float = MINUTE) -> tuple[Floats, Floats]:
    """Times [steps] and values [steps, rows]: a daily wave with noise, a few surges and holes."""
    rng = np.random.default_rng(2)
    ts = MONDAY + period_s * np.arange(steps)
    shape = 1.0 + 0.4 * np.sin(2 * np.pi * ts / 86_400.0)
    values = shape[:, None] * 10.0 ** np.arange(rows) * (1.0 + 0.05 * rng.normal(size=(steps, rows)))
    values[rng.random(values.shape) < 0.01] = np.nan
    values[-20:-10] *= 4.0
    return ts, values


def streamed(fleet: FleetDetector, ts: Floats, values: Floats) -> Floats:
    return np.array([fleet.step(at, row)[0] for at, row in zip(ts, values, strict=True)])


@pytest.mark.parametrize("period_s", [MINUTE, HOUR, None])
def test_each_row_scores_as_the_series_alone(period_s: float | None) -> None:
    ts, values = wave(2000, len(KINDS), period_s or MINUTE)
    scores = streamed(FleetDetector(KINDS, period_s), ts, values)
    for row, kind in enumerate(KINDS):
        alone, _ = SeriesDetector(kind, period_s).replay(ts, values[:, row])
        assert scores[:, row].tolist() == alone.tolist()
    assert (scores >= 0.5).any()


def test_anomalies_are_the_scores_from_a_half() -> None:
    ts, values = wave(2000, 2)
    fleet = FleetDetector(2, MINUTE)
    for at, row in zip(ts, values, strict=True):
        scores, anomalies = fleet.step(at, row)
        assert anomalies.tolist() == (scores >= 0.5).tolist()


@pytest.mark.parametrize("period_s", [MINUTE, HOUR, None])
def test_a_row_added_later_changes_no_other(period_s: float | None) -> None:
    ts, values = wave(900, 6, period_s or MINUTE)
    whole, growing = FleetDetector(6, period_s), FleetDetector(2, period_s)
    expected = streamed(whole, ts, values)
    first = streamed(growing, ts[:5], values[:5, :2])
    growing.add(["generic"])
    streamed(growing, ts[5:500], values[5:500, :3])
    for _ in range(3):
        growing.add(["generic"])
    rest = streamed(growing, ts[500:], values[500:])
    assert len(growing) == 6
    assert first.tolist() == expected[:5, :2].tolist()
    assert rest[:, :2].tolist() == expected[500:, :2].tolist()
    late, _ = SeriesDetector("generic", period_s or MINUTE).replay(ts[500:], values[500:, 5])
    assert rest[:, 5].tolist() == late.tolist()


@pytest.mark.parametrize("learned", [3, 5000])
@pytest.mark.parametrize("period_s", [MINUTE, HOUR, None])
def test_a_checkpoint_goes_on_where_it_stopped(period_s: float | None, learned: int) -> None:
    ts, values = wave(learned + 100, 3, period_s or MINUTE)
    fleet = FleetDetector(["latency", "generic", "traffic"], period_s, zone="Europe/Berlin")
    streamed(fleet, ts[:learned], values[:learned])
    again = FleetDetector.restore(fleet.checkpoint())
    assert (
        streamed(again, ts[learned:], values[learned:]).tolist()
        == streamed(fleet, ts[learned:], values[learned:]).tolist()
    )
    assert again.checkpoint() == fleet.checkpoint()
    again.add(["disk"])
    assert len(again.step(ts[-1] + 60.0, [1.0, 1.0, 1.0, 1.0])[0]) == 4


def test_state_of_another_kind_is_refused_with_advice(monkeypatch: pytest.MonkeyPatch) -> None:
    data = FleetDetector(2, MINUTE).checkpoint()
    with pytest.raises(PermanentError, match="no detection state"):
        FleetDetector.restore(b"something else")
    with pytest.raises(PermanentError, match="cut off"):
        FleetDetector.restore(data[:-1])
    with pytest.raises(PermanentError, match="header"):
        FleetDetector.restore(data[: len(state.MAGIC) + 10])
    monkeypatch.setattr(state, "VERSION", state.VERSION + 1)
    with pytest.raises(PermanentError, match="version 1, this program reads version 2"):
        FleetDetector.restore(data)


def test_state_with_strange_settings_is_refused() -> None:
    data = FleetDetector(0, MINUTE).checkpoint()
    head, body = data[len(state.MAGIC) :].split(b"\n", 1)
    header = json.loads(head)
    header["settings"]["period_s"] = "often"
    with pytest.raises(PermanentError, match="settings"):
        FleetDetector.restore(state.MAGIC + json.dumps(header).encode() + b"\n" + body)


def test_what_is_expected_follows_the_hour() -> None:
    ts = MONDAY + MINUTE * np.arange(10 * 1440)
    rng = np.random.default_rng(4)
    shape = 100.0 + 50.0 * np.sin(2 * np.pi * ts / 86_400.0)
    fleet = FleetDetector(2, MINUTE)
    before = fleet.expected(MONDAY)
    assert np.isnan(before.mean).all()
    assert before.weight.tolist() == [0.0, 0.0]
    noise = rng.normal(scale=2.0, size=len(ts))
    values = np.stack([shape + noise, np.full(len(ts), np.nan)], axis=1)
    fleet.judge_into(ts, values, np.zeros(values.shape))
    now = fleet.expected()
    assert now.mean[0] == pytest.approx(shape[-1], abs=5.0)
    assert now.sigma[0] == pytest.approx(2.0, rel=0.5)
    assert now.weight.tolist() == [float(len(ts)), 0.0]
    assert np.isnan(now.mean[1])


def test_a_row_takes_no_more_than_two_and_a_half_kilobytes() -> None:
    for period_s in (10.0, MINUTE, 300.0, HOUR):
        small, large = (len(FleetDetector(rows, period_s).checkpoint()) for rows in (100, 1100))
        assert (large - small) / 1000 <= 2500


def test_a_step_needs_one_value_a_row() -> None:
    with pytest.raises(ConfigurationError, match="2 rows"):
        FleetDetector(2, MINUTE).step(MONDAY, [1.0])
