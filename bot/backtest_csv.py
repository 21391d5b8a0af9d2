"""Series as CSV: read whole and checked line by line, written all or nothing."""

from __future__ import annotations

import csv
import gzip
import io
import zlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from math import inf, isfinite, nan
from pathlib import Path
from typing import TextIO

import numpy as np
import numpy.typing as npt

from bot.whole_file import write_whole
from pipeline.domain.detection.clock import ClockCheck
from pipeline.domain.errors import PermanentError

FloatArray = npt.NDArray[np.float64]

NO_VALUE = frozenset({"", "nan", "null", "none", "na", "n/a", "-"})
"""How exporters write a sample without a value (lower case)."""
EARLIEST_S, LATEST_S = -6e10, 1e11
"""Epoch seconds of the year 5138: a greater number is milliseconds or finer."""
GZIP_MAGIC = b"\x1f\x8b"


@dataclass(frozen=True, slots=True)
class History:
    """A stored series, row by row as it was given.

    ``stamps`` and ``texts`` are the cells as written; ``ts`` (n,) epoch seconds; ``values`` (n,), NaN where the row has
    no finite value; ``late`` (n,) marks rows that are not newer than a row before them.
    """

    name: str
    stamps: Sequence[str]
    texts: Sequence[str]
    ts: FloatArray
    values: FloatArray
    late: npt.NDArray[np.bool_]
    duplicates: int
    """Of the late rows, those that repeat the newest time."""


def history(name: str, stamps: Sequence[str], texts: Sequence[str], ts: FloatArray, values: FloatArray) -> History:
    """A history of rows in the order given."""
    late, repeated = _late(ts)
    return History(name, stamps, texts, ts, np.where(np.isfinite(values), values, nan), late, repeated)


def _late(ts: FloatArray) -> tuple[npt.NDArray[np.bool_], int]:
    """Rows at or behind the newest time before them, and how many of them are at it; a clock that was ahead once is
    told from rows that are late by the rule of the detectors."""
    newest = np.maximum.accumulate(ts)
    late = np.concatenate(([False], ts[1:] <= newest[:-1]))
    repeated = int(np.concatenate(([False], ts[1:] == newest[:-1])).sum())
    if not late.any():
        return late, repeated
    clock, latest, repeated = ClockCheck(), -np.inf, 0
    for at, stamp in enumerate(ts.tolist()):
        late[at] = stamp <= latest and not clock.was_wrong(stamp, latest)
        repeated += stamp == latest
        if not late[at]:
            latest = stamp
    return late, repeated


def read_history(path: Path) -> History:
    """Reads ``timestamp,value`` rows (plain or gzip; other columns are passed over).

    Raises PermanentError with the file and line when the file cannot be read, has no such header, no rows, or a cell
    that is neither a time nor a number.
    """
    reader = csv.reader(io.StringIO(_text(path), newline=""))
    stamps: list[str] = []
    texts: list[str] = []
    lines: list[int] = []
    try:
        header = next(reader, [])
        names = [cell.strip().lower() for cell in header]
        if "timestamp" not in names or "value" not in names:
            found = ",".join(header)[:60] or "nothing"
            raise PermanentError(
                f"{path}: line 1: the header must name the columns timestamp and value, found: {found}"
            )
        at, of = names.index("timestamp"), names.index("value")
        need = max(at, of)
        for row in reader:
            if len(row) > need:
                stamps.append(row[at])
                texts.append(row[of])
                lines.append(reader.line_num)
            elif row:
                raise PermanentError(
                    f"{path}: line {reader.line_num}: {len(row)} cells where the header has {len(names)}"
                )
    except csv.Error as error:
        raise PermanentError(f"{path}: line {reader.line_num}: this is not CSV ({error})") from None
    if not stamps:
        raise PermanentError(f"{path}: no rows under the header")
    ts = _column(path, lines, stamps, epoch_s)
    values = _column(path, lines, texts, number)
    return history(str(path), stamps, texts, ts, values)


def read_labels(path: Path) -> list[tuple[float, float]]:
    """Reads ``start,end`` rows; a header is optional. Raises PermanentError with the file and line."""
    labels: list[tuple[float, float]] = []
    reader = csv.reader(io.StringIO(_text(path), newline=""))
    try:
        for row in reader:
            if not row or [cell.strip().lower() for cell in row[:2]] == ["start", "end"]:
                continue
            if len(row) < 2:
                raise PermanentError(f"{path}: line {reader.line_num}: a label is start,end")
            try:
                start, end = epoch_s(row[0]), epoch_s(row[1])
            except ValueError as error:
                raise PermanentError(f"{path}: line {reader.line_num}: {error}") from None
            if end < start:
                raise PermanentError(f"{path}: line {reader.line_num}: the label ends before it starts")
            labels.append((start, end))
    except csv.Error as error:
        raise PermanentError(f"{path}: line {reader.line_num}: this is not CSV ({error})") from None
    return labels


def epoch_s(text: str) -> float:
    """Epoch seconds of a number of seconds or an ISO 8601 time (UTC where it names no zone). Raises ValueError."""
    try:
        seconds = float(text)
    except ValueError:
        try:
            at = datetime.fromisoformat(text.strip())
        except ValueError:
            raise ValueError(f"{text[:40]!r} is neither an ISO 8601 time nor epoch seconds") from None
        return (at if at.tzinfo is not None else at.replace(tzinfo=UTC)).timestamp()
    if not isfinite(seconds):
        raise ValueError(f"{text[:40]!r} is no time")
    if not EARLIEST_S <= seconds <= LATEST_S:
        raise ValueError(f"{text[:40]!r} is no time in epoch seconds: give seconds, not milliseconds")
    return seconds


def number(text: str) -> float:
    """The number; NaN for a sample without a value. Raises ValueError."""
    try:
        return float(text)
    except ValueError:
        if text.strip().lower() in NO_VALUE:
            return nan
        raise ValueError(f"{text[:40]!r} is no number") from None


def write_rows(path: Path, header: Sequence[str], columns: Sequence[Iterable[object]]) -> None:
    """Writes ``columns`` of equal length under ``header``; gzip when the name ends in .gz."""

    def write(part: Path) -> None:
        opened = gzip.open if path.suffix == ".gz" else open
        with opened(part, "wt", encoding="utf-8", newline="") as file:
            print_rows(file, header, columns)

    write_whole(path, write)


def print_rows(file: TextIO, header: Sequence[str], columns: Sequence[Iterable[object]]) -> None:
    """Prints ``columns`` of equal length under ``header``."""
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(zip(*columns, strict=True))


def _text(path: Path) -> str:
    try:
        raw = path.read_bytes()
        if raw.startswith(GZIP_MAGIC):
            raw = gzip.decompress(raw)
        return raw.decode("utf-8-sig")
    except OSError as error:
        raise PermanentError(f"{path} cannot be read ({error.strerror or error})") from None
    except (EOFError, zlib.error):
        raise PermanentError(f"{path} cannot be read (the gzip file is cut off or damaged)") from None
    except UnicodeDecodeError:
        raise PermanentError(f"{path} cannot be read (it is not text in UTF-8)") from None


def _column(path: Path, lines: Sequence[int], cells: Sequence[str], parse: Callable[[str], float]) -> FloatArray:
    numbers = np.full(len(cells), inf)
    for row, cell in enumerate(cells):
        try:
            numbers[row] = parse(cell)
        except ValueError as error:
            raise PermanentError(f"{path}: line {lines[row]}: {error}") from None
    return numbers
