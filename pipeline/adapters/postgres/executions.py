"""Executions under the claim-and-fence protocol: every write names the fence it holds."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from pipeline.adapters.postgres.pool import Connection
from pipeline.adapters.postgres.records import EXECUTION_COLUMNS, STEP_COLUMNS, Row, execution
from pipeline.domain.action import TargetAction, operations
from pipeline.domain.execution import Execution, Intent, SeenInstance, StoodBefore
from pipeline.domain.ids import ExecutionId, IncidentId, PlanId
from pipeline.domain.lifecycle import EXECUTION_TRANSITIONS, ExecutionState
from pipeline.domain.plan import Plan
from pipeline.ports.executions import LEASE_OVER, TAKEN_OVER, HeldLock
from pipeline.ports.locks import Lock


class PostgresExecutions:
    """``ExecutionStore`` on one connection."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    async def create(self, plan: Plan, kind: Literal["apply", "rollback"], action: TargetAction) -> bool:
        assert plan.target is not None
        created = await self._connection.fetchval(
            """INSERT INTO executions (plan_id, incident_id, kind, target, target_uid) VALUES ($1, $2, $3, $4, $5)
               ON CONFLICT DO NOTHING RETURNING id""",
            plan.id,
            plan.incident_id,
            kind,
            plan.target.model_dump(mode="json"),
            plan.target.uid,
        )
        if created is None:
            return False
        await self._connection.executemany(
            "INSERT INTO execution_steps (execution_id, number, operation) VALUES ($1, $2, $3)",
            [
                (created, number, operation.model_dump(mode="json"))
                for number, operation in enumerate(operations(action), start=1)
            ],
        )
        return True

    async def get(self, execution_id: ExecutionId) -> Execution | None:
        row = await self._connection.fetchrow(
            f"SELECT {EXECUTION_COLUMNS} FROM executions WHERE id = $1",  # noqa: S608 - a constant list of columns
            execution_id,
        )
        return await self._with_steps(row) if row else None

    async def of_incident(self, incident_id: IncidentId) -> Sequence[Execution]:
        rows = await self._connection.fetch(
            f"SELECT {EXECUTION_COLUMNS} FROM executions WHERE incident_id = $1 ORDER BY id",  # noqa: S608
            incident_id,
        )
        return [await self._with_steps(row) for row in rows]

    async def of_plan(self, plan_id: PlanId, kind: Literal["apply", "rollback"]) -> Execution | None:
        row = await self._connection.fetchrow(
            f"SELECT {EXECUTION_COLUMNS} FROM executions WHERE plan_id = $1 AND kind = $2",  # noqa: S608
            plan_id,
            kind,
        )
        return await self._with_steps(row) if row else None

    async def claim(self, *, worker: str, lease_s: float) -> Execution | None:
        row = await self._connection.fetchrow(
            f"""UPDATE executions SET state = 'claimed', fence = nextval('fences'), leased_by = $1,
                       lease_until = clock_timestamp() + make_interval(secs => $2),
                       started_at = coalesce(started_at, clock_timestamp())
                WHERE id = (SELECT id FROM executions WHERE state = 'ready' AND not_before <= clock_timestamp()
                            ORDER BY id LIMIT 1 FOR UPDATE SKIP LOCKED)
                RETURNING {EXECUTION_COLUMNS}""",  # noqa: S608
            worker,
            lease_s,
        )
        return await self._with_steps(row) if row else None

    async def take_over(self, *, worker: str, lease_s: float) -> Execution | None:
        row = await self._connection.fetchrow(
            f"""UPDATE executions SET fence = nextval('fences'), leased_by = $1,
                       lease_until = clock_timestamp() + make_interval(secs => $2),
                       state = CASE WHEN state = 'dispatched' THEN 'unknown' ELSE state END,
                       waiting_since = CASE WHEN state = 'unknown' THEN waiting_since END
                WHERE id = (SELECT id FROM executions
                            WHERE state IN ('claimed', 'dispatched', 'unknown') AND not_before <= clock_timestamp()
                              AND (lease_until IS NULL OR lease_until < clock_timestamp())
                            ORDER BY id LIMIT 1 FOR UPDATE SKIP LOCKED)
                RETURNING {EXECUTION_COLUMNS}""",  # noqa: S608
            worker,
            lease_s,
        )
        return await self._with_steps(row) if row else None

    async def renew(self, execution_id: ExecutionId, fence: int, *, lease_s: float) -> bool:
        kept = await self._connection.fetchval(
            """UPDATE executions SET lease_until = clock_timestamp() + make_interval(secs => $3)
               WHERE id = $1 AND fence = $2 AND lease_until > clock_timestamp() RETURNING true""",
            execution_id,
            fence,
            lease_s,
        )
        return bool(kept)

    async def move(
        self, execution_id: ExecutionId, fence: int, to: ExecutionState, *, detail: str = "", delay_s: float = 0.0
    ) -> bool:
        from_ = [state.value for state, targets in EXECUTION_TRANSITIONS.items() if to in targets]
        releases = to in (ExecutionState.READY, ExecutionState.UNKNOWN) or not EXECUTION_TRANSITIONS[to]
        moved = await self._connection.fetchval(
            """UPDATE executions SET state = $3,
                      detail = CASE WHEN $4 = '' AND $3 <> 'dispatched' THEN detail ELSE $4 END,
                      lease_until = CASE WHEN $5 THEN NULL ELSE lease_until END,
                      not_before = clock_timestamp() + make_interval(secs => $6),
                      applied_at = CASE WHEN $3 = 'applied' THEN clock_timestamp() ELSE applied_at END,
                      waiting_since = CASE WHEN $3 IN ('ready', 'unknown')
                                           THEN coalesce(waiting_since, clock_timestamp())
                                           WHEN $3 = 'dispatched' THEN waiting_since END
               WHERE id = $1 AND fence = $2 AND state = ANY ($7::text[]) RETURNING true""",
            execution_id,
            fence,
            to.value,
            detail[:500],
            releases,
            delay_s,
            from_,
        )
        return bool(moved)

    async def may_call(self, execution_id: ExecutionId, fence: int) -> str:
        row = await self._connection.fetchrow(
            """SELECT e.fence = $2 AS holds, e.lease_until > clock_timestamp() AS leased,
                      (SELECT k.scope || ' (' || k.reason || ')' FROM kill_switches k
                       WHERE k.engaged AND k.scope IN ('all', i.service, 'env:' || i.environment)
                       ORDER BY k.scope = 'all' DESC LIMIT 1) AS killed
               FROM executions e JOIN incidents i ON i.id = e.incident_id WHERE e.id = $1""",
            execution_id,
            fence,
        )
        if row is None or not row["holds"]:
            return TAKEN_OVER
        if row["killed"]:
            return f"kill switch engaged: {row['killed']}"
        return "" if row["leased"] else LEASE_OVER

    async def begin_batch(self, execution_id: ExecutionId, fence: int, steps: Sequence[int]) -> int:
        number = await self._connection.fetchval(
            """UPDATE execution_steps s SET batch = CASE WHEN s.batch > 0 THEN s.batch ELSE (
                   SELECT max(o.batch) + 1 FROM execution_steps o WHERE o.execution_id = $1) END
               FROM executions e WHERE e.id = s.execution_id AND e.id = $1 AND e.fence = $2
                 AND s.number = ANY ($3::integer[]) RETURNING s.batch""",
            execution_id,
            fence,
            list(steps),
        )
        return int(number or 0)

    async def watch(self, execution_id: ExecutionId, fence: int, canary: Sequence[SeenInstance]) -> float | None:
        lasted: float | None = await self._connection.fetchval(
            """UPDATE executions SET canary = CASE WHEN watching_since IS NULL THEN $3 ELSE canary END,
                      watching_since = coalesce(watching_since, clock_timestamp())
               WHERE id = $1 AND fence = $2
               RETURNING extract(epoch FROM clock_timestamp() - watching_since)::float8""",
            execution_id,
            fence,
            [one.model_dump() for one in canary],
        )
        return lasted

    async def watched(self, execution_id: ExecutionId, fence: int, verdict: str) -> bool:
        written = await self._connection.fetchval(
            "UPDATE executions SET canary_verdict = $3 WHERE id = $1 AND fence = $2 RETURNING true",
            execution_id,
            fence,
            verdict,
        )
        return bool(written)

    async def step_dispatched(self, intent: Intent, before: StoodBefore | None = None) -> bool:
        written = await self._connection.fetchval(
            """UPDATE execution_steps s SET state = 'dispatched', generation = $4, fence = $3,
                      dispatched_at = clock_timestamp(), before = $5
               FROM executions e WHERE e.id = s.execution_id AND e.id = $1 AND s.number = $2 AND e.fence = $3
                 AND e.state = 'dispatched' AND e.lease_until > clock_timestamp() AND s.state = 'pending'
               RETURNING true""",
            intent.execution_id,
            intent.step,
            intent.fence,
            intent.generation,
            before.model_dump(mode="json") if before else None,
        )
        return bool(written)

    async def step_applied(self, execution_id: ExecutionId, fence: int, step: int, detail: str) -> bool:
        if not await self._step(execution_id, fence, step, "applied", detail):
            return False
        # Waiting ends here and not when a call goes out: one that is refused again and again would never end.
        await self._connection.execute(
            "UPDATE executions SET waiting_since = NULL WHERE id = $1 AND fence = $2", execution_id, fence
        )
        return True

    async def step_failed(self, execution_id: ExecutionId, fence: int, step: int, detail: str) -> bool:
        return await self._step(execution_id, fence, step, "failed", detail)

    async def step_pending(self, execution_id: ExecutionId, fence: int, step: int, detail: str) -> bool:
        return await self._step(execution_id, fence, step, "pending", detail)

    async def intent(self, execution_id: ExecutionId, step: int) -> Intent:
        row = await self._connection.fetchrow(
            "SELECT fence, generation FROM execution_steps WHERE execution_id = $1 AND number = $2", execution_id, step
        )
        return Intent(execution_id, step, row["fence"], row["generation"])

    async def hold(self, execution_id: ExecutionId, fence: int, lock: Lock) -> bool:
        kept = await self._connection.fetchval(
            """UPDATE executions SET lock_resource = $3, lock_token = $4, lock_fence = $5
               WHERE id = $1 AND fence = $2 RETURNING true""",
            execution_id,
            fence,
            lock.resource,
            lock.token,
            lock.fence,
        )
        return bool(kept)

    async def held(self, plan_id: PlanId) -> Lock | None:
        row = await self._connection.fetchrow(
            """SELECT lock_resource, lock_token, lock_fence FROM executions
               WHERE plan_id = $1 AND lock_token IS NOT NULL ORDER BY id DESC LIMIT 1""",
            plan_id,
        )
        return _lock(row) if row else None

    async def holding(self) -> Sequence[HeldLock]:
        rows = await self._connection.fetch(
            """SELECT e.lock_resource, e.lock_token, e.lock_fence,
                      i.state NOT IN ('mitigating', 'verifying') AS over,
                      (SELECT extract(epoch FROM clock_timestamp() - max(s.dispatched_at))::float8
                       FROM execution_steps s JOIN executions o ON o.id = s.execution_id
                       WHERE o.plan_id = e.plan_id) AS acted_s_ago
               FROM executions e JOIN incidents i ON i.id = e.incident_id
               WHERE e.lock_token IS NOT NULL ORDER BY e.id"""
        )
        return [HeldLock(_lock(row), row["over"], row["acted_s_ago"]) for row in rows]

    async def let_go(self, lock: Lock) -> None:
        await self._connection.execute(
            """UPDATE executions SET lock_resource = NULL, lock_token = NULL, lock_fence = NULL
               WHERE lock_token = $1""",
            lock.token,
        )

    async def _step(self, execution_id: ExecutionId, fence: int, step: int, state: str, detail: str) -> bool:
        written = await self._connection.fetchval(
            """UPDATE execution_steps s SET state = $4, detail = $5,
                      applied_at = CASE WHEN $4 = 'applied' THEN clock_timestamp() END
               FROM executions e WHERE e.id = s.execution_id AND e.id = $1 AND s.number = $2 AND e.fence = $3
                 AND s.state IN ('pending', 'dispatched') RETURNING true""",
            execution_id,
            step,
            fence,
            state,
            detail[:500],
        )
        return bool(written)

    async def _with_steps(self, row: Row) -> Execution:
        steps = await self._connection.fetch(
            f"SELECT {STEP_COLUMNS} FROM execution_steps WHERE execution_id = $1 ORDER BY number",  # noqa: S608
            row["id"],
        )
        return execution(row, steps)


def _lock(row: Row) -> Lock:
    return Lock(row["lock_resource"], row["lock_token"], row["lock_fence"])
