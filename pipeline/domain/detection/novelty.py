"""The novelty lane: says when a series leaves the range it has kept, for slow and structural changes.

Five views of a point are followed: its distance from the daily profile, its jump from the mean of the last 10 points,
the smoothed distance from the profile, the mean of 10 points and the mean of 100. Each view has the range it has kept,
which takes in what lies outside only in part and slowly forgets. The distance outside the range, in units of how far
the view usually strays (its mean excess over a threshold, as in the peaks-over-threshold method), is the surprise; the
largest counts. What was just reported, what came at this time on one of the last seven days and what comes all the time
is damped.

One row of state a series, one point at a time; a point is first judged by what was known before it, then learned.
"""

from __future__ import annotations

from math import exp, isfinite, isnan

import numpy as np
import numpy.typing as npt

from pipeline.domain.detection.compiled import compiled

Float64s = npt.NDArray[np.float64]

DAY_S = 86_400.0
HOUR_S = 3600.0
HOURS = 24
RECENT = 10
"""Points of the short mean, and means of the long one."""

# Columns of a row.
COUNT, LAST, RUN, HELD, HELD_LONG, HABIT, SMOOTH, SPREAD = range(8)
RANGE_FADE, HOUR_RATE, PEAK = range(8, 11)
POINTS = 11
BLOCKS = POINTS + RECENT
HOUR_MEAN = BLOCKS + RECENT
HOUR_SPREAD = HOUR_MEAN + HOURS
WEEKDAY = HOUR_SPREAD + HOURS
PEAKS = WEEKDAY + 7
PEAK_COUNT = 8
"""The last large surprises, as pairs (epoch seconds, surprise)."""
VIEWS = PEAKS + 2 * PEAK_COUNT

# The views (those of one point first), and the columns of each from `VIEWS` on.
FROM_PROFILE, JUMP, SMOOTHED, MEAN_10, MEAN_100 = range(5)
VIEW_COUNT = 5
HIGH, LOW, CENTRE, STRAY, EXCESS_HIGH, EXCESS_LOW, SEEN, EXCEEDED = range(8)
VIEW_SIZE = 8

NOVELTY_SIZE = VIEWS + VIEW_COUNT * VIEW_SIZE
"""Length of one row of state, in float64."""

# The numbers below are global, tuned on generated series and on 5-minute and hourly means of service KPIs, in halves.
WEIGHTS = (4.0, 2.2, 1.5, 0.4, 2.8)
"""What a surprise of each view counts against `BAR`."""
TAKE_IN_FAST = 0.3
"""Share of the distance outside that the range takes in at once, for the views of single points."""
TAKE_IN_SLOW = 0.02
"""The same for means: a drift that is faster than the range gives way shows."""
TAKE_IN_REPORTED = 0.65
"""Largest share taken in when the distance is reported: the same level again is hardly news."""
RANGE_MEMORY_DAYS = 5.5
"""What lies far out of a range is forgotten with this horizon, so that the same trouble a month later is news again."""
RANGE_SHARE = 0.02
STRAY_SHARE = 1.3
RELATIVE_FLOOR = 0.002
"""A unit of surprise is at least these shares of the range, of the mean deviation and of the level."""
TAIL_STRAYS = 1.6
"""The tail begins so many mean deviations from the centre."""
TAIL_RATE_FAST = 0.05
TAIL_RATE_SLOW = 0.005
TRUST_POINTS = 300.0
"""A view with so many points behind it is believed by half."""
YOUNG_POINTS = 60.0
"""Before so many points a view says nothing."""
PROFILE_DAYS = 2.5
"""Days before the daily profile is compared with."""
PROFILE_MEMORY_DAYS = 8.0
WEEKDAY_MEMORY_DAYS = 3.0
"""Days of one weekday, not of the calendar."""
CLIP_STRAYS = 5.0
SPREAD_BY_HOUR = 0.5
"""How far the hour's own spread is followed; the rest is the spread of the whole day."""
HELD_POINTS = 3.0
"""A surprise is taken, fading so fast, from the next ones of single points."""
HELD_LONG_POINTS = 100.0
"""A reported one is taken, fading so fast, from the next ones of means: these tell the same later."""
PAGE_SCORE = 0.5
HABIT_POINTS = 400.0
HABIT_WEIGHT = 1.2
HABIT_CAP = 5.0
"""Pages of late (their squared scores, over some `HABIT_POINTS`) raise the bar, up to this many."""
SEEN_BEFORE = 0.8
"""How much of a surprise at this time on one of the last days is taken from one now."""
MEMORABLE = 0.7
SAME_TIME_S = 900.0
SAME_TIME_DAYS = 7
BAR = 1.2
"""The surprise at which a series without pages of late pages."""
COARSE_S = 1800.0
"""From this period on 10 points are many hours: the jump is taken from the daily profile too, and the bar is higher."""
COARSE_BAR = 1.5
GAP_POINTS = 30.0
"""After a hole so long the means begin anew."""
NOTHING = 1e-9


