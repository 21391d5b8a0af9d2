"""What may leave a source: finite values, fresh, each moment of a series once. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from math import isfinite

from pipeline.adapters.telemetry.exposition import STALE_AFTER_S
from pipeline.domain.telemetry import Sample, SeriesKey

_STALE_AFTER = timedelta(seconds=STALE_AFTER_S)
_FORGET_AFTER = timedelta(hours=1)
"""Instances come and go; the time of a series not heard of for so long need not be kept."""


@dataclass(frozen=True, slots=True)
class Sifted:
    """What may go on, and how many may not, by the reason."""

    samples: tuple[Sample, ...]
    rejected: Mapping[str, int]


class NewestOnly:
    """Remembers the time of each series' last sample."""

    def __init__(self) -> None:
        self._last: dict[SeriesKey, datetime] = {}

    def sift(self, samples: Iterable[Sample], now: datetime) -> Sifted:
        """Those that say something new, in order; of two of one moment in one reading the later one counts."""
        # A last sample far in the future was taken before the clock was set back.
        self._last = {key: at for key, at in self._last.items() if now - _FORGET_AFTER <= at <= now + _STALE_AFTER}
        newest: dict[tuple[SeriesKey, datetime], Sample] = {}
        rejected: Counter[str] = Counter()
        for sample in samples:
            last = self._last.get(sample.key)
            if not isfinite(sample.value):
                rejected["not finite"] += 1
            elif sample.at < now - _STALE_AFTER:
                rejected["too old"] += 1
            elif sample.at > now + _STALE_AFTER:
                rejected["from the future"] += 1
            elif last is not None and sample.at < last:
                rejected["out of order"] += 1
            elif sample.at == last:
                continue  # a source that is read more often than it measures says the same again
            else:
                rejected["twice in one reading"] += (sample.key, sample.at) in newest
                newest[sample.key, sample.at] = sample
        for key, at in newest:
            self._last[key] = max(at, self._last.get(key, at))
        return Sifted(tuple(newest.values()), {reason: count for reason, count in rejected.items() if count})
