"""What the call graph says about a deviation: how much of it the callees explain, and whether it reaches the front."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from pipeline.domain.detection.rca_metrics import (
    RESOURCES,
    SYMPTOMS,
    Deviation,
    MetricKind,
    Values,
    kind_of,
    primary_latency,
)

_QUEUEING = 1.3
"""A caller is slowed by more than its callee is: it waits, its queue grows, it tries again."""
_MOST_EXPLAINED = 0.95
_LIKENESS = 0.8
"""A callee as strange as its caller explains this much, whatever the volumes: those are rarely known well."""
_MOST_CALLS = 20.0
"""More calls of one callee a request are not believed: a callee's change smaller than that explains nothing."""
_OTHER_KIND = 0.4
"""A callee that is slow makes its caller fail, one that fails makes it slow, one that is starved does both."""
_HANDED = 0.8
"""Share of a caller's explained trouble that counts against the callee."""
_MOST_HOPS = 8
_TIMING = 0.4
"""Weight lost by trouble that does not come and go with the front's."""
_LEADING = 0.5
"""Weight lost by trouble to which nothing of the front's leads."""
_CLEAR = 1.0
"""Strength from which a callee counts as in trouble."""
_SLIGHT = 0.3
"""The same for the front, which may be but touched: it serves much else."""
_UNREACHED = 0.5
"""Weight of a service that no chain of calls joins with the affected front."""


class Metrics(Protocol):
    """Of `rca.Table`, what is needed here."""

    @property
    def timestamps(self) -> Values: ...
    @property
    def columns(self) -> Mapping[str, Values]: ...


@dataclass(frozen=True, slots=True)
class CallGraph:
    """Direct callees by service, among services with metrics; those without are passed through."""

    direct: Mapping[str, tuple[str, ...]]
    named: frozenset[str]

    @classmethod
    def of(cls, edges: Iterable[tuple[str, str]], services: Sequence[str]) -> CallGraph:
        raw: dict[str, set[str]] = {}
        for caller, callee in edges:
            if caller != callee:
                raw.setdefault(caller, set()).add(callee)
        seen = frozenset(services)
        direct = {service: tuple(sorted(_through(service, raw, seen))) for service in services}
        return cls(direct, frozenset(raw) | {callee for callees in raw.values() for callee in callees})

    def knows(self, service: str) -> bool:
        return service in self.named

    def callees(self, service: str) -> tuple[str, ...]:
        return self.direct.get(service, ())

    def callers(self, service: str) -> tuple[str, ...]:
        return tuple(name for name, callees in self.direct.items() if service in callees)

    def below(self, service: str) -> frozenset[str]:
        """All that ``service`` depends on, over any number of hops, without itself."""
        seen: set[str] = set()
        frontier = [service]
        while frontier:
            for callee in self.callees(frontier.pop()):
                if callee not in seen and callee != service:
                    seen.add(callee)
                    frontier.append(callee)
        return frozenset(seen)


@dataclass(frozen=True, slots=True)
class Explanation:
    """How much of a service's deviation of one kind others explain: ``share`` 0..0.95, and who, by parts of 1."""

    share: float
    parts: Mapping[str, float]


Explanations = Mapping[str, Mapping[MetricKind, Explanation]]


def explanations(
    found: Mapping[str, Sequence[Deviation]], graph: CallGraph, window: Mapping[str, Metrics]
) -> dict[str, dict[MetricKind, Explanation]]:
    """What of each service's latency, errors and availability its callees explain, and of its traffic its callers.

    Latency and errors add up: a caller's average rises by the callee's rise times the calls a request. Where units or
    volumes are not known, the strengths are compared instead.
    """
    volumes = {name: _volume(window[name]) for name in found if name in window}
    explained: dict[str, dict[MetricKind, Explanation]] = {}
    empty = np.empty(0)
    for service, items in found.items():
        callees = [callee for callee in graph.callees(service) if service not in graph.callees(callee)]
        callers = graph.callers(service)
        own: dict[MetricKind, Explanation] = {}
        for kind in (*sorted(SYMPTOMS), MetricKind.TRAFFIC):
            told = [item for item in items if item.kind is kind and item.harmful and item.strength > 0]
            # Averages add up over calls, percentiles do not: where the average tells, it alone decides.
            adding = primary_latency({item.metric: empty for item in told}) if kind is MetricKind.LATENCY else None
            loud = [item for item in told if item.metric == adding and 4.0 * item.strength >= told[0].strength]
            loud = loud or [item for item in told if 2.0 * item.strength >= told[0].strength]
            for item in loud:
                if kind is MetricKind.TRAFFIC:
                    parts = _from_callers(item, callers, found)
                else:
                    parts = _from_callees(item, service, callees, found, graph, volumes)
                total = sum(parts.values())
                best = own.get(kind)
                if total > 0 and (best is None or total > best.share):
                    share = min(_MOST_EXPLAINED, total)
                    own[kind] = Explanation(share, {name: part / total for name, part in parts.items()})
        explained[service] = own
    return explained


