"""NerdGraph with a small part of NRQL: the clauses, aggregates and conditions that New Relic documents and we use."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from aiohttp import web

from tests.contract.telemetry.faults import SAID

KEY = "NRAK-TEST"
REFUSAL = json.dumps({"errors": [{"message": SAID}]})
Event = dict[str, Any]

_TOKENS = re.compile(r"\s*('(?:[^'\\]|\\.)*'|`[^`]+`|>=|<=|!=|[(),=<>]|[\w.*:/-]+)")
_CLAUSES = ("FROM", "SELECT", "WHERE", "FACET", "SINCE", "UNTIL", "ORDER", "LIMIT")


class FakeNewRelic:
    """``events`` by type; an event's ``timestamp`` is in milliseconds. ``app`` is to be served."""

    def __init__(self) -> None:
        self.events: dict[str, list[Event]] = {}
        self.asked: list[dict[str, Any]] = []
        self.errors: dict[str, tuple[str, str]] = {}
        """By alias (``*``: all): the error's class and message."""
        self.app = web.Application()
        self.app.router.add_post("/graphql", self._answer)

    def put(self, kind: str, **attributes: Any) -> None:
        self.events.setdefault(kind, []).append({name.replace("__", "."): v for name, v in attributes.items()})

    async def _answer(self, request: web.Request) -> web.Response:
        if request.headers.get("API-Key") != KEY:
            return web.json_response({"errors": [{"message": "Invalid API key"}]}, status=401)
        body = await request.json()
        self.asked.append(body)
        document, variables = body["query"], body["variables"]
        if not re.match(r"query\(\$account: Int!, \$timeout: Seconds, (\$\w+: Nrql!(, )?)+\) \{ actor \{ ", document):
            return web.json_response({"errors": [{"message": "syntax error", "extensions": {"errorClass": "X"}}]})
        account: dict[str, Any] = {}
        errors = []
        for alias, name in re.findall(r"(\w+): nrql\(query: \$(\w+), timeout: \$timeout\) \{ results \}", document):
            kind, message = self.errors.get(alias, self.errors.get("*", ("", "")))
            try:
                if kind:
                    raise _Refused(kind, message)
                account[alias] = {"results": list(_run(variables[name], self.events))}
            except _Refused as refused:
                account[alias] = None
                errors.append(
                    {
                        "message": str(refused),
                        "path": ["actor", "account", alias],
                        "locations": [{"line": 1, "column": 1}],
                        "extensions": {"errorClass": refused.kind},
                    }
                )
        answer: dict[str, Any] = {"data": {"actor": {"account": account}}}
        if errors:
            answer["errors"] = errors
        return web.json_response(answer)


class _Refused(Exception):
    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind


def _run(query: str, events: Mapping[str, list[Event]]) -> Iterator[Event]:
    clauses = _clauses(_tokens(query))
    since, until = int(clauses["SINCE"][0]), int(clauses["UNTIL"][0])
    matches = _condition(clauses.get("WHERE", []))
    found = [
        event for event in events.get(clauses["FROM"][0], ()) if since <= event["timestamp"] < until and matches(event)
    ]
    limit = clauses.get("LIMIT", ["100" if "FACET" not in clauses else "10"])[0]
    most = 5000 if limit == "MAX" else int(limit)
    if most > 5000:
        raise _Refused("NRQL_SYNTAX_ERROR", "LIMIT may be 5000 at most")
    columns = [_column(part) for part in _split(clauses["SELECT"])]
    if "FACET" in clauses:
        facets = [_name(part[0]) for part in _split(clauses["FACET"])]
        groups: dict[tuple[Any, ...], list[Event]] = {}
        for event in found:
            groups.setdefault(tuple(event.get(name) for name in facets), []).append(event)
        rows = []
        for values, members in groups.items():
            if None in values:
                continue
            facet = values[0] if len(values) == 1 else list(values)
            rows.append(
                {
                    "facet": facet,
                    **dict(zip(facets, values, strict=True)),
                    **{alias: function(members) for alias, function in columns},
                }
            )
        # By the first aggregate, the largest first.
        yield from sorted(rows, key=lambda row: _size(row[columns[0][0]]), reverse=True)[:most]
        return
    if clauses.get("ORDER", ["BY", "timestamp", "DESC"]) != ["BY", "timestamp", "DESC"]:
        raise _Refused("NRQL_SYNTAX_ERROR", "unknown order")
    found.sort(key=lambda event: event["timestamp"], reverse=True)
    names = [alias for alias, _ in columns]
    for event in found[:most]:
        yield {name: event.get(name) for name in names}


def _tokens(query: str) -> list[str]:
    found: list[str] = []
    at = 0
    while at < len(query.rstrip()):
        match = _TOKENS.match(query, at)
        if match is None:
            raise _Refused("NRQL_SYNTAX_ERROR", f"NRQL Syntax Error: unexpected {query[at : at + 20]!r}")
        found.append(match.group(1))
        at = match.end()
    return found


