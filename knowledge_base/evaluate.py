"""How well documents are found: queries with known answers in, the usual figures out. Pure."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Annotated

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

CUTS = (1, 3, 5, 10)
DEPTH = max(CUTS)
"""Documents looked at for each query."""


def _listed(value: object) -> object:
    if value is None:
        return ()
    return (value,) if isinstance(value, str) else value


def _text(value: object) -> object:
    return str(value) if isinstance(value, int | float) and not isinstance(value, bool) else value


_LISTS = ("alert", "services")


class EvalQuery(BaseModel):
    """One line of a file of queries. ``relevant``: file names; none when nothing answers. Other keys are ignored."""

    model_config = ConfigDict(frozen=True, extra="ignore")
    id: Annotated[str, BeforeValidator(_text), Field(min_length=1)]
    query: Annotated[str, Field(min_length=1)]
    relevant: tuple[str, ...]
    alert: Annotated[tuple[str, ...], BeforeValidator(_listed)] = ()
    services: Annotated[tuple[str, ...], BeforeValidator(_listed)] = ()
    platform: str | None = None
    kind: str | None = None
    group: str | None = None


@dataclass(frozen=True, slots=True)
class Outcome:
    """What one query got: the paths of ``found``, best first, each once."""

    query: EvalQuery
    found: tuple[str, ...]
    novel: bool
    latency_ms: float


def read_queries(lines: Iterable[str]) -> tuple[list[EvalQuery], list[str]]:
    """The queries of a JSONL file, and one message for each line that is none. Blank lines are passed over."""
    queries: list[EvalQuery] = []
    errors: list[str] = []
    seen: set[str] = set()
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            query = EvalQuery.model_validate(json.loads(line))
        except json.JSONDecodeError as error:
            errors.append(f"line {number}: not JSON: {error.msg}")
        except ValidationError as error:
            errors.append(f"line {number}: {_complaint(error)}")
        else:
            if query.id in seen:
                errors.append(f"line {number}: the id {query.id} was used before")
                continue
            seen.add(query.id)
            queries.append(query)
    return queries, errors


_FORM = 'write {"id": …, "query": …, "relevant": [file names]}'


def _complaint(error: ValidationError) -> str:
    """The first thing that is wrong with a line, in the words of who writes it."""
    first = error.errors(include_url=False)[0]
    if not first["loc"]:
        return f"no object: {_FORM}"
    name, inside = str(first["loc"][0]), len(first["loc"]) > 1
    if first["type"] == "missing":
        return f"{name} is missing: {_FORM}"
    if first["type"] == "string_too_short":
        return f"{name} is empty"
    what = "a list of file names" if name == "relevant" else "a text or a list of texts" if name in _LISTS else "a text"
    return f"{name} must be {what}{', and each of them a text' if inside else ''}"


class FileNames:
    """Documents by what people write for them: the path, its end, the file's name, with or without its extension."""

    def __init__(self, paths: Iterable[str]) -> None:
        self._paths: dict[str, set[str]] = {}
        for path in paths:
            parts = PurePosixPath(path).parts
            for start in range(len(parts)):
                name = "/".join(parts[start:])
                for key in (name, name.removesuffix(PurePosixPath(name).suffix)):
                    self._paths.setdefault(key.lower(), set()).add(path)

    def paths(self, name: str) -> frozenset[str]:
        """Every document that ``name`` may mean; none when there is no such file."""
        plain = "/".join(part for part in PurePosixPath(name.strip().lower()).parts if part not in ("/", "."))
        while plain:
            for key in (plain, plain.removesuffix(PurePosixPath(plain).suffix)):
                if key in self._paths:
                    return frozenset(self._paths[key])
            # A folder above the one that was read says nothing here.
            plain = plain.partition("/")[2]
        return frozenset()


def unknown_names(queries: Sequence[EvalQuery], names: FileNames) -> list[str]:
    """One line for each relevant file that is not among the documents; such a query cannot be answered in full."""
    return [
        f"query {query.id}: no document is called {name}"
        for query in queries
        for name in query.relevant
        if not names.paths(name)
    ]


def figures(outcomes: Sequence[Outcome], names: FileNames) -> dict[str, object]:
    """The figures of ``kb eval``, over all and for each kind (or group) of query where the file names them.

    recall@k: relevant documents among the first k, of the at most k that fit there, so that 1 can be reached at every
    k; mrr@10: 1 / place of the first relevant one; ndcg@10 with gain 1 (Järvelin and Kekäläinen, "Cumulated gain-based
    evaluation of IR techniques", 2002). Means over the queries that have an answer. ``novelty``: of the queries without
    one, those that were told as new; and of those with one, those that were told so wrongly.
    """
    answerable = [outcome for outcome in outcomes if outcome.query.relevant]
    unanswerable = [outcome for outcome in outcomes if not outcome.query.relevant]
    told: dict[str, object] = {"queries": len(answerable), **_means(answerable, names)}
    kinds = sorted({_kind(outcome) for outcome in answerable} - {""})
    if kinds:
        told["by_kind"] = {
            kind: {"queries": len(part), **_means(part, names)}
            for kind in kinds
            if (part := [outcome for outcome in answerable if _kind(outcome) == kind])
        }
    if unanswerable:
        told["novelty"] = {
            "unanswerable": len(unanswerable),
            "recognised": _share(unanswerable),
            "wrongly_given_up": _share(answerable),
        }
    times = sorted(outcome.latency_ms for outcome in outcomes)
    told["query_ms"] = {"p50": _quantile(times, 0.5), "p95": _quantile(times, 0.95)}
    return told


def _kind(outcome: Outcome) -> str:
    return outcome.query.kind or outcome.query.group or ""


def _share(outcomes: Sequence[Outcome]) -> float | None:
    return round(sum(outcome.novel for outcome in outcomes) / len(outcomes), 4) if outcomes else None


def _quantile(ordered: Sequence[float], share: float) -> float | None:
    """The nearest rank: the smallest value that at least ``share`` of the values do not exceed."""
    return round(ordered[max(math.ceil(share * len(ordered)) - 1, 0)], 2) if ordered else None


def _means(outcomes: Sequence[Outcome], names: FileNames) -> Mapping[str, float | None]:
    rows = [_row(outcome, names) for outcome in outcomes]
    return {key: round(sum(row[key] for row in rows) / len(rows), 4) if rows else None for key in _KEYS}


_KEYS = (*(f"recall@{cut}" for cut in CUTS), f"mrr@{DEPTH}", f"ndcg@{DEPTH}")


def _row(outcome: Outcome, names: FileNames) -> dict[str, float]:
    gains = _gains(outcome, names)
    wanted = len(set(outcome.query.relevant))
    row = {f"recall@{cut}": sum(gains[:cut]) / min(cut, wanted) for cut in CUTS}
    row[f"mrr@{DEPTH}"] = next((1 / place for place, gain in enumerate(gains, start=1) if gain), 0.0)
    ideal = sum(1 / math.log2(place + 1) for place in range(1, min(wanted, DEPTH) + 1))
    row[f"ndcg@{DEPTH}"] = sum(gain / math.log2(place + 1) for place, gain in enumerate(gains, start=1)) / ideal
    return row


def _gains(outcome: Outcome, names: FileNames) -> list[int]:
    """1 for each document that is one of those wanted and not found before, at most ``DEPTH``."""
    open_names = {name: names.paths(name) for name in set(outcome.query.relevant)}
    gains = []
    for path in outcome.found[:DEPTH]:
        met = next((name for name, paths in open_names.items() if path in paths), None)
        gains.append(0 if met is None else 1)
        if met is not None:
            del open_names[met]
    return gains
