"""Causes that lie in the service itself: memory, disk, certificate, load, a change."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from pipeline.adapters.llm.evidence_index import METRIC, EvidenceIndex, began_of
from pipeline.adapters.llm.rules_case import Candidate, Check, Link, path_of
from pipeline.domain.anomaly import Anomaly, AnomalyKind
from pipeline.domain.diagnosis import Category, Evidence, Sign
from pipeline.domain.facts import Facts
from pipeline.domain.review import surged
from pipeline.domain.telemetry import SIGNAL_TITLE, Signal, format_value

CEILING: dict[Category, float] = {
    Category.MEMORY: 0.95,
    Category.SATURATION: 0.95,
    # That it came after the change is no proof that it came of it.
    Category.BAD_CHANGE: 0.90,
    # What fills the disk is seen in the logs at best.
    Category.DISK: 0.90,
    Category.CERTIFICATE: 0.95,
    Category.UNKNOWN: 0.40,
}
"""Certainty when every check holds."""
NO_CHANGE_READ = 0.60
"""Certainty of a bad change when none was read, only what speaks for one: a guess by elimination."""
USED_UP = 0.80
"""Of saturation without more traffic: what uses the processor or the quota up was not read."""
CAME_AFTER_S = 900.0
"""A change this much older than its symptoms has seen enough load to be trusted."""
LATE_S = 60.0
"""A symptom may be dated before the change that brought it: it is measured over a window, and clocks differ."""
FULL_RATIO = 0.90
"""So near the limit memory has no room left to grow: standing still there says nothing."""
SYMPTOMS = (
    AnomalyKind.DEPLOYMENT_REGRESSION,
    AnomalyKind.LATENCY,
    AnomalyKind.ERROR_SURGE,
    AnomalyKind.MULTI_DIMENSIONAL,
)


class Case:
    """The facts of one question, asked in the rules' words."""

    def __init__(self, index: EvidenceIndex, facts: Facts) -> None:
        self.index = index
        self.facts = facts
        self.service = index.service
        self.symptoms = index.own(*SYMPTOMS)
        self.surge = surged(facts.traffic_ratio)
        self.load = [
            item for item in index.measured(self.service, (Signal.TRAFFIC,)) if self.surge and item.began is not None
        ]

    def blamed(self) -> list[Evidence]:
        """Evidence of the changes that detection put anomalies of the service down to."""
        revisions = {item.change.revision for item in self.symptoms if item.change is not None}
        changes = self.index.kind("change", self.service)
        return [item for item in changes if str(item.snapshot.get("revision", "")) in {one[:200] for one in revisions}]

    def changes_before(self, began: datetime | None) -> list[Evidence]:
        """The change that is blamed, else those of the service shortly before ``began``, the latest first."""
        if blamed := self.blamed():
            return blamed
        return self.changes_of(self.service, began)

    def changes_of(self, service: str, began: datetime | None) -> list[Evidence]:
        """Changes of a service shortly before ``began``, the latest first."""
        if began is None:
            return []
        return self.index.changes(service, began, within_s=CAME_AFTER_S, late_s=LATE_S)

    def breach(self, anomalies: Sequence[Anomaly]) -> Check:
        """What the incident is about."""
        worst = anomalies[0]
        unit = worst.key.unit
        relation = "above" if worst.bound.breach_above else "below"
        says = f"{worst.key.describe()} is {format_value(worst.value, unit)}, {relation} its bound of "
        says += f"{format_value(worst.bound.threshold, unit)} since {worst.started_at:%H:%M:%S} UTC."
        return Check(says[0].upper() + says[1:], True, 1, tuple(self.index.of(anomalies[:3])))

    def usual_traffic(self, weight: int) -> Check:
        return Check(self._traffic_is(), None if self.surge is None else not self.surge, weight, self._traffic())

    def surging(self) -> Check:
        return Check(self._traffic_is(), self.surge, 2, tuple(self.load) or self._traffic())

    def nothing_below(self, weight: int) -> Check:
        """Waiting on a slow service makes latency and, by the requests held, memory. Uncited when nothing was read."""
        slow = self.facts.slow_callees
        says = f"Slow below it: {', '.join(slow)}." if slow else "No service below it is slow."
        below = [
            item
            for callee in (slow or sorted(self.index.graph.callees(self.service)))
            for item in self.index.any_of(callee, Signal.LATENCY_P99)[:1]
        ]
        return Check(says, not slow, weight, (*below[:2], *self.index.kind("topology", self.service)[:1]))

    def effects(self, after: datetime | None, besides: Sequence[Anomaly] = ()) -> list[Link]:
        """The service's own symptoms and then its callers', each as a step, in the order they began."""
        links = []
        mine = [one for one in self.symptoms if one not in besides]
        for anomaly in mine[:2]:
            if after is None or (anomaly.started_at - after).total_seconds() >= -LATE_S:
                links.append(self.step(anomaly, optional=True))
        callers = self.index.graph.callers(self.service)
        above = sorted(
            (one for one in self.index.anomalies if one.key.service in callers), key=lambda one: one.started_at
        )
        return [*links, *(self.step(one, optional=True) for one in above[:1])]

    def step(self, anomaly: Anomaly, *, optional: bool = False) -> Link:
        what = f"{anomaly.key.describe()} goes {'above' if anomaly.bound.breach_above else 'below'} its bound"
        return Link(what, anomaly.key.service, tuple(self.index.of([anomaly])), optional)

    def _traffic_is(self) -> str:
        return f"Traffic is {self.facts.traffic_ratio or 0:.1f} times the usual."

    def _traffic(self) -> tuple[Evidence, ...]:
        return tuple(self.index.any_of(self.service, Signal.TRAFFIC)[:1])


