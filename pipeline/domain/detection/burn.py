"""How fast a service spends its error budget, over several windows at once.

The windows and factors are those of the Google SRE Workbook, chapter 5 ("Alerting on SLOs"): both the long and the
short window must burn, so that it is worth a page and not over already. Counts are kept in buckets of five minutes.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

BUCKET_S = 300.0
LONGEST_S = 3 * 86_400.0
BUCKETS = int(LONGEST_S / BUCKET_S)
LEAST_FAILED = 10.0
"""Failed requests in the long window that a page needs at least."""
MIN_SEEN_SHARE = 0.25
"""Share of the long window for which there must be counts: a young service has no three days."""


@dataclass(frozen=True, slots=True)
class BurnWindow:
    """Burning at ``rate`` times the budget over ``long_s`` and ``short_s``; ``page``: or else a matter of days."""

    rate: float
    long_s: float
    short_s: float
    page: bool


WINDOWS = (
    BurnWindow(14.4, 3600.0, 300.0, True),
    BurnWindow(6.0, 6 * 3600.0, 1800.0, True),
    BurnWindow(1.0, LONGEST_S, 6 * 3600.0, False),
)


@dataclass(frozen=True, slots=True)
class Burn:
    """The fastest window that burns, and the burn rate over its long and short part."""

    window: BurnWindow
    long_rate: float
    short_rate: float


class BurnRate:
    """Counts of one service: 7 kB for three days. ``objective``: the share of good requests promised, below 1."""

    def __init__(self, objective: float) -> None:
        if not 0.0 < objective < 1.0:
            raise ValueError(f"an objective is a share of good requests between 0 and 1, not {objective}")
        self._budget = 1.0 - objective
        self._counts = np.zeros((2, BUCKETS + 1), dtype=np.float32)
        self._bucket = -1
        self._first = -1

    def take(self, ts: float, asked: float, failed: float) -> None:
        """Adds requests that ended at ``ts`` (epoch seconds, not before the newest by more than three days)."""
        bucket = int(ts // BUCKET_S)
        if self._first < 0:
            self._first = self._bucket = bucket
        if bucket > self._bucket:
            gone = np.arange(max(self._bucket + 1, bucket - BUCKETS), bucket + 1) % (BUCKETS + 1)
            self._counts[:, gone] = 0.0
            self._bucket = bucket
        if self._bucket - BUCKETS <= bucket:
            self._counts[:, bucket % (BUCKETS + 1)] += (asked, failed)

    def burning(self) -> Burn | None:
        """The fastest of `WINDOWS` that burns now; None when the budget lasts."""
        for window in WINDOWS:
            asked, failed = self._sums(window.long_s)
            seen_s = (self._bucket - self._first + 1) * BUCKET_S
            if failed < LEAST_FAILED or seen_s < MIN_SEEN_SHARE * window.long_s:
                continue
            lately, lately_failed = self._sums(window.short_s)
            if lately <= 0:
                continue
            long_rate, short_rate = failed / asked / self._budget, lately_failed / lately / self._budget
            if long_rate >= window.rate and short_rate >= window.rate:
                return Burn(window, long_rate, short_rate)
        return None

    def _sums(self, span_s: float) -> tuple[float, float]:
        buckets = max(int(span_s / BUCKET_S), 1)
        columns = np.arange(self._bucket - buckets, self._bucket + 1)[-(buckets + 1) :] % (BUCKETS + 1)
        asked, failed = self._counts[:, columns].sum(axis=1, dtype=np.float64).tolist()
        return asked, failed
