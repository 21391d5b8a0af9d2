"""Is the replica that was restarted first worse than the others, or than it was? Fresh samples, pure comparison."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from math import isfinite
from statistics import median

from pipeline.domain.telemetry import SIGNAL_TITLE, UNIT_OF, Signal, format_value

COMPARED = (Signal.ERROR_RATIO, Signal.LATENCY_P99)
"""What callers feel; what a fresh process uses (memory, CPU) is no measure of how it does."""


class CanaryVerdict(StrEnum):
    """Only ``as_good`` lets the rest go on."""

    AS_GOOD = "as_good"
    WORSE = "worse"
    CANNOT_TELL = "cannot_tell"


@dataclass(frozen=True, slots=True)
class CanarySettings:
    """``watch_s``: how long the first replica is watched; as long again is waited for samples that come late.

    A difference counts from the smallest effect on: an error ratio by ``min_error_ratio`` and ``error_factor`` times,
    a p99 latency by ``min_latency_s`` and ``latency_factor`` times.
    """

    watch_s: float = 60.0
    min_samples: int = 3
    min_error_ratio: float = 0.02
    error_factor: float = 2.0
    min_latency_s: float = 0.05
    latency_factor: float = 1.5


@dataclass(frozen=True, slots=True)
class Observed:
    """Values of the compared signals before the first step and since the watch began, in the signals' units."""

    before: Mapping[Signal, Sequence[float]] = field(default_factory=dict)
    after: Mapping[Signal, Sequence[float]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Judgement:
    """The verdict, and the figures it rests on in one line."""

    verdict: CanaryVerdict
    reason: str


def judge(canary: Observed, peers: Observed, service: Observed, settings: CanarySettings) -> Judgement:
    """Compares medians. A signal that no source gives by replica is compared for the service as a whole.

    By replica: worse than its peers, or than itself before beyond what the peers have drifted meanwhile. As a whole:
    worse than before the first step. One signal that is worse is enough; none that can be compared says nothing.
    """
    said: list[str] = []
    for signal in COMPARED:
        for what, value, reference, against in _comparisons(signal, canary, peers, service, settings.min_samples):
            shown = f"{SIGNAL_TITLE[signal]} of {what} {_shown(value, signal)} against {_shown(reference, signal)}"
            if _is_worse(signal, value, reference, settings):
                return Judgement(CanaryVerdict.WORSE, f"{shown} {against}")
            said.append(f"{shown} {against}")
    if said:
        return Judgement(CanaryVerdict.AS_GOOD, "; ".join(said))
    return Judgement(CanaryVerdict.CANNOT_TELL, "too few samples of errors or latency since the first replica is back")


def _comparisons(
    signal: Signal, canary: Observed, peers: Observed, service: Observed, min_samples: int
) -> list[tuple[str, float, float, str]]:
    """What is compared, its value, what it is held against, and what that is."""

    def typical(values: Mapping[Signal, Sequence[float]]) -> float | None:
        usable = [value for value in values.get(signal, ()) if isfinite(value)]
        return median(usable) if len(usable) >= min_samples else None

    now, others_now = typical(canary.after), typical(peers.after)
    was, others_were = typical(canary.before), typical(peers.before)
    found: list[tuple[str, float, float, str]] = []
    if now is not None and others_now is not None:
        found.append(("the first replica", now, others_now, "of the others"))
    if now is not None and was is not None:
        drift = max(others_now - others_were, 0.0) if others_now is not None and others_were is not None else 0.0
        found.append(("the first replica", now, was + drift, "before"))
    if found:
        return found
    whole, whole_was = typical(service.after), typical(service.before)
    if whole is not None and whole_was is not None:
        found.append(("the service", whole, whole_was, "before"))
    return found


def _is_worse(signal: Signal, value: float, reference: float, settings: CanarySettings) -> bool:
    least, factor = (
        (settings.min_error_ratio, settings.error_factor)
        if signal is Signal.ERROR_RATIO
        else (settings.min_latency_s, settings.latency_factor)
    )
    return value - reference >= least and value >= factor * reference


def _shown(value: float, signal: Signal) -> str:
    return format_value(value, UNIT_OF[signal])
