"""The append-only trail of what was seen, decided and done. Methods may raise TemporaryError."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from pipeline.domain.ids import IncidentId
from pipeline.domain.trace import StoredTraceEntry, TraceEntry

SYSTEM = IncidentId(0)
"""The trail of the bot as a whole: switches, phases, denials without an incident."""


class TraceStore(Protocol):
    """The append-only trail."""

    async def add(self, incident_id: IncidentId, entry: TraceEntry) -> None: ...
    async def read(self, incident_id: IncidentId) -> Sequence[StoredTraceEntry]: ...
    async def first_broken(self, incident_id: IncidentId) -> int | None:
        """The first entry whose number or hash does not fit; None when the chain holds, tail included."""
        ...
