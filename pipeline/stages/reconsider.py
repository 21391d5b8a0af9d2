"""After an action that did not help: what was changed is back as it was, and the incident is diagnosed once more."""

from __future__ import annotations

from datetime import timedelta

from pipeline.domain.action_words import describe_action
from pipeline.domain.incident import Case, Incident
from pipeline.domain.lifecycle import ExecutionState, IncidentState, PlanState
from pipeline.domain.phase import Phase
from pipeline.domain.trace import TraceEntry, TraceKind
from pipeline.ports.clock import Clock
from pipeline.ports.store import Store
from pipeline.stages.advance import advance, line

MAX_TRIES = 3
"""Actions that are carried out for one incident, all in all; then only people go on."""
_DONE = frozenset({ExecutionState.APPLIED, ExecutionState.VERIFIED})


class Reconsiderer:
    """Sends incidents back to the diagnosis, which knows by then what did not help. Changes nothing else."""

    def __init__(self, store: Store, clock: Clock, *, rest_s: float) -> None:
        """``rest_s``: how long a target rests after an action; before it is over nothing else could be done to it."""
        self._store = store
        self._clock = clock
        self._rest = timedelta(seconds=rest_s)

    async def run(self) -> int:
        """Looks at every incident that a person was called to. Returns how many are looked at again."""
        async with self._store.begin() as uow:
            waiting = [one for one in await uow.incidents.open() if one.state is IncidentState.ESCALATED]
        return sum([await self._again(incident) for incident in waiting])

    async def _again(self, incident: Incident) -> bool:
        async with self._store.begin() as uow:
            case = await uow.incidents.case(incident.id)
            if case is None or case.plan is None or not _did_not_help(case):
                return False
            last = case.rollback or case.execution
            if last is None or last.applied_at is None or self._clock.now() < last.applied_at + self._rest:
                return False
            if (await uow.control.phase() or Phase.SHADOW) is Phase.SHADOW:
                return False
            if (await uow.control.engaged(incident.service, incident.environment)) is not None:
                return False
            tried = [one for one in await uow.executions.of_incident(incident.id) if one.kind == "apply"]
            if len(tried) >= MAX_TRIES:
                return False
            # Once for each plan: whoever closes the matter to the bot after that has the last word.
            if not await uow.plans.reconsider(case.plan.id):
                return False
            what = describe_action(case.plan.action)
            said = f"“{what}” did not help, so it is not the cause or not enough: looking again, without it"
            entry = TraceEntry(TraceKind.NOTE, said, {"plan": case.plan.id, "tries": len(tried)})
            notices = [line(f"🔁 {said}")]
            moved = await advance(
                uow, case.incident, IncidentState.DIAGNOSING, outcome="", entries=[entry], notices=notices
            )
            return moved is not None


def _did_not_help(case: Case) -> bool:
    """Carried out in vain, and what could be put back is back. A plan that was made since then is decided first."""
    plan, execution = case.plan, case.execution
    if plan is None or execution is None or plan.state is not PlanState.APPROVED or execution.plan_id != plan.id:
        return False
    if case.incident.owner:
        return False  # somebody is at it
    in_vain = execution.state is ExecutionState.NOT_VERIFIED or execution.canary_verdict == "worse"
    back = case.rollback
    return in_vain and (back is None or (back.state in _DONE and not back.unsettled))
