"""What came of an incident, as one JSON object: how it was detected, diagnosed, decided, acted on and verified."""

from __future__ import annotations

from typing import Any

from pipeline.domain.action import ManualAction
from pipeline.domain.execution import Execution
from pipeline.domain.ids import IncidentId, incident_label
from pipeline.domain.incident import Case
from pipeline.domain.plan import Plan
from pipeline.domain.undo import put_back
from pipeline.ports.store import Store


async def report_of(
    store: Store, incident_id: IncidentId | None, decided: Case | None, *, known: IncidentId
) -> dict[str, Any]:
    """The report; every field is there, null where nothing came of it.

    ``decided``: the case as it was decided, which diagnosis and plan are told of when another plan followed.
    ``known``: the newest incident from before, so that it can be said how many there were.
    """
    report: dict[str, Any] = {
        "incident": incident_label(incident_id) if incident_id else None,
        "severity": None,
        "kind": None,
        "service": None,
        "incidents_opened": 0,
        "diagnosis": None,
        "plan": None,
        "next_plan": None,
        "execution": {"state": None, "physical_changes": 0},
        "verification": {"verdict": None, "before": None, "after": None, "unit": None},
        "rollback": None,
        "attempts": 0,
        "incident_state": None,
        "trace_events": 0,
    }
    if incident_id is None:
        return report
    async with store.begin() as uow:
        case = await uow.incidents.case(incident_id)
        if case is None:
            return report
        executions = await uow.executions.of_incident(incident_id)
        report["trace_events"] = len(await uow.trace.read(incident_id))
        report["incidents_opened"] = sum(one.id > known for one in await uow.incidents.recent(50))
    report["severity"] = case.incident.severity.value
    report["kind"] = case.lead.kind.value
    report["service"] = case.incident.service
    report["incident_state"] = case.incident.state.value
    report["outcome"] = case.incident.outcome
    told = case
    if decided is not None and decided.plan and case.plan and case.plan.id != decided.plan.id:
        told = decided
        report["next_plan"] = {"state": case.plan.state.value, **_plan(case.plan)}
    report["diagnosis"] = _diagnosis(told)
    if told.plan is not None:
        report["plan"] = {
            **_plan(told.plan),
            "guardrails": [
                {"rule": one.rule, "allowed": one.allowed, "reason": one.reason} for one in told.guardrails.answers
            ],
        }
    report["execution"]["physical_changes"] = sum(one.physical_changes for one in executions)
    report["attempts"] = sum(one.kind == "apply" for one in executions)
    if case.execution is not None:
        report["execution"] |= {"state": case.execution.state.value, "steps": _steps(case.execution)}
    if case.rollback is not None:
        report["rollback"] = {
            "state": case.rollback.state.value,
            "change": put_back(case.rollback),
            "steps": _steps(case.rollback),
        }
    if case.verification is not None:
        report["verification"] = {
            "verdict": case.verification.verdict.value,
            "before": case.verification.before,
            "after": case.verification.after,
            "unit": case.verification.unit.value,
        }
    return report


def _diagnosis(case: Case) -> dict[str, Any] | None:
    diagnosis = case.diagnosis
    if diagnosis is None:
        return None
    cited = {name for claim in diagnosis.claims for name in claim.ids}
    return {
        "root_cause": diagnosis.root_cause,
        "category": diagnosis.category.value,
        "confidence": round(diagnosis.confidence.score, 3),
        "source": diagnosis.source,
        "conclusion": diagnosis.conclusion.value,
        "path": {
            "holds": diagnosis.path.holds,
            "why_not": diagnosis.path.why_not(),
            "steps": [
                {
                    "what": step.what,
                    "service": step.service,
                    "evidence": list(step.evidence),
                    "problem": step.problem,
                    "found": step.found,
                }
                for step in diagnosis.path.steps
            ],
        },
        "notes": list(diagnosis.notes),
        "evidence": [
            {"id": item.id, "statement": item.statement, "query": item.query, "cited": item.id in cited}
            for item in case.evidence
        ],
    }


def _plan(plan: Plan) -> dict[str, Any]:
    told: dict[str, Any] = {
        "action": plan.action.model_dump(mode="json"),
        "proposed_at": plan.created_at.isoformat(),
        "target": plan.target.model_dump(mode="json") if plan.target else None,
    }
    if isinstance(plan.action, ManualAction):
        told["manual"] = plan.action.why_manual
    return told


def _steps(execution: Execution) -> list[dict[str, Any]]:
    return [
        {
            "operation": step.operation.model_dump(mode="json"),
            "state": step.state.value,
            "dispatched_at": step.dispatched_at.isoformat() if step.dispatched_at else None,
            "applied_at": step.applied_at.isoformat() if step.applied_at else None,
        }
        for step in execution.steps
    ]
