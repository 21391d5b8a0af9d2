"""Windows and baselines into anomalies; the baselines learn afterwards, and slowly from what was outside its bound."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta

from pipeline.domain.anomaly import DetectionResult, DetectionSettings, Policy, detect
from pipeline.domain.baseline import BaselineBank, Expectation
from pipeline.domain.detection.rules_trends import Trends
from pipeline.domain.ids import ServiceName
from pipeline.domain.telemetry import Sample, SeriesKey
from pipeline.ports.store import Store

SAVE_EVERY_S = 120.0
"""Baselines move slowly: what is learned in this time is the most that a crash, or another replica's tick, costs."""
LOOK_BACK_S = 2 * 3600.0
"""What the rules with a longer look are shown at the start."""


class Detector:
    """Keeps the baselines in memory between ticks, and in the store for the next start and the other replicas."""

    def __init__(
        self,
        store: Store,
        settings: DetectionSettings,
        policy: Policy | None = None,
        objectives: Mapping[ServiceName, float] | None = None,
    ) -> None:
        self._store = store
        self._settings = settings
        self._policy = policy or Policy()
        self._trends = Trends(objectives)
        self._bank: BaselineBank | None = None
        self._loaded_at: datetime | None = None
        self._saved_at: datetime | None = None
        self._learned: dict[SeriesKey, datetime] = {}
        self._unsaved: set[SeriesKey] = set()

    async def run(self, now: datetime, *, reload: bool) -> DetectionResult:
        """One detection over the newest window. ``reload``: another replica learned since our last tick."""
        first = self._bank is None
        if reload and self._loaded_at is not None and (now - self._loaded_at).total_seconds() >= SAVE_EVERY_S:
            self._bank = None
            self._unsaved.clear()
        bank = await self.bank()
        self._loaded_at = self._loaded_at or now
        async with self._store.begin() as uow:
            look_back_s = LOOK_BACK_S if first else self._settings.window_s
            window = await uow.telemetry.window(now - timedelta(seconds=look_back_s))
            changes = await uow.telemetry.changes(now - timedelta(seconds=self._settings.rollout_watch_s + 3600.0))
            lasting = await uow.incidents.attached()
        if first:
            self._remember(window, bank, now)
            since = now - timedelta(seconds=self._settings.window_s)
            window = {key: recent for key, told in window.items() if (recent := [s for s in told if s.at >= since])}
        result = detect(
            window,
            bank,
            self._settings,
            now,
            changes=changes,
            trends=self._trends,
            policy=self._policy,
            clearing=lasting.keys(),
        )
        self._learn(window, result, bank, now)
        if self._saved_at is None or (now - self._saved_at).total_seconds() >= SAVE_EVERY_S:
            self._saved_at = now
            await self.save()
        return result

    async def expectation(self, key: SeriesKey, at: datetime) -> Expectation:
        """What the baseline expects of ``key``; weight 0 when nothing is known."""
        return (await self.bank()).expect(key, at)

    async def bank(self) -> BaselineBank:
        """The baselines as known to this process."""
        if self._bank is None:
            async with self._store.begin() as uow:
                self._bank = BaselineBank(await uow.telemetry.load_baselines())
            self._loaded_at = None
        return self._bank

    async def save(self) -> None:
        """Stores what was learned and is not stored yet; also called at the stop."""
        if self._bank is None or not self._unsaved:
            return
        rows = self._bank.rows(self._unsaved)
        async with self._store.begin() as uow:
            await uow.telemetry.save_baselines(rows)
        self._unsaved.clear()

    def _remember(self, window: Mapping[SeriesKey, Sequence[Sample]], bank: BaselineBank, now: datetime) -> None:
        """Shows the stored past to the rules with a longer look, as if it had just been read."""
        told = {key: samples for key, samples in window.items() if samples}
        self._trends.take(list(told), list(told.values()), bank.expect_many(list(told), now), now)

    def _learn(
        self, window: Mapping[SeriesKey, Sequence[Sample]], result: DetectionResult, bank: BaselineBank, now: datetime
    ) -> None:
        judged = result.within | result.beyond
        fresh = [
            samples[-1]
            for key, samples in window.items()
            if samples and key in judged and samples[-1].at > self._learned.get(key, samples[-1].at - _A_MOMENT)
        ]
        keys = [sample.key for sample in fresh]
        bank.learn(keys, [sample.value for sample in fresh], now, outside=result.beyond)
        for sample in fresh:
            self._learned[sample.key] = sample.at
        self._unsaved.update(keys)


_A_MOMENT = timedelta(microseconds=1)
