"""Logs from Amazon CloudWatch Logs."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from math import ceil
from time import monotonic
from typing import Literal

from pydantic import ValidationError

from pipeline.adapters.telemetry.aws_client import AwsClient
from pipeline.adapters.telemetry.guard import failure_of
from pipeline.adapters.telemetry.upstream import Lenient
from pipeline.domain.errors import ConfigurationError, PermanentError, TemporaryError
from pipeline.domain.ids import ServiceName
from pipeline.domain.logs import LogLine, LogReading
from pipeline.domain.telemetry import SourceFailure

MAX_GROUPS = 50
"""StartQuery takes no more log groups."""
MAX_LINES = 10_000
"""GetQueryResults gives no more in one piece."""
MAX_PAGES = 50
"""Of one group's tail. Pages may be empty, and the end is only known from the last."""
_POLL_S = 0.25
_MAX_POLL_S = 2.0


class _Event(Lenient):
    timestamp: int
    message: str
    logStreamName: str = ""


class _Events(Lenient):
    events: tuple[_Event, ...]
    nextToken: str | None = None


class _Started(Lenient):
    queryId: str


class _Stopped(Lenient):
    success: bool = False


class _Field(Lenient):
    field: str
    value: str = ""


class _Results(Lenient):
    status: Literal["Scheduled", "Running", "Complete", "Failed", "Cancelled", "Timeout", "Unknown"]
    results: tuple[tuple[_Field, ...], ...] = ()


class _Envelope(Lenient):
    """What Fluent Bit, as set up for Container Insights, puts around a line."""

    log: str


