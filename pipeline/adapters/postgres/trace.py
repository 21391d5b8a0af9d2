"""The append-only trail. Numbers, times and hashes are given by the database."""

from __future__ import annotations

from collections.abc import Callable, Sequence

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
        broken: int | None = await self._connection.fetchval(
            """WITH chain AS (
                   SELECT seq, hash, previous,
                          trace_hash(previous, incident_id, seq, at, kind, summary, data) AS computed,
                          row_number() OVER (ORDER BY seq) AS expected_seq,
                          lag(hash, 1, '') OVER (ORDER BY seq) AS expected_previous
                   FROM trace WHERE incident_id = $1
               ), tail AS (
                   SELECT count(*) > 0 AS present, coalesce(max(seq), 0) AS seq,
                          coalesce((SELECT hash FROM chain ORDER BY seq DESC LIMIT 1), '') AS hash
                   FROM chain
               )
               SELECT min(seq) FROM (
                   SELECT seq FROM chain
                   WHERE hash <> computed OR seq <> expected_seq OR previous <> expected_previous
                   UNION ALL
                   SELECT CASE WHEN head.seq = tail.seq THEN tail.seq
                               ELSE least(head.seq, tail.seq) + 1 END
                   FROM tail LEFT JOIN trace_heads head ON head.incident_id = $1
                   WHERE (tail.present OR head.seq IS NOT NULL)
                     AND (head.seq IS DISTINCT FROM tail.seq OR head.hash IS DISTINCT FROM tail.hash)
               ) AS broken""",
            incident_id,
        )
        return broken
