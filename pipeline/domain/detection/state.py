"""The arrays of a fleet: made, grown and written to bytes."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from pipeline.domain.detection import layout as lay
from pipeline.domain.detection.layout import Arrays, Float64s
from pipeline.domain.detection.novelty import NOVELTY_SIZE, novelty_init
from pipeline.domain.errors import PermanentError

MAGIC = b"sre-bot detection state\n"
VERSION = 1
"""Changes with every change of the arrays' meaning: old state is then learned anew from history, never guessed at."""
GROWTH = 1.25
"""How much room is made when rows are added beyond it."""

Array = npt.NDArray[np.generic]


def empty(rows: int, novel_rows: int, tuning: Float64s) -> Arrays:
    """State of ``rows`` series that have seen nothing, ``novel_rows`` of them with a novelty lane."""
    day_slots, week_slots = int(tuning[lay.DAY_SLOTS]), int(tuning[lay.WEEK_SLOTS])
    novel_row = np.zeros(NOVELTY_SIZE)
    novelty_init(novel_row, float(tuning[lay.PERIOD_S]))
    return Arrays(
        hot=np.zeros((rows, lay.HOT_SIZE)),
        day=np.full((day_slots, rows), np.nan, dtype=np.float32),
        week=np.full((week_slots, rows), np.nan, dtype=np.float32),
        spread=np.full((lay.HOURS, rows), np.nan, dtype=np.float32),
        day_jumps=np.zeros((2 * day_slots, rows), dtype=np.uint8),
        week_jumps=np.zeros((2 * week_slots, rows), dtype=np.uint8),
        novelty=np.tile(novel_row, (novel_rows, 1)),
        lane=np.full(rows, -1, dtype=np.int32),
        ignored=np.zeros(lay.REASONS, dtype=np.int64),
    )


def grown(arrays: Arrays, used: int, novel: npt.NDArray[np.bool_], tuning: Float64s) -> Arrays:
    """``arrays`` with a series more for each of ``novel`` (true: with a novelty lane) after the ``used`` first."""
    rows = used + len(novel)
    first = int(arrays.lane[:used].max(initial=-1)) + 1
    novel_rows = first + int(novel.sum())
    if rows > len(arrays.hot) or novel_rows > len(arrays.novelty):
        room = max(rows, int(used * GROWTH)) if used else rows
        larger = empty(room, max(novel_rows, int(first * GROWTH)) if novel.any() else first, tuning)
        larger.hot[:used] = arrays.hot[:used]
        larger.lane[:used] = arrays.lane[:used]
        larger.novelty[:first] = arrays.novelty[:first]
        for new, old in zip(_profiles(larger), _profiles(arrays), strict=True):
            new[:, :used] = old[:, :used]
        larger.ignored[:] = arrays.ignored
        arrays = larger
    arrays.lane[used:rows] = np.where(novel, first + np.cumsum(novel) - 1, -1)
    return arrays


def trimmed(arrays: Arrays, rows: int) -> Arrays:
    """The first ``rows`` series alone, as views."""
    day, week, spread, day_jumps, week_jumps = (profile[:, :rows] for profile in _profiles(arrays))
    lane = arrays.lane[:rows]
    novelty = arrays.novelty[: int(lane.max(initial=-1)) + 1]
    return Arrays(arrays.hot[:rows], day, week, spread, day_jumps, week_jumps, novelty, lane, arrays.ignored)  # type: ignore[arg-type]


def _profiles(arrays: Arrays) -> tuple[Array, ...]:
    return arrays.day, arrays.week, arrays.spread, arrays.day_jumps, arrays.week_jumps


def packed(settings: Mapping[str, object], arrays: Sequence[Array]) -> bytes:
    """One run of bytes: magic, a line of JSON that describes what follows, then the arrays' memory."""
    described = [{"dtype": array.dtype.str, "shape": array.shape} for array in arrays]
    header = json.dumps({"version": VERSION, "settings": settings, "arrays": described})
    return b"".join([MAGIC, header.encode(), b"\n", *(np.ascontiguousarray(array).data for array in arrays)])


def unpacked(data: bytes) -> tuple[dict[str, object], list[Array]]:
    """The inverse of `packed`. PermanentError for bytes that are no state, are cut off, or are of another version."""
    if not data.startswith(MAGIC):
        raise PermanentError("these bytes are no detection state: learn the baselines again from history")
    head_end = data.find(b"\n", len(MAGIC))
    try:
        header = json.loads(data[len(MAGIC) : head_end])
        version, settings = header["version"], header["settings"]
    except (ValueError, KeyError, TypeError) as error:
        raise PermanentError("the detection state's header cannot be read: learn the baselines again") from error
    if version != VERSION:
        raise PermanentError(
            f"the detection state is of version {version}, this program reads version {VERSION}: "
            "learn the baselines again from history"
        )
    arrays: list[Array] = []
    at = head_end + 1
    for described in header["arrays"]:
        dtype, shape = np.dtype(described["dtype"]), tuple(described["shape"])
        count = int(np.prod(shape))
        if at + count * dtype.itemsize > len(data):
            raise PermanentError("the detection state is cut off: learn the baselines again from history")
        arrays.append(np.frombuffer(data, dtype=dtype, count=count, offset=at).reshape(shape).copy())
        at += count * dtype.itemsize
    return settings, arrays
