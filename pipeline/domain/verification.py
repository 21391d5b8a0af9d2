"""Did it help? Fresh samples against the bound that raised the alarm; anything else is "cannot tell"."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from itertools import pairwise
from math import isfinite
from statistics import median

from pipeline.domain.anomaly import Bound
from pipeline.domain.telemetry import Sample, SeriesKey, Signal, Unit, format_value

MIN_SPAN = 0.7
"""Share of ``hold_s`` that the samples inside it must span, as detection asks of a breach."""


class Verdict(StrEnum):
    """``pending`` means the time for an answer is not over."""

    RECOVERED = "recovered"
    NOT_RECOVERED = "not_recovered"
    INCONCLUSIVE = "inconclusive"
    PENDING = "pending"


@dataclass(frozen=True, slots=True)
class VerificationSettings:
    """``hold_s``: how long the metric must stay inside its bound; ``deadline_s``: when waiting ends. Both count from
    the action's end."""

    hold_s: float = 120.0
    deadline_s: float = 600.0
    min_samples: int = 3


@dataclass(frozen=True, slots=True)
class Verification:
    """The verdict with the figures behind it, in ``unit``. ``after`` is None when nothing was measured, ``expected``
    when there is no baseline."""

    verdict: Verdict
    key: SeriesKey
    before: float
    after: float | None
    expected: float | None
    bound: Bound
    unit: Unit
    samples: int
    reason: str
    at: datetime
    took_s: float

    def sentence(self) -> str:
        """``p99 latency of checkout 1.9 s → 240 ms``."""
        after = format_value(self.after, self.unit) if self.after is not None else "no samples"
        return f"{self.key.describe()} {format_value(self.before, self.unit)} → {after}"


def verify(
    *,
    key: SeriesKey,
    before: float,
    expected: float | None,
    bound: Bound,
    fresh: Sequence[Sample],
    traffic: Sequence[Sample],
    applied_at: datetime,
    now: datetime,
    settings: VerificationSettings,
) -> Verification:
    """Judges samples taken after ``applied_at`` (oldest first; one per time: the worst instance's).

    Recovered: the samples of the last ``hold_s`` are all inside the bound, at least ``min_samples`` of them over
    ``MIN_SPAN`` of that time and up to now, and for request signals the service had traffic in it. Not recovered: at
    the deadline the newest sample is fresh and still breaches. Everything else at the deadline (none, stale, NaN, too
    few, no traffic) is inconclusive.
    """
    waited_s = (now - applied_at).total_seconds()
    usable = [sample for sample in fresh if sample.at > applied_at and isfinite(sample.value)]
    after = usable[-1].value if usable else None

    def result(verdict: Verdict, reason: str) -> Verification:
        return Verification(verdict, key, before, after, expected, bound, key.unit, len(usable), reason, now, waited_s)

    def lately(sample: Sample) -> bool:
        return (now - sample.at).total_seconds() <= settings.hold_s

    recent = [sample for sample in usable if lately(sample)]
    reporting = bool(recent) and (now - recent[-1].at).total_seconds() <= _stale_after_s(usable, settings.hold_s)
    inside = reporting and not any(bound.breached(sample.value) for sample in recent)
    needs_traffic = key.signal in (Signal.LATENCY_P99, Signal.ERROR_RATIO)
    flowing = any(s.at > applied_at and lately(s) and isfinite(s.value) and s.value > 0 for s in traffic)
    held = inside and waited_s >= settings.hold_s and _covers(recent, settings)
    if held and (flowing or not needs_traffic):
        return result(Verdict.RECOVERED, f"{len(recent)} samples inside the bound for {settings.hold_s:.0f} s")
    if waited_s < settings.deadline_s:
        return result(Verdict.PENDING, "waiting for fresh samples")
    if not usable:
        return result(Verdict.INCONCLUSIVE, "no fresh samples since the action")
    if not reporting:
        age_s = (now - usable[-1].at).total_seconds()
        return result(Verdict.INCONCLUSIVE, f"no fresh samples: the newest is {age_s:.0f} s old")
    if needs_traffic and not flowing:
        return result(Verdict.INCONCLUSIVE, f"no traffic in the last {settings.hold_s:.0f} s")
    if bound.breached(recent[-1].value):
        return result(Verdict.NOT_RECOVERED, f"still beyond the bound {settings.deadline_s:.0f} s after the action")
    if inside:
        return result(Verdict.INCONCLUSIVE, f"too few fresh samples to say that it held for {settings.hold_s:.0f} s")
    return result(Verdict.INCONCLUSIVE, "in and out of the bound until the deadline")


def _stale_after_s(samples: Sequence[Sample], hold_s: float) -> float:
    """The age from which the newest sample says nothing of now: half of ``hold_s``, or two of the series' own steps."""
    times = sorted({sample.at for sample in samples})
    steps = [(later - earlier).total_seconds() for earlier, later in pairwise(times)]
    return min(hold_s, max(hold_s / 2, 2 * median(steps) if steps else 0.0))


def _covers(recent: Sequence[Sample], settings: VerificationSettings) -> bool:
    span_s = (recent[-1].at - recent[0].at).total_seconds()
    return len(recent) >= settings.min_samples and span_s >= MIN_SPAN * settings.hold_s
