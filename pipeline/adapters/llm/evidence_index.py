"""Looking up what was read, by service, signal and sign, so that the rules engine can cite what really exists."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from datetime import datetime

from pipeline.domain.anomaly import Anomaly, AnomalyKind
from pipeline.domain.diagnosis import Citation, Evidence, EvidenceKind, Sign
from pipeline.domain.ids import ServiceName
from pipeline.domain.review import known_instances
from pipeline.domain.telemetry import Signal
from pipeline.domain.topology import DependencyGraph
from pipeline.ports.model import Question

MAX_CITED = 3
QUOTE_CHARS = 400
METRIC: frozenset[EvidenceKind] = frozenset({"metric"})
MEASURED: frozenset[EvidenceKind] = METRIC | {"anomaly"}


class EvidenceIndex:
    """All evidence of one question so far."""

    def __init__(self, question: Question) -> None:
        self.service = question.service
        self.items = tuple(question.read)
        self.anomalies = tuple(question.anomalies)
        self.instances = known_instances(question)
        self.graph = _graph(self.items)

    def own(self, *kinds: AnomalyKind) -> list[Anomaly]:
        """Anomalies of the service itself, the first first."""
        mine = [item for item in self.anomalies if item.kind in kinds and item.key.service == self.service]
        return sorted(mine, key=lambda item: item.started_at)

    def of(self, anomalies: Iterable[Anomaly]) -> list[Evidence]:
        """The evidence that shows these anomalies."""
        wanted = [(one.key.service, one.key.signal, one.key.instance or one.key.service) for one in anomalies]
        shown = {(item.service, item.signal, item.subject): item for item in self.items if item.kind == "anomaly"}
        return [shown[key] for key in dict.fromkeys(wanted) if key in shown]

    def measured(
        self,
        service: str,
        signals: Collection[Signal],
        signs: Collection[Sign] = (Sign.ABNORMAL,),
        kinds: Collection[EvidenceKind] = MEASURED,
    ) -> list[Evidence]:
        """What was measured of a service, in the order it was read."""
        return [
            item
            for item in self.items
            if item.service == service and item.signal in signals and item.sign in signs and item.kind in kinds
        ]

    def rising(self, signal: Signal) -> list[Evidence]:
        """Growth (or, of a certificate, the running out) of the service's own series: beside what they are now."""
        found = self.measured(self.service, (signal,), kinds=METRIC)
        return [item for item in found if item.query.startswith("deriv(")]

    def any_of(self, service: str, signal: Signal) -> list[Evidence]:
        """Whatever was measured of a signal, good or bad, the service's own figures before its replicas'."""
        found = self.measured(service, (signal,), tuple(Sign))
        return sorted(found, key=lambda item: item.subject != service)

    def changes(self, service: str, before: datetime, *, within_s: float, late_s: float) -> list[Evidence]:
        """Changes of a service that what began at ``before`` may have come of, the latest first."""
        near = [
            item
            for item in self.items
            if item.kind == "change"
            and item.service == service
            and item.began is not None
            and -late_s <= (before - item.began).total_seconds() <= within_s
            and item.snapshot.get("kind") != "scaling"
        ]
        return sorted(near, key=_began, reverse=True)

    def events(self, service: str) -> list[Evidence]:
        """What happened to a service by its logs and the kernel: kills, evictions."""
        return [
            item
            for item in self.items
            if item.kind in ("log", "activity") and item.service == service and item.sign is Sign.HAPPENED
        ]

    def written(self, service: str) -> list[Evidence]:
        """What is new or surging in a service's logs."""
        return [item for item in self.kind("log", service) if item.sign in (Sign.ABNORMAL, Sign.HAPPENED)]

    def kind(self, kind: EvidenceKind, service: str = "") -> list[Evidence]:
        """All of a kind, of one service where it is named."""
        return [item for item in self.items if item.kind == kind and service in ("", item.service)]


def began_of(items: Sequence[Evidence]) -> datetime | None:
    """When the first of them began; None where that is not known of any."""
    return min((item.began for item in items if item.began is not None), default=None)


def cited(items: Sequence[Evidence]) -> tuple[Citation, ...]:
    """Citations word for word, of statements that have any words."""
    distinct = {item.id: item for item in items if item.statement.strip()}
    return tuple(Citation(id=name, quote=item.statement[:QUOTE_CHARS]) for name, item in distinct.items())[:MAX_CITED]


def _began(item: Evidence) -> datetime:
    return item.began or item.window_from


def _graph(items: Iterable[Evidence]) -> DependencyGraph:
    """The edges that were read, out of what was stored of them."""
    edges: set[tuple[ServiceName, ServiceName]] = set()
    for item in items:
        pairs = item.snapshot.get("edges") if item.kind == "topology" else None
        for pair in pairs if isinstance(pairs, list) else ():
            if isinstance(pair, list) and len(pair) == 2 and all(isinstance(name, str) for name in pair):
                edges.add((ServiceName(str(pair[0])), ServiceName(str(pair[1]))))
    return DependencyGraph(frozenset(edges))
