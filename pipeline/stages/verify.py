"""Did it help? Fresh samples of every series that was in trouble, against the bounds that raised the alarm."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import datetime, timedelta

from pipeline.domain.action import CordonAction
from pipeline.domain.execution import Execution
from pipeline.domain.incident import Case, Incident, StoredAnomaly
from pipeline.domain.lifecycle import ExecutionState, IncidentState
from pipeline.domain.notice import ThreadNotice, ThreadPart
from pipeline.domain.plan import Plan
from pipeline.domain.telemetry import Sample, SeriesKey, Signal
from pipeline.domain.trace import TraceEntry, TraceKind
from pipeline.domain.verification import Verdict, Verification, VerificationSettings, verify
from pipeline.ports.clock import Clock
from pipeline.ports.store import Store, UnitOfWork
from pipeline.stages.advance import advance

_WORST_FIRST = (Verdict.PENDING, Verdict.NOT_RECOVERED, Verdict.INCONCLUSIVE, Verdict.RECOVERED)
_EXECUTION_STATE = {
    Verdict.RECOVERED: ExecutionState.VERIFIED,
    Verdict.NOT_RECOVERED: ExecutionState.NOT_VERIFIED,
    Verdict.INCONCLUSIVE: ExecutionState.INCONCLUSIVE,
}
_PARTS = (ThreadNotice(part=ThreadPart.VERIFICATION), ThreadNotice(part=ThreadPart.SUMMARY))

OrderRollback = Callable[[UnitOfWork, Plan], Awaitable[bool]]


class Verifier:
    """Judges incidents whose action has been carried out."""

    def __init__(
        self, store: Store, order_rollback: OrderRollback, clock: Clock, settings: VerificationSettings
    ) -> None:
        self._store = store
        self._order_rollback = order_rollback
        self._clock = clock
        self._settings = settings
        self._watching_since = clock.now()

    async def run(self, incident: Incident) -> bool:
        """Moves a verifying incident on when there is a verdict. False while there is none yet."""
        now = self._clock.now()
        async with self._store.begin() as uow:
            case = await uow.incidents.case(incident.id)
            if case is None or case.execution is None or case.execution.applied_at is None:
                return False
            since = (case.execution.started_at or case.execution.applied_at) - timedelta(seconds=120)
            window = await uow.telemetry.service_window(incident.service, since)
        verification = judge(case, case.execution, window, now, self._settings)
        if verification.verdict is Verdict.PENDING or self._blind_by_our_fault(verification, now):
            return False
        async with self._store.begin() as uow:
            await self._record(uow, case, case.execution, verification)
        return True

    def _blind_by_our_fault(self, verification: Verification, now: datetime) -> bool:
        """Samples may be missing because nobody took them while we were away: look on for a while first."""
        looked_s = (now - self._watching_since).total_seconds()
        return verification.verdict is Verdict.INCONCLUSIVE and looked_s < 2 * self._settings.hold_s + 30

    async def _record(self, uow: UnitOfWork, case: Case, execution: Execution, verification: Verification) -> None:
        if not await uow.executions.move(execution.id, execution.fence, _EXECUTION_STATE[verification.verdict]):
            return
        await uow.incidents.save_verification(case.incident.id, verification)
        entry = TraceEntry(
            TraceKind.VERIFICATION,
            f"{verification.verdict.value.replace('_', ' ')}: {verification.sentence()}; {verification.reason}",
            {
                "verdict": verification.verdict.value,
                "before": verification.before,
                "after": verification.after,
                "threshold": verification.bound.threshold,
                "samples": verification.samples,
                "took_s": round(verification.took_s, 1),
            },
        )
        to, outcome = await self._next(uow, case, verification)
        entries = [entry]
        if verification.verdict is Verdict.NOT_RECOVERED and await uow.diagnoses.drop(case.incident.id):
            entries.append(TraceEntry(TraceKind.NOTE, "the diagnosis is not used again: acting on it did not help", {}))
        await advance(uow, case.incident, to, outcome=outcome, entries=entries, notices=_PARTS)

    async def _next(self, uow: UnitOfWork, case: Case, verification: Verification) -> tuple[IncidentState, str]:
        said = verification.sentence()
        if verification.verdict is Verdict.RECOVERED:
            action = case.plan.action if case.plan is not None else None
            left = "; its node stays cordoned until a person ends that" if isinstance(action, CordonAction) else ""
            return IncidentState.RESOLVED, f"recovered: {said}{left}"
        if verification.verdict is Verdict.INCONCLUSIVE:
            return IncidentState.ESCALATED, f"cannot tell: {verification.reason}"
        if case.plan is not None and await self._order_rollback(uow, case.plan):
            return IncidentState.MITIGATING, f"not recovered: {said}; rolling back"
        return IncidentState.ESCALATED, f"not recovered: {said}; the action cannot be undone, a person has to look"


def judge(
    case: Case,
    execution: Execution,
    window: Mapping[SeriesKey, Sequence[Sample]],
    now: datetime,
    settings: VerificationSettings,
) -> Verification:
    """The worst verdict over the incident's own series; on a tie the anomaly that gave the incident its name."""
    assert execution.applied_at is not None
    own = [item for item in case.anomalies if item.anomaly.key.service == case.incident.service] or list(case.anomalies)
    traffic = window.get(SeriesKey(case.incident.service, Signal.TRAFFIC), ())
    lead = case.lead
    own.sort(key=lambda item: item.anomaly.key != lead.key)
    verdicts = [
        verify(
            key=item.anomaly.key,
            before=_before(item, window, execution.started_at or execution.applied_at),
            expected=item.anomaly.expected if item.anomaly.expected == item.anomaly.expected else None,
            bound=item.anomaly.bound,
            fresh=_fresh(item.anomaly.key, window, execution.applied_at),
            traffic=traffic,
            applied_at=execution.applied_at,
            now=now,
            settings=settings,
        )
        for item in own
    ]
    return min(verdicts, key=lambda verification: _WORST_FIRST.index(verification.verdict))


def _before(item: StoredAnomaly, window: Mapping[SeriesKey, Sequence[Sample]], acted_at: datetime) -> float:
    """The last value before the action; the anomaly's own where no sample is left from then."""
    earlier = [sample.value for sample in window.get(item.anomaly.key, ()) if sample.at <= acted_at]
    return earlier[-1] if earlier else item.anomaly.value


def _fresh(key: SeriesKey, window: Mapping[SeriesKey, Sequence[Sample]], since: datetime) -> list[Sample]:
    """Samples after the action: of this series, or of its siblings when its replica was replaced under a new name."""
    own = [sample for sample in window.get(key, ()) if sample.at > since]
    if own or not key.instance:
        return own
    siblings = [
        sample
        for other, samples in window.items()
        if other.service == key.service and other.signal is key.signal
        for sample in samples
        if sample.at > since
    ]
    return sorted(siblings, key=lambda sample: sample.at)
