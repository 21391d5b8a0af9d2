"""The state machines. ``stages.advance`` is the only writer, and these tables are all that it allows."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum


class IncidentState(StrEnum):
    """Where an incident stands on its way through the rooms."""

    OPEN = "open"
    DIAGNOSING = "diagnosing"
    AWAITING_DECISION = "awaiting_decision"
    MITIGATING = "mitigating"
    VERIFYING = "verifying"
    ESCALATED = "escalated"
    RESOLVED = "resolved"
    SELF_RECOVERED = "self_recovered"
    CLOSED = "closed"


class PlanState(StrEnum):
    """A plan waits for a decision once; every other state is final."""

    PROPOSED = "proposed"
    APPROVED = "approved"
    REJECTED = "rejected"
    EXPIRED = "expired"
    SUPERSEDED = "superseded"
    BLOCKED = "blocked"


class ExecutionState(StrEnum):
    """``dispatched`` is committed before a call to the target, ``applied`` after the target was read back."""

    READY = "ready"
    CLAIMED = "claimed"
    DISPATCHED = "dispatched"
    APPLIED = "applied"
    VERIFIED = "verified"
    NOT_VERIFIED = "not_verified"
    INCONCLUSIVE = "inconclusive"
    FAILED = "failed"
    UNKNOWN = "unknown"
    NEEDS_HUMAN = "needs_human"


_I = IncidentState
INCIDENT_TRANSITIONS: Mapping[IncidentState, frozenset[IncidentState]] = {
    _I.OPEN: frozenset({_I.DIAGNOSING, _I.ESCALATED, _I.SELF_RECOVERED, _I.CLOSED}),
    _I.DIAGNOSING: frozenset({_I.AWAITING_DECISION, _I.ESCALATED, _I.SELF_RECOVERED, _I.CLOSED}),
    _I.AWAITING_DECISION: frozenset({_I.MITIGATING, _I.DIAGNOSING, _I.ESCALATED, _I.SELF_RECOVERED, _I.CLOSED}),
    _I.MITIGATING: frozenset({_I.VERIFYING, _I.ESCALATED}),
    _I.VERIFYING: frozenset({_I.RESOLVED, _I.ESCALATED, _I.MITIGATING}),
    _I.ESCALATED: frozenset({_I.SELF_RECOVERED, _I.CLOSED, _I.DIAGNOSING}),
    _I.RESOLVED: frozenset({_I.CLOSED}),
    _I.SELF_RECOVERED: frozenset({_I.CLOSED}),
    _I.CLOSED: frozenset(),
}

QUIET_INCIDENT_STATES = frozenset({IncidentState.OPEN, IncidentState.AWAITING_DECISION, IncidentState.ESCALATED})
"""States in which an incident may turn out to be over by itself; while something is being done, verification judges."""

FINAL_INCIDENT_STATES = frozenset({_I.RESOLVED, _I.SELF_RECOVERED, _I.CLOSED})
"""The fault is over: a new breach of the same series opens a new incident."""

_P = PlanState
PLAN_TRANSITIONS: Mapping[PlanState, frozenset[PlanState]] = {
    _P.PROPOSED: frozenset({_P.APPROVED, _P.REJECTED, _P.EXPIRED, _P.SUPERSEDED, _P.BLOCKED}),
    _P.APPROVED: frozenset({_P.BLOCKED}),
    _P.REJECTED: frozenset(),
    _P.EXPIRED: frozenset(),
    _P.SUPERSEDED: frozenset(),
    _P.BLOCKED: frozenset(),
}

_E = ExecutionState
EXECUTION_TRANSITIONS: Mapping[ExecutionState, frozenset[ExecutionState]] = {
    _E.READY: frozenset({_E.CLAIMED, _E.FAILED}),
    _E.CLAIMED: frozenset({_E.DISPATCHED, _E.READY, _E.FAILED, _E.APPLIED}),
    _E.DISPATCHED: frozenset({_E.DISPATCHED, _E.APPLIED, _E.FAILED, _E.UNKNOWN}),
    _E.APPLIED: frozenset({_E.VERIFIED, _E.NOT_VERIFIED, _E.INCONCLUSIVE}),
    _E.UNKNOWN: frozenset({_E.UNKNOWN, _E.APPLIED, _E.READY, _E.NEEDS_HUMAN}),
    _E.VERIFIED: frozenset(),
    _E.NOT_VERIFIED: frozenset(),
    _E.INCONCLUSIVE: frozenset(),
    _E.FAILED: frozenset(),
    _E.NEEDS_HUMAN: frozenset(),
}

OPEN_EXECUTION_STATES = frozenset({_E.READY, _E.CLAIMED, _E.DISPATCHED, _E.UNKNOWN})
"""A target with an execution in one of these takes no second one (a partial unique index holds it)."""
