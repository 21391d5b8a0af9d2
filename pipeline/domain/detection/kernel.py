"""The arithmetic of detection, one point of one series at a time.

Written once as a scalar loop over structure-of-arrays state, compiled when numba is there. A point is first judged by
what was known before it and learned afterwards, with its surprise clipped, so that an incident hardly teaches.
"""

from __future__ import annotations

from math import isnan, nan

import numpy as np
import numpy.typing as npt

from pipeline.domain.detection import layout as lay
from pipeline.domain.detection.compiled import compiled
from pipeline.domain.detection.lane import (
    BELOW,
    FLAT_SUSTAIN,
    LARGEST,
    LEAST_QUANTILE,
    LEAST_SMOOTH_QUANTILE,
    MAD_TO_SIGMA,
    WARM_TAIL_POINTS,
    YOUNG_POINTS,
    begin,
    between,
    blended,
    learned_tail,
    passes,
    rarity_of,
    resume,
    slot,
    timely,
    turn_day,
    turn_week,
)
from pipeline.domain.detection.layout import Arrays, Float64s
from pipeline.domain.detection.novelty import novelty_update


@compiled
def run(
    a: Arrays,
    ts: Float64s,
    offsets_s: Float64s,
    values: Float64s,
    tuning: Float64s,
    gates: Float64s,
    kinds: npt.NDArray[np.int8],
    scores: Float64s,
) -> None:
    """Judges and then learns ``values`` [times, n] of the first n series at ``ts`` [times] (epoch seconds, plus
    ``offsets_s`` for the time zone of the profiles). Writes ``scores`` [times, n]: 0..1, 0.5 pages.

    ``kinds`` [n] are rows of ``gates``. One loop for a step of a fleet, a replay of one series and a single value: a
    call that passes arrays costs more than the arithmetic of a point.
    """
    hot = a.hot
    for at in range(len(ts)):
        now = ts[at]
        day_share = (now + offsets_s[at]) % lay.DAY_S / lay.DAY_S
        week_share = (now + offsets_s[at]) % lay.WEEK_S / lay.WEEK_S
        hour = min(int(day_share * lay.HOURS), lay.HOURS - 1)
        day_index, day_beside, day_lean = slot(day_share, int(tuning[lay.DAY_SLOTS]), tuning[lay.INTERPOLATE])
        week_index, week_beside, week_lean = slot(week_share, int(tuning[lay.WEEK_SLOTS]), tuning[lay.INTERPOLATE])
        for i in range(values.shape[1]):
            value = values[at, i]
            scores[at, i] = 0.0
            count = hot[i, lay.COUNT]
            usable = abs(value) <= LARGEST
            if count == 0.0 and usable:
                begin(hot, i, now, value)
            last = hot[i, lay.LAST]
            plain = usable and last <= now <= last + tuning[lay.GAP_S] and hot[i, lay.HELD] == 0.0
            if not plain and not timely(a, i, now, value, tuning[lay.GAP_S]):
                continue
            repeated = now == last and count > 0.0
            if not repeated and day_index != hot[i, lay.DAY_BIN]:
                turn_day(a, i, day_index, tuning)
            if not repeated and week_index != hot[i, lay.WEEK_BIN]:
                turn_week(a, i, week_index, tuning)

            origin = hot[i, lay.ORIGIN]
            day = between(float(a.day[day_index, i]), float(a.day[day_beside, i]), day_lean) + origin
            week = between(float(a.week[week_index, i]), float(a.week[week_beside, i]), week_lean) + origin
            day += hot[i, lay.DRIFT_DAY]
            week += hot[i, lay.DRIFT_WEEK]
            if now - last > tuning[lay.GAP_S]:
                resume(hot, i, value, day)
            level = hot[i, lay.LEVEL]
            expected = blended(level, hot[i, lay.ERROR_LEVEL], day, hot[i, lay.ERROR_DAY], week, hot[i, lay.ERROR_WEEK])
            spread, hourly = hot[i, lay.SPREAD], float(a.spread[hour, i])
            sigma = MAD_TO_SIGMA * between(spread, hourly, tuning[lay.HOUR_SHARE])
            least = tuning[lay.FLOOR_SHARE] * max(abs(hot[i, lay.MEAN]), abs(value))
            flat = sigma < least
            sigma = max(sigma, least, 1e-300)
            z = (value - expected) / sigma
            distance = abs(z)
            rarity = rarity_of(distance, hot[i, lay.QUANTILE], hot[i, lay.TAIL], tuning[lay.TAIL_QUANTILE])
            clipped = max(-tuning[lay.SMOOTH_CLIP], min(tuning[lay.SMOOTH_CLIP], z))
            smooth = hot[i, lay.SMOOTH] + (clipped - hot[i, lay.SMOOTH]) / tuning[lay.SMOOTH_MEMORY]
            if smooth * z > 0.0:
                quantile, tail = hot[i, lay.SMOOTH_QUANTILE], hot[i, lay.SMOOTH_TAIL]
                smooth_rarity = rarity_of(abs(smooth), quantile, tail, tuning[lay.TAIL_QUANTILE])
                rarity = max(rarity, smooth_rarity + tuning[lay.SMOOTH_BONUS])
            often = max(0.0, hot[i, lay.HABIT] - tuning[lay.HABIT_FREE])
            score = rarity / (rarity + tuning[lay.THRESHOLD] * (1.0 + tuning[lay.HABIT_WEIGHT] * often))
            gate = gates[kinds[i]]
            over = 0.0
            if score >= 0.5 and passes(a, i, value, z, day_index, week_index, tuning, gate):
                over = hot[i, lay.OVER] + 1.0
            sustain = max(gate[lay.SUSTAIN], FLAT_SUSTAIN) if flat else gate[lay.SUSTAIN]
            scores[at, i] = score if over >= sustain else min(score, BELOW)
            lane = a.lane[i]
            if lane >= 0 and not repeated:
                novel = novelty_update(a.novelty[lane], value, now, tuning[lay.PERIOD_S])
                scores[at, i] = novel if gate[lay.DOWNWARD if z < 0.0 else lay.UPWARD] > 0.0 else min(novel, BELOW)
            if repeated:
                a.ignored[lay.DUPLICATE] += 1
                continue

            hot[i, lay.LAST] = now
            hot[i, lay.LATE_RUN] = 0.0
            hot[i, lay.OVER] = over
            hot[i, lay.COUNT] = count + 1.0
            hot[i, lay.SINCE_GAP] += 1.0
            hot[i, lay.SMOOTH] = smooth
            hot[i, lay.HABIT] *= tuning[lay.HABIT_FADE]
            # One exceedance an incident: after a rare value the tail learns nothing for a while.
            if hot[i, lay.CALM] > 0.0:
                hot[i, lay.CALM] -= 1.0
            elif count >= WARM_TAIL_POINTS or count >= tuning[lay.WARM_POINTS]:
                hot[i, lay.QUANTILE], hot[i, lay.TAIL] = learned_tail(
                    distance, hot[i, lay.QUANTILE], hot[i, lay.TAIL], LEAST_QUANTILE, tuning
                )
                hot[i, lay.SMOOTH_QUANTILE], hot[i, lay.SMOOTH_TAIL] = learned_tail(
                    abs(smooth), hot[i, lay.SMOOTH_QUANTILE], hot[i, lay.SMOOTH_TAIL], LEAST_SMOOTH_QUANTILE, tuning
                )
                if rarity > tuning[lay.THRESHOLD]:
                    hot[i, lay.CALM] = tuning[lay.CALM_POINTS]
                    hot[i, lay.HABIT] += 1.0

            # A run of surprises without end is a new level, not an incident: the clip opens, and it is learned.
            if distance > tuning[lay.CLIP_SIGMAS]:
                hot[i, lay.RUN] += 1.0
            else:
                hot[i, lay.RUN] = max(0.0, hot[i, lay.RUN] * 0.8 - 0.1)
            young = count < YOUNG_POINTS
            clip = tuning[lay.CLIP_SIGMAS] * (1.0 + hot[i, lay.RUN] / tuning[lay.RUN_POINTS])
            if flat and hot[i, lay.RUN] < FLAT_SUSTAIN:
                # One value off a constant teaches nothing: else the return to it would be the surprise.
                clip *= tuning[lay.FLOOR_SHARE] * abs(hot[i, lay.MEAN]) / sigma
            most = 1e300 if young else clip * sigma
            surprise = max(-most, min(most, value - expected))
            learned = expected + surprise
            first = 1.0 / (count + 1.0)
            error_rate = 1.0 / tuning[lay.ERROR_MEMORY]
            hot[i, lay.ERROR_LEVEL] += error_rate * (abs(learned - level) - hot[i, lay.ERROR_LEVEL])
            hot[i, lay.LEVEL] += max(1.0 / tuning[lay.LEVEL_MEMORY], first) * (learned - level)
            hot[i, lay.MEAN] += max(1.0 / tuning[lay.MEAN_MEMORY], first) * (learned - hot[i, lay.MEAN])
            if isnan(day):
                hot[i, lay.ERROR_DAY], hot[i, lay.DRIFT_DAY] = hot[i, lay.ERROR_LEVEL], 0.0
            else:
                hot[i, lay.ERROR_DAY] += error_rate * (abs(learned - day) - hot[i, lay.ERROR_DAY])
                hot[i, lay.DRIFT_DAY] += (learned - day) / tuning[lay.DRIFT_MEMORY]
            if isnan(week):
                hot[i, lay.ERROR_WEEK], hot[i, lay.DRIFT_WEEK] = hot[i, lay.ERROR_LEVEL], 0.0
            else:
                hot[i, lay.ERROR_WEEK] += error_rate * (abs(learned - week) - hot[i, lay.ERROR_WEEK])
                hot[i, lay.DRIFT_WEEK] += (learned - week) / tuning[lay.DRIFT_MEMORY]
            deviation = abs(surprise) if young else min(abs(surprise), tuning[lay.SPREAD_CLIP] * sigma)
            hot[i, lay.SPREAD] += max(1.0 / tuning[lay.SPREAD_MEMORY], first) * (deviation - spread)
            if isnan(hourly):
                a.spread[hour, i] = hot[i, lay.SPREAD]
            else:
                rate = max(4.0 / tuning[lay.SPREAD_MEMORY], lay.HOURS / (count + 10.0 * lay.HOURS))
                a.spread[hour, i] = hourly + rate * (deviation - hourly)

            hot[i, lay.DAY_SUM] += learned - origin
            hot[i, lay.DAY_COUNT] += 1.0
            hot[i, lay.WEEK_SUM] += learned - origin
            hot[i, lay.WEEK_COUNT] += 1.0
            if z > 0.0:
                hot[i, lay.DAY_UP] = max(hot[i, lay.DAY_UP], z)
                hot[i, lay.WEEK_UP] = max(hot[i, lay.WEEK_UP], z)
            else:
                hot[i, lay.DAY_DOWN] = max(hot[i, lay.DAY_DOWN], -z)
                hot[i, lay.WEEK_DOWN] = max(hot[i, lay.WEEK_DOWN], -z)


