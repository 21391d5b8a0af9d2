"""What an action should bring, and what it may cost: by its kind and its target, for the card."""

from __future__ import annotations

from typing import assert_never

from pipeline.domain.action import (
    Action,
    BoundsAction,
    CancelRolloutAction,
    ConcurrencyAction,
    CordonAction,
    ManualAction,
    RenewAction,
    RestartAction,
    RevertAction,
    RollBackAction,
    RolloutRestartAction,
    ScaleAction,
    SyncAction,
    TruncateAction,
)
from pipeline.domain.action_words import in_mib
from pipeline.domain.diagnosis import Category
from pipeline.domain.plan import Risk, TargetState


def expected_effect(action: Action, category: Category) -> str:
    """One line."""
    match action:
        case RestartAction() | RolloutRestartAction():
            gain = "memory falls back to its baseline" if category is Category.MEMORY else "fresh processes take over"
            return f"{gain}; the other replicas carry the traffic meanwhile"
        case ScaleAction():
            share = action.from_replicas / action.to_replicas
            return f"each replica gets {share:.0%} of today's load; p99 falls back to its baseline"
        case BoundsAction():
            return f"the autoscaler may go to {action.to_bounds.maximum} replicas and keeps {action.to_bounds.minimum}"
        case ConcurrencyAction():
            return "more calls run at once instead of being throttled"
        case RollBackAction():
            return f"revision {action.to_revision[:40]} runs again; errors fall back to their baseline"
        case RevertAction():
            return "what the commit changed is as before; errors fall back to their baseline"
        case SyncAction():
            return "what runs is what the repository says"
        case RenewAction():
            return "callers get a certificate that is good for weeks"
        case TruncateAction():
            total = sum(file.size_bytes for file in action.files)
            return f"up to {in_mib(total)} are free again, less a compressed copy"
        case CordonAction():
            return "new replicas are placed on other nodes"
        case CancelRolloutAction():
            return "no further replica is replaced"
        case ManualAction():
            return "depends on what is found"
        case _:
            assert_never(action)


def risk_of(action: Action, state: TargetState | None) -> Risk:
    """Low: nothing that serves is touched, or it can be put back at once. High: all of it may be away at a time."""
    match action:
        case RestartAction():
            alone = state is not None and len(action.instances) >= max(state.ready, 1)
            return "high" if alone else "medium"
        case RolloutRestartAction():
            known = state is not None and state.away_at_once is not None and state.away_at_once < max(state.ready, 1)
            return "medium" if known else "high"
        case RollBackAction() | RevertAction() | SyncAction() | TruncateAction() | ManualAction():
            return "medium"
        case ScaleAction() | BoundsAction() | ConcurrencyAction() | RenewAction() | CordonAction():
            return "low"
        case CancelRolloutAction():
            return "low"
        case _:
            assert_never(action)
