"""Growth towards a limit, looked for at every time scale at once, and the reasons not to believe in it.

A line is laid through the upper envelope of the newest buckets of each scale (Theil–Sen: the median of all pairwise
slopes; its interval from the quantiles of those slopes: Sen 1968, JASA 63). A line counts as growth when the envelope
rises steadily, is rising still and not ever slower, did not come in one step, and stands clear of heights from which
the series has come down before (log rotation, garbage collection, daily cycles).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from math import sqrt

import numpy as np
import numpy.typing as npt

from pipeline.domain.detection.capacity_scales import KEPT, FloatArray, Scales

WINDOW = 24
"""Buckets in a window."""
SHORT_WINDOW = 8
"""Buckets in the window of a scale that is young, or the finest."""
LAST_WINDOW = 5
"""Samples in the window that looks at the last steps before the limit."""
MIN_STEADINESS = 0.5
"""Kendall's tau of the envelope against time."""
MIN_SIGNAL = 4.0
"""The rise over the window, in standard deviations of the envelope around its line."""
MAX_STEP_SHARE = 0.45
"""A window whose rise came to this share between two neighbours is a step, not growth."""
MIN_LATE_SHARE = 0.5
"""The last third of the window must rise at this share of the line's slope."""
MAX_FALL_SHARE = 0.1
"""The newest bucket may lie this share of the rise under the line."""
CLEARANCE = 0.4
"""How far above the heights it came down from before a series must be, as a share of what was left from there."""
MOST_CLEARANCE = 0.6
"""However much those heights vary, no more than this share is asked for."""
PEAKS = 8
"""Heights it came down from that are remembered."""
DROP_SHARE = 0.5
"""A fall of this share of the rise is a clean-up."""
LOOKAHEAD = 3.0
"""A line is followed this many windows ahead, and no further."""
FARTHEST_RISES = 1.7 * LOOKAHEAD
"""How many times its rise from first to last third a window may be from the limit and be worth a closer look."""
NEW_GROWTH = 0.5
"""A line is good for a page this share of its window ahead when the series was quiet for long before,"""
HIGHER_GROWTH = 0.35
"""when it has passed all heights from which it came down,"""
KNOWN_GROWTH = 0.18
"""and when it may be anything: the first cycle of many, say."""
QUIET_S = 86_400.0
"""Quiet for long is this, or twice the window if that is longer: what happens daily has then been seen."""
HISTORY_SCALES = 3
"""How many scales coarser than a window its history is read from."""
CYCLE_WIDTH_S = 3600.0
"""Clean-ups of the last days are looked for in buckets of about this width, whatever the window."""
INTERVAL_SIGMAS = 3.3
"""Half width of the slope's interval: 1.64 (90 %), doubled, because neighbouring samples are not independent."""
MOST_OF_SLOPES = 0.6
"""The interval never takes in more than this share of the slopes: of few samples, the odd one must not decide."""
MAD_TO_SIGMA = 1.4826
UPPER_SHARE = 0.8
"""The share of the envelope's buckets that lie under the line which is followed to the limit."""


@dataclass(frozen=True, slots=True)
class Growth:
    """A line that reaches the limit ``eta_s`` seconds from now, at the earliest ``low_s``, at the latest ``high_s``."""

    eta_s: float
    low_s: float
    high_s: float
    ahead_s: float
    """How far ahead this line is good for a page."""


def growths(scales: Scales, now: float, value: float, usual: float, limit: float) -> list[Growth]:
    """Every growth of the series towards ``limit`` as seen at ``now`` (epoch seconds).

    ``value`` is the newest sample, ``usual`` the middle one of the newest three; both under ``limit``.
    """
    high = scales.high
    found: list[Growth] = []
    # A first look, so that a quiet series costs little: the rise must lead to the limit in a few windows.
    for size, level in ((WINDOW, usual), (SHORT_WINDOW, value), (LAST_WINDOW, value)):
        thirds = (high if size == WINDOW else high[:1] if size == LAST_WINDOW else high)[:, -size:] @ _thirds(size)
        rise = thirds[:, 2] - thirds[:, 0]
        near = (thirds[:, 2] > thirds[:, 1]) & (limit - level <= FARTHEST_RISES * rise)
        if size == SHORT_WINDOW:
            near[1:] &= np.isnan(high[1:, -WINDOW])
        if near.any():
            found += _lines(scales, np.flatnonzero(near), size, now, level, limit, thirds[near])
    return found


