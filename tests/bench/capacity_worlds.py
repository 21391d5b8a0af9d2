"""Made-up capacity series: disks, memory, quotas and certificates that do and do not run into their limits."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]
Rng = np.random.Generator
HOUR = 3600.0
DAY = 86_400.0
APART_S = 36 * HOUR
START = 1_750_000_000.0
PERIODS_S = (60.0, 60.0, 120.0, 300.0, 300.0, 900.0, 1800.0, 3600.0)
LIMITS = (100.0, 1.0, 5e11, 1.6e10, 2000.0, 85.0)


@dataclass(frozen=True, slots=True)
class World:
    """One series and its limit. ``breaches`` are the epoch seconds at which it meets the limit and
    last is past it; two with less than ``APART_S`` between them are one."""

    name: str
    ts: FloatArray
    values: FloatArray
    limit: float
    falling: bool
    breaches: tuple[tuple[float, float], ...]

    @property
    def weeks(self) -> float:
        return float(self.ts[-1] - self.ts[0]) / (7 * DAY)


def make(seed: int) -> World:
    """The world of ``seed``: a family by turns, everything else by chance."""
    rng = np.random.default_rng([seed, 77])
    names = list(FAMILIES)
    name = names[seed % len(names)]
    period = float(rng.choice(PERIODS_S))
    length = float(rng.choice([1, 2, 4, 7, 7, 14, 14, 28, 56])) * DAY
    length = max(length, 200 * period)
    length = min(length, 25_000 * period)
    slow = name in ("certificate", "enlarged", "saturating")
    if slow:
        length, period = max(length, 14 * DAY), max(period, 300.0)
    t = np.arange(0.0, length, period)
    breach = bool(rng.random() < 0.45)
    share = FAMILIES[name](rng, t, breach)
    noise = float(rng.choice([0.0, 0.001, 0.003, 0.01]))
    if name != "certificate":
        share = share + noise * rng.normal(size=len(t))
        share = np.maximum(share, 0.0)
    if not breach:
        share = np.minimum(share, 0.985)
    if rng.random() < 0.5:
        share = np.minimum(share, 1.0)
    limit = float(rng.choice(LIMITS))
    falling = name == "certificate"
    values = (1.0 - share) * limit if falling else share * limit
    bound = 0.0 if falling else limit
    reached = (values <= bound) if falling else (values >= bound)
    if breach and reached.any() and rng.random() < 0.4:  # the record stops soon after the breach
        end = min(int(np.argmax(reached)) + int(rng.integers(1, 60)), len(t))
        t, values, reached = t[:end], values[:end], reached[:end]
    breaches = _stretches(t, reached)
    ts, values = _spoil(rng, START + t, values, reached)
    return World(name, ts, values, bound, falling, tuple((START + begin, START + end) for begin, end in breaches))


def _stretches(t: FloatArray, reached: npt.NDArray[np.bool_]) -> list[tuple[float, float]]:
    found: list[tuple[float, float]] = []
    for at in t[reached].tolist():
        if found and at - found[-1][1] <= APART_S:
            found[-1] = (found[-1][0], at)
        else:
            found.append((at, at))
    return found


def _spoil(
    rng: Rng, ts: FloatArray, values: FloatArray, reached: npt.NDArray[np.bool_]
) -> tuple[FloatArray, FloatArray]:
    values = values.copy()
    keep = np.ones(len(ts), bool)
    if rng.random() < 0.3:
        values[(rng.random(len(ts)) < 0.01) & ~reached] = np.nan
    if rng.random() < 0.3:
        keep &= (rng.random(len(ts)) > 0.03) | reached
    if rng.random() < 0.3:
        for _ in range(int(rng.integers(1, 4))):
            at = int(rng.integers(0, len(ts)))
            gap = slice(at, at + int(rng.integers(3, 60)))
            keep[gap] &= reached[gap]
    return ts[keep], values[keep]


def _daily(t: FloatArray, rng: Rng) -> FloatArray:
    phase = rng.uniform(0, DAY)
    wave = np.sin(2 * np.pi * (t - phase) / DAY) + rng.uniform(0, 0.4) * np.sin(4 * np.pi * (t - phase) / DAY)
    return np.asarray(wave / np.abs(wave).max(), dtype=np.float64)


def _linear(rng: Rng, t: FloatArray, breach: bool) -> FloatArray:
    start = rng.uniform(0.1, 0.7)
    top = 1.0 if breach else rng.uniform(start, 0.9)
    return start + (top - start) * t / (t[-1] * (rng.uniform(0.4, 0.95) if breach else 1.0))


def _fast_fill(rng: Rng, t: FloatArray, breach: bool) -> FloatArray:
    start = rng.uniform(0.1, 0.7)
    begin = rng.uniform(0.3, 0.85) * t[-1]
    takes = max(float(np.exp(rng.uniform(np.log(1200), np.log(12 * HOUR)))), 6 * (t[1] - t[0]))
    top = rng.uniform(1.0, 1.2) if breach else rng.uniform(start, 0.85)
    share = start + (top - start) * np.clip((t - begin) / takes, 0, 1)
    if rng.random() < 0.5:
        share[t > begin + takes + rng.uniform(1, 12) * HOUR] = start
    return share + rng.uniform(0, 0.05) * _daily(t, rng) * (share < 0.9)


def _teeth(rng: Rng, t: FloatArray, tooth: float, low: float, high: float, jitter: float, stop: float) -> FloatArray:
    share = np.empty(len(t))
    at, level, top = 0.0, rng.uniform(low, high), high
    step = t[1] - t[0]
    rate = (high - low) / tooth
    for n, now in enumerate(t):
        if level >= top and now < stop:
            level = low + rng.normal(0, jitter * (high - low))
            top = min(high + rng.normal(0, jitter * (high - low)), 0.95)
            rate = (high - low) / tooth * np.exp(rng.normal(0, jitter))
            at = now
        share[n] = level
        level += rate * step
    del at
    return np.minimum(share, 1.15)


def _sawtooth(rng: Rng, t: FloatArray, breach: bool) -> FloatArray:
    tooth = max(float(np.exp(rng.uniform(np.log(HOUR), np.log(min(4 * DAY, t[-1] / 4))))), 8 * (t[1] - t[0]))
    low, high = rng.uniform(0.05, 0.5), rng.uniform(0.6, 0.92)
    stop = rng.uniform(0.5, 0.9) * t[-1] if breach else np.inf
    return _teeth(rng, t, tooth, low, high, float(rng.choice([0.0, 0.03, 0.1])), stop)


def _staircase(rng: Rng, t: FloatArray, breach: bool) -> FloatArray:
    count = int(rng.integers(3, 12))
    at = np.sort(rng.uniform(0.02, 0.9, count)) * t[-1] if rng.random() < 0.6 else np.linspace(0.05, 0.9, count) * t[-1]
    start = rng.uniform(0.1, 0.5)
    top = rng.uniform(0.85, 0.96) if breach else rng.uniform(start + 0.1, 0.92)
    rises = rng.uniform(0.3, 1.0, count)
    rises *= (top - start) / rises.sum()
    share = start + (rises[:, None] * (t[None, :] >= at[:, None])).sum(0)
    if breach:  # after the last step it no longer stands still
        begin = at[-1]
        share += np.maximum(t - begin, 0) / ((t[-1] - begin) * rng.uniform(0.3, 0.9)) * (1.0 - top)
    return share


def _daily_cycle(rng: Rng, t: FloatArray, breach: bool) -> FloatArray:
    height = rng.uniform(0.05, 0.25)
    middle = rng.uniform(0.3, 0.9 - height)
    wave = height * _daily(t, rng)
    if rng.random() < 0.4:
        wave *= np.where(((t + rng.uniform(0, 7) * DAY) // DAY) % 7 < 5, 1.0, 0.4)
    share = middle + wave
    if breach:
        begin = rng.uniform(0.0, 0.5) * t[-1]
        share += np.maximum(t - begin, 0) / ((t[-1] - begin) * rng.uniform(0.6, 0.95)) * (1.0 - middle - height * 0.7)
    return share


def _saturating(rng: Rng, t: FloatArray, breach: bool) -> FloatArray:
    start = rng.uniform(0.1, 0.5)
    top = rng.uniform(1.03, 1.3) if breach else rng.uniform(0.7, 0.96)
    begin = rng.uniform(0.0, 0.4) * t[-1]
    constant = rng.uniform(0.05, 0.3) * t[-1]
    return start + (top - start) * (1 - np.exp(-np.maximum(t - begin, 0) / constant))


def _wander(rng: Rng, t: FloatArray, breach: bool) -> FloatArray:
    back = np.exp(-(t[1] - t[0]) / float(np.exp(rng.uniform(np.log(HOUR), np.log(2 * DAY)))))
    kicks = rng.normal(size=len(t)) * np.sqrt(1 - back**2)
    walk = np.empty(len(t))
    level = 0.0
    for n, kick in enumerate(kicks):
        level = back * level + kick
        walk[n] = level
    middle = rng.uniform(0.3, 0.8)
    share = middle + walk * min(rng.uniform(0.02, 0.1), (0.97 - middle) / 4.5)
    if breach:
        begin = rng.uniform(0.4, 0.8) * t[-1]
        share += np.maximum(t - begin, 0) / ((t[-1] - begin) * rng.uniform(0.3, 0.9)) * (1.0 - middle)
    return share


def _enlarged(rng: Rng, t: FloatArray, breach: bool) -> FloatArray:
    """Grows, and is made larger or cleaned by hand, once or more; at last perhaps in vain."""
    count = int(rng.integers(1, 4))
    at = np.sort(rng.uniform(0.1, 0.8, count)) * t[-1]
    share = np.empty(len(t))
    level, begin = rng.uniform(0.2, 0.6), 0.0
    for end in [*at.tolist(), np.inf]:
        part = (t >= begin) & (t < end)
        if end < np.inf:
            top = rng.uniform(level, 0.9)
            share[part] = level + (top - level) * (t[part] - begin) / (end - begin)
            level, begin = top * rng.uniform(0.3, 0.8), end
        else:
            top = rng.uniform(1.02, 1.3) if breach else rng.uniform(level, 0.9)
            share[part] = level + (top - level) * (t[part] - begin) / (t[-1] - begin)
    return share


def _collected(rng: Rng, t: FloatArray, breach: bool) -> FloatArray:
    """A heap: teeth of the garbage collector, over a floor that stands or leaks."""
    tooth = max(float(np.exp(rng.uniform(np.log(600), np.log(6 * HOUR)))), 4 * (t[1] - t[0]))
    height, floor = rng.uniform(0.05, 0.35), rng.uniform(0.15, 0.5)
    teeth = _teeth(rng, t, tooth, 0.0, height, 0.05, np.inf)
    leak = (1.0 - floor - height) if breach else rng.uniform(0.0, max(0.9 - floor - height, 0.0))
    begin = rng.uniform(0.0, 0.4) * t[-1]
    return (
        floor + teeth + leak * np.maximum(t - begin, 0) / ((t[-1] - begin) * (rng.uniform(0.5, 0.95) if breach else 1))
    )


def _certificate(rng: Rng, t: FloatArray, breach: bool) -> FloatArray:
    life = float(rng.choice([30, 60, 90])) * DAY
    age = rng.uniform(0.0, 1.0) * life
    renewed = life if breach and rng.random() < 0.9 else life - rng.uniform(2, 20) * DAY
    if breach and t[-1] + age < life:
        age = life - rng.uniform(0.4, 0.95) * t[-1]
    ages = age + t
    if not breach:
        ages = ages % renewed
    return ages / life


def _quota(rng: Rng, t: FloatArray, breach: bool) -> FloatArray:
    """Used up over the day in lumps, set back at midnight."""
    cycle = DAY if t[-1] >= 3 * DAY else 6 * HOUR
    share = np.empty(len(t))
    at = t + rng.uniform(0, cycle)
    day = (at // cycle).astype(int)
    bad = int(rng.integers(max(day[-1] // 2, 1), day[-1] + 1)) if breach else -1
    usual = rng.uniform(0.4, 0.85)
    for n in np.unique(day):
        part = day == n
        rate = rng.exponential(size=int(part.sum())) ** 2 + 0.2
        used = np.cumsum(rate) / max(rate.sum(), 1e-9) * ((at[part][-1] % cycle) / cycle)
        share[part] = used * (rng.uniform(1.1, 1.6) if n == bad else usual * np.exp(rng.normal(0, 0.05)))
    return share


def _nightly(rng: Rng, t: FloatArray, breach: bool) -> FloatArray:
    """A job that takes room each night and gives it back; one night perhaps more than there is."""
    start, top = rng.uniform(0.2, 0.5), rng.uniform(0.6, 0.9)
    takes = max(rng.uniform(0.5, 3.0) * HOUR, 6 * (t[1] - t[0]))
    at = (t + rng.uniform(0, DAY)) % DAY
    night = ((t + rng.uniform(0, DAY)) // DAY).astype(int)
    heights = (top - start) * np.exp(rng.normal(0, 0.05, night[-1] + 2))
    if breach:
        heights[int(rng.integers(max(night[-1] // 2, 1), night[-1] + 1))] = 1.1 - start
    return start + heights[night] * np.clip(at / takes, 0, 1) * (at < 1.3 * takes)


def _restarted(rng: Rng, t: FloatArray, breach: bool) -> FloatArray:
    """A memory leak with a daily load, that deployments set back now and then."""
    low = rng.uniform(0.2, 0.4)
    rate = rng.uniform(0.25, 0.5) / (t[-1] / 3)
    share = np.empty(len(t))
    level, until = low, rng.exponential(t[-1] / 6)
    last = rng.uniform(0.3, 0.6) * t[-1] if breach else np.inf
    for n, now in enumerate(t):
        if (now >= until and now < last) or (not breach and level > 0.88):
            level, until = low, now + rng.exponential(t[-1] / 6)
        level += rate * (t[1] - t[0]) * (2.0 if now >= last else 1.0)
        share[n] = level
    return np.minimum(share, 1.2) + rng.uniform(0, 0.03) * _daily(t, rng)


def _plateau(rng: Rng, t: FloatArray, breach: bool) -> FloatArray:
    """Nearly full for ever; or a leak from there."""
    level = rng.uniform(0.85, 0.95)
    share = np.full(len(t), level) + rng.uniform(0, 0.01) * np.cumsum(rng.normal(size=len(t))) / np.sqrt(len(t))
    if breach:
        begin = rng.uniform(0.2, 0.7) * t[-1]
        share += np.maximum(t - begin, 0) / ((t[-1] - begin) * rng.uniform(0.1, 0.9)) * (1.02 - level)
    return share


FAMILIES: dict[str, Callable[[Rng, FloatArray, bool], FloatArray]] = {
    "linear": _linear,
    "fast fill": _fast_fill,
    "sawtooth": _sawtooth,
    "staircase": _staircase,
    "daily cycle": _daily_cycle,
    "saturating": _saturating,
    "wander": _wander,
    "enlarged": _enlarged,
    "collected": _collected,
    "certificate": _certificate,
    "quota": _quota,
    "nightly": _nightly,
    "restarted": _restarted,
    "plateau": _plateau,
}
