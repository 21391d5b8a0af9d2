"""Windows and baselines into anomalies; the baselines learn afterwards, and only from what was inside its bound."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta

from pipeline.domain.anomaly import DetectionResult, DetectionSettings, detect
from pipeline.domain.baseline import BaselineBank, Expectation
from pipeline.domain.telemetry import Sample, SeriesKey
from pipeline.ports.store import Store


class Detector:
    """Keeps the baselines in memory between ticks, and in the store for the next start and the other replicas."""

    def __init__(self, store: Store, settings: DetectionSettings) -> None:
        self._store = store
        self._settings = settings
        self._bank: BaselineBank | None = None
        self._learned: dict[SeriesKey, datetime] = {}

    async def run(self, now: datetime, *, reload: bool) -> DetectionResult:
        """One detection over the newest window. ``reload``: another replica learned since our last tick."""
        async with self._store.begin() as uow:
            if self._bank is None or reload:
                self._bank = BaselineBank(await uow.telemetry.load_baselines())
            window = await uow.telemetry.window(now - timedelta(seconds=self._settings.window_s))
        result = detect(window, self._bank, self._settings, now)
        await self._learn(window, result, now)
        return result

    async def expectation(self, key: SeriesKey, at: datetime) -> Expectation:
        """What the baseline expects of ``key``; weight 0 when nothing is known."""
        return (await self.bank()).expect(key, at)

    async def bank(self) -> BaselineBank:
        """The baselines as known to this process."""
        if self._bank is None:
            async with self._store.begin() as uow:
                self._bank = BaselineBank(await uow.telemetry.load_baselines())
        return self._bank

    async def _learn(
        self, window: Mapping[SeriesKey, Sequence[Sample]], result: DetectionResult, now: datetime
    ) -> None:
        bank = await self.bank()
        fresh = [
            samples[-1]
            for key, samples in window.items()
            if samples and key in result.within and samples[-1].at > self._learned.get(key, samples[-1].at - _A_MOMENT)
        ]
        bank.learn([sample.key for sample in fresh], [sample.value for sample in fresh], now)
        for sample in fresh:
            self._learned[sample.key] = sample.at
        if fresh:
            async with self._store.begin() as uow:
                await uow.telemetry.save_baselines(bank.rows(sample.key for sample in fresh))


_A_MOMENT = timedelta(microseconds=1)
