"""NerdGraph, New Relic's GraphQL API, as far as it runs NRQL queries; several go in one request."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from pydantic import JsonValue

from pipeline.adapters.telemetry.guard import Guard
from pipeline.adapters.telemetry.http import one_line
from pipeline.adapters.telemetry.upstream import Access, Lenient, Upstream, parse_answer
from pipeline.domain.errors import ConfigurationError, PermanentError, TemporaryError

URLS: Mapping[str, str] = {"us": "https://api.newrelic.com", "eu": "https://api.eu.newrelic.com"}
MAX_ROWS = 5000
"""What ``LIMIT MAX`` means."""
CONCURRENCY = 10
"""NerdGraph takes 25 requests of one user at once, whichever programs send them."""
_MAX_TIMEOUT_S = 120
_TEMPORARY = frozenset({"", "TIMEOUT", "TOO_MANY_REQUESTS", "SERVER_ERROR", "INTERNAL_SERVER_ERROR", "UNAVAILABLE"})

Row = Mapping[str, JsonValue]


class _Extensions(Lenient):
    errorClass: str = ""


class _Error(Lenient):
    message: str = ""
    path: tuple[str | int, ...] = ()
    extensions: _Extensions | None = None

    def typed(self) -> TemporaryError | PermanentError:
        kind = self.extensions.errorClass if self.extensions else ""
        said = one_line(f"{kind}: {self.message}" if kind else self.message) or "an error without an explanation"
        return TemporaryError(said) if kind in _TEMPORARY else PermanentError(said)


class _Nrql(Lenient):
    results: tuple[dict[str, JsonValue], ...] | None = None


class _Actor(Lenient):
    account: dict[str, _Nrql | None] | None = None


class _Data(Lenient):
    actor: _Actor | None = None


class _Answer(Lenient):
    data: _Data | None = None
    errors: tuple[_Error, ...] | None = None


@dataclass(frozen=True, slots=True)
class Rows:
    """What one query gave: its rows, or why there are none."""

    rows: tuple[Row, ...] = ()
    error: TemporaryError | PermanentError | None = None

    def or_raise(self) -> tuple[Row, ...]:
        if self.error is not None:
            raise self.error
        return self.rows


class NerdGraph:
    """One account. ``key`` is a user key (``NRAK-…``); ``url`` replaces the address of the ``region``.

    ``timeout_s`` bounds a request as a whole, and tells New Relic when to give up a query. Raises ConfigurationError.
    """

    def __init__(
        self,
        account_id: int,
        key: str,
        *,
        region: Literal["us", "eu"] = "us",
        url: str | None = None,
        timeout_s: float = 15.0,
    ) -> None:
        if account_id <= 0:
            raise ConfigurationError("the New Relic account id is a positive number")
        if not key:
            raise ConfigurationError("New Relic needs a user key (NRAK-…)")
        if url is None and region not in URLS:
            raise ConfigurationError(f"no New Relic region {region!r}; use {' or '.join(URLS)}")
        access = Access(headers={"API-Key": key})
        self._upstream = Upstream(
            "New Relic", url or URLS[region], access=access, timeout_s=timeout_s, concurrency=CONCURRENCY
        )
        # A second one: refusals come with HTTP 200, and must count as failures all the same.
        self._guard = Guard("New Relic", timeout_s=timeout_s + 1.0, concurrency=CONCURRENCY)
        self._account_id = account_id
        self._timeout_s = max(1, min(int(timeout_s), _MAX_TIMEOUT_S))

    async def ask(self, queries: Mapping[str, str]) -> Mapping[str, Rows]:
        """Rows by the names of the ``queries`` (names as GraphQL takes them). One query may fail by itself.

        Raises TemporaryError or PermanentError where none has an answer.
        """
        declared = ", ".join(f"$q_{name}: Nrql!" for name in queries)
        fields = " ".join(f"{name}: nrql(query: $q_{name}, timeout: $timeout) {{ results }}" for name in queries)
        document = (
            f"query($account: Int!, $timeout: Seconds, {declared}) "
            f"{{ actor {{ account(id: $account) {{ {fields} }} }} }}"
        )
        variables: dict[str, object] = {"account": self._account_id, "timeout": self._timeout_s}
        variables |= {f"q_{name}": query for name, query in queries.items()}
        async with self._guard.call():
            body = await self._upstream.post("/graphql", json={"query": document, "variables": variables})
            answer = parse_answer(_Answer, body, "NerdGraph")
            return _by_name(queries, answer)

    async def one(self, query: str) -> tuple[Row, ...]:
        """The rows of a single query. Raises TemporaryError or PermanentError."""
        return (await self.ask({"only": query}))["only"].or_raise()

    async def close(self) -> None:
        await asyncio.shield(self._upstream.close())


def _by_name(names: Iterable[str], answer: _Answer) -> Mapping[str, Rows]:
    actor = answer.data.actor if answer.data else None
    account = (actor.account if actor else None) or {}
    errors = [(error.path, error.typed()) for error in answer.errors or ()]
    found: dict[str, Rows] = {}
    for name in names:
        given = account.get(name)
        own = next((error for path, error in errors if name in path), errors[0][1] if errors else None)
        if given is not None and given.results is not None:
            found[name] = Rows(given.results)
        else:
            found[name] = Rows(error=own or PermanentError("not an answer of NerdGraph: it has no results"))
    failed = [rows.error for rows in found.values() if rows.error is not None]
    if len(failed) == len(found):
        raise next((error for error in failed if isinstance(error, TemporaryError)), failed[0])
    return found


def window(since: datetime, until: datetime) -> str:
    """The clause for a range of time; the end does not belong to it."""
    return f"SINCE {int(since.timestamp() * 1000)} UNTIL {int(until.timestamp() * 1000)}"


def attribute(name: str) -> str:
    """A name as NRQL takes it, whatever it contains. Raises ConfigurationError."""
    if not name or "`" in name or "\\" in name:
        raise ConfigurationError(f"{name!r} is no attribute of New Relic")
    return f"`{name}`"


def quotable(text: str) -> str:
    """The longest part of ``text`` that can stand in single quotes as it is."""
    return max(re.split(r"['\\\x00-\x1f]", text), key=len)


def equals_any(attributes: Sequence[str], value: str) -> str:
    """A condition that holds where one of the attributes is ``value``. It may hold elsewhere too, where ``value`` has
    characters that need an escape: check the rows."""
    part = quotable(value)
    test = f"= '{value}'" if part == value else f"LIKE '%{part}%'"
    return f"({' OR '.join(f'{attribute(name)} {test}' for name in attributes)})"


def first_text(row: Row, names: Sequence[str]) -> str:
    """The first of these attributes that the row has."""
    return next((value for name in names if isinstance(value := row.get(name), str) and value), "")


def number(value: JsonValue) -> float | None:
    """A number, also where it comes as ``{"99": 0.2}``, the shape of percentiles."""
    if isinstance(value, dict):
        value = next(iter(value.values()), None)
    return None if isinstance(value, bool) or not isinstance(value, int | float) else float(value)
