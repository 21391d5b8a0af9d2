"""The causal path: every step measured, in order, along the graph, from what the category says."""

from dataclasses import replace

import pytest

from pipeline.domain.causal import LATE_S, check_path
from pipeline.domain.diagnosis import Category, CheckedPath, Evidence, EvidenceKind, PathStep, Sign
from pipeline.domain.ids import EvidenceId, ServiceName
from pipeline.domain.telemetry import Signal
from pipeline.domain.topology import DependencyGraph
from tests.builders import CHECKOUT, WEB, after

PAYMENTS = ServiceName("payments")
GRAPH = DependencyGraph(frozenset({(WEB, CHECKOUT), (CHECKOUT, PAYMENTS)}))


def fact(
    name: str,
    kind: EvidenceKind,
    *,
    service: ServiceName = CHECKOUT,
    signal: Signal | None = None,
    sign: Sign = Sign.ABNORMAL,
    at_s: float | None = 0.0,
) -> Evidence:
    began = None if at_s is None else after(at_s)
    return Evidence(EvidenceId(name), kind, name, "", after(0), after(0), service, service, sign, signal, began)


GROWTH = fact("E1", "metric", signal=Signal.MEMORY_RATIO, at_s=-300)
BREACH = fact("E2", "anomaly", signal=Signal.MEMORY_RATIO)
SURGE = fact("E3", "metric", signal=Signal.TRAFFIC, at_s=-60)
SLOW = fact("E4", "anomaly", signal=Signal.LATENCY_P99)
CHANGE = fact("E5", "change", sign=Sign.HAPPENED, at_s=-30)
BELOW = fact("E6", "metric", service=PAYMENTS, signal=Signal.LATENCY_P99, at_s=-20)
ABOVE = fact("E7", "metric", service=WEB, signal=Signal.TRAFFIC, at_s=-90)
EVIDENCE = {item.id: item for item in (GROWTH, BREACH, SURGE, SLOW, CHANGE, BELOW, ABOVE)}


def step(*evidence: str, service: str = CHECKOUT, what: str = "it happened") -> PathStep:
    return PathStep(what=what, service=service, evidence=evidence)


def checked(category: Category, *steps: PathStep, **changed: Evidence) -> CheckedPath:
    return check_path(steps, category, CHECKOUT, {**EVIDENCE, **changed}, GRAPH)


@pytest.mark.parametrize(
    ("category", "steps"),
    [
        (Category.MEMORY, [step("E1"), step("E2")]),
        (Category.SATURATION, [step("E3"), step("E4")]),
        (Category.BAD_CHANGE, [step("E5"), step("E4")]),
        (Category.UNKNOWN, [step("E6", service=PAYMENTS), step("E4")]),
        (Category.UNKNOWN, [step("E7", service=WEB), step("E3"), step("E4")]),
    ],
)
def test_a_path_that_was_measured_holds(category: Category, steps: list[PathStep]) -> None:
    path = checked(category, *steps)
    assert path.holds, path.why_not()
    assert path.steps[1].found


@pytest.mark.parametrize(
    ("category", "steps", "why"),
    [
        (Category.MEMORY, [], "no causal path was given"),
        (Category.MEMORY, [step("E2")], "a cause and a symptom"),
        (Category.MEMORY, [step(), step("E2")], "cites no evidence"),
        (Category.MEMORY, [step("E99"), step("E2")], "E99, which was not read"),
        (Category.MEMORY, [step("E2"), step("E2")], "same evidence"),
        (Category.MEMORY, [step("E3"), step("E2")], "no abnormal memory_ratio"),
        (Category.SATURATION, [step("E1"), step("E4")], "no abnormal cpu_ratio or quota_ratio or traffic"),
        (Category.BAD_CHANGE, [step("E3"), step("E4")], "no change that was read"),
        (Category.SATURATION, [step("E3", service="payments"), step("E4")], "not about payments"),
        (Category.MEMORY, [step("E1"), step("E3")], "no anomaly of this incident"),
        (Category.MEMORY, [step("E6", service="payments"), step("E2")], "checkout would be acted on"),
        (Category.UNKNOWN, [step("E3"), step("E6", service="payments"), step("E4")], ""),
    ],
)
def test_what_was_not_measured_does_not_hold(category: Category, steps: list[PathStep], why: str) -> None:
    path = checked(category, *steps)
    assert path.holds is (not why)
    assert why in path.why_not()


def test_a_cause_comes_first() -> None:
    late = replace(SURGE, began=after(LATE_S + 1))
    assert (
        "before what is said to have caused it"
        in checked(Category.SATURATION, step("E3"), step("E4"), E3=late).why_not()
    )
    inside = replace(SURGE, began=after(LATE_S))
    assert checked(Category.SATURATION, step("E3"), step("E4"), E3=inside).holds
    undated = replace(SURGE, began=None)
    assert "not known" in checked(Category.SATURATION, step("E3"), step("E4"), E3=undated).why_not()


@pytest.mark.parametrize(
    ("sign", "why"), [(Sign.NORMAL, "as usual"), (Sign.STATED, "context, no anomaly and no event")]
)
def test_only_what_code_judged_abnormal_carries_a_step(sign: Sign, why: str) -> None:
    assert why in checked(Category.SATURATION, step("E3"), step("E4"), E3=replace(SURGE, sign=sign)).why_not()


def test_trouble_travels_from_the_callee_up_and_load_from_the_caller_down() -> None:
    sideways = fact("E6", "metric", service=ServiceName("ledger"), signal=Signal.LATENCY_P99, at_s=-20)
    path = checked(Category.UNKNOWN, step("E6", service="ledger"), step("E4"), E6=sideways)
    assert "no way from ledger to checkout" in path.why_not()
    slow_caller = replace(ABOVE, signal=Signal.LATENCY_P99)
    path = checked(Category.UNKNOWN, step("E7", service=WEB), step("E4"), E7=slow_caller)
    assert "no way from web to checkout" in path.why_not()
