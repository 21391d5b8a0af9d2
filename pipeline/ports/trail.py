"""The append-only trail of what was seen, decided and done. Methods may raise TemporaryError."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from datetime import datetime
from typing import Protocol

from pipeline.domain.anchors import AnchorNote
from pipeline.domain.audit import ChainHead, DecisionRow, TrailRow
from pipeline.domain.ids import IncidentId
from pipeline.domain.trace import JsonValue, StoredTraceEntry, TraceEntry

SYSTEM = IncidentId(0)
"""The trail of the bot as a whole: switches, phases, denials without an incident."""


class TraceStore(Protocol):
    """The append-only trail."""

    async def add(self, incident_id: IncidentId, entry: TraceEntry) -> None: ...
    async def read(self, incident_id: IncidentId) -> Sequence[StoredTraceEntry]: ...
    async def first_broken(self, incident_id: IncidentId) -> int | None:
        """The first entry whose number, time or hash does not fit; None when the chain holds, tail included."""
        ...


class TrailSnapshot(Protocol):
    """The trail as it was at one moment, for a check. ``incident_id`` None: of all."""

    @property
    def at(self) -> datetime:
        """The database's clock."""
        ...

    async def heads(self, incident_id: IncidentId | None) -> Mapping[IncidentId, ChainHead]: ...
    def rows(self, incident_id: IncidentId | None) -> AsyncIterator[TrailRow]:
        """By incident and number, a few hundred at a time."""
        ...

    async def decisions(self, incident_id: IncidentId | None) -> Sequence[DecisionRow]: ...
    async def anchored(self) -> Sequence[AnchorNote]:
        """What the trail says of anchors that were made, oldest first."""
        ...

    async def facts(self, incident_id: IncidentId) -> Mapping[str, JsonValue] | None:
        """The incident with its plans and executions, as an auditor needs them; None when there is no such incident."""
        ...


class TrailArchive(Protocol):
    """Opens snapshots."""

    def snapshot(self) -> AbstractAsyncContextManager[TrailSnapshot]: ...
    async def ended_since(self, at: datetime) -> bool:
        """Whether an incident came to its end after ``at``."""
        ...
