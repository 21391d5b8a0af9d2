"""Before and after a change: is the service worse since, beyond what its hour of the day explains?"""

from __future__ import annotations

from dataclasses import dataclass
from math import sqrt

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float32]

LEAST_AFTER, LEAST_BEFORE = 5, 20
MAD_TO_SIGMA = 1.4826
DEPENDENT = 3.0
"""Neighbouring minutes are not independent: so many count as one."""
LATENCY_SIGMAS, LEAST_SLOWER_SHARE = 5.0, 0.2
STEADY_SHARE = 0.8
"""Share of the minutes after the change that must be worse than the middle before it."""
ERROR_SIGMAS, LEAST_MORE_ERRORS = 5.0, 0.008


@dataclass(frozen=True, slots=True)
class Worse:
    """``before`` and ``after`` in the series' own unit (after: now), as if both were now."""

    before: float
    after: float


def slower(
    before: FloatArray, usual_before: FloatArray, after: FloatArray, usual_after: FloatArray, factor: float = 1.0
) -> Worse | None:
    """Latency: values and what the baseline expected of them, a minute a cell (NaN: none), before and after.

    Both sides are divided by the expectation, so that the hour of the day cancels; medians are compared against their
    standard error from the median absolute deviation before.
    """
    past, now = _shares(before, usual_before), _shares(after, usual_after)
    if len(past) < LEAST_BEFORE or len(now) < LEAST_AFTER:
        return None
    middle, later = float(np.median(past)), float(np.median(now))
    spread = max(MAD_TO_SIGMA * float(np.median(np.abs(past - middle))), 0.02 * middle)
    error = spread * sqrt(DEPENDENT / len(past) + DEPENDENT / len(now))
    rise = later - middle
    if rise < max(LATENCY_SIGMAS * factor * error, LEAST_SLOWER_SHARE * factor * middle):
        return None
    if np.mean(now > middle + HALF * rise) < STEADY_SHARE:
        return None
    usual = float(usual_after[np.isfinite(usual_after)][-1])
    return Worse(middle * usual, later * usual)


def failing_more(
    before: FloatArray, asked_before: FloatArray, after: FloatArray, asked_after: FloatArray, factor: float = 1.0
) -> Worse | None:
    """Errors: ratios and requests a minute, before and after: a binomial test, overdispersed as the minutes before."""
    share, past = _pooled(before, asked_before)
    later, now = _pooled(after, asked_after)
    if np.isfinite(before).sum() < LEAST_BEFORE or np.isfinite(after).sum() < LEAST_AFTER or past <= 0 or now <= 0:
        return None
    joint = (share * past + later * now) / (past + now)
    known = np.isfinite(before) & np.isfinite(asked_before) & (asked_before > 0)
    usual = max(share * (1 - share), 1e-6)
    over = max(float(np.mean((before[known] - share) ** 2 * asked_before[known] / usual)), 1.0)
    error = sqrt(max(joint * (1 - joint), 1e-9) * min(over, 10.0) * (1 / past + 1 / now))
    rise = later - share
    if rise < max(ERROR_SIGMAS * factor * error, LEAST_MORE_ERRORS * factor, share) or later * now < 5:
        return None
    if np.nanmean(after > share + HALF * rise) < STEADY_SHARE:
        return None
    return Worse(share, later)


HALF = 0.5


def _shares(values: FloatArray, usual: FloatArray) -> FloatArray:
    known = np.isfinite(values) & np.isfinite(usual) & (usual > 0)
    return values[known] / usual[known]


def _pooled(ratios: FloatArray, asked: FloatArray) -> tuple[float, float]:
    """Failed over asked, and asked."""
    known = np.isfinite(ratios) & np.isfinite(asked)
    total = float(asked[known].sum())
    return (float((ratios[known] * asked[known]).sum()) / total if total else 0.0), total
