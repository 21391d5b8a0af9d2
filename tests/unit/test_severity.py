"""The severity classifier: five weighted dimensions and one hard rule."""

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.domain.anomaly import AnomalyKind
from pipeline.domain.baseline import BaselineBank
from pipeline.domain.catalogue import Catalogue
from pipeline.domain.ids import ServiceName
from pipeline.domain.severity import WEIGHTS, Severity, SeverityFacts, classify
from pipeline.domain.telemetry import CallEdge
from pipeline.domain.topology import DependencyGraph
from pipeline.stages.triage import triage
from tests.builders import CHECKOUT, WEB, make_anomaly

LEAF = ServiceName("leaf")

MILD = SeverityFacts(
    kinds=(AnomalyKind.LATENCY,),
    tier=4,
    error_ratio=0.0,
    latency_ratio=1.0,
    affected_services=1,
    known_services=10,
    financial=0.0,
)
ORDER = list(Severity)
FACTS = st.builds(
    SeverityFacts,
    kinds=st.lists(st.sampled_from(AnomalyKind), unique=True).map(tuple),
    tier=st.integers(1, 4),
    error_ratio=st.floats(0, 1),
    latency_ratio=st.floats(0, 100),
    affected_services=st.integers(1, 10),
    known_services=st.integers(10, 20),
    financial=st.floats(0, 1),
)


def part(name: str, **changes: Any) -> float:
    return classify(replace(MILD, **changes)).parts[name]


def test_the_weights_are_a_whole() -> None:
    assert sum(WEIGHTS.values()) == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, 0),
        ({"error_ratio": 0.25}, 0.5),
        ({"error_ratio": 0.5}, 1),
        ({"error_ratio": 1.0}, 1),
        ({"latency_ratio": 3.0}, 0.5),
        ({"latency_ratio": 5.0}, 1),
        ({"latency_ratio": 50.0}, 1),
        ({"latency_ratio": 0.2}, 0),
        ({"error_ratio": 0.1, "latency_ratio": 3.0}, 0.5),
    ],
)
def test_user_impact_is_the_worse_of_errors_and_latency(changes: dict[str, float], expected: float) -> None:
    assert part("user_impact", **changes) == pytest.approx(expected)


def test_the_other_dimensions() -> None:
    assert [part("tier", tier=tier) for tier in (1, 2, 3, 4)] == [1.0, 0.6, 0.3, 0.1]
    assert part("blast_radius", affected_services=3, known_services=4) == 0.75
    assert part("blast_radius", affected_services=1, known_services=0) == 1.0
    assert [part("financial", financial=share) for share in (-1.0, 0.4, 7.0)] == [0, 0.4, 1]
    both = (AnomalyKind.LATENCY, AnomalyKind.DISK_EXHAUSTION)
    assert part("irreversibility", kinds=both) == part("irreversibility", kinds=both[1:]) == 0.7
    assert part("irreversibility", kinds=()) == 0


@pytest.mark.parametrize("kind", AnomalyKind)
def test_every_kind_has_its_irreversibility(kind: AnomalyKind) -> None:
    assert 0 < part("irreversibility", kinds=(kind,)) < 1


def test_half_the_requests_of_tier_one_failing_is_sev1_whatever_the_score() -> None:
    found = classify(replace(MILD, tier=1, error_ratio=0.5))
    assert found.severity is Severity.SEV1
    assert found.score < 0.75
    assert classify(replace(MILD, tier=1, error_ratio=0.49)).severity is not Severity.SEV1
    assert classify(replace(MILD, tier=2, error_ratio=1.0)).severity is not Severity.SEV1


@pytest.mark.parametrize(
    ("changes", "score", "severity"),
    [
        ({}, 0.055, Severity.SEV4),
        ({"tier": 3, "financial": 0.9}, 0.24, Severity.SEV4),
        ({"tier": 3, "financial": 1.0}, 0.255, Severity.SEV3),
        ({"tier": 1, "financial": 1.0, "latency_ratio": 2.5}, 0.5425, Severity.SEV3),
        ({"tier": 1, "financial": 1.0, "latency_ratio": 2.6}, 0.55, Severity.SEV2),
        ({"tier": 1, "financial": 1.0, "latency_ratio": 5.0}, 0.73, Severity.SEV2),
        ({"tier": 1, "financial": 1.0, "latency_ratio": 5.0, "affected_services": 2}, 0.75, Severity.SEV1),
    ],
)
def test_the_thresholds(changes: dict[str, Any], score: float, severity: Severity) -> None:
    found = classify(replace(MILD, **changes))
    assert found.score == pytest.approx(score)
    assert found.severity is severity


