"""One incident without eyes: fault on, wait for the card, decide as people in the local Slack, report what happened."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Literal

from bot.demo.headless_report import report_of
from bot.demo.launch import APPROVERS, CHANNEL, Demo
from bot.demo.slack.people import RefusedError
from bot.demo.slack.person import NoSuchElementError, Person
from bot.demo.world.client import WorldClient
from bot.demo.world.spec import SPECS
from bot.slack.names import APPROVE, REJECT
from pipeline.domain.ids import IncidentId, ServiceName, incident_label
from pipeline.domain.incident import Case
from pipeline.domain.lifecycle import ExecutionState, IncidentState
from pipeline.domain.verification import Verdict

Decision = Literal["approve", "reject", "ignore"]

BOT_READY_S = 60.0
POLL_S = 0.5
LOOKS_AGAIN_S = 30.0
"""An action that did not help is looked at again within seconds; after so long nobody is going to."""
WRONG_FIX = "wrong-fix"
"""The fault that the first remediation does not cure."""
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
    decided: Case | None = None
    """The case as it was decided: another plan may follow."""
    problem: str = ""
    known: IncidentId = NO_INCIDENT


async def run_headless(
    demo: Demo, fault: str, decide: Decision, *, limit_s: float, say: Callable[[str], None]
) -> tuple[dict[str, Any], bool]:
    """The report, and whether the incident ended as the decision asks."""
    run = _Run()
    incident_id: IncidentId | None = None
    report: dict[str, Any]
    async with Person(demo.page_url, APPROVERS[0]) as first, WorldClient(demo.world_url) as world:
        changes_before = len(await world.journal())
        try:
            async with asyncio.timeout(limit_s):
                await _bot_ready(demo, first)
                await _quiet(demo, world, say)
                run.known = await _newest(demo)
                say(f"fault {fault} on")
                await world.set_fault(fault, True)
                run.started_s = time.monotonic()
                incident_id = await _new_incident(demo, run.known)
                run.detected_after_s = round(time.monotonic() - run.started_s, 1)
                say(f"{incident_label(incident_id)} after {run.detected_after_s} s")
                await _decide(demo, first, incident_id, decide, run, say)
                await _until(demo, incident_id, lambda case: _over(case, run.decided))
                await _card_current(demo, first, incident_id)
        except (TooLong, TimeoutError, RefusedError, NoSuchElementError) as error:
            run.problem = str(error) or f"not finished within {limit_s:.0f} s"
        report = {
            "fault": fault,
            "detected_after_s": run.detected_after_s,
            "decision": run.decision,
            **({"error": run.problem} if run.problem else {}),
            **await report_of(demo.store, incident_id, run.decided, known=run.known),
        }
        report["execution"]["journal_changes"] = len(await world.journal()) - changes_before
        report["card"] = await _card(demo, first, incident_id)
    return report, _as_asked(report, decide)


def _as_asked(report: Mapping[str, Any], decide: Decision) -> bool:
    if report.get("error"):
        return False
    execution, state = report["execution"], report["incident_state"]
    if decide != "approve":
        return bool(state in _SETTLED and execution["physical_changes"] == execution["journal_changes"] == 0)
    verdict = report["verification"]["verdict"]
    if report["fault"] == WRONG_FIX:
        put_back = report["rollback"] is not None and report["rollback"]["state"] == ExecutionState.APPLIED
        return bool(put_back and verdict == Verdict.NOT_RECOVERED and state != IncidentState.RESOLVED)
    recovered = state == IncidentState.RESOLVED and verdict == Verdict.RECOVERED
    return bool(recovered and execution["physical_changes"] >= 1)


def _over(case: Case, decided: Case | None) -> bool:
    """Whether nothing more comes of the decision. What did not help is put back first and then looked at again."""
    incident = case.incident
    if incident.state is not IncidentState.ESCALATED:
        return incident.over or (incident.state is IncidentState.AWAITING_DECISION and _is_another(case, decided))
    waited_s = (case.read_at - incident.state_since).total_seconds()
    in_vain = case.execution is not None and case.execution.state is ExecutionState.NOT_VERIFIED
    return not in_vain or _is_another(case, decided) or waited_s > LOOKS_AGAIN_S


def _is_another(case: Case, decided: Case | None) -> bool:
    """Whether another plan followed the one that was decided."""
    if decided is None or decided.plan is None or case.plan is None:
        return False
    return case.plan.id != decided.plan.id


async def _bot_ready(demo: Demo, person: Person) -> None:
    """Connected, and it has read the healthy services: what it has not seen begin, it cannot explain."""
    since = datetime.now(UTC)
    await person.wait_for(lambda state: state["bot"]["connected"], BOT_READY_S)
    for service in SPECS:
        while True:
            async with demo.store.begin() as uow:
                if await uow.telemetry.service_window(ServiceName(service), since):
                    break
            await asyncio.sleep(POLL_S)


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
    run.decided = case
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


async def _card(demo: Demo, person: Person, incident_id: IncidentId | None) -> list[dict[str, Any]] | None:
    """The blocks of the incident's card, as a person sees them."""
    if incident_id is None:
        return None
    async with demo.store.begin() as uow:
        place = await uow.incidents.card(incident_id)
    message = _message(await person.state(), place.ts) if place else None
    return message["blocks"] if message else None
