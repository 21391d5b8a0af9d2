"""Folding: which anomalies are one incident, and which service is its root. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from pipeline.domain.anomaly import SYMPTOM_KINDS, Anomaly
from pipeline.domain.ids import IncidentId, ServiceName
from pipeline.domain.incident import FAMILY_OF, Incident
from pipeline.domain.topology import DependencyGraph

HURTS_CALLERS = frozenset({"requests", "memory"})
"""Families whose trouble shows as latency or errors in the callers too."""


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
    itself; causes (memory, disk, certificate) stay with their own service. Open incidents take what belongs to them
    first, so that a late symptom opens no second card.
    """
    incidents = list(open_incidents)
    roots = _roots(anomalies, graph, incidents)
    groups: dict[tuple[ServiceName, str], list[Anomaly]] = {}
    for anomaly in anomalies:
        groups.setdefault(_home(anomaly, graph, roots), []).append(anomaly)
    by_place = {(incident.service, incident.family): incident.id for incident in incidents}
    return [
        Fold(service, family, by_place.get((service, family)), tuple(members))
        for (service, family), members in sorted(groups.items())
    ]


def _roots(
    anomalies: Sequence[Anomaly], graph: DependencyGraph, incidents: Sequence[Incident]
) -> list[tuple[ServiceName, str]]:
    troubled = {(anomaly.key.service, FAMILY_OF[anomaly.kind]) for anomaly in anomalies}
    troubled |= {(incident.service, incident.family) for incident in incidents}
    return sorted(place for place in troubled if place[1] in HURTS_CALLERS)


def _home(
    anomaly: Anomaly, graph: DependencyGraph, roots: Sequence[tuple[ServiceName, str]]
) -> tuple[ServiceName, str]:
    service, family = anomaly.key.service, FAMILY_OF[anomaly.kind]
    if anomaly.kind not in SYMPTOM_KINDS:
        return service, family
    below = graph.callees(service)
    deepest = [
        place
        for place in roots
        if place[0] in below and not any(other[0] in graph.callees(place[0]) for other in roots)
    ]
    if deepest:
        return min(deepest, key=lambda place: (place[0], place[1] != "memory"))
    own_memory = (service, "memory")
    return own_memory if own_memory in roots else (service, family)
