"""Models' answers kept for reuse. Methods may raise TemporaryError."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from pipeline.domain.anomaly import AnomalyKind
from pipeline.domain.diagnosis import Hypothesis
from pipeline.domain.ids import IncidentId, ServiceName
from pipeline.domain.telemetry import Signal


@dataclass(frozen=True, slots=True)
class CauseKey:
    """What a diagnosis is kept under for reuse: the same trouble of the same metric of the same service."""

    service: ServiceName
    kind: AnomalyKind
    signal: Signal


@dataclass(frozen=True, slots=True)
class CachedDiagnosis:
    """A model's answer as it was given for ``incident_id``."""

    incident_id: IncidentId
    hypothesis: Hypothesis
    source: str
    made_at: datetime


class DiagnosisCache(Protocol):
    """Models' answers, kept for reuse."""

    async def find(self, key: CauseKey, rests_on: str, *, ttl_s: float) -> CachedDiagnosis | None:
        """The answer for ``key``, when it is younger than ``ttl_s`` and rests on the same things."""
        ...

    async def keep(
        self, key: CauseKey, rests_on: str, incident_id: IncidentId, hypothesis: Hypothesis, source: str
    ) -> None: ...
    async def drop(self, incident_id: IncidentId) -> bool:
        """Forgets what is kept for the causes of an incident, for it proved wrong; True when there was something."""
        ...
