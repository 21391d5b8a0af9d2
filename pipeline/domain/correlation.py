"""Folding: which anomalies are one incident, and which service is its root. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from datetime import datetime, timedelta
from math import isfinite, log2
from typing import Protocol

from pipeline.domain.anomaly import SYMPTOM_KINDS, Anomaly, AnomalyKind
from pipeline.domain.ids import IncidentId, ServiceName
from pipeline.domain.incident import FAMILY_OF, Case
from pipeline.domain.lifecycle import IncidentState, PlanState
from pipeline.domain.telemetry import SeriesKey
from pipeline.domain.topology import DependencyGraph

HURTS_CALLERS = frozenset({"requests", "memory"})
"""Families whose trouble shows as latency or errors in the callers too."""


UNDECIDED_STATES = frozenset(
    {IncidentState.OPEN, IncidentState.DIAGNOSING, IncidentState.AWAITING_DECISION, IncidentState.ESCALATED}
)
"""States in which an incident may still turn out to be a symptom of another one: nothing is being done for it."""

FOLDING_KINDS = SYMPTOM_KINDS | {AnomalyKind.DEPLOYMENT_REGRESSION}
"""Kinds that may belong to the trouble of another service."""
STORM_ANOMALIES = 200
"""From so many anomalies at once on, each service has one incident at most, whatever the families."""

Place = tuple[ServiceName, str]
"""A service and a family: where an incident stands."""


class Standing(Protocol):
    """What folding has to know of an open incident."""

    @property
    def id(self) -> IncidentId: ...
    @property
    def service(self) -> ServiceName: ...
    @property
    def family(self) -> str: ...


@dataclass(frozen=True, slots=True)
class Candidate:
    """A service that may be the root: ``score`` 0..1, and why in a few words."""

    service: ServiceName
    score: float
    reason: str


@dataclass(frozen=True, slots=True)
class Fold:
    """Anomalies of one cause. ``incident`` is the open one they belong to, or None for a new one at ``service``.

    ``candidates``: services that may be the root, best first; the first is ``service``.
    """

    service: ServiceName
    family: str
    incident: IncidentId | None
    anomalies: tuple[Anomaly, ...]
    candidates: tuple[Candidate, ...] = ()

    @property
    def lead(self) -> Anomaly:
        """The anomaly that says what kind of trouble this is."""
        own = [one for one in self.anomalies if one.key.service == self.service]
        named = [one for one in own if FAMILY_OF[one.kind] == self.family]
        return lead_of(named or own or list(self.anomalies))


def lead_of(anomalies: Sequence[Anomaly]) -> Anomaly:
    """A cause before a symptom; of symptoms the earlier, and of those that began together the stronger."""
    rank = [one for one in anomalies if one.kind not in SYMPTOM_KINDS] or [
        one for one in anomalies if one.kind is not AnomalyKind.MULTI_DIMENSIONAL
    ]
    pool = rank or list(anomalies)
    first = min(one.started_at for one in pool)
    together = [one for one in pool if (one.started_at - first).total_seconds() <= TOGETHER_S]
    return max(together, key=lambda one: (strength(one), one.key))


TOGETHER_S = 240.0
LATE = timedelta(seconds=180)
"""A surge may be told this much later than what it overloads: it has to be larger to count."""


def strength(anomaly: Anomaly) -> float:
    """How bad, on one scale for all kinds: 1 is a doubling of latency, a fifth of all requests failing."""
    value, expected = anomaly.peak, anomaly.expected
    match anomaly.kind:
        case AnomalyKind.ERROR_SURGE:
            return 5.0 * value
        case AnomalyKind.TRAFFIC if isfinite(expected) and expected > 0:
            return min(abs(log2(max(value, 0.01 * expected) / expected)), 5.0) * TRAFFIC_COUNTS
        case _ if isfinite(expected) and expected > 0 and anomaly.bound.breach_above:
            return min(abs(log2(max(value / expected, 0.01))), 5.0)
        case _:
            return 1.0


TRAFFIC_COUNTS = 3.0
"""Traffic far from usual explains slow and failing requests; these do not explain it."""


def correlate(
    anomalies: Sequence[Anomaly],
    graph: DependencyGraph,
    open_incidents: Iterable[Standing],
    attached: Mapping[SeriesKey, IncidentId] | None = None,
) -> list[Fold]:
    """Assigns every anomaly to one fold.

    Slow or failing requests belong to the deepest service below, over any number of hops, that is in trouble itself;
    causes (memory, disk, certificate) stay with their own service. A surge runs down: it belongs to the topmost service
    that surges, and so does what gets slow or fails on its way; the root is where the load came in, since nothing below
    is broken, and the overloaded services stand among the candidates. A drop belongs to the topmost service that drops,
    or to what makes a service above or below fail: requests that are not made any more. Services that call each other
    in a circle are equally deep and have one root: the one with a cause, else the one with an open incident, else the
    first by name. Open incidents take what belongs to them first, so that a late symptom opens no second card.

    ``attached``: the open incident that each series belongs to already. What would make a new incident of nothing but
    such series stays where it is: the root may get well before its symptoms.
    """
    by_place: dict[Place, IncidentId] = {
        (incident.service, incident.family): incident.id for incident in open_incidents
    }
    homes = _Homes(anomalies, graph, by_place)
    groups: dict[Place, list[Anomaly]] = {}
    for anomaly in anomalies:
        groups.setdefault(homes.of(anomaly), []).append(anomaly)
    if attached:
        groups = _kept(groups, by_place, attached)
    if len(anomalies) >= STORM_ANOMALIES:
        groups = _one_each(groups, by_place)
    return [
        Fold(place[0], place[1], by_place.get(place), tuple(members), _candidates(place[0], members, graph))
        for place, members in sorted(groups.items())
    ]


def explained_by(case: Case, root: Fold, graph: DependencyGraph) -> bool:
    """Whether the open incident of ``case`` is but a symptom of the newly found ``root``.

    It is when it is one of requests for which nobody has approved anything, and the root stands below every service
    that it shows trouble of.
    """
    approved = case.execution is not None or (case.plan is not None and case.plan.state is PlanState.APPROVED)
    if case.incident.state not in UNDECIDED_STATES or approved:
        return False
    return symptom_of(case.incident, [item.anomaly for item in case.anomalies], root, graph)


def symptom_of(incident: Standing, seen: Sequence[Anomaly], root: Fold, graph: DependencyGraph) -> bool:
    """Whether the open ``incident``, which shows ``seen``, is but a symptom of ``root``.

    The root stands below every service in trouble, or it surges above them, or it is a cause at the very place.
    """
    if incident.family != "requests" or root.family not in HURTS_CALLERS or not seen:
        return False
    if not all(one.kind in SYMPTOM_KINDS for one in seen):
        return False
    above = graph.callers(root.service) - graph.callees(root.service)
    if incident.service in above and all(one.key.service in above for one in seen):
        return True
    own = {one.key.service for one in seen}
    if root.lead.kind is AnomalyKind.TRAFFIC:
        return own <= graph.callees(root.service) - graph.callers(root.service)
    return root.family == "memory" and own <= above | {root.service}


def _kept(
    groups: Mapping[Place, Sequence[Anomaly]],
    open_places: Mapping[Place, IncidentId],
    attached: Mapping[SeriesKey, IncidentId],
) -> dict[Place, list[Anomaly]]:
    places = {incident: place for place, incident in open_places.items()}
    kept: dict[Place, list[Anomaly]] = {}
    for place, members in groups.items():
        owners = {attached.get(one.key) for one in members}
        owner = owners.pop() if len(owners) == 1 else None
        symptoms = all(one.kind in FOLDING_KINDS for one in members)
        stays = place not in open_places and owner is not None and owner in places and symptoms
        kept.setdefault(places[owner] if stays and owner is not None else place, []).extend(members)
    return kept


def _one_each(
    groups: Mapping[Place, Sequence[Anomaly]], open_places: Mapping[Place, IncidentId]
) -> dict[Place, list[Anomaly]]:
    """In a storm: the groups of one service as one, at its open incident or its largest group."""
    by_service: dict[ServiceName, list[Place]] = {}
    for place in groups:
        by_service.setdefault(place[0], []).append(place)
    merged: dict[Place, list[Anomaly]] = {}
    for places in by_service.values():
        kept = min(places, key=lambda place: (place not in open_places, -len(groups[place]), place))
        merged[kept] = [one for place in sorted(places) for one in groups[place]]
    return merged


class _Homes:
    """Finds the place each anomaly belongs to; answers are kept, since a storm asks the same again and again."""

    def __init__(
        self, anomalies: Sequence[Anomaly], graph: DependencyGraph, open_places: Mapping[Place, IncidentId]
    ) -> None:
        self._graph = graph
        self._open = open_places
        self._strength: dict[Place, float] = {}
        self._began: dict[Place, datetime] = {}
        self._surging: dict[ServiceName, datetime] = {}
        self._dropping: set[ServiceName] = set()
        roots: set[Place] = {place for place in open_places if place[1] in HURTS_CALLERS}
        for one in anomalies:
            place = one.key.service, FAMILY_OF[one.kind]
            if one.kind is AnomalyKind.TRAFFIC and one.bound.breach_above:
                self._surging[one.key.service] = one.started_at
            elif one.kind is AnomalyKind.TRAFFIC:
                self._dropping.add(one.key.service)
            elif place[1] in HURTS_CALLERS:
                roots.add(place)
                self._strength[place] = max(self._strength.get(place, 0.0), strength(one))
                self._began[place] = min(self._began.get(place, one.started_at), one.started_at)
        self._roots = sorted(roots)
        services = {place[0] for place in self._roots} | self._surging.keys() | self._dropping
        self._below = {service: graph.callees(service) for service in services}
        self._slow_home: dict[ServiceName, Place] = {}

    def of(self, anomaly: Anomaly) -> Place:
        service, family = anomaly.key.service, FAMILY_OF[anomaly.kind]
        if anomaly.kind not in FOLDING_KINDS:
            return service, family
        if anomaly.kind is AnomalyKind.TRAFFIC:
            return self._surge(service) if anomaly.bound.breach_above else self._drop(service)
        return self._slow(service)

    def _slow(self, service: ServiceName) -> Place:
        found = self._slow_home.get(service)
        if found is None:
            found = self._slow_home[service] = self._overloaded(self._deepest(service))
        return found

    def _deepest(self, service: ServiceName) -> Place:
        below = self._below
        reached = [place for place in self._roots if place[0] == service or place[0] in below[service]]
        deepest = [
            place
            for place in reached
            if not any(other in below[place[0]] and place[0] not in below[other] for other, _ in reached)
        ]
        first = min(deepest, key=lambda place: (-self._strength.get(place, 0.0), place))[0]
        equals = [place for place in deepest if place[0] == first or place[0] in below[first]]
        return min(equals, key=lambda place: (place[1] != "memory", place not in self._open, place))

    def _overloaded(self, root: Place) -> Place:
        """A root that surges, or got slow under a surge above it, is overloaded: it belongs where that comes from."""
        service, family = root
        if family != "requests":
            return root
        if service in self._surging:
            return self._top(service, self._surging.keys()), "requests"
        began = self._began.get(root)
        loaded = {
            one
            for one, since in self._surging.items()
            if began is not None and service in self._below[one] and since <= began + LATE
        }
        return (self._top(min(loaded), self._surging.keys()), "requests") if loaded else root

    def _surge(self, service: ServiceName) -> Place:
        top = self._top(service, self._surging.keys())
        return self._standing(top, (top, "requests"))

    def _drop(self, service: ServiceName) -> Place:
        top = self._top(service, self._dropping)
        troubled = [place for place in self._roots if place[1] in HURTS_CALLERS]
        if any(place[0] == top or place[0] in self._below[top] for place in troubled):
            near = [place for place in troubled if place[0] == top or place[0] in self._below[top]]
            asking = min(near, key=lambda place: (place[0] != top, -self._strength.get(place, 0.0), place))
            return self._slow(asking[0]) if asking[1] == "requests" else asking
        above = self._graph.callers(top)
        failing = [place for place in troubled if place[0] in above]
        if failing:
            return self._slow(min(failing, key=lambda place: (-self._strength.get(place, 0.0), place))[0])
        return top, "requests"

    def _standing(self, service: ServiceName, otherwise: Place) -> Place:
        """The open incident of requests at ``service`` or at what it overloads."""
        if otherwise in self._open:
            return otherwise
        below = self._below[service] & self._surging.keys()
        return min((place for place in self._open if place[1] == "requests" and place[0] in below), default=otherwise)

    def _top(self, service: ServiceName, among: AbstractSet[ServiceName]) -> ServiceName:
        """The topmost of ``among`` above ``service``: one that none of ``among`` calls, but for circles."""
        above = {one for one in among if service in self._below[one]} | {service}
        tops = [
            one
            for one in above
            if not any(one in self._below[other] and other not in self._below[one] for other in above)
        ]
        return min(tops, key=lambda one: (one != service, one)) if service in tops else min(tops)


def _candidates(root: ServiceName, members: Sequence[Anomaly], graph: DependencyGraph) -> tuple[Candidate, ...]:
    """The services of a fold, best first: early, strong, nothing in trouble below, a cause or a change of their own."""
    by_service: dict[ServiceName, list[Anomaly]] = {}
    for one in members:
        by_service.setdefault(one.key.service, []).append(one)
    first = min(one.started_at for one in members)
    largest = max(strength(one) for one in members) or 1.0
    found = []
    for service, own in by_service.items():
        wait_s = (min(one.started_at for one in own) - first).total_seconds()
        below = graph.callees(service) & by_service.keys()
        change = next((one.change for one in own if one.change is not None), None)
        cause = next((one for one in own if one.kind not in SYMPTOM_KINDS), None)
        score = 0.25 / (1.0 + wait_s / 300.0) + 0.2 * max(strength(one) for one in own) / largest
        score += 0.0 if below else 0.25
        score += 0.3 if service == root else 0.15 * (cause is not None)
        said = [lead_of(own).key.describe()]
        if change is not None:
            said.append(f"since {change.describe()}")
        said.append(f"calls {', '.join(sorted(below)[:3])}" if below else "nothing below it is in trouble")
        found.append(Candidate(service, round(min(score, 1.0), 3), "; ".join(said)))
    return tuple(sorted(found, key=lambda one: (one.service != root, -one.score, one.service)))
