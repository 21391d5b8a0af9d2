"""Reading traces."""

from __future__ import annotations

from datetime import datetime
from typing import Protocol

from pipeline.domain.ids import ServiceName
from pipeline.domain.spans import TraceReading


class TracesSource(Protocol):
    """One provider of traces. A source that is down is a failure inside the reading, never an exception."""

    @property
    def name(self) -> str:
        """Short name for status lines: ``jaeger``, ``tempo``, ``x-ray``."""
        ...

    async def search(
        self, service: ServiceName, since: datetime, until: datetime, *, limit: int, errors_only: bool = False
    ) -> TraceReading:
        """Traces through ``service`` that began in the window, the slowest first, with their spans."""
        ...

    async def close(self) -> None:
        """Releases connections."""
        ...
