"""What was done before, and how many replicas there were. Methods may raise TemporaryError."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from pipeline.domain.action import ActionKind
from pipeline.domain.ids import ExecutionId, IncidentId, PlanId


@dataclass(frozen=True, slots=True)
class ReplicaReading:
    """The replicas that were wanted of a target ``ago_s`` seconds ago. ``ours``: we had just set them."""

    replicas: int
    ago_s: float
    ours: bool = False


@dataclass(frozen=True, slots=True)
class Unhelpful:
    """The last action of one kind on one target that could not be shown to have helped this very trouble."""

    execution_id: ExecutionId
    verdict: str
    """``not_verified`` or ``inconclusive``."""
    ago_s: float


@dataclass(frozen=True, slots=True)
class ActionHistory:
    """What was done to one target, and at once elsewhere; ``at`` is the database's clock.

    An action counts when a call went out, whatever came of it, or while it may still go out. ``last_*_s_ago``: seconds
    since its last call; None: never. ``last_hour`` counts no rollbacks, which end what is counted. ``readings``: oldest
    first, of the last few hours.
    """

    at: datetime
    last_action_s_ago: float | None = None
    last_of_kind_s_ago: float | None = None
    last_hour: int = 0
    last_hour_everywhere: int = 0
    open_here: int = 0
    open_elsewhere: int = 0
    unhelpful: Unhelpful | None = None
    readings: tuple[ReplicaReading, ...] = ()


class HistoryStore(Protocol):
    """The past that the guardrails judge by."""

    async def in_vain(self, incident_id: IncidentId) -> tuple[ActionKind, ...]:
        """The kinds of action that were carried out for an incident and did not help, in the order they were."""
        ...

    async def saw(self, target_uid: str, replicas: int) -> None:
        """Notes how many replicas are wanted of a target now; what is older than a few hours is dropped."""
        ...

    async def of(self, target_uid: str, kind: ActionKind, fingerprint: str, *, besides: PlanId | None) -> ActionHistory:
        """The past of a target, leaving plan ``besides`` out; ``kind`` and ``fingerprint`` are of what is judged.

        Of what others have begun in this moment, only that counts which comes first: so of several at once exactly as
        many go on as may.
        """
        ...
