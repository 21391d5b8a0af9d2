"""Who calls whom, as seen in the traffic."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache

from pipeline.domain.ids import ServiceName
from pipeline.domain.telemetry import CallEdge

Pair = tuple[ServiceName, ServiceName]

EDGE_AGE_S = 86_400.0


@dataclass(frozen=True, slots=True)
class DependencyGraph:
    """A directed graph of services; an edge goes from the caller to the callee."""

    edges: frozenset[Pair]

    @classmethod
    def of(cls, edges: Iterable[CallEdge]) -> DependencyGraph:
        return cls(frozenset((edge.caller, edge.callee) for edge in edges if edge.caller != edge.callee))

    def callees(self, service: ServiceName) -> frozenset[ServiceName]:
        """All services that ``service`` depends on, over any number of hops."""
        return _reach(service, self.edges, False)

    def callers(self, service: ServiceName) -> frozenset[ServiceName]:
        """All services that depend on ``service``, over any number of hops: those it can hurt."""
        return _reach(service, self.edges, True)

    def knows(self, service: ServiceName) -> bool:
        return any(service in edge for edge in self.edges)


class EdgeAges:
    """Edges as they are seen; one that was not seen for ``max_age_s`` is gone."""

    def __init__(self, lasting: Iterable[Pair] = (), *, max_age_s: float = EDGE_AGE_S) -> None:
        self._lasting = frozenset(edge for edge in lasting if edge[0] != edge[1])
        self._seen: dict[Pair, float] = {}
        self._max_age_s = max_age_s

    def see(self, edges: Iterable[Pair], ts: float) -> None:
        """Notes that ``edges`` were seen at ``ts`` (epoch seconds)."""
        self._seen.update((edge, ts) for edge in edges if edge[0] != edge[1])

    def graph(self, ts: float) -> DependencyGraph:
        """The graph of the edges that are young enough at ``ts``, and of the lasting ones."""
        self._seen = {edge: at for edge, at in self._seen.items() if ts - at <= self._max_age_s}
        return DependencyGraph(self._lasting | frozenset(self._seen))


@lru_cache(maxsize=4096)
def _reach(start: ServiceName, edges: frozenset[Pair], upwards: bool) -> frozenset[ServiceName]:
    source, sink = (1, 0) if upwards else (0, 1)
    onward: dict[ServiceName, list[ServiceName]] = {}
    for edge in edges:
        onward.setdefault(edge[source], []).append(edge[sink])
    seen: set[ServiceName] = set()
    frontier = [start]
    while frontier:
        for found in onward.get(frontier.pop(), ()):
            if found not in seen and found != start:
                seen.add(found)
                frontier.append(found)
    return frozenset(seen)