def memory(case: Case) -> Candidate | None:
    """A leak, or a limit that is too small. An instance is suspected for memory of its own that is abnormal, or that
    was so when a process was killed for it: a kill gives the memory back, and the next one comes."""
    anomalies = case.index.own(AnomalyKind.MEMORY_PRESSURE)
    was_full = case.index.measured(case.service, (Signal.MEMORY_RATIO,), (Sign.ABNORMAL, Sign.HAPPENED))
    killed = _since(began_of(was_full), case.index.events(case.service))
    abnormal = was_full if killed else [item for item in was_full if item.sign is Sign.ABNORMAL]
    if not abnormal or not (anomalies or case.symptoms):
        return None
    known = set(case.index.instances)
    suspects = sorted({item.subject for item in abnormal} & known)
    names = ", ".join(suspects) or case.service
    growth = case.index.rising(Signal.MEMORY_RATIO)
    steady = known - {item.subject for item in abnormal}
    some_only = bool(steady) if len(known) > 1 else None
    others = tuple(item for item in case.index.any_of(case.service, Signal.MEMORY_RATIO) if item.subject in steady)
    began = began_of(growth or abnormal)
    checks = [
        case.breach(anomalies) if anomalies else _beyond(abnormal),
        _growth(case, growth, names, max((item.value or 0.0) for item in abnormal)),
        case.usual_traffic(2),
        Check(
            f"Only {names} is affected, other replicas are not." if some_only else "Every replica is affected.",
            some_only,
            1,
            (*abnormal[:2], *others[:1]),
        ),
        case.nothing_below(1),
    ]
    if killed:
        checks.append(Check("A process was killed for its memory.", True, 2, tuple(killed[:2])))
    if growth and (changed := case.changes_before(began)) and not some_only:
        checks.append(Check("It began to grow right after a change.", False, 2, (changed[0], *growth[:1])))
    links = [Link(f"memory use of {names} grows towards its limit", case.service, tuple(growth))]
    if anomalies:
        links.append(case.step(anomalies[0]))
    elif not growth:
        links.append(Link(f"memory use of {names} leaves its bound", case.service, tuple(abnormal)))
    if killed:
        links.append(Link("a process is killed for its memory", case.service, tuple(killed[:2]), optional=bool(growth)))
    links += case.effects(began_of(abnormal))
    # Memory that merely stands high was like that before: without growth or a kill it is no cause of anything new.
    path = path_of(links, Category.MEMORY, case.index) if growth or killed else ()
    if case.surge:
        cause = f"Memory of {names} is above its bound while traffic surged: load or a leak."
    elif growth:
        cause = f"Memory of {names} grows towards its limit while traffic does not explain it: probably a leak."
    elif killed:
        cause = f"Processes of {case.service} were killed for their memory."
    else:
        cause = f"Memory of {names} stays above its bound: a leak, or a limit that is too small."
    missing = () if growth else (f"memory use of {names} from before it crossed its bound, to see whether it grew",)
    return Candidate(Category.MEMORY, cause, CEILING[Category.MEMORY], tuple(checks), path, tuple(suspects), missing)


