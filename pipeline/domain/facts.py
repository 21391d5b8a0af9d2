"""Measured figures that the rules engine and the reviewer judge by."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

from pipeline.domain.action import ActionKind
from pipeline.domain.changes import ChangeEvent
from pipeline.domain.ids import ServiceName


@dataclass(frozen=True, slots=True)
class Facts:
    """Measured figures for the rules, each named; absent when it could not be read.

    ``traffic_ratio``, ``latency_ratio``: now over the baseline (1.0 = as usual). ``error_ratio``: 0..1 now.
    ``memory_ratio_by_instance``: 0..1 of its limit. ``memory_slope_per_min``: growth of the worst instance's ratio a
    minute. ``slow_callees``: services below this one whose latency breaches too. ``recent_changes``: of the service
    itself since an hour before the trouble, oldest first. ``recovered``: every series of the incident's anomalies was
    measured just now and is back inside its bound. ``in_vain``: kinds of action that were carried out for this very
    incident and did not help. ``began``: when the first anomaly did; what was changed later is no cause of it.
    """

    traffic_ratio: float | None = None
    latency_ratio: float | None = None
    error_ratio: float | None = None
    memory_ratio_by_instance: Mapping[str, float] = field(default_factory=dict)
    memory_slope_per_min: float | None = None
    slow_callees: tuple[ServiceName, ...] = ()
    replicas: int | None = None
    recent_changes: tuple[ChangeEvent, ...] = ()
    recovered: bool = False
    in_vain: tuple[ActionKind, ...] = ()
    began: datetime | None = None
