"""Rules that turn a window of samples into anomalies. Pure: same window, same baselines, same answer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from math import isfinite, isnan, nan

from pipeline.domain.baseline import BaselineBank, Expectation
from pipeline.domain.ids import ServiceName
from pipeline.domain.telemetry import Sample, SeriesKey, Signal


class AnomalyKind(StrEnum):
    """What kind of trouble a series shows."""

    MEMORY_PRESSURE = "memory_pressure"
    LATENCY = "latency"
    ERROR_SURGE = "error_surge"
    DISK_EXHAUSTION = "disk_exhaustion"
    CERTIFICATE_EXPIRY = "certificate_expiry"


KIND_OF: dict[Signal, AnomalyKind] = {
    Signal.MEMORY_RATIO: AnomalyKind.MEMORY_PRESSURE,
    Signal.LATENCY_P99: AnomalyKind.LATENCY,
    Signal.ERROR_RATIO: AnomalyKind.ERROR_SURGE,
    Signal.DISK_RATIO: AnomalyKind.DISK_EXHAUSTION,
    Signal.CERT_REMAINING: AnomalyKind.CERTIFICATE_EXPIRY,
}

SEARCH_PHRASE: dict[AnomalyKind, str] = {
    AnomalyKind.MEMORY_PRESSURE: "memory of a replica grows towards its limit, memory leak, OOM kill",
    AnomalyKind.LATENCY: "p99 latency far above its baseline, requests queue",
    AnomalyKind.ERROR_SURGE: "requests fail with 5xx errors, error ratio surge",
    AnomalyKind.DISK_EXHAUSTION: "disk fills up, log files take all space",
    AnomalyKind.CERTIFICATE_EXPIRY: "TLS certificate is about to expire",
}
"""How an on-call engineer would look each kind up in the runbooks."""

SYMPTOM_KINDS = frozenset({AnomalyKind.LATENCY, AnomalyKind.ERROR_SURGE})
"""Kinds that a failing dependency causes in its callers; the others are the service's own."""

NEGLIGIBLE_SHARE = 1e-6
"""A sigma below this share of a value is no measure for it: the baseline has no spread to speak of."""


@dataclass(frozen=True, slots=True)
class DetectionSettings:
    """Thresholds of the rules. Ratios are shares of 1; every ``_s`` is seconds."""

    memory_ratio: float = 0.85
    memory_sustain_s: float = 300.0
    latency_sigmas: float = 5.0
    latency_sustain_s: float = 60.0
    latency_min_effect_s: float = 0.05
    error_sigmas: float = 5.0
    error_min_ratio: float = 0.05
    error_sustain_s: float = 60.0
    disk_ratio: float = 0.90
    disk_sustain_s: float = 120.0
    certificate_remaining_s: float = 7 * 86_400.0
    min_traffic_per_s: float = 0.5
    clear_after_s: float = 120.0
    """A series must be back inside its bounds for this long before its anomaly counts as over."""

    def sustain_s(self, signal: Signal) -> float:
        """How long a breach must last before it is an anomaly."""
        return {
            Signal.MEMORY_RATIO: self.memory_sustain_s,
            Signal.LATENCY_P99: self.latency_sustain_s,
            Signal.ERROR_RATIO: self.error_sustain_s,
            Signal.DISK_RATIO: self.disk_sustain_s,
        }.get(signal, 0.0)

    @property
    def window_s(self) -> float:
        """How far back the rules look."""
        sustained = max(self.memory_sustain_s, self.latency_sustain_s, self.error_sustain_s, self.disk_sustain_s)
        return max(sustained, self.clear_after_s) * 1.5 + 30.0


@dataclass(frozen=True, slots=True)
class Bound:
    """The line a series must not cross, and on which side of it the trouble lies."""

    threshold: float
    breach_above: bool = True

    def breached(self, value: float) -> bool:
        return value > self.threshold if self.breach_above else value < self.threshold


@dataclass(frozen=True, slots=True)
class Anomaly:
    """A series that crossed its bound for long enough. ``expected`` and ``sigma`` are NaN without a baseline."""

    kind: AnomalyKind
    key: SeriesKey
    started_at: datetime
    seen_at: datetime
    value: float
    peak: float
    expected: float
    sigma: float
    bound: Bound

    @property
    def sigmas(self) -> float:
        """Distance from the baseline in its own sigmas; NaN without a baseline, or with one of no spread."""
        if self.sigma <= NEGLIGIBLE_SHARE * abs(self.value):
            return nan
        return (self.value - self.expected) / self.sigma

    @property
    def distance(self) -> str:
        """``5.3σ``, or ``over 50σ`` where more would say nothing; empty where sigmas cannot be told."""
        if isnan(self.sigmas):
            return ""
        return f"{self.sigmas:.1f}σ" if abs(self.sigmas) < 50 else "over 50σ"


