"""An incident, and the whole case of it as read at one moment."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from pipeline.domain.anomaly import SYMPTOM_KINDS, Anomaly, AnomalyKind
from pipeline.domain.approval import Approval
from pipeline.domain.diagnosis import Diagnosis, Evidence, Passage
from pipeline.domain.execution import Execution
from pipeline.domain.guardrail import GuardrailResult
from pipeline.domain.ids import IncidentId, ServiceName, SlackUserId
from pipeline.domain.lifecycle import FINAL_INCIDENT_STATES, IncidentState
from pipeline.domain.phase import Phase
from pipeline.domain.plan import Plan
from pipeline.domain.severity import Severity, SeverityResult
from pipeline.domain.verification import Verification


@dataclass(frozen=True, slots=True)
class Incident:
    """One cause under one name. ``version`` grows with every change; writers must name the one they read."""

    id: IncidentId
    version: int
    state: IncidentState
    service: ServiceName
    environment: str
    family: str
    severity: Severity
    title: str
    opened_at: datetime
    state_since: datetime
    updated_at: datetime
    closed_at: datetime | None
    owner: SlackUserId | None
    muted_until: datetime | None
    outcome: str
    """One sentence on how it ended or why it waits; empty while it runs."""

    @property
    def over(self) -> bool:
        return self.state in FINAL_INCIDENT_STATES


@dataclass(frozen=True, slots=True)
class StoredAnomaly:
    """An anomaly as part of an incident; ``cleared_at`` is None while it lasts."""

    anomaly: Anomaly
    cleared_at: datetime | None


@dataclass(frozen=True, slots=True)
class Case:
    """Everything of one incident, read in one transaction: what a card, a thread or an answer is made from.

    ``plan``, ``guardrails`` and ``execution`` are the newest; ``rollback`` is the execution of kind rollback, if any.
    """

    incident: Incident
    anomalies: tuple[StoredAnomaly, ...]
    severity: SeverityResult | None
    callers: tuple[ServiceName, ...]
    evidence: tuple[Evidence, ...]
    passages: tuple[Passage, ...]
    diagnosis: Diagnosis | None
    plan: Plan | None
    guardrails: GuardrailResult
    approvals: tuple[Approval, ...]
    execution: Execution | None
    rollback: Execution | None
    verification: Verification | None
    phase: Phase
    service_owner: str
    by_hand: str
    """What a person would type to do the plan without the bot; empty where nobody knows."""
    generated_baseline: bool
    """The baseline rests in part on generated history (the demo's warm-up): the card says so."""
    tried: tuple[str, ...]
    """Actions of earlier plans that did not help, as ``Scale from 2 to 4 replicas — did not help, rolled back``."""
    read_at: datetime

    @property
    def lead(self) -> Anomaly:
        """The anomaly that gave the incident its name: the oldest of its own service."""
        own = [item.anomaly for item in self.anomalies if item.anomaly.key.service == self.incident.service]
        pool = own or [item.anomaly for item in self.anomalies]
        return min(pool, key=lambda anomaly: (anomaly.kind in SYMPTOM_KINDS, anomaly.started_at))


FAMILY_OF: dict[AnomalyKind, str] = {
    AnomalyKind.MEMORY_PRESSURE: "memory",
    AnomalyKind.LATENCY: "requests",
    AnomalyKind.ERROR_SURGE: "requests",
    AnomalyKind.DISK_EXHAUSTION: "disk",
    AnomalyKind.CERTIFICATE_EXPIRY: "certificate",
    AnomalyKind.TRAFFIC: "requests",
    AnomalyKind.DEPLOYMENT_REGRESSION: "requests",
    AnomalyKind.MULTI_DIMENSIONAL: "requests",
}
"""Kinds of one family on one service are one cause; the fingerprint of an open incident is unique per family."""


def fingerprint(environment: str, service: ServiceName, family: str) -> str:
    """The name under which an open incident is unique."""
    return f"{environment}/{service}/{family}"
