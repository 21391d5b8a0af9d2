"""How far a metric left its baseline, and which way: one figure a metric that can be compared over metrics."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from math import inf
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Values = NDArray[np.float64]
Direction = Literal["up", "down"]

MIN_BASELINE_POINTS = 5
"""Fewer say nothing about the spread; such a metric is not scored."""
MAX_SIGMAS = 1000.0
_NOISE_SIGMAS = 3.0
"""What chance alone reaches in a window; nothing below it counts."""
_UPPER_SHARE = 0.2
"""Share of the window, its most deviant points, that is averaged: an incident may be on in a part of it only."""


_FLOOR = 0.01
_AVAILABILITY_FLOOR = 0.001
"""Least sigma as a share of the level: smaller movements matter to nobody. Of availability the third digit does."""
_ALL_THE_WHILE = 0.4
"""Weight of a deviation that does not follow the incident's course."""


class MetricKind(StrEnum):
    """What a metric tells about a service, read from its name."""

    CPU = "cpu"
    MEMORY = "memory"
    DISK = "disk"
    NETWORK = "network"
    LATENCY = "latency"
    ERRORS = "errors"
    AVAILABILITY = "availability"
    TRAFFIC = "traffic"
    OTHER = "other"


RESOURCES = frozenset({MetricKind.CPU, MetricKind.MEMORY, MetricKind.DISK, MetricKind.NETWORK})
"""Kinds that only the service's own doing or host moves: causes, not symptoms of a callee."""
SYMPTOMS = frozenset({MetricKind.LATENCY, MetricKind.ERRORS, MetricKind.AVAILABILITY})
"""Kinds that a failing callee moves in its callers."""

_NAMES: tuple[tuple[MetricKind, re.Pattern[str]], ...] = (
    (MetricKind.NETWORK, re.compile(r"packet|loss|drop|retrans|\btcp|socket|\bconn")),
    (MetricKind.ERRORS, re.compile(r"\berr|fail|5xx|4xx|fault|exception|timeout|abort|reject|throttl")),
    (MetricKind.AVAILABILITY, re.compile(r"avail|success|uptime|health|\bup\b|\bok\b")),
    (MetricKind.CPU, re.compile(r"cpu|\bload1\b|\bload5\b|\bload15\b|run ?queue|\bsteal\b")),
    (MetricKind.MEMORY, re.compile(r"\bmem|\brss\b|heap|\bswap|working set|\bgc\b|oom")),
    (MetricKind.LATENCY, re.compile(r"\blat|duration|response ?time|\brt\b|\bp\d\d|elapsed|\bdelay|\bapdex")),
    (MetricKind.DISK, re.compile(r"disk|\bfs\b|filesystem|\bio\b|iops|inode|volume|storage")),
    (MetricKind.NETWORK, re.compile(r"\bnet|\brx\b|\btx\b|receive|transmit|bandwidth")),
    (
        MetricKind.TRAFFIC,
        re.compile(
            r"request|\breq|rps|qps|tps|throughput|workload|\bload\b|traffic|calls|invocation|\bcount\b|\brate\b"
        ),
    ),
)
_BAD_WHEN_LOW = frozenset({MetricKind.AVAILABILITY})
_BAD_WHEN_LOW_WORDS = re.compile(r"\bfree\b|\bidle\b|\bavailable\b|remaining|headroom|\bapdex\b")
_COUNTER = re.compile(r"\btotal$|\bcount(er)?$|\bsum$")
_AVERAGE = re.compile(r"average|\bavg|\bmean")
_TYPICAL = re.compile(r"\bp?50\b|median")


@dataclass(frozen=True, slots=True)
class Deviation:
    """A metric of one service against its baseline.

    ``sigmas`` ≥ 0 is the robust deviation of the window's most deviant part in ``direction``; ``change`` the shift of
    its level in the metric's own unit, signed; ``strength`` 0..10 combines both, 0 for what chance explains;
    ``harmful`` is False for a change for the better.
    """

    metric: str
    kind: MetricKind
    direction: Direction
    sigmas: float
    before: float
    after: float
    strength: float
    harmful: bool

    @property
    def change(self) -> float:
        return self.after - self.before


def kind_of(metric: str) -> MetricKind:
    """The kind by the conventions of names; OTHER where they say nothing."""
    name = _words(metric)
    return next((kind for kind, pattern in _NAMES if pattern.search(name)), MetricKind.OTHER)


def deviations(
    baseline: Mapping[str, Values], window: Mapping[str, Values], profile: Values | None = None
) -> list[Deviation]:
    """One deviation for each metric that both have enough samples of, the strongest first.

    Metrics that grow with the traffic are compared with what they would be at the window's traffic. ``profile`` (as
    long as the window, 0..1) says how much of the incident is on at each sample; with it a metric counts as far as it
    moves along, so that one which was off its baseline all the while is no culprit.
    """
    load = _traffic(baseline, window)
    found = []
    for metric in baseline:
        if metric not in window:
            continue
        before, after = _rates(metric, baseline[metric], window[metric])
        kind = kind_of(metric)
        if load is not None and kind in RESOURCES | {MetricKind.LATENCY, MetricKind.OTHER}:
            before, after = _without_load(before, after, baseline[load], window[load])
        deviation = _deviation(metric, kind, before[np.isfinite(before)], after[np.isfinite(after)])
        if deviation is not None and profile is not None and len(after) == len(profile):
            deviation = _along(deviation, before[np.isfinite(before)], after, profile)
        if deviation is not None:
            found.append(deviation)
    return sorted(found, key=lambda item: (-item.strength, item.metric))