@compiled
def look(a: Arrays, slot_s: float, tuning: Float64s, mean: Float64s, sigma: Float64s) -> None:
    """Writes what each of the first ``len(mean)`` series is expected to be at ``slot_s`` (epoch seconds plus zone
    offset), and how far from that is usual. NaN for a series that has seen nothing."""
    hot = a.hot
    day_share, week_share = slot_s % lay.DAY_S / lay.DAY_S, slot_s % lay.WEEK_S / lay.WEEK_S
    hour = min(int(day_share * lay.HOURS), lay.HOURS - 1)
    day_index, day_beside, day_lean = slot(day_share, int(tuning[lay.DAY_SLOTS]), tuning[lay.INTERPOLATE])
    week_index, week_beside, week_lean = slot(week_share, int(tuning[lay.WEEK_SLOTS]), tuning[lay.INTERPOLATE])
    for i in range(len(mean)):
        if hot[i, lay.COUNT] == 0.0:
            mean[i] = sigma[i] = nan
            continue
        day = between(float(a.day[day_index, i]), float(a.day[day_beside, i]), day_lean)
        week = between(float(a.week[week_index, i]), float(a.week[week_beside, i]), week_lean)
        day += hot[i, lay.ORIGIN] + hot[i, lay.DRIFT_DAY]
        week += hot[i, lay.ORIGIN] + hot[i, lay.DRIFT_WEEK]
        mean[i] = blended(
            hot[i, lay.LEVEL], hot[i, lay.ERROR_LEVEL], day, hot[i, lay.ERROR_DAY], week, hot[i, lay.ERROR_WEEK]
        )
        spread = between(hot[i, lay.SPREAD], float(a.spread[hour, i]), tuning[lay.HOUR_SHARE])
        sigma[i] = max(MAD_TO_SIGMA * spread, tuning[lay.FLOOR_SHARE] * abs(hot[i, lay.MEAN]))
