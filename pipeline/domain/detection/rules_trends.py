"""Rules that look further back than the window: slow and small changes, before and after, forecasts, error budgets."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

import numpy as np
import numpy.typing as npt

from pipeline.domain.anomaly_values import KIND_OF, Anomaly, AnomalyKind, Bound, DetectionSettings, Policy, blamed
from pipeline.domain.baseline import Expectations
from pipeline.domain.changes import ChangeEvent
from pipeline.domain.detection.capacity import CapacityDetector, Forecast
from pipeline.domain.detection.change_test import Worse, failing_more, slower
from pipeline.domain.detection.rules_history import MinuteHistory
from pipeline.domain.detection.rules_joint import JOINT_MINUTES, Budgets, joint
from pipeline.domain.ids import ServiceName
from pipeline.domain.telemetry import Sample, SeriesKey, Signal

FloatArray = npt.NDArray[np.float32]

SLOW_MINUTES, SLOW_LEAST = 10, 7
SLOW_SIGMAS, SLOW_SHARE = 3.5, 0.3
FAILING_MINUTES, FAILING_LEAST = 6, 4
FAILING_SIGMAS, FAILING_EXCESS, FAILING_TIMES = 6.0, 0.012, 3.0
BACK_MINUTES = 6
USUAL_SHARE = 1.5
"""What usually happens at this time of day may be so much larger this time."""
HELD_FOR = timedelta(hours=8)
CAPACITY_LIMIT = 1.0
NEW_AT_MOST = 64
"""Samples of a series that may come at once; older ones of a long absence are passed over."""


@dataclass(frozen=True, slots=True)
class _Held:
    """An anomaly that lasts until its series is back under ``share`` of what is expected of it (errors: ``level``)."""

    anomaly: Anomaly
    share: float
    level: float


class Trends:
    """Fed with each window before the baselines learn from it; `anomalies` says what the longer look shows."""

    def __init__(self, objectives: Mapping[ServiceName, float] | None = None) -> None:
        self._history = MinuteHistory()
        self._budgets = Budgets(objectives or {})
        self._capacity: dict[SeriesKey, CapacityDetector] = {}
        self._forecast: dict[SeriesKey, tuple[datetime, float, Forecast]] = {}
        self._held: dict[SeriesKey, _Held] = {}

    def take(
        self, keys: Sequence[SeriesKey], series: Sequence[Sequence[Sample]], expected: Expectations, now: datetime
    ) -> None:
        """Takes what is new in a window: ``series`` (samples oldest first, never none) and expectations of ``keys``."""
        self._history.take(keys, series, expected, now)
        self._budgets.spend(self._history, now)
        for key, samples in zip(keys, series, strict=True):
            if key.signal is not Signal.DISK_RATIO:
                continue
            detector = self._capacity.get(key)
            if detector is None:
                detector = self._capacity[key] = CapacityDetector(CAPACITY_LIMIT)
            since = self._forecast[key][0] if key in self._forecast else None
            for sample in samples if since is None else samples[-NEW_AT_MOST:]:
                if since is None or sample.at > since:
                    seen = detector.update(sample.at.timestamp(), sample.value)
                    self._forecast[key] = (sample.at, sample.value, seen)

    def breach_foreseen(self, key: SeriesKey) -> bool:
        """Whether the series is on its way to its limit."""
        found = self._forecast.get(key)
        return found is not None and (found[2].page or found[2].eta_s is not None)

    def anomalies(
        self,
        now: datetime,
        changes: Sequence[ChangeEvent],
        traffic: Mapping[ServiceName, float],
        settings: DetectionSettings,
        policy: Policy,
    ) -> list[Anomaly]:
        """What is wrong by the longer look, of services that have traffic and are not muted."""
        found: list[Anomaly] = []
        found += self._filling(now, settings, policy)
        found += self._budgets.burning(now)
        if self._history.keys:
            self._let_go(now)
            for new in (
                *self._since_changes(now, changes, settings, policy),
                *self._slow(now, changes, settings, policy),
                *self._joint(now, changes, settings, policy),
            ):
                self._held.setdefault(new.anomaly.key, self._put_down(new, changes, settings))
            found += [replace(one.anomaly, seen_at=now) for one in self._held.values()]
        enough = settings.min_traffic_per_s
        return [
            one
            for one in found
            if not policy.muted(one.key.service, now)
            and (one.kind is AnomalyKind.DISK_EXHAUSTION or traffic.get(one.key.service, enough) >= enough)
        ]

    def _filling(self, now: datetime, settings: DetectionSettings, policy: Policy) -> Iterable[Anomaly]:
        for key, (at, value, seen) in self._forecast.items():
            least = min(settings.disk_projected_ratio * policy.factor(key.service, key.signal), settings.disk_ratio)
            if seen.page and value >= least and (now - at).total_seconds() <= settings.clear_after_s:
                nan = float("nan")
                kind = AnomalyKind.DISK_EXHAUSTION
                yield Anomaly(kind, key, at, at, value, value, nan, nan, Bound(least))

    def _since_changes(
        self, now: datetime, changes: Sequence[ChangeEvent], settings: DetectionSettings, policy: Policy
    ) -> Iterable[_Held]:
        history = self._history
        for change in changes:
            age_s = (now - change.at).total_seconds()
            if not settings.rollout_grace_s < age_s <= settings.rollout_watch_s:
                continue
            start, end = change.at + timedelta(seconds=90), now + timedelta(seconds=60)
            past = change.at - timedelta(hours=1)
            slow, failing, asked = (
                SeriesKey(change.service, signal) for signal in (Signal.LATENCY_P99, Signal.ERROR_RATIO, Signal.TRAFFIC)
            )
            row = history.known(slow)
            if row is not None and slow not in self._held:
                worse = slower(
                    *history.span(row, past, change.at),
                    *history.span(row, start, end),
                    factor=policy.factor(change.service, Signal.LATENCY_P99),
                )
                if worse is not None and worse.after - worse.before >= settings.latency_min_effect_s:
                    yield self._regressed(slow, worse, change, now)
            row, volume = history.known(failing), history.known(asked)
            if row is not None and volume is not None and failing not in self._held:
                worse = failing_more(
                    history.span(row, past, change.at)[0],
                    history.span(volume, past, change.at)[0] * 60,
                    history.span(row, start, end)[0],
                    history.span(volume, start, end)[0] * 60,
                    factor=policy.factor(change.service, Signal.ERROR_RATIO),
                )
                if worse is not None:
                    yield self._regressed(failing, worse, change, now)

    def _regressed(self, key: SeriesKey, worse: Worse, change: ChangeEvent, now: datetime) -> _Held:
        middle = worse.before + 0.4 * (worse.after - worse.before)
        row = self._history.known(key)
        sigma = float(self._history.sigma[row]) if row is not None else float("nan")
        kind = AnomalyKind.DEPLOYMENT_REGRESSION
        made = Anomaly(
            kind, key, change.at, now, worse.after, worse.after, worse.before, sigma, Bound(middle), change=change
        )
        _, usual = self._history.span(row or 0, now - timedelta(minutes=5), now + timedelta(minutes=1))
        level = float(np.nanmean(usual)) if np.isfinite(usual).any() else float("nan")
        return _Held(made, middle / level if level > 0 else float("inf"), middle)

    def _slow(
        self, now: datetime, changes: Sequence[ChangeEvent], settings: DetectionSettings, policy: Policy
    ) -> Iterable[_Held]:
        history = self._history
        values, usual = history.last(SLOW_MINUTES)
        known = np.isfinite(values) & np.isfinite(usual) & (usual > 0)
        enough = known.sum(axis=1) >= SLOW_LEAST
        shares = np.where(known, values / np.where(known, usual, 1), np.nan)
        with np.errstate(invalid="ignore", divide="ignore"):
            mean = np.where(known, shares, 0).sum(axis=1) / known.sum(axis=1)
            level = np.where(known, usual, 0).sum(axis=1) / known.sum(axis=1)
            relative = history.sigma / level
        grace = {
            change.service for change in changes if (now - change.at).total_seconds() < settings.rollout_grace_s + 300
        }
        for row in np.flatnonzero(enough & (mean > 1 + SLOW_SHARE * 0.7)).tolist():
            key = history.keys[row]
            if key.signal is not Signal.LATENCY_P99 or key in self._held or key.service in grace:
                continue
            factor = policy.factor(key.service, key.signal)
            sigmas = SLOW_SIGMAS * factor + USUAL_SHARE * float(history.excess[row])
            least = max(SLOW_SHARE * factor, sigmas * float(relative[row]))
            rise = float(mean[row]) - 1
            steady = float(np.nanmean(shares[row] > 1 + 0.5 * rise))
            if rise >= least and rise * level[row] >= settings.latency_min_effect_s * factor and steady >= 0.8:
                yield self._hold(key, row, 1 + rise, 1 + 0.4 * rise, float(level[row]), now, SLOW_MINUTES)
        values, usual = values[:, -FAILING_MINUTES:], usual[:, -FAILING_MINUTES:]
        failing = np.where(np.isfinite(values), values, 0).sum(axis=1) > FAILING_EXCESS * FAILING_LEAST
        for row in np.flatnonzero(failing).tolist():
            key = history.keys[row]
            volume = history.known(SeriesKey(key.service, Signal.TRAFFIC))
            if (
                key.signal is Signal.ERROR_RATIO
                and volume is not None
                and key.service not in grace
                and key not in self._held
            ):
                asked = values[volume] * 60
                yield from self._failing(key, row, values[row], usual[row], asked, now, settings, policy)

    def _failing(
        self,
        key: SeriesKey,
        row: int,
        ratio: FloatArray,
        expected: FloatArray,
        asked: FloatArray,
        now: datetime,
        settings: DetectionSettings,
        policy: Policy,
    ) -> Iterable[_Held]:
        known = np.isfinite(ratio) & np.isfinite(asked) & np.isfinite(expected)
        total = float(asked[known].sum())
        if known.sum() < FAILING_LEAST or total <= 0:
            return
        factor = policy.factor(key.service, key.signal)
        failed = float((ratio[known] * asked[known]).sum())
        share, before = failed / total, max(float(expected[known].mean()), 1e-5)
        sigma = float(self._history.sigma[row])
        error = np.sqrt(before / total + 0.5 * sigma * sigma)
        far = (share - before) / (factor * (FAILING_SIGMAS + USUAL_SHARE * float(self._history.excess[row])) * error)
        often = np.mean(ratio[known] > before + 0.5 * (share - before)) >= 0.75
        least = max(FAILING_EXCESS * factor, (FAILING_TIMES - 1) * before)
        if far >= 1 and share - before >= least and failed >= settings.min_failed and often:
            middle = before + 0.4 * (share - before)
            yield self._hold(key, row, share / before, middle / before, before, now, FAILING_MINUTES)

    def _joint(
        self, now: datetime, changes: Sequence[ChangeEvent], settings: DetectionSettings, policy: Policy
    ) -> Iterable[_Held]:
        young = {change.service for change in changes if (now - change.at).total_seconds() < settings.rollout_watch_s}
        for one in joint(self._history, lambda service: policy.factor(service, Signal.CPU_RATIO)):
            if one.key in self._held or one.key.service in young or one.expected <= 0:
                continue
            back = 1 + 0.4 * (one.value / one.expected - 1)
            held = self._hold(one.key, one.row, one.value / one.expected, back, one.expected, now, JOINT_MINUTES)
            yield replace(held, anomaly=replace(held.anomaly, kind=AnomalyKind.MULTI_DIMENSIONAL))

    def _put_down(self, held: _Held, changes: Sequence[ChangeEvent], settings: DetectionSettings) -> _Held:
        """The same, put down to the change it began with, if there was one."""
        found = held.anomaly
        if found.kind not in (AnomalyKind.LATENCY, AnomalyKind.ERROR_SURGE):
            return held
        change = blamed(changes, found.key.service, found.started_at, settings)
        if change is None:
            return held
        return replace(held, anomaly=replace(found, kind=AnomalyKind.DEPLOYMENT_REGRESSION, change=change))

    def _hold(
        self, key: SeriesKey, row: int, times: float, back: float, level: float, now: datetime, minutes: int
    ) -> _Held:
        value, sigma = times * level, float(self._history.sigma[row])
        started = now - timedelta(minutes=minutes - 1)
        made = Anomaly(KIND_OF[key.signal], key, started, now, value, value, level, sigma, Bound(back * level))
        return _Held(made, back, back * level)

    def _let_go(self, now: datetime) -> None:
        """Ends what is back to normal; what lasts too long is the new normal."""
        if not self._held:
            return
        values, usual = self._history.last(BACK_MINUTES)
        for key, held in list(self._held.items()):
            row = self._history.known(key)
            if row is None:
                continue
            known = np.isfinite(values[row]) & np.isfinite(usual[row])
            if now - held.anomaly.started_at > HELD_FOR:
                del self._held[key]
            elif known.sum() >= BACK_MINUTES - 2:
                middle = float(np.median(values[row][known]))
                line = held.level
                if key.signal is not Signal.ERROR_RATIO:
                    line = held.share * float(np.median(usual[row][known]))
                if middle < line:
                    del self._held[key]
