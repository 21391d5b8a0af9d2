"""What the kernel saw of a service: processes, system calls, network flows."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from pipeline.domain.ids import ServiceName
from pipeline.domain.telemetry import SourceFailure


class ActivityKind(StrEnum):
    """What was counted."""

    SYSCALLS = "syscalls"
    NETWORK_FLOW = "network_flow"
    PROCESS = "process"


@dataclass(frozen=True, slots=True)
class Activity:
    """One figure of a service: ``statement`` says it in words with its unit (``retransmits to 10.0.3.7: 41 /s``)."""

    kind: ActivityKind
    service: ServiceName
    instance: str
    at: datetime
    statement: str
    value: float


@dataclass(frozen=True, slots=True)
class ActivityReading:
    """Figures, and what could not be read."""

    activities: tuple[Activity, ...] = ()
    failures: tuple[SourceFailure, ...] = ()
