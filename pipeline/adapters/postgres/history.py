"""What was done before, by the executions themselves, and the replicas of targets as they were read."""

from __future__ import annotations

from datetime import datetime, timedelta

from pipeline.adapters.postgres.pool import Connection
from pipeline.domain.action import ActionKind
from pipeline.domain.ids import ExecutionId, IncidentId, PlanId
from pipeline.ports.history import ActionHistory, ReplicaReading, Unhelpful

KEEP_S = 4 * 3600.0
"""A reading that is older says nothing about "one hour ago"."""
_LATELY = timedelta(hours=2)
"""What was made before that is open still, or has had its last call."""
SAME_S = 60.0
"""The same number again is noted once in this time."""


class PostgresHistory:
    """``HistoryStore`` on one connection."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    async def saw(self, target_uid: str, replicas: int) -> None:
        await self._connection.execute(
            """INSERT INTO target_replicas (uid, replicas)
               SELECT $1, $2 WHERE NOT EXISTS (
                   SELECT 1 FROM (SELECT replicas, at FROM target_replicas WHERE uid = $1 ORDER BY at DESC LIMIT 1) last
                   WHERE last.replicas = $2 AND last.at > clock_timestamp() - make_interval(secs => $3))
               ON CONFLICT DO NOTHING""",
            target_uid,
            replicas,
            SAME_S,
        )
        # Skips what another transaction is deleting: two that wait for each other's rows would never end.
        await self._connection.execute(
            """DELETE FROM target_replicas WHERE (uid, at) IN (
                   SELECT uid, at FROM target_replicas
                   WHERE at < (SELECT clock_timestamp() - make_interval(secs => $1))
                   ORDER BY at LIMIT 1000 FOR UPDATE SKIP LOCKED)""",
            KEEP_S,
        )

    async def in_vain(self, incident_id: IncidentId) -> tuple[ActionKind, ...]:
        rows = await self._connection.fetch(
            """SELECT p.action ->> 'kind' AS kind FROM executions e JOIN plans p ON p.id = e.plan_id
               WHERE e.incident_id = $1 AND e.kind = 'apply'
                 AND (e.state = 'not_verified' OR e.canary_verdict = 'worse') ORDER BY e.id""",
            incident_id,
        )
        return tuple(dict.fromkeys(row["kind"] for row in rows))

    async def of(self, target_uid: str, kind: ActionKind, fingerprint: str, *, besides: PlanId | None) -> ActionHistory:
        # Asked for by itself: the planner sees which rows a given moment leaves, and of the clock it sees nothing.
        now: datetime = await self._connection.fetchval("SELECT clock_timestamp()")
        # An execution that has been claimed counts, and so does a ready one that was there before ours: whoever sees
        # the other is not seen by it, unless both are seen, and then both stop.
        row = await self._connection.fetchrow(
            """WITH own AS (SELECT min(id) AS id FROM executions WHERE plan_id = $3),
               near AS (  -- each by an index of its own: with OR the whole table would be read
                   SELECT id FROM executions WHERE target_uid = $1
                   UNION SELECT id FROM executions WHERE state IN ('ready', 'claimed', 'dispatched', 'unknown')
                   UNION SELECT id FROM executions WHERE created_at > $5
               ), past AS (
                   SELECT e.target_uid = $1 AS here, p.action ->> 'kind' = $2 AS same, e.kind = 'apply' AS forth,
                          e.state IN ('ready', 'claimed', 'dispatched', 'unknown') AS open,
                          e.state <> 'ready' OR own.id IS NULL OR e.id < own.id AS first,
                          called.at AS called_at, coalesce(called.at, e.started_at, e.created_at) AS at
                   FROM own CROSS JOIN near JOIN executions e ON e.id = near.id JOIN plans p ON p.id = e.plan_id
                   LEFT JOIN LATERAL (SELECT max(greatest(dispatched_at, applied_at)) AS at FROM execution_steps s
                                      WHERE s.execution_id = near.id) called ON true
                   WHERE e.plan_id IS DISTINCT FROM $3
               ), counted AS (
                   SELECT here, same, forth, open, first, at > $4::timestamptz - interval '1 hour' AS recent,
                          greatest(extract(epoch FROM $4::timestamptz - at), 0)::float8 AS ago_s
                   FROM past WHERE called_at IS NOT NULL OR open
               )
               SELECT min(ago_s) FILTER (WHERE here) AS last_action_s_ago,
                      min(ago_s) FILTER (WHERE here AND same) AS last_of_kind_s_ago,
                      count(*) FILTER (WHERE here AND recent AND forth) AS last_hour,
                      count(*) FILTER (WHERE recent AND first) AS last_hour_everywhere,
                      count(*) FILTER (WHERE here AND open) AS open_here,
                      count(*) FILTER (WHERE NOT here AND open AND first) AS open_elsewhere
               FROM counted""",
            target_uid,
            kind,
            besides,
            now,
            now - _LATELY,
        )
        return ActionHistory(
            at=now,
            **dict(row),
            unhelpful=await self._unhelpful(target_uid, kind, fingerprint, besides),
            readings=await self._readings(target_uid, now),
        )

    async def _unhelpful(
        self, target_uid: str, kind: ActionKind, fingerprint: str, besides: PlanId | None
    ) -> Unhelpful | None:
        row = await self._connection.fetchrow(
            """SELECT e.id, e.state,
                      extract(epoch FROM clock_timestamp() - coalesce(e.applied_at, e.created_at))::float8 AS ago_s
               FROM executions e JOIN plans p ON p.id = e.plan_id JOIN incidents i ON i.id = e.incident_id
               WHERE e.target_uid = $1 AND e.kind = 'apply'
                 AND (e.state IN ('not_verified', 'inconclusive') OR e.canary_verdict = 'worse')
                 AND p.action ->> 'kind' = $2 AND i.fingerprint = $3 AND e.plan_id IS DISTINCT FROM $4
               ORDER BY e.id DESC LIMIT 1""",
            target_uid,
            kind,
            fingerprint,
            besides,
        )
        return Unhelpful(ExecutionId(row["id"]), row["state"], row["ago_s"]) if row else None

    async def _readings(self, target_uid: str, now: datetime) -> tuple[ReplicaReading, ...]:
        rows = await self._connection.fetch(
            """SELECT replicas, ours, greatest(extract(epoch FROM $3::timestamptz - at), 0)::float8 AS ago_s FROM (
                   SELECT replicas, at, false AS ours FROM target_replicas WHERE uid = $1
                   UNION ALL
                   SELECT (s.operation ->> 'replicas')::integer, s.applied_at, true
                   FROM execution_steps s JOIN executions e ON e.id = s.execution_id
                   WHERE e.target_uid = $1 AND s.operation ->> 'op' = 'scale_to' AND s.applied_at IS NOT NULL
               ) AS seen WHERE at > $2::timestamptz ORDER BY at""",
            target_uid,
            now - timedelta(seconds=KEEP_S),
            now,
        )
        return tuple(ReplicaReading(row["replicas"], row["ago_s"], row["ours"]) for row in rows)
