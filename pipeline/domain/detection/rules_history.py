"""The last two hours of request signals, a cell a minute: what the rules with a longer look work on."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from math import nan

import numpy as np
import numpy.typing as npt

from pipeline.domain.baseline import MIN_WEIGHT_GLOBAL, Expectations
from pipeline.domain.telemetry import Sample, SeriesKey, Signal

FloatArray = npt.NDArray[np.float32]

MINUTES = 128
LONG_AGO = datetime.min.replace(tzinfo=UTC)
KEPT = (Signal.LATENCY_P99, Signal.ERROR_RATIO, Signal.TRAFFIC, Signal.CPU_RATIO)


class MinuteHistory:
    """Values and what was expected of them: float32 arrays (series, 128) that go round; NaN where nothing was told.

    Only series of a service as a whole are kept. About 1 kB a series.
    """

    def __init__(self) -> None:
        self.keys: list[SeriesKey] = []
        self._rows: dict[SeriesKey, int] = {}
        self._values = np.full((16, MINUTES), np.nan, dtype=np.float32)
        self._expected = np.full((16, MINUTES), np.nan, dtype=np.float32)
        self._sigma = np.full(16, np.nan, dtype=np.float32)
        self._excess = np.zeros(16, dtype=np.float32)
        self._told: list[datetime] = []
        self._asked: list[SeriesKey] = []
        self._kept: list[tuple[int, int]] = []
        self._in_cell = np.zeros(16, dtype=np.int32)
        self._minute = -1

    def take(
        self, keys: Sequence[SeriesKey], series: Sequence[Sequence[Sample]], expected: Expectations, now: datetime
    ) -> None:
        """Takes the samples of ``series`` (of ``keys``, oldest first) that are newer than all taken of their key."""
        self._advance(int(now.timestamp() // 60))
        if keys != self._asked:
            self._asked = list(keys)
            kept = [at for at, key in enumerate(keys) if key.signal in KEPT and not key.instance]
            self._kept = [(at, self.row(keys[at])) for at in kept]
        places, rows, values = [], [], []
        for at, row in self._kept:
            samples, last = series[at], self._told[row]
            newest = samples[-1]
            if newest.at <= last:
                continue
            self._told[row] = newest.at
            if len(samples) > 1 and samples[-2].at > last:
                usual = float(expected.mean[at]) if expected.weight[at] >= MIN_WEIGHT_GLOBAL else nan
                for sample in samples[:-1]:
                    if sample.at > last:
                        self._put(row, int(sample.at.timestamp() // 60), sample.value, usual)
            places.append(at)
            rows.append(row)
            values.append(newest.value if newest.at.timestamp() // 60 == self._minute else nan)
        if rows:
            self._put_newest(np.array(rows), np.array(values), expected, np.array(places))

    def _put_newest(
        self,
        rows: npt.NDArray[np.intp],
        values: npt.NDArray[np.float64],
        expected: Expectations,
        at: npt.NDArray[np.intp],
    ) -> None:
        """Samples of the newest minute, one a series; several a minute become their mean."""
        known = expected.known[at]
        self._sigma[rows] = np.where(known, expected.sigma[at], nan)
        self._excess[rows] = expected.excess[at]
        column = self._minute % MINUTES
        told = np.isfinite(values)
        rows, values, at, known = rows[told], values[told], at[told], known[told]
        count = self._in_cell[rows]
        held = np.where(count > 0, self._values[rows, column], 0.0)
        self._values[rows, column] = (held * count + values) / (count + 1)
        self._expected[rows, column] = np.where(known, expected.mean[at], nan)
        self._in_cell[rows] += 1

    def row(self, key: SeriesKey) -> int:
        """The row of ``key``, made when it is new."""
        row = self._rows.get(key)
        if row is None:
            row = self._rows[key] = len(self.keys)
            self.keys.append(key)
            self._told.append(LONG_AGO)
            if row == len(self._values):
                more = np.full_like(self._values, np.nan)
                self._values = np.concatenate((self._values, more))
                self._expected = np.concatenate((self._expected, more))
                self._sigma = np.concatenate((self._sigma, np.full(row, np.nan, dtype=np.float32)))
                self._excess = np.concatenate((self._excess, np.zeros(row, dtype=np.float32)))
                self._in_cell = np.concatenate((self._in_cell, np.zeros(row, dtype=np.int32)))
        return row

    def known(self, key: SeriesKey) -> int | None:
        """The row of ``key``; None when nothing was told of it."""
        return self._rows.get(key)

    def last(self, minutes: int) -> tuple[FloatArray, FloatArray]:
        """Values and expectations of all series over the newest ``minutes``, oldest first: two arrays (n, minutes)."""
        columns = np.arange(self._minute - minutes + 1, self._minute + 1) % MINUTES
        count = len(self.keys)
        return self._values[:count, columns], self._expected[:count, columns]

    def span(self, row: int, start: datetime, end: datetime) -> tuple[FloatArray, FloatArray]:
        """Values and expectations of one series in the minutes from ``start`` up to ``end``, as far as kept."""
        first = max(int(start.timestamp() // 60), self._minute - MINUTES + 1)
        stop = min(int(end.timestamp() // 60), self._minute + 1)
        columns = np.arange(first, max(stop, first)) % MINUTES
        return self._values[row, columns], self._expected[row, columns]

    @property
    def sigma(self) -> FloatArray:
        """The newest sigma of each series (n,)."""
        return self._sigma[: len(self.keys)]

    @property
    def excess(self) -> FloatArray:
        """How many sigmas each series usually goes beyond its mean at this time of day (n,)."""
        return self._excess[: len(self.keys)]

    def _advance(self, minute: int) -> None:
        if self._minute < 0:
            self._minute = minute - 1
        passed = min(minute - self._minute, MINUTES)
        if passed > 0:
            columns = np.arange(minute - passed + 1, minute + 1) % MINUTES
            self._values[:, columns] = np.nan
            self._expected[:, columns] = np.nan
            self._in_cell[:] = 0
            self._minute = minute

    def _put(self, row: int, minute: int, value: float, expected: float) -> None:
        if not self._minute - MINUTES < minute <= self._minute or not np.isfinite(value):
            return
        column = minute % MINUTES
        held = self._values[row, column]
        if held == held:
            # Several samples a minute: their mean; of an older minute that is told again, the newest.
            count = int(self._in_cell[row]) if minute == self._minute else 0
            value = float((held * count + value) / (count + 1))
        self._values[row, column] = value
        self._expected[row, column] = expected
        if minute == self._minute:
            self._in_cell[row] += 1
