"""Notices to be sent: first in first out per incident, leased, retried, never lost."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from pydantic import TypeAdapter, ValidationError

from pipeline.adapters.postgres.pool import Connection
from pipeline.domain.ids import IncidentId, OutboxId
from pipeline.domain.notice import BusNotice, CardNotice, Notice, PagerNotice, ThreadNotice
from pipeline.ports.outbox import DeadLetter, OutboxRow

_NOTICE: TypeAdapter[CardNotice | ThreadNotice | BusNotice | PagerNotice] = TypeAdapter(Notice)
CARD_INTERVAL_S = 2.0
"""Redraws of one card are at least this far apart (Slack's chat.update allows 50 a minute)."""


class PostgresOutbox:
    """``Outbox`` on one connection."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    async def add(
        self, incident_id: IncidentId | None, notice: CardNotice | ThreadNotice | BusNotice | PagerNotice
    ) -> None:
        # The update changes nothing but holds the waiting card until this transaction ends: drawn earlier, it would
        # show the state before it, and no other card would follow.
        await self._connection.execute(
            """INSERT INTO outbox (incident_id, payload) VALUES ($1, $2)
               ON CONFLICT (incident_id) WHERE state = 'pending' AND kind = 'card' AND attempts = 0
               DO UPDATE SET available_at = outbox.available_at""",
            incident_id,
            notice.model_dump(mode="json"),
        )

    async def claim(self, *, worker: str, lease_s: float) -> OutboxRow | None:
        row = await self._connection.fetchrow(
            """UPDATE outbox SET leased_by = $1, attempts = attempts + 1,
                      lease_until = clock_timestamp() + make_interval(secs => $2)
               WHERE id = (
                   SELECT o.id FROM outbox o LEFT JOIN incidents i ON i.id = o.incident_id
                   WHERE o.state = 'pending' AND o.available_at <= clock_timestamp()
                     AND (o.lease_until IS NULL OR o.lease_until < clock_timestamp())
                     AND (o.kind <> 'card' OR i.card_updated_at IS NULL
                          OR i.card_updated_at <= clock_timestamp() - make_interval(secs => $3))
                     AND (o.incident_id IS NULL OR NOT EXISTS (
                          SELECT 1 FROM outbox earlier WHERE earlier.incident_id = o.incident_id
                          AND earlier.state = 'pending' AND earlier.id < o.id AND earlier.kind <> 'bus'
                          AND o.kind <> 'bus' AND (earlier.kind = 'pager') = (o.kind = 'pager')))
                   ORDER BY i.severity NULLS FIRST, o.id
                   LIMIT 1 FOR UPDATE OF o SKIP LOCKED)
               RETURNING id, incident_id, payload, attempts, attempted_at""",
            worker,
            lease_s,
            CARD_INTERVAL_S,
        )
        if row is None:
            return None
        try:
            notice = _NOTICE.validate_python(row["payload"])
        except ValidationError as error:
            # Written by a newer version, or by hand: set aside, so that it holds nobody up.
            said = f"not understood: {error.error_count()} problems in the payload"
            await self.dead(OutboxId(row["id"]), said, attempt=row["attempts"])
            return None
        return OutboxRow(
            id=OutboxId(row["id"]),
            incident_id=IncidentId(row["incident_id"]) if row["incident_id"] is not None else None,
            notice=notice,
            attempts=row["attempts"],
            in_doubt=row["attempted_at"] is not None,
        )

    async def attempting(self, outbox_id: OutboxId) -> None:
        await self._connection.execute("UPDATE outbox SET attempted_at = clock_timestamp() WHERE id = $1", outbox_id)

    async def keep(self, outbox_id: OutboxId, *, worker: str, lease_s: float) -> bool:
        kept = await self._connection.fetchval(
            """UPDATE outbox SET lease_until = clock_timestamp() + make_interval(secs => $3)
               WHERE id = $1 AND leased_by = $2 AND state = 'pending' RETURNING true""",
            outbox_id,
            worker,
            lease_s,
        )
        return bool(kept)

    async def done(self, outbox_id: OutboxId) -> None:
        await self._connection.execute(
            """WITH sent AS (
                   UPDATE outbox SET state = 'done', done_at = clock_timestamp(), lease_until = NULL, error = ''
                   WHERE id = $1 RETURNING incident_id, kind)
               UPDATE incidents SET card_updated_at = clock_timestamp() FROM sent
               WHERE incidents.id = sent.incident_id AND sent.kind = 'card'""",
            outbox_id,
        )

    async def retry(
        self, outbox_id: OutboxId, *, attempt: int, delay_s: float, error: str, surely_not_sent: bool
    ) -> None:
        await self._connection.execute(
            """UPDATE outbox SET lease_until = NULL, error = $3,
                      available_at = clock_timestamp() + make_interval(secs => $2),
                      attempted_at = CASE WHEN $4 THEN NULL ELSE attempted_at END
               WHERE id = $1 AND state = 'pending' AND attempts = $5""",
            outbox_id,
            delay_s,
            error[:500],
            surely_not_sent,
            attempt,
        )

    async def dead(self, outbox_id: OutboxId, error: str, *, attempt: int) -> None:
        await self._connection.execute(
            """UPDATE outbox SET state = 'dead', lease_until = NULL, error = $2
               WHERE id = $1 AND state = 'pending' AND attempts = $3""",
            outbox_id,
            error[:500],
            attempt,
        )

    async def dead_letters(self) -> Sequence[DeadLetter]:
        rows = await self._connection.fetch(
            """SELECT id, incident_id, kind, attempts, error, created_at FROM outbox
               WHERE state = 'dead' ORDER BY id LIMIT 200"""
        )
        return [DeadLetter(**dict(row)) for row in rows]

    async def replay(self, outbox_id: OutboxId | None) -> int:
        # The same row: it may have been sent in doubt, and is looked for under its own number.
        rows = await self._connection.fetch(
            """UPDATE outbox SET state = 'pending', attempts = 1, available_at = clock_timestamp(), lease_until = NULL
               WHERE state = 'dead' AND ($1::bigint IS NULL OR id = $1) RETURNING id""",
            outbox_id,
        )
        return len(rows)

    async def counts(self) -> Mapping[str, int]:
        rows = await self._connection.fetch("SELECT state, count(*) AS rows FROM outbox GROUP BY state")
        return {row["state"]: row["rows"] for row in rows}