def _lines(
    scales: Scales, rows: npt.NDArray[np.int_], size: int, now: float, value: float, limit: float, thirds: FloatArray
) -> list[Growth]:
    third = max(size // 3, 1)
    early, middle, late = thirds.T
    times = scales.ts[rows, -size:] - now
    high = scales.high[rows, -size:]
    spans = times[:, -1] - times[:, 0]
    floor = scales.low[rows, -max(third, 2) : -1].min(1)
    first, second = _pairs(size)
    slopes = (high[:, second] - high[:, first]) / (times[:, second] - times[:, first])
    steadiness = np.sign(slopes).mean(1)
    slopes.sort(axis=1)
    count = slopes.shape[1]
    half = min(INTERVAL_SIGMAS * sqrt(size * (size - 1) * (2 * size + 5) / 18.0), MOST_OF_SLOPES * count) / 2.0
    slope = slopes[:, count // 2]
    slope_low, slope_high = slopes[:, int(count / 2 - half)], slopes[:, int(count / 2 + half)]
    off = high - slope[:, None] * times
    off.sort(axis=1)
    at_now = off[:, size // 2]
    upper = off[:, min(int(UPPER_SHARE * size), size - 1)]
    noise = MAD_TO_SIGMA * np.sort(np.abs(off - at_now[:, None]), axis=1)[:, size // 2]
    rise = slope * spans
    steps = (high[:, 1:] - high[:, :-1]).max(1)
    late_slope = (high[:, -third:].max(1) - high[:, -2 * third : -third].max(1)) / (spans / 3.0)
    # The line may run ahead of a series that slows down: no higher than was seen, no faster than of late.
    left = limit - np.maximum(np.minimum(upper, high[:, -third:].max(1)), value)
    late_slope = np.minimum(late_slope, slope)
    to_come, stretch = _shrinking(middle - early, late - middle, left, spans / 3.0)
    believed = (
        (slope > 0)
        & (value >= floor)
        & (slope_low > 0)
        & (steadiness >= MIN_STEADINESS)
        & (rise >= MIN_SIGNAL * noise)
        & (steps <= MAX_STEP_SHARE * rise)
        & (late_slope >= MIN_LATE_SHARE * slope)
        & (high[:, -1] >= at_now + slope * times[:, -1] - 3.0 * noise - MAX_FALL_SHARE * rise)
        & (left <= LOOKAHEAD * rise)
        & (to_come >= limit - late)
        & ((times[:, 1:] - times[:, :-1]).max(1) <= spans / 3.0)
        & (-times[:, -1] <= spans / 3.0)
    )
    if not believed.any():
        return []
    left = np.maximum(left, 0.0)
    eta = np.fmax(left / np.where(late_slope > 0, late_slope, np.inf), stretch)
    found: list[Growth] = []
    for row in np.flatnonzero(believed)[np.argsort(eta[believed])].tolist():
        # The soonest is told; of the others only those matter that may be worth a page.
        if found and eta[row] > spans[row]:
            continue
        cap, calm = _history(
            scales, int(rows[row]), now + float(times[row, 0]), float(high[row, 0]), float(rise[row]), limit
        )
        if cap is not None and value < cap:
            continue
        eta_s = float(eta[row])
        ahead = NEW_GROWTH if calm else HIGHER_GROWTH if cap is not None else KNOWN_GROWTH
        found.append(
            Growth(
                eta_s=eta_s,
                low_s=float(left[row] / slope_high[row]),
                high_s=max(float(max(limit - at_now[row], left[row]) / slope_low[row]), eta_s),
                ahead_s=ahead * float(spans[row]),
            )
        )
    return found


def _shrinking(
    first: FloatArray, second: FloatArray, left: FloatArray, third_s: FloatArray
) -> tuple[FloatArray, FloatArray]:
    """What growth in shrinking steps still adds (inf: it does not shrink), and the seconds it needs for ``left`` (NaN:
    it does not shrink). ``first`` and ``second`` are its steps, ``third_s`` apart: a geometric series."""
    shrinking = (second < first) & (second > 0)
    ratio = np.where(shrinking, second / np.where(first > 0, first, 1.0), 0.5)
    share = np.where(shrinking, left * (1.0 - ratio) / np.where(second > 0, second * ratio, 1.0), 0.0)
    with np.errstate(divide="ignore", invalid="ignore"):
        needed = np.where(share < 1.0, np.log1p(-share) / np.log(ratio), np.inf) * third_s
    to_come = np.where(shrinking, second * ratio / (1.0 - ratio), np.where(second > 0, np.inf, -np.inf))
    return to_come, np.where(shrinking, needed, np.nan)


def _history(
    scales: Scales, at: int, start: float, level: float, rise: float, limit: float
) -> tuple[float | None, bool]:
    """What lies before a window that begins at ``start`` with ``level``: the height that the series must pass to be
    higher than it has been without coming down again (None when it never fell by a good part of ``rise``, or such
    heights climb to the limit themselves), and whether it was quiet for long."""
    widths_s = scales.widths_s
    cycle = next((k for k, width_s in enumerate(widths_s) if width_s >= CYCLE_WIDTH_S), len(widths_s) - 1)
    cap: float | None = None
    calm = False
    own = min(at + HISTORY_SCALES, len(widths_s) - 1)
    days = max(own, cycle)
    for k in sorted({at, own, days, len(widths_s) - 1}):
        before = scales.ts[k] < start - (widths_s[k] if k > at else 0.0)
        if not before.any():
            continue
        high, low = scales.high[k, before], scales.low[k, before]
        peaks = _peaks([*high.tolist(), level], [*low.tolist(), level], DROP_SHARE * rise)
        reached = _cap([peak for peak in peaks if peak < limit], limit)
        if reached is not None:
            cap = max(reached, cap if cap is not None else reached)
        if k == days:
            long = start - float(scales.ts[k, before][0]) >= max(2.0 * widths_s[at] * WINDOW, QUIET_S)
            calm = long and float(high.max() - low.min()) <= DROP_SHARE * rise
    return cap, calm


def _cap(peaks: Sequence[float], limit: float) -> float | None:
    """What a series that came down from ``peaks`` must pass; None when the next of them would meet the limit."""
    if not peaks:
        return None
    last = peaks[-PEAKS:]
    highest = max(last)
    drift = spread = 0.0
    if len(last) > 3:
        moves = [late - early for early, late in pairwise(last)]
        drift = max(sorted(moves)[len(moves) // 4], 0.0)
        spread = sum(abs(move - drift) for move in moves) / len(moves)
        if last[-1] + drift >= limit:
            return None
    usual = max(last[-1] + drift, highest) + spread
    left = limit - highest
    return highest + min(max(CLEARANCE * left, usual - highest), MOST_CLEARANCE * left)


def _peaks(high: Sequence[float], low: Sequence[float], drop: float) -> list[float]:
    """The heights, oldest first, from which the series fell by ``drop`` or more before it rose by as much."""
    found = []
    top, bottom, falling = -np.inf, np.inf, False
    for up, down in zip(high, low, strict=True):
        if falling:
            bottom = min(bottom, down)
            if up - bottom >= drop:
                falling, top = False, up
        else:
            top = max(top, up)
        if not falling and top - down >= drop:
            found.append(top)
            falling, bottom = True, down
    return found


@cache
def _thirds(size: int) -> FloatArray:
    """(size, 3): the means of the first, the middle and the last third, as a product."""
    third = max(size // 3, 1)
    means = np.zeros((size, 3))
    means[:third, 0] = means[-third:, 2] = 1.0 / third
    means[third:-third, 1] = 1.0 / (size - 2 * third)
    return means


@cache
def _pairs(size: int) -> tuple[npt.NDArray[np.int_], npt.NDArray[np.int_]]:
    first, second = np.triu_indices(size, 1)
    return first, second


assert WINDOW < KEPT
