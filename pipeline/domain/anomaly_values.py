"""What an anomaly is: its kind, the bound that was crossed, and the settings of the rules."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from math import isnan, nan

from pipeline.domain.changes import ChangeEvent
from pipeline.domain.ids import ServiceName
from pipeline.domain.telemetry import SeriesKey, Signal


class AnomalyKind(StrEnum):
    """What kind of trouble a series shows."""

    MEMORY_PRESSURE = "memory_pressure"
    LATENCY = "latency"
    ERROR_SURGE = "error_surge"
    DISK_EXHAUSTION = "disk_exhaustion"
    CERTIFICATE_EXPIRY = "certificate_expiry"
    TRAFFIC = "traffic"
    DEPLOYMENT_REGRESSION = "deployment_regression"
    MULTI_DIMENSIONAL = "multi_dimensional"


KIND_OF: dict[Signal, AnomalyKind] = {
    Signal.MEMORY_RATIO: AnomalyKind.MEMORY_PRESSURE,
    Signal.LATENCY_P99: AnomalyKind.LATENCY,
    Signal.ERROR_RATIO: AnomalyKind.ERROR_SURGE,
    Signal.DISK_RATIO: AnomalyKind.DISK_EXHAUSTION,
    Signal.CERT_REMAINING: AnomalyKind.CERTIFICATE_EXPIRY,
    Signal.TRAFFIC: AnomalyKind.TRAFFIC,
}
"""The kind of a series that crosses its own bound; the other kinds need more than one series, or a change."""

SEARCH_PHRASE: dict[AnomalyKind, str] = {
    AnomalyKind.MEMORY_PRESSURE: "memory of a replica grows towards its limit, memory leak, OOM kill",
    AnomalyKind.LATENCY: "p99 latency far above its baseline, requests queue",
    AnomalyKind.ERROR_SURGE: "requests fail with 5xx errors, error ratio surge",
    AnomalyKind.DISK_EXHAUSTION: "disk fills up, log files take all space",
    AnomalyKind.CERTIFICATE_EXPIRY: "TLS certificate is about to expire",
    AnomalyKind.TRAFFIC: "traffic far from what is usual at this hour, sudden surge or drop of requests",
    AnomalyKind.DEPLOYMENT_REGRESSION: "latency or errors got worse with a deployment, roll back the release",
    AnomalyKind.MULTI_DIMENSIONAL: "several metrics of one service are off together, saturation",
}
"""How an on-call engineer would look each kind up in the runbooks."""

SYMPTOM_KINDS = frozenset(
    {AnomalyKind.LATENCY, AnomalyKind.ERROR_SURGE, AnomalyKind.TRAFFIC, AnomalyKind.MULTI_DIMENSIONAL}
)
"""Kinds that trouble elsewhere may cause; the others are the service's own."""

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
    disk_projected_ratio: float = 0.80
    """From this use on a projected breach is an anomaly."""
    disk_full_ratio: float = 0.97
    """From this use on no projection is asked for."""
    traffic_sigmas: float = 4.5
    traffic_drop_sigmas: float = 4.0
    traffic_surge_share: float = 0.6
    traffic_drop_share: float = 0.4
    """Traffic has to be above or below what is expected by at least this share of it."""
    traffic_sustain_s: float = 240.0
    min_traffic_per_s: float = 0.5
    min_failed: float = 5.0
    """Requests that must have failed before a ratio means anything: one of three is no surge."""
    rollout_grace_s: float = 180.0
    """While a rollout is this young, only errors of half of all requests are an anomaly."""
    rollout_watch_s: float = 45 * 60.0
    """How long a change's before and after are compared."""
    rollout_onset_s: float = 12 * 60.0
    """Trouble that begins this soon after a change is put down to it."""
    clear_after_s: float = 300.0
    """A series must be back inside its bounds for this long before its anomaly counts as over."""

    def sustain_s(self, signal: Signal) -> float:
        """How long a breach must last before it is an anomaly."""
        return {
            Signal.MEMORY_RATIO: self.memory_sustain_s,
            Signal.LATENCY_P99: self.latency_sustain_s,
            Signal.ERROR_RATIO: self.error_sustain_s,
            Signal.DISK_RATIO: self.disk_sustain_s,
            Signal.TRAFFIC: self.traffic_sustain_s,
        }.get(signal, 0.0)

    @property
    def window_s(self) -> float:
        """How far back the rules look."""
        return max(self.clear_after_s, *(self.sustain_s(signal) for signal in Signal)) * 1.5 + 30.0


SENSITIVITY: dict[str, float] = {"low": 1.5, "normal": 1.0, "high": 0.7}
"""What the sigmas and least effects of a service's signal are multiplied with."""


@dataclass(frozen=True, slots=True)
class Policy:
    """What people said about services. ``factor`` (see `SENSITIVITY`) of a service's signal; ``muted``: why nothing is
    said of a service at a time, empty when it may be."""

    factor: Callable[[ServiceName, Signal], float] = lambda service, signal: 1.0
    muted: Callable[[ServiceName, datetime], str] = lambda service, at: ""


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
    change: ChangeEvent | None = None
    """The change that the trouble is put down to."""

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
    """Series whose newest sample is inside its bound: these teach the baseline."""
    fresh: frozenset[SeriesKey] = field(default_factory=frozenset)
    """Series that reported within ``clear_after_s``; the others are silent."""
    beyond: frozenset[SeriesKey] = field(default_factory=frozenset)
    """Series whose newest sample is finite and outside its bound: these teach it slowly, as ``outside``."""


def blamed(
    changes: Sequence[ChangeEvent], service: ServiceName, began: datetime, settings: DetectionSettings
) -> ChangeEvent | None:
    """The newest change of ``service`` that what began at ``began`` may be due to."""
    near = [
        change
        for change in changes
        if change.service == service and -60.0 <= (began - change.at).total_seconds() <= settings.rollout_onset_s
    ]
    return max(near, key=lambda change: change.at, default=None)
