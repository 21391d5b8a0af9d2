"""After an action that did not help: what was changed is back as it was, and the incident is diagnosed once more."""

from __future__ import annotations

from pipeline.domain.action_words import describe_action
from pipeline.domain.incident import Case, Incident
from pipeline.domain.lifecycle import ExecutionState, IncidentState, PlanState
from pipeline.domain.phase import Phase
from pipeline.domain.trace import TraceEntry, TraceKind
from pipeline.ports.store import Store
from pipeline.stages.advance import advance, line

MAX_TRIES = 3
"""Actions that are carried out for one incident, all in all; then only people go on."""
_DONE = frozenset({ExecutionState.APPLIED, ExecutionState.VERIFIED})


class Reconsiderer:
    """Sends incidents back to the diagnosis, which knows by then what did not help. Changes nothing else."""

    def __init__(self, store: Store) -> None:
        self._store = store

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
            if (await uow.control.phase() or Phase.SHADOW) is Phase.SHADOW:
                return False
            if (await uow.control.engaged(incident.service, incident.environment)) is not None:
                return False
            tried = [one for one in await uow.executions.of_incident(incident.id) if one.kind == "apply"]
            if len(tried) >= MAX_TRIES:
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
    in_vain = execution.state is ExecutionState.NOT_VERIFIED or execution.canary_verdict == "worse"
    return in_vain and (case.rollback is None or case.rollback.state in _DONE)
