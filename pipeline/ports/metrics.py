"""Reading telemetry."""

from __future__ import annotations

from datetime import datetime
from typing import Protocol

from pipeline.domain.telemetry import Reading


class MetricsSource(Protocol):
    """One provider of metrics and call edges."""

    @property
    def name(self) -> str:
        """Short name for status lines: ``scrape``, ``prometheus``."""
        ...

    async def read(self, now: datetime) -> Reading:
        """The newest samples. A source that is down is a failure inside the reading, never an exception."""
        ...

    async def close(self) -> None:
        """Releases connections."""
        ...
