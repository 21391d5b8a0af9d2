"""Reading the files of a case: every mistake as one line with file, line and what is wrong."""

from __future__ import annotations

import csv
import gzip
import io
import json
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from math import isfinite
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, TypeAdapter, ValidationError

from bot.backtest_csv import epoch_s, number
from pipeline.domain.errors import ConfigurationError
from pipeline.domain.ids import ServiceName
from pipeline.domain.telemetry import CallEdge, Sample, SeriesKey, Signal

M = TypeVar("M", bound=BaseModel)

MAX_BYTES = 64 * 1024 * 1024
"""Of one file, unpacked: a recording of hours, not of a month."""
MISTAKES_TOLD = 10
LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
"""The same in C is there when PyYAML was built with libyaml, and ten times as fast."""
LONG_HEADER = ("service", "signal", "instance", "at", "value")


@dataclass(slots=True)
class Mistakes:
    """What is wrong with one case's files, as it is found."""

    folder: Path
    told: list[str]

    def add(self, name: str, line: int, what: str) -> None:
        """``line`` 0: no line in particular."""
        where = f", line {line}" if line else ""
        self.told.append(f"{self.folder / name}{where}: {what}")

    def raise_any(self) -> None:
        """Raises ConfigurationError with a line each when anything was wrong."""
        if not self.told:
            return
        left = len(self.told) - MISTAKES_TOLD
        more = [f"{self.folder}: and {left} more mistakes"] if left > 0 else []
        raise ConfigurationError("\n".join([*self.told[:MISTAKES_TOLD], *more]))


def read_text(path: Path) -> str:
    """The text of ``path``, unpacked when it is gzip. Raises ConfigurationError."""
    try:
        raw = path.read_bytes()
        if raw.startswith(b"\x1f\x8b"):
            with gzip.open(io.BytesIO(raw)) as unpacked:
                raw = unpacked.read(MAX_BYTES + 1)
        if len(raw) > MAX_BYTES:
            raise ConfigurationError(f"{path}: more than {MAX_BYTES // 1024**2} MB: record less of it")
        return raw.decode("utf-8-sig")
    except OSError as error:
        raise ConfigurationError(f"{path}: cannot be read ({error.strerror or error})") from None
    except (EOFError, zlib.error):
        raise ConfigurationError(f"{path}: the gzip file is cut off or damaged") from None
    except UnicodeDecodeError:
        raise ConfigurationError(f"{path}: no text in UTF-8") from None


def read_form(path: Path, form: Any, mistakes: Mistakes) -> Any:
    """A YAML or JSON file as ``form`` (any type pydantic checks); None, and the mistakes noted, when it is none."""
    text = read_text(path)
    adapter = TypeAdapter(form)
    try:
        if path.suffix == ".json":
            json.loads(text, object_pairs_hook=_once)
            return adapter.validate_json(text)
        tree = yaml.compose(text, Loader=LOADER)
        if twice := _twice(tree):
            mistakes.add(path.name, twice.start_mark.line + 1, f"{twice.value} stands twice")
            return None
        content = yaml.load(text, Loader=LOADER)  # noqa: S506 # nosec B506
        return adapter.validate_python(content)
    except ValidationError as error:
        for one in error.errors():
            mistakes.add(path.name, _line_of(text, one["loc"]), _said(one["loc"], one["msg"]))
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark is not None else 0
        mistakes.add(path.name, line, f"no YAML: {error.problem or error.context}")
    except json.JSONDecodeError as error:
        mistakes.add(path.name, error.lineno, f"no JSON: {error.msg[:1].lower()}{error.msg[1:]}")
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        mistakes.add(path.name, 0, f"cannot be read: {str(error).splitlines()[0][:120]}")
    return None


def read_lines(path: Path, model: type[M], mistakes: Mistakes) -> Iterator[tuple[int, M]]:
    """A JSON object a line, with the line's number. Lines that are none are noted; empty ones are passed over."""
    for line, text in enumerate(read_text(path).splitlines(), start=1):
        if not text.strip():
            continue
        try:
            yield line, model.model_validate_json(text)
        except ValidationError as error:
            mistakes.add(path.name, line, _first(error))


def _once(pairs: list[tuple[str, object]]) -> dict[str, object]:
    names = [name for name, _ in pairs]
    if twice := next((name for name in names if names.count(name) > 1), ""):
        raise ValueError(f"{twice} stands twice in one object")
    return dict(pairs)


def _twice(node: yaml.Node | None) -> yaml.ScalarNode | None:
    """A key that stands twice in one mapping: the second would silently win."""
    if isinstance(node, yaml.MappingNode):
        seen: set[str] = set()
        for key, value in node.value:
            if isinstance(key, yaml.ScalarNode):
                if key.value in seen:
                    return key
                seen.add(key.value)
            if found := _twice(value):
                return found
    elif isinstance(node, yaml.SequenceNode):
        return next((found for item in node.value if (found := _twice(item))), None)
    return None


def _line_of(text: str, place: Sequence[int | str]) -> int:
    """The line of what stands at ``place``, or of the nearest thing around it that is there. JSON is YAML as well."""
    try:
        node: yaml.Node | None = yaml.compose(text, Loader=LOADER)
    except yaml.YAMLError:
        return 0
    line = node.start_mark.line + 1 if node is not None else 1
    for part in place:
        below: yaml.Node | None = None
        if isinstance(node, yaml.SequenceNode) and isinstance(part, int) and part < len(node.value):
            below = node.value[part]
            line = below.start_mark.line + 1
        elif isinstance(node, yaml.MappingNode):
            pair = next(((key, value) for key, value in node.value if key.value == str(part)), None)
            if pair is not None:
                line, below = pair[0].start_mark.line + 1, pair[1]
        if below is None:
            break
        node = below
    return line


