"""What the rules are given, and their limits."""

from __future__ import annotations

from dataclasses import dataclass

from pipeline.domain.action import TargetAction
from pipeline.domain.catalogue import Calendar
from pipeline.domain.ids import ServiceName
from pipeline.domain.phase import Phase
from pipeline.domain.plan import TargetRef, TargetState
from pipeline.ports.control import KillSwitch
from pipeline.ports.history import ActionHistory

HOUR_S = 3600.0


@dataclass(frozen=True, slots=True)
class GuardrailLimits:
    """``max_share``: share of ready replicas down at once. ``max_callers``: services that may feel it, of which at most
    ``max_tier1_callers`` of tier 1. ``max_scale_factor``: against one hour ago.

    ``cooldown_s``: before the same kind of action on the same target, helpful or not; ``rest_s``: before any other one,
    never longer than ``cooldown_s``. ``max_concurrent_target`` and ``max_concurrent``: executions open at a time.
    ``ineffective_s``: how long an action that did not help is not tried again for the same trouble.
    ``max_reversals``: at so many changes of direction of a target's replicas in an hour no more scaling is done.
    """

    max_share: float = 0.5
    max_callers: int = 10
    max_tier1_callers: int = 5
    max_scale_factor: float = 2.0
    cooldown_s: float = 600.0
    rest_s: float = 300.0
    max_actions_target_hour: int = 2
    max_actions_hour: int = 10
    max_concurrent_target: int = 1
    max_concurrent: int = 3
    ineffective_s: float = 86_400.0
    max_reversals: int = 2
    min_confidence: float = 0.70


@dataclass(frozen=True, slots=True)
class GuardrailFacts:
    """Everything the rules look at. ``observed`` and ``callers`` are None when they could not be read: blocked."""

    service: ServiceName
    environment: str
    action: TargetAction
    at_once: int
    """Replicas of a restart that go at the same time, at least one."""
    target: TargetRef
    planned_generation: str
    started: bool
    """Steps of this plan have been applied already: its own changes are no foreign ones."""
    rollback: bool
    observed: TargetState | None
    callers: frozenset[ServiceName] | None
    tier1_callers: frozenset[ServiceName]
    """Of the ``callers``."""
    switch: KillSwitch | None
    calendar: Calendar
    history: ActionHistory
    phase: Phase
    confidence: float
    path_problem: str
    """What is wrong with the causal path; empty when every hop of it was checked."""
