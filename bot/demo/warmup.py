"""A history for the baselines, made up around what the healthy services really show, and labelled as generated.

A new installation learns for days before it may speak; the demo cannot wait. What is generated is marked in the store
(``generated_samples``) and on every card that rests on it.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Sequence
from datetime import UTC, datetime

import numpy as np

from pipeline.domain.baseline import MIN_WEIGHT_HOUR, BaselineBank
from pipeline.domain.telemetry import SeriesKey
from pipeline.ports.metrics import MetricsSource
from pipeline.ports.store import Store

READINGS = 12
PAUSE_S = 1.0
NOISE_RATIO = 0.06
"""Spread of the made-up values around the measured mean, as a share of it."""
DAILY_SWING_RATIO = 0.04


async def warm_up(source: MetricsSource, store: Store, *, window_s: float, say: Callable[[str], None]) -> int:
    """Measures the healthy services for a few seconds and stores a day of generated history for each series.

    Returns the number of series; 0 when there are baselines already (an earlier start made them).
    """
    async with store.begin() as uow:
        if await uow.telemetry.load_baselines():
            return 0
    total_s = window_s + READINGS * PAUSE_S
    say(f"measuring the healthy services for {total_s:.0f} s, to make up a day of history around what they show")
    measured: dict[SeriesKey, list[float]] = {}
    for number in range(int(window_s / PAUSE_S) + READINGS):
        reading = await source.read(datetime.now(UTC))
        if number * PAUSE_S >= window_s:
            for sample in reading.samples:
                measured.setdefault(sample.key, []).append(sample.value)
        await asyncio.sleep(PAUSE_S)
    bank = BaselineBank()
    keys = sorted(measured)
    generate(bank, keys, [float(np.median(measured[key])) for key in keys])
    async with store.begin() as uow:
        await uow.telemetry.save_baselines(bank.rows(keys))
    return len(keys)


def generate(bank: BaselineBank, keys: Sequence[SeriesKey], centres: Sequence[float], *, seed: int = 7) -> None:
    """Teaches ``bank`` a day of values around ``centres`` with a small daily swing and noise."""
    random = np.random.default_rng(seed)
    today = datetime.now(UTC).replace(minute=0, second=0, microsecond=0)
    for hour in range(24):
        swing = 1 + DAILY_SWING_RATIO * math.sin(2 * math.pi * hour / 24)
        for _ in range(int(MIN_WEIGHT_HOUR) + 5):
            noise = random.normal(1.0, NOISE_RATIO, len(keys))
            values = [centre * swing * float(wobble) for centre, wobble in zip(centres, noise, strict=True)]
            bank.learn(keys, values, today.replace(hour=hour), generated=True)