def profile_of(item: Deviation, before: Values, after: Values) -> tuple[float, Values | None]:
    """How much the metric moves within the window, as a strength, and its course as a profile 0..1.

    The profile is None where the metric is no more restless than stretches of its baseline are: the incident was on all
    the time, or is not to be seen here.
    """
    known, now = before[np.isfinite(before)], np.isfinite(after)
    if len(known) < MIN_BASELINE_POINTS or np.count_nonzero(now) < 4:
        return 0.0, None
    low_is_bad = item.kind in _BAD_WHEN_LOW or bool(_BAD_WHEN_LOW_WORDS.search(_words(item.metric)))
    sign = -1.0 if low_is_bad else 1.0
    sigma = _spread(item.kind, known, after[now], _quantile(known, 0.5))
    scores = sign * after / sigma
    length = int(np.count_nonzero(now))
    reach = float(_restlessness(scores[now][None, :])[0])
    parts = _stretches(sign * known / sigma, length)
    usual = _quantile(_restlessness(parts), 0.9) if parts is not None else 2.0
    if reach < max(4.0, 1.5 * usual):
        return 0.0, None
    quiet = _quantile(scores[now], 0.25)
    course = np.clip((np.where(now, scores, quiet) - quiet) / (_upper(scores[now]) - quiet), 0.0, 1.0)
    size = reach * sigma / (abs(_quantile(known, 0.5)) + 1e-12)
    return float(np.log2(1.0 + reach - usual)) * _weight_of_size(item.kind, size), course


def primary_latency(names: Mapping[str, Values]) -> str | None:
    """The latency metric that adds up over calls: the average if there is one, else the median, else the first."""
    latencies = sorted(name for name in names if kind_of(name) is MetricKind.LATENCY)
    for pattern in (_AVERAGE, _TYPICAL):
        for name in latencies:
            if pattern.search(_words(name)):
                return name
    return latencies[0] if latencies else None


def _words(metric: str) -> str:
    return re.sub(r"[^a-z0-9]+", " ", re.sub(r"(?<=[a-z])(?=[A-Z])", " ", metric).lower()).strip()


def _deviation(metric: str, kind: MetricKind, before: Values, after: Values) -> Deviation | None:
    if len(before) < MIN_BASELINE_POINTS or len(after) == 0:
        return None
    level = _quantile(before, 0.5)
    sigma = _spread(kind, before, after, level)
    scores = (after - level) / sigma
    up, down = _upper(scores), _upper(-scores)
    direction: Direction = "up" if up >= down else "down"
    sign = 1.0 if direction == "up" else -1.0
    usual = max(1.0, _usual(sign * (before - level) / sigma, len(after)))
    chosen = np.sort(sign * after)[-max(1, round(_UPPER_SHARE * len(after))) :]
    reached = sign * float(np.mean(chosen))
    return _judged(metric, kind, direction, max(up, down), max(_NOISE_SIGMAS, usual), level, reached)


def _along(item: Deviation, before: Values, after: Values, profile: Values) -> Deviation:
    """The deviation as far as it goes with the profile: where it is on against where it is off."""
    known = np.isfinite(after)
    on, off = float(np.sum(profile[known])), float(np.sum(1.0 - profile[known]))
    if on < 0.8 or off < 0.8:
        return item
    reached = float(np.sum(profile[known] * after[known])) / on
    quiet = float(np.sum((1.0 - profile[known]) * after[known])) / off
    sigma = _spread(item.kind, before, after[known], _quantile(before, 0.5))
    raw = abs(reached - quiet) / sigma
    direction: Direction = "up" if reached >= quiet else "down"
    noise = _NOISE_SIGMAS * min(1.0, float(np.sqrt(1.0 / on + 1.0 / off)))
    moved = _judged(item.metric, item.kind, direction, raw, noise, quiet, reached)
    if direction == item.direction:  # people are told the distance from the baseline, not that within the window
        moved = replace(moved, before=item.before, after=item.after, sigmas=item.sigmas)
    stayed = replace(item, strength=_ALL_THE_WHILE * item.strength)
    return max(moved, stayed, key=lambda one: one.strength)


def _judged(
    metric: str, kind: MetricKind, direction: Direction, raw: float, noise: float, level: float, reached: float
) -> Deviation:
    sigmas = float(np.clip(raw, 0.0, MAX_SIGMAS))
    harmful = _harms(metric, kind, direction)
    size = abs(reached - level) / (abs(level) + 1e-12)
    strength = float(np.log2(1.0 + max(0.0, sigmas - noise))) * _weight_of_size(kind, size)
    return Deviation(metric, kind, direction, sigmas, level, reached, strength if harmful else 0.2 * strength, harmful)


