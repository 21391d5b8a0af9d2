"""The rules engine: a decision tree over measured facts. Works without a key, and is what a model has to beat."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from math import isfinite

from pipeline.adapters.llm.evidence_index import EvidenceIndex
from pipeline.adapters.llm.rule_replies import answer
from pipeline.domain.anomaly import Anomaly, AnomalyKind
from pipeline.domain.changes import ChangeEvent
from pipeline.domain.diagnosis import Category, Claim, Hypothesis
from pipeline.domain.review import surged
from pipeline.domain.telemetry import format_value
from pipeline.domain.trace import JsonValue
from pipeline.ports.model import Answer, Diagnostician, Question

CEILING: dict[Category, float] = {
    Category.MEMORY: 0.95,
    Category.SATURATION: 0.95,
    # That it came after the change is no proof that it came of it.
    Category.BAD_CHANGE: 0.90,
    # What fills the disk was not read.
    Category.DISK: 0.85,
    Category.CERTIFICATE: 0.95,
    Category.UNKNOWN: 0.40,
}
"""Certainty when every check holds."""
NO_CHANGE_READ = 0.60
"""Certainty of a bad change when none was read, only what speaks for one: a guess by elimination."""
CAME_AFTER_S = 900.0
"""A change this much older than its symptoms has seen enough load to be trusted."""
LATE_S = 60.0
"""A symptom may be dated before the change that brought it: it is measured over a window, and clocks differ."""
GROWTH_PER_MIN = 0.002
"""Share of the limit a minute that counts as growth: from 85 % to the limit in 75 minutes."""
FULL_RATIO = 0.90
"""So near the limit memory has no room left to grow: standing still there says nothing."""
SLOWER_RATIO = 1.5
"""Latency at this multiple of its baseline counts as slow."""


@dataclass(frozen=True, slots=True)
class Check:
    """One fact put to a hypothesis: ``holds`` is None when it was not read; ``says`` is it in words, for or against."""

    says: str
    holds: bool | None
    weight: int
    cites: tuple[str, ...]

    @property
    def verdict(self) -> int:
        """1 confirms, -1 contradicts, 0 was not read or has no evidence to show."""
        return 0 if self.holds is None or not self.cites else 1 if self.holds else -1


def certainty(ceiling: float, checks: Sequence[Check]) -> float:
    """ceiling · (0.5 + 0.5 · Σ weight · verdict / Σ weight): all checks hold → the ceiling, none read → half of it."""
    total = sum(check.weight for check in checks)
    balance = sum(check.weight * check.verdict for check in checks) / total if total else 0.0
    return ceiling * (0.5 + 0.5 * balance)


def decide(question: Question) -> Hypothesis:
    """The tree. Causes that a service has by itself come before symptoms that others may have given it."""
    case = _Case(question)
    if memory := case.own(AnomalyKind.MEMORY_PRESSURE):
        return case.memory(memory)
    if disk := case.own(AnomalyKind.DISK_EXHAUSTION):
        return case.by_itself(Category.DISK, disk, "A volume runs full", ("disk", "volume", "filesystem"))
    if certificate := case.own(AnomalyKind.CERTIFICATE_EXPIRY):
        title = "A TLS certificate is about to end"
        return case.by_itself(Category.CERTIFICATE, certificate, title, ("certificate", "x509", "cert"))
    if regressed := case.own(AnomalyKind.DEPLOYMENT_REGRESSION):
        return case.bad_change(regressed)
    symptoms = [*case.own(AnomalyKind.LATENCY), *case.own(AnomalyKind.ERROR_SURGE)]
    if not symptoms:
        return case.without_symptoms()
    if question.facts.slow_callees:
        return case.below()
    if case.surge and (case.own(AnomalyKind.LATENCY) or case.slower):
        return case.saturation()
    if errors := case.own(AnomalyKind.ERROR_SURGE):
        return case.bad_change(errors)
    return case.bad_change(symptoms) if case.change_before(symptoms) else case.slow_for_no_reason()


class RulesDiagnostician(Diagnostician):
    """Deterministic: the same question, the same answer."""

    @property
    def name(self) -> str:
        return "rules"

    async def diagnose(self, question: Question) -> Answer:
        started = time.monotonic()
        hypothesis = decide(question)
        facts = question.facts
        figures: dict[str, JsonValue] = {
            "traffic_ratio": facts.traffic_ratio,
            "latency_ratio": facts.latency_ratio,
            "error_ratio": facts.error_ratio,
            "memory_ratio_by_instance": dict(facts.memory_ratio_by_instance),
            "memory_slope_per_min": facts.memory_slope_per_min,
            "slow_callees": list(facts.slow_callees),
            "replicas": facts.replicas,
            "recent_changes": [change.describe() for change in facts.recent_changes],
        }
        latency_ms = round((time.monotonic() - started) * 1000)
        reply = hypothesis.model_dump(mode="json")
        return Answer(hypothesis, self.name, {"facts": figures, "reply": reply, "latency_ms": latency_ms})

    async def reply(self, question: Question, asked: str) -> str:
        return answer(question, question.known or decide(question), asked)

    async def close(self) -> None:
        """Nothing is held open."""


class _Case:
    """The facts of one question, asked in the tree's words."""

    def __init__(self, question: Question) -> None:
        self._question = question
        self._facts = question.facts
        self._index = EvidenceIndex(question)
        self.surge = surged(question.facts.traffic_ratio)
        ratio = question.facts.latency_ratio
        self.slower = None if ratio is None else ratio >= SLOWER_RATIO

    def own(self, kind: AnomalyKind) -> list[Anomaly]:
        service = self._question.service
        return [item for item in self._question.anomalies if item.kind is kind and item.key.service == service]

    def memory(self, anomalies: Sequence[Anomaly]) -> Hypothesis:
        facts, bound = self._facts, min(item.bound.threshold for item in anomalies)
        suspects = {item.key.instance for item in anomalies if item.key.instance}
        suspects |= {name for name, ratio in facts.memory_ratio_by_instance.items() if ratio > bound}
        names = ", ".join(sorted(suspects)) or self._question.service
        measured = set(facts.memory_ratio_by_instance)
        some_only = None if len(measured) < 2 else bool(measured - suspects)
        checks = [
            self._breach(anomalies, ("memory",)),
            self._growth(names, max((item.value for item in anomalies), default=0.0)),
            self._usual_traffic(weight=2),
            Check(
                f"Only {names} is affected, other replicas are not." if some_only else "Every replica is affected.",
                some_only,
                1,
                self._index.find(("memory",)),
            ),
            self._nothing_below(),
        ]
        if self.surge:
            cause = f"Memory of {names} is above its bound while traffic surged: load or a leak."
        elif checks[1].holds:
            cause = f"Memory of {names} grows towards its limit while traffic does not explain it: probably a leak."
        else:
            cause = f"Memory of {names} stays above its bound: a leak, or a limit that is too small."
        return self._say(Category.MEMORY, cause, checks, sorted(suspects))

    def saturation(self) -> Hypothesis:
        latency = self.own(AnomalyKind.LATENCY)
        slow = self._breach(latency, ("latency", "p99")) if latency else self._slower()
        errors = self.own(AnomalyKind.ERROR_SURGE)
        checks = [slow, self._surging(), self._nothing_below()]
        if errors:
            checks.append(self._breach(errors, ("error",)))
        service, replicas = self._question.service, self._facts.replicas
        shown = f"its {replicas} replicas" if replicas else "its replicas"
        cause = f"{service} gets {self._facts.traffic_ratio or 0:.1f} times its usual traffic, too much for {shown}."
        return self._say(Category.SATURATION, cause, checks)

    def bad_change(self, symptoms: Sequence[Anomaly]) -> Hypothesis:
        errors = symptoms
        change = self.change_before(errors)
        checks = [self._breach(errors, ("error", "latency")), self._usual_traffic(weight=1), self._nothing_below()]
        if self._facts.memory_ratio_by_instance:
            highest = max(self._facts.memory_ratio_by_instance.values())
            says = f"Memory is at most {highest:.0%} of its limit."
            checks.append(Check(says, highest < FULL_RATIO, 1, self._index.find(("memory",))))
        if change is None:
            without = "without more traffic" if self.surge is False else "and no other cause is seen"
            cause = f"Errors of {self._question.service} jumped {without}: probably a change. No change was read."
            return self._say(Category.BAD_CHANGE, cause, checks, ceiling=NO_CHANGE_READ)
        said = f"It began after {change.describe()}."
        checks.append(Check(said, True, 3, self._index.of_change(change.revision)))
        cause = f"{errors[0].key.describe()} got worse right after {change.describe()}."
        return self._say(Category.BAD_CHANGE, cause[0].upper() + cause[1:], checks)

    def without_symptoms(self) -> Hypothesis:
        """Traffic far from usual, or several things a little off: told as what it is, its cause is not measured."""
        if traffic := self.own(AnomalyKind.TRAFFIC):
            worst = traffic[0]
            more = "more" if worst.bound.breach_above else "fewer"
            usual = format_value(worst.expected, worst.key.unit)
            cause = f"{self._question.service} gets {more} requests than usual: {usual} are expected at this hour."
            return self.unknown(cause, [self._breach(traffic, ("traffic",)), self._nothing_below()])
        if joint := self.own(AnomalyKind.MULTI_DIMENSIONAL):
            cause = f"Several metrics of {self._question.service} are off together, none of them alone by much."
            return self.unknown(
                cause, [self._breach(joint, ("latency", "error", "cpu", "traffic")), self._nothing_below()]
            )
        return self.unknown("No anomaly of this service itself is left to explain.", [])

    def change_before(self, anomalies: Sequence[Anomaly]) -> ChangeEvent | None:
        """The change that detection put the symptoms down to, else the last one that they may have come of."""
        blamed = next((item.change for item in anomalies if item.change is not None), None)
        if blamed is not None:
            return blamed
        began = min((item.started_at for item in anomalies), default=None)
        if began is None:
            return None
        window = timedelta(seconds=-LATE_S), timedelta(seconds=CAME_AFTER_S)
        near = [one for one in self._facts.recent_changes if window[0] <= began - one.at <= window[1]]
        return near[-1] if near else None

    def below(self) -> Hypothesis:
        callees = ", ".join(self._facts.slow_callees)
        says = f"Services below are slow as well: {callees}."
        cites = self._index.find_about(self._facts.slow_callees)
        cause = f"The cause lies below {self._question.service}, at {callees}; acting here would treat a symptom."
        return self.unknown(cause, [Check(says, True, 2, cites), self._usual_traffic(weight=1)])

    def slow_for_no_reason(self) -> Hypothesis:
        checks = [self._breach(self.own(AnomalyKind.LATENCY), ("latency", "p99")), self._usual_traffic(weight=1)]
        cause = f"{self._question.service} is slow, and neither traffic nor a service below explains it."
        return self.unknown(cause, [*checks, self._nothing_below()])

    def by_itself(
        self, category: Category, anomalies: Sequence[Anomaly], title: str, words: tuple[str, ...]
    ) -> Hypothesis:
        worst = anomalies[0]
        cause = f"{title}: {worst.key.describe()} is {format_value(worst.value, worst.key.unit)}."
        suspects = sorted({item.key.instance for item in anomalies if item.key.instance})
        return self._say(category, cause, [self._breach(anomalies, words)], suspects)

    def unknown(self, cause: str, checks: Sequence[Check]) -> Hypothesis:
        return self._say(Category.UNKNOWN, cause, checks)

    def _breach(self, anomalies: Sequence[Anomaly], words: tuple[str, ...]) -> Check:
        worst = anomalies[0]
        unit = worst.key.unit
        relation = "above" if worst.bound.breach_above else "below"
        says = f"{worst.key.describe()} is {format_value(worst.value, unit)}, {relation} its bound of "
        says += f"{format_value(worst.bound.threshold, unit)} since {worst.started_at:%H:%M:%S} UTC."
        return Check(says[0].upper() + says[1:], True, 1, self._index.find(words))

    def _growth(self, names: str, highest: float) -> Check:
        slope = self._facts.memory_slope_per_min
        cites = self._index.find(("grow", "slope", "rising", "trend", "a minute", "per minute", "/min", "deriv"))
        if slope is None or not isfinite(slope):
            return Check("", None, 2, ())
        if slope >= GROWTH_PER_MIN:
            return Check(f"It grows by {slope:.1%} of its limit a minute.", True, 2, cites)
        if highest >= FULL_RATIO and slope > -GROWTH_PER_MIN:
            return Check("", None, 2, ())
        return Check(f"Memory of {names} does not grow ({slope:+.2%} of its limit a minute).", False, 2, cites)

    def _usual_traffic(self, *, weight: int) -> Check:
        says = f"Traffic is {self._facts.traffic_ratio or 0:.1f} times the usual."
        return Check(says, None if self.surge is None else not self.surge, weight, self._traffic())

    def _surging(self) -> Check:
        return Check(
            f"Traffic is {self._facts.traffic_ratio or 0:.1f} times the usual.", self.surge, 2, self._traffic()
        )

    def _traffic(self) -> tuple[str, ...]:
        return self._index.find(("traffic", "request rate", "requests a second", "requests/s", "requests per"))

    def _slower(self) -> Check:
        says = f"p99 latency is {self._facts.latency_ratio or 0:.1f} times the usual."
        return Check(says, self.slower, 1, self._index.find(("latency", "p99")))

    def _nothing_below(self) -> Check:
        """Waiting on a slow service makes latency and, by the requests held, memory. Uncited when nothing was read."""
        slow = self._facts.slow_callees
        says = f"Slow below it: {', '.join(slow)}." if slow else "No service below it is slow."
        return Check(says, not slow, 1, self._index.below())

    def _say(
        self,
        category: Category,
        cause: str,
        checks: Sequence[Check],
        suspects: Sequence[str] = (),
        *,
        ceiling: float | None = None,
    ) -> Hypothesis:
        said = [Claim(text=check.says[:600], evidence=check.cites) for check in checks if check.verdict]
        said += self._index.context_claims(self._facts.replicas)
        return Hypothesis(
            category=category,
            root_cause=cause[:600],
            suspect_instances=tuple(suspects),
            claims=tuple(said[:8]),
            certainty=round(certainty(CEILING[category] if ceiling is None else ceiling, checks), 3),
        )
