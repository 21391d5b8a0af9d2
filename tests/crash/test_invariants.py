"""The judge itself: a good history passes, and each invariant finds the history that breaks it."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from tests.crash.invariants import (
    Acknowledged,
    ApprovalRow,
    Blind,
    CardLook,
    ExecutionRow,
    History,
    PlanRow,
    StepRow,
    SwitchTime,
    TrailRow,
    violations,
)
from tests.crash.recorder import PhysicalRequest

T0 = datetime(2026, 11, 20, 14, 0, tzinfo=UTC)


def at(seconds: float) -> datetime:
    return T0 + timedelta(seconds=seconds)


REQUEST = PhysicalRequest(at(3), "restart", "1", 1, 1, "uid-1", True, "202", at(3))
EXECUTION = ExecutionRow(1, 1, 1, "apply", "verified", at(2), (StepRow(1, "applied"),))
PLAN = PlanRow(1, 1, "approved", 1, at(1800))
APPROVAL = ApprovalRow(1, "U0ALICE", "approve", at(1))
CARD = CardLook(1, 1, "✅ SEV2 · checkout · Recovered", ("· Recovered",), False, False)
DISPATCHED: dict[str, object] = {"execution": 1, "step": 1, "fence": 1}


def trail(*entries: tuple[float, str, dict[str, object]]) -> list[TrailRow]:
    """A whole chain of execution entries."""
    return [
        TrailRow(1, seq, at(seconds), "execution", summary, f"h{seq - 1}" if seq > 1 else "", f"h{seq}", data)
        for seq, (seconds, summary, data) in enumerate(entries, start=1)
    ]


TRAIL = trail((2.5, "step 1 of 1 dispatched: restart", DISPATCHED), (4, "step 1 applied", {"step": 1}))


def history(**changes: Any) -> History:
    """Approved, dispatched, carried out, verified, and shown so."""
    good = History(
        requests=(REQUEST,),
        executions=(EXECUTION,),
        plans=(PLAN,),
        approvals=(APPROVAL,),
        acknowledged=(Acknowledged(1, "U0ALICE", at(1)),),
        trail=TRAIL,
        first_broken={1: None},
        heads_seen=((1, 1, "h1"),),
        cards=(CARD,),
        ended_at=at(9),
        looked_at=at(9),
    )
    return replace(good, **changes)


def test_a_good_history_breaks_nothing() -> None:
    assert violations(history()) == {}
    assert violations(History()) == {}


SECOND = replace(REQUEST, fence=2, at=at(5))
STEP_PENDING = replace(EXECUTION, state="failed", steps=(StepRow(1, "pending"),))
HELD = replace(EXECUTION, state="dispatched", steps=(StepRow(1, "dispatched"),))
SCALED = replace(REQUEST, kind="scale", wish="7")
BOTH = trail((2.5, "step 1 of 1 dispatched: x", DISPATCHED), (4.5, "step 1 dispatched", DISPATCHED | {"fence": 2}))
THREE = tuple(replace(EXECUTION, id=number, plan_id=number) for number in (1, 2, 3))


@pytest.mark.parametrize(
    ("broken", "changes"),
    [
        ("I1", {"requests": (REQUEST, SECOND), "trail": BOTH}),
        ("I1", {"requests": (REQUEST, replace(REQUEST, effective=False, answer="409", at=at(3.1)))}),
        ("I1", {"executions": (EXECUTION, replace(EXECUTION, id=2, steps=()))}),
        ("I2", {"approvals": (), "executions": (), "requests": (), "trail": ()}),
        ("I2", {"executions": (), "requests": (), "trail": ()}),
        ("I2", {"executions": (HELD,)}),
        ("I2", {"ended_at": at(62)}),
        ("I2", {"ended_at": None}),
        ("I2", {"ended_at": at(75), "faults_over_at": at(14)}),
        ("I3", {"requests": ()}),
        ("I3", {"executions": (STEP_PENDING,)}),
        ("I3", {"executions": (replace(EXECUTION, steps=(StepRow(1, "pending"),)),)}),
        ("I3", {"replicas_at_last": 4}),
        ("I3", {"cards": (replace(CARD, cards=2),)}),
        ("I3", {"cards": (replace(CARD, shown="Verifying"),)}),
        ("I3", {"cards": (replace(CARD, can_be_approved=True),)}),
        ("I3", {"dead_letters": 1}),
        ("I4", {"trail": TRAIL[1:]}),
        ("I4", {"trail": trail((3.5, "step 1 of 1 dispatched: restart", DISPATCHED))}),
        ("I4", {"blind": (Blind(at(2), at(6)),)}),
        ("I5", {"switches": (SwitchTime("all", at(1)),)}),
        ("I5", {"requests": (SCALED,), "replicas_at_last": 7}),
        ("I5", {"executions": THREE}),
        ("I5", {"earlier_actions": 2}),
        ("I5", {"plans": (replace(PLAN, approvals_needed=2),)}),
        ("I5", {"approvals": (APPROVAL, ApprovalRow(1, "U0BOB", "reject", at(1)))}),
        ("I5", {"plans": (replace(PLAN, state="expired"),)}),
        ("I6", {"first_broken": {1: 2}}),
        ("I6", {"trail": [TRAIL[0], replace(TRAIL[1], previous="other")]}),
        ("I6", {"heads_seen": ((1, 3, "h3"),)}),
        ("I6", {"heads_seen": ((1, 2, "another"),)}),
    ],
)
def test_each_broken_history_is_found(broken: str, changes: dict[str, Any]) -> None:
    found = violations(history(**changes))
    assert broken in found
    assert all(found[broken])


@pytest.mark.parametrize(
    "changes",
    [
        {"ended_at": at(75), "faults_over_at": at(16)},
        {"switches": (SwitchTime("all", at(2.4)),)},
        {"switches": (SwitchTime("all", at(1), at(2)),)},
        {"blind": (Blind(at(3), at(6)),)},
        {"requests": (REQUEST, replace(SECOND, effective=False, answer="409")), "trail": BOTH},
        {"executions": (replace(EXECUTION, state="needs_human", steps=(StepRow(1, "dispatched"),)),)},
    ],
)
def test_what_is_allowed_is_not_called_broken(changes: dict[str, Any]) -> None:
    assert violations(history(**changes)) == {}
