"""Proposals that nobody decides: people are reminded in the thread, then somebody is called."""

from __future__ import annotations

from collections.abc import Set

from pipeline.domain.approval import ApprovalRule
from pipeline.domain.incident import Incident
from pipeline.domain.lifecycle import IncidentState
from pipeline.domain.notice import ThreadNotice, ThreadPart
from pipeline.domain.plan import Plan
from pipeline.domain.trace import TraceEntry, TraceKind
from pipeline.ports.store import Store, UnitOfWork
from pipeline.stages.advance import record, tell_pager
from pipeline.stages.decide import Decider
from pipeline.stages.settings import LoopSettings

ESCALATED = "escalated"
MAX_NAMED = 20
"""People and groups that one reminder calls by name."""


class Reminder:
    """Says everything once for each proposal, however many replicas and restarts there are."""

    def __init__(self, store: Store, decider: Decider, settings: LoopSettings) -> None:
        self._store = store
        self._decider = decider
        self._settings = settings

    async def run(self) -> int:
        """Reminds of what waits too long, and calls somebody where that did not help. Returns how often."""
        said = 0
        for after_s in sorted(self._settings.remind_after_s, reverse=True):
            # The latest first: after a standstill people are not reminded twice in a row.
            for plan in await self._undecided(after_s, f"remind:{after_s:g}"):
                said += await self._remind(plan, after_s)
        for plan in await self._undecided(self._settings.escalate_after_s, ESCALATED):
            said += await self._escalate(plan)
        return said

    async def _undecided(self, after_s: float, unsaid: str) -> list[Plan]:
        async with self._store.begin() as uow:
            return list(await uow.plans.undecided(after_s=after_s, unsaid=unsaid))

    async def _remind(self, plan: Plan, after_s: float) -> bool:
        async with self._store.begin() as uow:
            incident = await self._first(uow, plan, f"remind:{after_s:g}")
            if incident is None:
                return False
            for earlier_s in self._settings.remind_after_s:
                if earlier_s < after_s:
                    await uow.plans.say_once(plan.id, f"remind:{earlier_s:g}")
            given = {one.user_id for one in await uow.plans.approvals(plan.id) if one.decision == "approve"}
            rule = self._decider.rule(incident)
            missing = max(plan.approvals_needed, rule.people) - len(given)
            waits = f"⏰ Waiting for a decision for {_span(after_s)}"
            wanted = f"{missing} more {'person has' if missing == 1 else 'people have'} to approve"
            text = f"{waits}, {wanted}. {_called(rule, given)}".rstrip()
            await _say(uow, plan, text, f"reminded after {after_s:g} s", after_s)
        return True

    async def _escalate(self, plan: Plan) -> bool:
        after_s = self._settings.escalate_after_s
        async with self._store.begin() as uow:
            incident = await self._first(uow, plan, ESCALATED)
            if incident is None:
                return False
            reason = f"nobody has decided for {_span(after_s)}"
            if not await tell_pager(uow, incident.id, "trigger", reason=reason):
                return False
            text = f"📟 {reason[:1].upper()}{reason[1:]}: whoever is on call is paged."
            await _say(uow, plan, text, f"paged: {reason}", after_s)
        return True

    async def _first(self, uow: UnitOfWork, plan: Plan, what: str) -> Incident | None:
        """The incident, held for the one caller that is the first to say it; None for the others."""
        if not await uow.plans.say_once(plan.id, what):
            return None
        incident = await uow.incidents.get(plan.incident_id)
        return incident if incident is not None and incident.state is IncidentState.AWAITING_DECISION else None


async def _say(uow: UnitOfWork, plan: Plan, text: str, summary: str, after_s: float) -> None:
    entry = TraceEntry(TraceKind.NOTE, summary, {"plan": plan.id, "after_s": after_s})
    notice = ThreadNotice(part=ThreadPart.REMINDER, text=text)
    await record(uow, plan.incident_id, entries=[entry], notices=[notice], redraw=False)


def _span(seconds: float) -> str:
    return f"{seconds:g} s" if seconds < 60 else f"{seconds / 60:.3g} min"


def _called(rule: ApprovalRule, given: Set[str]) -> str:
    groups = [f"<!subteam^{group}>" for group in rule.groups]
    users = [f"<@{user}>" for user in rule.users if user not in given]
    return " ".join([*groups, *users][:MAX_NAMED])
