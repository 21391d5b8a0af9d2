"""Names of metrics as people write them, into signals with their unit."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from math import isfinite

from pipeline.domain.changes import ChangeEvent, ChangeKind
from pipeline.domain.ids import ServiceName
from pipeline.domain.telemetry import SeriesKey, Signal

DAY_S = 86_400.0

_NAMES: dict[str, tuple[Signal, float]] = {
    **{signal.value: (signal, 1.0) for signal in Signal},
    **dict.fromkeys(
        ("latency", "latency_s", "latency_seconds", "p99", "p99_s", "duration_s"), (Signal.LATENCY_P99, 1.0)
    ),
    **dict.fromkeys(("latency_ms", "latency_p99_ms", "p99_ms", "duration_ms"), (Signal.LATENCY_P99, 1e-3)),
    **dict.fromkeys(("latency_p99_s", "latency_p99_seconds"), (Signal.LATENCY_P99, 1.0)),
    **dict.fromkeys(("rps", "qps", "request_rate", "requests_per_s", "throughput"), (Signal.TRAFFIC, 1.0)),
    **dict.fromkeys(("rpm", "requests_per_min"), (Signal.TRAFFIC, 1.0 / 60.0)),
    **dict.fromkeys(("error_rate", "errors_ratio", "failure_ratio"), (Signal.ERROR_RATIO, 1.0)),
    **dict.fromkeys(("error_pct", "error_percent"), (Signal.ERROR_RATIO, 0.01)),
    **dict.fromkeys(("memory", "mem", "memory_usage", "mem_ratio"), (Signal.MEMORY_RATIO, 1.0)),
    **dict.fromkeys(("memory_pct", "memory_percent"), (Signal.MEMORY_RATIO, 0.01)),
    **dict.fromkeys(("disk", "disk_usage", "disk_used_ratio"), (Signal.DISK_RATIO, 1.0)),
    **dict.fromkeys(("disk_pct", "disk_percent"), (Signal.DISK_RATIO, 0.01)),
    **dict.fromkeys(("cpu", "cpu_usage"), (Signal.CPU_RATIO, 1.0)),
    **dict.fromkeys(("cpu_pct", "cpu_percent"), (Signal.CPU_RATIO, 0.01)),
    **dict.fromkeys(("quota", "quota_usage"), (Signal.QUOTA_RATIO, 1.0)),
    **dict.fromkeys(("cert_remaining_s", "cert_seconds", "cert_expiry_s"), (Signal.CERT_REMAINING, 1.0)),
    **dict.fromkeys(("cert_hours", "cert_remaining_h"), (Signal.CERT_REMAINING, 3600.0)),
    **dict.fromkeys(
        ("cert_days", "cert_remaining_days", "cert_days_left", "cert_expiry_days"), (Signal.CERT_REMAINING, DAY_S)
    ),
}
_ERRORS = ("errors", "error_count", "failures", "errors_per_s")
_REQUESTS = ("requests", "request_count", "calls")


@dataclass(frozen=True, slots=True)
class Named:
    """A series and what its values have to be multiplied with."""

    key: SeriesKey
    factor: float


class Names:
    """Remembers what each name means; a name that nobody knows raises a ValueError that lists what is known."""

    def __init__(self, period_s: float) -> None:
        self._period_s = period_s
        self._known: dict[tuple[str, str], Named] = {}

    def read(
        self, metrics: Mapping[str, Mapping[str, float | Mapping[str, float]]]
    ) -> Iterator[tuple[SeriesKey, float]]:
        """Series and values of one step. Values that are not finite are left out."""
        known = self._known
        for service, named in metrics.items():
            failed = asked = None
            for name, value in named.items():
                if isinstance(value, Mapping):
                    for instance, part in value.items():
                        found = known.get((service, f"{name}@{instance}")) or self._learn(service, f"{name}@{instance}")
                        if isfinite(part):
                            yield found.key, part * found.factor
                    continue
                if name in _ERRORS:
                    failed = value
                    continue
                if name in _REQUESTS:
                    asked = value
                    continue
                found = known.get((service, name)) or self._learn(service, name)
                if isfinite(value):
                    yield found.key, value * found.factor
            if asked is not None and isfinite(asked):
                yield self._own(service, Signal.TRAFFIC), asked / self._period_s
                if failed is not None and isfinite(failed) and asked > 0:
                    yield self._own(service, Signal.ERROR_RATIO), min(failed / asked, 1.0)

    def _own(self, service: str, signal: Signal) -> SeriesKey:
        return SeriesKey(ServiceName(service), signal)

    def _learn(self, service: str, name: str) -> Named:
        metric, _, instance = name.partition("@")
        meaning = _NAMES.get(metric.lower())
        if meaning is None:
            expected = ", ".join(sorted((*_NAMES, *_ERRORS, *_REQUESTS)))
            raise ValueError(f"metric {metric!r} of {service!r} is not known; use one of: {expected}")
        named = Named(SeriesKey(ServiceName(service), meaning[0], instance), meaning[1])
        self._known[service, name] = named
        return named


ChangeLike = ChangeEvent | Mapping[str, object] | tuple[float, str, str]
"""A change: an event, a mapping with ``service``, ``revision`` and perhaps ``ts``, ``title``, ``kind``, ``author``, or
the three of (ts, service, revision). ``ts`` is epoch seconds."""


def change_of(told: ChangeLike, ts: float) -> ChangeEvent:
    """``told`` as a change event, at ``ts`` where it names no time. Raises ValueError when it names no service."""
    if isinstance(told, ChangeEvent):
        return told
    if isinstance(told, tuple):
        told = dict(zip(("ts", "service", "revision"), told, strict=True))
    service = told.get("service")
    if not isinstance(service, str) or not service:
        raise ValueError(f"a change needs a 'service', a name: {dict(told)!r}")
    at = told.get("ts", ts)
    if isinstance(at, bool) or not isinstance(at, int | float):
        raise ValueError(f"the 'ts' of a change is epoch seconds: {dict(told)!r}")
    return ChangeEvent(
        ServiceName(service),
        datetime.fromtimestamp(float(at), UTC),
        ChangeKind(str(told.get("kind", ChangeKind.DEPLOYMENT.value))),
        str(told.get("revision", "unknown")),
        str(told.get("title", "")),
        str(told.get("author", "")),
    )
