"""What may leave a source: finite values, fresh, each moment of a series once. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timedelta
from math import isfinite

from pipeline.adapters.telemetry.exposition import STALE_AFTER_S
from pipeline.domain.telemetry import Sample, SeriesKey

_STALE_AFTER = timedelta(seconds=STALE_AFTER_S)
_FORGET_AFTER = timedelta(hours=1)
"""Instances come and go; the time of a series not heard of for so long need not be kept."""


class NewestOnly:
    """Remembers the time of each series' last sample."""

    def __init__(self) -> None:
        self._last: dict[SeriesKey, datetime] = {}

    def keep(self, samples: Iterable[Sample], now: datetime) -> tuple[Sample, ...]:
        """Those that say something new, in order."""
        # A last sample far in the future was taken before the clock was set back.
        self._last = {key: at for key, at in self._last.items() if now - _FORGET_AFTER <= at <= now + _STALE_AFTER}
        kept = []
        for sample in samples:
            last = self._last.get(sample.key)
            if isfinite(sample.value) and sample.at >= now - _STALE_AFTER and (last is None or sample.at > last):
                self._last[sample.key] = sample.at
                kept.append(sample)
        return tuple(kept)
