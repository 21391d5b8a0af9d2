"""Kill switches, phase, ticks, and requests seen."""

from __future__ import annotations

from collections.abc import Sequence

from pipeline.adapters.postgres.pool import Connection, storable
from pipeline.domain.ids import ServiceName, SlackUserId
from pipeline.domain.phase import Phase, TrackRecord
from pipeline.ports.control import KillSwitch, scopes_of

RESUME_WINDOW_S = 900.0
"""A second person must confirm a resume within this time."""


class PostgresControl:
    """``ControlStore`` on one connection."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    async def switches(self) -> Sequence[KillSwitch]:
        rows = await self._connection.fetch(
            "SELECT scope, engaged, reason, changed_by, changed_at, resume_asked_by FROM kill_switches ORDER BY scope"
        )
        return [KillSwitch(**dict(row)) for row in rows]

    async def engaged(self, service: ServiceName, environment: str) -> KillSwitch | None:
        row = await self._connection.fetchrow(
            """SELECT scope, engaged, reason, changed_by, changed_at, resume_asked_by FROM kill_switches
               WHERE engaged AND scope = ANY ($1::text[]) ORDER BY array_position($1::text[], scope) LIMIT 1""",
            list(scopes_of(service, environment)),
        )
        return KillSwitch(**dict(row)) if row else None

    async def kill(self, scope: str, reason: str, user: SlackUserId) -> None:
        await self._connection.execute(
            """INSERT INTO kill_switches (scope, engaged, reason, changed_by) VALUES ($1, true, $2, $3)
               ON CONFLICT (scope) DO UPDATE SET engaged = true, reason = excluded.reason,
                   changed_by = excluded.changed_by, changed_at = clock_timestamp(),
                   resume_asked_by = NULL, resume_asked_at = NULL""",
            scope,
            storable(reason),
            user,
        )

    async def resume(self, scope: str, reason: str, user: SlackUserId, *, people_needed: int) -> bool:
        row = await self._connection.fetchrow(
            """SELECT resume_asked_by, coalesce(resume_asked_at > clock_timestamp() - make_interval(secs => $2), false)
                      AS fresh FROM kill_switches WHERE scope = $1 AND engaged FOR UPDATE""",
            scope,
            RESUME_WINDOW_S,
        )
        if row is None:
            return True
        second = row["fresh"] and row["resume_asked_by"] != user
        if people_needed <= 1 or second:
            await self._connection.execute(
                """UPDATE kill_switches SET engaged = false, reason = $2, changed_by = $3,
                          changed_at = clock_timestamp(), resume_asked_by = NULL, resume_asked_at = NULL
                   WHERE scope = $1""",
                scope,
                storable(reason),
                user,
            )
            return True
        await self._connection.execute(
            "UPDATE kill_switches SET resume_asked_by = $2, resume_asked_at = clock_timestamp() WHERE scope = $1",
            scope,
            user,
        )
        return False

    async def phase(self) -> Phase | None:
        value = await self._connection.fetchval("SELECT phase FROM phases ORDER BY id DESC LIMIT 1")
        return Phase(value) if value else None

    async def set_phase(self, phase: Phase, reason: str, user: str) -> None:
        await self._connection.execute(
            "INSERT INTO phases (phase, reason, set_by) VALUES ($1, $2, $3)", phase.value, storable(reason), user
        )

    async def track_record(self) -> TrackRecord:
        row = await self._connection.fetchrow(
            """SELECT (SELECT count(*) FROM incidents WHERE diagnosis IS NOT NULL) AS incidents,
                      (SELECT count(DISTINCT plan_id) FROM approvals) AS decided,
                      (SELECT count(*) FROM plans WHERE state = 'approved') AS approved,
                      (SELECT count(*) FROM executions WHERE kind = 'apply' AND applied_at IS NOT NULL) AS executed,
                      (SELECT count(*) FROM executions WHERE kind = 'apply' AND state = 'verified') AS recovered,
                      (SELECT count(*) FROM executions WHERE kind = 'apply' AND state = 'inconclusive') AS inconclusive,
                      (SELECT count(*) FROM executions WHERE state = 'needs_human') AS needs_human,
                      coalesce((SELECT extract(epoch FROM clock_timestamp() - min(opened_at)) / 86400
                                FROM incidents), 0)::float8 AS days"""
        )
        return TrackRecord(**dict(row))

    async def win_tick(self, job: str, slot: int) -> bool:
        won = await self._connection.fetchval(
            "INSERT INTO ticks (job, slot) VALUES ($1, $2) ON CONFLICT DO NOTHING RETURNING true", job, slot
        )
        return bool(won)

    async def first_time(self, key: str) -> bool:
        new = await self._connection.fetchval(
            "INSERT INTO seen_requests (key) VALUES ($1) ON CONFLICT DO NOTHING RETURNING true", key
        )
        return bool(new)

    async def tokens_spent(self, *, within_s: float) -> int:
        spent = await self._connection.fetchval(
            """SELECT coalesce(sum((data -> 'usage' ->> 'input_tokens')::bigint
                                 + (data -> 'usage' ->> 'output_tokens')::bigint), 0)
               FROM trace WHERE kind IN ('prompt', 'review', 'question')
                 AND at > clock_timestamp() - make_interval(secs => $1)""",
            within_s,
        )
        return int(spent)
