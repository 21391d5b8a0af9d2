"""Reading who calls whom."""

from __future__ import annotations

from datetime import datetime
from typing import Protocol

from pipeline.domain.telemetry import Reading


class TopologySource(Protocol):
    """One provider of call edges, beside those that metrics carry."""

    @property
    def name(self) -> str:
        """Short name for status lines: ``jaeger dependencies``, ``x-ray service graph``."""
        ...

    async def edges(self, since: datetime, until: datetime) -> Reading:
        """Edges seen in the window with their calls a second; a source that is down is a failure in the reading."""
        ...

    async def close(self) -> None:
        """Releases connections."""
        ...
