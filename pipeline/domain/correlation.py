"""Folding: which anomalies are one incident, and which service is its root. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from pipeline.domain.anomaly import SYMPTOM_KINDS, Anomaly
from pipeline.domain.ids import IncidentId, ServiceName
from pipeline.domain.incident import FAMILY_OF, Case, Incident
from pipeline.domain.lifecycle import IncidentState, PlanState
from pipeline.domain.topology import DependencyGraph

HURTS_CALLERS = frozenset({"requests", "memory"})
"""Families whose trouble shows as latency or errors in the callers too."""


UNDECIDED_STATES = frozenset(
    {IncidentState.OPEN, IncidentState.DIAGNOSING, IncidentState.AWAITING_DECISION, IncidentState.ESCALATED}
)
"""States in which an incident may still turn out to be a symptom of another one: nothing is being done for it."""

Place = tuple[ServiceName, str]
"""A service and a family: where an incident stands."""


@dataclass(frozen=True, slots=True)
class Fold:
    """Anomalies of one cause. ``incident`` is the open one they belong to, or None for a new one at ``service``."""

    service: ServiceName
    family: str
    incident: IncidentId | None
    anomalies: tuple[Anomaly, ...]


def correlate(anomalies: Sequence[Anomaly], graph: DependencyGraph, open_incidents: Iterable[Incident]) -> list[Fold]:
    """Assigns every anomaly to one fold.

    A symptom (latency, errors) belongs to the deepest service below it, over any number of hops, that is in trouble
    itself; causes (memory, disk, certificate) stay with their own service. Services that call each other in a circle
    are equally deep and have one root: the one with a cause, else the one with an open incident, else the first by
    name. Open incidents take what belongs to them first, so that a late symptom opens no second card.
    """
    by_place: dict[Place, IncidentId] = {
        (incident.service, incident.family): incident.id for incident in open_incidents
    }
    roots = _roots(anomalies, by_place)
    below = {service: graph.callees(service) for service in {place[0] for place in roots}}
    groups: dict[Place, list[Anomaly]] = {}
    for anomaly in anomalies:
        groups.setdefault(_home(anomaly, below, roots, by_place), []).append(anomaly)
    return [
        Fold(service, family, by_place.get((service, family)), tuple(members))
        for (service, family), members in sorted(groups.items())
    ]


def explained_by(case: Case, root: Fold, graph: DependencyGraph) -> bool:
    """Whether the open incident of ``case`` is but a symptom of the newly found ``root``.

    It is when it is one of requests for which nobody has approved anything, and the root stands below every service
    that it shows trouble of.
    """
    approved = case.execution is not None or (case.plan is not None and case.plan.state is PlanState.APPROVED)
    if case.incident.family != "requests" or case.incident.state not in UNDECIDED_STATES or approved:
        return False
    seen = [item.anomaly for item in case.anomalies]
    above = graph.callers(root.service) - graph.callees(root.service)
    return (
        root.family in HURTS_CALLERS
        and case.incident.service in above
        and bool(seen)
        and all(anomaly.kind in SYMPTOM_KINDS and anomaly.key.service in above for anomaly in seen)
    )


def _roots(anomalies: Sequence[Anomaly], open_places: Iterable[Place]) -> list[Place]:
    troubled = {(anomaly.key.service, FAMILY_OF[anomaly.kind]) for anomaly in anomalies} | set(open_places)
    return sorted(place for place in troubled if place[1] in HURTS_CALLERS)


def _home(
    anomaly: Anomaly,
    below: Mapping[ServiceName, frozenset[ServiceName]],
    roots: Sequence[Place],
    open_places: Mapping[Place, IncidentId],
) -> Place:
    service, family = anomaly.key.service, FAMILY_OF[anomaly.kind]
    if anomaly.kind not in SYMPTOM_KINDS:
        return service, family
    reached = [place for place in roots if place[0] == service or place[0] in below[service]]
    deepest = [
        place
        for place in reached
        if not any(other in below[place[0]] and place[0] not in below[other] for other, _ in reached)
    ]
    first = min(deepest)[0]
    equals = [place for place in deepest if place[0] == first or place[0] in below[first]]
    return min(equals, key=lambda place: (place[1] != "memory", place not in open_places, place))
