"""The durable store, one transaction at a time. Every method may raise TemporaryError when the database is away."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal, Protocol

from pipeline.domain.anomaly import Anomaly, AnomalyKind
from pipeline.domain.approval import Approval
from pipeline.domain.baseline import BaselineRow
from pipeline.domain.changes import ChangeEvent
from pipeline.domain.diagnosis import Diagnosis, Evidence, Hypothesis, Passage
from pipeline.domain.execution import Execution, Intent
from pipeline.domain.guardrail import GuardrailResult
from pipeline.domain.ids import ExecutionId, IncidentId, OutboxId, PlanId, ServiceName, SlackUserId
from pipeline.domain.incident import Case, Incident
from pipeline.domain.lifecycle import ExecutionState, IncidentState, PlanState
from pipeline.domain.logs import LogPattern
from pipeline.domain.notice import BusNotice, CardNotice, ThreadNotice
from pipeline.domain.phase import Phase, TrackRecord
from pipeline.domain.plan import ManualAction, Plan, RestartAction, ScaleAction, TargetRef
from pipeline.domain.severity import SeverityResult
from pipeline.domain.telemetry import CallEdge, Sample, SeriesKey, Signal, SourceFailure
from pipeline.domain.topology import DependencyGraph
from pipeline.domain.trace import StoredTraceEntry, TraceEntry
from pipeline.domain.verification import Verification

SYSTEM = IncidentId(0)
"""The trail of the bot as a whole: switches, phases, denials without an incident."""


@dataclass(frozen=True, slots=True)
class KillSwitch:
    """One switch. ``scope`` is ``all`` or a service's name; ``resume_asked_by`` waits for a second person."""

    scope: str
    engaged: bool
    reason: str
    changed_by: str
    changed_at: datetime
    resume_asked_by: str | None


@dataclass(frozen=True, slots=True)
class SourceHealth:
    """The last reading of a telemetry source. ``rejected``: values turned away since the bot's start, by reason."""

    source: str
    failures: tuple[str, ...]
    read_at: datetime
    rejected: Mapping[str, int] = field(default_factory=dict)


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


@dataclass(frozen=True, slots=True)
class PlanDraft:
    """A plan before the database gave it an id and a revision."""

    incident_id: IncidentId
    action: RestartAction | ScaleAction | ManualAction
    target: TargetRef | None
    generation: str
    replicas_before: int
    approvals_needed: int
    expected_effect: str
    ttl_s: float
    requested_by: str = ""
    """Who asked for this revision; empty when the bot proposed it."""


@dataclass(frozen=True, slots=True)
class ActionHistory:
    """What was done to one target: seconds since the last action (None: never) and how many in the last hour."""

    last_action_s_ago: float | None
    last_hour: int
    last_hour_everywhere: int
    open_elsewhere: int


@dataclass(frozen=True, slots=True)
class OutboxRow:
    """A notice to be sent. ``in_doubt``: an earlier attempt may have reached the other side."""

    id: OutboxId
    incident_id: IncidentId | None
    notice: CardNotice | ThreadNotice | BusNotice
    attempts: int
    in_doubt: bool


@dataclass(frozen=True, slots=True)
class CardPlace:
    """Where an incident's card stands in Slack."""

    channel: str
    ts: str


class TelemetryStore(Protocol):
    """Samples, baselines, edges, and how the sources do."""

    async def save_samples(self, samples: Sequence[Sample]) -> None: ...
    async def window(self, since: datetime) -> Mapping[SeriesKey, Sequence[Sample]]:
        """Every series' samples from ``since`` on, oldest first."""
        ...

    async def services_window(self, since: datetime) -> Mapping[SeriesKey, Sequence[Sample]]:
        """The same, of the series of services as a whole, without those of their replicas."""
        ...

    async def service_window(self, service: ServiceName, since: datetime) -> Mapping[SeriesKey, Sequence[Sample]]: ...
    async def save_edges(self, edges: Sequence[CallEdge], at: datetime) -> None: ...
    async def graph(self, *, max_age_s: float) -> DependencyGraph: ...
    async def save_health(
        self, source: str, failures: Sequence[SourceFailure], at: datetime, rejected: Mapping[str, int]
    ) -> None: ...
    async def save_changes(self, changes: Sequence[ChangeEvent]) -> None: ...
    async def changes(self, since: datetime) -> Sequence[ChangeEvent]:
        """Changes that took effect at or after ``since``, oldest first."""
        ...

    async def save_log_patterns(self, patterns: Sequence[LogPattern]) -> None: ...
    async def log_patterns(self, service: ServiceName, since: datetime) -> Sequence[LogPattern]:
        """Patterns of one service seen at or after ``since``, the most frequent first."""
        ...

    async def health(self) -> Sequence[SourceHealth]: ...
    async def load_baselines(self) -> Sequence[BaselineRow]: ...
    async def save_baselines(self, rows: Sequence[BaselineRow]) -> None: ...
    async def prune(self, *, keep_s: float) -> int:
        """Deletes samples, ticks and seen requests older than ``keep_s``; returns how many samples went."""
        ...


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
    async def attach(self, incident_id: IncidentId, anomaly: Anomaly) -> bool:
        """Adds or refreshes an anomaly; True when its series is new to the incident."""
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


