"""Open incidents of a world in memory: what is sent, what is folded, what is over."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from pipeline.domain.anomaly import Anomaly, AnomalyKind
from pipeline.domain.correlation import Candidate, Fold, correlate, symptom_of
from pipeline.domain.ids import IncidentId, ServiceName
from pipeline.domain.telemetry import TRENDING, SeriesKey, format_value
from pipeline.domain.topology import DependencyGraph

RESEND_S = 4 * 3600.0
RESEND_CERTIFICATE_S = 86_400.0
"""A certificate has days left: once a day is enough."""
REOPEN_S = 1800.0
"""Trouble that comes back to the same place this soon is the same incident, and pages no more."""
SILENT_S = 1800.0
"""A series that says nothing for this long keeps no incident open."""
AT_ONCE = frozenset({AnomalyKind.MEMORY_PRESSURE, AnomalyKind.DISK_EXHAUSTION, AnomalyKind.CERTIFICATE_EXPIRY})
"""Kinds that are their own root: nothing to wait for."""


@dataclass(frozen=True, slots=True)
class Page:
    """One page, sent at ``ts`` (epoch seconds).

    ``service`` is the root, ``services`` all that show trouble, ``candidates`` the possible roots, best first;
    ``change`` describes the change that the trouble is put down to (empty: none); ``severity`` is a hint: the share of
    the known services in trouble and how badly, SEV1 to SEV4. ``resend``: the incident was paged before, and lasts.
    """

    ts: float
    incident: int
    kind: AnomalyKind
    service: str
    services: tuple[str, ...]
    candidates: tuple[Candidate, ...]
    change: str
    severity: str
    title: str
    resend: bool


@dataclass(frozen=True, slots=True)
class Closed:
    """An incident that ended at ``ts``."""

    ts: float
    incident: int


@dataclass(slots=True)
class WorldIncident:
    """An incident as it stands; ``anomalies`` those that last."""

    id: IncidentId
    service: ServiceName
    family: str
    kind: AnomalyKind
    opened: float
    sent: float
    anomalies: dict[SeriesKey, Anomaly] = field(default_factory=dict)
    candidates: tuple[Candidate, ...] = ()


class Incidents:
    """Turns each step's anomalies into pages. ``settle_s``: how long trouble is watched for its root before a page."""

    def __init__(self, settle_s: float) -> None:
        self._settle_s = settle_s
        self._seen: dict[SeriesKey, float] = {}
        self._past: list[tuple[float, WorldIncident]] = []
        self._next = 1
        self.open: dict[IncidentId, WorldIncident] = {}

    def watched(self) -> frozenset[SeriesKey]:
        """The series whose clearing matters."""
        return frozenset(key for incident in self.open.values() for key in incident.anomalies)

    def take(
        self,
        ts: float,
        anomalies: Sequence[Anomaly],
        cleared: Iterable[SeriesKey],
        last_told: Mapping[SeriesKey, float],
        graph: DependencyGraph,
        known_services: int,
    ) -> tuple[list[Page], list[Closed]]:
        """One step: the pages to send and what is over. ``last_told``: epoch seconds of each series' newest sample."""
        self._seen = {one.key: self._seen.get(one.key, ts) for one in anomalies}
        pages = []
        attached = {key: incident.id for incident in self.open.values() for key in incident.anomalies}
        for fold in correlate(anomalies, graph, self.open.values(), attached):
            incident = self.open.get(fold.incident) if fold.incident is not None else None
            news = incident is None
            if incident is None:
                if not self._ready(fold, ts):
                    continue
                incident, news = self._home_for(fold, ts, graph)
            for one in fold.anomalies:
                for other in self.open.values():
                    if other is not incident:
                        other.anomalies.pop(one.key, None)
                incident.anomalies[one.key] = one
            incident.candidates = fold.candidates
            if news:
                incident.kind, incident.sent = fold.lead.kind, ts
                pages.append(_page(ts, incident, fold.lead, known_services, resend=False))
        closed = self._close(ts, frozenset(cleared), last_told)
        for incident in self.open.values():
            wait_s = RESEND_CERTIFICATE_S if incident.kind is AnomalyKind.CERTIFICATE_EXPIRY else RESEND_S
            if ts - incident.sent >= wait_s:
                incident.sent = ts
                lead = next(iter(incident.anomalies.values()))
                pages.append(_page(ts, incident, lead, known_services, resend=True))
        return pages, closed

    def _ready(self, fold: Fold, ts: float) -> bool:
        if fold.lead.kind in AT_ONCE:
            return True
        return ts - min(self._seen[one.key] for one in fold.anomalies) >= self._settle_s

    def _home_for(self, fold: Fold, ts: float, graph: DependencyGraph) -> tuple[WorldIncident, bool]:
        """The incident for a fold that has none, and whether it is news: re-rooted, taken up again, or a new one."""
        for incident in self.open.values():
            if symptom_of(incident, list(incident.anomalies.values()), fold, graph):
                incident.service, incident.family = fold.service, fold.family
                return incident, True
        for ended, incident in self._past:
            if ts - ended <= REOPEN_S and (incident.service, incident.family) == (fold.service, fold.family):
                self._past.remove((ended, incident))
                self.open[incident.id] = incident
                return incident, False
        made = WorldIncident(IncidentId(self._next), fold.service, fold.family, fold.lead.kind, ts, ts)
        self._next += 1
        self.open[made.id] = made
        return made, True

    def _close(self, ts: float, cleared: frozenset[SeriesKey], last_told: Mapping[SeriesKey, float]) -> list[Closed]:
        closed = []
        for incident in list(self.open.values()):
            for key in list(incident.anomalies):
                if key in cleared or ts - last_told.get(key, ts) > SILENT_S:
                    del incident.anomalies[key]
            if not incident.anomalies:
                del self.open[incident.id]
                self._past = [(at, one) for at, one in self._past if ts - at <= REOPEN_S]
                self._past.append((ts, incident))
                closed.append(Closed(ts, incident.id))
        return closed


def _page(ts: float, incident: WorldIncident, lead: Anomaly, known_services: int, *, resend: bool) -> Page:
    services = tuple(sorted({key.service for key in incident.anomalies}))
    share = len(services) / max(known_services, 1)
    failing = max(
        (one.value for one in incident.anomalies.values() if one.kind is AnomalyKind.ERROR_SURGE), default=0.0
    )
    level = 1 + (share < HALF and failing < HALF) + (share < 0.25 and failing < 0.2) + (incident.kind in AT_ONCE)
    unit = lead.key.unit
    title = f"{lead.key.describe()} {format_value(lead.value, unit)}"
    if lead.expected == lead.expected and lead.key.signal not in TRENDING:
        title += f", usually {format_value(lead.expected, unit)}"
    return Page(
        ts,
        incident.id,
        incident.kind,
        incident.service,
        services,
        incident.candidates,
        lead.change.describe() if lead.change is not None else "",
        f"SEV{min(level, 4)}",
        title,
        resend,
    )


HALF = 0.5
