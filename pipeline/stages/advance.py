"""The only writer of lifecycle state: the change, its trace and its notices in one transaction."""

from __future__ import annotations

from collections.abc import Sequence

from pipeline.domain.errors import PermanentError
from pipeline.domain.ids import IncidentId, PlanId, incident_label
from pipeline.domain.incident import Incident
from pipeline.domain.lifecycle import INCIDENT_TRANSITIONS, IncidentState, PlanState
from pipeline.domain.notice import BusNotice, CardNotice, ThreadNotice, ThreadPart
from pipeline.domain.trace import TraceEntry, TraceKind
from pipeline.ports.store import UnitOfWork

WAKE_TOPIC = "wake"
"""Bus topic that tells every replica that there is work; polling finds it too, only later."""


async def advance(
    uow: UnitOfWork,
    incident: Incident,
    to: IncidentState,
    *,
    outcome: str | None = None,
    entries: Sequence[TraceEntry] = (),
    notices: Sequence[ThreadNotice] = (),
) -> Incident | None:
    """Moves ``incident`` to ``to``; None when somebody else moved it first (re-read, never overwrite).

    Raises PermanentError for a transition that the table does not have.
    """
    if to not in INCIDENT_TRANSITIONS[incident.state]:
        raise PermanentError(f"{incident_label(incident.id)} cannot go from {incident.state} to {to}")
    moved = await uow.incidents.move(incident, to, outcome=outcome)
    if moved is None:
        return None
    step = TraceEntry(
        TraceKind.LIFECYCLE,
        f"{incident.state} → {to}" + (f": {outcome}" if outcome else ""),
        {"from": incident.state.value, "to": to.value, "version": moved.version},
    )
    await record(uow, incident.id, entries=(*entries, step), notices=notices)
    return moved


async def record(
    uow: UnitOfWork,
    incident_id: IncidentId,
    *,
    entries: Sequence[TraceEntry] = (),
    notices: Sequence[ThreadNotice] = (),
    redraw: bool = True,
) -> None:
    """Trace entries and notices without a change of state. ``redraw`` asks for the card to be drawn anew."""
    for entry in entries:
        await uow.trace.add(incident_id, entry)
    if redraw:
        await uow.outbox.add(incident_id, CardNotice())
    for notice in notices:
        await uow.outbox.add(incident_id, notice)
    await uow.outbox.add(incident_id, BusNotice(topic=WAKE_TOPIC, fields={"incident": incident_label(incident_id)}))


def line(text: str) -> ThreadNotice:
    """One line in the thread; plain text, escaped where it is sent."""
    return ThreadNotice(part=ThreadPart.LINE, text=text)


async def supersede(uow: UnitOfWork, plan_id: PlanId, state: PlanState) -> None:
    """Takes a plan that still waits off the table, so that a late click finds it decided."""
    if state is PlanState.PROPOSED:
        await uow.plans.move(plan_id, PlanState.PROPOSED, PlanState.SUPERSEDED)
