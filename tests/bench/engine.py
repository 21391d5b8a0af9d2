"""Speed of the detection engine: a step of a fleet, one series streamed, checkpoint and restore, memory.

The baseline is a rolling z-score over the last 60 points kept per series in plain Python, the usual way to write one.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator
from math import sqrt

import numpy as np

from pipeline.domain.detection.compiled import COMPILED
from pipeline.domain.detection.fleet import FleetDetector, SeriesDetector

SERIES = 100_000
STEPS = 150
"""Two and a half hours of minutes: ten times a bin of the profile is left."""
BASELINE_SERIES = 1_000
BASELINE_STEPS = 70
STREAMED = 200_000
ROWS = 1_000_000
MINUTE = 60.0
START = 1_750_032_000.0


class RollingZScore:
    """The baseline: distance from the mean of the last 60 points in their standard deviations."""

    def __init__(self, window: int = 60) -> None:
        self.values: deque[float] = deque(maxlen=window)

    def update(self, value: float) -> bool:
        found = False
        count = len(self.values)
        if count > 10:
            mean = sum(self.values) / count
            deviation = sqrt(sum((past - mean) ** 2 for past in self.values) / count)
            found = deviation > 0.0 and abs(value - mean) > 3.0 * deviation
        self.values.append(value)
        return found


def run() -> None:
    if not COMPILED:
        print("numba is not installed: this measures the plain Python of the kernel, slower by some hundred times")
    warm = FleetDetector(1, MINUTE)
    warm.step(START, [1.0])
    baseline_rate = _baseline()
    rate = _fleet()
    print(f"the fleet's step is {rate / baseline_rate:,.0f} times the baseline's throughput (mark: 40)")
    _streaming()


def _points(series: int, steps: int) -> Iterator[np.ndarray]:
    rng = np.random.default_rng(0)
    base = rng.uniform(10.0, 1000.0, series)
    for _ in range(steps):
        yield base * (1.0 + 0.1 * rng.standard_normal(series))


def _baseline() -> float:
    detectors = [RollingZScore() for _ in range(BASELINE_SERIES)]
    spent_s = 0.0
    for values in _points(BASELINE_SERIES, BASELINE_STEPS):
        points = values.tolist()
        started = time.perf_counter()
        for detector, value in zip(detectors, points, strict=True):
            detector.update(value)
        spent_s += time.perf_counter() - started
    rate = BASELINE_SERIES * BASELINE_STEPS / spent_s
    print(f"baseline, pure-Python rolling z-score: {rate / 1e6:.2f} M series/s")
    return rate


def _fleet() -> float:
    fleet = FleetDetector(SERIES, MINUTE)
    took_s = []
    for at, values in enumerate(_points(SERIES, STEPS)):
        started = time.perf_counter()
        fleet.step(START + MINUTE * at, values)
        took_s.append(time.perf_counter() - started)
    median_s, p95_s = np.percentile(took_s[5:], [50, 95])
    print(
        f"step of {SERIES:,} series: median {median_s * 1e3:.1f} ms, p95 {p95_s * 1e3:.1f} ms (mark: 40), "
        f"{SERIES / median_s / 1e6:.1f} M series/s (mark: 5)"
    )
    started = time.perf_counter()
    data = fleet.checkpoint()
    wrote_s = time.perf_counter() - started
    started = time.perf_counter()
    FleetDetector.restore(data)
    print(
        f"checkpoint {wrote_s:.2f} s, restore {time.perf_counter() - started:.2f} s (mark: 5 in all), "
        f"{len(data) / SERIES:,.0f} bytes a series (mark: 2500)"
    )
    return float(SERIES / median_s)


def _streaming() -> None:
    values = next(_points(ROWS, 1)).tolist()
    ts = (START + MINUTE * np.arange(ROWS)).tolist()
    detector = SeriesDetector("latency", MINUTE)
    started = time.perf_counter()
    for at, value in zip(ts[:STREAMED], values[:STREAMED], strict=True):
        detector.update(at, value)
    each_us = (time.perf_counter() - started) / STREAMED * 1e6
    print(f"one series streamed: {each_us:.1f} µs a point (mark: 25), 1 M rows in {each_us:.1f} s (mark: 25)")
    detector = SeriesDetector("latency", MINUTE)
    started = time.perf_counter()
    detector.replay(ts, values)
    print(f"1 M rows replayed: {time.perf_counter() - started:.2f} s")
