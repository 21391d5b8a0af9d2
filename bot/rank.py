"""``sre-bot rank``: two directories of CSV files and a call graph in, the likeliest root cause out."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path

import click
import numpy as np

from pipeline.domain.detection.rca import Ranking, Table, rank
from pipeline.domain.errors import ConfigurationError

TIMESTAMP_NAMES = ("timestamp", "time", "ts")
_NO_VALUE = frozenset({"", "nan", "null", "none", "na", "n/a"})
_SERVICES_SHOWN = 10
_METRICS_SHOWN = 3


def rank_command(baseline: Path, window: Path, graph: Path | None, as_json: bool) -> int:
    """Ranks the services of two directories and prints the result; returns the exit code.

    Each directory holds one CSV a service (file name = service) with a timestamp column (``timestamp``, ``time`` or
    ``ts``; epoch seconds or ISO 8601) and one column a metric; an empty cell is a missing sample. ``graph``: a CSV with
    the header ``caller,callee``.

    With ``as_json`` one object, the likeliest cause first: ``{"services": [{"service": str, "score": 0..1, "reason":
    str, "metrics": [{"metric": str, "score": number, "direction": "up" | "down", "reason": str}]}]}``. The scores of
    services add up to 1, or are all 0 when nothing left its baseline. Bad input: one line on stderr, exit code 2.
    """
    try:
        before, during = _tables(baseline, "--baseline"), _tables(window, "--window")
        edges = [] if graph is None else _edges(graph, set(before) | set(during))
    except ConfigurationError as error:
        click.echo(f"sre-bot: {error}", err=True)
        return 2
    for name, have, lack in (("window", before, during), ("baseline", during, before)):
        alone = sorted(set(have) - set(lack))
        if alone:
            click.echo(f"sre-bot: not in the {name}, so not compared: {', '.join(alone)}", err=True)
    ranking = rank(before, during, edges)
    click.echo(json.dumps(asdict(ranking)) if as_json else _as_text(ranking))
    return 0


def _as_text(ranking: Ranking) -> str:
    if not any(service.score for service in ranking.services):
        return "Nothing left its baseline: no service stands out."
    lines = []
    for place, service in enumerate(ranking.services[:_SERVICES_SHOWN], start=1):
        lines.append(f"{place:>3}. {service.service}  {service.score:.0%}  {service.reason}")
        lines += [f"       {metric.metric}: {metric.reason}" for metric in service.metrics[:_METRICS_SHOWN]]
    left = len(ranking.services) - _SERVICES_SHOWN
    return "\n".join([*lines, f"     … and {left} more"] if left > 0 else lines)


def _tables(directory: Path, option: str) -> dict[str, Table]:
    if not directory.is_dir():
        raise ConfigurationError(f"{option} {directory} is no directory: name one that holds a CSV for each service")
    files = sorted(path for path in directory.iterdir() if path.is_file() and path.suffix.lower() == ".csv")
    if not files:
        raise ConfigurationError(f"{option} {directory} holds no .csv file: write one for each service")
    return {path.stem: _table(path) for path in files}


def _table(path: Path) -> Table:
    with _rows(path) as rows:
        header = [name.strip() for name in next(rows, [])]
        plain = [name.lower() for name in header]
        at = next((plain.index(name) for name in TIMESTAMP_NAMES if name in plain), None)
        if at is None:
            raise ConfigurationError(f"{path}: no timestamp column, name one of {', '.join(TIMESTAMP_NAMES)}")
        samples: dict[float, list[float]] = {}
        for line, row in enumerate(rows, start=2):
            if not any(cell.strip() for cell in row):
                continue
            if len(row) != len(header):
                raise ConfigurationError(f"{path}, line {line}: {len(row)} cells, the header has {len(header)}")
            samples[_seconds(row[at], path, line)] = [
                _number(cell, name, path, line)
                for place, (name, cell) in enumerate(zip(header, row, strict=True))
                if place != at
            ]
    times = sorted(samples)
    names = [name for place, name in enumerate(header) if place != at]
    values = np.array([samples[time] for time in times], dtype=np.float64).reshape(len(times), len(names))
    return Table(np.array(times, dtype=np.float64), {name: values[:, place] for place, name in enumerate(names)})


def _edges(path: Path, services: set[str]) -> list[tuple[str, str]]:
    with _rows(path) as rows:
        header = [name.strip().lower() for name in next(rows, [])]
        if "caller" not in header or "callee" not in header:
            raise ConfigurationError(f"{path}: the header must be caller,callee")
        caller, callee = header.index("caller"), header.index("callee")
        edges = []
        for line, row in enumerate(rows, start=2):
            if not any(cell.strip() for cell in row):
                continue
            if len(row) <= max(caller, callee) or not row[caller].strip() or not row[callee].strip():
                raise ConfigurationError(f"{path}, line {line}: an edge needs a caller and a callee")
            edges.append((row[caller].strip(), row[callee].strip()))
    return _known(edges, services, path)


def _known(edges: list[tuple[str, str]], services: set[str], path: Path) -> list[tuple[str, str]]:
    """The edges with the services' own names. Names without metrics stay: calls go through them."""
    by_plain: dict[str, list[str]] = {}
    for service in services:
        by_plain.setdefault(_plain(service), []).append(service)
    names: Mapping[str, str] = {
        name: name if name in services or len(by_plain.get(_plain(name), [])) != 1 else by_plain[_plain(name)][0]
        for edge in edges
        for name in edge
    }
    strange = sorted(name for name, own in names.items() if own not in services)
    if edges and len(strange) == len(names):
        raise ConfigurationError(f"{path} names no service that has a CSV: {', '.join(strange[:5])}")
    if strange:
        click.echo(f"sre-bot: in the graph without a CSV, calls go through them: {', '.join(strange)}", err=True)
    return [(names[caller], names[callee]) for caller, callee in edges]


def _plain(name: str) -> str:
    """A name without what a file name may not be able to hold."""
    return re.sub(r"[^a-z0-9]", "", name.lower())


@contextmanager
def _rows(path: Path) -> Iterator[Iterator[list[str]]]:
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            yield csv.reader(file)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ConfigurationError(f"{path} cannot be read as CSV: {error}") from None


def _seconds(cell: str, path: Path, line: int) -> float:
    text = cell.strip()
    try:
        value = float(text)
    except ValueError:
        try:
            moment = datetime.fromisoformat(text)
        except ValueError:
            raise ConfigurationError(
                f"{path}, line {line}: {text[:40]!r} is no time, write epoch seconds or ISO 8601"
            ) from None
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
    if not np.isfinite(value):
        raise ConfigurationError(f"{path}, line {line}: the timestamp is {text[:40]!r}")
    return value


def _number(cell: str, name: str, path: Path, line: int) -> float:
    text = cell.strip()
    if text.lower() in _NO_VALUE:
        return float("nan")
    try:
        value = float(text)
    except ValueError:
        raise ConfigurationError(f"{path}, line {line}: {name} is {text[:40]!r}, not a number") from None
    return value if np.isfinite(value) else float("nan")
