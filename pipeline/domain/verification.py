"""Did it help? Fresh samples against the bound that raised the alarm; anything else is "cannot tell"."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from math import isfinite

from pipeline.domain.anomaly import Bound
from pipeline.domain.telemetry import Sample, SeriesKey, Signal, Unit, format_value


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

    Recovered: the samples of the last ``hold_s`` are all inside the bound, at least ``min_samples`` of them, and for
    request signals the service had traffic. Not recovered: at the deadline the newest sample still breaches. Everything
    else at the deadline (none, stale, NaN, no traffic) is inconclusive.
    """
    waited_s = (now - applied_at).total_seconds()
    usable = [sample for sample in fresh if sample.at > applied_at and isfinite(sample.value)]
    after = usable[-1].value if usable else None

    def result(verdict: Verdict, reason: str) -> Verification:
        return Verification(verdict, key, before, after, expected, bound, key.unit, len(usable), reason, now, waited_s)

    recent = [sample for sample in usable if (now - sample.at).total_seconds() <= settings.hold_s]
    inside = bool(recent) and not any(bound.breached(sample.value) for sample in recent)
    needs_traffic = key.signal in (Signal.LATENCY_P99, Signal.ERROR_RATIO)
    flowing = any(s.at > applied_at and isfinite(s.value) and s.value > 0 for s in traffic)
    held = inside and waited_s >= settings.hold_s and len(recent) >= settings.min_samples
    if held and (flowing or not needs_traffic):
        return result(Verdict.RECOVERED, f"{len(recent)} samples inside the bound for {settings.hold_s:.0f} s")
    if waited_s < settings.deadline_s:
        return result(Verdict.PENDING, "waiting for fresh samples")
    if not recent:
        return result(Verdict.INCONCLUSIVE, "no fresh samples since the action")
    if needs_traffic and not flowing:
        return result(Verdict.INCONCLUSIVE, "no traffic since the action")
    if bound.breached(recent[-1].value):
        return result(Verdict.NOT_RECOVERED, f"still beyond the bound {settings.deadline_s:.0f} s after the action")
    return result(Verdict.INCONCLUSIVE, "in and out of the bound until the deadline")
