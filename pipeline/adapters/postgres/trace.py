"""The append-only trail. Numbers, times and hashes are given by the database."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from pipeline.adapters.postgres.audit import checked_chain
from pipeline.adapters.postgres.pool import Connection, storable
from pipeline.domain.ids import IncidentId
from pipeline.domain.trace import StoredTraceEntry, TraceEntry, TraceKind

Clean = Callable[[TraceEntry], TraceEntry]
"""Takes secrets out of an entry; when it raises nothing is written."""


class PostgresTrace:
    """``TraceStore`` on one connection."""

    def __init__(self, connection: Connection, clean: Clean) -> None:
        self._connection = connection
        self._clean = clean

    async def add(self, incident_id: IncidentId, entry: TraceEntry) -> None:
        entry = self._clean(entry)
        await self._connection.execute(
            "INSERT INTO trace (incident_id, kind, summary, data) VALUES ($1, $2, $3, $4)",
            incident_id,
            entry.kind.value,
            storable(entry.summary),
            dict(entry.data),
        )

    async def read(self, incident_id: IncidentId) -> Sequence[StoredTraceEntry]:
        rows = await self._connection.fetch(
            "SELECT seq, at, kind, summary, data FROM trace WHERE incident_id = $1 ORDER BY seq", incident_id
        )
        return [
            StoredTraceEntry(row["seq"], row["at"], TraceEntry(TraceKind(row["kind"]), row["summary"], row["data"]))
            for row in rows
        ]

    async def first_broken(self, incident_id: IncidentId) -> int | None:
        broken = await checked_chain(self._connection, incident_id)
        return broken.seq if broken else None
