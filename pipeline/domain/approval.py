"""A person's decision, and what came of the attempt to make it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Literal

from pipeline.domain.ids import PlanId, SlackUserId


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
    BLOCKED = "blocked"
    """A guardrail said no."""
    UNKNOWN_PLAN = "unknown_plan"


@dataclass(frozen=True, slots=True)
class DecisionResult:
    """The outcome and a sentence for the person who clicked."""

    outcome: DecisionOutcome
    message: str
