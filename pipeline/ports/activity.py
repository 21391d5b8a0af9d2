"""Reading what eBPF probes saw."""

from __future__ import annotations

from datetime import datetime
from typing import Protocol

from pipeline.domain.activity import ActivityReading
from pipeline.domain.ids import ServiceName


class ActivitySource(Protocol):
    """One provider of kernel-level activity."""

    @property
    def name(self) -> str:
        """Short name for status lines: ``pixie``."""
        ...

    async def activity(self, service: ServiceName, since: datetime, until: datetime) -> ActivityReading:
        """Processes, system calls and flows of one service; a source that is down is a failure in the reading."""
        ...

    async def close(self) -> None:
        """Releases connections."""
        ...
