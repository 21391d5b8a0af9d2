"""Made-up series for the novelty lane: hosts, balancers, message counts, demand, machines, and plain daily patterns.

Everything comes from one seed. Nothing in here looks at the detector. Each family has nuisances that are no anomaly:
small spikes, unlabelled steps, trends and changes of spread.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Values = npt.NDArray[np.float64]
Rng = np.random.Generator
Events = list[tuple[int, int]]
Made = tuple[float, Values, Events]

DAY_S = 86_400.0
TWO_WEEKS = 4032
"""Points of five minutes."""


@dataclass(frozen=True, slots=True)
class Series:
    """``events`` are pairs of the first and the last point of what is wrong."""

    family: str
    period_s: float
    values: Values
    events: Events


def days(points: int, period_s: float) -> Values:
    return np.arange(points, dtype=np.float64) * (period_s / DAY_S)


def starts(rng: Rng, points: int, count: int) -> list[int]:
    """``count`` starts after the first fifth, an eighth of the series apart."""
    while True:
        found = np.sort(rng.uniform(0.2, 0.95, count) * points).astype(int)
        if count < 2 or np.diff(found).min() > 0.12 * points:
            return [int(at) for at in found]


def host_flat(rng: Rng) -> Made:
    base = 10 ** rng.uniform(-1.0, 1.7)
    values = base * (1.0 + rng.uniform(0.01, 0.08) * rng.standard_normal(TWO_WEEKS))
    spike = base * rng.uniform(0.2, 1.5)
    usual = rng.choice(TWO_WEEKS, rng.integers(5, 60), replace=False)
    values[usual] += spike * rng.exponential(size=len(usual))
    events = []
    for at in starts(rng, TWO_WEEKS, int(rng.integers(1, 3))):
        length = int(rng.integers(1, 30))
        values[at : at + length] += spike * rng.uniform(3.0, 12.0) + base * 0.2
        events.append((at, at + length))
    return 300.0, values, events


def host_steps(rng: Rng) -> Made:
    base, echo = rng.uniform(20.0, 90.0), rng.uniform(0.0, 0.95)
    noise = rng.standard_normal(TWO_WEEKS) * base * rng.uniform(0.01, 0.05)
    for at in range(1, TWO_WEEKS):
        noise[at] += echo * noise[at - 1]
    values, spread, events = base + noise, float(noise.std()), []
    for at in starts(rng, TWO_WEEKS, int(rng.integers(1, 3))):
        lasts = TWO_WEEKS if rng.random() < 0.6 else int(rng.integers(12, 200))
        values[at : at + lasts] += rng.choice([-1.0, 1.0]) * spread * rng.uniform(3.0, 10.0)
        events.append((at, at + min(lasts, 20)))
    return 300.0, values, events


def host_jobs(rng: Rng) -> Made:
    base, every, width = rng.uniform(1.0, 5.0), int(rng.choice([12, 24, 36, 72, 144])), int(rng.integers(1, 4))
    values, height = base * (1.0 + 0.05 * rng.standard_normal(TWO_WEEKS)), base * rng.uniform(2.0, 6.0)
    for at in range(0, TWO_WEEKS, every):
        late = at + int(rng.integers(0, 2))
        values[late : late + width] += height * rng.uniform(0.8, 1.2)
    events = []
    for at in starts(rng, TWO_WEEKS, int(rng.integers(1, 3))):
        higher = rng.random() < 0.6
        length = int(rng.integers(1, 10)) if higher else int(rng.integers(20, 60))
        values[at : at + length] += height * (rng.uniform(1.1, 4.0) if higher else 0.9)
        events.append((at, at + length))
    return 300.0, values, events


def bytes_moved(rng: Rng) -> Made:
    points, base = int(rng.integers(1300, 4700)), 10 ** rng.uniform(2.0, 6.0)
    values, burst = base * rng.lognormal(0.0, rng.uniform(0.1, 0.6), points), base * rng.uniform(3.0, 10.0)
    usual = rng.choice(points, points // int(rng.integers(40, 150)), replace=False)
    values[usual] += burst * rng.lognormal(0.0, 0.5, len(usual))
    events = []
    for at in starts(rng, points, int(rng.integers(1, 4))):
        length = int(rng.integers(1, 20))
        values[at : at + length] += burst * rng.uniform(2.5, 9.0)
        events.append((at, at + length))
    return 300.0, values, events


def balancer(rng: Rng) -> Made:
    time, base = days(TWO_WEEKS, 300.0), rng.uniform(20.0, 200.0)
    rate = base * (1.0 + 0.6 * np.sin(2 * np.pi * (time + rng.random()))) * np.where(time % 7 > 5, 0.8, 1.0)
    values = rng.poisson(rate * rng.gamma(6.0, 1 / 6, TWO_WEEKS)).astype(float)
    events = []
    for at in starts(rng, TWO_WEEKS, 2):
        length = int(rng.integers(1, 12))
        values[at : at + length] += base * rng.uniform(2.5, 8.0)
        events.append((at, at + length))
    return 300.0, values, events


def messages(rng: Rng) -> Made:
    points = 15_840
    time, base = days(points, 300.0), 10 ** rng.uniform(0.7, 2.0)
    rate = base * (1.0 + 0.6 * np.sin(2 * np.pi * (time + rng.random()))) * np.where(time % 7 > 5, 0.7, 1.0)
    rate *= np.exp(0.3 * np.repeat(rng.standard_normal(points // 48 + 1), 48)[:points])
    values = rng.poisson(rate * rng.gamma(4.0, 0.25, points)).astype(float)
    for at in rng.choice(points - 40, int(rng.integers(10, 60)), replace=False):
        length = int(rng.integers(1, 6))
        values[at : at + length] += rng.poisson(base * 2.0 * rng.pareto(2.0) + 1.0, length)
    events = []
    for at in starts(rng, points, int(rng.integers(2, 5))):
        length = min(int(rng.integers(4, 120)), points - at)
        fading = np.exp(-np.arange(length) / (length / 3))
        values[at : at + length] += rng.poisson(base * rng.uniform(2.5, 20.0) * fading)
        events.append((at, at + length))
    return 300.0, values, events


def demand(rng: Rng) -> Made:
    points = 10_320
    time = days(points, 1800.0)
    hour, weekday = time % 1, (time % 7).astype(int)
    values = 15_000 + 9000 * np.sin(2 * np.pi * (hour - 0.55)) + 3000 * np.sin(4 * np.pi * (hour - 0.1))
    values = values * np.array([0.95, 1.0, 1.02, 1.05, 1.08, 1.05, 0.93])[weekday]
    values += np.where((weekday >= 5) & (hour < 0.2), 5000.0, 0.0)
    values *= 1.0 + 0.04 * np.repeat(rng.standard_normal(points // 48 + 1), 48)[:points]
    values += 500.0 * rng.standard_normal(points)
    events = []
    for start in starts(rng, points, 5):
        midnight = start // 48 * 48
        if rng.random() < 0.7:
            values[midnight + 12 : midnight + 54] *= rng.uniform(0.15, 0.7)
            events.append((midnight + 14, midnight + 54))
        else:
            values[midnight + 2 : midnight + 8] += rng.uniform(9000.0, 15_000.0)
            events.append((midnight + 2, midnight + 8))
    return 1800.0, np.maximum(values, 0.0), events


def machine(rng: Rng) -> Made:
    points = 22_695
    wander = rng.standard_normal(points) * 0.5
    for at in range(1, points):
        wander[at] += 0.995 * wander[at - 1]
    values = 85.0 + wander + 3.0 * np.sin(2 * np.pi * days(points, 300.0) + 1.0) + 0.5 * rng.standard_normal(points)
    spread, events = float(values.std()), []
    for at in starts(rng, points, 3):
        length = min(int(rng.choice([200, 600])), points - at)
        values[at : at + length] -= np.linspace(0.0, 8.0 * spread, length)
        events.append((at + length // 8, at + length))
    return 300.0, values, events


def pattern(rng: Rng) -> Made:
    time = days(TWO_WEEKS, 300.0)
    busy, tenth = (time % 1 > 0.375) & (time % 1 < 0.75), time.astype(int) == 10
    values = np.where(busy, 80.0, 20.0) + rng.choice([0.0, 1.0, 4.0]) * rng.random(TWO_WEEKS)
    opens = int(np.nonzero(tenth & busy)[0][0])
    values[tenth & busy] *= rng.choice([2.0, 0.5, 0.25, 1.0 / 4.0])
    return 300.0, values, [(opens, opens + 108)]


def nothing_wrong(rng: Rng) -> Made:
    busy = (days(TWO_WEEKS, 300.0) % 1 > 0.375) & (days(TWO_WEEKS, 300.0) % 1 < 0.75)
    shape = int(rng.integers(0, 4))
    if shape == 0:
        return 300.0, np.full(TWO_WEEKS, 45.0), []
    if shape == 1:
        return 300.0, np.where(busy, 80.0, 20.0), []
    if shape == 2:
        return 300.0, np.where(busy, 80.0, 20.0) + 8.0 * rng.random(TWO_WEEKS), []
    return 300.0, 20.0 + 4.0 * rng.standard_normal(TWO_WEEKS), []


def speed(rng: Rng) -> Made:
    points = 2500
    time = days(points, 480.0)
    rush = np.exp(-(((time % 1 - 0.33) / 0.03) ** 2)) + np.exp(-(((time % 1 - 0.72) / 0.04) ** 2))
    values = 70.0 - 12.0 * rush * (time % 7 < 5) * rng.uniform(0.3, 1.6, points) + 3.0 * rng.standard_normal(points)
    values[rng.choice(points, 15, replace=False)] -= rng.uniform(5.0, 25.0, 15)
    events = []
    for at in starts(rng, points, int(rng.integers(1, 4))):
        length = int(rng.integers(4, 25))
        values[at : at + length] -= rng.uniform(18.0, 50.0)
        events.append((at, at + length))
    return 480.0, np.maximum(values, 3.0), events


def prices(rng: Rng) -> Made:
    points = 1650
    values = rng.lognormal(0.0, rng.uniform(0.2, 0.4), points) * (1.0 + 0.3 * np.sin(2 * np.pi * days(points, 3600.0)))
    mean = float(values.mean())
    values[rng.choice(points, 10, replace=False)] += mean * 1.5 * rng.exponential(size=10)
    events = []
    for at in starts(rng, points, int(rng.integers(1, 4))):
        length = int(rng.integers(1, 6))
        values[at : at + length] += mean * rng.uniform(2.5, 10.0)
        events.append((at, at + length))
    return 3600.0, values, events


def memory(rng: Rng) -> Made:
    walk = np.cumsum(rng.standard_normal(TWO_WEEKS + 300) * 0.05)
    values = (60.0 + walk - 0.7 * np.convolve(walk, np.ones(600) / 600, "same"))[300:]
    spread, events = float(values.std()), []
    for at in starts(rng, TWO_WEEKS, int(rng.integers(1, 3))):
        leak = rng.random() < 0.5
        length = min(300, TWO_WEEKS - at)
        values[at : at + length] += np.linspace(0.0, 10.0 * spread, length) if leak else 6.0 * spread
        events.append((at + 50 * leak, at + (length if leak else 20)))
    return 300.0, values, events


def hourly(rng: Rng) -> Made:
    points = int(rng.choice([1420, 1680]))
    time, size = days(points, 3600.0), 10 ** rng.uniform(0.0, 4.0)
    values = size * (1.0 + rng.uniform(-0.5, 1.0) * time / time[-1])
    for share, cycles in ((0.5, 1.0), (0.2, 2.0), (0.25, 1 / 7)):
        values += size * rng.uniform(0.0, share) * np.sin(2 * np.pi * (time * cycles + rng.random()))
    if rng.random() < 0.4:
        values *= np.where(time % 7 > 5, rng.uniform(0.6, 0.95), 1.0)
    noise = size * rng.uniform(0.01, 0.08)
    values += noise * (rng.standard_normal(points) if rng.random() < 0.5 else rng.standard_t(4, points))
    events = []
    for at in rng.choice(np.arange(points // 5, points - 5), int(rng.integers(0, 8)), replace=False):
        length = int(rng.choice([1, 1, 1, 2, 4]))
        size_of_it = noise * rng.uniform(4.0, 10.0) + size * rng.uniform(0.0, 0.3)
        values[at : at + length] += rng.choice([-1.0, 1.0]) * size_of_it
        events.append((int(at), int(at) + length - 1))
    if rng.random() < 0.4:
        at = int(rng.uniform(0.3, 0.9) * points)
        values[at:] += rng.choice([-1.0, 1.0]) * (noise * 6.0 + size * rng.uniform(0.0, 0.4))
        events.append((at, at))
    return 3600.0, values, sorted(events)


FAMILIES: tuple[tuple[Callable[[Rng], Made], int], ...] = (
    *((host_flat, 4), (host_steps, 4), (host_jobs, 3), (bytes_moved, 4), (balancer, 2), (messages, 5), (demand, 1)),
    *((machine, 1), (pattern, 4), (nothing_wrong, 5), (speed, 6), (prices, 6), (memory, 3)),
)
"""The families and how many series of each a corpus has."""
REGULAR = (pattern, nothing_wrong, demand)


def with_nuisance(rng: Rng, values: Values) -> Values:
    """The same with what operators live with: small spikes, steps, changing spread, trends."""
    points, low, high = len(values), *np.quantile(values, [0.05, 0.95])
    width, floor, changed = high - low, 0.0 if values.min() >= 0.0 else -np.inf, values.copy()
    if rng.random() < 0.4:
        for at in rng.choice(points - 8, int(rng.integers(3, 30)), replace=False):
            changed[at : at + int(rng.choice([1, 1, 2, 6]))] += width * rng.exponential() * rng.choice([1.0, 1.0, -0.6])
    if rng.random() < 0.35:
        changed[int(rng.uniform(0.05, 0.95) * points) :] += width * rng.uniform(-0.8, 0.8)
    if rng.random() < 0.3:
        knots = np.interp(np.arange(points), np.linspace(0, points, 12), rng.standard_normal(12))
        changed = np.median(values) + (changed - np.median(values)) * np.exp(0.25 * knots)
    if rng.random() < 0.3:
        changed += width * rng.uniform(0.3, 1.5) * np.linspace(0.0, rng.choice([-1.0, 1.0]), points)
    return np.maximum(changed, floor)


def corpus(half: int) -> Iterator[Series]:
    """47 or so series of all families but `hourly`; halves have nothing in common."""
    for number, (family, count) in enumerate(FAMILIES):
        for at in range(count):
            rng = np.random.default_rng([half, at, number, 4])
            period_s, values, events = family(rng)
            yield Series(family.__name__, period_s, values if family in REGULAR else with_nuisance(rng, values), events)


def hourly_corpus(half: int, count: int = 60) -> Iterator[Series]:
    for at in range(count):
        yield Series("hourly", *hourly(np.random.default_rng([half, at, 77])))