@dataclass(frozen=True, slots=True)
class DetectionResult:
    """What the rules saw: series in breach, and series that are back inside their bounds."""

    anomalies: tuple[Anomaly, ...] = ()
    cleared: tuple[SeriesKey, ...] = ()
    within: frozenset[SeriesKey] = field(default_factory=frozenset)
    """Series whose newest sample is inside its bound: only these may teach the baseline."""
    fresh: frozenset[SeriesKey] = field(default_factory=frozenset)
    """Series that reported within ``clear_after_s``; the others are silent."""


def bound_for(key: SeriesKey, expected: Expectation, settings: DetectionSettings) -> Bound | None:
    """The bound of a series now; None while nothing can be said (no baseline yet, or no rule for the signal)."""
    match key.signal:
        case Signal.MEMORY_RATIO:
            return Bound(settings.memory_ratio)
        case Signal.DISK_RATIO:
            return Bound(settings.disk_ratio)
        case Signal.CERT_REMAINING:
            return Bound(settings.certificate_remaining_s, breach_above=False)
        case Signal.LATENCY_P99 if expected.known:
            return Bound(max(expected.upper(settings.latency_sigmas), expected.mean + settings.latency_min_effect_s))
        case Signal.ERROR_RATIO if expected.known:
            return Bound(max(expected.upper(settings.error_sigmas), settings.error_min_ratio))
        case _:
            return None


def detect(
    window: Mapping[SeriesKey, Sequence[Sample]],
    bank: BaselineBank,
    settings: DetectionSettings,
    now: datetime,
) -> DetectionResult:
    """Applies every rule to ``window`` (samples per series, oldest first, ending at ``now``).

    A series is anomalous when each of its samples within its sustain time breaches its bound and those samples span at
    least 70 % of that time; it is cleared when none within ``clear_after_s`` does. NaN is no sample: it neither clears
    nor breaches, and a series whose newest is NaN is not inside its bound.
    """
    traffic = _latest_traffic(window)
    anomalies: list[Anomaly] = []
    cleared: list[SeriesKey] = []
    within: set[SeriesKey] = set()
    fresh_since = now - timedelta(seconds=settings.clear_after_s)
    fresh = frozenset(key for key, samples in window.items() if samples and samples[-1].at >= fresh_since)
    for key, raw in window.items():
        if key.signal is Signal.TRAFFIC:
            within.add(key)
            continue
        expected = bank.expect(key, now)
        bound = bound_for(key, expected, settings)
        samples = [sample for sample in raw if not isnan(sample.value)]
        if not samples:
            continue
        newest = raw[-1].value
        if isfinite(newest) and (bound is None or not bound.breached(newest)):
            within.add(key)
        if bound is None:
            continue
        if key.signal in (Signal.LATENCY_P99, Signal.ERROR_RATIO) and _quiet(traffic, key.service, settings):
            continue
        sustain_s = settings.sustain_s(key.signal)
        recent = _since(samples, now - timedelta(seconds=sustain_s or settings.clear_after_s))
        if _sustained(recent if sustain_s else recent[-1:], bound, sustain_s):
            anomalies.append(_anomaly(key, samples, expected, bound))
        elif _clear(samples, bound, now, settings):
            cleared.append(key)
    return DetectionResult(tuple(anomalies), tuple(cleared), frozenset(within), fresh)


def _sustained(samples: Sequence[Sample], bound: Bound, sustain_s: float) -> bool:
    if not samples or not all(bound.breached(sample.value) for sample in samples):
        return False
    span_s = (samples[-1].at - samples[0].at).total_seconds()
    return span_s >= 0.7 * sustain_s and (sustain_s == 0 or len(samples) >= 3)


def _clear(samples: Sequence[Sample], bound: Bound, now: datetime, settings: DetectionSettings) -> bool:
    recent = _since(samples, now - timedelta(seconds=settings.clear_after_s))
    if len(recent) < 2 or any(bound.breached(sample.value) for sample in recent):
        return False
    return (recent[-1].at - recent[0].at).total_seconds() >= 0.7 * settings.clear_after_s


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
        expected=expected.mean if expected.known else float("nan"),
        sigma=expected.sigma if expected.known else float("nan"),
        bound=bound,
    )


def _since(samples: Sequence[Sample], start: datetime) -> Sequence[Sample]:
    return [sample for sample in samples if sample.at >= start]


def _latest_traffic(window: Mapping[SeriesKey, Sequence[Sample]]) -> dict[ServiceName, float]:
    return {
        key.service: samples[-1].value
        for key, samples in window.items()
        if key.signal is Signal.TRAFFIC and not key.instance and samples
    }


def _quiet(traffic: Mapping[ServiceName, float], service: ServiceName, settings: DetectionSettings) -> bool:
    return service in traffic and traffic[service] < settings.min_traffic_per_s
