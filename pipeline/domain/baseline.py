"""Rolling robust baselines of all series at once: arrays, not an object a series.

Each series has 24 hour-of-day segments (UTC) and one global segment, each an exponentially weighted mean and
mean absolute deviation. A value enters clipped to ``CLIP_SIGMAS`` of its segment, so that an incident moves the
baseline slowly; values are compared first and learned afterwards, never the other way round.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

import numpy as np
import numpy.typing as npt

from pipeline.domain.telemetry import SeriesKey

FloatArray = npt.NDArray[np.float64]

SEGMENTS = 25
GLOBAL_SEGMENT = 24
MAD_TO_SIGMA = 1.2533
"""sqrt(pi / 2): standard deviation of a normal distribution over its mean absolute deviation."""
CLIP_SIGMAS = 4.0
MIN_WEIGHT_HOUR = 60.0
"""Samples an hour-of-day segment needs before it is trusted over the global one."""
MIN_WEIGHT_GLOBAL = 20.0
"""Samples a series needs before anything at all is said of it."""
MEMORY_SAMPLES = 2000.0
"""The weight of old samples decays with this horizon (samples per segment)."""
RELATIVE_FLOOR = 0.05
"""Sigma is never taken below this share of the mean: a constant series must not page for a crumb."""
MIN_SIGMA = 1e-9
"""Below this, in any unit, a series has shown no spread at all: it was always at 0."""


@dataclass(frozen=True, slots=True)
class Expectation:
    """What a baseline expects of one series now. ``weight`` is the number of samples behind it (0: none yet)."""

    mean: float
    sigma: float
    weight: float
    generated: bool = False

    @property
    def known(self) -> bool:
        return self.weight >= MIN_WEIGHT_GLOBAL

    def upper(self, sigmas: float) -> float:
        return self.mean + sigmas * self.sigma


@dataclass(frozen=True, slots=True)
class BaselineRow:
    """One series' state as it is stored: three arrays of ``SEGMENTS`` floats."""

    key: SeriesKey
    mean: Sequence[float]
    deviation: Sequence[float]
    weight: Sequence[float]
    generated_samples: int


class BaselineBank:
    """The baselines of a fleet. Rows are added as series appear; all arithmetic is vectorised over rows."""

    def __init__(self, rows: Iterable[BaselineRow] = ()) -> None:
        stored = list(rows)
        self._index: dict[SeriesKey, int] = {row.key: at for at, row in enumerate(stored)}
        self._mean = _array([row.mean for row in stored])
        self._deviation = _array([row.deviation for row in stored])
        self._weight = _array([row.weight for row in stored])
        self._generated = np.array([row.generated_samples for row in stored], dtype=np.int64)

    def __len__(self) -> int:
        return len(self._index)

    def __iter__(self) -> Iterator[SeriesKey]:
        return iter(self._index)

    def expect(self, key: SeriesKey, at: datetime) -> Expectation:
        """The expectation for ``key`` at ``at``; weight 0 for a series never seen."""
        row = self._index.get(key)
        if row is None:
            return Expectation(mean=float("nan"), sigma=float("nan"), weight=0.0)
        mean, sigma, weight = self._read(np.array([row]), _hour(at))
        return Expectation(float(mean[0]), float(sigma[0]), float(weight[0]), bool(self._generated[row] > 0))

    def learn(
        self, keys: Sequence[SeriesKey], values: Sequence[float], at: datetime, *, generated: bool = False
    ) -> None:
        """Takes one value per series into the baselines. Not-finite values are passed over.

        ``generated`` marks made-up history (the demo's warm-up); the mark stays with the series.
        """
        finite = [(key, value) for key, value in zip(keys, values, strict=True) if np.isfinite(value)]
        if not finite:
            return
        rows = np.array([self._row(key) for key, _ in finite])
        fresh = np.array([value for _, value in finite], dtype=np.float64)
        for segment in (_hour(at), GLOBAL_SEGMENT):
            self._learn_segment(rows, fresh, segment)
        if generated:
            self._generated[rows] += 1

    def rows(self, keys: Iterable[SeriesKey]) -> list[BaselineRow]:
        """The state of ``keys`` for storing."""
        found = [(key, self._index[key]) for key in keys if key in self._index]
        return [
            BaselineRow(
                key,
                self._mean[row].tolist(),
                self._deviation[row].tolist(),
                self._weight[row].tolist(),
                int(self._generated[row]),
            )
            for key, row in found
        ]

    def _row(self, key: SeriesKey) -> int:
        row = self._index.get(key)
        if row is None:
            row = self._index[key] = len(self._index)
            empty = np.zeros((1, SEGMENTS))
            self._mean = np.vstack([self._mean, empty])
            self._deviation = np.vstack([self._deviation, empty])
            self._weight = np.vstack([self._weight, empty])
            self._generated = np.append(self._generated, 0)
        return row

    def _read(self, rows: npt.NDArray[np.int_], hour: int) -> tuple[FloatArray, FloatArray, FloatArray]:
        hourly = self._weight[rows, hour] >= MIN_WEIGHT_HOUR
        segment = np.where(hourly, hour, GLOBAL_SEGMENT)
        mean = self._mean[rows, segment]
        sigma = np.maximum(MAD_TO_SIGMA * self._deviation[rows, segment], RELATIVE_FLOOR * np.abs(mean))
        return mean, np.maximum(sigma, MIN_SIGMA), self._weight[rows, segment]

    def _learn_segment(self, rows: npt.NDArray[np.int_], values: FloatArray, segment: int) -> None:
        weight = self._weight[rows, segment]
        mean = self._mean[rows, segment]
        sigma = np.maximum(MAD_TO_SIGMA * self._deviation[rows, segment], RELATIVE_FLOOR * np.abs(mean))
        # Without spread the clip would hold a series at 0 for ever; the value itself then says how far it may pull.
        sigma = np.where(sigma < MIN_SIGMA, RELATIVE_FLOOR * np.abs(values), sigma)
        settled = weight >= MIN_WEIGHT_GLOBAL
        low, high = mean - CLIP_SIGMAS * sigma, mean + CLIP_SIGMAS * sigma
        clipped = np.where(settled, np.clip(values, low, high), values)
        rate = 1.0 / np.minimum(weight + 1.0, MEMORY_SAMPLES)
        updated = mean + rate * (clipped - mean)
        self._mean[rows, segment] = updated
        self._deviation[rows, segment] += rate * (np.abs(clipped - updated) - self._deviation[rows, segment])
        self._weight[rows, segment] = weight + 1.0


def _array(rows: Sequence[Sequence[float]]) -> FloatArray:
    return np.array(rows, dtype=np.float64).reshape(len(rows), SEGMENTS)


def _hour(at: datetime) -> int:
    return at.astimezone(UTC).hour