@pytest.mark.parametrize(
    ("changes", "score", "severity"),
    [
        ({}, 0.25, Severity.SEV3),
        ({"latency_ratio": 5.0}, 0.55, Severity.SEV2),
        ({"latency_ratio": 5.0, "affected_services": 10}, 0.75, Severity.SEV1),
    ],
)
def test_a_threshold_that_is_just_reached_counts(changes: dict[str, Any], score: float, severity: Severity) -> None:
    found = classify(replace(MILD, **{"kinds": (), "tier": 1, "affected_services": 0, **changes}))
    assert (found.score, found.severity) == (score, severity)


@given(FACTS)
def test_the_parts_add_up_and_the_same_facts_give_the_same(facts: SeverityFacts) -> None:
    found = classify(facts)
    assert found == classify(facts)
    assert all(0 <= value <= 1 for value in found.parts.values())
    assert found.score == pytest.approx(sum(WEIGHTS[name] * found.parts[name] for name in WEIGHTS))
    assert -1e-9 <= found.score <= 1 + 1e-9


@given(FACTS, st.floats(0, 1), st.floats(0, 50), st.integers(0, 3))
def test_worse_facts_are_never_milder(facts: SeverityFacts, errors: float, slower: float, tiers: int) -> None:
    worse = replace(
        facts,
        error_ratio=min(facts.error_ratio + errors, 1.0),
        latency_ratio=facts.latency_ratio + slower,
        tier=max(facts.tier - tiers, 1),
    )
    assert ORDER.index(classify(worse).severity) <= ORDER.index(classify(facts).severity)


def test_the_arithmetic_is_shown() -> None:
    text = classify(replace(MILD, tier=2, error_ratio=0.25)).arithmetic()
    assert text == (
        "0.30·user impact 0.50 + 0.25·tier 0.60 + 0.20·blast radius 0.10 + 0.15·financial 0.00"
        " + 0.10·irreversibility 0.10 = 0.33"
    )


def test_more_affected_than_known_is_all_of_them() -> None:
    assert part("blast_radius", affected_services=6, known_services=1) == 1


def test_callers_seen_only_in_the_graph_are_known_services() -> None:
    callers = [ServiceName(f"caller-{number}") for number in range(5)]
    graph = DependencyGraph.of([CallEdge(WEB, LEAF, 1.0), *(CallEdge(one, CHECKOUT, 1.0) for one in callers)])
    found = triage(CHECKOUT, [make_anomaly()], {}, BaselineBank(), Catalogue({}), graph)
    assert found.parts["blast_radius"] == 6 / 8
    alone = triage(CHECKOUT, [make_anomaly()], {}, BaselineBank(), Catalogue({}), DependencyGraph.of([]))
    assert alone.parts["blast_radius"] == 1


@pytest.mark.parametrize(
    ("changes", "severity", "why"),
    [
        ({"tier": 1, "error_ratio": 0.5}, Severity.SEV1, "half of its requests"),
        ({"tier": 1, "certificate_over": True}, Severity.SEV1, "certificate of a tier 1"),
        ({"tier": 2, "error_ratio": 0.95}, Severity.SEV2, "nearly every request"),
        ({"tier": 2, "certificate_over": True}, Severity.SEV2, "has ended"),
    ],
)
def test_a_hard_rule_makes_it_worse_and_says_so(changes: dict[str, Any], severity: Severity, why: str) -> None:
    result = classify(replace(MILD, **changes))
    assert result.severity is severity
    assert why in result.rule
    assert result.rule in result.arithmetic()


@given(FACTS)
def test_a_rule_never_makes_it_milder(facts: SeverityFacts) -> None:
    plain = classify(facts)
    ended = classify(replace(facts, certificate_over=True))
    assert ORDER.index(ended.severity) <= ORDER.index(plain.severity)
