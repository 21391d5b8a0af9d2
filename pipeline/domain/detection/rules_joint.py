"""Rules over several series of one service: joint deviations too small to count alone, and the error budget."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

import numpy as np

from pipeline.domain.anomaly_values import Anomaly, AnomalyKind, Bound
from pipeline.domain.detection.burn import BurnRate
from pipeline.domain.detection.rules_history import MinuteHistory
from pipeline.domain.ids import ServiceName
from pipeline.domain.telemetry import SeriesKey, Signal

JOINT = (Signal.LATENCY_P99, Signal.ERROR_RATIO, Signal.CPU_RATIO)
JOINT_MINUTES, JOINT_LEAST = 15, 10
JOINT_SIGMAS, JOINT_SUM = 2.0, 8.0
CALM_SIGMAS = 2.0
"""With traffic further off than this, load explains what the others show."""


@dataclass(frozen=True, slots=True)
class Joint:
    """The series of a service that is off the most: its mean over the last minutes, and what was expected."""

    key: SeriesKey
    row: int
    value: float
    expected: float


def joint(history: MinuteHistory, factor: Callable[[ServiceName], float]) -> Iterator[Joint]:
    """Services whose latency, errors and CPU are all off at once, upwards, while their traffic is as usual.

    ``factor`` is the sensitivity of a service.
    """
    values, usual = history.last(JOINT_MINUTES)
    known = np.isfinite(values) & np.isfinite(usual)
    count = known.sum(axis=1)
    seen = np.maximum(count, 1)
    mean = np.where(known, values, 0).sum(axis=1) / seen
    expected = np.where(known, usual, 0).sum(axis=1) / seen
    sigma = np.where(np.isfinite(history.sigma) & (history.sigma > 0), history.sigma, np.inf)
    off = np.where(count >= JOINT_LEAST, (mean - expected) / sigma, 0.0)
    for row in np.flatnonzero(off >= JOINT_SIGMAS).tolist():
        key = history.keys[row]
        if key.signal is not Signal.CPU_RATIO:
            continue
        rows = [history.known(SeriesKey(key.service, signal)) for signal in JOINT]
        volume = history.known(SeriesKey(key.service, Signal.TRAFFIC))
        if volume is None or abs(float(off[volume])) > CALM_SIGMAS:
            continue
        sizes = {found: float(off[found]) for found in rows if found is not None}
        times = factor(key.service)
        each, together = JOINT_SIGMAS * times, JOINT_SUM * times
        if len(sizes) < len(JOINT) or min(sizes.values()) < each or sum(sizes.values()) < together:
            continue
        most = max(sizes, key=lambda one: sizes[one])
        yield Joint(history.keys[most], most, float(mean[most]), float(expected[most]))


class Budgets:
    """The error budgets of the services that promise something: ``objectives``, shares of good requests by service."""

    def __init__(self, objectives: Mapping[ServiceName, float]) -> None:
        self._rates = {service: BurnRate(objective) for service, objective in objectives.items()}
        self._objectives = dict(objectives)
        self._spent: datetime | None = None

    def spend(self, history: MinuteHistory, now: datetime) -> None:
        """Takes the whole minutes since the last call."""
        minute = now.replace(second=0, microsecond=0)
        start = self._spent or minute - timedelta(minutes=1)
        if not self._rates or minute <= start:
            return
        for service, rate in self._rates.items():
            failing = history.known(SeriesKey(service, Signal.ERROR_RATIO))
            asked = history.known(SeriesKey(service, Signal.TRAFFIC))
            if failing is None or asked is None:
                continue
            requests = history.span(asked, start, minute)[0].astype(np.float64) * 60.0
            failed = history.span(failing, start, minute)[0].astype(np.float64) * requests
            known = np.isfinite(failed)
            rate.take(minute.timestamp() - 1.0, float(requests[known].sum()), float(failed[known].sum()))
        self._spent = minute

    def burning(self, now: datetime) -> Iterator[Anomaly]:
        """Services that spend their budget too fast."""
        for service, rate in self._rates.items():
            found = rate.burning()
            if found is None:
                continue
            budget = 1.0 - self._objectives[service]
            value, nan = found.short_rate * budget, float("nan")
            began = now - timedelta(seconds=found.window.short_s)
            key, bound = SeriesKey(service, Signal.ERROR_RATIO), Bound(found.window.rate * budget)
            yield Anomaly(AnomalyKind.ERROR_SURGE, key, began, now, value, value, nan, nan, bound)
