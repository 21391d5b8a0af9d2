"""The durable store, one transaction at a time. Every method may raise TemporaryError when the database is away."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Protocol

from pipeline.domain.anomaly import Anomaly
from pipeline.domain.diagnosis import Diagnosis, Evidence, Passage
from pipeline.domain.ids import IncidentId, ServiceName, SlackUserId
from pipeline.domain.incident import Case, Incident
from pipeline.domain.lifecycle import IncidentState
from pipeline.domain.severity import SeverityResult
from pipeline.domain.telemetry import SeriesKey
from pipeline.domain.verification import Verification
from pipeline.ports.control import ControlStore
from pipeline.ports.diagnoses import DiagnosisCache
from pipeline.ports.executions import ExecutionStore
from pipeline.ports.history import HistoryStore
from pipeline.ports.intake import IntakeStore
from pipeline.ports.outbox import Outbox
from pipeline.ports.pager import PageStore
from pipeline.ports.plans import PlanStore
from pipeline.ports.samples import TelemetryStore
from pipeline.ports.trail import TraceStore


@dataclass(frozen=True, slots=True)
class CardPlace:
    """Where an incident's card stands in Slack."""

    channel: str
    ts: str


class IncidentStore(Protocol):
    """Incidents and their parts. Lifecycle state is written by ``move`` alone, which ``stages.advance`` calls."""

    async def create(
        self,
        *,
        service: ServiceName,
        environment: str,
        family: str,
        severity: SeverityResult,
        title: str,
        callers: Sequence[ServiceName],
        generated_baseline: bool,
    ) -> Incident | None:
        """None when an open incident of the same cause exists, or a muted one."""
        ...

    async def attached(self) -> Mapping[SeriesKey, IncidentId]:
        """The series whose trouble lasts, each with the open incident it belongs to."""
        ...

    async def left_behind(self, *, after_s: float) -> frozenset[SeriesKey]:
        """Of those, series of other services than the root, which is well again for ``after_s`` while they are not.

        Of incidents that are being acted on none: verification judges there.
        """
        ...

    async def get(self, incident_id: IncidentId) -> Incident | None: ...
    async def case(self, incident_id: IncidentId) -> Case | None: ...
    async def open(self) -> Sequence[Incident]: ...
    async def recent(self, limit: int) -> Sequence[Incident]: ...
    async def by_card(self, place: CardPlace) -> IncidentId | None: ...
    async def move(self, incident: Incident, to: IncidentState, *, outcome: str | None) -> Incident | None:
        """The incident in its new state, or None when it is not as ``incident`` says any more."""
        ...

    async def claim(self, states: Iterable[IncidentState], *, worker: str, lease_s: float) -> Incident | None:
        """The most severe incident in ``states`` that nobody works on, leased to ``worker``."""
        ...

    async def keep(self, incident_id: IncidentId, *, worker: str, lease_s: float) -> bool:
        """Renews the lease; False when it is somebody else's."""
        ...

    async def release(self, incident_id: IncidentId, *, worker: str) -> None: ...
    async def attach(self, incident_id: IncidentId, *anomalies: Anomaly) -> Sequence[Anomaly]:
        """Adds or refreshes anomalies, all at once; those whose series is new to the incident."""
        ...

    async def clear(self, incident_id: IncidentId, keys: Sequence[SeriesKey]) -> int: ...
    async def save_severity(self, incident_id: IncidentId, severity: SeverityResult) -> None: ...
    async def save_diagnosis(
        self,
        incident_id: IncidentId,
        diagnosis: Diagnosis,
        evidence: Sequence[Evidence],
        passages: Sequence[Passage],
    ) -> None: ...
    async def add_evidence(self, incident_id: IncidentId, evidence: Sequence[Evidence]) -> None:
        """Keeps what was read for a question; an id that is taken stays what it was."""
        ...

    async def save_verification(self, incident_id: IncidentId, verification: Verification) -> None: ...
    async def set_owner(self, incident_id: IncidentId, user: SlackUserId) -> None: ...
    async def mute(self, incident_id: IncidentId, *, for_s: float) -> None: ...
    async def card(self, incident_id: IncidentId) -> CardPlace | None: ...
    async def set_card(self, incident_id: IncidentId, place: CardPlace | None) -> None: ...


class UnitOfWork(Protocol):
    """All stores inside one transaction."""

    @property
    def telemetry(self) -> TelemetryStore: ...
    @property
    def incidents(self) -> IncidentStore: ...
    @property
    def plans(self) -> PlanStore: ...
    @property
    def executions(self) -> ExecutionStore: ...
    @property
    def history(self) -> HistoryStore: ...
    @property
    def control(self) -> ControlStore: ...
    @property
    def outbox(self) -> Outbox: ...
    @property
    def pages(self) -> PageStore: ...
    @property
    def trace(self) -> TraceStore: ...
    @property
    def diagnoses(self) -> DiagnosisCache: ...
    @property
    def intake(self) -> IntakeStore: ...


class Store(Protocol):
    """Opens units of work."""

    def begin(self) -> AbstractAsyncContextManager[UnitOfWork]:
        """Commits when the block ends, rolls back when it raises."""
        ...
