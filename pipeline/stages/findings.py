"""Facts in words, each with the sign that code judged. What is made here has no id yet: ``Ledger`` gives it one."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from math import isfinite

from pipeline.domain.action import ActionKind
from pipeline.domain.activity import Activity
from pipeline.domain.anomaly import Anomaly
from pipeline.domain.changes import ChangeEvent
from pipeline.domain.diagnosis import Evidence, EvidenceKind, Passage, Sign
from pipeline.domain.ids import EvidenceId, ServiceName
from pipeline.domain.logs import LogPattern
from pipeline.domain.plan import TargetState
from pipeline.domain.redaction import Redactor
from pipeline.domain.spans import Trace
from pipeline.domain.telemetry import TRENDING, Sample, SeriesKey, Unit, format_value
from pipeline.domain.topology import DependencyGraph
from pipeline.domain.trace import JsonValue
from pipeline.stages.judging import GROWTH_PER_MIN, Fall, Growth, Judge, Judged

SNAPSHOT_SAMPLES = 60
SNAPSHOT_EDGES = 60
SPANS_KEPT = 20
STATEMENT_CHARS = 700
"""Of a statement that quotes a document or a log line."""
AT_ONCE_PER_MIN = 0.5
"""Growth by half of the limit a minute has no pace worth telling."""
KILLED = re.compile(r"\bOOM[- ]?Kill|\bout of memory: kill|\bmemory cgroup out of memory|\bcode 137\b", re.I)
"""What Kubernetes and the kernel write when a process was ended for its memory."""
_NO_ID = EvidenceId("")


@dataclass(frozen=True, slots=True)
class Window:
    """What was looked at, aware UTC."""

    since: datetime
    until: datetime

    def fact(self, kind: EvidenceKind, statement: str, query: str, subject: str, service: str = "") -> Evidence:
        """Context, unless the caller says what code judged of it."""
        return Evidence(
            _NO_ID, kind, statement, query, self.since, self.until, subject, ServiceName(service or subject)
        )


class Ledger:
    """Evidence with ids in the order it is written down. What is known in the same words keeps its id."""

    def __init__(self, taken: int = 0, redactor: Redactor | None = None) -> None:
        """``taken``: the highest number of an id that is in use. ``redactor`` takes secrets out of every fact."""
        self._redactor = redactor
        self._by_words: dict[tuple[str, str, str], Evidence] = {}
        self._next = taken + 1

    def add(self, fact: Evidence) -> tuple[Evidence, bool]:
        """``fact`` with its id, or the earlier one that says the same; and whether it is new."""
        fact = self._without_secrets(fact)
        known = self._by_words.get(_words(fact))
        if known is not None:
            return known, False
        item = replace(fact, id=EvidenceId(f"E{self._next}"))
        self._next += 1
        self._by_words[_words(fact)] = item
        return item, True

    def _without_secrets(self, fact: Evidence) -> Evidence:
        if self._redactor is None:
            return fact
        snapshot = self._redactor.json(dict(fact.snapshot))
        assert isinstance(snapshot, dict)
        statement, query, subject = (
            self._redactor.text(text).text for text in (fact.statement, fact.query, fact.subject)
        )
        return replace(fact, statement=statement, query=query, subject=subject, snapshot=snapshot)


def _words(item: Evidence) -> tuple[str, str, str]:
    return item.kind, item.statement, item.query


def query_of(key: SeriesKey) -> str:
    """``memory_ratio{service="checkout", instance="checkout-1"}``."""
    where = f'service="{key.service}"' + (f', instance="{key.instance}"' if key.instance else "")
    return f"{key.signal.value}{{{where}}}"


def of_anomaly(anomaly: Anomaly, samples: Sequence[Sample], until: datetime) -> Evidence:
    """What detection saw."""
    key, unit = anomaly.key, anomaly.key.unit
    baseline = ""
    if anomaly.expected == anomaly.expected:
        baseline = f", baseline {format_value(anomaly.expected, unit)}"
        if anomaly.distance:
            baseline += f" ± {format_value(anomaly.sigma, unit)} ({anomaly.distance})"
    side = "above" if anomaly.bound.breach_above else "below"
    statement = (
        f"{key.describe()} is {format_value(anomaly.value, unit)}, {side} its bound of"
        f" {format_value(anomaly.bound.threshold, unit)} since {anomaly.started_at:%H:%M:%S} UTC{baseline}"
    )
    window = Window(anomaly.started_at, until)
    return replace(
        window.fact("anomaly", statement, query_of(key), key.instance or key.service, key.service),
        sign=Sign.ABNORMAL,
        signal=key.signal,
        began=anomaly.started_at,
        value=_number(anomaly.value),
        snapshot={
            "kind": anomaly.kind.value,
            "bound": _number(anomaly.bound.threshold),
            "expected": _number(anomaly.expected),
            "samples": thinned(samples),
        },
    )


def of_series(judged: Judged, samples: Sequence[Sample], window: Window) -> Evidence:
    """A series as it is: against its baseline, and against its bound where it is or was beyond it."""
    key, unit = judged.key, judged.key.unit
    against = "no baseline yet"
    if judged.expected.known:
        against = f"baseline {format_value(judged.expected.mean, unit)}"
        if judged.ratio is not None and key.signal not in TRENDING:
            against += f", {judged.ratio:.1f}× of it"
    statement = f"{key.describe()} is {format_value(judged.newest.value, unit)} ({against})"
    if judged.began is not None and judged.bound is not None:
        line = format_value(judged.bound, unit)
        if judged.sign is Sign.ABNORMAL:
            since = "at least since" if judged.whole else "since"
            statement += f", beyond its bound of {line} {since} {judged.began:%H:%M:%S} UTC"
        elif judged.ended is not None and judged.peak is not None:
            statement += (
                f"; it was beyond its bound from {judged.began:%H:%M:%S} to {judged.ended:%H:%M:%S} UTC,"
                f" with {format_value(judged.peak, unit)} at most"
            )
    elif judged.sign is Sign.NORMAL:
        statement += ", inside its bound"
    if (window.until - judged.newest.at).total_seconds() > 120:
        statement += f"; last measured at {judged.newest.at:%H:%M:%S} UTC"
    return replace(
        window.fact("metric", statement, query_of(key), key.instance or key.service, key.service),
        sign=judged.sign,
        signal=key.signal,
        began=judged.began,
        value=_number(judged.newest.value),
        snapshot={
            "bound": _number(judged.bound),
            "expected": _number(judged.expected.mean),
            "sigma": _number(judged.expected.sigma),
            "samples": thinned(samples),
        },
    )


def of_growth(growth: Growth, samples: Sequence[Sample], window: Window) -> Evidence:
    """A rise towards a limit."""
    key = growth.key
    goes_on = "and still grows" if growth.now_per_min >= GROWTH_PER_MIN else "and has stayed there since"
    pace = f"by {growth.per_min * 100:.1f} % of the limit a minute" if growth.per_min < AT_ONCE_PER_MIN else "at once"
    statement = (
        f"{key.describe()} grew from {growth.low:.0%} to {growth.high:.0%} of its limit since"
        f" {growth.began:%H:%M:%S} UTC, {pace}, {goes_on}"
    )
    return replace(
        window.fact("metric", statement, f"deriv({query_of(key)})", key.instance or key.service, key.service),
        sign=growth.sign,
        signal=key.signal,
        began=growth.began,
        value=_number(growth.high),
        snapshot={
            "low": _number(growth.low),
            "per_min": _number(growth.per_min),
            "now_per_min": _number(growth.now_per_min),
            "samples": thinned(samples),
        },
    )


def of_fall(fall: Fall, samples: Sequence[Sample], window: Window) -> Evidence:
    """A certificate that runs out, or was replaced by one that ends sooner."""
    key = fall.key
    now = format_value(fall.now, Unit.SECONDS)
    if fall.before is not None and not fall.witnessed:
        said = (
            f"is {now} since {fall.began:%H:%M:%S} UTC at the latest, where {format_value(fall.before, Unit.SECONDS)}"
            " are usual: another certificate took its place, and it ends sooner"
        )
    elif fall.before is not None:
        said = (
            f"fell from {format_value(fall.before, Unit.SECONDS)} to {now} at {fall.began:%H:%M:%S} UTC: another"
            " certificate took its place, and it ends sooner"
        )
    else:
        said = f"is {now} and falls second by second: no renewal in the last {fall.minutes:.0f} min"
    return replace(
        window.fact(
            "metric", f"{key.describe()} {said}", f"deriv({query_of(key)})", key.instance or key.service, key.service
        ),
        sign=fall.sign,
        signal=key.signal,
        began=fall.began,
        value=_number(fall.now),
        snapshot={"before": _number(fall.before), "minutes": _number(fall.minutes), "samples": thinned(samples)},
    )


def of_change(change: ChangeEvent, window: Window) -> Evidence:
    """A change that took effect."""
    statement = f"{change.service}: {change.describe()}"
    return replace(
        window.fact("change", statement, f"changes of {change.service}", change.service),
        sign=Sign.HAPPENED,
        began=change.at,
        snapshot={
            "kind": change.kind.value,
            "revision": change.revision[:200],
            "title": change.title[:500],
            "author": change.author[:200],
            "at": change.at.isoformat(),
        },
    )


def of_pattern(pattern: LogPattern, window: Window) -> Evidence:
    """A template of log lines that detection found to be new or far more frequent than it was; an event where they tell
    of processes killed for their memory."""
    statement = f"logs of {pattern.service}: {pattern.describe()}"
    return replace(
        window.fact("log", statement, f"log patterns of {pattern.service}", pattern.service),
        sign=Sign.HAPPENED if KILLED.search(f"{pattern.template} {pattern.sample}") else Sign.ABNORMAL,
        began=pattern.started_at,
        value=float(pattern.count),
        snapshot={
            "template": pattern.template[:1000],
            "kind": pattern.kind,
            "count": pattern.count,
            "expected": _number(pattern.expected),
            "lines": [pattern.sample[:500]],
        },
    )


def of_topology(service: ServiceName, graph: DependencyGraph, window: Window) -> Evidence | None:
    """Who calls the service and whom it calls; None when the graph does not know it."""
    if not graph.knows(service):
        return None
    callers, callees = sorted(graph.callers(service)), sorted(graph.callees(service))
    statement = f"{service} is called by {', '.join(callers) or 'nobody'} and calls {', '.join(callees) or 'nobody'}"
    around = {service, *callers, *callees}
    edges = [edge for edge in sorted(graph.edges) if edge[0] in around and edge[1] in around][:SNAPSHOT_EDGES]
    return replace(
        window.fact("topology", statement[:STATEMENT_CHARS], "service graph", service),
        snapshot={"edges": [list(edge) for edge in edges]},
    )


def of_target(target: TargetState, service: ServiceName, window: Window) -> Evidence:
    """What runs."""
    statement = (
        f"{target.ref.describe()} wants {target.replicas} replicas, {target.ready} ready,"
        f" generation {target.generation}"
    )
    query = f"observe {target.ref.platform} {target.ref.describe()}"
    return replace(
        window.fact("target", statement, query, target.ref.name, service),
        snapshot={
            "replicas": target.replicas,
            "replicas_1h_ago": target.replicas_1h_ago,
            "generation": target.generation,
            "instances": [{"name": one.name, "ready": one.ready} for one in target.instances[:50]],
        },
    )


def of_remedy_in_vain(kind: ActionKind, service: ServiceName, window: Window) -> Evidence:
    """What was done about this very incident and did not help: it speaks against the cause that called for it."""
    statement = f"a {kind.replace('_', ' ')} was carried out for this incident and did not help"
    item = window.fact("target", statement, "executions of this incident", kind, service)
    return replace(item, sign=Sign.ABNORMAL, snapshot={"in_vain": kind})


def of_trace(trace: Trace, service: ServiceName, query: str, window: Window) -> Evidence:
    """``trace 4bf92f35 took 2.1 s; most of it in payments POST /charge (1.9 s, failed)``. Proves nothing alone."""
    root = trace.spans[0]
    said = f"trace {trace.trace_id[:16]} took {format_value(root.duration_s, Unit.SECONDS)}"
    most = trace.slowest_self
    if most is not None and most is not root:
        failed = ", failed" if most.error else ""
        spent = format_value(most.duration_s, Unit.SECONDS)
        said += f"; most of it in {most.service} {most.operation[:120]} ({spent}{failed})"
    failed_in = sorted({span.service for span in trace.spans if span.error})
    said = f"{said}; failed in {', '.join(failed_in)}" if failed_in else said
    longest = sorted(trace.spans, key=lambda span: -span.duration_s)[:SPANS_KEPT]
    spans: list[JsonValue] = [
        {
            "service": span.service,
            "operation": span.operation[:120],
            "ms": round(span.duration_s * 1000, 1),
            "error": span.error,
        }
        for span in longest
    ]
    fact = window.fact("trace", said[:STATEMENT_CHARS], query, service)
    return replace(fact, began=root.started_at, snapshot={"trace": trace.trace_id, "spans": spans})


def of_activity(activity: Activity, source: str, window: Window) -> Evidence:
    """What the kernel counted."""
    service = activity.service
    statement = f"{activity.instance or service}: {activity.statement}"[:STATEMENT_CHARS]
    fact = window.fact("activity", statement, f"{source} {activity.kind}", activity.instance or service, service)
    snapshot: dict[str, JsonValue] = {"kind": activity.kind.value, "at": activity.at.isoformat()}
    return replace(fact, began=activity.at, value=_number(activity.value), snapshot=snapshot)


def of_passage(passage: Passage, query: str, window: Window) -> Evidence:
    """What a document says is typical; it is about no service here."""
    statement = f"{passage.document} › {passage.heading}: {' '.join(passage.text.split())}"[:STATEMENT_CHARS]
    fact = window.fact("knowledge", statement, f"knowledge search: {query[:200]}", passage.document)
    return replace(fact, service=ServiceName(""), value=_number(passage.score))


def series_facts(
    series: Mapping[SeriesKey, Sequence[Sample]],
    judge: Judge,
    window: Window,
    *,
    told: Collection[SeriesKey] = (),
    matters: Callable[[Judged], bool] = lambda judged: True,
) -> tuple[list[Evidence], list[Judged]]:
    """Every series that ``matters`` as it is, and what grows or runs out, in the order of the keys; and all as judged.

    Of the series in ``told`` (as anomalies) only growth and fall are added.
    """
    facts: list[Evidence] = []
    all_judged: list[Judged] = []
    for key, samples in sorted(series.items()):
        judged = judge.series(key, samples)
        if judged is None:
            continue
        all_judged.append(judged)
        if key not in told and matters(judged):
            facts.append(of_series(judged, samples, window))
        if (growth := judge.growth(key, samples)) is not None:
            facts.append(of_growth(growth, samples, window))
        if (fall := judge.fall(key, samples)) is not None and (fall.sign is Sign.ABNORMAL or matters(judged)):
            facts.append(of_fall(fall, samples, window))
    return facts, all_judged


_ORDER = {Sign.ABNORMAL: 0, Sign.HAPPENED: 1, Sign.NORMAL: 2, Sign.STATED: 3}


def worst_first(facts: Iterable[Evidence]) -> list[Evidence]:
    """Abnormal ones first; of the same sign in their order."""
    return sorted(facts, key=lambda fact: _ORDER[fact.sign])


def thinned(samples: Sequence[Sample]) -> list[JsonValue]:
    """At most ``SNAPSHOT_SAMPLES`` as ``[time, value]``, evenly apart, the newest among them."""
    step = max(1, -(-len(samples) // SNAPSHOT_SAMPLES))
    kept = samples[::-1][::step][::-1]
    return [[sample.at.isoformat(timespec="seconds"), _number(sample.value)] for sample in kept]


def _number(value: float | None) -> float | None:
    """Six figures are more than was measured; JSON knows no infinity."""
    return float(f"{value:.6g}") if value is not None and isfinite(value) else None
