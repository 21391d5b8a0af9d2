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


@dataclass(frozen=True, slots=True)
class BaselineRow:
    """One series' state as it is stored: ``state`` is this module's own packing of its columns."""

    key: SeriesKey
    state: bytes
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


_PACKED = np.dtype(
    [(name, kind, (width,)) for name, (kind, width) in _COLUMNS.items()] + list(_SINGLE.items())
).newbyteorder("<")
STATE_BYTES = _PACKED.itemsize


def written_rows(table: Table, places: Sequence[int], keys: Sequence[SeriesKey]) -> list[BaselineRow]:
    """What is stored of the series in the rows ``places``, whose keys are ``keys``."""
    rows = np.array(places, dtype=np.intp)
    packed = np.zeros(len(rows), dtype=_PACKED)
    for name in (*_COLUMNS, *_SINGLE):
        packed[name] = getattr(table, name)[rows]
    generated = table.generated[rows].tolist()
    return [BaselineRow(key, packed[at].tobytes(), generated[at]) for at, key in enumerate(keys)]


def read_rows(table: Table, rows: Sequence[BaselineRow]) -> None:
    """Puts stored series into the first rows; one of another layout is left empty, to be learned anew."""
    known = [at for at, row in enumerate(rows) if len(row.state) == STATE_BYTES]
    packed = np.frombuffer(b"".join(rows[at].state for at in known), dtype=_PACKED)
    for name in (*_COLUMNS, *_SINGLE):
        getattr(table, name)[known] = packed[name]
    table.generated[known] = [rows[at].generated_samples for at in known]
