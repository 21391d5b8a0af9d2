"""Windows and baselines into anomalies; the baselines learn afterwards, and slowly from what was outside its bound."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta, tzinfo

from pipeline.domain.anomaly import DetectionResult, DetectionSettings, Policy, detect
from pipeline.domain.baseline import BaselineBank, Expectation
from pipeline.domain.detection.rules_trends import Trends
from pipeline.domain.ids import ServiceName
from pipeline.domain.telemetry import Sample, SeriesKey
from pipeline.ports.store import Store

SAVE_EVERY_S = 120.0
"""Baselines move slowly: what is learned in this time is the most that a crash, or another replica's tick, costs."""
FORGET_EVERY_S = 86_400.0
"""The baselines are read anew this often: those of replicas that are long gone were deleted meanwhile."""
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
        *,
        zone: tzinfo = UTC,
    ) -> None:
        self._zone = zone
        self._store = store
        self._settings = settings
        self._policy = policy or Policy()
        self._trends = Trends(objectives)
        self._begun = False
        self._bank: BaselineBank | None = None
        self._loaded_at: datetime | None = None
        self._saved_at: datetime | None = None
        self._window: dict[SeriesKey, list[Sample]] = {}
        self._learned: dict[SeriesKey, datetime] = {}
        self._unsaved: set[SeriesKey] = set()

    async def run(self, now: datetime, *, reload: bool, fresh: Sequence[Sample] | None = None) -> DetectionResult:
        """One detection over the newest window.

        ``reload``: another replica worked since our last tick. ``fresh``: the samples of this tick, as stored; without
        them, at the start and after a reload the window is read from the store.
        """
        # Not told by the bank: whoever asks for a baseline before the first tick loads it.
        first = not self._begun
        if reload and self._loaded_at is not None and (now - self._loaded_at).total_seconds() >= SAVE_EVERY_S:
            self._bank = None
            self._unsaved.clear()
        elif self._loaded_at is not None and (now - self._loaded_at).total_seconds() >= FORGET_EVERY_S:
            await self.save()
            self._bank = None
        bank = await self.bank()
        self._loaded_at = self._loaded_at or now
        since = now - timedelta(seconds=self._settings.window_s)
        async with self._store.begin() as uow:
            if first or reload or fresh is None:
                self._window = {key: list(told) for key, told in (await uow.telemetry.window(since)).items()}
            past = await uow.telemetry.services_window(now - timedelta(seconds=LOOK_BACK_S)) if first else {}
            changes = await uow.telemetry.changes(now - timedelta(seconds=self._settings.rollout_watch_s + 3600.0))
            lasting = await uow.incidents.attached()
        if first:
            await asyncio.to_thread(self._remember, past, bank, now)
            self._begun = True
        self._slide(fresh or (), since)
        # In a thread: thousands of series take longer than the loop, which also serves Slack, may stand still.
        result = await asyncio.to_thread(
            detect,
            self._window,
            bank,
            self._settings,
            now,
            changes=changes,
            trends=self._trends,
            policy=self._policy,
            clearing=lasting.keys(),
        )
        self._learn(result, bank, now)
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
                self._bank = BaselineBank(await uow.telemetry.load_baselines(), zone=self._zone)
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

    def _remember(self, past: Mapping[SeriesKey, Sequence[Sample]], bank: BaselineBank, now: datetime) -> None:
        """Shows the stored past to the rules with a longer look, as if it had just been read."""
        keys = list(past)
        self._trends.take(keys, list(past.values()), bank.expect_many(keys, now), now)

    def _slide(self, fresh: Sequence[Sample], since: datetime) -> None:
        """Takes in what is newer than what is there, and lets go of what is older than the window."""
        for sample in fresh:
            samples = self._window.setdefault(sample.key, [])
            if not samples or sample.at > samples[-1].at:
                samples.append(sample)
        for key, samples in list(self._window.items()):
            gone = next((at for at, sample in enumerate(samples) if sample.at >= since), len(samples))
            del samples[:gone]
            if not samples:
                del self._window[key]
                self._learned.pop(key, None)

    def _learn(self, result: DetectionResult, bank: BaselineBank, now: datetime) -> None:
        judged = result.within | result.beyond
        fresh = [
            samples[-1]
            for key, samples in self._window.items()
            if key in judged and samples[-1].at > self._learned.get(key, samples[-1].at - _A_MOMENT)
        ]
        keys = [sample.key for sample in fresh]
        bank.learn(keys, [sample.value for sample in fresh], now, outside=result.beyond)
        for sample in fresh:
            self._learned[sample.key] = sample.at
        self._unsaved.update(keys)


_A_MOMENT = timedelta(microseconds=1)
