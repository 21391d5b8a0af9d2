"""What the rules are given, and their limits."""

from __future__ import annotations

from dataclasses import dataclass

from pipeline.domain.ids import ServiceName
from pipeline.domain.phase import Phase
from pipeline.domain.plan import (
    TargetAction,
    TargetRef,
    TargetState,
)
from pipeline.ports.control import KillSwitch
from pipeline.ports.executions import ActionHistory


@dataclass(frozen=True, slots=True)
class GuardrailLimits:
    """``max_share``: share of ready replicas down at once. ``max_callers``: services that may feel it.

    ``cooldown_s``: rest after any action on the target, helpful or not. ``max_scale_factor``: against one hour ago.
    """

    max_share: float = 0.5
    max_callers: int = 10
    max_scale_factor: float = 2.0
    cooldown_s: float = 600.0
    max_actions_target_hour: int = 2
    max_actions_hour: int = 10
    max_concurrent: int = 3
    min_confidence: float = 0.70


@dataclass(frozen=True, slots=True)
class GuardrailFacts:
    """Everything the rules look at. ``observed`` and ``callers`` are None when they could not be read: blocked."""

    action: TargetAction
    target: TargetRef
    planned_generation: str
    started: bool
    """Steps of this plan have been applied already: its own changes are no foreign ones."""
    rollback: bool
    observed: TargetState | None
    callers: frozenset[ServiceName] | None
    switch: KillSwitch | None
    history: ActionHistory
    phase: Phase
    confidence: float
    path_problem: str
    """What is wrong with the causal path; empty when every hop of it was checked."""
