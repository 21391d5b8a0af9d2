"""Time to breach: when a series that grows (disk, memory, quota) or runs down (certificate) meets its limit.

`forecast` looks at a stored window once; `CapacityDetector` follows a series sample by sample and says when to page.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import isfinite
from statistics import median

import numpy as np
import numpy.typing as npt

from pipeline.domain.detection.capacity_growth import FARTHEST_RISES, Growth, growths
from pipeline.domain.detection.capacity_scales import Scales
from pipeline.domain.detection.clock import ClockCheck

HORIZON_S = 30 * 86_400.0
"""A breach further away than this is not foreseen."""
PAGE_WITHIN_S = 12 * 3600.0
"""A breach further away than this wakes nobody."""
SURE = 3.0
"""The latest end of the interval may be this many times the page's own bound away."""
CONFIRMED_BY = 3
"""Looks in a row that must agree before a page is sent; fewer when there are no more than so many samples left."""
CLEAR_AFTER_S = 26 * 3600.0
"""A page is over when no breach was near for this long: more than a day, or a daily cycle at the limit pages daily."""
CLEAR_DROP = 0.35
"""Or when the series came down by this share of its height and twice what was left to the limit,"""
CLEAR_SAMPLES = 12
"""and stayed there for so many samples."""
LEARNING = 6
"""Samples that show how far apart samples are."""
LOOK_EVERY = 16
LOOK_EVERY_S = 1800.0
"""A quiet series is looked at every so many samples, and at least this often."""
NEARER = 0.9
"""It is looked at sooner when the distance to the limit shrank to this share."""
NEWEST_WHOLE = 512
"""Samples that `forecast` reads one by one; of older ones it reads the extremes of short runs."""

FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Forecast:
    """Seconds until the limit is met, with an interval: all None when no breach is foreseen, 0 from the limit on."""

    eta_s: float | None
    low_s: float | None
    high_s: float | None
    page: bool
    """Soon and sure enough to wake somebody."""


NOTHING = Forecast(None, None, None, False)
REACHED = Forecast(0.0, 0.0, 0.0, True)


