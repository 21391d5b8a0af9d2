"""What an investigation reads: one function a question, the same for the dossier and for the tools."""

from __future__ import annotations

import difflib
from bisect import bisect_left
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from math import isfinite

from executors.guardrails.inputs import GRAPH_MAX_AGE_S
from pipeline.domain.catalogue import Catalogue
from pipeline.domain.changes import ChangeEvent
from pipeline.domain.diagnosis import Evidence
from pipeline.domain.errors import PermanentError, TemporaryError
from pipeline.domain.ids import ServiceName
from pipeline.domain.logs import LogPattern
from pipeline.domain.plan import TargetState
from pipeline.domain.telemetry import Sample, SeriesKey, Signal
from pipeline.domain.topology import DependencyGraph
from pipeline.ports.knowledge import Knowledge, KnowledgeQuery
from pipeline.ports.samples import SourceHealth
from pipeline.ports.store import Store
from pipeline.ports.targets import Targets
from pipeline.stages.findings import (
    Window,
    of_change,
    of_passage,
    of_pattern,
    of_target,
    of_topology,
    series_facts,
    worst_first,
)
from pipeline.stages.judging import Judge
from pipeline.stages.witnesses import Testimony, Witnesses

SERIES_TOLD = 12
"""Facts about series that one question gives, the abnormal ones first."""
CHANGES_TOLD = 15
PATTERNS_TOLD = 8
NEIGHBOURS = 12
"""Neighbours of a service that are read: those it calls, then those that call it."""
DENSE_S, MOST_OLDER = 600.0, 300
"""Samples of the last ten minutes are all judged; of what is older, so many a series at most."""


@dataclass(frozen=True, slots=True)
class Ports:
    """What can be read."""

    store: Store
    targets: Targets
    catalogue: Catalogue
    witnesses: Witnesses
    knowledge: Knowledge


@dataclass(frozen=True, slots=True)
class Seen:
    """What the store knew at one moment: of the service, of its neighbours, and of others that were asked for."""

    graph: DependencyGraph
    window: Mapping[SeriesKey, Sequence[Sample]]
    changes: Sequence[ChangeEvent]
    patterns: Sequence[LogPattern]
    health: Sequence[SourceHealth]


@dataclass(frozen=True, slots=True)
class Found:
    """Facts without ids; in ``said`` why there are none, or what could not be read."""

    facts: tuple[Evidence, ...] = ()
    said: str = ""
    failed: bool = False


