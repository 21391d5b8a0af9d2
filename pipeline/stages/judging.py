"""What code thinks of a series: as usual or not, since when, and whether it grows. Pure; no author has a say in it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from math import inf

import numpy as np
import numpy.typing as npt

from pipeline.domain.anomaly import DetectionSettings, bound_for
from pipeline.domain.baseline import BaselineBank, Expectation
from pipeline.domain.diagnosis import Sign
from pipeline.domain.ids import ServiceName
from pipeline.domain.review import SURGE_RATIO
from pipeline.domain.telemetry import Sample, SeriesKey, Signal

FloatArray = npt.NDArray[np.float64]
GROWTH_PER_MIN = 0.002
"""Share of the limit a minute that counts as growth: from 85 % to the limit in 75 minutes."""
LEAST_RISE = {Signal.MEMORY_RATIO: 0.02, Signal.DISK_RATIO: 0.002}
"""Share of the limit that a growth has to come to. A disk has next to no noise."""
NOISE_TIMES = 4.0
"""A rise is no growth unless it is this many times the usual step from one sample to the next."""
LIMIT_AHEAD_MIN = 120.0
"""Growth that reaches the limit within this time is trouble before the bound is crossed."""
BUSY_RATIO, FULL_RATIO = 0.70, 0.95
"""CPU use below the first is never trouble; above the second always, unless it is usual there."""
QUOTA_RATIO = 0.90
STALE_S = 600.0
"""What was measured longer ago says nothing of now. Slow providers tell every five minutes."""
EXCURSION_SAMPLES = 3
"""Samples in a row beyond the bound that make something of the past worth telling."""
REPLACED_S = 14 * 86_400.0
"""A certificate with so much less time than usual is another one."""
PAST_S = 3600.0
"""What ended longer ago is history."""


@dataclass(frozen=True, slots=True)
class Judged:
    """A series as it is now. ``bound``: the line on the side of the newest value, None where there is none.

    ``began``: first sample of the present excursion, or of the last one when it ended at ``ended``. ``whole``: it had
    begun before the first sample that was read.
    """

    key: SeriesKey
    newest: Sample
    expected: Expectation
    bound: float | None
    sign: Sign
    began: datetime | None = None
    ended: datetime | None = None
    peak: float | None = None
    whole: bool = False

    @property
    def ratio(self) -> float | None:
        """Now over what is usual; None without a baseline."""
        usable = self.expected.known and self.expected.mean > 0
        return self.newest.value / self.expected.mean if usable else None


@dataclass(frozen=True, slots=True)
class Growth:
    """A rise of a share of a limit: from ``low`` at ``began`` to ``high``. ``per_min`` while it rose, ``now_per_min``
    over the last ten minutes."""

    key: SeriesKey
    began: datetime
    low: float
    high: float
    per_min: float
    now_per_min: float
    sign: Sign


@dataclass(frozen=True, slots=True)
class Fall:
    """The time a certificate has left, falling since ``began``. ``before``: what it had when another took its place;
    None while it is the same. ``witnessed``: that was seen, and not only told by the baseline."""

    key: SeriesKey
    began: datetime
    before: float | None
    now: float
    minutes: float
    sign: Sign
    witnessed: bool = True


class Judge:
    """Bounds as detection has them, of this bank and at this time."""

    def __init__(
        self,
        bank: BaselineBank,
        settings: DetectionSettings,
        factor: Callable[[ServiceName, Signal], float],
        now: datetime,
    ) -> None:
        self._bank = bank
        self._settings = settings
        self._factor = factor
        self._now = now
        self._lines: dict[tuple[SeriesKey, datetime], tuple[Expectation, float, float]] = {}

    @property
    def now(self) -> datetime:
        return self._now

    def series(self, key: SeriesKey, samples: Sequence[Sample]) -> Judged | None:
        """What is to be said of ``samples`` (oldest first, all finite); None when there are none.

        All are held against the bound of the newest: what was usual hours ago is another question.
        """
        if not samples:
            return None
        newest = samples[-1]
        expected, lower, upper = self._line(key, newest.at)
        bound = _told(lower, upper, newest.value)
        if bound is None or (self._now - newest.at).total_seconds() > STALE_S:
            return Judged(key, newest, expected, bound, Sign.STATED)
        values = _values(samples)
        out = (values > upper) | (values < lower)
        if out[-1] and (len(out) == 1 or out[-2]):
            first = _run_start(out)
            run = values[first:]
            peak = float(run.max() if values[-1] > upper else run.min())
            return Judged(key, newest, expected, bound, Sign.ABNORMAL, samples[first].at, None, peak, whole=first == 0)
        past = _past_run(out)
        if past is None or (newest.at - samples[past[1]].at).total_seconds() > PAST_S:
            return Judged(key, newest, expected, bound, Sign.NORMAL)
        first, last = past
        run = values[first : last + 1]
        peak = float(run.max() if values[first] > upper else run.min())
        return Judged(
            key, newest, expected, bound, Sign.HAPPENED, samples[first].at, samples[last].at, peak, whole=first == 0
        )

    def growth(self, key: SeriesKey, samples: Sequence[Sample]) -> Growth | None:
        """The growth of memory or disk use that led to where it is now; None where it did not grow.

        It begins where the series left the level it had before, judged by the last time it rose through the middle
        between its lowest and its newest value.
        """
        if key.signal not in LEAST_RISE or len(samples) < 5:
            return None
        values = _smooth(_values(samples))
        now = float(values[-1])
        middle = (float(values.min()) + now) / 2
        crossed = int(np.flatnonzero(values <= middle)[-1])
        before = float(np.median(values[: crossed + 1]))
        first = int(np.flatnonzero(values <= before + 0.1 * (now - before))[-1])
        low = float(values[first])
        rise = now - low
        noise = float(np.median(np.abs(np.diff(_values(samples)))))
        higher = now >= float(values[: first + 1].max()) + rise / 2
        bound = self._line(key, samples[-1].at)[2]
        # After a restart a leak comes back no higher than before: over its bound it has grown all the same.
        if rise < max(LEAST_RISE[key.signal], NOISE_TIMES * noise) or not (higher or now > bound):
            return None
        minutes = _minutes(samples)
        top = int(np.flatnonzero(values >= low + 0.95 * rise)[0])
        top = top if top > first else len(values) - 1
        per_min = rise / max(float(minutes[top] - minutes[first]), 1 / 60)
        recent = max(first, int(np.searchsorted(minutes, minutes[-1] - 10.0)))
        now_per_min = slope(samples[recent:])
        return Growth(
            key, samples[first].at, low, now, per_min, now_per_min, self._of_growth(now, per_min, now_per_min, bound)
        )

    def fall(self, key: SeriesKey, samples: Sequence[Sample]) -> Fall | None:
        """Since when a certificate has been running out without a renewal; None for other series."""
        if key.signal is not Signal.CERT_REMAINING or not samples:
            return None
        values, newest = _values(samples), samples[-1]
        expected, bound, _ = self._line(key, newest.at)
        steps = np.diff(values) + np.diff(_minutes(samples)) * 60.0
        # Left to itself it loses a second a second: whatever else it does, another certificate has taken its place.
        changed = np.flatnonzero(np.abs(steps) > 3600.0)
        first = int(changed[-1]) + 1 if changed.size else 0
        before = float(values[first - 1]) if changed.size and values[first] < values[first - 1] else None
        # The baseline follows a certificate that runs out at a distance of days.
        replaced = not changed.size and expected.known and expected.mean - newest.value > REPLACED_S
        return Fall(
            key,
            samples[first].at,
            expected.mean if replaced else before,
            newest.value,
            (newest.at - samples[first].at).total_seconds() / 60,
            Sign.ABNORMAL if newest.value < bound else Sign.NORMAL,
            witnessed=not replaced,
        )

    def _of_growth(self, now: float, per_min: float, now_per_min: float, bound: float) -> Sign:
        if now >= 0.9 * bound:
            return Sign.ABNORMAL
        ahead = now_per_min > 0 and (1.0 - now) / now_per_min <= LIMIT_AHEAD_MIN
        return Sign.ABNORMAL if ahead and min(per_min, now_per_min) >= GROWTH_PER_MIN else Sign.STATED

    def _line(self, key: SeriesKey, at: datetime) -> tuple[Expectation, float, float]:
        """What is expected of a series, its lower and its upper bound; infinite where there is none."""
        line = self._lines.get((key, at))
        if line is None:
            expected = self._bank.expect(key, at)
            line = self._lines[key, at] = (expected, *self._bounds(key, expected))
        return line

    def _bounds(self, key: SeriesKey, expected: Expectation) -> tuple[float, float]:
        signal = key.signal
        if signal is Signal.CPU_RATIO:
            return -inf, _busy(expected)
        if signal is Signal.QUOTA_RATIO:
            return -inf, max(QUOTA_RATIO, expected.upper(3.0)) if expected.known else QUOTA_RATIO
        factor = self._factor(key.service, signal)
        high = bound_for(key, expected, self._settings, factor)
        if high is None or not high.breach_above:
            return (-inf if high is None else high.threshold), inf
        if signal is not Signal.TRAFFIC:
            return -inf, high.threshold
        low = bound_for(key, expected, self._settings, factor, value=-inf)
        usual = expected.mean + expected.excess * expected.sigma
        upper = min(high.threshold, max(SURGE_RATIO * expected.mean, usual))
        return (low.threshold if low is not None and not low.breach_above else -inf), upper


def slope(samples: Sequence[Sample]) -> float:
    """Least-squares growth a minute; 0 of fewer than three samples or of no time."""
    minutes = _minutes(samples)
    if len(samples) < 3 or minutes[-1] <= 0:
        return 0.0
    return float(np.polyfit(minutes, _values(samples), 1)[0])


def window_of(samples: Sequence[Sample], since: datetime) -> Sequence[Sample]:
    """The part at or after ``since``."""
    return [sample for sample in samples if sample.at >= since]


def back_inside(samples: Sequence[Sample], breached: Callable[[float], bool], now: datetime, fresh_s: float) -> bool:
    """Whether a series is well again: it was measured in the last ``fresh_s``, and its last three values are inside."""
    recent = window_of(samples, now - timedelta(seconds=fresh_s))
    return len(recent) >= 2 and not any(breached(sample.value) for sample in recent[-3:])


def _busy(expected: Expectation) -> float:
    if not expected.known:
        return FULL_RATIO
    usual = max(BUSY_RATIO, expected.mean + max(5 * expected.sigma, 0.2))
    return usual if expected.mean >= 0.85 else min(usual, FULL_RATIO)


def _told(lower: float, upper: float, value: float) -> float | None:
    if lower > -inf and (upper == inf or value < lower):
        return lower
    return upper if upper < inf else None


def _run_start(out: npt.NDArray[np.bool_]) -> int:
    """Where the run that lasts to the end began; a single sample inside does not end it."""
    start = len(out) - 1
    for at in range(len(out) - 1, -1, -1):
        if out[at]:
            start = at
        elif at == 0 or not out[at - 1]:
            break
    return start


def _past_run(out: npt.NDArray[np.bool_]) -> tuple[int, int] | None:
    """First and last index of the last run long enough; None without one."""
    length = 0
    if not out.any():
        return None
    for at in range(len(out) - 1, -2, -1):
        if at >= 0 and out[at]:
            length += 1
        elif length >= EXCURSION_SAMPLES:
            return at + 1, at + length
        else:
            length = 0
    return None


def _smooth(values: FloatArray) -> FloatArray:
    """Running median of three; the ends as they are."""
    inner = np.median(np.stack([values[:-2], values[1:-1], values[2:]]), axis=0)
    return np.concatenate([values[:1], inner, values[-1:]])


def _values(samples: Sequence[Sample]) -> FloatArray:
    return np.array([sample.value for sample in samples], dtype=np.float64)


def _minutes(samples: Sequence[Sample]) -> FloatArray:
    if not samples:
        return np.zeros(1)
    return np.array([(sample.at - samples[0].at).total_seconds() / 60 for sample in samples])