def handed_down(values: Mapping[str, Mapping[MetricKind, float]], explained: Explanations) -> dict[str, float]:
    """What each service is blamed for by its callers: their explained trouble goes down the calls to who explains it.

    ``values``: the strength of each symptom of each service. A service keeps what its own callees do not explain.
    """
    blame: dict[str, list[float]] = {service: [] for service in values}
    for service, own in values.items():
        for kind, value in own.items():
            if kind in SYMPTOMS and value > 0:
                for name, (_, kept) in _flow(service, kind, explained, _HANDED).items():
                    if name != service:
                        blame[name].append(value * kept)
    return {
        service: max(amounts) + 0.3 * (sum(amounts) - max(amounts)) if amounts else 0.0
        for service, amounts in blame.items()
    }


def _flow(start: str, kind: MetricKind, explained: Explanations, handed: float) -> dict[str, tuple[float, float]]:
    """One unit of trouble from ``start`` down the calls: by service what passes through it, and what stays."""
    seen: dict[str, tuple[float, float]] = {}
    flow = {start: 1.0}
    for hop in range(_MOST_HOPS):
        onward: dict[str, float] = {}
        for name, amount in flow.items():
            why = explained.get(name, {}).get(kind)
            share = why.share if why is not None and hop < _MOST_HOPS - 1 else 0.0
            through, kept = seen.get(name, (0.0, 0.0))
            seen[name] = (through + amount, kept + amount * (1.0 - share))
            if why is not None and share > 0:
                for callee, part in why.parts.items():
                    onward[callee] = onward.get(callee, 0.0) + handed * amount * share * part
        flow = {name: amount for name, amount in onward.items() if amount > 0.01}
    return seen


def front(
    found: Mapping[str, Sequence[Deviation]], graph: CallGraph, moves: Mapping[str, float] | None = None
) -> str | None:
    """The service in trouble below which the most others in trouble stand; None without a graph or trouble.

    ``moves`` adds what moves within the window to what left its baseline.
    """
    troubled = {}
    for service, items in found.items():
        symptom = _best(items, SYMPTOMS)
        strength = max(symptom.strength if symptom is not None else 0.0, (moves or {}).get(service, 0.0))
        if strength >= _SLIGHT and graph.knows(service):
            troubled[service] = strength
    if not troubled:
        return None
    clear = {name for name, strength in troubled.items() if strength >= _CLEAR}
    return max(troubled, key=lambda name: (len(graph.below(name) & clear), troubled[name], name))


def weigh_by_target(
    scores: Mapping[str, float],
    found: Mapping[str, Sequence[Deviation]],
    target: str | None,
    explained: Explanations,
    graph: CallGraph,
    baseline: Mapping[str, Metrics],
    window: Mapping[str, Metrics],
) -> dict[str, float]:
    """Scores times how well the service's trouble goes over time with that of ``target``, the affected front, and how
    much of the front's trouble leads to it."""
    symptom = _best(found[target], SYMPTOMS) if target is not None else None
    if target is None or symptom is None:
        return dict(scores)
    below = graph.below(target) | {target}
    passed = _flow(target, symptom.kind, explained, 1.0)
    signal = _signal(target, found, baseline, window)
    weighed = {}
    for service, score in scores.items():
        weight = 1.0 if service in below or not graph.knows(service) else _UNREACHED
        if service != target and score > 0:
            other = _signal(service, found, baseline, window)
            if signal is not None and other is not None:
                weight *= 1.0 - _TIMING * (1.0 - max(0.0, _correlation(signal, other)))
            if graph.knows(service):
                weight *= 1.0 - _LEADING * (1.0 - min(1.0, 3.0 * passed.get(service, (0.0, 0.0))[0]))
        weighed[service] = score * weight
    return weighed


def _through(service: str, raw: Mapping[str, set[str]], seen: frozenset[str]) -> set[str]:
    """The nearest callees with metrics."""
    reached: set[str] = set()
    passed: set[str] = set()
    frontier = list(raw.get(service, ()))
    while frontier:
        here = frontier.pop()
        if here in passed or here == service:
            continue
        passed.add(here)
        if here in seen:
            reached.add(here)
        else:
            frontier.extend(raw.get(here, ()))
    return reached


def _best(items: Sequence[Deviation], kinds: Iterable[MetricKind]) -> Deviation | None:
    wanted = frozenset(kinds)
    return max(
        (item for item in items if item.kind in wanted and item.harmful),
        key=lambda item: item.strength,
        default=None,
    )


