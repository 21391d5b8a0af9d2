"""The only writer of lifecycle state: the change, its trace and its notices in one transaction."""

from __future__ import annotations

from collections.abc import Sequence

from pipeline.domain.errors import PermanentError
from pipeline.domain.ids import IncidentId, PlanId, incident_label
from pipeline.domain.incident import Incident
from pipeline.domain.lifecycle import FINAL_INCIDENT_STATES, INCIDENT_TRANSITIONS, IncidentState, PlanState
from pipeline.domain.notice import BusNotice, CardNotice, PageEvent, PagerNotice, ThreadNotice, ThreadPart
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
    attended: bool = False,
) -> Incident | None:
    """Moves ``incident`` to ``to``; None when somebody else moved it first (re-read, never overwrite).

    The pager is told in the same transaction: somebody is called when the incident is escalated, unless it is
    ``attended`` or nobody is needed; a page that stands is acknowledged by an action and resolved by the end.

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
    event = _page_event(to, attended=attended)
    if event is not None:
        await tell_pager(uow, incident.id, event, reason=moved.outcome)
    return moved


def _page_event(to: IncidentState, *, attended: bool) -> PageEvent | None:
    if to in FINAL_INCIDENT_STATES:
        return "resolve"
    if to is IncidentState.ESCALATED:
        return "acknowledge" if attended else "trigger"
    return "acknowledge" if to is IncidentState.MITIGATING else None


async def tell_pager(uow: UnitOfWork, incident_id: IncidentId, event: PageEvent, *, reason: str = "") -> bool:
    """Puts ``event`` into the outbox if it is news to the pager; False when it is not, or no pager is set up."""
    key = await uow.pages.move(incident_id, event)
    if key is None:
        return False
    await uow.outbox.add(incident_id, PagerNotice(event=event, dedup_key=key, reason=reason))
    return True


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
