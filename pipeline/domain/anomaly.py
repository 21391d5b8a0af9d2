"""Rules that turn a window of samples into anomalies. Pure: same window, same baselines, same answer."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from math import inf, isfinite, isnan, nan, sqrt

import numpy as np
import numpy.typing as npt

from pipeline.domain.anomaly_values import (
    KIND_OF,
    NEGLIGIBLE_SHARE,
    SEARCH_PHRASE,
    SENSITIVITY,
    SYMPTOM_KINDS,
    Anomaly,
    AnomalyKind,
    Bound,
    DetectionResult,
    DetectionSettings,
    Policy,
    blamed,
)
from pipeline.domain.baseline import BaselineBank, Expectation, Expectations
from pipeline.domain.changes import ChangeEvent, ChangeKind
from pipeline.domain.detection.rules_trends import USUAL_SHARE, Trends
from pipeline.domain.ids import ServiceName
from pipeline.domain.telemetry import Sample, SeriesKey, Signal

__all__ = [
    "KIND_OF",
    "NEGLIGIBLE_SHARE",
    "SEARCH_PHRASE",
    "SENSITIVITY",
    "SYMPTOM_KINDS",
    "Anomaly",
    "AnomalyKind",
    "Bound",
    "DetectionResult",
    "DetectionSettings",
    "Policy",
    "bound_for",
    "detect",
]

FloatArray = npt.NDArray[np.float64]
HIGH_MEMORY_RATIO, MOST_MEMORY_RATIO = 0.80, 0.95
"""Memory that always stands above the first is judged by its own baseline, up to the second."""
ERROR_TEST_SIGMAS = 4.0
"""Least distance of the failed requests of a breach from the expected number, in binomial standard deviations."""
HALF = 0.5
MANY_TIMES = 3.0
DISK_SIGMAS = 4.0


@dataclass(frozen=True, slots=True)
class _Lines:
    """The bounds of many series: arrays (n,); infinite where there is none."""

    lower: FloatArray
    upper: FloatArray

    def bound(self, at: int, value: float) -> Bound | None:
        """The bound on the side of ``value``."""
        lower, upper = float(self.lower[at]), float(self.upper[at])
        if lower > -inf and (upper == inf or value < lower):
            return Bound(lower, breach_above=False)
        return Bound(upper) if upper < inf else None


def bound_for(
    key: SeriesKey, expected: Expectation, settings: DetectionSettings, factor: float = 1.0, *, value: float = inf
) -> Bound | None:
    """The bound of a series now; None while nothing can be said (no baseline yet, or no rule for the signal).

    Traffic has one on each side: the one nearer to ``value`` is told. ``factor`` is the sensitivity's.
    """
    single = Expectations(
        *(np.array([part]) for part in (expected.mean, expected.sigma, expected.weight, expected.excess))
    )
    return _lines([key], single, settings, np.array([factor])).bound(0, value)


def detect(
    window: Mapping[SeriesKey, Sequence[Sample]],
    bank: BaselineBank,
    settings: DetectionSettings,
    now: datetime,
    *,
    changes: Sequence[ChangeEvent] = (),
    trends: Trends | None = None,
    policy: Policy | None = None,
    clearing: Collection[SeriesKey] | None = None,
) -> DetectionResult:
    """Applies every rule to ``window`` (samples per series, oldest first, ending at ``now``).

    A series is anomalous when each of its samples within its sustain time breaches its bound and those samples span at
    least 70 % of that time; it is cleared when none within ``clear_after_s`` does. NaN is no sample: it neither clears
    nor breaches, and a series whose newest is NaN is not inside its bound.

    ``changes``: those of the last hour; trouble that begins with one is put down to it (scaling is none). ``trends``:
    the memory of the rules that look further back than the window; it takes what is new in it. ``clearing``: the
    series whose clearing matters (default: all).
    """
    keys = [key for key, samples in window.items() if samples]
    series = [samples for samples in window.values() if samples]
    newest = [samples[-1] for samples in series]
    values = np.array([sample.value for sample in newest])
    told = np.isfinite(values)
    for at in np.flatnonzero(np.isnan(values)).tolist():
        values[at] = next((one.value for one in reversed(series[at]) if not isnan(one.value)), nan)
    expected = bank.expect_many(keys, now)
    if trends is not None:
        trends.take(keys, series, expected, now)
    factors = np.ones(len(keys))
    if policy is not None:
        factors = np.array([policy.factor(key.service, key.signal) for key in keys])
    policy = policy or Policy()
    changes = [change for change in changes if change.kind is not ChangeKind.SCALING]
    lines = _lines(keys, expected, settings, factors)
    over = (values > lines.upper) | (values < lines.lower)
    within = frozenset(key for key, one in zip(keys, (told & ~over).tolist(), strict=True) if one)
    fresh_since = now - timedelta(seconds=settings.clear_after_s)
    fresh = frozenset(sample.key for sample in newest if sample.at >= fresh_since)
    view = _View(window, settings, now, changes, trends, _latest_traffic(window))
    anomalies: dict[SeriesKey, Anomaly] = {}
    breached = np.flatnonzero(over).tolist()
    for at in breached:
        key = keys[at]
        found = view.breach(key, lines.bound(at, float(values[at])), _one(expected, at))
        if found is not None and not policy.muted(key.service, now):
            anomalies[key] = found
    if trends is not None:
        for found in trends.anomalies(now, changes, view.traffic, settings, policy):
            anomalies.setdefault(found.key, found)
    asked: Iterable[int] = range(len(keys))
    if clearing is not None:
        asked = [at for at, key in enumerate(keys) if key in clearing] if clearing else ()
    cleared = tuple(keys[at] for at in asked if keys[at] not in anomalies and view.clear(keys[at], lines, at))
    beyond = frozenset(keys[at] for at in breached if told[at])
    return DetectionResult(tuple(anomalies.values()), cleared, within, fresh, beyond)


def _one(expected: Expectations, at: int) -> Expectation:
    return Expectation(float(expected.mean[at]), float(expected.sigma[at]), float(expected.weight[at]))


def _lines(
    keys: Sequence[SeriesKey], expected: Expectations, settings: DetectionSettings, factors: FloatArray
) -> _Lines:
    signals = np.array([_CODE[key.signal] for key in keys], dtype=np.int8)
    lower, upper = np.full(len(keys), -inf), np.full(len(keys), inf)
    mean, known = expected.mean, expected.known
    reach = USUAL_SHARE * expected.excess

    def where(signal: Signal, ready: npt.NDArray[np.bool_] | bool = True) -> npt.NDArray[np.intp]:
        return np.flatnonzero((signals == _CODE[signal]) & ready)

    at = where(Signal.MEMORY_RATIO)
    own = np.clip(mean[at] + np.maximum(3 * expected.sigma[at], 0.03), settings.memory_ratio, MOST_MEMORY_RATIO)
    high = known[at] & (mean[at] >= HIGH_MEMORY_RATIO)
    upper[at] = np.where(high, np.maximum(own, settings.memory_ratio), settings.memory_ratio)
    upper[where(Signal.DISK_RATIO)] = settings.disk_ratio
    lower[where(Signal.CERT_REMAINING)] = settings.certificate_remaining_s
    at = where(Signal.LATENCY_P99, known)
    sigmas = settings.latency_sigmas * factors[at] + reach[at]
    upper[at] = mean[at] + np.maximum(sigmas * expected.sigma[at], settings.latency_min_effect_s * factors[at])
    at = where(Signal.ERROR_RATIO, known)
    sigmas = settings.error_sigmas * factors[at] + reach[at]
    upper[at] = np.maximum(mean[at] + sigmas * expected.sigma[at], settings.error_min_ratio * factors[at])
    at = where(Signal.TRAFFIC, known & (mean >= settings.min_traffic_per_s))
    by_sigma = (settings.traffic_sigmas * factors[at] + reach[at]) * expected.sigma[at]
    upper[at] = mean[at] + np.maximum(by_sigma, settings.traffic_surge_share * factors[at] * mean[at])
    by_sigma = (settings.traffic_drop_sigmas * factors[at] + reach[at]) * expected.sigma[at]
    drop = mean[at] - np.maximum(by_sigma, settings.traffic_drop_share * np.minimum(factors[at], 2.0) * mean[at])
    # However wide the spread: a third, or three times, of a steady flow is no noise, unless it is usual at this hour.
    steady = (reach[at] == 0) & (expected.sigma[at] < 0.4 * mean[at])
    lower[at] = np.where(steady, np.maximum(drop, mean[at] / MANY_TIMES), drop)
    upper[at] = np.where(steady, np.minimum(upper[at], mean[at] * MANY_TIMES * factors[at]), upper[at])
    return _Lines(lower, upper)


_CODE = {signal: at for at, signal in enumerate(Signal)}


@dataclass(frozen=True, slots=True)
class _View:
    """The window as the rules look at it."""

    window: Mapping[SeriesKey, Sequence[Sample]]
    settings: DetectionSettings
    now: datetime
    changes: Sequence[ChangeEvent]
    trends: Trends | None
    traffic: Mapping[ServiceName, float]

    def breach(self, key: SeriesKey, bound: Bound | None, expected: Expectation) -> Anomaly | None:
        """The anomaly of a series whose newest sample breaches ``bound``, if it has lasted."""
        requests = key.signal in (Signal.LATENCY_P99, Signal.ERROR_RATIO)
        if bound is None or (requests and self._quiet(key.service)):
            return None
        sustain_s = self.settings.sustain_s(key.signal)
        samples = [sample for sample in self.window[key] if not isnan(sample.value)]
        recent = _since(samples, self.now - timedelta(seconds=sustain_s or self.settings.clear_after_s))
        if not _sustained(recent if sustain_s else recent[-1:], bound, sustain_s):
            return None
        if requests and self._young_rollout(key) and not (key.signal is Signal.ERROR_RATIO and recent[-1].value > HALF):
            return None
        if key.signal is Signal.ERROR_RATIO and not self._enough_failed(key.service, recent, expected):
            return None
        if key.signal is Signal.DISK_RATIO and not self._projected(key, recent[-1].value, expected):
            return None
        found = _anomaly(key, samples, expected, bound)
        return self._put_down(found) if requests else found

    def clear(self, key: SeriesKey, lines: _Lines, at: int) -> bool:
        """Whether the series is back inside its bounds for long enough."""
        lower, upper = float(lines.lower[at]), float(lines.upper[at])
        if lower == -inf and upper == inf:
            return False
        if key.signal in (Signal.LATENCY_P99, Signal.ERROR_RATIO) and self._quiet(key.service):
            return False
        since = self.now - timedelta(seconds=self.settings.clear_after_s)
        recent = [sample for sample in self.window[key] if sample.at >= since and not isnan(sample.value)]
        if len(recent) < 2 or not all(lower <= sample.value <= upper for sample in recent):
            return False
        return (recent[-1].at - recent[0].at).total_seconds() >= 0.7 * self.settings.clear_after_s

    def _quiet(self, service: ServiceName) -> bool:
        return service in self.traffic and self.traffic[service] < self.settings.min_traffic_per_s

    def _young_rollout(self, key: SeriesKey) -> bool:
        return any(
            change.service == key.service
            and 0 <= (self.now - change.at).total_seconds() < self.settings.rollout_grace_s
            for change in self.changes
        )

    def _enough_failed(self, service: ServiceName, recent: Sequence[Sample], expected: Expectation) -> bool:
        """A binomial test of the failed requests, where the traffic is known."""
        if service not in self.traffic:
            return True
        span_s = (recent[-1].at - recent[0].at).total_seconds() * len(recent) / (len(recent) - 1)
        asked = max(self.traffic[service] * span_s, 1.0)
        ratio = sum(sample.value for sample in recent) / len(recent)
        usual = min(max(expected.mean, 1e-4), 1.0)
        far = (ratio - usual) / sqrt(max(usual * (1 - usual), 1e-9) / asked)
        return ratio * asked >= self.settings.min_failed and far >= ERROR_TEST_SIGMAS

    def _projected(self, key: SeriesKey, value: float, expected: Expectation) -> bool:
        """A breach ahead, or a height that this disk does not reach and come down from by itself."""
        if value >= self.settings.disk_full_ratio or self.trends is None:
            return True
        unusual = expected.known and value > expected.upper(DISK_SIGMAS)
        return unusual or self.trends.breach_foreseen(key)

    def _put_down(self, anomaly: Anomaly) -> Anomaly:
        """The same, put down to the change it began with, if there was one."""
        change = blamed(self.changes, anomaly.key.service, anomaly.started_at, self.settings)
        return replace(anomaly, kind=AnomalyKind.DEPLOYMENT_REGRESSION, change=change) if change else anomaly


def _sustained(samples: Sequence[Sample], bound: Bound, sustain_s: float) -> bool:
    if not samples or not all(bound.breached(sample.value) for sample in samples):
        return False
    span_s = (samples[-1].at - samples[0].at).total_seconds()
    return span_s >= 0.7 * sustain_s and (sustain_s == 0 or len(samples) >= 3)


def _anomaly(key: SeriesKey, samples: Sequence[Sample], expected: Expectation, bound: Bound) -> Anomaly:
    started = samples[-1]
    for sample in reversed(samples):
        if not bound.breached(sample.value):
            break
        started = sample
    run = _since(samples, started.at)
    peak = max(run, key=lambda s: s.value) if bound.breach_above else min(run, key=lambda s: s.value)
    return Anomaly(
        kind=KIND_OF[key.signal],
        key=key,
        started_at=started.at,
        seen_at=samples[-1].at,
        value=samples[-1].value,
        peak=peak.value,
        expected=expected.mean if expected.known else nan,
        sigma=expected.sigma if expected.known else nan,
        bound=bound,
    )


def _since(samples: Sequence[Sample], start: datetime) -> Sequence[Sample]:
    return [sample for sample in samples if sample.at >= start]


def _latest_traffic(window: Mapping[SeriesKey, Sequence[Sample]]) -> dict[ServiceName, float]:
    return {
        key.service: samples[-1].value
        for key, samples in window.items()
        if key.signal is Signal.TRAFFIC and not key.instance and samples and isfinite(samples[-1].value)
    }