class Reads:
    """The questions of one investigation, as of ``judge.now``. ``services``: those known by their baselines."""

    def __init__(
        self,
        ports: Ports,
        judge: Judge,
        services: Collection[ServiceName],
        *,
        graph: DependencyGraph | None = None,
        about: ServiceName | None = None,
    ) -> None:
        self._ports = ports
        self._judge = judge
        self._services = services
        self._graph = graph
        self._about = about

    async def unknown(self, service: str) -> str:
        """Why nothing can be read about ``service``, with the names that come nearest; empty when it is known."""
        if service in self._services:
            return ""
        nodes = {node for edge in (await self._seen_graph()).edges for node in edge}
        known = self._ports.catalogue.known(nodes.union(self._services))
        if service in known:
            return ""
        near = difflib.get_close_matches(service, sorted(known), n=3, cutoff=0.5) or sorted(known)[:8]
        return f"there is no service {service[:60]!r} here; nearest: {', '.join(near) or 'none is known yet'}"

    async def metrics(self, service: ServiceName, signal: Signal, instance: str, minutes: int) -> Found:
        """Series of one signal of a service, judged."""
        window = self._window(minutes)
        async with self._ports.store.begin() as uow:
            read = thin(await uow.telemetry.service_window(service, window.since), self._judge.now)
        series = {
            key: samples
            for key, samples in read.items()
            if key.signal is signal and (not instance or key.instance == instance)
        }
        facts = worst_first(series_facts(series, self._judge, window)[0])
        if not facts:
            there = sorted({f"{key.signal.value}{' ' + key.instance if key.instance else ''}" for key in read})
            what = f"{signal.value} of {instance or service}"
            return Found((), f"no {what} in {minutes} min; measured there: {', '.join(there)[:300] or 'nothing'}")
        return Found(tuple(facts[:SERIES_TOLD]), _left_out(len(facts), SERIES_TOLD, "name an instance"))

    async def changes(self, service: ServiceName | None, minutes: int) -> Found:
        """Deployments, configuration and scaling, newest first; of all services without a name."""
        window = self._window(minutes)
        async with self._ports.store.begin() as uow:
            changes = await uow.telemetry.changes(window.since)
        facts = change_facts(changes, None if service is None else {service}, window)[::-1]
        if not facts:
            return Found((), f"no change of {service or 'any service'} was told in the last {minutes} min")
        return Found(tuple(facts[:CHANGES_TOLD]), _left_out(len(facts), CHANGES_TOLD, "name a service"))

    async def patterns(self, service: ServiceName, minutes: int) -> Found:
        """What is new or surging in the logs."""
        window = self._window(minutes)
        async with self._ports.store.begin() as uow:
            patterns = await uow.telemetry.log_patterns(service, window.since)
        if not patterns:
            return Found((), f"nothing new and nothing surging in the logs of {service} in {minutes} min")
        facts = tuple(of_pattern(pattern, window) for pattern in patterns[:PATTERNS_TOLD])
        return Found(facts, _left_out(len(patterns), PATTERNS_TOLD, "search_logs finds single lines"))

    async def logs(self, service: ServiceName, text: str, minutes: int) -> Found:
        """Lines by template."""
        heard = await self._ports.witnesses.logs(service, text, self._window(minutes))
        return _heard(heard, f"no line of {service}" + (f" with {text[:60]!r}" if text else "") + f" in {minutes} min")

    async def traces(self, service: ServiceName, errors_only: bool, minutes: int) -> Found:
        """The slowest requests."""
        heard = await self._ports.witnesses.traces(service, self._window(minutes), errors_only=errors_only)
        return _heard(heard, f"no trace through {service} in {minutes} min, or no traces are set up")

    async def events(self, service: ServiceName, minutes: int) -> Found:
        """What the cluster said of the service's pods."""
        heard = await self._ports.witnesses.events(service, self._window(minutes))
        return _heard(heard, f"no event of {service} in {minutes} min")

    async def activity(self, service: ServiceName, minutes: int) -> Found:
        """What the kernel counted."""
        heard = await self._ports.witnesses.activity(service, self._window(minutes))
        return _heard(heard, f"no kernel activity of {service}, or no such source is set up")

    async def topology(self, service: ServiceName) -> Found:
        """Who calls whom around the service, and the worst of what was measured at each neighbour."""
        window = self._window(10)
        graph = await self._seen_graph()
        about = of_topology(service, graph, window)
        if about is None:
            return Found((), f"nobody was seen calling {service}, nor {service} anybody")
        facts = [about]
        async with self._ports.store.begin() as uow:
            for neighbour in neighbours(graph, service):
                read = thin(await uow.telemetry.service_window(neighbour, window.since), self._judge.now)
                facts += worst_first(series_facts(read, self._judge, window)[0])[:1]
        return Found(tuple(facts))

    async def target(self, service: ServiceName) -> Found:
        """What runs, as its platform says."""
        state, problem = await observe(self._ports, service)
        if state is None:
            return Found((), problem, failed=True)
        return Found((of_target(state, service, self._window(0)),))

    async def knowledge(self, query: str) -> Found:
        """Passages of runbooks and post-mortems."""
        found = await self._ports.knowledge.search(
            KnowledgeQuery(query, services=(self._about,) if self._about else ()), limit=4
        )
        said = "nothing known is like this; these are only the nearest" if found.novel else ""
        facts = tuple(of_passage(passage, query, self._window(0)) for passage in found.passages)
        return Found(facts, said if facts else "the knowledge base has nothing on it")

    async def _seen_graph(self) -> DependencyGraph:
        if self._graph is None:
            async with self._ports.store.begin() as uow:
                self._graph = await uow.telemetry.graph(max_age_s=GRAPH_MAX_AGE_S)
        return self._graph

    def _window(self, minutes: float) -> Window:
        return Window(self._judge.now - timedelta(minutes=minutes), self._judge.now)