def disk(case: Case) -> Candidate | None:
    """A volume that runs full, with what the logs add."""
    anomalies = case.index.own(AnomalyKind.DISK_EXHAUSTION)
    if not anomalies:
        return None
    growth = case.index.rising(Signal.DISK_RATIO)
    written = case.index.written(case.service)
    checks = [
        case.breach(anomalies),
        Check("Its use grew until there.", True if growth else None, 3, tuple(growth[:2])),
    ]
    if written:
        checks.append(Check("Its logs say far more than usual.", True, 1, tuple(written[:2])))
    links = [Link("disk use grows towards the volume's size", case.service, tuple(growth)), case.step(anomalies[0])]
    path = path_of([*links, *case.effects(anomalies[0].started_at)], Category.DISK, case.index) if growth else ()
    worst = anomalies[0]
    cause = f"A volume runs full: {worst.key.describe()} is {format_value(worst.value, worst.key.unit)}."
    missing: tuple[str, ...] = ("what takes the space on the volume: logs, dumps, data",)
    if not growth:
        missing = (f"{worst.key.describe()} over the last hours, to see when it grew", *missing)
    names = tuple(sorted({item.key.instance for item in anomalies if item.key.instance}))
    ceiling = CEILING[Category.DISK] if written else CEILING[Category.DISK] - 0.05
    return Candidate(Category.DISK, cause, ceiling, tuple(checks), path, names, missing)


def certificate(case: Case) -> Candidate | None:
    """A certificate that is about to end, because nobody renewed it or because another one took its place."""
    anomalies = case.index.own(AnomalyKind.CERTIFICATE_EXPIRY)
    if not anomalies:
        return None
    falls = case.index.rising(Signal.CERT_REMAINING)
    replaced = any(item.snapshot.get("before") is not None for item in falls)
    why = "Another certificate took its place, which ends sooner." if replaced else "It was not renewed in time."
    checks = [case.breach(anomalies), Check(why, True if falls else None, 2, tuple(falls[:2]))]
    what = "a certificate that ends sooner is put in place" if replaced else "the certificate runs out, unrenewed"
    links = [Link(what, case.service, tuple(falls)), case.step(anomalies[0]), *case.effects(anomalies[0].started_at)]
    worst = anomalies[0]
    left = format_value(worst.value, worst.key.unit)
    cause = f"A TLS certificate is about to end: {worst.key.describe()} is {left}. {why if falls else ''}".strip()
    names = tuple(sorted({item.key.instance for item in anomalies if item.key.instance}))
    missing = () if falls else (f"{worst.key.describe()} over the last hours, to see whether it was renewed",)
    path = path_of(links, Category.CERTIFICATE, case.index)
    return Candidate(Category.CERTIFICATE, cause, CEILING[Category.CERTIFICATE], tuple(checks), path, names, missing)