class CloudWatchLogsSource:
    """Reads the log groups it was given. ``groups``: the service of each log group, by the group's name.

    ``tail`` asks FilterLogEvents, which costs nothing by the line; ``search`` asks Logs Insights, which is quick over
    much data and is billed by the data scanned. ``query_timeout_s`` bounds a query, which is stopped then. Raises
    ConfigurationError.
    """

    def __init__(self, client: AwsClient, *, groups: Mapping[str, ServiceName], query_timeout_s: float = 30.0) -> None:
        if not groups:
            raise ConfigurationError("CloudWatch Logs: name at least one log group with its service")
        for group, service in groups.items():
            if not re.fullmatch(r"[\w./#-]{1,512}", group, re.ASCII) or not service:
                raise ConfigurationError(f"CloudWatch Logs: {group!r} is no log group's name, or has no service")
        self._client = client
        self._groups = dict(groups)
        self._query_timeout_s = query_timeout_s

    @property
    def name(self) -> str:
        return "cloudwatch logs"

    async def tail(self, since: datetime, until: datetime, *, limit: int) -> LogReading:
        """The newest lines of all groups; a group that cannot be read is a failure of its own."""
        outcomes = await asyncio.gather(*(self._newest(group, since, until, limit) for group in self._groups))
        lines = [line for found, _, _ in outcomes for line in found]
        failures = {failure: None for _, _, failure in outcomes if failure is not None}
        return _reading(lines, limit, tuple(failures), cut=any(cut for _, cut, _ in outcomes))

    async def search(
        self, service: ServiceName, text: str, since: datetime, until: datetime, *, limit: int
    ) -> LogReading:
        """Lines that contain ``text``, case and all."""
        groups = [group for group, owner in self._groups.items() if owner == service]
        lines: list[LogLine] = []
        failures: list[SourceFailure] = []
        cut = False
        for start in range(0, len(groups), MAX_GROUPS):
            try:
                found, more = await self._query(groups[start : start + MAX_GROUPS], text, since, until, limit)
            except (TemporaryError, PermanentError) as error:
                failures.append(failure_of(self.name, error))
            else:
                lines += found
                cut = cut or more
        return _reading(lines, limit, failures, cut=cut)

    async def close(self) -> None:
        await self._client.close()

    async def _newest(
        self, group: str, since: datetime, until: datetime, limit: int
    ) -> tuple[list[LogLine], bool, SourceFailure | None]:
        """Lines, whether there are more, and why there are none."""
        request: dict[str, object] = {
            "logGroupName": group,
            "startTime": _milliseconds(since),
            "endTime": _milliseconds(until) - 1,  # the end belongs to the range
            "limit": min(limit + 1, MAX_LINES),
            "startFromHead": False,
        }
        found: list[LogLine] = []
        try:
            for _ in range(MAX_PAGES):
                page = await self._client.call("logs", "filter_log_events", request, _Events)
                found += [_line(self._groups[group], event) for event in page.events]
                if len(found) > limit or not page.nextToken:
                    return found, len(found) > limit, None
                request["nextToken"] = page.nextToken
        except (TemporaryError, PermanentError) as error:
            return found, bool(found), failure_of(f"{self.name} {group}", error)
        return found, True, None

    async def _query(
        self, groups: Sequence[str], text: str, since: datetime, until: datetime, limit: int
    ) -> tuple[list[LogLine], bool]:
        part = _quotable(text)
        # What the query's language cannot say is looked for here, in more lines than were asked for.
        most = min(limit + 1, MAX_LINES) if part == text else MAX_LINES
        condition = f'| filter @message like "{part}" ' if part else ""
        query = f"fields @timestamp, @message, @logStream, @log {condition}| sort @timestamp desc | limit {most}"
        request: dict[str, object] = {
            "logGroupNames": list(groups),
            "startTime": int(since.timestamp()),
            "endTime": ceil(until.timestamp()),
            "queryString": query,
            "limit": most,
        }
        started = await self._client.call("logs", "start_query", request, _Started)
        rows = [{one.field: one.value for one in row} for row in await self._finished(started.queryId)]
        lines = [line for row in rows if (line := self._row(row)) is not None]
        hits = [line for line in lines if since <= line.at < until and text in line.text]
        return hits, len(rows) >= most

    async def _finished(self, query_id: str) -> tuple[tuple[_Field, ...], ...]:
        began_s, wait_s = monotonic(), _POLL_S
        done = False
        try:
            while monotonic() - began_s < self._query_timeout_s:
                answer = await self._client.call("logs", "get_query_results", {"queryId": query_id}, _Results)
                if answer.status not in ("Scheduled", "Running", "Unknown"):
                    done = True
                    if answer.status == "Complete":
                        return answer.results
                    raise TemporaryError(f"Logs Insights ended the query: {answer.status}")
                await asyncio.sleep(wait_s)
                wait_s = min(wait_s * 2, _MAX_POLL_S)
            raise TemporaryError(f"Logs Insights gave no result within {self._query_timeout_s:g} s")
        finally:
            if not done:
                await self._stop(query_id)

    async def _stop(self, query_id: str) -> None:
        """A query that nobody waits for would go on, and counts against the account's limit of queries at once."""
        try:
            await self._client.call("logs", "stop_query", {"queryId": query_id}, _Stopped)
        except (TemporaryError, PermanentError):
            return  # the failure that brought us here is the one to tell

    def _row(self, row: Mapping[str, str]) -> LogLine | None:
        group = row.get("@log", "").partition(":")[2]  # account:group
        try:
            at = datetime.strptime(row.get("@timestamp", ""), "%Y-%m-%d %H:%M:%S.%f").replace(tzinfo=UTC)
        except ValueError:
            return None
        if group not in self._groups:
            return None
        return LogLine(at, self._groups[group], _text(row.get("@message", "")), row.get("@logStream", ""))


def _reading(lines: Iterable[LogLine], limit: int, failures: Sequence[SourceFailure], *, cut: bool) -> LogReading:
    ordered = sorted(lines, key=lambda line: line.at)
    return LogReading(tuple(ordered[max(len(ordered) - limit, 0) :]), tuple(failures), cut or len(ordered) > limit)


def _line(service: ServiceName, event: _Event) -> LogLine:
    at = datetime.fromtimestamp(0, UTC) + timedelta(milliseconds=event.timestamp)
    return LogLine(at, service, _text(event.message), event.logStreamName)


def _text(message: str) -> str:
    """The line itself: Lambda ends it with a line break, Fluent Bit wraps it in JSON."""
    if message.startswith("{") and '"log"' in message:
        try:
            message = _Envelope.model_validate_json(message).log
        except ValidationError:
            return message.rstrip("\r\n")
    return message.rstrip("\r\n")


def _quotable(text: str) -> str:
    """The longest part of ``text`` that can stand between double quotes as it is."""
    return max(re.split(r'["\\\x00-\x1f]', text), key=len)


def _milliseconds(at: datetime) -> int:
    return ceil(at.timestamp() * 1000)
