"""The whole case of an incident, read on one connection."""

from __future__ import annotations

from pipeline.adapters.postgres.pool import Connection
from pipeline.adapters.postgres.records import (
    ACTION,
    DIAGNOSIS,
    EXECUTION_COLUMNS,
    INCIDENT_COLUMNS,
    PASSAGES,
    PLAN_COLUMNS,
    SEVERITY,
    STEP_COLUMNS,
    VERIFICATION,
    approval,
    evidence,
    execution,
    guardrails,
    incident,
    plan,
    stored_anomaly,
)
from pipeline.domain.action_words import describe_action
from pipeline.domain.execution import Execution
from pipeline.domain.guardrail import GuardrailResult
from pipeline.domain.ids import IncidentId, PlanId, ServiceName
from pipeline.domain.incident import Case
from pipeline.domain.phase import Phase


async def read(connection: Connection, incident_id: IncidentId) -> Case | None:
    """None when there is no such incident."""
    row = await connection.fetchrow(
        f"""SELECT {INCIDENT_COLUMNS}, severity_detail, callers, diagnosis, passages, verification, generated_baseline,
                   clock_timestamp() AS read_at,
                   coalesce((SELECT phase FROM phases ORDER BY phases.id DESC LIMIT 1), 'shadow') AS phase
            FROM incidents WHERE id = $1""",  # noqa: S608 - a constant list of columns
        incident_id,
    )
    if row is None:
        return None
    anomalies = await connection.fetch(
        """SELECT kind, service, signal, instance, started_at, seen_at, cleared_at, value, peak, expected, sigma,
                  threshold, breach_above, change FROM anomalies WHERE incident_id = $1 ORDER BY id""",
        incident_id,
    )
    facts = await connection.fetch(
        """SELECT id, kind, statement, query, subject, window_from, window_to, service, sign, signal, began, value,
                  snapshot FROM evidence WHERE incident_id = $1 ORDER BY length(id), id""",
        incident_id,
    )
    plan_row = await connection.fetchrow(
        f"""SELECT {PLAN_COLUMNS}, guardrails FROM plans WHERE incident_id = $1
            ORDER BY revision DESC LIMIT 1""",  # noqa: S608
        incident_id,
    )
    approvals = await connection.fetch(
        "SELECT plan_id, plan_hash, user_id, decision, reason, at FROM approvals WHERE plan_id = $1 ORDER BY id",
        plan_row["id"] if plan_row else None,
    )
    applied = await _execution(connection, incident_id, "apply")
    rollback = await _execution(connection, incident_id, "rollback")
    return Case(
        incident=incident(row),
        anomalies=tuple(stored_anomaly(item) for item in anomalies),
        severity=SEVERITY.validate_python(row["severity_detail"]) if row["severity_detail"] else None,
        callers=tuple(ServiceName(caller) for caller in row["callers"]),
        evidence=tuple(evidence(fact) for fact in facts),
        passages=PASSAGES.validate_python(row["passages"]),
        diagnosis=DIAGNOSIS.validate_python(row["diagnosis"]) if row["diagnosis"] else None,
        plan=plan(plan_row) if plan_row else None,
        guardrails=guardrails(plan_row["guardrails"]) if plan_row else GuardrailResult(),
        approvals=tuple(approval(item) for item in approvals),
        execution=applied,
        # One of an earlier plan says nothing of this one.
        rollback=rollback if rollback and applied and rollback.plan_id == applied.plan_id else None,
        verification=VERIFICATION.validate_python(row["verification"]) if row["verification"] else None,
        phase=Phase(row["phase"]),
        service_owner="",
        by_hand="",
        generated_baseline=row["generated_baseline"],
        tried=await _tried(connection, incident_id, plan_row["id"]) if plan_row and applied else (),
        read_at=row["read_at"],
    )


async def _tried(connection: Connection, incident_id: IncidentId, newest: PlanId) -> tuple[str, ...]:
    rows = await connection.fetch(
        """SELECT p.action, EXISTS (SELECT 1 FROM executions r WHERE r.plan_id = e.plan_id AND r.kind = 'rollback'
                                    AND r.applied_at IS NOT NULL) AS rolled_back
           FROM executions e JOIN plans p ON p.id = e.plan_id
           WHERE e.incident_id = $1 AND e.kind = 'apply' AND e.plan_id <> $2
             AND (e.state = 'not_verified' OR e.canary_verdict = 'worse') ORDER BY e.id""",
        incident_id,
        newest,
    )
    return tuple(
        f"{describe_action(ACTION.validate_python(row['action']))} — did not help"
        + (", rolled back" if row["rolled_back"] else "")
        for row in rows
    )


async def _execution(connection: Connection, incident_id: IncidentId, kind: str) -> Execution | None:
    row = await connection.fetchrow(
        f"""SELECT {EXECUTION_COLUMNS} FROM executions WHERE incident_id = $1 AND kind = $2
            ORDER BY id DESC LIMIT 1""",  # noqa: S608
        incident_id,
        kind,
    )
    if row is None:
        return None
    steps = await connection.fetch(
        f"SELECT {STEP_COLUMNS} FROM execution_steps WHERE execution_id = $1 ORDER BY number",  # noqa: S608
        row["id"],
    )
    return execution(row, steps)
