"""What a trial is: which faults strike, when, and what people do. Everything follows from a seed and a number."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from tests.crash.recorder import TargetFault

Deed = Literal[
    "kill",
    "kill_both",
    "stop",
    "drain",
    "cut_request",
    "cut_reply",
    "postgres_killed",
    "postgres_away",
    "postgres_frozen",
    "redis_killed",
    "redis_flushed",
    "redis_away",
    "slack_limited",
    "slack_outage",
    "slack_away",
    "slack_socket_dropped",
    "slack_reply_lost",
    "switch_on",
    "foreign_change",
    "expire",
    "clock_jumps",
    "disk_full",
    "trail_full",
]


ModelFault = Literal["silent", "failed_500", "limited_429", "reset", "garbage", "truncated", "no_json"]


@dataclass(frozen=True, slots=True)
class Strike:
    """At the ``nth`` passing of ``moment`` in any replica ``deed`` is done, once; it lasts ``seconds`` where it can."""

    moment: str
    deed: Deed
    nth: int = 1
    seconds: float = 0.0

    def describe(self) -> str:
        lasting = f" for {self.seconds:g} s" if self.seconds else ""
        return f"{self.deed}{lasting} at {self.moment} (no. {self.nth})"


@dataclass(frozen=True, slots=True)
class TrialPlan:
    """One trial. ``kind`` is its line in the summary."""

    number: int
    kind: str
    action: Literal["restart_one", "restart_two", "scale"] = "restart_one"
    replicas: int = 1
    revive: bool = True
    """Whether a killed replica is started again; with two of them the other has to do."""
    recovers: bool = True
    """Whether the metric falls back after the action; else it is rolled back where it can be."""
    people: int = 1
    """How many approvals are needed, from as many people."""
    strikes: tuple[Strike, ...] = ()
    target_faults: Mapping[int, tuple[TargetFault, float]] = field(default_factory=dict)
    unreadable: Mapping[int, int] = field(default_factory=dict)
    click: Literal["once", "twice", "to_both", "both_people", "yes_and_no", "two_cards"] = "once"
    delay_s: float = 0.0
    """Of each piece of data between the replicas and PostgreSQL."""
    syscall: str = ""
    """The system call at whose ``syscall_nth`` return the replica is killed, counted from the click."""
    syscall_nth: int = 0
    clock_offset_s: float | None = None
    """The replicas' clocks are so far off from the start; None: they are nothing but right."""
    budget_spent: bool = False
    """Two actions on the target within the hour are already behind us."""
    model: ModelFault | None = None
    """The incident is not diagnosed yet, and the model that is asked does this; nobody clicks."""
    needs_small_disk: bool = False

    def describe(self) -> str:
        """The faults in words."""
        parts = [strike.describe() for strike in self.strikes]
        parts += [f"target {fault} at write {nth}" for nth, (fault, _) in self.target_faults.items()]
        parts += [f"target unreadable {times} times from read {nth}" for nth, times in self.unreadable.items()]
        if self.syscall:
            parts.append(f"kill at {self.syscall} no. {self.syscall_nth}")
        if self.clock_offset_s is not None:
            parts.append(f"clock {self.clock_offset_s:+.0f} s")
        if self.delay_s:
            parts.append(f"{self.delay_s * 1000:.0f} ms on every piece of data")
        if self.click != "once":
            parts.append(f"click {self.click}")
        if self.model is not None:
            parts.append(f"model {self.model}")
        if self.budget_spent:
            parts.append("budget spent")
        return "; ".join(parts) or "nothing"
