"""Checking a causal path: does every step rest on something measured, in order, along the service graph? Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime

from pipeline.domain.diagnosis import Category, CheckedPath, CheckedStep, Evidence, PathStep, Sign
from pipeline.domain.ids import ServiceName
from pipeline.domain.telemetry import Signal
from pipeline.domain.topology import DependencyGraph

LATE_S = 60.0
"""A cause may be dated this much after its effect: both are read over windows, and clocks differ."""

ROOTS: dict[Category, frozenset[Signal]] = {
    Category.MEMORY: frozenset({Signal.MEMORY_RATIO}),
    Category.SATURATION: frozenset({Signal.TRAFFIC, Signal.CPU_RATIO, Signal.QUOTA_RATIO}),
    Category.DISK: frozenset({Signal.DISK_RATIO}),
    Category.CERTIFICATE: frozenset({Signal.CERT_REMAINING}),
}
"""What the first step must show to be abnormal, by category. A bad change must show the change itself."""


def check_path(
    steps: Sequence[PathStep],
    category: Category,
    service: ServiceName,
    evidence: Mapping[str, Evidence],
    graph: DependencyGraph,
) -> CheckedPath:
    """Checks ``steps`` (cause first) for an incident at ``service``; ``evidence`` is all that was shown, by id.

    A step holds when it cites an anomaly, an abnormal measurement or an event of its own service that code judged so;
    when it begins no later than the next (``LATE_S`` allowed); and when the failure can have travelled: along a call
    from the callee up, or, for load, from the caller down. The last step must be an anomaly of the incident, the first
    must show what its category says, at the service that would be acted on.
    """
    if len(steps) < 2:
        return _too_short(steps)
    bearing = [_bearing(step, evidence) for step in steps]
    checked: list[CheckedStep] = []
    for number, step in enumerate(steps):
        problem, found = _own_problem(step, bearing[number], evidence), ""
        if not problem and number:
            problem, found = _hop(steps[number - 1], step, bearing[number - 1], bearing[number], graph)
        checked.append(CheckedStep(step.what, step.service, step.evidence, problem, found))
    return CheckedPath(tuple(checked), _whole(steps, bearing, category, service))


def _too_short(steps: Sequence[PathStep]) -> CheckedPath:
    why = "a path needs a cause and a symptom"
    shown = tuple(CheckedStep(step.what, step.service, step.evidence, why) for step in steps)
    return CheckedPath(shown, why) if shown else CheckedPath()


def _bearing(step: PathStep, evidence: Mapping[str, Evidence]) -> list[Evidence]:
    """What is cited, belongs to the step's service, and was judged to be out of the ordinary."""
    cited = [evidence[name] for name in step.evidence if name in evidence]
    return [item for item in cited if item.service == step.service and item.sign in (Sign.ABNORMAL, Sign.HAPPENED)]


def _own_problem(step: PathStep, bearing: Sequence[Evidence], evidence: Mapping[str, Evidence]) -> str:
    if not step.evidence:
        return "cites no evidence"
    if unknown := [name for name in step.evidence if name not in evidence]:
        return f"cites {', '.join(unknown)[:40]}, which was not read"
    if bearing:
        return ""
    cited = [evidence[name] for name in step.evidence]
    if not any(item.service == step.service for item in cited):
        return f"what it cites is not about {step.service}"
    if any(item.sign is Sign.NORMAL for item in cited):
        return "what it cites is as usual"
    return "what it cites is context, no anomaly and no event"


def _hop(
    cause: PathStep,
    effect: PathStep,
    shown_cause: Sequence[Evidence],
    shown_effect: Sequence[Evidence],
    graph: DependencyGraph,
) -> tuple[str, str]:
    """What is wrong with the hop, and what was found of it."""
    if not shown_cause:
        return "the step before it is not shown", ""
    if {_fact(item) for item in shown_effect} <= {_fact(item) for item in shown_cause}:
        return "it rests on the same evidence as the step before", ""
    began, began_effect = _began(shown_cause), _began(shown_effect)
    if began is None or began_effect is None:
        return "when it began is not known", ""
    lag_s = (began_effect - began).total_seconds()
    if lag_s < -LATE_S:
        return f"it began {-lag_s:.0f} s before what is said to have caused it", ""
    order = f"{lag_s:.0f} s after the step before" if lag_s > 0 else "at the same time"
    upper, lower = ServiceName(effect.service), ServiceName(cause.service)
    if upper == lower:
        return "", order
    if lower in graph.callees(upper):
        return "", f"{order}; {upper} calls {lower}"
    load = any(item.signal is Signal.TRAFFIC for item in shown_cause)
    if load and upper in graph.callees(lower):
        return "", f"{order}; {lower} calls {upper}"
    return f"the service graph has no way from {lower} to {upper}", ""


def _fact(item: Evidence) -> str:
    """The same series read again is the same fact under another id."""
    return f"{item.signal} {item.query}" if item.signal is not None and item.query else item.id


def _began(shown: Sequence[Evidence]) -> datetime | None:
    return min((item.began for item in shown if item.began is not None), default=None)


def _whole(
    steps: Sequence[PathStep], bearing: Sequence[Sequence[Evidence]], category: Category, service: ServiceName
) -> str:
    if not any(item.kind == "anomaly" for item in bearing[-1]):
        return "the last step is no anomaly of this incident"
    if category is Category.UNKNOWN:
        return ""
    if steps[0].service != service:
        return f"its cause lies at {steps[0].service}, and {service} would be acted on"
    if category is Category.BAD_CHANGE:
        if any(item.kind == "change" for item in bearing[0]):
            return ""
        return "its first step is no change that was read"
    if any(item.signal in ROOTS[category] for item in bearing[0]):
        return ""
    wanted = " or ".join(sorted(signal.value for signal in ROOTS[category]))
    return f"its first step shows no abnormal {wanted}, as {category.value} needs"
