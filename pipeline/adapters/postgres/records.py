"""Rows as domain values, and back. Stored JSON is validated on the way in, by the types it came from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import TypeAdapter

from pipeline.domain.action import Action, Operation
from pipeline.domain.anomaly import Anomaly, AnomalyKind, Bound
from pipeline.domain.approval import Approval
from pipeline.domain.changes import ChangeEvent
from pipeline.domain.diagnosis import Diagnosis, Evidence, Hypothesis, Passage, Sign
from pipeline.domain.execution import Execution, SeenInstance, Step, StepState, StoodBefore
from pipeline.domain.guardrail import GuardrailResult, RuleAnswer
from pipeline.domain.ids import EvidenceId, ExecutionId, IncidentId, PlanId, ServiceName, SlackUserId
from pipeline.domain.incident import Incident, StoredAnomaly
from pipeline.domain.lifecycle import ExecutionState, IncidentState, PlanState
from pipeline.domain.plan import Alternative, Plan, TargetRef
from pipeline.domain.severity import Severity, SeverityResult
from pipeline.domain.telemetry import SeriesKey, Signal
from pipeline.domain.verification import Verification

Row = Mapping[str, Any]

CHANGE: TypeAdapter[ChangeEvent] = TypeAdapter(ChangeEvent)
ACTION: TypeAdapter[Action] = TypeAdapter(Action)
OPERATION: TypeAdapter[Operation] = TypeAdapter(Operation)
ALTERNATIVES = TypeAdapter(tuple[Alternative, ...])
DIAGNOSIS: TypeAdapter[Diagnosis] = TypeAdapter(Diagnosis)
HYPOTHESIS: TypeAdapter[Hypothesis] = TypeAdapter(Hypothesis)
PASSAGES: TypeAdapter[tuple[Passage, ...]] = TypeAdapter(tuple[Passage, ...])
ANSWERS: TypeAdapter[tuple[RuleAnswer, ...]] = TypeAdapter(tuple[RuleAnswer, ...])
SEVERITY: TypeAdapter[SeverityResult] = TypeAdapter(SeverityResult)
VERIFICATION: TypeAdapter[Verification] = TypeAdapter(Verification)

INCIDENT_COLUMNS = (
    "id, version, state, service, environment, family, severity, title, opened_at, state_since, updated_at, closed_at,"
    " owner, muted_until, outcome"
)
PLAN_COLUMNS = (
    "id, incident_id, revision, action, target, generation, replicas_before, hash, state, approvals_needed,"
    " expected_effect, created_at, expires_at, requested_by, target_revision, token,"
    " risk, alternatives"
)
EXECUTION_COLUMNS = (
    "id, plan_id, incident_id, kind, state, fence, target, started_at, waiting_since, applied_at, detail, canary,"
    " watching_since, canary_verdict"
)
STEP_COLUMNS = "number, operation, state, dispatched_at, applied_at, detail, batch, before"


def incident(row: Row) -> Incident:
    return Incident(
        id=IncidentId(row["id"]),
        version=row["version"],
        state=IncidentState(row["state"]),
        service=ServiceName(row["service"]),
        environment=row["environment"],
        family=row["family"],
        severity=Severity(row["severity"]),
        title=row["title"],
        opened_at=row["opened_at"],
        state_since=row["state_since"],
        updated_at=row["updated_at"],
        closed_at=row["closed_at"],
        owner=SlackUserId(row["owner"]) if row["owner"] else None,
        muted_until=row["muted_until"],
        outcome=row["outcome"],
    )


def stored_anomaly(row: Row) -> StoredAnomaly:
    anomaly = Anomaly(
        kind=AnomalyKind(row["kind"]),
        key=SeriesKey(ServiceName(row["service"]), Signal(row["signal"]), row["instance"]),
        started_at=row["started_at"],
        seen_at=row["seen_at"],
        value=row["value"],
        peak=row["peak"],
        expected=row["expected"],
        sigma=row["sigma"],
        bound=Bound(row["threshold"], row["breach_above"]),
        change=CHANGE.validate_python(row["change"]) if row["change"] is not None else None,
    )
    return StoredAnomaly(anomaly, row["cleared_at"])


def evidence(row: Row) -> Evidence:
    return Evidence(
        id=EvidenceId(row["id"]),
        kind=row["kind"],
        statement=row["statement"],
        query=row["query"],
        window_from=row["window_from"],
        window_to=row["window_to"],
        subject=row["subject"],
        service=ServiceName(row["service"]),
        sign=Sign(row["sign"]),
        signal=Signal(row["signal"]) if row["signal"] else None,
        began=row["began"],
        value=row["value"],
        snapshot=row["snapshot"],
    )


def plan(row: Row) -> Plan:
    return Plan(
        id=PlanId(row["id"]),
        incident_id=IncidentId(row["incident_id"]),
        revision=row["revision"],
        action=ACTION.validate_python(row["action"]),
        target=TargetRef.model_validate(row["target"]) if row["target"] else None,
        generation=row["generation"],
        replicas_before=row["replicas_before"],
        hash=row["hash"],
        state=PlanState(row["state"]),
        approvals_needed=row["approvals_needed"],
        expected_effect=row["expected_effect"],
        created_at=row["created_at"],
        expires_at=row["expires_at"],
        requested_by=row["requested_by"],
        target_revision=row["target_revision"],
        token=row["token"],
        risk=row["risk"] or None,
        alternatives=ALTERNATIVES.validate_python(row["alternatives"]),
    )


def guardrails(value: object) -> GuardrailResult:
    return GuardrailResult(ANSWERS.validate_python(value))


def approval(row: Row) -> Approval:
    return Approval(
        plan_id=PlanId(row["plan_id"]),
        plan_hash=row["plan_hash"],
        user_id=SlackUserId(row["user_id"]),
        decision=row["decision"],
        reason=row["reason"],
        at=row["at"],
    )


def execution(row: Row, steps: Sequence[Row]) -> Execution:
    return Execution(
        id=ExecutionId(row["id"]),
        plan_id=PlanId(row["plan_id"]),
        incident_id=IncidentId(row["incident_id"]),
        kind=row["kind"],
        state=ExecutionState(row["state"]),
        fence=row["fence"],
        target=TargetRef.model_validate(row["target"]),
        steps=tuple(
            Step(
                number=step["number"],
                operation=OPERATION.validate_python(step["operation"]),
                state=StepState(step["state"]),
                dispatched_at=step["dispatched_at"],
                applied_at=step["applied_at"],
                detail=step["detail"],
                batch=step["batch"],
                before=StoodBefore.model_validate(step["before"]) if step["before"] else None,
            )
            for step in steps
        ),
        started_at=row["started_at"],
        waiting_since=row["waiting_since"],
        applied_at=row["applied_at"],
        detail=row["detail"],
        canary=tuple(SeenInstance.model_validate(one) for one in row["canary"]),
        watching_since=row["watching_since"],
        canary_verdict=row["canary_verdict"],
    )
