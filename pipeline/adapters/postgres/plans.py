"""Plans and the decisions on them."""

from __future__ import annotations

from collections.abc import Sequence

from pipeline.adapters.postgres.pool import Connection, storable
from pipeline.adapters.postgres.records import ANSWERS, PLAN_COLUMNS, approval, plan
from pipeline.domain.approval import Approval
from pipeline.domain.errors import PermanentError
from pipeline.domain.guardrail import GuardrailResult
from pipeline.domain.ids import PlanId
from pipeline.domain.lifecycle import PLAN_TRANSITIONS, PlanState
from pipeline.domain.plan import Plan, plan_hash
from pipeline.ports.plans import PlanDraft


class PostgresPlans:
    """``PlanStore`` on one connection."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    async def propose(self, draft: PlanDraft, guardrails: GuardrailResult) -> Plan:
        await self._connection.execute(
            "UPDATE plans SET state = 'superseded' WHERE incident_id = $1 AND state = 'proposed'", draft.incident_id
        )
        revision = await self._connection.fetchval(
            "SELECT coalesce(max(revision), 0) + 1 FROM plans WHERE incident_id = $1", draft.incident_id
        )
        row = await self._connection.fetchrow(
            f"""INSERT INTO plans (incident_id, revision, action, target, generation, replicas_before, hash,
                                   approvals_needed, expected_effect, guardrails, expires_at, requested_by,
                                   target_revision, risk, alternatives)
                VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, clock_timestamp() + make_interval(secs => $11), $12,
                        $13, $14, $15)
                RETURNING {PLAN_COLUMNS}""",  # noqa: S608 - a constant list of columns
            draft.incident_id,
            revision,
            draft.action.model_dump(mode="json"),
            draft.target.model_dump(mode="json") if draft.target else None,
            draft.generation,
            draft.replicas_before,
            plan_hash(draft.incident_id, revision, draft.action, draft.target, draft.generation),
            draft.approvals_needed,
            draft.expected_effect,
            ANSWERS.dump_python(guardrails.answers, mode="json"),
            draft.ttl_s,
            draft.requested_by,
            draft.target_revision,
            draft.risk or "",
            [one.model_dump(mode="json") for one in draft.alternatives],
        )
        return plan(row)

    async def get(self, plan_id: PlanId) -> Plan | None:
        row = await self._connection.fetchrow(
            f"SELECT {PLAN_COLUMNS} FROM plans WHERE id = $1 FOR UPDATE",  # noqa: S608
            plan_id,
        )
        return plan(row) if row else None

    async def by_token(self, token: str) -> Plan | None:
        row = await self._connection.fetchrow(
            f"SELECT {PLAN_COLUMNS} FROM plans WHERE token = $1",  # noqa: S608
            token,
        )
        return plan(row) if row else None

    async def move(self, plan_id: PlanId, from_: PlanState, to: PlanState) -> bool:
        if to not in PLAN_TRANSITIONS[from_]:
            raise PermanentError(f"a plan cannot go from {from_} to {to}")
        moved = await self._connection.fetchval(
            "UPDATE plans SET state = $3 WHERE id = $1 AND state = $2 RETURNING true", plan_id, from_.value, to.value
        )
        return bool(moved)

    async def reconsider(self, plan_id: PlanId) -> bool:
        noted = await self._connection.fetchval(
            """UPDATE plans SET reconsidered_at = clock_timestamp() WHERE id = $1 AND reconsidered_at IS NULL
               RETURNING true""",
            plan_id,
        )
        return bool(noted)

    async def expired(self) -> Sequence[Plan]:
        rows = await self._connection.fetch(
            f"""SELECT {PLAN_COLUMNS} FROM plans
                WHERE state = 'proposed' AND expires_at <= clock_timestamp()""",  # noqa: S608
        )
        return [plan(row) for row in rows]

    async def is_expired(self, plan_id: PlanId) -> bool:
        expired = await self._connection.fetchval(
            "SELECT expires_at <= clock_timestamp() FROM plans WHERE id = $1", plan_id
        )
        return bool(expired)

    async def decide(self, approval_: Approval) -> bool:
        new = await self._connection.fetchval(
            """INSERT INTO approvals (plan_id, plan_hash, user_id, decision, reason) VALUES ($1, $2, $3, $4, $5)
               ON CONFLICT (plan_id, user_id) DO NOTHING RETURNING true""",
            approval_.plan_id,
            approval_.plan_hash,
            approval_.user_id,
            approval_.decision,
            storable(approval_.reason),
        )
        return bool(new)

    async def approvals(self, plan_id: PlanId) -> Sequence[Approval]:
        rows = await self._connection.fetch(
            "SELECT plan_id, plan_hash, user_id, decision, reason, at FROM approvals WHERE plan_id = $1 ORDER BY id",
            plan_id,
        )
        return [approval(row) for row in rows]

    async def need(self, plan_id: PlanId, people: int) -> None:
        await self._connection.execute(
            "UPDATE plans SET approvals_needed = $2 WHERE id = $1 AND approvals_needed < $2", plan_id, people
        )

    async def undecided(self, *, after_s: float, unsaid: str) -> Sequence[Plan]:
        rows = await self._connection.fetch(
            f"""SELECT {PLAN_COLUMNS} FROM plans
                WHERE state = 'proposed' AND created_at <= clock_timestamp() - make_interval(secs => $1)
                  AND expires_at > clock_timestamp()
                  AND NOT EXISTS (SELECT FROM reminders WHERE plan_id = plans.id AND what = $2)
                ORDER BY id""",  # noqa: S608
            after_s,
            unsaid,
        )
        return [plan(row) for row in rows]

    async def say_once(self, plan_id: PlanId, what: str) -> bool:
        # The plan is held, so that a decision in this very moment comes before or after, but never in between.
        said = await self._connection.fetchval(
            """WITH open AS (SELECT id FROM plans WHERE id = $1 AND state = 'proposed' FOR UPDATE)
               INSERT INTO reminders (plan_id, what) SELECT id, $2 FROM open
               ON CONFLICT (plan_id, what) DO NOTHING RETURNING true""",
            plan_id,
            what,
        )
        return bool(said)

    async def waiting(self) -> Sequence[Plan]:
        rows = await self._connection.fetch(
            f"SELECT {PLAN_COLUMNS} FROM plans WHERE state = 'proposed' ORDER BY id"  # noqa: S608
        )
        return [plan(row) for row in rows]

    async def save_guardrails(self, plan_id: PlanId, result: GuardrailResult) -> None:
        await self._connection.execute(
            "UPDATE plans SET guardrails = $2 WHERE id = $1", plan_id, ANSWERS.dump_python(result.answers, mode="json")
        )