def forecast(
    ts: FloatArray,
    values: FloatArray,
    limit: float,
    *,
    falling: bool = False,
    horizon_s: float = HORIZON_S,
    page_within_s: float = PAGE_WITHIN_S,
) -> Forecast:
    """The forecast at the end of a stored series: ``ts`` (n,) epoch seconds, ``values`` (n,), ``limit`` in their unit.

    Not-finite samples are left out; order does not matter; of samples at one time the last counts. ``falling``: the
    limit is below. Under a millisecond a series; thousands of samples are read no finer than they need be.
    """
    known = np.isfinite(ts) & np.isfinite(values)
    ts, values = np.asarray(ts, np.float64)[known], np.asarray(values, np.float64)[known]
    if falling:
        values, limit = -values, -limit
    if len(ts) == 0:
        return NOTHING
    if (ts[1:] <= ts[:-1]).any():
        order = np.argsort(ts, kind="stable")
        ts, values = ts[order], values[order]
        last = np.concatenate((ts[1:] > ts[:-1], [True]))
        ts, values = ts[last], values[last]
    if values[-1] >= limit:
        return REACHED
    if len(ts) < LEARNING:
        return NOTHING
    if limit - values[-1] > FARTHEST_RISES * (values.max() - values.min()):
        return NOTHING  # all it ever rose does not lead there: most series of a fleet cost no more than this
    newest = ts[-NEWEST_WHOLE:]
    period_s = float(np.partition(newest[1:] - newest[:-1], len(newest) // 2 - 1)[len(newest) // 2 - 1])
    ts, values = _thinned(ts, values)
    scales = Scales(period_s)
    scales.fill(ts, values)
    found = growths(scales, float(ts[-1]), float(values[-1]), median(values[-3:].tolist()), limit)
    return _said(found, horizon_s, page_within_s)


class CapacityDetector:
    """Follows one series. ``update`` takes its samples as they come and answers with the forecast after each.

    A page stays raised while the breach is near and until it is over: one growth is one page. NaN, infinities and
    samples that are not newer than the newest are passed over: the answer is the last one, aged.
    """

    def __init__(
        self,
        limit: float,
        *,
        falling: bool = False,
        horizon_s: float = HORIZON_S,
        page_within_s: float = PAGE_WITHIN_S,
    ) -> None:
        if not isfinite(limit):
            raise ValueError(f"the limit must be a finite number, not {limit}")
        self._sign = -1.0 if falling else 1.0
        self._limit = self._sign * limit
        self._horizon_s = horizon_s
        self._page_within_s = page_within_s
        self._first: list[tuple[float, float]] = []
        self._scales: Scales | None = None
        self._period_s = 0.0
        self._recent: list[float] = []
        self._newest = -np.inf
        self._clock = ClockCheck()
        self._looked = -np.inf
        self._distance = np.inf
        self._foreseen = NOTHING
        self._agreeing = 0
        self._paged = False
        self._needed = -np.inf
        self._peak = -np.inf

    def update(self, ts: float, value: float) -> Forecast:
        """Takes the sample ``value`` at ``ts`` (epoch seconds); the forecast as of then."""
        value *= self._sign
        if not isfinite(value) or not isfinite(ts):
            return self._answer(self._newest)
        if ts <= self._newest and not self._clock.was_wrong(ts, self._newest):
            return self._answer(self._newest)
        self._newest = ts
        self._recent = [*self._recent[-2:], value]
        if self._scales is None:
            self._learn(ts, value)
        else:
            self._scales.add(ts, value)
        if value >= self._limit:
            self._foreseen, self._looked = REACHED, ts
            self._paged, self._needed = True, ts
            self._peak = max(self._peak, value)
            return REACHED
        if self._scales is not None and self._due(ts, value):
            self._look(ts, value, self._scales)
        self._settle(ts, value)
        return self._answer(ts)

    def _learn(self, ts: float, value: float) -> None:
        self._first.append((ts, value))
        if len(self._first) >= LEARNING:
            times = [at for at, _ in self._first]
            self._period_s = median(late - early for early, late in pairwise(times))
            self._scales = Scales(self._period_s)
            for at, known in self._first:
                self._scales.add(at, known)

    def _due(self, ts: float, value: float) -> bool:
        if self._foreseen is REACHED:
            return True
        if self._paged:
            every = LOOK_EVERY // 2
        else:
            every = max(1, min(LOOK_EVERY, int(LOOK_EVERY_S / self._period_s))) if self._period_s else 1
        if self._agreeing and not self._paged:
            every = 0
        return ts - self._looked >= every * self._period_s or self._limit - value <= NEARER * self._distance

    def _look(self, ts: float, value: float, scales: Scales) -> None:
        self._looked = ts
        scales.flush()
        self._distance = self._limit - float(np.nanmax(scales.high[0]))
        found = growths(scales, ts, value, sorted(self._recent)[len(self._recent) // 2], self._limit)
        self._foreseen = _said(found, self._horizon_s, self._page_within_s)
        self._agreeing = self._agreeing + 1 if self._foreseen.page else 0

    def _settle(self, ts: float, value: float) -> None:
        """Raises and clears the page."""
        samples_left = (self._foreseen.eta_s or 0.0) / self._period_s if self._period_s else 0.0
        if self._foreseen.page and self._agreeing >= min(CONFIRMED_BY, 1 + int(samples_left / 2.5)):
            self._paged, self._needed = True, ts
        if not self._paged:
            return
        self._peak = max(self._peak, value)
        if self._foreseen.page:
            self._needed = ts
        elif ts - self._needed > CLEAR_AFTER_S or (self._looked == ts and self._fallen()):
            self._paged, self._peak = False, -np.inf

    def _fallen(self) -> bool:
        if self._scales is None:
            return False
        fallen = self._peak - float(np.nanmax(self._scales.high[0, -CLEAR_SAMPLES:]))
        return fallen > max(2.0 * (self._limit - self._peak), CLEAR_DROP * abs(self._peak))

    def _answer(self, ts: float) -> Forecast:
        seen = self._foreseen
        if seen.eta_s is None or seen.low_s is None or seen.high_s is None:
            return Forecast(None, None, None, self._paged)
        aged = ts - self._looked
        return Forecast(
            max(seen.eta_s - aged, 0.0), max(seen.low_s - aged, 0.0), max(seen.high_s - aged, 0.0), self._paged
        )


def _said(found: Sequence[Growth], horizon_s: float, page_within_s: float) -> Forecast:
    """What several growths say together: the one that arrives first is told, any may page."""
    near = [growth for growth in found if growth.eta_s <= horizon_s]
    if not near:
        return NOTHING
    told = min(near, key=lambda growth: growth.eta_s)
    page = any(_pages(growth, page_within_s) for growth in near)
    return Forecast(told.eta_s, min(told.low_s, told.eta_s), max(told.high_s, told.eta_s), page)


def _pages(growth: Growth, page_within_s: float) -> bool:
    soon_s = min(page_within_s, growth.ahead_s)
    return growth.eta_s <= soon_s and growth.high_s <= SURE * soon_s


def _thinned(ts: FloatArray, values: FloatArray) -> tuple[FloatArray, FloatArray]:
    """The newest samples, and of the older ones the highest and the lowest of each run of several."""
    older = len(ts) - NEWEST_WHOLE
    run = older // NEWEST_WHOLE
    if run < 2:
        return ts, values
    cut = older - older % run
    start = older - cut
    folded = values[start:older].reshape(-1, run)
    ends = np.stack((folded.argmax(1), folded.argmin(1)), axis=1)
    ends.sort(axis=1)
    ends += start + np.arange(len(folded))[:, None] * run
    picked = np.concatenate((ends.ravel(), np.arange(older, len(ts))))
    return ts[picked], values[picked]
