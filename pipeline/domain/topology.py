"""Who calls whom, as seen in the traffic."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from pipeline.domain.ids import ServiceName
from pipeline.domain.telemetry import CallEdge


@dataclass(frozen=True, slots=True)
class DependencyGraph:
    """A directed graph of services; an edge goes from the caller to the callee."""

    edges: frozenset[tuple[ServiceName, ServiceName]]

    @classmethod
    def of(cls, edges: Iterable[CallEdge]) -> DependencyGraph:
        return cls(frozenset((edge.caller, edge.callee) for edge in edges if edge.caller != edge.callee))

    def callees(self, service: ServiceName) -> frozenset[ServiceName]:
        """All services that ``service`` depends on, over any number of hops."""
        return self._reach(service, {(caller, callee) for caller, callee in self.edges})

    def callers(self, service: ServiceName) -> frozenset[ServiceName]:
        """All services that depend on ``service``, over any number of hops: those it can hurt."""
        return self._reach(service, {(callee, caller) for caller, callee in self.edges})

    def knows(self, service: ServiceName) -> bool:
        return any(service in edge for edge in self.edges)

    @staticmethod
    def _reach(start: ServiceName, edges: set[tuple[ServiceName, ServiceName]]) -> frozenset[ServiceName]:
        seen: set[ServiceName] = set()
        frontier = [start]
        while frontier:
            here = frontier.pop()
            for source, sink in edges:
                if source == here and sink not in seen and sink != start:
                    seen.add(sink)
                    frontier.append(sink)
        return frozenset(seen)