def load(case: Case) -> Candidate | None:
    """More requests than the replicas can take; memory that grows in all of them with the load is part of it."""
    pressed = case.index.own(AnomalyKind.MEMORY_PRESSURE)
    suffering = case.symptoms or pressed
    if not case.surge or not suffering:
        return None
    latency = case.index.own(AnomalyKind.LATENCY, AnomalyKind.DEPLOYMENT_REGRESSION)
    slower = Check("Its p99 latency is far above its baseline.", True, 1, tuple(case.index.of(latency)[:2]))
    rose, hurt = began_of(case.load), suffering[0].started_at
    first = None if rose is None else (hurt - rose).total_seconds() >= -LATE_S
    checks = [case.breach(suffering), case.surging(), case.nothing_below(4)]
    checks.append(
        Check(
            "The traffic rose first." if first else "It began before the traffic rose.", first, 1, tuple(case.load[:1])
        )
    )
    if latency:
        checks.append(slower)
    if blamed := case.blamed():
        checks.append(Check("A change came just before.", False, 2, tuple(blamed[:1])))
    if pressed and not case.symptoms:
        beyond = {item.subject for item in case.index.measured(case.service, (Signal.MEMORY_RATIO,))}
        all_of_them = set(case.index.instances) <= beyond if len(case.index.instances) > 1 else None
        says = "Memory rose in every replica." if all_of_them else "Memory rose in some replicas only."
        checks.append(Check(says, all_of_them, 4, tuple(case.index.of(pressed)[:2])))
    busy = case.index.measured(case.service, (Signal.CPU_RATIO,))
    growth = case.index.rising(Signal.MEMORY_RATIO) if pressed and not case.symptoms else []
    if quota := case.index.measured(case.service, (Signal.QUOTA_RATIO,)):
        checks.append(Check("Its quota is used up as well.", True, 1, tuple(quota[:1])))
    callers = sorted(case.index.graph.callers(case.service))
    if above := [item for caller in callers for item in case.index.measured(caller, (Signal.TRAFFIC,))]:
        first_above = min(above, key=lambda item: len(case.index.graph.callers(item.service)))
        checks.append(Check(f"{first_above.service}, above it, gets more as well.", True, 1, (first_above,)))
    elif asked := [item for caller in callers for item in case.changes_of(caller, rose)]:
        says = f"{asked[0].service}, which calls it, was changed just before: it may ask more for each request."
        checks.append(Check(says, False, 1, (asked[0], *case.load[:1])))
    links = [
        Link(
            f"traffic of {case.service} rises to {case.facts.traffic_ratio or 0:.1f} times the usual",
            case.service,
            tuple(case.load[:2]),
        ),
        Link("its processors are used up", case.service, tuple(busy[:2]), optional=True),
        Link("its quota is used up", case.service, tuple(quota[:2]), optional=True),
        Link("memory of its replicas grows", case.service, tuple(growth[:3]), optional=True),
        case.step(suffering[0]),
        *case.effects(hurt, suffering[:1]),
    ]
    replicas = case.facts.replicas
    shown = f"its {replicas} replicas" if replicas else "its replicas"
    cause = f"{case.service} gets {case.facts.traffic_ratio or 0:.1f} times its usual traffic, too much for {shown}."
    path = path_of(links, Category.SATURATION, case.index)
    return Candidate(Category.SATURATION, cause, CEILING[Category.SATURATION], tuple(checks), path)


def used_up(case: Case) -> Candidate | None:
    """Processor or quota at its end without more traffic."""
    found = case.index.measured(case.service, (Signal.CPU_RATIO, Signal.QUOTA_RATIO), kinds=METRIC)
    if not found or not case.symptoms or case.surge:
        return None
    signal = found[0].signal or Signal.CPU_RATIO
    what = SIGNAL_TITLE[signal]
    changed = case.changes_before(began_of(found))
    checks = [
        case.breach(case.symptoms),
        Check(f"Its {what} is used up.", True, 3, tuple(found[:2])),
        case.nothing_below(2),
        Check(
            "A change came just before." if changed else "No change came before.", not changed, 2, tuple(changed[:1])
        ),
    ]
    links = [
        Link(f"{what} of {case.service} is used up", case.service, tuple(found[:2])),
        case.step(case.symptoms[0]),
        *case.effects(case.symptoms[0].started_at, case.symptoms[:1]),
    ]
    cause = f"{what[0].upper()}{what[1:]} of {case.service} is used up, and traffic does not explain it."
    path = path_of(links, Category.SATURATION, case.index)
    missing = (f"what uses up the {what.removesuffix(' use')} of {case.service}: a profile, or its busiest requests",)
    return Candidate(Category.SATURATION, cause, USED_UP, tuple(checks), path, (), missing)


