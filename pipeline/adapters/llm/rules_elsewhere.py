"""Causes that lie in another service, symptoms that nothing explains, and trouble that is over."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime

from pipeline.adapters.llm.evidence_index import began_of
from pipeline.adapters.llm.rules_case import Candidate, Check, Link, path_of
from pipeline.adapters.llm.rules_own import CAME_AFTER_S, CEILING, LATE_S, Case
from pipeline.domain.anomaly import AnomalyKind
from pipeline.domain.diagnosis import Category, Evidence, Sign
from pipeline.domain.ids import ServiceName
from pipeline.domain.telemetry import SIGNAL_TITLE, Signal, format_value

BELOW = 0.75
"""Certainty that the cause lies in a service below. What it is there is another question: the category is unknown."""
CHANGED_BELOW = 0.65
TRAFFIC_ALONE = 0.45
"""Who sends more or fewer requests, and why, is not told by where they pass."""
HEALTHY = 0.90
_SUFFERED = (Signal.LATENCY_P99, Signal.ERROR_RATIO)
_OF_ITS_OWN = (Signal.MEMORY_RATIO, Signal.DISK_RATIO, Signal.CERT_REMAINING, Signal.CPU_RATIO, Signal.QUOTA_RATIO)
_LEFT_TO_READ = {
    Signal.TRAFFIC: "traffic of {}",
    Signal.CPU_RATIO: "CPU use of {}",
    Signal.MEMORY_RATIO: "memory use of {}",
    Signal.ERROR_RATIO: "error ratio of {}",
}


def below(case: Case) -> Candidate | None:
    """A service that this one calls is in trouble, and was so first."""
    if not case.symptoms:
        return None
    hurt = case.symptoms[0].started_at
    root = _deepest(case, hurt)
    if root is None:
        return _changed_below(case, hurt)
    suffered, own = _trouble(case, root, hurt)
    began = began_of([*suffered, *own])
    why = _why(case, root, began, own)
    first = began is not None and (hurt - began).total_seconds() >= -LATE_S
    shown = (suffered or own)[0]
    checks = [
        case.breach(case.symptoms),
        Check(f"{root}, which it depends on, is in trouble: {shown.statement}."[:600], True, 3, (shown,)),
        Check(
            f"{root} was in trouble no later." if first else f"{root} was in trouble later only.", first, 2, (shown,)
        ),
        case.usual_traffic(1),
    ]
    if waited := [item for item in case.index.kind("trace") if f"most of it in {root} " in item.statement]:
        checks.append(Check(f"Requests spend their time in {root}.", True, 1, tuple(waited[:2])))
    if blamed := case.blamed():
        checks.append(Check("A change of the service itself came just before.", False, 4, tuple(blamed[:1])))
    links = [
        *([Link(_step(why), root, (why,), optional=True)] if why is not None else []),
        *([Link(_step(item), root, (item,), optional=True) for item in own[:1] if item is not why and suffered]),
        Link(_step(shown), root, (shown,)),
        *_between(case, root, hurt),
        case.step(case.symptoms[0]),
        *case.effects(hurt, case.symptoms[:1])[:1],
    ]
    path = path_of(links, Category.UNKNOWN, case.index)
    there = f": {why.statement}" if why is not None else ""
    cause = f"The cause lies below {case.service}, at {root}{there}; acting on {case.service} would treat a symptom."
    missing = () if why is not None else (f"changes, memory, CPU and logs of {root} from before {hurt:%H:%M} UTC",)
    return Candidate(Category.UNKNOWN, cause[:600], BELOW, tuple(checks), path, (), missing)


def traffic_alone(case: Case) -> Candidate | None:
    """Traffic far from usual and nothing else: told as what it is."""
    traffic = case.index.own(AnomalyKind.TRAFFIC)
    if not traffic or case.symptoms:
        return None
    worst = traffic[0]
    more = "more" if worst.bound.breach_above else "fewer"
    usual = format_value(worst.expected, worst.key.unit)
    callers = sorted(case.index.graph.callers(case.service))
    same = [item for caller in callers for item in case.index.measured(caller, (Signal.TRAFFIC,))]
    cause = f"{case.service} gets {more} requests than usual: {usual} are expected at this hour."
    checks = [case.breach(traffic), case.nothing_below(1)]
    links = [case.step(worst)]
    if same:
        cause += f" They come from above: {same[0].service} has {more} as well."
        checks.append(Check(f"{same[0].service}, which calls it, has {more} too.", True, 2, tuple(same[:1])))
        links.insert(0, Link(f"traffic of {same[0].service} leaves what is usual", same[0].service, tuple(same[:1])))
    path = path_of(links, Category.UNKNOWN, case.index)
    missing = (f"who sends {same[0].service if same else case.service} its requests: callers, campaigns, bots",)
    return Candidate(Category.UNKNOWN, cause, TRAFFIC_ALONE, tuple(checks), path, (), missing)


def unexplained(case: Case) -> Candidate:
    """What is left when no tree bears anything: the symptoms, and what would have to be read."""
    kinds = {item.kind for item in case.symptoms}
    if AnomalyKind.MULTI_DIMENSIONAL in kinds:
        cause = f"Several metrics of {case.service} are off together, none of them alone by much."
    elif case.symptoms:
        what = SIGNAL_TITLE[case.symptoms[0].key.signal]
        cause = f"The {what} of {case.service} is off, and neither traffic nor a service below explains it."
    else:
        cause = "No anomaly of this service itself is left to explain."
    checks = [case.usual_traffic(1), case.nothing_below(1)]
    if case.symptoms:
        checks.insert(0, case.breach(case.symptoms))
    return Candidate(Category.UNKNOWN, cause, CEILING[Category.UNKNOWN], tuple(checks), missing=unread(case))


def unread(case: Case) -> tuple[str, ...]:
    """What would have to be read to tell more, at most five."""
    service = case.service
    wanted = [
        words.format(service) for signal, words in _LEFT_TO_READ.items() if not case.index.any_of(service, signal)
    ]
    if not case.index.kind("topology", service):
        wanted.append(f"which services {service} calls, and how they do")
    if not case.index.kind("change", service):
        wanted.append(f"what was changed of {service}: no change was told")
    if not case.index.kind("log", service):
        wanted.append(f"logs of {service} around the beginning")
    if not case.index.kind("trace"):
        wanted.append(f"traces through {service}, to see where the time goes")
    return tuple(wanted[:5])


def over(case: Case) -> Candidate:
    """Every series is back inside its bound: what was the matter is over."""
    checks = []
    for anomaly in case.index.anomalies[:5]:
        key = anomaly.key
        now = [
            item
            for item in case.index.any_of(key.service, key.signal)
            if item.kind == "metric"
            and item.subject == (key.instance or key.service)
            and item.sign is not Sign.ABNORMAL
        ]
        checks.append(Check(f"{key.describe()} is back inside its bound.", bool(now), 1, tuple(now[:1])))
    cause = f"{case.service} is well again: every series that was off is back inside its bound."
    return Candidate(Category.UNKNOWN, cause, HEALTHY, tuple(checks))


def _deepest(case: Case, hurt: datetime) -> ServiceName | None:
    """Of the callees in trouble, the one that calls no other of them; of several the first in trouble."""
    graph = case.index.graph
    troubled = [one for one in sorted(graph.callees(case.service)) if any(_trouble(case, one, hurt))]
    lowest = [one for one in troubled if not graph.callees(one) & set(troubled)]
    return min(lowest, key=lambda one: _first(_trouble(case, one, hurt)), default=None)


def _first(trouble: tuple[list[Evidence], list[Evidence]]) -> float:
    began = began_of([*trouble[0], *trouble[1]])
    return began.timestamp() if began is not None else float("inf")


def _trouble(case: Case, service: str, hurt: datetime) -> tuple[list[Evidence], list[Evidence]]:
    """What a service suffers (latency, errors), and what is the matter with itself, as far as it came in time."""

    def early(items: Iterable[Evidence]) -> list[Evidence]:
        return [one for one in items if one.began is not None and (hurt - one.began).total_seconds() >= -LATE_S]

    return early(case.index.measured(service, _SUFFERED)), early(case.index.measured(service, _OF_ITS_OWN))


def _why(case: Case, root: str, began: datetime | None, own: list[Evidence]) -> Evidence | None:
    """What made the root what it is: a change before it, something of its own, a kill, or its load."""
    changed = case.index.changes(root, began, within_s=CAME_AFTER_S, late_s=LATE_S) if began is not None else []
    load = [item for item in case.index.measured(root, (Signal.TRAFFIC,)) if item.began is not None]
    return next(iter([*changed, *own, *case.index.events(root), *load]), None)


def _between(case: Case, root: str, hurt: datetime) -> list[Link]:
    """The services on the way up from the root that suffer too, the lowest first; at most one is told."""
    graph = case.index.graph
    way = graph.callees(case.service) & graph.callers(ServiceName(root))
    suffering = [(one, _trouble(case, one, hurt)[0]) for one in sorted(way, key=lambda one: len(graph.callees(one)))]
    return [Link(_step(items[0]), one, (items[0],), optional=True) for one, items in suffering if items][:1]


def _changed_below(case: Case, hurt: datetime) -> Candidate | None:
    """A service below was changed just before, though nothing of it shows in its own figures."""
    callees = sorted(case.index.graph.callees(case.service))
    changes = [item for one in callees for item in case.index.changes(one, hurt, within_s=CAME_AFTER_S, late_s=LATE_S)]
    if not changes:
        return None
    change = max(changes, key=lambda item: item.began or item.window_from)
    mine = case.changes_before(hurt)
    well = case.index.measured(change.service, _SUFFERED, (Sign.NORMAL,))
    checks = [
        case.breach(case.symptoms),
        Check(f"It began after a change below: {change.statement}."[:600], True, 3, (change,)),
        case.usual_traffic(2),
        Check(
            "The service itself was changed too." if mine else "It was not changed itself.",
            not mine,
            3,
            tuple(mine[:1]),
        ),
    ]
    if well:
        checks.append(Check(f"{change.service} itself does as usual.", False, 3, tuple(well[:2])))
    links = [
        Link(f"{change.statement} takes effect", change.service, (change,)),
        case.step(case.symptoms[0]),
        *case.effects(hurt, case.symptoms[:1])[:1],
    ]
    cause = f"It began right after a change below {case.service}: {change.statement}."
    path = path_of(links, Category.UNKNOWN, case.index)
    missing = (f"errors and latency of {change.service}, as {case.service} sees them",)
    return Candidate(Category.UNKNOWN, cause[:600], CHANGED_BELOW, tuple(checks), path, (), missing)


def _step(item: Evidence) -> str:
    return item.statement if len(item.statement) <= 300 else item.statement[:299] + "…"
