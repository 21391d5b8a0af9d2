"""Logs from New Relic."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

from pipeline.adapters.telemetry.guard import failure_of
from pipeline.adapters.telemetry.newrelic_client import (
    MAX_ROWS,
    NerdGraph,
    Row,
    attribute,
    equals_any,
    first_text,
    number,
    quotable,
    window,
)
from pipeline.domain.errors import ConfigurationError, PermanentError, TemporaryError
from pipeline.domain.ids import ServiceName
from pipeline.domain.logs import LogLine, LogReading

_EPOCH = datetime.fromtimestamp(0, UTC)


class NewRelicLogsSource:
    """``service_attributes`` and ``instance_attributes`` name what carries them, the first that a line has counts:
    OpenTelemetry and APM's logs in context, pods before hosts. Raises ConfigurationError."""

    def __init__(
        self,
        client: NerdGraph,
        *,
        service_attributes: Sequence[str] = ("service.name", "entity.name"),
        instance_attributes: Sequence[str] = ("k8s.pod.name", "pod_name", "hostname"),
    ) -> None:
        if not service_attributes:
            raise ConfigurationError("New Relic logs: name at least one attribute that carries the service")
        self._client = client
        self._services = tuple(service_attributes)
        self._instances = tuple(instance_attributes)
        columns = ["timestamp", "message", *(attribute(name) for name in (*self._services, *self._instances))]
        self._columns = ", ".join(columns)

    @property
    def name(self) -> str:
        return "newrelic logs"

    async def tail(self, since: datetime, until: datetime, *, limit: int) -> LogReading:
        """The newest lines that name a service; no more than 5000, the most that New Relic gives."""
        named = " OR ".join(f"{attribute(name)} IS NOT NULL" for name in self._services)
        return await self._lines(f"({named})", since, until, limit, min(limit + 1, MAX_ROWS))

    async def search(
        self, service: ServiceName, text: str, since: datetime, until: datetime, *, limit: int
    ) -> LogReading:
        """Lines of one service that contain ``text``, case and all."""
        part = quotable(text)
        condition = equals_any(self._services, service)
        if part:
            condition += f" AND message LIKE '%{part}%'"
        # What NRQL cannot say to the letter is looked for here, in more lines than were asked for.
        exact = part == text == text.replace("%", "").replace("_", "") and quotable(service) == service
        most = min(limit + 1, MAX_ROWS) if exact else MAX_ROWS
        return await self._lines(condition, since, until, limit, most, service, text)

    async def close(self) -> None:
        await self._client.close()

    async def _lines(
        self,
        condition: str,
        since: datetime,
        until: datetime,
        limit: int,
        most: int,
        service: ServiceName | None = None,
        text: str = "",
    ) -> LogReading:
        query = (
            f"FROM Log SELECT {self._columns} WHERE {condition} {window(since, until)} "
            f"ORDER BY timestamp DESC LIMIT {most}"
        )
        try:
            rows = await self._client.one(query)
        except (TemporaryError, PermanentError) as error:
            return LogReading(failures=(failure_of(self.name, error),))
        lines = sorted(
            (
                line
                for row in rows
                if (line := self._line(row)) is not None
                and since <= line.at < until
                and (service is None or line.service == service)
                and text in line.text
            ),
            key=lambda line: line.at,
        )
        return LogReading(tuple(lines[max(len(lines) - limit, 0) :]), truncated=len(lines) > limit or len(rows) >= most)

    def _line(self, row: Row) -> LogLine | None:
        at_ms, text = number(row.get("timestamp")), row.get("message")
        service = first_text(row, self._services)
        if at_ms is None or not isinstance(text, str) or not service:
            return None
        try:
            at = _EPOCH + timedelta(milliseconds=at_ms)
        except (OverflowError, ValueError):
            return None
        return LogLine(at, ServiceName(service), text.rstrip("\r\n"), first_text(row, self._instances))
