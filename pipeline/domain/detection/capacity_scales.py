"""One series at many time scales: buckets with their highest and lowest value, each scale made from the one below."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]

KEPT = 64
"""Buckets a scale remembers."""
DOUBLED_TO_S = 4 * 3600.0
"""Scales double up to this width; two more follow that fit into days."""
LONG_WIDTHS_S = (8 * 3600.0, 86_400.0)
SHORTEST_WIDTH_S = 10.0


class Scales:
    """The newest buckets of one series at every scale, finest first; memory does not grow.

    ``ts``, ``high``, ``low`` are (scales, KEPT), newest rightmost, NaN where there is none yet: the epoch second of
    each bucket's highest value, that value, and the lowest. The finest scale is up to date; of the others the bucket
    that is still open is left out. Samples show in the arrays after `flush`.
    """

    def __init__(self, period_s: float) -> None:
        self.widths_s: list[float] = _widths(period_s)
        self._store = np.full((3, len(self.widths_s), KEPT), np.nan)
        self.ts, self.high, self.low = self._store
        self._pending: list[list[tuple[float, float, float]]] = [[] for _ in self.widths_s]
        self._bucket = [-np.inf] * len(self.widths_s)
        self._open = [(np.nan, -np.inf, np.inf)] * len(self.widths_s)

    def add(self, ts: float, value: float) -> None:
        """Takes the next sample: ``ts`` in epoch seconds, later than all before; ``value`` finite."""
        if len(self._pending[0]) >= KEPT:
            self.flush()
        closed = (ts, value, value)
        for level, width_s in enumerate(self.widths_s):
            at, high, low = closed
            bucket = at // width_s
            ts_open, high_open, low_open = self._open[level]
            if bucket == self._bucket[level]:
                if high > high_open:
                    ts_open, high_open = at, high
                self._open[level] = (ts_open, high_open, min(low, low_open))
                if level == 0 and self._pending[0]:
                    self._pending[0][-1] = self._open[0]
                elif level == 0:
                    self._store[:, 0, -1] = self._open[0]
                return
            self._bucket[level] = bucket
            self._open[level] = closed
            if level == 0:
                self._pending[0].append(closed)
            elif ts_open == ts_open:
                self._pending[level].append((ts_open, high_open, low_open))
            closed = (ts_open, high_open, low_open)
            if ts_open != ts_open:
                return

    def flush(self) -> None:
        """Writes the buckets closed since the last time; in blocks, because a numpy call costs more than the data."""
        for level, pending in enumerate(self._pending):
            if pending:
                count = min(len(pending), KEPT)
                kept = self._store[:, level]
                kept[:, :-count] = kept[:, count:]
                kept[:, -count:] = np.array(pending[-count:]).T
                pending.clear()

    def fill(self, ts: FloatArray, values: FloatArray) -> None:
        """Takes a whole stored series at once (ascending times, finite values). Nothing may be added after it."""
        high = low = values
        for level, width_s in enumerate(self.widths_s):
            bucket = np.floor(ts / width_s)
            starts = np.flatnonzero(bucket[1:] != bucket[:-1]) + 1
            if len(starts) + 1 < len(ts):
                starts = np.concatenate(([0], starts))
                top = np.maximum.reduceat(high, starts)
                sizes = np.concatenate((starts[1:], [len(ts)])) - starts
                at_top = np.flatnonzero(high == np.repeat(top, sizes))
                first = at_top[np.searchsorted(at_top, starts)]
                low = np.minimum.reduceat(low, starts)
                ts, high = ts[first], top
            shown = slice(max(len(ts) - KEPT - 1, 0), -1) if level else slice(-KEPT, None)
            count = len(ts[shown])
            if count:
                self.ts[level, -count:], self.high[level, -count:], self.low[level, -count:] = (
                    ts[shown],
                    high[shown],
                    low[shown],
                )


def _widths(period_s: float) -> list[float]:
    """Bucket widths in seconds, ascending, for a series with a sample every ``period_s``."""
    width = max(period_s, SHORTEST_WIDTH_S)
    found = [width]
    while (width := 2 * width) <= DOUBLED_TO_S:
        found.append(width)
    return found + [long for long in LONG_WIDTHS_S if long > found[-1]]