def _first(error: ValidationError) -> str:
    one = error.errors()[0]
    return _said(one["loc"], one["msg"])


def _said(place: Sequence[int | str], message: str) -> str:
    where = ".".join(f"[{part + 1}]" if isinstance(part, int) else part for part in place)
    message = message.removeprefix("Value error, ")
    message = f"{message[:1].lower()}{message[1:]}".splitlines()[0]
    return f"{where}: {message}" if where else message


def read_samples(path: Path, mistakes: Mistakes) -> list[Sample]:
    """The samples of a long table (a row a value) or of a wide one (a column a series), oldest first."""
    rows = _rows(path, mistakes)
    _, header = next(rows, (0, []))
    names = [name.strip() for name in header]
    if tuple(names) == LONG_HEADER:
        found = _long(path, rows, mistakes)
    elif names[:1] == ["at"] and len(names) > 1:
        found = _wide(path, names[1:], rows, mistakes)
    else:
        mistakes.add(path.name, 1, f"the header is {','.join(LONG_HEADER)}, or at and a column service/signal a series")
        return []
    return sorted(found, key=lambda sample: sample.at)


def _long(path: Path, rows: Iterator[tuple[int, list[str]]], mistakes: Mistakes) -> list[Sample]:
    found: list[Sample] = []
    keys: dict[tuple[str, ...], SeriesKey] = {}
    seen: set[tuple[str, datetime]] = set()
    for line, row in rows:
        if len(row) != len(LONG_HEADER):
            mistakes.add(path.name, line, f"{len(row)} cells, the header has {len(LONG_HEADER)}")
            continue
        cells = tuple(cell.strip() for cell in row)
        name = "/".join(cell for cell in cells[:3] if cell)
        try:
            key = keys.get(cells[:3]) or keys.setdefault(cells[:3], parse_series(name))
            at, value = moment(cells[3]), number(cells[4])
            if (name, at) in seen:
                raise ValueError(f"{name} has two values at {at.isoformat()}")
        except ValueError as error:
            mistakes.add(path.name, line, str(error))
            continue
        seen.add((name, at))
        found += [Sample(key, at, value)] if isfinite(value) else []
    return found


def _wide(
    path: Path, columns: Sequence[str], rows: Iterator[tuple[int, list[str]]], mistakes: Mistakes
) -> list[Sample]:
    found: list[Sample] = []
    seen: set[datetime] = set()
    try:
        keys = [parse_series(name) for name in columns]
        if len(set(keys)) < len(keys):
            raise ValueError("a series has two columns")
    except ValueError as error:
        mistakes.add(path.name, 1, str(error))
        return []
    for line, row in rows:
        if len(row) != len(keys) + 1:
            mistakes.add(path.name, line, f"{len(row)} cells, the header has {len(keys) + 1}")
            continue
        try:
            at = moment(row[0])
            values = [number(cell) for cell in row[1:]]
            if at in seen:
                raise ValueError(f"a second row for {at.isoformat()}")
        except ValueError as error:
            mistakes.add(path.name, line, str(error))
            continue
        seen.add(at)
        found += [Sample(key, at, value) for key, value in zip(keys, values, strict=True) if isfinite(value)]
    return found


def read_edges(path: Path, mistakes: Mistakes) -> tuple[CallEdge, ...]:
    """``caller,callee`` rows, with ``calls_per_s`` where it is known."""
    rows = _rows(path, mistakes)
    _, header = next(rows, (0, []))
    names = [name.strip() for name in header]
    if names[:2] != ["caller", "callee"] or names[2:] not in ([], ["calls_per_s"]):
        mistakes.add(path.name, 1, "the header is caller,callee or caller,callee,calls_per_s")
        return ()
    found: list[CallEdge] = []
    for line, row in rows:
        cells = [cell.strip() for cell in row]
        if len(cells) != len(names) or not cells[0] or not cells[1]:
            mistakes.add(path.name, line, "an edge needs a caller and a callee")
            continue
        try:
            found.append(CallEdge(ServiceName(cells[0]), ServiceName(cells[1]), float(cells[2]) if cells[2:] else 1.0))
        except ValueError:
            mistakes.add(path.name, line, f"{cells[2][:40]!r} is no number")
    return tuple(found)


def _rows(path: Path, mistakes: Mistakes) -> Iterator[tuple[int, list[str]]]:
    reader = csv.reader(io.StringIO(read_text(path), newline=""))
    try:
        for row in reader:
            if any(cell.strip() for cell in row):
                yield reader.line_num, row
    except csv.Error as error:
        mistakes.add(path.name, reader.line_num, f"no CSV ({error})")


def parse_series(name: str) -> SeriesKey:
    """``checkout/memory_ratio/checkout-1``. Raises ValueError."""
    service, _, rest = name.strip().partition("/")
    signal, _, instance = rest.partition("/")
    if not service or signal not in {one.value for one in Signal}:
        known = ", ".join(one.value for one in Signal)
        raise ValueError(f"{name[:60]!r} is no series: write service/signal or service/signal/instance ({known})")
    return SeriesKey(ServiceName(service), Signal(signal), instance)


def series_name(key: SeriesKey) -> str:
    """What `parse_series` reads."""
    return "/".join(part for part in (key.service, key.signal.value, key.instance) if part)


def moment(text: str) -> datetime:
    """An aware UTC time of ISO 8601 or epoch seconds. Raises ValueError."""
    return datetime.fromtimestamp(epoch_s(text), UTC)
