"""Kinds of series, and the numbers of the pager lane for each kind and sampling period.

The numbers are global: tuned once over many series of many shapes, checked on halves they were not tuned on. Nothing
here is for one series.
"""

from __future__ import annotations

from enum import StrEnum
from math import exp, log10

import numpy as np

from pipeline.domain.detection import layout as lay
from pipeline.domain.detection.layout import Float64s
from pipeline.domain.errors import ConfigurationError

MIN_PERIOD_S = 1.0
MAX_PERIOD_S = 86_400.0
MIN_GAP_S = 3600.0
"""A hole shorter than this is bridged; after a longer one the level is found anew."""
GAP_POINTS = 10.0

NOVELTY_FROM_S = 300.0
"""Points this far apart or farther are looked at by the novelty lane, for the kinds below."""


class SeriesKind(StrEnum):
    """What a series measures: says on which side trouble lies, and how it is looked for."""

    GENERIC = "generic"
    LATENCY = "latency"
    ERRORS = "errors"
    TRAFFIC = "traffic"
    MEMORY = "memory"
    DISK = "disk"


KINDS: tuple[SeriesKind, ...] = tuple(SeriesKind)
"""The order of the gates' rows. Checkpoints hold these numbers: new kinds go to the end."""

TWO_SIDED = frozenset({SeriesKind.GENERIC, SeriesKind.TRAFFIC})
"""Kinds whose falls are trouble too; for the others a fall is an improvement and never pages."""

MIN_EFFECT = {SeriesKind.ERRORS: 0.005}
"""Least change worth a page, in the series' unit: half a percent of requests, or one error in 200 s."""


NOVELTY_KINDS = frozenset({SeriesKind.GENERIC, SeriesKind.MEMORY, SeriesKind.DISK})
"""Kinds that are looked at for slow and structural change; the others are a service's own, and have the pager lane."""


def as_kind(kind: SeriesKind | str) -> SeriesKind:
    """The kind of that name; ConfigurationError names the known ones."""
    try:
        return SeriesKind(kind)
    except ValueError:
        raise ConfigurationError(f"unknown kind of series {kind!r}: use one of {', '.join(KINDS)}") from None


def gates(period_s: float) -> Float64s:
    """[kinds, GATE_SIZE] what a series of each kind must show to page."""
    table = np.zeros((len(KINDS), lay.GATE_SIZE))
    for row, kind in enumerate(KINDS):
        table[row, lay.UPWARD] = 1.0
        table[row, lay.DOWNWARD] = float(kind in TWO_SIDED)
        table[row, lay.EFFECT] = MIN_EFFECT.get(kind, 0.0)
        table[row, lay.SHARE] = 0.05
        table[row, lay.SIGMAS] = 4.0
        table[row, lay.SUSTAIN] = 1.0
        table[row, lay.NOVEL] = float(period_s >= NOVELTY_FROM_S and kind in NOVELTY_KINDS)
    return table


def tuned(period_s: float) -> Float64s:
    """[TUNING_SIZE] the numbers of the lane for points ``period_s`` seconds apart.

    Memories are given in seconds and counted in points, with a least number of points so that an hourly series has a
    memory too. The threshold follows an alarm budget: twice the points, and each must be rarer to page.
    """
    if not MIN_PERIOD_S <= period_s <= MAX_PERIOD_S:
        raise ConfigurationError(f"period_s must be between 1 and 86400 seconds, not {period_s}")
    fine = period_s < NOVELTY_FROM_S
    day_slots, week_slots = (96, 168) if fine else (72, 84)
    table = np.zeros(lay.TUNING_SIZE)
    table[lay.PERIOD_S] = period_s
    table[lay.LEVEL_MEMORY] = max(600.0 / period_s, 2.0)
    table[lay.DRIFT_MEMORY] = max(3600.0 / period_s, 3.0)
    table[lay.ERROR_MEMORY] = max(7200.0 / period_s, 4.0)
    table[lay.MEAN_MEMORY] = max(1800.0 / period_s, 2.0)
    table[lay.SPREAD_MEMORY] = max(604_800.0 / period_s, 100.0)
    table[lay.TAIL_MEMORY] = 300.0
    table[lay.DAY_RATE] = 0.3
    table[lay.WEEK_RATE] = 0.5
    table[lay.CLIP_SIGMAS] = 2.0
    table[lay.SPREAD_CLIP] = 2.0
    table[lay.RUN_POINTS] = 60.0
    table[lay.HOUR_SHARE] = 0.8
    table[lay.FLOOR_SHARE] = 0.005
    table[lay.TAIL_QUANTILE] = 0.99
    table[lay.QUANTILE_RATE] = 0.002
    table[lay.TAIL_CAP] = 0.5
    table[lay.TAIL_MAX] = 0.6
    table[lay.CALM_POINTS] = max(1800.0 / period_s, 1.0)
    table[lay.SMOOTH_MEMORY] = 4.0
    table[lay.SMOOTH_CLIP] = 25.0
    table[lay.SMOOTH_BONUS] = 0.3
    table[lay.HABIT_FREE] = 4.0
    table[lay.HABIT_WEIGHT] = 0.3
    table[lay.HABIT_FADE] = exp(-period_s / lay.DAY_S)
    table[lay.JUMP_RATE_DAY] = 0.3
    table[lay.JUMP_RATE_WEEK] = 0.3
    table[lay.JUMP_FACTOR] = 1.2
    table[lay.THRESHOLD] = 3.25 + 0.56 * log10(3600.0 / period_s)
    table[lay.GAP_S] = max(MIN_GAP_S, GAP_POINTS * period_s)
    table[lay.WARM_POINTS] = 100.0
    table[lay.WARM_S] = 86_400.0
    table[lay.DAY_SLOTS] = float(min(day_slots, max(1, int(lay.DAY_S / period_s))))
    table[lay.WEEK_SLOTS] = float(min(week_slots, max(7, int(lay.WEEK_S / period_s))))
    table[lay.INTERPOLATE] = float(period_s <= 300.0)
    return table
