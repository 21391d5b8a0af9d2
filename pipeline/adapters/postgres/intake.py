"""What came in from outside: events processed, and alerts."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from pipeline.adapters.postgres.pool import Connection, storable
from pipeline.domain.alert import Alert
from pipeline.domain.ids import ServiceName

MAX_ALERTS = 20
"""Of one service: a diagnosis has no use for more."""


class PostgresIntake:
    """``IntakeStore`` on one connection."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    async def first_time(self, consumer: str, event: str) -> bool:
        new = await self._connection.fetchval(
            "INSERT INTO processed_events (consumer, event) VALUES ($1, $2) ON CONFLICT DO NOTHING RETURNING true",
            consumer,
            event,
        )
        return bool(new)

    async def save_alerts(self, alerts: Sequence[Alert]) -> None:
        await self._connection.executemany(
            """INSERT INTO alerts (fingerprint, started_at, service, name, summary, ended_at)
               VALUES ($1, $2, $3, $4, $5, $6)
               ON CONFLICT (fingerprint, started_at) DO UPDATE
               SET ended_at = coalesce(excluded.ended_at, alerts.ended_at), seen_at = clock_timestamp()""",
            [
                (one.fingerprint, one.started_at, one.service, storable(one.name), storable(one.summary), one.ended_at)
                for one in alerts
            ],
        )

    async def alerts(self, service: ServiceName, since: datetime) -> Sequence[Alert]:
        rows = await self._connection.fetch(
            """SELECT fingerprint, service, name, summary, started_at, ended_at FROM alerts
               WHERE service = $1 AND coalesce(ended_at, seen_at) >= $2 ORDER BY started_at DESC LIMIT $3""",
            service,
            since,
            MAX_ALERTS,
        )
        return [Alert(**{**row, "service": ServiceName(row["service"])}) for row in rows]

    async def forget(self, *, keep_s: float) -> None:
        await self._connection.execute(
            "DELETE FROM processed_events WHERE at < clock_timestamp() - make_interval(secs => $1)", keep_s
        )
        await self._connection.execute(
            "DELETE FROM alerts WHERE seen_at < clock_timestamp() - make_interval(secs => $1)", keep_s
        )