def _clauses(tokens: Sequence[str]) -> dict[str, list[str]]:
    clauses: dict[str, list[str]] = {}
    depth, current = 0, ""
    for token in tokens:
        depth += (token == "(") - (token == ")")
        if depth == 0 and token in _CLAUSES:
            current = token
            clauses[current] = []
        else:
            clauses[current].append(token)
    return clauses


def _split(tokens: Sequence[str]) -> list[list[str]]:
    parts: list[list[str]] = [[]]
    depth = 0
    for token in tokens:
        depth += (token == "(") - (token == ")")
        if token == "," and depth == 0:
            parts.append([])
        else:
            parts[-1].append(token)
    return parts


def _name(token: str) -> str:
    return token.strip("`")


def _text(token: str) -> str:
    return re.sub(r"\\(.)", r"\1", token[1:-1])


def _column(part: Sequence[str]) -> tuple[str, Callable[[Sequence[Event]], Any]]:
    """Its name in the rows, and what it is of a group of events."""
    tokens, alias = list(part), ""
    if "AS" in tokens:
        tokens, alias = tokens[: tokens.index("AS")], _text(tokens[tokens.index("AS") + 1])
    if len(tokens) == 1:
        return alias or _name(tokens[0]), lambda events: None
    word, arguments = tokens[0], _split(tokens[2:-1])
    if word == "filter":
        _, inner = _column(arguments[0])
        matches = _condition(arguments[1][1:])
        return alias, lambda events: inner([event for event in events if matches(event)])
    name = _name(arguments[0][0])

    def aggregate(events: Sequence[Event]) -> Any:
        values = [event[name] for event in events if event.get(name) is not None]
        match word:
            case "count":
                return len(events) if name == "*" else sum(_counted(value) for value in values)
            case "sum":
                return sum(values)
            case "max":
                return max(values, default=None)
            case "average":
                return sum(values) / len(values) if values else None
            case "latest":
                return values[-1] if values else None
            case "percentile":
                rank = float(arguments[1][0])
                spread = [one for value in values for one in _spread(value)]
                return {f"{rank:g}": float(np.percentile(spread, rank)) if spread else None}
        raise _Refused("NRQL_SYNTAX_ERROR", f"unknown function {word}")

    return alias, aggregate


def _counted(value: Any) -> int:
    """A metric of many measurements is a list of them here."""
    return len(value) if isinstance(value, list) else 1


def _spread(value: Any) -> list[float]:
    return value if isinstance(value, list) else [value]


def _size(value: Any) -> float:
    if isinstance(value, dict):
        value = next(iter(value.values()))
    return float(value) if isinstance(value, int | float) else 0.0


def _condition(tokens: Sequence[str]) -> Callable[[Event], bool]:
    """``a AND (b OR c)`` as a function; AND binds closer."""
    if not tokens:
        return lambda event: True
    for word, join in (("OR", any), ("AND", all)):
        parts = _at_top(tokens, word)
        if len(parts) > 1:
            tests = [_condition(part) for part in parts]
            return lambda event, tests=tests, join=join: join(test(event) for test in tests)  # type: ignore[misc]
    if tokens[0] == "(" and tokens[-1] == ")":
        return _condition(tokens[1:-1])
    return _comparison(tokens)


def _at_top(tokens: Sequence[str], word: str) -> list[list[str]]:
    parts: list[list[str]] = [[]]
    depth = 0
    for token in tokens:
        depth += (token == "(") - (token == ")")
        if token == word and depth == 0:
            parts.append([])
        else:
            parts[-1].append(token)
    return parts


def _comparison(tokens: Sequence[str]) -> Callable[[Event], bool]:
    if tokens[0] == "numeric":
        name, rest = _name(tokens[2]), list(tokens[4:])
        if rest[0] != ">=":
            raise _Refused("NRQL_SYNTAX_ERROR", "unknown comparison")
        return lambda event: event.get(name) is not None and float(event[name]) >= float(rest[1])
    name, rest = _name(tokens[0]), list(tokens[1:])
    match rest:
        case ["IS", "NOT", "NULL"]:
            return lambda event: event.get(name) is not None
        case ["=", value]:
            return lambda event: event.get(name) == _text(value)
        case ["LIKE", value]:
            pattern = ".*".join(re.escape(part) for part in _text(value).split("%"))
            return lambda event: re.fullmatch(pattern, str(event.get(name, "")), re.DOTALL) is not None
        case ["IN", "(", *values, ")"]:
            wanted = {_text(value) for value in values if value != ","}
            return lambda event: event.get(name) in wanted
    raise _Refused("NRQL_SYNTAX_ERROR", f"NRQL Syntax Error: {' '.join(tokens)}")
