"""Root-cause ranking: which service is it, and which of its metrics say so. A pure function over two windows.

A service is a cause as far as its metrics left their baseline and as nobody it calls explains that: a caller whose
latency rises because its callee's does is a symptom. Without a graph only the deviations count, the resources of a
service (processor, memory, disk, network) before its symptoms (latency, errors), which spread.

The deviation of a metric is the robust maximum of BARO (Pham et al., FSE 2024), signed and with a floor; the
correlation with the affected front follows the ranked correlation of PetShop (Hardt et al., CLeaR 2024); taking out
what callees explain is ours.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from pipeline.domain.detection.rca_graph import (
    CallGraph,
    Explanation,
    explanations,
    front,
    handed_down,
    weigh_by_target,
)
from pipeline.domain.detection.rca_metrics import (
    RESOURCES,
    SYMPTOMS,
    Deviation,
    Direction,
    MetricKind,
    Values,
    deviations,
    profile_of,
)

METRICS_SHOWN = 10
"""Metrics kept of a service, the strongest first."""

_WEIGHTS: Mapping[MetricKind, float] = {
    MetricKind.CPU: 1.0,
    MetricKind.MEMORY: 1.0,
    MetricKind.DISK: 1.0,
    MetricKind.NETWORK: 0.9,
    MetricKind.LATENCY: 0.9,
    MetricKind.ERRORS: 0.9,
    MetricKind.AVAILABILITY: 0.9,
    MetricKind.TRAFFIC: 0.35,
    MetricKind.OTHER: 0.5,
}
_SECOND_OPINION = 0.2
"""Share of every further kind of metric that is added to the strongest: several witnesses make a better case."""


@dataclass(frozen=True, slots=True)
class Table:
    """The metrics of one service. ``timestamps`` (n,) in epoch seconds, ascending; columns (n,), NaN = no sample."""

    timestamps: Values
    columns: Mapping[str, Values]


@dataclass(frozen=True, slots=True)
class RankedMetric:
    """A metric that left its baseline; ``score`` ≥ 0 compares over all services."""

    metric: str
    score: float
    direction: Direction
    reason: str


@dataclass(frozen=True, slots=True)
class RankedService:
    """A candidate; ``score`` 0..1, the share of the blame among all services."""

    service: str
    score: float
    reason: str
    metrics: tuple[RankedMetric, ...]


@dataclass(frozen=True, slots=True)
class Ranking:
    """Every service of the two windows, the likeliest root cause first."""

    services: tuple[RankedService, ...]


def rank(baseline: Mapping[str, Table], window: Mapping[str, Table], edges: Sequence[tuple[str, str]] = ()) -> Ranking:
    """Ranks the services that either side has; ``edges`` are (caller, callee) and may name services without metrics.

    Same input, same answer. A service that one side lacks is ranked last with the reason; a column that one side lacks
    is left out. Tables may be of different lengths and hold NaN.
    """
    services = sorted(set(baseline) | set(window))
    both = [service for service in services if service in baseline and service in window]
    graph = CallGraph.of(edges, services)
    found = _found(services, both, baseline, window, {})
    target, profiles = _course(found, both, graph, baseline, window)
    if profiles:
        found = _found(services, both, baseline, window, profiles)
    shared = _common_mode(found)
    explained = explanations(found, graph, window)
    values = {service: _values(found[service], shared) for service in services}
    if target is not None:
        values = _as_at_the_front(values, values[target])
    blamed = handed_down(values, explained)
    scores = {service: _own_score(values[service], explained[service]) + blamed[service] for service in services}
    scores = weigh_by_target(scores, found, target, explained, graph, baseline, window)
    total = sum(scores.values())
    order = sorted(services, key=lambda service: (-scores[service], service))
    return Ranking(
        tuple(
            RankedService(
                service,
                round(scores[service] / total, 6) if total > 0 else 0.0,
                _reason(service, found, explained[service], graph, baseline, window),
                tuple(_shown(item) for item in _by_weight(found[service])[:METRICS_SHOWN] if item.strength > 0),
            )
            for service in order
        )
    )


def _found(
    services: Sequence[str],
    both: Sequence[str],
    baseline: Mapping[str, Table],
    window: Mapping[str, Table],
    profiles: Mapping[str, Values],
) -> dict[str, list[Deviation]]:
    found: dict[str, list[Deviation]] = {service: [] for service in services}
    for service in both:
        found[service] = deviations(baseline[service].columns, window[service].columns, profiles.get(service))
    return found


def _course(
    found: Mapping[str, Sequence[Deviation]],
    both: Sequence[str],
    graph: CallGraph,
    baseline: Mapping[str, Table],
    window: Mapping[str, Table],
) -> tuple[str | None, dict[str, Values]]:
    """The affected front, and how its trouble comes and goes within the window at every service's timestamps."""
    courses: dict[str, tuple[float, Values]] = {}
    for service in both:
        for item in found[service]:
            if item.kind not in SYMPTOMS or not graph.knows(service):
                continue
            strength, course = profile_of(
                item, baseline[service].columns[item.metric], window[service].columns[item.metric]
            )
            if course is not None and strength > courses.get(service, (0.0, course))[0]:
                courses[service] = (strength, course)
    target = front(found, graph, {service: strength for service, (strength, _) in courses.items()})
    if target is None or target not in courses:
        return target, {}
    times, course = window[target].timestamps, courses[target][1]
    return target, {service: np.interp(window[service].timestamps, times, course) for service in both}


