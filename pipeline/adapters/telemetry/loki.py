"""Logs from Grafana Loki by LogQL.

API: https://grafana.com/docs/loki/latest/reference/loki-http-api/#query-logs-within-a-range-of-time
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from datetime import datetime
from typing import Literal

from pydantic import JsonValue

from pipeline.adapters.telemetry.guard import failure_of
from pipeline.adapters.telemetry.messages import message_of, spellings
from pipeline.adapters.telemetry.tracing import Nanoseconds, microseconds_of, utc_of
from pipeline.adapters.telemetry.upstream import Access, Lenient, Upstream, parse_answer
from pipeline.domain.errors import ConfigurationError, PermanentError, TemporaryError
from pipeline.domain.ids import ServiceName
from pipeline.domain.logs import LogLine, LogReading

MAX_LINES = 5000
"""More in one query is refused by a Loki with its own defaults (``max_entries_limit_per_query``)."""
_INSTANCE_LABELS = ("pod", "k8s_pod_name", "service_instance_id", "instance")

_Metadata = dict[str, JsonValue]


class _Stream(Lenient):
    stream: dict[str, str]
    values: tuple[tuple[Nanoseconds, str] | tuple[Nanoseconds, str, _Metadata], ...]


class _Streams(Lenient):
    resultType: Literal["streams"]
    result: tuple[_Stream, ...]


class _Answer(Lenient):
    status: Literal["success"]
    data: _Streams


class LokiSource:
    """One ``query_range`` per question, newest lines first from the server.

    ``url`` is the part before ``/loki/api/v1``. ``service_label`` is an index label (``service_name``, ``app``);
    ``instance_label`` one of the stream or of its structured metadata, else one of the usual names. ``matchers`` narrow
    every selector (``cluster="eu",namespace=~"shop.*"``); ``tenant`` is sent as X-Scope-OrgID. ``timeout_s`` bounds
    each query. At most ``MAX_LINES`` lines come at once, whatever the limit. Raises ConfigurationError.
    """

    def __init__(
        self,
        url: str,
        *,
        service_label: str = "service_name",
        instance_label: str = "pod",
        matchers: str = "",
        tenant: str = "",
        access: Access | None = None,
        timeout_s: float = 10.0,
    ) -> None:
        for label in (service_label, instance_label):
            if not re.fullmatch(r"[a-zA-Z_][a-zA-Z0-9_]*", label):
                raise ConfigurationError(f"{label!r} is no Loki label name: it has letters, digits and underscores")
        access = (access or Access()).with_header("X-Scope-OrgID", tenant)
        self._upstream = Upstream("Loki", url, access=access, timeout_s=timeout_s)
        self._service_label = service_label
        self._instance_labels = tuple(dict.fromkeys((instance_label, *_INSTANCE_LABELS)))
        self._matchers = matchers

    @property
    def name(self) -> str:
        return "loki"

    async def tail(self, since: datetime, until: datetime, *, limit: int) -> LogReading:
        """Of all streams that have the service label."""
        return await self._read(self._selector('=~".+"'), since, until, limit)

    async def search(
        self, service: ServiceName, text: str, since: datetime, until: datetime, *, limit: int
    ) -> LogReading:
        """Looks for the text in the whole line, in JSON lines as it is written there."""
        query = f"{self._selector(f'={_quoted(service)}')}{_line_filter(text)}"
        return await self._read(query, since, until, limit)

    async def close(self) -> None:
        await self._upstream.close()

    def _selector(self, of_service: str) -> str:
        return f"{{{','.join(part for part in (f'{self._service_label}{of_service}', self._matchers) if part)}}}"

    async def _read(self, query: str, since: datetime, until: datetime, limit: int) -> LogReading:
        asked = min(limit + 1, MAX_LINES)
        params = {
            "query": query,
            "start": f"{microseconds_of(since)}000",
            "end": f"{microseconds_of(until)}000",
            "limit": str(asked),
            "direction": "backward",
        }
        try:
            body = await self._upstream.get("/loki/api/v1/query_range", params)
            streams = parse_answer(_Answer, body, "Loki's query API").data.result
        except (TemporaryError, PermanentError) as error:
            return LogReading(failures=(failure_of(self.name, error),))
        came = sum(len(stream.values) for stream in streams)
        rows = sorted((row for stream in streams for row in self._rows(stream)), key=lambda row: row[0])
        lines = tuple(line for _, line in rows if since <= line.at < until)
        return LogReading(lines[-limit:], truncated=len(lines) > limit or came >= MAX_LINES)

    def _rows(self, stream: _Stream) -> Iterator[tuple[int, LogLine]]:
        """Oldest first; lines of one moment in the order they were written."""
        service = stream.stream.get(self._service_label, "")
        if not service:
            return
        for at_ns, text, *metadata in reversed(stream.values):
            labels: dict[str, JsonValue] = {**stream.stream}
            for extra in metadata:
                structured = extra.get("structuredMetadata", extra)
                labels |= structured if isinstance(structured, dict) else {}
            instance = next((str(labels[name]) for name in self._instance_labels if labels.get(name)), "")
            yield at_ns, LogLine(utc_of(at_ns // 1000), ServiceName(service), message_of(text), instance)


def _line_filter(text: str) -> str:
    if not text:
        return ""
    ways = spellings(text)
    if len(ways) == 1:
        return f" |= {_quoted(text)}"
    return f" |~ {_quoted('|'.join(re.escape(way) for way in ways))}"


def _quoted(text: str) -> str:
    """A LogQL string. Its escapes are Go's, and those of JSON are among them."""
    return json.dumps(text, ensure_ascii=False)
