"""How well breaches are foreseen, against Prometheus' `predict_linear` rules on the same series.

A page is true when a breach follows within ``LEAD_S`` or is on; a breach is found when a page came within ``LEAD_S``
before it, or with it.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from pipeline.domain.detection.capacity import CapacityDetector, forecast
from tests.bench.capacity_worlds import DAY, HOUR, World, make

LEAD_S = 24 * HOUR
MERGE_S = 1800.0
FOR_S = 1800.0
SEEDS = range(300_000, 300_210)
"""Not the seeds the detector was tuned on (those lie below 300,000)."""
FloatArray = npt.NDArray[np.float64]
Flags = npt.NDArray[np.bool_]


@dataclass
class Count:
    """Sums over worlds."""

    true: int = 0
    false: int = 0
    breaches: int = 0
    found: int = 0
    weeks: float = 0.0
    leads_s: list[float] = field(default_factory=list)

    def add(self, world: World, flags: Flags, lead_s: float = LEAD_S) -> tuple[int, int]:
        """Judges one world; its false pages and missed breaches."""
        sent = onsets(world.ts, flags)
        true = sum(any(begin - lead_s <= at <= end for begin, end in world.breaches) for at in sent)
        found = 0
        for begin, _ in world.breaches:
            leads = [begin - at for at in sent if 0 <= begin - at <= lead_s]
            if leads:
                found += 1
                self.leads_s.append(max(leads))
        self.true += true
        self.false += len(sent) - true
        self.breaches += len(world.breaches)
        self.found += found
        self.weeks += world.weeks
        return len(sent) - true, len(world.breaches) - found

    def __str__(self) -> str:
        precision = self.true / max(self.true + self.false, 1)
        recall = self.found / max(self.breaches, 1)
        f1 = 2 * precision * recall / max(precision + recall, 1e-9)
        before = sum(lead > 0 for lead in self.leads_s) / max(self.breaches, 1)
        strict = 2 * precision * before / max(precision + before, 1e-9)
        early = sum(lead >= 600 for lead in self.leads_s) / max(self.breaches, 1)
        lead_h = float(np.median(self.leads_s)) / HOUR if self.leads_s else float("nan")
        return (
            f"F1 {f1:.3f} (only pages before the breach: {strict:.3f}), precision {precision:.3f}, recall {recall:.3f} "
            f"of {self.breaches} ({before:.3f} before it, {early:.3f} 10 min or more), median lead {lead_h:.1f} h, "
            f"{self.false / self.weeks:.3f} false pages/series/week"
        )


def onsets(ts: FloatArray, flags: Flags) -> list[float]:
    """Times at which flags begin, runs closer than ``MERGE_S`` as one."""
    found: list[float] = []
    last = -np.inf
    for at in ts[flags].tolist():
        if at - last > MERGE_S and (last == -np.inf or at - last > 1.5 * float(np.median(np.diff(ts)))):
            found.append(at)
        last = at
    return found


def ours(world: World) -> Flags:
    detector = CapacityDetector(world.limit, falling=world.falling)
    return np.array(
        [detector.update(at, value).page for at, value in zip(world.ts.tolist(), world.values.tolist(), strict=True)]
    )


def predict_linear(world: World, ahead_s: float, window_s: float = 6 * HOUR) -> Flags:
    """``predict_linear(x[6h], ahead) >= limit`` for 30 minutes, as a rule would run at each sample."""
    known = np.isfinite(world.values)
    values = np.where(known, world.values, 0.0)
    t = world.ts - world.ts[0]
    start = np.searchsorted(t, t - window_s)
    sums = [np.concatenate(([0.0], np.cumsum(part))) for part in (known, t * known, values, t * t * known, t * values)]
    n, st, sv, stt, stv = (part[1:] - part[start] for part in sums)
    with np.errstate(divide="ignore", invalid="ignore"):
        slope = (stv - st * sv / n) / (stt - st * st / n)
        ahead = sv / n + slope * (t + ahead_s - st / n)
    over = (ahead <= world.limit) if world.falling else (ahead >= world.limit)
    over &= n >= 3
    begin = np.where(over, t, np.inf)
    for at in range(1, len(t)):
        if over[at] and over[at - 1]:
            begin[at] = begin[at - 1]
    return np.asarray(over & (t - begin >= FOR_S))


RULES: dict[str, Callable[[World], Flags]] = {
    "this detector": ours,
    "predict_linear[6h] 4h": lambda world: predict_linear(world, 4 * HOUR),
    "predict_linear[6h] 24h": lambda world: predict_linear(world, 24 * HOUR),
}


def run() -> None:
    """Prints quality, by rule and by family, and what a forecast costs."""
    worlds = [make(seed) for seed in SEEDS]
    print(f"capacity: {len(worlds)} series, {sum(world.weeks for world in worlds):.0f} series-weeks")
    for name, rule in RULES.items():
        total: Count = Count()
        families: dict[str, Count] = defaultdict(Count)
        for world in worlds:
            flags = rule(world)
            total.add(world, flags)
            families[world.name].add(world, flags)
        print(f"  {name:24} {total}")
        if rule is ours:
            for family, count in families.items():
                print(f"    {family:22} {count}")
    print(f"  one forecast over a stored week, a minute apart: {_forecast_ms():.2f} ms; update: {_update_us():.1f} µs")


def _forecast_ms() -> float:
    ts = np.arange(0.0, 7 * DAY, 60.0)
    values = 40.0 + 50.0 * ts / ts[-1] + np.random.default_rng(1).normal(0, 0.3, len(ts))
    forecast(ts, values, 100.0)
    began = time.process_time()
    for _ in range(100):
        forecast(ts, values, 100.0)
    return (time.process_time() - began) * 10.0


def _update_us() -> float:
    values = 50.0 + np.random.default_rng(2).normal(0, 1.0, 50_000)
    detector = CapacityDetector(100.0)
    began = time.process_time()
    for at, value in enumerate(values.tolist()):
        detector.update(60.0 * at, value)
    return (time.process_time() - began) / len(values) * 1e6


if __name__ == "__main__":
    run()
