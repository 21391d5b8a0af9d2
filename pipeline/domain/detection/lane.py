"""The parts of the pager lane: what each does with the numbers of one series."""

from __future__ import annotations

from math import exp, floor, isnan, log, log2, log10

from pipeline.domain.detection import layout as lay
from pipeline.domain.detection.compiled import compiled
from pipeline.domain.detection.layout import Arrays, Float64s

LN2 = 0.6931471805599453
MAD_TO_SIGMA = 1.2533
"""sqrt(pi / 2): standard deviation of a normal distribution over its mean absolute deviation."""
LEAST_QUANTILE = 1.5
LEAST_SMOOTH_QUANTILE = 0.5
"""Sigmas under which the upper quantile is never taken, of single points and of smoothed ones."""
LEAST_TAIL = 0.05
BELOW = 0.49
"""The highest score of a point that does not page."""
WARM_TAIL_POINTS = 200.0
"""Points before the tail is learned from: the first predictions are wide of the mark."""
YOUNG_POINTS = 30.0
"""Points before surprises are clipped."""
SETTLED_POINTS = 3.0
"""Points after a gap before a series may page."""
LARGEST = 1e30
"""A value beyond this is taken for no value: the profiles are 32-bit numbers."""
LATE_LIMIT = 30.0
"""So many values in a row behind the newest: it is the newest that had the wrong time."""
FLAT_SUSTAIN = 3.0
"""Points in a row that a series without spread must stay away from its constant."""
LEAST_JUMP = 3.0
"""Sigmas below which a surprise is no jump."""
JUMP_FADE = 0.2
"""Share by which a remembered jump fades each time it does not come again."""


@compiled
def jump_code(sigmas: float) -> float:
    """A jump as 0..255 on a log scale: 12 steps an octave above 1 sigma, up to 2.5 million sigmas."""
    return min(255.0, floor(12.0 * log2(1.0 + max(sigmas, 0.0)) + 0.5))


@compiled
def jump_sigmas(code: float) -> float:
    return exp(code * LN2 / 12.0) - 1.0


@compiled
def blended(level: float, level_error: float, day: float, day_error: float, week: float, week_error: float) -> float:
    """The three predictions, each by the inverse fourth power of its recent error; NaN: has nothing to say."""
    weight = 1.0 / (level_error * level_error * level_error * level_error + 1e-200)
    total, weights = weight * level, weight
    if not isnan(day):
        weight = 1.0 / (day_error * day_error * day_error * day_error + 1e-200)
        total += weight * day
        weights += weight
    if not isnan(week):
        weight = 1.0 / (week_error * week_error * week_error * week_error + 1e-200)
        total += weight * week
        weights += weight
    return total / weights


@compiled
def between(here: float, there: float, share: float) -> float:
    """``share`` of the way from ``here`` to ``there``; ``here`` when the other is unknown."""
    return here if isnan(there) else here + share * (there - here)


@compiled
def slot(share: float, bins: int, interpolate: float) -> tuple[int, int, float]:
    """For a ``share`` of the day or week: its bin, the bin on the nearer side, and how far to lean to that one."""
    at = share * bins
    index = min(int(at), bins - 1)  # a time just before 1970 has a share of 1.0
    beside = at - index - 0.5
    return index, (index + (1 if beside > 0.0 else -1)) % bins, abs(beside) * interpolate


@compiled
def rarity_of(distance: float, quantile: float, tail: float, tail_quantile: float) -> float:
    """-log10 of the probability of so large a distance: Hill's tail estimate beyond an upper quantile.

    Hill, "A simple general approach to inference about the tail of a distribution", Annals of Statistics 3 (1975).
    """
    at_quantile = -log10(1.0 - tail_quantile)
    if distance <= quantile:
        return at_quantile * distance / quantile
    return at_quantile + log10(distance / quantile) / tail


@compiled
def learned_tail(distance: float, quantile: float, tail: float, least: float, tuning: Float64s) -> tuple[float, float]:
    """The upper quantile and Hill's estimate after one more distance; the quantile never below ``least``."""
    if distance > quantile:
        excess = min(log(distance / quantile), tuning[lay.TAIL_CAP])
        tail = min(max(tail + (excess - tail) / tuning[lay.TAIL_MEMORY], LEAST_TAIL), tuning[lay.TAIL_MAX])
        quantile *= exp(tuning[lay.QUANTILE_RATE] * tuning[lay.TAIL_QUANTILE])
    else:
        quantile *= 1.0 - tuning[lay.QUANTILE_RATE] * (1.0 - tuning[lay.TAIL_QUANTILE])
    return max(quantile, least), tail


@compiled
def resume(hot: Float64s, i: int, value: float, day: float) -> None:
    """After a gap the old level says nothing: the day's profile does, or else the first value seen."""
    hot[i, lay.LEVEL] = hot[i, lay.MEAN] = value if isnan(day) else day
    hot[i, lay.SINCE_GAP] = hot[i, lay.OVER] = hot[i, lay.HELD] = 0.0


@compiled
def begin(hot: Float64s, i: int, ts: float, value: float) -> None:
    hot[i, lay.FIRST] = hot[i, lay.LAST] = ts
    hot[i, lay.ORIGIN] = hot[i, lay.LEVEL] = hot[i, lay.MEAN] = value
    hot[i, lay.QUANTILE], hot[i, lay.TAIL] = 2.5, 0.3
    hot[i, lay.SMOOTH_QUANTILE], hot[i, lay.SMOOTH_TAIL] = 1.5, 0.3
    hot[i, lay.DAY_BIN] = hot[i, lay.WEEK_BIN] = -1.0