async def observe(ports: Ports, service: ServiceName) -> tuple[TargetState | None, str]:
    """The target, or why it cannot be told."""
    address = ports.catalogue[service].target
    if address is None:
        return None, f"the catalogue names no target for {service}"
    try:
        target = ports.targets.for_platform(address.platform)
        return await target.observe(await target.resolve(address)), ""
    except (TemporaryError, PermanentError) as error:
        return None, str(error)


async def read_store(
    store: Store, service: ServiceName, others: Collection[ServiceName], since: datetime, now: datetime
) -> Seen:
    """One transaction: samples of the service, its neighbours and ``others`` since then, changes, patterns, health."""
    async with store.begin() as uow:
        graph = await uow.telemetry.graph(max_age_s=GRAPH_MAX_AGE_S)
        around = list(dict.fromkeys([service, *sorted(others), *neighbours(graph, service)]))
        window: dict[SeriesKey, Sequence[Sample]] = {}
        for one in around:
            window.update(thin(await uow.telemetry.service_window(one, since), now))
        changes = await uow.telemetry.changes(since)
        patterns = await uow.telemetry.log_patterns(service, since)
        health = await uow.telemetry.health()
    return Seen(graph, window, changes, patterns, health)


def neighbours(graph: DependencyGraph, service: ServiceName) -> list[ServiceName]:
    """Those next to it in the graph first: a cause lies near more often than far."""
    direct = [callee for caller, callee in sorted(graph.edges) if caller == service]
    above = [caller for caller, callee in sorted(graph.edges) if callee == service]
    far = [*sorted(graph.callees(service)), *sorted(graph.callers(service))]
    return list(dict.fromkeys([*direct, *above, *far]))[:NEIGHBOURS]


def change_facts(
    changes: Sequence[ChangeEvent], services: Collection[ServiceName] | None, window: Window
) -> list[Evidence]:
    """Changes of ``services`` (None: of all), oldest first."""
    return [of_change(change, window) for change in changes if services is None or change.service in services]


def thin(window: Mapping[SeriesKey, Sequence[Sample]], now: datetime) -> dict[SeriesKey, Sequence[Sample]]:
    """The samples that are numbers; of those older than ``DENSE_S`` at most ``MOST_OLDER``, evenly apart."""
    dense_from = now - timedelta(seconds=DENSE_S)
    thinned: dict[SeriesKey, Sequence[Sample]] = {}
    for key, samples in window.items():
        finite = [sample for sample in samples if isfinite(sample.value)]
        if len(finite) > MOST_OLDER:
            older = bisect_left(finite, dense_from, key=lambda sample: sample.at)
            finite = [*thinner(finite[:older], MOST_OLDER), *finite[older:]]
        if finite:
            thinned[key] = finite
    return thinned


def thinner(samples: Sequence[Sample], most: int) -> Sequence[Sample]:
    """At most ``most`` of them, evenly apart, the newest among them."""
    step = max(1, -(-len(samples) // most))
    return samples[::-1][::step][::-1]


def _heard(testimony: Testimony, nothing: str) -> Found:
    problem = "; ".join(testimony.blind)
    if testimony.items:
        return Found(testimony.items, problem)
    return Found((), problem or nothing, failed=bool(problem))


def _left_out(number: int, told: int, how: str) -> str:
    return f"{number - told} more are left out: {how}" if number > told else ""