def _values(found: Sequence[Deviation], shared: Mapping[MetricKind, float]) -> dict[MetricKind, float]:
    """The weight of each kind, less what all services show: of several metrics the mean of the strongest two.

    One percentile alone that is off is more often chance than two.
    """
    strengths: dict[MetricKind, list[float]] = {}
    for item in found:
        strengths.setdefault(item.kind, []).append(item.strength)
    return {
        kind: _WEIGHTS[kind] * max(0.0, sum(values[:2]) / len(values[:2]) - shared.get(kind, 0.0))
        for kind, values in strengths.items()
    }


def _as_at_the_front(
    values: Mapping[str, Mapping[MetricKind, float]], front_values: Mapping[MetricKind, float]
) -> dict[str, dict[MetricKind, float]]:
    """Symptoms of a kind that the affected front does not show count half: they hurt nobody up there."""
    most = max((value for kind, value in front_values.items() if kind in SYMPTOMS), default=0.0)
    if most <= 0:
        return {service: dict(own) for service, own in values.items()}
    weight = {kind: 0.5 + 0.5 * min(1.0, 2.0 * front_values.get(kind, 0.0) / most) for kind in SYMPTOMS}
    return {
        service: {kind: value * weight.get(kind, 1.0) for kind, value in own.items()} for service, own in values.items()
    }


def _own_score(values: Mapping[MetricKind, float], explained: Mapping[MetricKind, Explanation]) -> float:
    """The strongest kind, less what others explain, and a share of each other kind."""
    left = sorted(
        (value * (1.0 - (explained[kind].share if kind in explained else 0.0)) for kind, value in values.items()),
        reverse=True,
    )
    return left[0] + _SECOND_OPINION * sum(left[1:]) if left else 0.0


def _common_mode(found: Mapping[str, Sequence[Deviation]]) -> dict[MetricKind, float]:
    """What the median service of each kind shows: when all move at once, it is the load or the clock, not a culprit."""
    by_kind: dict[MetricKind, list[float]] = {}
    for items in found.values():
        best: dict[MetricKind, float] = {}
        for item in items:
            best[item.kind] = max(best.get(item.kind, 0.0), item.strength)
        for kind, strength in best.items():
            by_kind.setdefault(kind, []).append(strength)
    return {
        kind: 0.7 * float(np.quantile(values, 0.4))
        for kind, values in by_kind.items()
        if len(values) >= 4 and kind not in SYMPTOMS
    }


def _by_weight(found: Sequence[Deviation]) -> list[Deviation]:
    return sorted(found, key=lambda item: (-_WEIGHTS[item.kind] * item.strength, item.metric))


def _shown(item: Deviation) -> RankedMetric:
    return RankedMetric(item.metric, round(_WEIGHTS[item.kind] * item.strength, 4), item.direction, _in_words(item))


def _in_words(item: Deviation) -> str:
    side = "above" if item.direction == "up" else "below"
    better = "" if item.harmful else ", which is for the better"
    return f"{item.sigmas:.1f}σ {side} its baseline ({item.before:.4g} → {item.after:.4g}){better}"


def _reason(
    service: str,
    found: Mapping[str, Sequence[Deviation]],
    explained: Mapping[MetricKind, Explanation],
    graph: CallGraph,
    baseline: Mapping[str, Table],
    window: Mapping[str, Table],
) -> str:
    if service not in window:
        return "no data in the incident window: not compared"
    if service not in baseline:
        return "no data in the baseline: not compared"
    own = [item for item in _by_weight(found[service]) if item.strength > 0]
    if not own:
        return "nothing beyond its usual range"
    shares = {kind: why.share for kind, why in explained.items()}
    top = max(own, key=lambda item: _WEIGHTS[item.kind] * item.strength * (1.0 - shares.get(item.kind, 0.0)))
    text = f"{top.metric} of {service} is {_in_words(top)}"
    if not graph.knows(service):
        return text
    troubled = [name for name in graph.callees(service) if any(_troubled(item) for item in found.get(name, ()))]
    share = shares.get(top.kind, 0.0)
    if not troubled:
        return f"{text}, and it calls nobody that is in trouble"
    if share >= 0.5 and top.kind not in RESOURCES:
        return f"{text}, which its callees explain by {share:.0%}: {', '.join(troubled[:3])}"
    return f"{text}, more than its callees in trouble explain ({', '.join(troubled[:3])})"


def _troubled(item: Deviation) -> bool:
    return item.harmful and item.strength >= 1.0 and item.kind in SYMPTOMS | RESOURCES