@compiled
def timely(a: Arrays, i: int, ts: float, value: float, gap_s: float) -> bool:
    """Whether a value can be used; if not, it is counted. The first after a long gap only announces the next: alone it
    may be from a clock that runs ahead, and would make all that follow late."""
    hot = a.hot
    if not abs(value) <= LARGEST:
        a.ignored[lay.NOT_FINITE] += 1
        return False
    last, held = hot[i, lay.LAST], hot[i, lay.HELD]
    if ts < last:
        a.ignored[lay.LATE] += 1
        hot[i, lay.LATE_RUN] += 1.0
        if hot[i, lay.LATE_RUN] >= LATE_LIMIT:
            hot[i, lay.LAST] = ts
        return False
    if ts - last > gap_s:
        if last < held <= ts:
            return True
        if held > ts:
            a.ignored[lay.FUTURE] += 1
        hot[i, lay.HELD] = ts
        return False
    if held > ts:
        a.ignored[lay.FUTURE] += 1
        hot[i, lay.HELD] = 0.0
    return True


@compiled
def passes(
    a: Arrays, i: int, value: float, z: float, day_index: int, week_index: int, tuning: Float64s, gate: Float64s
) -> bool:
    """Whether a rare value is large enough in practice, and larger than what this time of day and week brings."""
    hot = a.hot[i]
    up = z > 0.0
    away = abs(value - hot[lay.MEAN])
    if gate[lay.UPWARD if up else lay.DOWNWARD] == 0.0 or abs(z) < gate[lay.SIGMAS]:
        return False
    if away < gate[lay.EFFECT] or away < gate[lay.SHARE] * abs(hot[lay.MEAN]):
        return False
    if (
        hot[lay.COUNT] < tuning[lay.WARM_POINTS]
        or hot[lay.LAST] - hot[lay.FIRST] < tuning[lay.WARM_S]
        or hot[lay.SINCE_GAP] < SETTLED_POINTS
    ):
        return False
    side = 0 if up else 1
    bins = int(tuning[lay.DAY_SLOTS])
    highest = max(
        a.day_jumps[2 * day_index + side, i],
        a.day_jumps[2 * ((day_index - 1) % bins) + side, i],
        a.day_jumps[2 * ((day_index + 1) % bins) + side, i],
        a.week_jumps[2 * week_index + side, i],
    )
    return bool(abs(z) > tuning[lay.JUMP_FACTOR] * jump_sigmas(float(highest)))


@compiled
def blend_jump(past_code: float, sigmas: float, rate: float) -> int:
    jump = sigmas if sigmas >= LEAST_JUMP else 0.0
    if jump == 0.0 and past_code == 0.0:
        return 0
    past = jump_sigmas(past_code)
    return int(jump_code(past + (rate if jump > past else JUMP_FADE) * (jump - past)))


@compiled
def turn_day(a: Arrays, i: int, index: int, tuning: Float64s) -> None:
    """The time of day enters a new bin: what the old one gathered goes into the profile."""
    hot = a.hot
    old = int(hot[i, lay.DAY_BIN])
    if hot[i, lay.DAY_COUNT] > 0.0:
        mean, past = hot[i, lay.DAY_SUM] / hot[i, lay.DAY_COUNT], float(a.day[old, i])
        a.day[old, i] = mean if isnan(past) else past + tuning[lay.DAY_RATE] * (mean - past)
        rate = tuning[lay.JUMP_RATE_DAY]
        a.day_jumps[2 * old, i] = blend_jump(float(a.day_jumps[2 * old, i]), hot[i, lay.DAY_UP], rate)
        a.day_jumps[2 * old + 1, i] = blend_jump(float(a.day_jumps[2 * old + 1, i]), hot[i, lay.DAY_DOWN], rate)
    hot[i, lay.DAY_BIN] = index
    hot[i, lay.DAY_SUM] = hot[i, lay.DAY_COUNT] = hot[i, lay.DAY_UP] = hot[i, lay.DAY_DOWN] = 0.0


@compiled
def turn_week(a: Arrays, i: int, index: int, tuning: Float64s) -> None:
    hot = a.hot
    old = int(hot[i, lay.WEEK_BIN])
    if hot[i, lay.WEEK_COUNT] > 0.0:
        mean, past = hot[i, lay.WEEK_SUM] / hot[i, lay.WEEK_COUNT], float(a.week[old, i])
        a.week[old, i] = mean if isnan(past) else past + tuning[lay.WEEK_RATE] * (mean - past)
        rate = tuning[lay.JUMP_RATE_WEEK]
        a.week_jumps[2 * old, i] = blend_jump(float(a.week_jumps[2 * old, i]), hot[i, lay.WEEK_UP], rate)
        a.week_jumps[2 * old + 1, i] = blend_jump(float(a.week_jumps[2 * old + 1, i]), hot[i, lay.WEEK_DOWN], rate)
    hot[i, lay.WEEK_BIN] = index
    hot[i, lay.WEEK_SUM] = hot[i, lay.WEEK_COUNT] = hot[i, lay.WEEK_UP] = hot[i, lay.WEEK_DOWN] = 0.0
