"""Which metrics mean what, and reading them from Prometheus' text format. Pure: no I/O, no clock.

Names follow OpenTelemetry's HTTP semantic conventions in their Prometheus form, cAdvisor, node_exporter,
x509-certificate-exporter and Tempo's service graphs.
Format: https://prometheus.io/docs/instrumenting/exposition_formats/#text-based-format
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from math import inf, isfinite, isnan

from prometheus_client.parser import text_string_to_metric_families

REQUEST_DURATION = ("http_server_request_duration_seconds", "http_request_duration_seconds")
"""Histograms of served requests; the first one that a target exports counts, so that none is counted twice."""
STATUS_LABELS = ("http_response_status_code", "http_status_code", "status_code", "status", "code")
SERVER_ERROR = "5.."
"""Anchored regular expression of a failed request's status, ``503`` as well as ``5xx``."""
MEMORY_USED = ("process_resident_memory_bytes", "container_memory_working_set_bytes")
MEMORY_LIMIT = "container_spec_memory_limit_bytes"
DISK_SIZE = "node_filesystem_size_bytes"
DISK_FREE = "node_filesystem_avail_bytes"
PSEUDO_FILESYSTEMS = "overlay|squashfs|erofs|iso9660|cdfs|udf|nsfs"
"""Anchored regular expression of ``fstype``: images that are full by nature, and second views of another disk."""
CERT_END = "x509_cert_not_after"
CALLS = "traces_service_graph_request_total"
CALLER_LABEL, CALLEE_LABEL = "client", "server"

STALE_AFTER_S = 300.0
"""A value older than this says nothing about now: Prometheus' own default look-back."""

_GAUGES = (*MEMORY_USED, MEMORY_LIMIT, DISK_SIZE, DISK_FREE, CERT_END)
_WANTED = (*_GAUGES, *REQUEST_DURATION, CALLS)
# The parser reads some 25,000 lines a second, and most lines of an exporter are none of ours: it gets ours, and the
# first few of all to prove that the text is in the format.
_PROOF_LINES = 20

Labels = tuple[tuple[str, str], ...]
"""Sorted label pairs of one series."""
Buckets = Mapping[float, float]
"""Cumulative counts by upper bound; ``inf`` holds the total. A plain counter has ``inf`` alone."""


@dataclass(frozen=True, slots=True)
class Gauge:
    """A value, and its time in epoch seconds where the exposition states one."""

    value: float
    at_s: float | None = None


@dataclass(frozen=True, slots=True)
class Exposition:
    """What one target said in one scrape. ``counted_at_s``: newest stated time of a counter, usually none."""

    requests: Mapping[Labels, Buckets]
    calls: Mapping[Labels, Buckets]
    gauges: Mapping[str, Mapping[Labels, Gauge]]
    counted_at_s: float | None = None

    def memory_ratio(self) -> Gauge | None:
        """Used over limit; None without a limit (absent or 0)."""
        limit = _largest(self._of(MEMORY_LIMIT).values())
        used = next((gauge for name in MEMORY_USED if (gauge := _largest(self._of(name).values()))), None)
        if used is None or limit is None or limit.value <= 0:
            return None
        return _quotient(used, limit)

    def disk_ratio(self) -> Gauge | None:
        """The fullest file system: 1 - free/size."""
        sizes = self._of(DISK_SIZE)
        shares = [
            _quotient(free, sizes[labels])
            for labels, free in self._of(DISK_FREE).items()
            if labels in sizes
            and sizes[labels].value > 0
            and not re.fullmatch(PSEUDO_FILESYSTEMS, dict(labels).get("fstype", ""))
        ]
        emptiest = min(shares, key=lambda share: share.value, default=None)
        return emptiest and replace(emptiest, value=1 - emptiest.value)

    def cert_end(self) -> Gauge | None:
        """Epoch seconds at which the first certificate ends."""
        return min(self._of(CERT_END).values(), key=lambda gauge: gauge.value, default=None)

    def _of(self, name: str) -> Mapping[Labels, Gauge]:
        return self.gauges.get(name, {})


