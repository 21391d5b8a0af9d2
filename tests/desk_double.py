"""A desk that records what it was asked, for tests of what stands in front of it; its methods are the real one's."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from pipeline.domain.approval import ApprovalRule, Ballot, DecisionOutcome, DecisionResult, choose_rule, default_rules
from pipeline.domain.baseline import Expectation
from pipeline.domain.errors import PermanentError
from pipeline.domain.ids import IncidentId, PlanId, ServiceName, SlackUserId
from pipeline.domain.incident import Case, Incident
from pipeline.domain.phase import Phase, TrackRecord, graduation
from pipeline.domain.telemetry import Sample, SeriesKey
from pipeline.domain.trace import StoredTraceEntry, TraceKind
from pipeline.ports.control import KillSwitch
from pipeline.ports.model import OnText
from pipeline.ports.samples import SourceHealth
from pipeline.stages.decide import Noted
from pipeline.stages.desk import PhaseReport, Status
from pipeline.stages.investigate import LOOK_BACK_S
from tests.builders import INCIDENT, after, make_case, make_samples, make_trace


@dataclass
class DeskDouble:
    """``calls`` holds (method, arguments) of every order; ``cards`` maps (channel, ts) to incidents."""

    the_case: Case = field(default_factory=make_case)
    decision: DecisionResult = field(
        default_factory=lambda: DecisionResult(DecisionOutcome.ACCEPTED, "Approved; it is being carried out.")
    )
    switches: tuple[KillSwitch, ...] = ()
    rules: tuple[ApprovalRule, ...] = default_rules(2, ("U0ALICE",), ("S0SRE",))
    tier: int = 3
    failing: Exception | None = None
    answers_after_s: float = 0.0
    pieces: tuple[str, ...] = ()
    """How an answer grows before it is whole."""
    cards: dict[tuple[str, str], IncidentId] = field(default_factory=dict)
    calls: list[tuple[str, tuple[Any, ...]]] = field(default_factory=list)
    seen: set[str] = field(default_factory=set)

    def called(self, method: str) -> list[tuple[Any, ...]]:
        return [arguments for name, arguments in self.calls if name == method]

    def _order(self, method: str, *arguments: Any) -> None:
        if self.failing is not None:
            raise self.failing
        self.calls.append((method, arguments))

    async def case(self, incident_id: IncidentId) -> Case | None:
        return self.the_case if incident_id == self.the_case.incident.id else None

    async def trace(self, incident_id: IncidentId) -> Sequence[StoredTraceEntry]:
        del incident_id
        return make_trace((TraceKind.TOOL_CALL, "topology(checkout): called by web"))

    async def status(self) -> Status:
        return Status(
            phase=Phase.ASSIST,
            switches=self.switches,
            open_incidents=(self.the_case.incident,),
            waiting=1,
            sources=(SourceHealth("scrape", ("http://127.0.0.1:9 refused",), after(60)),),
            outbox={"pending": 1, "done": 20, "dead": 2},
            fallbacks=("no ANTHROPIC_API_KEY: the rules engine diagnoses",),
            diagnostician="rules",
            series_watched=24,
        )

    async def incidents(self, limit: int = 10) -> Sequence[Incident]:
        return [self.the_case.incident][:limit]

    async def waiting(self) -> Sequence[Case]:
        return [self.the_case]

    async def phase_report(self) -> PhaseReport:
        return PhaseReport(Phase.ASSIST, graduation(TrackRecord(3, 2, 2, 2, 2, 0, 0, 1.0)))

    async def incident_of_card(self, channel: str, ts: str) -> IncidentId | None:
        return self.cards.get((channel, ts))

    async def metric(self, key: SeriesKey, since: datetime) -> Sequence[Sample]:
        return make_samples(key, [0.48] * 40 + [0.93] * 20, start=since)

    async def expectation(self, key: SeriesKey) -> Expectation:
        del key
        return Expectation(0.48, 0.02, 500.0)

    async def first_time(self, key: str) -> bool:
        if self.failing is not None:
            raise self.failing
        fresh = key not in self.seen
        self.seen.add(key)
        return fresh

    async def ballot(self, token: str) -> Ballot | None:
        if self.failing is not None:
            raise self.failing
        plan, incident = self.the_case.plan, self.the_case.incident
        if plan is None or plan.token != token:
            return None
        return Ballot(plan.id, incident.id, choose_rule(self.rules, self.tier, incident.severity))

    async def rule_of(self, incident_id: IncidentId) -> ApprovalRule | None:
        incident = self.the_case.incident
        return choose_rule(self.rules, self.tier, incident.severity) if incident_id == incident.id else None

    async def approval_rules(self) -> Sequence[ApprovalRule]:
        return self.rules

    async def approve(self, plan_id: PlanId, user: SlackUserId, *, noted: Noted | None = None) -> DecisionResult:
        del noted
        self._order("approve", plan_id, user)
        return self.decision

    async def reject(self, plan_id: PlanId, user: SlackUserId, reason: str) -> DecisionResult:
        self._order("reject", plan_id, user, reason)
        return self.decision

    async def denied(self, incident_id: IncidentId | None, user: SlackUserId, what: str, why: str) -> None:
        self._order("denied", incident_id, user, what, why)

    async def kill(self, scope: str, reason: str, user: SlackUserId) -> str:
        if scope not in ("all", "checkout"):
            raise PermanentError(f"No service “{scope}” here.")
        self._order("kill", scope, reason, user)
        return f"🛑 Kill switch ON for *{scope}*"

    async def resume(self, scope: str, reason: str, user: SlackUserId) -> str:
        self._order("resume", scope, reason, user)
        return f"✅ Kill switch released for *{scope}*."

    async def set_phase(self, phase: str, reason: str, user: SlackUserId) -> str:
        self._order("set_phase", phase, reason, user)
        return f"Phase is now *{phase}*."

    async def halt(self, incident_id: IncidentId, user: SlackUserId) -> str:
        self._order("halt", incident_id, user)
        return "Rejected; nothing is changed."

    async def ask(
        self,
        incident_id: IncidentId,
        question: str,
        user: SlackUserId,
        *,
        may_propose: bool,
        on_text: OnText | None = None,
    ) -> str:
        self._order("ask", incident_id, question, user, may_propose)
        await asyncio.sleep(self.answers_after_s)
        for piece in self.pieces:
            assert on_text is not None
            await on_text(piece)
        return "checkout-1 grows [E1]\n<!channel> is only text"

    async def another_way(
        self, plan_id: PlanId, number: int, user: SlackUserId, *, noted: Callable[[], Awaitable[object]]
    ) -> str:
        self._order("another_way", plan_id, number, user)
        await noted()
        await asyncio.sleep(self.answers_after_s)
        return "Proposed as revision 2: <!channel> Scale from 2 to 4 replicas."

    async def services_named(self, text: str) -> tuple[ServiceName, ...]:
        return tuple(ServiceName(name) for name in ("checkout", "payments") if name in text)

    async def ask_about(self, service: ServiceName, question: str, user: SlackUserId) -> str:
        self._order("ask_about", service, question, user)
        return f"{service} is as usual [E1]"

    async def wrong_cause(self, incident_id: IncidentId, user: SlackUserId) -> str:
        self._order("wrong_cause", incident_id, user)
        return "Noted: this diagnosis is not used again. Thank you."

    async def feedback(self, incident_id: IncidentId, user: SlackUserId, *, helpful: bool) -> str:
        self._order("feedback", incident_id, user, helpful)
        return "Noted."

    async def investigate(self, service: str, user: SlackUserId, *, since_s: float = LOOK_BACK_S) -> str:
        self._order("investigate", service, user, since_s)
        await asyncio.sleep(self.answers_after_s)
        return f"{service}: p99 240 ms"

    async def dry_run(self, incident_id: IncidentId) -> str:
        self._order("dry_run", incident_id)
        return "1. restart checkout-1"

    async def mute(self, incident_id: IncidentId, user: SlackUserId) -> str:
        self._order("mute", incident_id, user)
        return "Muted: no new card for this cause for an hour."

    async def not_an_incident(self, incident_id: IncidentId, user: SlackUserId) -> str:
        self._order("not_an_incident", incident_id, user)
        return "Done: closed."

    async def take_ownership(self, incident_id: IncidentId, user: SlackUserId) -> str:
        self._order("take_ownership", incident_id, user)
        return "It is yours."

    async def escalate(self, incident_id: IncidentId, user: SlackUserId) -> str:
        self._order("escalate", incident_id, user)
        return "Done: escalated."

    async def close(self, incident_id: IncidentId, user: SlackUserId) -> str:
        self._order("close", incident_id, user)
        return "Done: closed."


LABEL = f"INC-{INCIDENT}"
