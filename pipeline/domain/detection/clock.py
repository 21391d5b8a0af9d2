"""What a stream of points says of time: how far apart they are, and what the local clock shows."""

from __future__ import annotations

from datetime import UTC, datetime
from itertools import pairwise
from math import isfinite
from statistics import median
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import numpy as np

from pipeline.domain.detection.kinds import MAX_PERIOD_S, MIN_PERIOD_S
from pipeline.domain.detection.layout import Float64s
from pipeline.domain.errors import ConfigurationError

ESTIMATE_POINTS = 8
"""Points looked at before their distance is settled."""
ZONE_STEP_S = 900.0
FIRST_DATE_S, LAST_DATE_S = -6e10, 2.5e11
"""Zones change their offset on quarters of an hour; dates are known for the years 70 to 9890 or so."""


def estimated_period_s(ts: list[float]) -> float | None:
    """The usual distance of ``ts`` (epoch seconds); None until `ESTIMATE_POINTS` different times are known."""
    times = sorted({at for at in ts if isfinite(at)})
    if len(times) < ESTIMATE_POINTS:
        return None
    gap_s = median(later - earlier for earlier, later in pairwise(times))
    return min(max(gap_s, MIN_PERIOD_S), MAX_PERIOD_S)


class LocalClock:
    """Seconds to add to epoch seconds so that profiles follow the local time of a zone, summer time included."""

    def __init__(self, zone: str) -> None:
        try:
            self._zone = None if zone == "UTC" else ZoneInfo(zone)
        except (ZoneInfoNotFoundError, ValueError) as error:
            raise ConfigurationError(f"unknown time zone {zone!r}: use an IANA name such as Europe/Berlin") from error
        self._known: dict[float, float] = {}

    def offset_s(self, ts: float) -> float:
        quarter = ts // ZONE_STEP_S * ZONE_STEP_S
        if self._zone is None or not FIRST_DATE_S < quarter < LAST_DATE_S:
            return 0.0
        known = self._known.get(quarter)
        if known is None:
            offset = datetime.fromtimestamp(quarter, UTC).astimezone(self._zone).utcoffset()
            known = offset.total_seconds() if offset is not None else 0.0
            if len(self._known) > 10_000:
                self._known.clear()
            self._known[quarter] = known
        return known

    def offsets_s(self, ts: Float64s) -> Float64s:
        """[len(ts)] the offset at each time."""
        if self._zone is None:
            return np.zeros(len(ts))
        return np.array([self.offset_s(at) for at in ts.tolist()])


AGREEING = 3
"""So many times in a row, each after the one before, are believed against one that is far ahead of them."""
FAR_S = 3600.0


class ClockCheck:
    """Tells late samples from a clock that was ahead once: without it one time in the future would end the watch."""

    def __init__(self) -> None:
        self._behind: list[float] = []

    def was_wrong(self, ts: float, newest: float) -> bool:
        """Whether ``newest`` was the mistake: ``ts`` and those before it, ascending, lie far behind it."""
        if newest - ts < FAR_S:
            self._behind.clear()
            return False
        if self._behind and ts <= self._behind[-1]:
            self._behind.clear()
        self._behind.append(ts)
        if len(self._behind) < AGREEING:
            return False
        self._behind.clear()
        return True