def parse_exposition(text: str, *, now_s: float) -> Exposition:
    """Reads what the conventions name; raises ValueError, one line, when the text is not in the format.

    NaN and infinite values, values stamped more than ``STALE_AFTER_S`` away from ``now_s``, and all but the newest of a
    series that is given twice are left out.
    """
    lines = [line for raw in text.split("\n") if (line := raw.strip()) and not line.startswith("#")]
    if not text.strip():
        raise ValueError("the answer is empty")
    _read(lines[:_PROOF_LINES], now_s)
    series = _read([line for line in lines if line.startswith(_WANTED)], now_s)

    gauges: dict[str, dict[Labels, Gauge]] = {}
    for (name, labels), gauge in series.items():
        if name in _GAUGES:
            gauges.setdefault(name, {})[labels] = gauge
    requests: dict[Labels, Buckets] = {}
    counted: list[Gauge] = []
    for metric in REQUEST_DURATION:
        if requests := _histograms(series, metric, counted):
            break
    calls: dict[Labels, Buckets] = {}
    for (name, labels), gauge in series.items():
        if name == CALLS:
            calls[labels] = {inf: gauge.value}
            counted.append(gauge)
    stated = max((gauge.at_s for gauge in counted if gauge.at_s is not None), default=None)
    return Exposition(requests, calls, gauges, stated)


def is_server_error(labels: Labels) -> bool:
    """Whether a request series counts 5xx answers."""
    return any(name in STATUS_LABELS and re.fullmatch(SERVER_ERROR, value) for name, value in labels)


def _read(lines: Iterable[str], now_s: float) -> dict[tuple[str, Labels], Gauge]:
    series: dict[tuple[str, Labels], Gauge] = {}
    try:
        for family in text_string_to_metric_families("\n".join(lines)):
            for sample in family.samples:
                at_s = None if sample.timestamp is None else float(sample.timestamp)
                if not isfinite(sample.value) or (at_s is not None and not abs(now_s - at_s) <= STALE_AFTER_S):
                    continue
                key = (sample.name, tuple(sorted(sample.labels.items())))
                known = series.get(key)
                if known is None or (at_s or now_s) > (known.at_s or now_s):
                    series[key] = Gauge(float(sample.value), at_s)
    except (ValueError, IndexError) as error:  # the parser indexes past the end of some malformed lines
        raise ValueError(f"not Prometheus' text format: {' '.join(str(error).split())[:120]}") from error
    return series


def _histograms(series: Mapping[tuple[str, Labels], Gauge], metric: str, counted: list[Gauge]) -> dict[Labels, Buckets]:
    found: dict[Labels, dict[float, float]] = {}
    totals: dict[Labels, float] = {}
    for (name, labels), gauge in series.items():
        if name == f"{metric}_count":
            totals[labels] = gauge.value
        elif name == f"{metric}_bucket":
            bound = _bound(labels)
            if bound is None:
                continue
            rest = tuple(pair for pair in labels if pair[0] != "le")
            found.setdefault(rest, {})[bound] = gauge.value
        else:
            continue
        counted.append(gauge)
    for labels, total in totals.items():
        found.setdefault(labels, {}).setdefault(inf, total)
    return {labels: buckets for labels, buckets in found.items() if inf in buckets}


def _bound(labels: Labels) -> float | None:
    try:
        bound = float(dict(labels)["le"])
    except (KeyError, ValueError):
        return None
    return None if isnan(bound) else bound


def _largest(gauges: Iterable[Gauge]) -> Gauge | None:
    return max(gauges, key=lambda gauge: gauge.value, default=None)


def _quotient(part: Gauge, whole: Gauge) -> Gauge:
    stated = [at_s for at_s in (part.at_s, whole.at_s) if at_s is not None]
    return Gauge(part.value / whole.value, min(stated, default=None))
