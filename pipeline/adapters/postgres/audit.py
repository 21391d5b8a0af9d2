"""The trail read for a check: whole, at one moment, and a few hundred rows at a time."""

from __future__ import annotations

import hashlib
import json
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Any

from pipeline.adapters.postgres.pool import Connection, Pool
from pipeline.adapters.postgres.records import ACTION, Row
from pipeline.domain.anchors import AnchorNote
from pipeline.domain.audit import ChainCheck, ChainHead, DecisionRow, Defect, TrailRow
from pipeline.domain.ids import IncidentId
from pipeline.domain.plan import TargetRef, plan_text
from pipeline.domain.trace import JsonValue

BATCH_ROWS = 500

_ROWS = """
SELECT incident_id, version, seq, at, kind, summary, data::text AS data, previous, hash FROM trace
WHERE $1::bigint IS NULL OR incident_id = $1 ORDER BY incident_id, seq
"""
_CHAIN = """
SELECT t.incident_id, t.version, t.seq, t.at, t.kind, t.summary, t.data::text AS data, t.previous, t.hash,
    h.seq AS head_seq, h.hash AS head_hash
FROM (SELECT $1::bigint AS id) one
LEFT JOIN trace_heads h ON h.incident_id = one.id LEFT JOIN trace t ON t.incident_id = one.id ORDER BY t.seq
"""
_HEADS = "SELECT incident_id, seq, hash FROM trace_heads WHERE $1::bigint IS NULL OR incident_id = $1"
_DECISIONS = """
SELECT a.id, a.plan_id, a.plan_hash, a.user_id, a.decision, a.reason, a.at,
    p.incident_id, p.revision, p.action, p.target, p.generation, p.hash
FROM approvals a JOIN plans p ON p.id = a.plan_id
WHERE $1::bigint IS NULL OR p.incident_id = $1 ORDER BY a.id
"""
_ANCHORED = "SELECT at, data FROM trace WHERE incident_id = 0 AND kind = 'anchor' ORDER BY seq"
_INCIDENT = """
SELECT id, state, service, environment, family, severity, severity_detail, title, owner, outcome, opened_at, closed_at
FROM incidents WHERE id = $1
"""
_PLANS = """
SELECT id, incident_id, revision, action, target, generation, replicas_before, hash, state, approvals_needed,
    expected_effect, guardrails, requested_by, created_at, expires_at
FROM plans WHERE incident_id = $1 ORDER BY id
"""
_EXECUTIONS = """
SELECT e.id, plan_id, kind, state, fence, target, created_at, started_at, applied_at, detail, coalesce((
    SELECT jsonb_agg(to_jsonb(s) - 'execution_id' ORDER BY number) FROM execution_steps s WHERE execution_id = e.id
), '[]') AS steps
FROM executions e WHERE incident_id = $1 ORDER BY e.id
"""


async def checked_chain(connection: Connection, incident_id: IncidentId) -> Defect | None:
    """The first defect of one chain, read in one statement: others may be writing."""
    check, head = ChainCheck(incident_id), None
    for row in await connection.fetch(_CHAIN, incident_id):
        *fields, head_seq, head_hash = row.values()
        head = ChainHead(head_seq, head_hash) if head_seq is not None else None
        if row["seq"] is not None:
            check.row(TrailRow(*fields))
    return check.end(head)


class PostgresTrailSnapshot:
    """``TrailSnapshot`` on a transaction of its own."""

    def __init__(self, connection: Connection, at: datetime) -> None:
        self._connection = connection
        self._at = at

    @property
    def at(self) -> datetime:
        return self._at

    async def heads(self, incident_id: IncidentId | None) -> Mapping[IncidentId, ChainHead]:
        rows = await self._connection.fetch(_HEADS, incident_id)
        return {IncidentId(row["incident_id"]): ChainHead(row["seq"], row["hash"]) for row in rows}

    async def rows(self, incident_id: IncidentId | None) -> AsyncIterator[TrailRow]:
        async for row in self._connection.cursor(_ROWS, incident_id, prefetch=BATCH_ROWS):
            yield TrailRow(*row.values())

    async def decisions(self, incident_id: IncidentId | None) -> Sequence[DecisionRow]:
        return [
            DecisionRow(
                id=row["id"],
                incident_id=IncidentId(row["incident_id"]),
                plan_id=row["plan_id"],
                plan_hash=row["plan_hash"],
                user_id=row["user_id"],
                decision=row["decision"],
                reason=row["reason"],
                at=row["at"],
                plan_stored=row["hash"],
                plan_computed=hashlib.sha256(_plan_text(row).encode()).hexdigest(),
            )
            for row in await self._connection.fetch(_DECISIONS, incident_id)
        ]

    async def anchored(self) -> Sequence[AnchorNote]:
        return [AnchorNote(**row["data"], at=row["at"]) for row in await self._connection.fetch(_ANCHORED)]

    async def facts(self, incident_id: IncidentId) -> Mapping[str, JsonValue] | None:
        incident = await self._connection.fetchrow(_INCIDENT, incident_id)
        if incident is None:
            return None
        plans = await self._connection.fetch(_PLANS, incident_id)
        executions = await self._connection.fetch(_EXECUTIONS, incident_id)
        return {
            "incident": _plain(incident),
            "plans": [{**_plain(plan), "hashed_text": _plan_text(plan)} for plan in plans],
            "executions": [_plain(execution) for execution in executions],
        }


class PostgresTrailArchive:
    """``TrailArchive`` on a pool."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    @asynccontextmanager
    async def snapshot(self) -> AsyncIterator[PostgresTrailSnapshot]:
        async with self._pool.transaction() as connection:
            await connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
            yield PostgresTrailSnapshot(connection, await connection.fetchval("SELECT clock_timestamp()"))

    async def ended_since(self, at: datetime) -> bool:
        async with self._pool.transaction() as connection:
            return bool(await connection.fetchval("SELECT EXISTS (SELECT FROM incidents WHERE closed_at > $1)", at))


def _plan_text(row: Row) -> str:
    target = TargetRef.model_validate(row["target"]) if row["target"] is not None else None
    action = ACTION.validate_python(row["action"])
    return plan_text(IncidentId(row["incident_id"]), row["revision"], action, target, row["generation"])


def _plain(row: Row) -> dict[str, Any]:
    return json.loads(json.dumps(dict(row), default=datetime.isoformat))  # type: ignore[no-any-return]