class PlanStore(Protocol):
    """Plans and decisions. ``move`` is conditional on the state."""

    async def propose(self, draft: PlanDraft, guardrails: GuardrailResult) -> Plan:
        """Stores the next revision; an earlier proposed one is superseded in the same statement."""
        ...

    async def get(self, plan_id: PlanId) -> Plan | None: ...
    async def move(self, plan_id: PlanId, from_: PlanState, to: PlanState) -> bool:
        """False when the plan is not in ``from_`` any more."""
        ...

    async def expired(self) -> Sequence[Plan]:
        """Proposed plans past their expiry by the database's clock."""
        ...

    async def is_expired(self, plan_id: PlanId) -> bool: ...
    async def decide(self, approval: Approval) -> bool:
        """Records one person's word; False when that person has decided on this plan already."""
        ...

    async def approvals(self, plan_id: PlanId) -> Sequence[Approval]: ...
    async def waiting(self) -> Sequence[Plan]: ...
    async def save_guardrails(self, plan_id: PlanId, result: GuardrailResult) -> None: ...


class ExecutionStore(Protocol):
    """Executions under the claim-and-fence protocol."""

    async def create(self, plan: Plan, kind: Literal["apply", "rollback"], action: RestartAction | ScaleAction) -> bool:
        """Makes the execution and its steps; False when the target has an open one or this plan was executed."""
        ...

    async def get(self, execution_id: ExecutionId) -> Execution | None: ...
    async def claim(self, *, worker: str, lease_s: float) -> Execution | None:
        """A ready execution, its fence raised, leased to ``worker``."""
        ...

    async def take_over(self, *, worker: str, lease_s: float) -> Execution | None:
        """A claimed, dispatched or unknown execution whose lease ran out, its fence raised."""
        ...

    async def renew(self, execution_id: ExecutionId, fence: int, *, lease_s: float) -> bool: ...
    async def move(
        self,
        execution_id: ExecutionId,
        fence: int,
        to: ExecutionState,
        *,
        detail: str = "",
        delay_s: float = 0.0,
    ) -> bool:
        """False when the fence is not the current one or the state does not allow it."""
        ...

    async def may_call(self, execution_id: ExecutionId, fence: int) -> str:
        """Empty when a call may go out now; else why not (fence lost, lease over, kill switch)."""
        ...

    async def step_dispatched(self, intent: Intent) -> bool: ...
    async def step_applied(self, execution_id: ExecutionId, fence: int, step: int, detail: str) -> bool: ...
    async def step_failed(self, execution_id: ExecutionId, fence: int, step: int, detail: str) -> bool: ...
    async def step_pending(self, execution_id: ExecutionId, fence: int, step: int, detail: str) -> bool:
        """Back to pending, for a step proven not applied."""
        ...

    async def intent(self, execution_id: ExecutionId, step: int) -> Intent:
        """The intent under which the step was dispatched last."""
        ...

    async def history(self, target_uid: str, *, besides: PlanId | None) -> ActionHistory:
        """What was done, leaving the executions of plan ``besides`` out."""
        ...


class ControlStore(Protocol):
    """Kill switches, phase, ticks and requests seen."""

    async def switches(self) -> Sequence[KillSwitch]: ...
    async def engaged(self, service: ServiceName) -> KillSwitch | None:
        """The engaged switch that covers ``service``, if any."""
        ...

    async def kill(self, scope: str, reason: str, user: SlackUserId) -> None: ...
    async def resume(self, scope: str, reason: str, user: SlackUserId, *, people_needed: int) -> bool:
        """True when the switch is released; False when it waits for another person."""
        ...

    async def phase(self) -> Phase | None: ...
    async def set_phase(self, phase: Phase, reason: str, user: str) -> None: ...
    async def track_record(self) -> TrackRecord: ...
    async def win_tick(self, job: str, slot: int) -> bool: ...
    async def first_time(self, key: str) -> bool:
        """True once per key, over restarts and replicas."""
        ...

    async def tokens_spent(self, *, within_s: float) -> int:
        """Tokens that models were sent and wrote in the last ``within_s`` seconds, by the trail."""
        ...


class Outbox(Protocol):
    """Notices, first in first out per incident."""

    async def add(self, incident_id: IncidentId | None, notice: CardNotice | ThreadNotice | BusNotice) -> None: ...
    async def claim(self, *, worker: str, lease_s: float) -> OutboxRow | None: ...
    async def attempting(self, outbox_id: OutboxId) -> None:
        """Commits that the other side may see it from now on."""
        ...

    async def keep(self, outbox_id: OutboxId, *, worker: str, lease_s: float) -> bool:
        """Renews the lease; False when it is somebody else's."""
        ...

    async def done(self, outbox_id: OutboxId) -> None: ...
    async def retry(self, outbox_id: OutboxId, *, delay_s: float, error: str, surely_not_sent: bool) -> None: ...
    async def dead(self, outbox_id: OutboxId, error: str) -> None: ...
    async def counts(self) -> Mapping[str, int]:
        """Rows by state."""
        ...


class TraceStore(Protocol):
    """The append-only trail."""

    async def add(self, incident_id: IncidentId, entry: TraceEntry) -> None: ...
    async def read(self, incident_id: IncidentId) -> Sequence[StoredTraceEntry]: ...
    async def first_broken(self, incident_id: IncidentId) -> int | None:
        """The first entry whose number or hash does not fit; None when the chain holds, tail included."""
        ...


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
    def control(self) -> ControlStore: ...
    @property
    def outbox(self) -> Outbox: ...
    @property
    def trace(self) -> TraceStore: ...
    @property
    def diagnoses(self) -> DiagnosisCache: ...


class Store(Protocol):
    """Opens units of work."""

    def begin(self) -> AbstractAsyncContextManager[UnitOfWork]:
        """Commits when the block ends, rolls back when it raises."""
        ...
