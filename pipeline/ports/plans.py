"""Plans and the decisions on them. Methods may raise TemporaryError."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from pipeline.domain.action import Action
from pipeline.domain.approval import Approval
from pipeline.domain.guardrail import GuardrailResult
from pipeline.domain.ids import IncidentId, PlanId
from pipeline.domain.lifecycle import PlanState
from pipeline.domain.plan import Alternative, Plan, Risk, TargetRef


@dataclass(frozen=True, slots=True)
class PlanDraft:
    """A plan before the database gave it an id and a revision."""

    incident_id: IncidentId
    action: Action
    target: TargetRef | None
    generation: str
    replicas_before: int
    approvals_needed: int
    expected_effect: str
    ttl_s: float
    requested_by: str = ""
    """Who asked for this revision; empty when the bot proposed it."""
    target_revision: str = ""
    risk: Risk | None = None
    alternatives: tuple[Alternative, ...] = ()


class PlanStore(Protocol):
    """Plans and decisions. ``move`` is conditional on the state."""

    async def propose(self, draft: PlanDraft, guardrails: GuardrailResult) -> Plan:
        """Stores the next revision; an earlier proposed one is superseded in the same statement."""
        ...

    async def get(self, plan_id: PlanId) -> Plan | None: ...
    async def by_token(self, token: str) -> Plan | None:
        """The plan that a button names."""
        ...

    async def move(self, plan_id: PlanId, from_: PlanState, to: PlanState) -> bool:
        """False when the plan is not in ``from_`` any more."""
        ...

    async def reconsider(self, plan_id: PlanId) -> bool:
        """Notes that what came of a plan is looked at again; False when that was noted before."""
        ...

    async def expired(self) -> Sequence[Plan]:
        """Proposed plans past their expiry by the database's clock."""
        ...

    async def is_expired(self, plan_id: PlanId) -> bool: ...
    async def decide(self, approval: Approval) -> bool:
        """Records one person's word; False when that person has decided on this plan already."""
        ...

    async def approvals(self, plan_id: PlanId) -> Sequence[Approval]: ...
    async def need(self, plan_id: PlanId, people: int) -> None:
        """At least so many people have to approve from now on; never fewer than before."""
        ...

    async def undecided(self, *, after_s: float, unsaid: str) -> Sequence[Plan]:
        """Proposals that have waited so long by the database's clock, not expired, of which ``unsaid`` was not said."""
        ...

    async def say_once(self, plan_id: PlanId, what: str) -> bool:
        """True for one caller only, once for each plan and ``what``; False too when the plan waits no longer."""
        ...

    async def waiting(self) -> Sequence[Plan]: ...
    async def save_guardrails(self, plan_id: PlanId, result: GuardrailResult) -> None: ...
