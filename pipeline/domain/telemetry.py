"""What is measured: series with a unit and a meaning that the adapter states, samples, call edges."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import assert_never

from pipeline.domain.ids import ServiceName


class Signal(StrEnum):
    """What a series means to a rule. Set by the adapter; a rule never guesses it from a metric's name."""

    LATENCY_P99 = "latency_p99"
    TRAFFIC = "traffic"
    ERROR_RATIO = "error_ratio"
    MEMORY_RATIO = "memory_ratio"
    DISK_RATIO = "disk_ratio"
    CERT_REMAINING = "cert_remaining"
    CPU_RATIO = "cpu_ratio"
    QUOTA_RATIO = "quota_ratio"


class Unit(StrEnum):
    """Unit of a sample's value, after counters became rates."""

    SECONDS = "s"
    PER_SECOND = "1/s"
    RATIO = "ratio"


UNIT_OF: dict[Signal, Unit] = {
    Signal.LATENCY_P99: Unit.SECONDS,
    Signal.TRAFFIC: Unit.PER_SECOND,
    Signal.ERROR_RATIO: Unit.RATIO,
    Signal.MEMORY_RATIO: Unit.RATIO,
    Signal.DISK_RATIO: Unit.RATIO,
    Signal.CERT_REMAINING: Unit.SECONDS,
    Signal.CPU_RATIO: Unit.RATIO,
    Signal.QUOTA_RATIO: Unit.RATIO,
}

SIGNAL_TITLE: dict[Signal, str] = {
    Signal.LATENCY_P99: "p99 latency",
    Signal.TRAFFIC: "traffic",
    Signal.ERROR_RATIO: "error ratio",
    Signal.MEMORY_RATIO: "memory use",
    Signal.DISK_RATIO: "disk use",
    Signal.CERT_REMAINING: "certificate's time left",
    Signal.CPU_RATIO: "CPU use",
    Signal.QUOTA_RATIO: "quota use",
}


TRENDING = frozenset({Signal.DISK_RATIO, Signal.CERT_REMAINING})
"""Signals that go one way for days: what they usually are says nothing about now."""


@dataclass(frozen=True, slots=True, order=True)
class SeriesKey:
    """One time series. ``instance`` is empty for figures of the service as a whole."""

    service: ServiceName
    signal: Signal
    instance: str = ""

    @property
    def unit(self) -> Unit:
        return UNIT_OF[self.signal]

    def describe(self) -> str:
        """``p99 latency of checkout`` or ``memory use of checkout-1``."""
        return f"{SIGNAL_TITLE[self.signal]} of {self.instance or self.service}"


@dataclass(frozen=True, slots=True)
class Sample:
    """One measured value in the unit of its series; ``at`` is aware UTC, the source's time."""

    key: SeriesKey
    at: datetime
    value: float


@dataclass(frozen=True, slots=True)
class CallEdge:
    """``caller`` was seen calling ``callee`` at ``calls_per_s``."""

    caller: ServiceName
    callee: ServiceName
    calls_per_s: float


@dataclass(frozen=True, slots=True)
class SourceFailure:
    """A telemetry source that gave nothing this time, and why, in one line."""

    source: str
    reason: str


@dataclass(frozen=True, slots=True)
class Reading:
    """One look at the telemetry: samples, edges, what could not be read, and what was read but is not to be used.

    ``rejected``: how many values were turned away, by the reason (``not finite``, ``too old``, ``from the future``,
    ``out of order``, ``twice in one reading``). ``namespaces``: where services run, as far as the source can tell.
    """

    samples: tuple[Sample, ...] = ()
    edges: tuple[CallEdge, ...] = ()
    failures: tuple[SourceFailure, ...] = ()
    rejected: Mapping[str, int] = field(default_factory=dict)
    namespaces: Mapping[ServiceName, str] = field(default_factory=dict)


def newest_value(window: Mapping[SeriesKey, Sequence[Sample]], key: SeriesKey) -> float | None:
    """The last value of a series in ``window`` (samples oldest first); None when it has none."""
    samples = window.get(key)
    return samples[-1].value if samples else None


def format_value(value: float, unit: Unit) -> str:
    """A value as a person writes it: ``240 ms``, ``1.9 s``, ``93 %``, ``12.4 /s``, ``2 d 4 h``."""
    if value != value or value in (float("inf"), float("-inf")):
        return "n/a"
    match unit:
        case Unit.SECONDS:
            return _format_seconds(value)
        case Unit.PER_SECOND:
            return f"{value:.1f} /s" if value < 99.95 else f"{value:.0f} /s"
        case Unit.RATIO:
            return f"{value * 100:.1f} %" if 0 < abs(value) < 0.095 else f"{value * 100:.0f} %"
        case _:
            assert_never(unit)


def _format_seconds(value: float) -> str:
    """The limits lie where rounding would write a unit's last figure as the next unit's first (``1000 ms``)."""
    sign, size = "-" if value < 0 else "", abs(value)
    if size < 0.9995:
        return f"{sign}{size * 1000:.0f} ms"
    if size < 119.95:
        return f"{sign}{size:.1f} s"
    if size < 119.5 * 60:
        return f"{sign}{size / 60:.0f} min"
    if size < 47.5 * 3600:
        return f"{sign}{size / 3600:.0f} h"
    hours = max(int(size // 3600), 48)
    return f"{sign}{hours // 24} d {hours % 24} h"
