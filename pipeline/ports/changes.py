"""Reading what was changed."""

from __future__ import annotations

from datetime import datetime
from typing import Protocol

from pipeline.domain.changes import ChangeReading


class ChangesSource(Protocol):
    """One provider of change events."""

    @property
    def name(self) -> str:
        """Short name for status lines: ``git``, ``kubernetes rollouts``."""
        ...

    async def changes(self, since: datetime, until: datetime) -> ChangeReading:
        """Changes that took effect in the window, oldest first; one that is down is a failure in the reading."""
        ...

    async def close(self) -> None:
        """Releases connections."""
        ...
