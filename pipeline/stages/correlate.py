"""Anomalies into incidents: fold, open what is new, refresh what is open, and see what is over."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta

from executors.guardrails.inputs import GRAPH_MAX_AGE_S
from pipeline.domain.action_words import describe_action
from pipeline.domain.anomaly import SYMPTOM_KINDS, Anomaly, DetectionResult, DetectionSettings
from pipeline.domain.baseline import BaselineBank
from pipeline.domain.catalogue import Catalogue
from pipeline.domain.changes import SHORT_REVISION
from pipeline.domain.correlation import Fold, correlate, explained_by
from pipeline.domain.ids import IncidentId, incident_label
from pipeline.domain.incident import Case, Incident
from pipeline.domain.lifecycle import QUIET_INCIDENT_STATES, IncidentState, PlanState
from pipeline.domain.notice import ThreadNotice, ThreadPart
from pipeline.domain.severity import SeverityResult
from pipeline.domain.telemetry import SIGNAL_TITLE, SeriesKey, format_value
from pipeline.domain.topology import DependencyGraph
from pipeline.domain.trace import JsonValue, TraceEntry, TraceKind
from pipeline.ports.store import Store, UnitOfWork
from pipeline.stages.advance import advance, line, record, supersede
from pipeline.stages.triage import triage

SPLIT_AFTER_S = 600.0
"""Trouble that outlives that of its root by this long did not come of it: it becomes an incident of its own."""
SHOWN_EACH = 20
"""Anomalies of one incident in one tick that the trail tells one by one."""

_SUMMARY = ThreadNotice(part=ThreadPart.SUMMARY)


class Correlator:
    """Turns a detection's result into incidents."""

    def __init__(self, store: Store, catalogue: Catalogue, settings: DetectionSettings) -> None:
        self._store = store
        self._catalogue = catalogue
        self._settings = settings

    async def run(self, result: DetectionResult, bank: BaselineBank, now: datetime) -> int:
        """Returns how many incidents were opened."""
        opened = 0
        async with self._store.begin() as uow:
            graph = await uow.telemetry.graph(max_age_s=GRAPH_MAX_AGE_S)
            open_incidents = {incident.id: incident for incident in await uow.incidents.open()}
            attached = await uow.incidents.attached()
            left = {
                key: attached[key] for key in await uow.incidents.left_behind(after_s=SPLIT_AFTER_S) if key in attached
            }
            held = {key: owner for key, owner in attached.items() if key not in left}
            standing = [incident for incident in open_incidents.values() if incident.id not in left.values()]
            for fold in correlate(result.anomalies, graph, standing, held):
                root = await self._take_in(uow, fold, graph, bank, now)
                await self._split(uow, fold, fold.incident or root, left)
                if root is None:
                    continue
                opened += 1
                for incident in list(open_incidents.values()):
                    if await self._fold_into(uow, incident, fold, root, graph):
                        del open_incidents[incident.id]
            for incident in open_incidents.values():
                await self._see_whether_over(uow, incident, result)
        return opened

    async def _take_in(
        self, uow: UnitOfWork, fold: Fold, graph: DependencyGraph, bank: BaselineBank, now: datetime
    ) -> IncidentId | None:
        """The incident that was opened for ``fold``, if one was."""
        incident_id = fold.incident
        opened = False
        if incident_id is None:
            severity = await self._severity(uow, fold, graph, bank, now)
            incident = await uow.incidents.create(
                service=fold.service,
                environment=self._catalogue[fold.service].environment,
                family=fold.family,
                severity=severity,
                title=_title(fold),
                callers=sorted(graph.callers(fold.service)),
                generated_baseline=any(bank.expect(anomaly.key, now).generated for anomaly in fold.anomalies),
            )
            if incident is None:
                return None
            incident_id, opened = incident.id, True
            await record(
                uow,
                incident_id,
                entries=[
                    TraceEntry(
                        TraceKind.DETECTED,
                        incident.title,
                        {
                            "kind": fold.lead.kind.value,
                            "family": fold.family,
                            "service": fold.service,
                            "candidates": [
                                {"service": one.service, "score": round(one.score, 3), "reason": one.reason}
                                for one in fold.candidates
                            ],
                        },
                    ),
                    _severity_entry(severity),
                ],
            )
        joined = await uow.incidents.attach(incident_id, *fold.anomalies)
        if joined:
            # One redraw for all that came: in a storm each would be one more row for the outbox.
            await record(uow, incident_id, entries=_folded(joined), redraw=not opened)
        grown = bool(joined) and not opened
        if grown:
            await self._judge_again(uow, incident_id, graph, bank, now)
        return incident_id if opened else None

    async def _split(
        self, uow: UnitOfWork, fold: Fold, into: IncidentId | None, left: Mapping[SeriesKey, IncidentId]
    ) -> None:
        """Takes what goes on elsewhere off the incidents it was folded into; their trails keep it and say where to."""
        if into is None:
            return
        for anomaly in fold.anomalies:
            before = left.get(anomaly.key)
            if before is None or before == into:
                continue
            await uow.incidents.clear(before, [anomaly.key])
            said = f"{anomaly.key.describe()} goes on as {incident_label(into)}: the root here is well again"
            await record(
                uow, before, entries=[TraceEntry(TraceKind.FOLDED, said, {"into": into})], notices=[line(f"{said}.")]
            )
            came = f"{anomaly.key.describe()} was seen with {incident_label(before)} before"
            await record(uow, into, entries=[TraceEntry(TraceKind.FOLDED, came, {"from": before})])

    async def _fold_into(
        self, uow: UnitOfWork, incident: Incident, fold: Fold, root: IncidentId, graph: DependencyGraph
    ) -> bool:
        """Closes an undecided incident that turns out to be a symptom of the incident ``root``, opened just now.

        Its anomalies go where they belong with the next detection, if they last.
        """
        case = await uow.incidents.case(incident.id)
        if case is None or not explained_by(case, fold, graph):
            return False
        plan = await uow.plans.get(case.plan.id) if case.plan is not None else None  # held before the incident
        if plan is not None and plan.state is PlanState.APPROVED:
            return False
        outcome = f"folded into {incident_label(root)}"
        why = f"{fold.service}, which {incident.service} depends on, is in trouble itself"
        entry = TraceEntry(TraceKind.FOLDED, f"{outcome}: {why}", {"into": root, "service": fold.service})
        said = [line(f"Folded into {incident_label(root)}: {why}. It goes on there."), _SUMMARY]
        moved = await advance(uow, case.incident, IncidentState.CLOSED, outcome=outcome, entries=[entry], notices=said)
        if moved is not None and plan is not None:
            await supersede(uow, plan.id, plan.state)
        return moved is not None

    async def _judge_again(
        self, uow: UnitOfWork, incident_id: IncidentId, graph: DependencyGraph, bank: BaselineBank, now: datetime
    ) -> None:
        """New symptoms may make an incident worse. With a plan on the table its severity stays: people judge by it."""
        case = await uow.incidents.case(incident_id)
        if case is None or case.severity is None or case.plan is not None:
            return
        window = await uow.telemetry.window(now - timedelta(seconds=self._settings.window_s))
        anomalies = [item.anomaly for item in case.anomalies]
        severity = triage(case.incident.service, anomalies, window, bank, self._catalogue, graph)
        if severity.score <= case.severity.score:
            return
        await uow.incidents.save_severity(incident_id, severity)
        await record(uow, incident_id, entries=[_severity_entry(severity)])

    async def _severity(
        self, uow: UnitOfWork, fold: Fold, graph: DependencyGraph, bank: BaselineBank, now: datetime
    ) -> SeverityResult:
        window = await uow.telemetry.window(now - timedelta(seconds=self._settings.window_s))
        return triage(fold.service, fold.anomalies, window, bank, self._catalogue, graph)

    def _how_it_ended(self, case: Case) -> tuple[str, str]:
        """The outcome, and the line for the thread: an action of ours is never denied."""
        held = f"back inside its bounds for {self._settings.clear_after_s:.0f} s"
        if case.plan is not None and case.execution is not None and case.execution.physical_changes:
            outcome = f"{held} after “{describe_action(case.plan.action)}”, which could not be verified in time"
            return outcome, f"Back to normal: {outcome}."
        outcome = f"{held} without our doing"
        return outcome, f"Recovered by itself: {outcome}."

    async def _see_whether_over(self, uow: UnitOfWork, incident: Incident, result: DetectionResult) -> None:
        await uow.incidents.clear(incident.id, result.cleared)
        if incident.state not in QUIET_INCIDENT_STATES:
            return
        case = await uow.incidents.case(incident.id)
        if case is not None and (replaced := _replaced(case, result)):
            await uow.incidents.clear(incident.id, replaced)
            case = await uow.incidents.case(incident.id)
        if case is None or not case.anomalies or any(item.cleared_at is None for item in case.anomalies):
            return
        if case.plan is not None:
            await uow.plans.get(case.plan.id)  # held before the incident, as a decision does: no deadlock with a click
        current = case.incident
        outcome, said = self._how_it_ended(case)
        over = await advance(
            uow,
            current,
            IncidentState.SELF_RECOVERED,
            outcome=outcome,
            notices=[line(said), _SUMMARY],
        )
        if over is not None and case.plan is not None:
            await supersede(uow, case.plan.id, case.plan.state)


