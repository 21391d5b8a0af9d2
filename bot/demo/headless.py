"""One incident without eyes: fault on, wait for the card, decide as people in the local Slack, report what happened."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from bot.demo.launch import APPROVERS, CHANNEL, Demo
from bot.demo.slack.people import RefusedError
from bot.demo.slack.person import NoSuchElementError, Person
from bot.demo.world.client import WorldClient
from bot.slack.names import APPROVE, REJECT
from pipeline.domain.ids import IncidentId, incident_label
from pipeline.domain.incident import Case
from pipeline.domain.lifecycle import IncidentState
from pipeline.domain.plan import ManualAction
from pipeline.domain.verification import Verdict

Decision = Literal["approve", "reject", "ignore"]

BOT_READY_S = 60.0
POLL_S = 0.5
NO_INCIDENT = IncidentId(0)
_SETTLED = frozenset(
    {IncidentState.RESOLVED, IncidentState.SELF_RECOVERED, IncidentState.ESCALATED, IncidentState.CLOSED}
)


class TooLong(Exception):
    """What was waited for did not come in time; the message says what."""


@dataclass(slots=True)
class _Run:
    started_s: float = field(default_factory=time.monotonic)
    detected_after_s: float | None = None
    decision: str | None = None
    problem: str = ""
    known: IncidentId = NO_INCIDENT


async def run_headless(
    demo: Demo, fault: str, decide: Decision, *, limit_s: float, say: Callable[[str], None]
) -> tuple[dict[str, Any], bool]:
    """The report, and whether the incident ended as the decision asks."""
    run = _Run()
    incident_id: IncidentId | None = None
    async with Person(demo.page_url, APPROVERS[0]) as first, WorldClient(demo.world_url) as world:
        changes_before = len(await world.journal())
        try:
            async with asyncio.timeout(limit_s):
                await _bot_ready(first)
                await _quiet(demo, world, say)
                run.known = await _newest(demo)
                say(f"fault {fault} on")
                await world.set_fault(fault, True)
                run.started_s = time.monotonic()
                incident_id = await _new_incident(demo, run.known)
                run.detected_after_s = round(time.monotonic() - run.started_s, 1)
                say(f"{incident_label(incident_id)} after {run.detected_after_s} s")
                await _decide(demo, first, incident_id, decide, run, say)
                await _until(demo, incident_id, lambda case: case.incident.state in _SETTLED)
                await _card_current(demo, first, incident_id)
        except (TooLong, TimeoutError, RefusedError, NoSuchElementError) as error:
            run.problem = str(error) or f"not finished within {limit_s:.0f} s"
        changes = len(await world.journal()) - changes_before
        report = await _report(demo, first, incident_id, fault, run, changes)
    return report, _as_asked(report, decide)


def _as_asked(report: Mapping[str, Any], decide: Decision) -> bool:
    if report.get("error"):
        return False
    changes = report["execution"]["physical_changes"]
    if decide == "approve":
        verdict = report["verification"]["verdict"]
        return bool(
            report["incident_state"] == IncidentState.RESOLVED and verdict == Verdict.RECOVERED and changes >= 1
        )
    return bool(changes == 0 and report["incident_state"] in _SETTLED)


async def _bot_ready(person: Person) -> None:
    await person.wait_for(lambda state: state["bot"]["connected"], BOT_READY_S)


async def _quiet(demo: Demo, world: WorldClient, say: Callable[[str], None]) -> None:
    """Ends what an earlier run left behind: its faults go off, and its incidents have to be over."""
    for left in await world.faults():
        if left.active:
            say(f"fault {left.name} was left on by an earlier run and goes off")
            await world.set_fault(left.name, False)
    waiting = False
    while True:
        async with demo.store.begin() as uow:
            left_open = await uow.incidents.open()
        if not left_open:
            return
        if not waiting:
            say(f"waiting for {', '.join(incident_label(incident.id) for incident in left_open)} of an earlier run")
            waiting = True
        await asyncio.sleep(POLL_S)


async def _newest(demo: Demo) -> IncidentId:
    async with demo.store.begin() as uow:
        recent = await uow.incidents.recent(50)
    return max((incident.id for incident in recent), default=NO_INCIDENT)


async def _new_incident(demo: Demo, known: IncidentId) -> IncidentId:
    while True:
        newest = await _newest(demo)
        if newest > known:
            return newest
        await asyncio.sleep(POLL_S)


async def _decide(
    demo: Demo, first: Person, incident_id: IncidentId, decide: Decision, run: _Run, say: Callable[[str], None]
) -> None:
    case = await _until(
        demo,
        incident_id,
        lambda case: case.incident.state is IncidentState.AWAITING_DECISION or case.incident.state in _SETTLED,
    )
    if case.incident.state in _SETTLED:
        if decide == "approve":
            raise TooLong(f"there was nothing to approve: {case.incident.outcome}")
        return
    if decide == "ignore":
        run.decision = "ignored"
        return
    ts = await _card_ts(demo, incident_id)
    if decide == "reject":
        await _reject(first, ts)
        run.decision = "rejected"
        return
    assert case.plan is not None
    for user in APPROVERS[: case.plan.approvals_needed]:
        async with Person(demo.page_url, user) as person:
            await person.wait_for(lambda state: _has_button(state, ts, APPROVE), BOT_READY_S)
            await person.click(CHANNEL, ts, APPROVE)
            say(f"approved by {user}")
    run.decision = "approved"


async def _reject(person: Person, ts: str) -> None:
    await person.wait_for(lambda state: _has_button(state, ts, REJECT), BOT_READY_S)
    await person.click(CHANNEL, ts, REJECT)
    view = await person.wait_for(lambda state: state["modals"][-1] if state["modals"] else None, BOT_READY_S)
    block = next(block for block in view["blocks"] if block["type"] == "input")
    await person.submit(
        view["id"], {block["block_id"]: {block["element"]["action_id"]: "headless run: rejected on purpose"}}
    )


def _has_button(state: Mapping[str, Any], ts: str, action_id: str) -> bool:
    message = _message(state, ts)
    elements = [e for block in (message or {}).get("blocks", []) for e in block.get("elements", [])]
    return any(isinstance(element, dict) and element.get("action_id") == action_id for element in elements)


def _message(state: Mapping[str, Any], ts: str) -> dict[str, Any] | None:
    return next((message for message in state["messages"].get(CHANNEL, []) if message["ts"] == ts), None)


async def _card_ts(demo: Demo, incident_id: IncidentId) -> str:
    while True:
        async with demo.store.begin() as uow:
            place = await uow.incidents.card(incident_id)
        if place is not None:
            return place.ts
        await asyncio.sleep(POLL_S)


async def _until(demo: Demo, incident_id: IncidentId, reached: Callable[[Case], bool]) -> Case:
    while True:
        async with demo.store.begin() as uow:
            case = await uow.incidents.case(incident_id)
        if case is not None and reached(case):
            return case
        await asyncio.sleep(POLL_S)


async def _card_current(demo: Demo, person: Person, incident_id: IncidentId) -> None:
    """Waits until everything said about the incident is out, so that the card is the last one."""
    await _card_ts(demo, incident_id)
    while True:
        async with demo.store.begin() as uow:
            pending = (await uow.outbox.counts()).get("pending", 0)
        if pending == 0:
            await person.state()
            return
        await asyncio.sleep(POLL_S)


async def _report(
    demo: Demo, person: Person, incident_id: IncidentId | None, fault: str, run: _Run, changes: int
) -> dict[str, Any]:
    report: dict[str, Any] = {
        "incident": incident_label(incident_id) if incident_id else None,
        "severity": None,
        "kind": None,
        "service": None,
        "incidents_opened": 0,
        "fault": fault,
        "detected_after_s": run.detected_after_s,
        "diagnosis": None,
        "plan": None,
        "decision": run.decision,
        "execution": {"state": None, "physical_changes": changes},
        "verification": {"verdict": None, "before": None, "after": None, "unit": None},
        "incident_state": None,
        "card": None,
        "trace_events": 0,
    }
    if run.problem:
        report["error"] = run.problem
    if incident_id is None:
        return report
    async with demo.store.begin() as uow:
        case = await uow.incidents.case(incident_id)
        report["trace_events"] = len(await uow.trace.read(incident_id))
        place = await uow.incidents.card(incident_id)
    if case is None:
        return report
    report["severity"] = case.incident.severity.value
    report["kind"] = case.lead.kind.value
    report["service"] = case.incident.service
    async with demo.store.begin() as uow:
        report["incidents_opened"] = sum(one.id > run.known for one in await uow.incidents.recent(50))
    report["incident_state"] = case.incident.state.value
    report["outcome"] = case.incident.outcome
    _add_diagnosis(report, case)
    _add_execution(report, case)
    message = _message(await person.state(), place.ts) if place else None
    report["card"] = message["blocks"] if message else None
    return report


def _add_diagnosis(report: dict[str, Any], case: Case) -> None:
    if case.diagnosis is not None:
        cited = {name for claim in case.diagnosis.claims for name in claim.ids}
        report["diagnosis"] = {
            "root_cause": case.diagnosis.root_cause,
            "category": case.diagnosis.category.value,
            "confidence": round(case.diagnosis.confidence.score, 3),
            "source": case.diagnosis.source,
            "conclusion": case.diagnosis.conclusion.value,
            "path": {
                "holds": case.diagnosis.path.holds,
                "why_not": case.diagnosis.path.why_not(),
                "steps": [
                    {
                        "what": step.what,
                        "service": step.service,
                        "evidence": list(step.evidence),
                        "problem": step.problem,
                        "found": step.found,
                    }
                    for step in case.diagnosis.path.steps
                ],
            },
            "notes": list(case.diagnosis.notes),
            "evidence": [
                {"id": item.id, "statement": item.statement, "query": item.query, "cited": item.id in cited}
                for item in case.evidence
            ],
        }
    if case.plan is not None:
        action = case.plan.action
        report["plan"] = {
            "action": action.model_dump(mode="json"),
            "proposed_at": case.plan.created_at.isoformat(),
            "target": case.plan.target.model_dump(mode="json") if case.plan.target else None,
            "guardrails": [
                {"rule": one.rule, "allowed": one.allowed, "reason": one.reason} for one in case.guardrails.answers
            ],
        }
        if isinstance(action, ManualAction):
            report["plan"]["manual"] = action.why_manual


def _add_execution(report: dict[str, Any], case: Case) -> None:
    if case.execution is not None:
        report["execution"]["state"] = case.execution.state.value
        report["execution"]["steps"] = [
            {
                "operation": step.operation.model_dump(mode="json"),
                "state": step.state.value,
                "dispatched_at": step.dispatched_at.isoformat() if step.dispatched_at else None,
                "applied_at": step.applied_at.isoformat() if step.applied_at else None,
            }
            for step in case.execution.steps
        ]
    if case.verification is not None:
        report["verification"] = {
            "verdict": case.verification.verdict.value,
            "before": case.verification.before,
            "after": case.verification.after,
            "unit": case.verification.unit.value,
        }
