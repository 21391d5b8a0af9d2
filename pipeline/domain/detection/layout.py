"""How the state of a fleet lies in memory: structure of arrays, and the names of their columns."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

Float64s = npt.NDArray[np.float64]

DAY_S = 86_400.0
WEEK_S = 604_800.0
HOURS = 24

# Columns of `Arrays.hot`: what every point of a series reads and writes.
LAST, COUNT, HELD, LEVEL, MEAN, DRIFT_DAY, DRIFT_WEEK, ERROR_LEVEL, ERROR_DAY, ERROR_WEEK = range(10)
SPREAD, QUANTILE, TAIL, CALM, RUN, SINCE_GAP, OVER, ORIGIN, FIRST = range(10, 19)
LATE_RUN = 19
DAY_BIN, DAY_SUM, DAY_COUNT, DAY_UP, DAY_DOWN = range(20, 25)
WEEK_BIN, WEEK_SUM, WEEK_COUNT, WEEK_UP, WEEK_DOWN = range(25, 30)
SMOOTH, SMOOTH_QUANTILE, SMOOTH_TAIL, HABIT = range(30, 34)
HOT_SIZE = 34

# Why a value was passed over; columns of `Arrays.ignored`.
NOT_FINITE, LATE, DUPLICATE, FUTURE = range(4)
REASONS = 4


class Arrays(NamedTuple):
    """The state of ``n`` series. Profiles lie [bin, series]: one step of a fleet reads memory in order."""

    hot: Float64s
    """[n, HOT_SIZE]"""
    day: npt.NDArray[np.float32]
    """[day slots, n] mean by time of day, less the series' origin; NaN: never seen."""
    week: npt.NDArray[np.float32]
    """[week slots, n] mean by hour of week, less the origin; NaN: never seen."""
    spread: npt.NDArray[np.float32]
    """[HOURS, n] mean absolute surprise by hour of day."""
    day_jumps: npt.NDArray[np.uint8]
    """[2 * day slots, n] how far past days went above (even rows) and below (odd) the expected: `lane.jump_code`."""
    week_jumps: npt.NDArray[np.uint8]
    """[2 * week slots, n] the same by hour of week."""
    novelty: Float64s
    """[m, NOVELTY_SIZE] rows of the novelty lane, for the series that have one."""
    lane: npt.NDArray[np.int32]
    """[n] the series' row in ``novelty``; -1: it has none."""
    ignored: npt.NDArray[np.int64]
    """[REASONS] values passed over, of all series."""


# The numbers of the lane for one sampling period, in one array. Memories are in points, shares are of 1.
LEVEL_MEMORY, DRIFT_MEMORY, ERROR_MEMORY, MEAN_MEMORY, SPREAD_MEMORY = range(5)
TAIL_MEMORY, DAY_RATE, WEEK_RATE, CLIP_SIGMAS = range(5, 9)
SPREAD_CLIP, RUN_POINTS, HOUR_SHARE, FLOOR_SHARE, TAIL_QUANTILE = range(9, 14)
QUANTILE_RATE, TAIL_CAP, TAIL_MAX, CALM_POINTS, JUMP_RATE_DAY = range(14, 19)
JUMP_RATE_WEEK, JUMP_FACTOR, THRESHOLD, GAP_S, WARM_POINTS = range(19, 24)
WARM_S, DAY_SLOTS, WEEK_SLOTS, INTERPOLATE = range(24, 28)
SMOOTH_MEMORY, SMOOTH_CLIP, SMOOTH_BONUS, PERIOD_S = range(28, 32)
HABIT_FREE, HABIT_WEIGHT, HABIT_FADE = range(32, 35)
TUNING_SIZE = 35

# Columns of the gates, one row a kind: what a series of that kind must show, at least, to page.
UPWARD, DOWNWARD, EFFECT, SHARE, SIGMAS, SUSTAIN = range(6)
NOVEL = 6
"""1: the kind is looked at by the novelty lane, at this sampling period."""
GATE_SIZE = 7
