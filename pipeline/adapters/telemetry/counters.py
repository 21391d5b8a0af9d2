"""From counters to rates: increases over a window, resets, and the quantile of a histogram. Pure."""

from __future__ import annotations

from bisect import bisect_left
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import accumulate
from math import inf
from typing import TypeVar

from pipeline.adapters.telemetry.exposition import (
    CALLEE_LABEL,
    CALLER_LABEL,
    STALE_AFTER_S,
    Buckets,
    Exposition,
    Labels,
    is_server_error,
)

K = TypeVar("K")

_GAP_WINDOWS = 2
"""Counters not seen for so many windows are looked at anew: their increase would tell of a time long past."""


@dataclass(frozen=True, slots=True)
class Rates:
    """Per second: requests by upper bound of their duration (``inf``: all; empty: not exported), 5xx answers, calls."""

    requests: Buckets
    errors: float
    calls: Mapping[tuple[str, str], float]

    @property
    def traffic(self) -> float | None:
        """Requests per second; None where no request counter is exported."""
        return self.requests.get(inf)

    @property
    def error_ratio(self) -> float | None:
        """Share of 5xx answers; None without requests."""
        return self.errors / self.traffic if self.traffic else None

    def latency(self, q: float) -> float | None:
        """Quantile of the requests' duration in seconds; None without requests."""
        return histogram_quantile(q, self.requests)


@dataclass(frozen=True, slots=True)
class _Increase:
    until_s: float
    elapsed_s: float
    requests: Buckets
    errors: float
    calls: Mapping[tuple[str, str], float]


class CounterWindow:
    """The last ``window_s`` seconds of one target's counters.

    A series' first sample gives no increase, as it may have counted for days. A counter that went down was restarted,
    and has counted from 0 since. Times are epoch seconds.
    """

    def __init__(self, window_s: float) -> None:
        self._window_s = window_s
        self._requests: dict[Labels, tuple[float, Buckets]] = {}
        self._calls: dict[Labels, tuple[float, Buckets]] = {}
        self._increases: deque[_Increase] = deque()
        self._taken_s: float | None = None

    @property
    def taken_s(self) -> float:
        """Time of the newest counters."""
        return -inf if self._taken_s is None else self._taken_s

    def add(self, exposition: Exposition, taken_s: float) -> None:
        """Takes in what a scrape saw; one that is no newer than the last one is dropped."""
        if self.taken_s - taken_s > STALE_AFTER_S:  # not a late answer: the clock was set back
            self._requests, self._calls, self._increases, self._taken_s = {}, {}, deque(), None
        elif taken_s <= self.taken_s:
            return
        elapsed_s, self._taken_s = taken_s - self.taken_s, taken_s
        requests = list(self._grown(self._requests, exposition.requests))
        calls = list(self._grown(self._calls, exposition.calls))
        if elapsed_s <= self._window_s * _GAP_WINDOWS:
            self._increases.append(
                _Increase(
                    until_s=taken_s,
                    elapsed_s=elapsed_s,
                    requests=_sum(grown for _, grown in requests),
                    errors=sum(grown[inf] for labels, grown in requests if is_server_error(labels)),
                    calls=_sum({edge: grown[inf]} for labels, grown in calls if (edge := _edge(labels))),
                )
            )
        while self._increases and self._increases[0].until_s <= taken_s - self._window_s:
            self._increases.popleft()

    def rates(self) -> Rates | None:
        """Means over the window; None before the second look."""
        elapsed_s = sum(increase.elapsed_s for increase in self._increases)
        if elapsed_s <= 0:
            return None
        return Rates(
            requests=_scaled(_sum(increase.requests for increase in self._increases), 1 / elapsed_s),
            errors=sum(increase.errors for increase in self._increases) / elapsed_s,
            calls=_scaled(_sum(increase.calls for increase in self._increases), 1 / elapsed_s),
        )

    def _grown(
        self, seen: dict[Labels, tuple[float, Buckets]], counters: Mapping[Labels, Buckets]
    ) -> Iterator[tuple[Labels, Buckets]]:
        oldest_s = self.taken_s - self._window_s * _GAP_WINDOWS
        for labels in [labels for labels, (at_s, _) in seen.items() if at_s < oldest_s]:
            del seen[labels]
        for labels, buckets in counters.items():
            if labels in seen and (grown := increase(seen[labels][1], buckets)):
                yield labels, grown
            seen[labels] = (self.taken_s, buckets)


def increase(before: Buckets, after: Buckets) -> Buckets:
    """Growth of counters that start anew together (the buckets of one histogram), never negative.

    Empty when the bounds differ: two layouts cannot be subtracted.
    """
    if before.keys() != after.keys():
        return {}
    restarted = any(after[bound] < before[bound] for bound in after)
    return {bound: max(after[bound] - (0.0 if restarted else before[bound]), 0.0) for bound in after}


def combined(rates: Iterable[Rates]) -> Rates:
    """All instances of a service together."""
    parts = list(rates)
    return Rates(
        requests=_sum(part.requests for part in parts),
        errors=sum(part.errors for part in parts),
        calls=_sum(part.calls for part in parts),
    )


def histogram_quantile(q: float, buckets: Buckets) -> float | None:
    """Linear interpolation inside the bucket that holds the rank, as Prometheus' function of this name does.

    The first bucket is taken to start at 0 if its bound is positive; a rank in the last, unbounded bucket gives the
    highest finite bound. None without observations or finite bounds.
    https://prometheus.io/docs/prometheus/latest/querying/functions/#histogram_quantile
    """
    bounds = sorted(buckets)
    if len(bounds) < 2 or bounds[-1] != inf:
        return None
    # Sums over instances that were not read at the same moment may fall from one bound to the next.
    counts = list(accumulate((buckets[bound] for bound in bounds), max))
    if counts[-1] <= 0:
        return None
    rank = q * counts[-1]
    index = bisect_left(counts, rank)
    if index >= len(bounds) - 1:
        return bounds[-2]
    upper = bounds[index]
    if index == 0 and upper <= 0:
        return upper
    lower, below = (bounds[index - 1], counts[index - 1]) if index else (0.0, 0.0)
    return lower + (upper - lower) * ((rank - below) / (counts[index] - below))


def _edge(labels: Labels) -> tuple[str, str] | None:
    named = dict(labels)
    caller, callee = named.get(CALLER_LABEL, ""), named.get(CALLEE_LABEL, "")
    return (caller, callee) if caller and callee else None


def _sum(parts: Iterable[Mapping[K, float]]) -> dict[K, float]:
    total: dict[K, float] = {}
    for part in parts:
        for key, value in part.items():
            total[key] = total.get(key, 0.0) + value
    return total


def _scaled(values: Mapping[K, float], factor: float) -> dict[K, float]:
    return {key: value * factor for key, value in values.items()}
