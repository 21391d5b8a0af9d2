"""Who may decide, a person's decision, and what came of the attempt to make it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from pipeline.domain.action import BoundsAction, RestartAction
from pipeline.domain.ids import IncidentId, PlanId, SlackUserId
from pipeline.domain.plan import Plan, TargetState
from pipeline.domain.severity import Severity

TIERS = (1, 2, 3, 4)
"""All tiers of services; 1 matters most."""
UserIdText = Annotated[str, Field(pattern=r"^[UW][A-Z0-9]{1,30}$")]
"""Slack's id of a person, not the name that is shown."""
GroupIdText = Annotated[str, Field(pattern=r"^S[A-Z0-9]{1,30}$")]
"""Slack's id of a user group, not its handle."""


@dataclass(frozen=True, slots=True)
class Approval:
    """One person's word on one plan. Bound to the plan's hash at the moment of the decision."""

    plan_id: PlanId
    plan_hash: str
    user_id: SlackUserId
    decision: Literal["approve", "reject"]
    reason: str
    at: datetime


class DecisionOutcome(StrEnum):
    """What a click came to."""

    ACCEPTED = "accepted"
    COUNTED = "counted"
    """An approval, but more are needed."""
    ALREADY_DECIDED = "already_decided"
    SAME_PERSON = "same_person"
    EXPIRED = "expired"
    CHANGED = "changed"
    """The target is not what the plan was made for any more."""
    OVER = "over"
    """Every alert of the incident has cleared."""
    BLOCKED = "blocked"
    """A guardrail said no."""
    UNKNOWN_PLAN = "unknown_plan"


@dataclass(frozen=True, slots=True)
class DecisionResult:
    """The outcome and a sentence for the person who clicked."""

    outcome: DecisionOutcome
    message: str


def _upper(value: object) -> object:
    return value.upper() if isinstance(value, str) else value


class ApprovalRule(BaseModel):
    """How many people have to approve, and who may.

    ``tiers`` and ``severities`` say for what; empty is all of them. ``users`` and ``groups`` are Slack ids; with
    neither of them it is those of the rule for everything else (``rules_in_force``).
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    tiers: Annotated[tuple[Annotated[int, Field(strict=True, ge=1, le=4)], ...], Field(min_length=1)] = ()
    severities: Annotated[tuple[Annotated[Severity, BeforeValidator(_upper)], ...], Field(min_length=1)] = ()
    people: Annotated[int, Field(strict=True, ge=1, le=10)]
    groups: Annotated[tuple[GroupIdText, ...], Field(min_length=1)] = ()
    users: Annotated[tuple[UserIdText, ...], Field(min_length=1)] = ()

    @model_validator(mode="after")
    def _can_be_met(self) -> ApprovalRule:
        named = len(set(self.users))
        if self.users and not self.groups and named < self.people:
            raise ValueError(f"{self.people} people are needed and {named} may: name more users, or a group")
        return self

    def covers(self, tier: int, severity: Severity) -> bool:
        return (not self.tiers or tier in self.tiers) and (not self.severities or severity in self.severities)

    def why_not(self, user: str, member_of: Sequence[str]) -> str:
        """Why this person is no approver here; empty when they are. ``member_of``: those of ``groups`` they are in."""
        if user in self.users or set(self.groups) & set(member_of):
            return ""
        if not self.users and not self.groups:
            return "nobody is set as an approver"
        if not self.groups:
            return "you are not on the list of approvers"
        return "you are neither on the list nor in the user group of approvers"


def _each_reached(rules: tuple[ApprovalRule, ...]) -> tuple[ApprovalRule, ...]:
    left = {(tier, severity) for tier in TIERS for severity in Severity}
    for number, rule in enumerate(rules, start=1):
        its = {case for case in left if rule.covers(*case)}
        if not its:
            raise ValueError(f"number {number} never counts: those before it cover all that it is for")
        left -= its
    return rules


ApprovalRules = Annotated[tuple[ApprovalRule, ...], AfterValidator(_each_reached)]
"""Rules of which the first that covers a case counts."""


def default_rules(
    people_severe: int = 2, users: Sequence[str] = (), groups: Sequence[str] = ()
) -> tuple[ApprovalRule, ...]:
    """``people_severe`` at SEV1 and SEV2 and for tier 1, one person elsewhere; every case is covered."""

    def rule(people: int, tiers: tuple[int, ...] = (), severities: tuple[Severity, ...] = ()) -> ApprovalRule:
        # Not validated: that too few may approve is no mistake of the settings alone, and the doctor's to say.
        return ApprovalRule.model_construct(
            tiers=tiers, severities=severities, people=people, users=tuple(users), groups=tuple(groups)
        )

    return rule(people_severe, severities=(Severity.SEV1, Severity.SEV2)), rule(people_severe, tiers=(1,)), rule(1)


def rules_in_force(own: Sequence[ApprovalRule], defaults: Sequence[ApprovalRule]) -> tuple[ApprovalRule, ...]:
    """``own`` before ``defaults``; one that names nobody means the people of the last of ``defaults``."""
    fallback = defaults[-1]
    who = {"users": fallback.users, "groups": fallback.groups}
    return (
        *(rule if rule.users or rule.groups else rule.model_copy(update=who) for rule in own),
        *defaults,
    )


def choose_rule(rules: Sequence[ApprovalRule], tier: int, severity: Severity) -> ApprovalRule:
    """The first of ``rules_in_force`` that covers the case.

    As many people as the last three of them, the defaults, ask for are needed at least: a rule says who, and may ask
    for more; that fewer are enough where it is severe is said by SRE_APPROVALS_SEVERE alone.
    """
    chosen, least = (next(rule for rule in some if rule.covers(tier, severity)) for some in (rules, rules[-3:]))
    return chosen if chosen.people >= least.people else chosen.model_copy(update={"people": least.people})


@dataclass(frozen=True, slots=True)
class Ballot:
    """What a button asks: to decide this plan, as the policy of this moment has it."""

    plan_id: PlanId
    incident_id: IncidentId
    rule: ApprovalRule


def what_changed(plan: Plan, observed: TargetState) -> tuple[str, ...]:
    """How the target differs from what the plan was made for, each as ``replicas 2 → 3``; empty when it does not."""
    if plan.target is None or observed.ref.uid != plan.target.uid:
        return ("the workload was recreated",)
    found = []
    # Where an autoscaler rules, their number is its own matter.
    if observed.replicas != plan.replicas_before and not isinstance(plan.action, BoundsAction):
        found.append(f"replicas {plan.replicas_before} → {observed.replicas}")
    if plan.target_revision and observed.revision != plan.target_revision:
        found.append(f"revision {plan.target_revision} → {observed.revision or 'unknown'}")
    if observed.generation != plan.generation:
        found.append(f"generation {plan.generation} → {observed.generation}")
    if isinstance(plan.action, RestartAction):
        live = {instance.uid for instance in observed.instances}
        found += [f"{one.name} running → replaced" for one in plan.action.instances if one.uid not in live]
    return tuple(found)
