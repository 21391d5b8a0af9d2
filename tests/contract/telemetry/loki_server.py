"""A small Loki: streams of lines behind ``query_range``, with the LogQL and the refusals that matter here.

https://grafana.com/docs/loki/latest/reference/loki-http-api/#query-logs-within-a-range-of-time
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field

from aiohttp import web

MAX_ENTRIES = 5000
_ESCAPES = {"a": "\a", "b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t", "v": "\v", "\\": "\\", '"': '"'}
_STRING = r'"((?:[^"\\\n]|\\.)*)"'


class BadQuery(Exception):
    pass


@dataclass(frozen=True)
class Entry:
    at_ns: int
    line: str
    metadata: dict[str, object] | None = None


@dataclass
class LokiServer:
    """``tenant``: what X-Scope-OrgID must say; empty: authentication is off. ``end_counts``: as in servers of this API
    that hold the end of a window for a part of it."""

    tenant: str = ""
    end_counts: bool = False
    streams: dict[tuple[tuple[str, str], ...], list[Entry]] = field(default_factory=dict)
    queries: list[str] = field(default_factory=list)

    def push(self, labels: dict[str, str], *entries: Entry) -> None:
        self.streams.setdefault(tuple(sorted(labels.items())), []).extend(entries)

    def app(self) -> web.Application:
        app = web.Application()
        app.router.add_get("/loki/api/v1/query_range", self._query_range)
        return app

    async def _query_range(self, request: web.Request) -> web.Response:
        if self.tenant and request.headers.get("X-Scope-OrgID") != self.tenant:
            return web.Response(status=401, text="no org id\n")
        asked = request.query
        query, limit = asked["query"], int(asked.get("limit", "100"))
        self.queries.append(query)
        start_ns, end_ns = int(asked["start"]), int(asked["end"])
        if end_ns <= start_ns:
            return web.Response(status=400, text="the query has an invalid time range\n")
        if limit > MAX_ENTRIES:
            said = (
                f"max entries limit per query exceeded, limit > max_entries_limit_per_query ({limit} > {MAX_ENTRIES})"
            )
            return web.Response(status=400, text=said)
        try:
            matches, passes = parse(query)
        except BadQuery as error:
            return web.Response(status=400, text=f"parse error : {error}")
        hits = [
            (labels, entry)
            for labels, entries in self.streams.items()
            if matches(dict(labels))
            for entry in entries
            if start_ns <= entry.at_ns < end_ns + self.end_counts and passes(entry.line)
        ]
        backward = asked.get("direction", "backward").lower() == "backward"
        ordered = sorted(hits, key=lambda hit: hit[1].at_ns)
        if backward:
            ordered.reverse()
        by_stream: dict[tuple[tuple[str, str], ...], list[list[object]]] = {}
        for labels, entry in ordered[:limit]:
            value: list[object] = [str(entry.at_ns), entry.line]
            by_stream.setdefault(labels, []).append([*value, entry.metadata] if entry.metadata is not None else value)
        result = [{"stream": dict(labels), "values": values} for labels, values in by_stream.items()]
        data = {"resultType": "streams", "result": result, "stats": {"summary": {"bytesProcessedPerSecond": 1}}}
        return web.json_response({"status": "success", "data": data})


def parse(query: str) -> tuple[Callable[[dict[str, str]], bool], Callable[[str], bool]]:
    """A selector and line filters, as two predicates: of labels and of a line."""
    selector = re.match(rf"\{{((?:[^\"{{}}]|{_STRING})*)\}}", query)
    if selector is None:
        raise BadQuery("unexpected end of input, expecting a selector")
    matchers = _sequence(rf"\s*(\w+)\s*(=~|!~|!=|=)\s*{_STRING}\s*(?:,|$)", selector[1])
    filters = _sequence(rf"\s*(\|=|\|~|!=|!~)\s*{_STRING}", query[selector.end() :])
    if not any(_label_holds(operator, _unquoted(text), "some") or operator == "=" for _, operator, text in matchers):
        raise BadQuery("queries require at least one regexp or equality matcher that does not have an empty value")

    def matches(labels: dict[str, str]) -> bool:
        return all(_label_holds(operator, _unquoted(text), labels.get(name, "")) for name, operator, text in matchers)

    def passes(line: str) -> bool:
        return all(_line_holds(operator, _unquoted(text), line) for operator, text in filters)

    return matches, passes


def _sequence(pattern: str, text: str) -> list[tuple[str, ...]]:
    found, end = [], 0
    while end < len(text):
        match = re.compile(pattern).match(text, end)
        if match is None:
            raise BadQuery(f"syntax error: unexpected {text[end : end + 20]!r}")
        found.append(match.groups())
        end = match.end()
    return found


def _label_holds(operator: str, wanted: str, value: str) -> bool:
    same = re.fullmatch(wanted, value) is not None if "~" in operator else wanted == value
    return same != operator.startswith("!")


def _line_holds(operator: str, wanted: str, line: str) -> bool:
    there = re.search(wanted, line) is not None if "~" in operator else wanted in line
    return there != operator.startswith("!")


def _unquoted(text: str) -> str:
    """A Go string literal's content: other escapes than Go's are a syntax error."""

    def char(match: re.Match[str]) -> str:
        escape = match[1]
        if escape[0] in "xuU":
            code = int(escape[1:], 16)
            if 0xD800 <= code < 0xE000:
                raise BadQuery("invalid char escape")
            return chr(code)
        if escape not in _ESCAPES:
            raise BadQuery("invalid char escape")
        return _ESCAPES[escape]

    return re.sub(r"\\(x[0-9a-fA-F]{2}|u[0-9a-fA-F]{4}|U[0-9a-fA-F]{8}|.)", char, text)
