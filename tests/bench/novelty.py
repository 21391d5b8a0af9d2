"""How well the novelty lane finds structural change, beside a Gaussian over a moving window in the same run.

`windows` is scored as the Numenta anomaly benchmark does (Lavin and Ahmad 2015, standard profile): a window of a tenth
of a series around each event, the first flag in it counts by how early it is, each flag outside costs 0.11, a missed
window 1, the first 15 % are free; 0 is a detector that is silent, 100 a perfect one. `hourly` is the F1 of pages (runs
of flags) on hourly series. The seeds are not those the lane was tuned on.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from math import erfc, exp

import numpy as np

from pipeline.domain.detection.compiled import COMPILED
from pipeline.domain.detection.novelty import NOVELTY_SIZE, novelty_init, novelty_update
from tests.bench.novelty_series import Series, Values, corpus, hourly_corpus

HALVES = (11, 12)
START = 1_756_684_800.0
PAGE = 0.5
LATE_POINTS = 3
Scorer = Callable[[Series], Values]


def novelty_scores(series: Series) -> Values:
    state = np.empty(NOVELTY_SIZE)
    novelty_init(state, series.period_s)
    found = np.empty(len(series.values))
    for at, value in enumerate(series.values.tolist()):
        found[at] = novelty_update(state, value, START + at * series.period_s, series.period_s)
    return found


def gaussian_scores(series: Series) -> Values:
    """How unlikely a point is under the normal distribution of the (up to) 6,400 before it."""
    values = series.values
    sums, squares = np.cumsum(np.r_[0.0, values]), np.cumsum(np.r_[0.0, (values - values[0]) ** 2])
    last = np.arange(len(values))
    first = np.maximum(0, last - 6400)
    count = np.maximum(last - first, 1)
    mean = (sums[last] - sums[first]) / count
    spread = np.sqrt(np.maximum((squares[last] - squares[first]) / count - (mean - values[0]) ** 2, 1e-12))
    tail = np.array([erfc(sigmas) for sigmas in np.abs(values - mean) / spread / np.sqrt(2.0)])
    return np.where(last > 50, 1.0 - tail, 0.0)


def windows(points: int, events: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
    found: list[tuple[int, int]] = []
    events = sorted(events)
    for start, _ in events:
        half = int(0.05 * points / len(events))
        low, high = max(start - half, 0), min(start + half, points - 1)
        if found and low <= found[-1][1]:
            low = found.pop()[0]
        found.append((low, high))
    return found


def position_weight(position: float) -> float:
    return -1.0 if position >= 3.0 else 2.0 / (1.0 + exp(5.0 * position)) - 1.0


def weighted(points: int, spans: list[tuple[int, int]]) -> tuple[Values, Values]:
    """What a flag at each point is worth, and the number of its window (-1: none)."""
    worth, window = np.full(points, -0.11), np.full(points, -1.0)
    for number, (low, high) in enumerate(spans):
        width = high - low + 1
        until = spans[number + 1][0] if number + 1 < len(spans) else points
        for at in range(low, high + 1):
            worth[at] = position_weight(-(high - at + 1) / width) / position_weight(-1.0)
            window[at] = number
        for at in range(high + 1, until):
            worth[at] = 0.11 * position_weight((at - high) / max(width - 1, 1))
    return worth, window


def window_score(scored: list[tuple[Series, Values]], threshold: float) -> tuple[float, float, int]:
    """The normalised score at ``threshold``, the share of windows found, and flags outside windows."""
    raw, found, total, outside = 0.0, 0, 0, 0
    for series, scores in scored:
        spans = windows(len(scores), series.events)
        worth, window = weighted(len(scores), spans)
        flags = scores >= threshold
        flags[: int(min(0.15 * len(scores), 750))] = False
        astray = flags & (window < 0)
        raw += float(worth[astray].sum())
        outside += int(astray.sum())
        for number in range(len(spans)):
            hits = worth[flags & (window == number)]
            raw += float(hits[0]) if len(hits) else -1.0
            found += bool(len(hits))
            total += 1
    return 100.0 * (raw + total) / (2 * total), found / total, outside


def page_f1(scored: list[tuple[Series, Values]], threshold: float) -> tuple[float, float, float]:
    """F1, precision and recall of runs of flags; a page may come up to `LATE_POINTS` after an event."""
    true = false = found = events = 0
    for series, scores in scored:
        flags = [int(at) for at in np.nonzero(scores >= threshold)[0] if at >= 0.15 * len(scores)]
        pages = [at for at in flags if at - 1 not in flags]
        near = [[event for event in series.events if event[0] <= at <= event[1] + LATE_POINTS] for at in pages]
        true += sum(bool(met) for met in near)
        false += sum(not met for met in near)
        found += len({event for met in near for event in met})
        events += len(series.events)
    precision, recall = true / max(true + false, 1), found / max(events, 1)
    return 2 * precision * recall / max(precision + recall, 1e-9), precision, recall


def best(scored: list[tuple[Series, Values]]) -> float:
    """The one threshold for all series with the best score in hindsight: what the benchmark grants every detector."""
    every = np.concatenate([scores for _, scores in scored])
    tried = np.unique(np.quantile(every[every > 0], 1.0 - np.geomspace(1e-5, 0.05, 25)))
    return float(max(tried, key=lambda threshold: window_score(scored, float(threshold))[0]))


def run() -> None:
    """Prints both figures for both halves and detectors, and the cost of a point."""
    spent_s, points = 0.0, 0
    for half in HALVES:
        series = list(corpus(half))
        novelty_scores(series[0])  # compiles, or loads what was compiled
        started = time.perf_counter()
        ours = [(one, novelty_scores(one)) for one in series]
        spent_s += time.perf_counter() - started
        points += sum(len(one.values) for one in series)
        theirs = [(one, gaussian_scores(one)) for one in series]
        own, share, outside = window_score(ours, PAGE)
        print(
            f"windows, seed {half}: novelty {own:.1f} at its own flags ({share:.0%} found, {outside} flags outside "
            f"in {len(series)} series), {window_score(ours, best(ours))[0]:.1f} at the best threshold; "
            f"moving Gaussian {window_score(theirs, best(theirs))[0]:.1f} at the best threshold"
        )
        hours = list(hourly_corpus(half))
        ours = [(one, novelty_scores(one)) for one in hours]
        theirs = [(one, gaussian_scores(one)) for one in hours]
        f1, precision, recall = page_f1(ours, PAGE)
        rival = max(page_f1(theirs, threshold)[0] for threshold in (0.99, 0.997, 0.999, 0.9997, 0.9999))
        print(
            f"hourly, seed {half}: novelty page F1 {f1:.2f} (precision {precision:.2f}, recall {recall:.2f}); "
            f"moving Gaussian {rival:.2f} at its best threshold"
        )
    print(
        f"a point: {1e6 * spent_s / points:.1f} µs {'compiled' if COMPILED else 'in plain Python'}, called from Python"
    )
    print(f"state: {8 * NOVELTY_SIZE} bytes a series")


if __name__ == "__main__":
    run()
