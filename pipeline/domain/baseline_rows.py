"""The arrays behind the baselines, and how one series' share of them is stored."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.domain.telemetry import SeriesKey

Array = npt.NDArray[Any]
Rows = npt.NDArray[np.intp]

WEEK_HOURS = 168
DAY_HOURS = 24
SEGMENTS = WEEK_HOURS + DAY_HOURS + 1
SLOT_S = 600
SLOTS = 86_400 // SLOT_S
_OLD_SEGMENTS = 25


@dataclass(frozen=True, slots=True)
class BaselineRow:
    """One series' state as it is stored, in three arrays of floats whose layout is this module's own."""

    key: SeriesKey
    mean: Sequence[float]
    deviation: Sequence[float]
    weight: Sequence[float]
    generated_samples: int


_COLUMNS: dict[str, tuple[type[np.generic], int]] = {
    "mean": (np.float32, SEGMENTS),
    "weight": (np.float32, SEGMENTS),
    "deviation": (np.float32, DAY_HOURS + 1),
    "slot_size": (np.float16, SLOTS),
    "slot_rate": (np.float16, SLOTS),
}
_SINGLE: dict[str, type[np.generic]] = {
    "recent": np.float32,
    "recent_weight": np.float32,
    "drift": np.float32,
    "last": np.float64,
    "outside_s": np.float32,
    "slot_now": np.int16,
    "slot_max": np.float32,
}


class Table:
    """Columns over all series; ``reserve`` doubles the room, so that adding series costs little each.

    ``mean`` and ``weight`` (n, 193): 168 hours of the week, 24 of the day, all time. ``deviation`` (n, 25): hours
    of the day, all time. ``slot_size`` and ``slot_rate`` (n, 144): ten minutes of the day. About 2.3 kB a series.
    """

    mean: Array
    weight: Array
    deviation: Array
    slot_size: Array
    slot_rate: Array
    recent: Array
    recent_weight: Array
    drift: Array
    last: Array
    outside_s: Array
    slot_now: Array
    slot_max: Array
    generated: Array
    two_sided: Array

    def __init__(self, room: int) -> None:
        self._room = 0
        self.reserve(room)

    def reserve(self, count: int) -> None:
        """Makes room for ``count`` series."""
        if count <= self._room:
            return
        room = max(count, 2 * self._room)
        for name, (kind, width) in _COLUMNS.items():
            self._widen(name, np.zeros((room, width), dtype=kind))
        for name, kind in _SINGLE.items():
            self._widen(name, np.full(room, {"last": -np.inf, "slot_now": -1}.get(name, 0), dtype=kind))
        self._widen("generated", np.zeros(room, dtype=np.int64))
        self._widen("two_sided", np.zeros(room, dtype=np.bool_))
        self._room = room

    def _widen(self, name: str, larger: Array) -> None:
        if self._room:
            larger[: self._room] = getattr(self, name)
        setattr(self, name, larger)


def written_row(table: Table, at: int, key: SeriesKey) -> BaselineRow:
    """What is stored of the series in row ``at``."""
    mean = [*table.mean[at].tolist(), *table.slot_size[at].tolist()]
    weight = [*table.weight[at].tolist(), *table.slot_rate[at].tolist()]
    deviation = [*table.deviation[at].tolist(), *(float(getattr(table, name)[at]) for name in _SINGLE)]
    return BaselineRow(key, mean, deviation, weight, int(table.generated[at]))


def read_row(table: Table, at: int, row: BaselineRow) -> None:
    """Puts a stored series into row ``at``. Rows of the first layout (24 hours and all time) are taken too."""
    table.generated[at] = row.generated_samples
    if len(row.mean) == _OLD_SEGMENTS:
        for name, values in (("mean", row.mean), ("weight", row.weight)):
            getattr(table, name)[at, WEEK_HOURS:] = values
        table.deviation[at] = row.deviation
        return
    table.mean[at], table.slot_size[at] = row.mean[:SEGMENTS], row.mean[SEGMENTS:]
    table.weight[at], table.slot_rate[at] = row.weight[:SEGMENTS], row.weight[SEGMENTS:]
    table.deviation[at] = row.deviation[: DAY_HOURS + 1]
    for name, value in zip(_SINGLE, row.deviation[DAY_HOURS + 1 :], strict=True):
        getattr(table, name)[at] = value