def _folded(joined: Sequence[Anomaly]) -> list[TraceEntry]:
    """An entry each, and beyond ``SHOWN_EACH`` one for all others: every anomaly itself stands with the incident."""
    entries = [
        TraceEntry(
            TraceKind.FOLDED,
            f"{one.key.describe()} {format_value(one.value, one.key.unit)},"
            f" bound {format_value(one.bound.threshold, one.key.unit)}",
            {"kind": one.kind.value, "service": one.key.service, "instance": one.key.instance},
        )
        for one in joined[:SHOWN_EACH]
    ]
    more = joined[SHOWN_EACH:]
    if more:
        kinds: dict[str, JsonValue] = {**Counter(one.kind.value for one in more)}
        entries.append(TraceEntry(TraceKind.FOLDED, f"{len(more)} more anomalies at the same time", {"kinds": kinds}))
    return entries


def _severity_entry(severity: SeverityResult) -> TraceEntry:
    return TraceEntry(
        TraceKind.SEVERITY,
        f"{severity.severity}: {severity.arithmetic()}",
        {"score": severity.score, "parts": dict(severity.parts)},
    )


def _replaced(case: Case, result: DetectionResult) -> list[SeriesKey]:
    """Series of replicas that are gone while their siblings report and are well: gone with their trouble."""
    healthy = {(key.service, key.signal) for key in result.within & result.fresh if key.instance}
    return [
        item.anomaly.key
        for item in case.anomalies
        if item.cleared_at is None
        and item.anomaly.key.instance
        and item.anomaly.key not in result.fresh
        and (item.anomaly.key.service, item.anomaly.key.signal) in healthy
    ]


def _title(fold: Fold) -> str:
    lead = fold.lead
    what = SIGNAL_TITLE[lead.key.signal]
    value = format_value(lead.value, lead.key.unit)
    if lead.change is not None:
        return f"{what} {value} since {lead.change.kind.value} {lead.change.revision[:SHORT_REVISION]}"
    if lead.kind in SYMPTOM_KINDS and lead.sigmas > 0:
        return f"{what} {value}, {lead.distance} above baseline"
    side = "above" if lead.bound.breach_above else "below"
    return f"{what} {value}, {side} {format_value(lead.bound.threshold, lead.key.unit)}"