@compiled
def novelty_init(state: Float64s, period_s: float) -> None:
    """Makes ``state`` ([NOVELTY_SIZE]) the row of an unknown series with a point every ``period_s`` seconds."""
    state[:] = 0.0
    state[HOUR_MEAN : HOUR_MEAN + HOURS] = np.nan
    state[RANGE_FADE] = period_s / (RANGE_MEMORY_DAYS * DAY_S + period_s)
    state[HOUR_RATE] = 1.0 / (PROFILE_MEMORY_DAYS * max(1.0, HOUR_S / period_s))


@compiled
def novelty_update(state: Float64s, value: float, ts: float, period_s: float) -> float:
    """How new ``value`` at ``ts`` (epoch seconds) is, 0..1; 0.5 and above would page. Learns the point.

    NaN, infinities and points that are not newer than the newest are passed over and score 0.
    """
    if not isfinite(value) or (state[COUNT] > 0.0 and ts <= state[LAST]):
        return 0.0
    if ts - state[LAST] > GAP_POINTS * period_s:
        state[RUN] = 0.0
    hour = int(ts // HOUR_S) % HOURS
    weekday = WEEKDAY + int(ts // DAY_S) % 7
    points_a_day = DAY_S / period_s
    expected = state[HOUR_MEAN + hour]
    distance = 0.0 if isnan(expected) else value - expected - state[weekday]
    known = state[COUNT] > PROFILE_DAYS * points_a_day and not isnan(expected)
    scale = _scale(state, hour) if known else 1.0

    before = _mean(state, POINTS, state[RUN], value)
    _remember(state, value)
    mean_10 = _mean(state, POINTS, state[RUN], value)
    mean_100 = _mean(state, BLOCKS, state[RUN] // RECENT, mean_10)
    jump = value - before
    if known and period_s >= COARSE_S:
        jump = distance - state[SMOOTH] * scale
    state[SMOOTH] += 0.2 * (distance / scale - state[SMOOTH])

    floor = RELATIVE_FLOOR * abs(state[VIEWS + MEAN_10 * VIEW_SIZE + CENTRE]) + NOTHING
    fast = slow = 0.0
    if state[COUNT] >= RECENT:
        if known:
            fast = _surprise(state, FROM_PROFILE, distance / scale, floor)
            slow = _surprise(state, SMOOTHED, state[SMOOTH], floor)
        fast = max(fast, _surprise(state, JUMP, jump / scale, floor))
        slow = max(slow, _surprise(state, MEAN_10, mean_10, floor))
        if state[RUN] >= RECENT * RECENT:
            slow = max(slow, _surprise(state, MEAN_100, mean_100, floor))
    _learn_profile(state, hour, weekday, value, distance, points_a_day)
    state[COUNT] += 1.0
    state[LAST] = ts
    return _damped(state, fast, slow, ts, period_s)


@compiled
def _mean(state: Float64s, start: int, count: float, otherwise: float) -> float:
    """The mean of the ring at ``start``, in which ``count`` values were put so far; ``otherwise`` when none was."""
    held = int(min(count, RECENT))
    if held == 0:
        return otherwise
    total = 0.0
    for at in range(held):
        total += state[start + at]
    return float(total / held)


@compiled
def _remember(state: Float64s, value: float) -> None:
    """Puts ``value`` into the ring of points and, after every tenth, their mean into the ring of means."""
    run = int(state[RUN])
    state[POINTS + run % RECENT] = value
    state[RUN] = run + 1.0
    if run % RECENT == RECENT - 1:
        state[BLOCKS + run // RECENT % RECENT] = _mean(state, POINTS, run + 1.0, value)


@compiled
def _scale(state: Float64s, hour: int) -> float:
    """The spread at this hour over that of the whole day, shrunk to 1; 1 while nothing is known of it.

    The hour before has a say: what it was wild about is still in the mean of 10 points.
    """
    spread = max(state[HOUR_SPREAD + hour], state[HOUR_SPREAD + (hour + HOURS - 1) % HOURS])
    if spread <= 0.0 or state[SPREAD] <= 0.0:
        return 1.0
    return float(max(0.1, 1.0 - SPREAD_BY_HOUR + SPREAD_BY_HOUR * spread / state[SPREAD]))


@compiled
def _surprise(state: Float64s, view: int, value: float, floor: float) -> float:
    """How far ``value`` lies outside the range of its view, in units of the view's tail; learns it."""
    at = VIEWS + view * VIEW_SIZE
    seen = state[at + SEEN]
    if seen == 0.0:
        state[at + HIGH] = state[at + LOW] = state[at + CENTRE] = value
        state[at + SEEN] = 1.0
        return 0.0
    high, low, centre, stray = state[at + HIGH], state[at + LOW], state[at + CENTRE], state[at + STRAY]
    outside = max(value - high, low - value, 0.0)
    excess = state[at + EXCESS_HIGH] if value > high else state[at + EXCESS_LOW]
    unit = excess + RANGE_SHARE * (high - low) + STRAY_SHARE * stray + floor
    trust = seen / (seen + TRUST_POINTS) if seen >= YOUNG_POINTS else 0.0
    weight: float = WEIGHTS[view]
    surprise = weight * float(trust * outside / unit)

    if outside > 0.0:
        share = TAKE_IN_FAST if view <= JUMP else TAKE_IN_SLOW
        share = max(share, TAKE_IN_REPORTED * min(1.0, 2.0 * surprise / (surprise + 1.0)))
        if seen < TRUST_POINTS:
            share = 1.0
        state[at + HIGH if value > high else at + LOW] += share * (value - (high if value > high else low))
    fade = state[RANGE_FADE]
    state[at + HIGH] -= fade * max(0.0, state[at + HIGH] - centre - 2.0 * stray)
    state[at + LOW] += fade * max(0.0, centre - 2.0 * stray - state[at + LOW])

    step = value - centre
    if seen > YOUNG_POINTS:
        step = min(max(step, -6.0 * stray), 6.0 * stray)
    rate = max(1.0 / (seen + 1.0), 1.0 / 2000.0)
    state[at + CENTRE] += rate * step
    state[at + STRAY] += rate * (abs(step) - stray)
    beyond = abs(value - centre) - TAIL_STRAYS * stray
    if beyond > 0.0:
        side = EXCESS_HIGH if value > centre else EXCESS_LOW
        edge = high - centre if value > centre else centre - low
        rate = max(TAIL_RATE_FAST if view <= JUMP else TAIL_RATE_SLOW, 1.0 / (state[at + EXCEEDED] + 1.0))
        state[at + side] += rate * (min(beyond, edge + 3.0 * stray) - state[at + side])
        state[at + EXCEEDED] += 1.0
    state[at + SEEN] = seen + 1.0
    return surprise


@compiled
def _learn_profile(
    state: Float64s, hour: int, weekday: int, value: float, distance: float, points_a_day: float
) -> None:
    """Moves the hour's mean and spread and the weekday's offset towards a clipped ``distance``."""
    if isnan(state[HOUR_MEAN + hour]):
        state[HOUR_MEAN + hour] = value
        return
    limit = CLIP_STRAYS * state[VIEWS + MEAN_10 * VIEW_SIZE + STRAY]
    step = min(max(distance, -limit), limit)
    count = state[COUNT]
    state[HOUR_MEAN + hour] += step * max(state[HOUR_RATE], 1.0 / (count / HOURS + 1.0))
    state[weekday] += step / (WEEKDAY_MEMORY_DAYS * points_a_day)
    since = count - PROFILE_DAYS * points_a_day
    if since <= 0.0:
        return
    state[SPREAD] += (abs(step) - state[SPREAD]) * max(1.0 / (since + 1.0), 1.0 / 2000.0)
    if state[HOUR_SPREAD + hour] == 0.0:
        state[HOUR_SPREAD + hour] = state[SPREAD]
    else:
        rate = max(state[HOUR_RATE], 1.0 / (since / HOURS + 1.0))
        state[HOUR_SPREAD + hour] += rate * (abs(step) - state[HOUR_SPREAD + hour])


@compiled
def _damped(state: Float64s, fast: float, slow: float, ts: float, period_s: float) -> float:
    """The score of the surprises, less what was reported lately or came at this time of late."""
    surprise = max(fast, slow)
    familiar = 0.0
    if surprise > MEMORABLE:
        same_s = SAME_TIME_S + period_s
        for pair in range(PEAK_COUNT):
            ago_s = ts - state[PEAKS + 2 * pair]
            days = round(ago_s / DAY_S)
            if 1 <= days <= SAME_TIME_DAYS and abs(ago_s - days * DAY_S) <= same_s:
                familiar = max(familiar, SEEN_BEFORE * state[PEAKS + 2 * pair + 1])
        newest = PEAKS + 2 * int(state[PEAK])
        if ts - state[newest] <= HOUR_S:
            state[newest + 1] = max(state[newest + 1], surprise)
        else:
            state[PEAK] = (state[PEAK] + 1.0) % PEAK_COUNT
            newest = PEAKS + 2 * int(state[PEAK])
            state[newest], state[newest + 1] = ts, surprise
    news = max(0.0, fast - max(state[HELD], familiar), slow - max(state[HELD_LONG], familiar))
    state[HELD] = max(state[HELD] * exp(-1.0 / HELD_POINTS), surprise)
    state[HELD_LONG] *= exp(-1.0 / HELD_LONG_POINTS)
    bar = COARSE_BAR if period_s >= COARSE_S else BAR
    score = float(news / (news + bar * (1.0 + HABIT_WEIGHT * min(state[HABIT], HABIT_CAP))))
    state[HABIT] *= exp(-1.0 / HABIT_POINTS)
    if score >= PAGE_SCORE:
        state[HELD_LONG] = max(state[HELD_LONG], surprise)
        state[HABIT] += score * score
    return score