def _same(item: Deviation, items: Sequence[Deviation]) -> Deviation | None:
    """The callee's metric of the same name, else its strongest of the same kind."""
    named = next((other for other in items if other.metric == item.metric and other.harmful), None)
    return named if named is not None else _best(items, (item.kind,))


def _from_callees(
    item: Deviation,
    service: str,
    callees: Sequence[str],
    found: Mapping[str, Sequence[Deviation]],
    graph: CallGraph,
    volumes: Mapping[str, float],
) -> dict[str, float]:
    """The share of the deviation that each callee explains."""
    parts = {}
    for callee in callees:
        other = _same(item, found[callee])
        part = 0.0
        if other is not None:
            sure = min(1.0, max(0.0, (other.sigmas - 1.0) / 3.0))
            if other.metric == item.metric:
                calls = _calls_a_request(service, callee, graph, volumes)
                part = sure * min(1.0, _QUEUEING * calls * abs(other.change) / max(abs(item.change), 1e-300))
            if other.metric != item.metric or abs(other.change) * _MOST_CALLS >= abs(item.change):
                part = max(part, min(1.0, _LIKENESS * other.strength / max(item.strength, 1e-9)))
        another = _best(found[callee], (SYMPTOMS | RESOURCES) - {item.kind})
        if another is not None and another.strength >= _CLEAR:
            part = max(part, _OTHER_KIND * min(1.0, another.strength / max(item.strength, 1e-9)))
        if part > 0:
            parts[callee] = part
    return parts


def _from_callers(
    item: Deviation, callers: Sequence[str], found: Mapping[str, Sequence[Deviation]]
) -> dict[str, float]:
    parts = {}
    for name in callers:
        same = [other for other in found[name] if other.kind is item.kind and other.direction == item.direction]
        if same and same[0].strength > 0:
            parts[name] = min(1.0, same[0].strength / max(item.strength, 1e-9))
    return parts


def _volume(table: Metrics) -> float:
    """The median traffic of a service, NaN where unknown."""
    names = sorted(name for name in table.columns if kind_of(name) is MetricKind.TRAFFIC)
    values = table.columns[names[0]] if names else np.empty(0)
    values = values[np.isfinite(values)]
    return float(np.median(values)) if len(values) else float("nan")


def _calls_a_request(caller: str, callee: str, graph: CallGraph, volumes: Mapping[str, float]) -> float:
    """Calls of ``callee`` for each request of ``caller``, its callers sharing its traffic by theirs; 1 if unknown."""
    total = sum(volumes.get(name, float("nan")) for name in graph.callers(callee))
    calls = volumes.get(callee, float("nan")) / total if total > 0 else float("nan")
    return float(np.clip(calls, 0.0, 20.0)) if np.isfinite(calls) and volumes.get(caller, 0.0) > 0 else 1.0


def _signal(
    service: str,
    found: Mapping[str, Sequence[Deviation]],
    baseline: Mapping[str, Metrics],
    window: Mapping[str, Metrics],
) -> tuple[Values, Values] | None:
    """Timestamps and values of the service's most telling metric: the end of its baseline and the window."""
    symptom = _best(found[service], SYMPTOMS | RESOURCES)
    if symptom is None or symptom.strength <= 0 or service not in baseline or service not in window:
        return None
    name = symptom.metric
    if symptom.kind is MetricKind.LATENCY:
        latency = primary_latency(window[service].columns)
        name = latency if latency is not None and latency in baseline[service].columns else name
    keep = max(10, 2 * len(window[service].timestamps))
    times = np.concatenate((baseline[service].timestamps[-keep:], window[service].timestamps))
    values = np.concatenate((baseline[service].columns[name][-keep:], window[service].columns[name]))
    sign = 1.0 if symptom.direction == "up" else -1.0
    return times, sign * values


def _correlation(left: tuple[Values, Values], right: tuple[Values, Values]) -> float:
    """Pearson's over the shared timestamps, between ranks so that one spike does not decide; 0.5 if too few."""
    shared, here, there = np.intersect1d(left[0], right[0], return_indices=True)
    x, y = left[1][here], right[1][there]
    both = np.isfinite(x) & np.isfinite(y)
    if len(shared) < 6 or np.count_nonzero(both) < 6:
        return 0.5
    x, y = _ranks(x[both]), _ranks(y[both])
    spread = float(np.std(x)) * float(np.std(y))
    return float(np.mean((x - x.mean()) * (y - y.mean()))) / spread if spread > 0 else 0.0


def _ranks(values: Values) -> Values:
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    ranks: Values = (last - (counts - 1) / 2.0)[inverse]
    return ranks