def bad_change(case: Case) -> Candidate | None:
    """What began right after a change, or jumped for no other reason that was read."""
    pressed = case.index.own(AnomalyKind.MEMORY_PRESSURE, AnomalyKind.DISK_EXHAUSTION)
    worse = case.symptoms or pressed
    if not worse:
        return None
    growth = [] if case.symptoms else [*case.index.rising(Signal.MEMORY_RATIO), *case.index.rising(Signal.DISK_RATIO)]
    began = began_of(growth) or worse[0].started_at
    changes = case.changes_before(began)
    busy = case.index.measured(case.service, (Signal.CPU_RATIO,))
    checks = [case.breach(worse), case.usual_traffic(2), case.nothing_below(1 if case.blamed() else 3)]
    ratios = case.facts.memory_ratio_by_instance
    if ratios and case.symptoms:
        highest = max(ratios.values())
        shown = case.index.measured(case.service, (Signal.MEMORY_RATIO,), tuple(Sign))
        checks.append(
            Check(f"Memory is at most {highest:.0%} of its limit.", highest < FULL_RATIO, 1, tuple(shown[:2]))
        )
    if not changes:
        errors = case.index.own(AnomalyKind.ERROR_SURGE, AnomalyKind.DEPLOYMENT_REGRESSION)
        if not errors or case.surge:
            return None
        without = "without more traffic" if case.surge is False else "and no other cause is seen"
        cause = f"Errors of {case.service} jumped {without}: probably a change. No change was read."
        missing = (f"deployments and configuration changes of {case.service} before {began:%H:%M:%S} UTC",)
        return Candidate(Category.BAD_CHANGE, cause, NO_CHANGE_READ, tuple(checks), (), (), missing)
    change = changes[0]
    title = change.statement.removeprefix(f"{case.service}: ")
    checks.append(Check(f"It began after {title}."[:600], True, 3, (change,)))
    if case.blamed():
        checks.append(
            Check("Before and after the change differ, by detection.", True, 3, tuple(case.index.of(worse)[:2]))
        )
    if pressed and not case.symptoms:
        some = len({item.subject for item in growth}) < len(case.index.instances)
        says = "Not every replica is affected." if some else "Every replica is affected."
        checks.append(Check(says, not some, 3, tuple(growth[:3])))
    links = [
        Link(f"{title} takes effect", case.service, (change,)),
        Link("what it is limited in begins to grow", case.service, tuple(growth[:3]), optional=True),
        Link("its processors are used up", case.service, tuple(busy[:2]), optional=True),
        case.step(worse[0]),
        *case.effects(worse[0].started_at, worse[:1]),
    ]
    cause = f"{worse[0].key.describe()} got worse right after {title}."
    path = path_of(links, Category.BAD_CHANGE, case.index)
    return Candidate(
        Category.BAD_CHANGE, (cause[0].upper() + cause[1:])[:600], CEILING[Category.BAD_CHANGE], tuple(checks), path
    )


def _since(began: datetime | None, events: Sequence[Evidence]) -> list[Evidence]:
    """Without what happened earlier: the kill before the last came of memory that was full before."""
    return [
        item
        for item in events
        if began is None or item.began is None or (item.began - began).total_seconds() >= -LATE_S
    ]


def _beyond(abnormal: Sequence[Evidence]) -> Check:
    return Check("Memory went beyond what is usual.", True, 1, tuple(abnormal[:2]))


def _growth(case: Case, growth: Sequence[Evidence], names: str, highest: float) -> Check:
    if growth:
        return Check("It grew until there.", True, 2, tuple(growth[:3]))
    slope = case.facts.memory_slope_per_min
    if slope is None or slope != slope or (highest >= FULL_RATIO and slope > -0.002):
        return Check("", None, 2, ())
    shown = case.index.measured(case.service, (Signal.MEMORY_RATIO,), tuple(Sign))
    return Check(f"Memory of {names} does not grow ({slope:+.2%} of its limit a minute).", False, 2, tuple(shown[:2]))