def _spread(kind: MetricKind, before: Values, after: Values, level: float) -> float:
    """Robust sigma: MAD and the central 80 %, with a floor for metrics that hardly moved in the baseline."""
    mad = 1.4826 * _quantile(np.abs(before - level), 0.5)
    sigma = max(mad, (_quantile(before, 0.9) - _quantile(before, 0.1)) / 2.563)
    share, still = (_AVAILABILITY_FLOOR, 2.0) if kind is MetricKind.AVAILABILITY else (_FLOOR, 10.0)
    if sigma <= 1e-9 * max(abs(level), 1e-300):
        sigma = max(float(np.std(before)), still * share * max(abs(level), float(np.max(np.abs(after)))))
    return max(sigma, share * abs(level), 1e-12)


def _quantile(values: Values, share: float) -> float:
    """As numpy's, which spends ten times as long on arrays of this size."""
    ordered = np.sort(values)
    at = share * (len(ordered) - 1)
    low = int(at)
    first = float(ordered[low])
    return first + (at - low) * (float(ordered[min(low + 1, len(ordered) - 1)]) - first)


def _upper(scores: Values) -> float:
    """The mean of the highest part of the scores: a maximum that one odd sample of many does not make."""
    return float(np.mean(np.sort(scores)[-max(1, round(_UPPER_SHARE * len(scores))) :]))


def _uppers(rows: Values) -> Values:
    count = max(1, round(_UPPER_SHARE * rows.shape[1]))
    means: Values = np.mean(np.sort(rows, axis=1)[:, -count:], axis=1)
    return means


def _stretches(values: Values, length: int) -> Values | None:
    """The baseline (count, length) in stretches as long as the window; None where it is too short to tell."""
    count = len(values) // max(1, length)
    return values[: count * length].reshape(count, length) if count >= 4 else None


def _usual(scores: Values, length: int) -> float:
    """What `_upper` reaches in stretches of the baseline as long as the window: its third quartile."""
    parts = _stretches(scores, length)
    if parts is None:
        return _quantile(scores, 1.0 - _UPPER_SHARE / 2)
    return _quantile(_uppers(parts), 0.75)


def _restlessness(rows: Values) -> Values:
    """How far the highest part of each row is above its quiet quarter."""
    reach: Values = _uppers(rows) - np.quantile(rows, 0.25, axis=1)
    return reach


def _weight_of_size(kind: MetricKind, size: float) -> float:
    """A change of a few per cent hurts nobody, however many sigmas it is. Availability counts its missing part."""
    half = 0.003 if kind is MetricKind.AVAILABILITY else 0.1
    return size / (size + half) if size < inf else 1.0


def _harms(metric: str, kind: MetricKind, direction: Direction) -> bool:
    if kind in (MetricKind.TRAFFIC, MetricKind.OTHER):
        return True
    low_is_bad = kind in _BAD_WHEN_LOW or bool(_BAD_WHEN_LOW_WORDS.search(_words(metric)))
    return (direction == "down") if low_is_bad else (direction == "up")


def _rates(metric: str, before: Values, after: Values) -> tuple[Values, Values]:
    """Counters as growth a sample, their restarts left out; anything else as it is."""
    finite = before[np.isfinite(before)]
    if len(finite) < 2 * MIN_BASELINE_POINTS or len(after) < 2 or not _COUNTER.search(_words(metric)):
        return before, after
    steps = np.diff(finite)
    if np.mean(steps >= 0) < 0.9 or finite[-1] <= finite[0]:
        return before, after
    return _growth(before), _growth(after)


def _growth(values: Values) -> Values:
    steps = np.diff(values)
    return np.where(steps < 0, np.nan, steps)


def _traffic(baseline: Mapping[str, Values], window: Mapping[str, Values]) -> str | None:
    shared = sorted(name for name in baseline if name in window and kind_of(name) is MetricKind.TRAFFIC)
    return shared[0] if shared else None


def _without_load(before: Values, after: Values, load: Values, now: Values) -> tuple[Values, Values]:
    """Takes out what the traffic explains, by the baseline's own slope where the two clearly go together."""
    if len(before) != len(load) or len(after) != len(now):
        return before, after
    both = np.isfinite(before) & np.isfinite(load)
    if np.count_nonzero(both) < 4 * MIN_BASELINE_POINTS:
        return before, after
    x, y = load[both], before[both]
    x_spread, y_spread = float(np.std(x)), float(np.std(y))
    if x_spread <= 0 or y_spread <= 0:
        return before, after
    correlation = float(np.mean((x - x.mean()) * (y - y.mean()))) / (x_spread * y_spread)
    if correlation < 0.5:
        return before, after
    centre = float(np.median(x))
    slope = correlation * y_spread / x_spread
    # Beyond twice the known range the line is a guess: no credit is given for more.
    reach = 2.0 * max(float(np.max(x)) - centre, x_spread)
    expected = slope * np.clip(np.nan_to_num(now - centre), 0.0, reach)
    return np.where(np.isfinite(load), before - slope * (load - centre), before), after - expected
