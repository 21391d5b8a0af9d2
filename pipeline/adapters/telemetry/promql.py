"""The conventions of ``exposition`` as PromQL, for any Prometheus-compatible server. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass

from pipeline.adapters.telemetry.exposition import (
    CALLEE_LABEL,
    CALLER_LABEL,
    CALLS,
    CERT_END,
    DISK_FREE,
    DISK_SIZE,
    MEMORY_LIMIT,
    MEMORY_USED,
    REQUEST_DURATION,
    SERVER_ERROR,
    STATUS_LABELS,
)
from pipeline.domain.telemetry import Signal


@dataclass(frozen=True, slots=True)
class PromQL:
    """Builds one query per signal.

    ``service`` and ``instance`` are label names; ``window`` is a duration such as ``1m``: of rates, and the greatest
    age of a gauge. ``matchers`` stand in every selector, as in PromQL: ``environment="prod",cluster=~"eu.*"``.
    """

    service: str
    instance: str
    window: str
    matchers: str

    def signals(self) -> dict[Signal, str]:
        """Vectors labelled by service, and for gauges by instance too."""
        by_instance = f"by ({self.service}, {self.instance})"
        memory = " or ".join(f"max {by_instance} ({self._gauge(name)})" for name in MEMORY_USED)
        return {
            Signal.TRAFFIC: " or ".join(self._traffic(metric) for metric in REQUEST_DURATION),
            Signal.ERROR_RATIO: " or ".join(self._error_ratio(metric) for metric in REQUEST_DURATION),
            Signal.LATENCY_P99: " or ".join(self._latency(metric) for metric in REQUEST_DURATION),
            Signal.MEMORY_RATIO: f"({memory}) / (max {by_instance} ({self._gauge(MEMORY_LIMIT)}) > 0)",
            Signal.DISK_RATIO: f"max {by_instance} (1 - {self._gauge(DISK_FREE)} / ({self._gauge(DISK_SIZE)} > 0))",
            Signal.CERT_REMAINING: f"min {by_instance} ({self._gauge(CERT_END)}) - time()",
        }

    def calls(self) -> str:
        """Calls per second by caller and callee. Span pipelines write them centrally, so no service label is asked."""
        rate = f"rate({CALLS}{{{self.matchers}}}[{self.window}])"
        return f"sum by ({CALLER_LABEL}, {CALLEE_LABEL}) ({rate}) > 0"

    def down(self) -> str:
        """Targets that Prometheus cannot scrape."""
        return f"max by ({self.service}, {self.instance}) ({self._series('up')}) == 0"

    def _traffic(self, metric: str) -> str:
        return f"sum by ({self.service}) ({self._rate(f'{metric}_count')})"

    def _error_ratio(self, metric: str) -> str:
        failed = " or ".join(self._rate(f"{metric}_count", f'{label}=~"{SERVER_ERROR}"') for label in STATUS_LABELS)
        total = self._traffic(metric)
        # No series of 5xx answers yet is a ratio of 0, not an absent one.
        return f"(sum by ({self.service}) ({failed}) or 0 * {total}) / ({total} > 0)"

    def _latency(self, metric: str) -> str:
        return f"histogram_quantile(0.99, sum by ({self.service}, le) ({self._rate(f'{metric}_bucket')}))"

    def _rate(self, metric: str, *matchers: str) -> str:
        return f"rate({self._series(metric, *matchers)}[{self.window}])"

    def _gauge(self, metric: str) -> str:
        # An instant query answers with values up to five minutes old under the time of the question.
        series = self._series(metric)
        return f"({series} and timestamp({series}) >= time() - {duration_s(self.window):g})"

    def _series(self, metric: str, *matchers: str) -> str:
        selected = ",".join(part for part in (f'{self.service}!=""', *matchers, self.matchers) if part)
        return f"{metric}{{{selected}}}"


_UNIT_S = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}


def duration_s(text: str) -> float:
    """Seconds of a PromQL duration such as ``90s`` or ``1m30s``; ValueError when it is none."""
    parts = re.findall(r"(\d+)(ms|s|m|h)", text)
    if not parts or "".join(number + unit for number, unit in parts) != text:
        raise ValueError(f"{text!r} is no duration such as 90s, 1m or 1m30s")
    return sum(int(number) * _UNIT_S[unit] for number, unit in parts)
