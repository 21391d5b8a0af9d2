"""Reading logs."""

from __future__ import annotations

from datetime import datetime
from typing import Protocol

from pipeline.domain.ids import ServiceName
from pipeline.domain.logs import LogReading


class LogsSource(Protocol):
    """One provider of logs. A source that is down is a failure inside the reading, never an exception."""

    @property
    def name(self) -> str:
        """Short name for status lines: ``loki``, ``cloudwatch logs``."""
        ...

    async def tail(self, since: datetime, until: datetime, *, limit: int) -> LogReading:
        """The newest ``limit`` lines of all watched services with ``since`` <= at < ``until``, oldest first."""
        ...

    async def search(
        self, service: ServiceName, text: str, since: datetime, until: datetime, *, limit: int
    ) -> LogReading:
        """Lines of one service that contain ``text`` as it stands (empty: all); the newest ``limit``, oldest first."""
        ...

    async def close(self) -> None:
        """Releases connections."""
        ...
