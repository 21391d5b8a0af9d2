"""Folding anomalies into causes."""

from dataclasses import replace
from itertools import permutations
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.domain.anomaly import KIND_OF, SYMPTOM_KINDS, Anomaly, AnomalyKind, Bound
from pipeline.domain.correlation import FOLDING_KINDS, Fold, correlate, explained_by
from pipeline.domain.ids import IncidentId, ServiceName
from pipeline.domain.incident import FAMILY_OF, Case, Incident, StoredAnomaly, fingerprint
from pipeline.domain.lifecycle import IncidentState, PlanState
from pipeline.domain.telemetry import CallEdge, SeriesKey, Signal
from pipeline.domain.topology import DependencyGraph
from tests.builders import (
    CHECKOUT,
    INCIDENT,
    WEB,
    after,
    make_anomaly,
    make_case,
    make_execution,
    make_incident,
    make_plan,
)

PAYMENTS = ServiceName("payments")
LEDGER = ServiceName("ledger")
MAILER = ServiceName("mailer")
CHAIN = [(WEB, CHECKOUT), (CHECKOUT, PAYMENTS), (PAYMENTS, LEDGER)]
SIGNAL_OF = {
    **{kind: signal for signal, kind in KIND_OF.items()},
    AnomalyKind.DEPLOYMENT_REGRESSION: Signal.ERROR_RATIO,
    AnomalyKind.MULTI_DIMENSIONAL: Signal.CPU_RATIO,
}
LATENCY = AnomalyKind.LATENCY
ERRORS = AnomalyKind.ERROR_SURGE
MEMORY = AnomalyKind.MEMORY_PRESSURE
DISK = AnomalyKind.DISK_EXHAUSTION
CERT = AnomalyKind.CERTIFICATE_EXPIRY
CASE = make_case()


def graph_of(pairs: list[tuple[ServiceName, ServiceName]]) -> DependencyGraph:
    return DependencyGraph.of(CallEdge(caller, callee, 1.0) for caller, callee in pairs)


GRAPH = graph_of([*CHAIN, (WEB, MAILER)])


def trouble(service: ServiceName, kind: AnomalyKind = LATENCY) -> Anomaly:
    own = kind in SYMPTOM_KINDS
    return make_anomaly(SeriesKey(service, SIGNAL_OF[kind], "" if own else f"{service}-1"), kind=kind)


def incident_at(service: ServiceName, family: str = "requests") -> Incident:
    return make_incident(service=service, family=family)


def places(folds: list[Fold]) -> dict[tuple[ServiceName, str], set[tuple[ServiceName, AnomalyKind]]]:
    return {
        (fold.service, fold.family): {(anomaly.key.service, anomaly.kind) for anomaly in fold.anomalies}
        for fold in folds
    }


def test_nothing_is_nothing() -> None:
    assert correlate([], GRAPH, [incident_at(WEB)]) == []


def test_callers_fold_into_the_deepest_callee_in_whatever_order() -> None:
    symptoms = [trouble(WEB), trouble(WEB, ERRORS), trouble(CHECKOUT), trouble(LEDGER)]
    for order in permutations(symptoms):
        (fold,) = correlate(order, GRAPH, [])
        assert (fold.service, fold.family, fold.incident) == (LEDGER, "requests", None)
        assert set(fold.anomalies) == set(symptoms)


def test_over_hops_that_show_nothing_themselves() -> None:
    assert places(correlate([trouble(WEB), trouble(LEDGER)], GRAPH, [])) == {
        (LEDGER, "requests"): {(WEB, LATENCY), (LEDGER, LATENCY)}
    }


def test_without_a_graph_each_stays_where_it_is() -> None:
    assert set(places(correlate([trouble(WEB), trouble(CHECKOUT)], graph_of([]), []))) == {
        (WEB, "requests"),
        (CHECKOUT, "requests"),
    }


def test_trouble_never_folds_downwards() -> None:
    assert set(places(correlate([trouble(WEB, MEMORY), trouble(CHECKOUT)], GRAPH, []))) == {
        (WEB, "memory"),
        (CHECKOUT, "requests"),
    }


def test_memory_takes_its_own_and_its_callers_symptoms() -> None:
    seen = [trouble(WEB), trouble(CHECKOUT), trouble(CHECKOUT, ERRORS), trouble(CHECKOUT, MEMORY)]
    (fold,) = correlate(seen, GRAPH, [])
    assert (fold.service, fold.family) == (CHECKOUT, "memory")
    assert len(fold.anomalies) == 4


def test_causes_stay_apart_and_at_home() -> None:
    causes = [trouble(service, kind) for service in (WEB, CHECKOUT) for kind in (MEMORY, DISK, CERT)]
    found = places(correlate([*causes, trouble(LEDGER)], GRAPH, []))
    assert set(found) == {(one.key.service, FAMILY_OF[one.kind]) for one in causes} | {(LEDGER, "requests")}
    assert all(len(members) == 1 for members in found.values())


@pytest.mark.parametrize("kind", [DISK, CERT])
def test_disk_and_certificate_draw_no_symptoms(kind: AnomalyKind) -> None:
    assert len(correlate([trouble(CHECKOUT, kind), trouble(WEB), trouble(CHECKOUT)], GRAPH, [])) == 2
    assert len(correlate([trouble(CHECKOUT, kind), trouble(CHECKOUT)], GRAPH, [])) == 2


def test_two_unrelated_roots_stay_two() -> None:
    shop = graph_of([(WEB, CHECKOUT), (MAILER, LEDGER)])
    assert places(correlate([trouble(one) for one in (WEB, CHECKOUT, MAILER, LEDGER)], shop, [])) == {
        (CHECKOUT, "requests"): {(WEB, LATENCY), (CHECKOUT, LATENCY)},
        (LEDGER, "requests"): {(MAILER, LATENCY), (LEDGER, LATENCY)},
    }


def test_two_roots_below_one_caller_stay_two_and_the_caller_goes_to_one() -> None:
    for order in permutations([trouble(WEB), trouble(LEDGER), trouble(MAILER)]):
        assert places(correlate(order, GRAPH, [])) == {
            (LEDGER, "requests"): {(WEB, LATENCY), (LEDGER, LATENCY)},
            (MAILER, "requests"): {(MAILER, LATENCY)},
        }


def test_an_open_incident_takes_late_symptoms() -> None:
    for symptom in (trouble(WEB), trouble(CHECKOUT, ERRORS), trouble(PAYMENTS)):
        (fold,) = correlate([symptom], GRAPH, [incident_at(PAYMENTS)])
        assert (fold.service, fold.incident) == (PAYMENTS, INCIDENT)
    (fold,) = correlate([trouble(WEB)], GRAPH, [incident_at(CHECKOUT, "memory")])
    assert (fold.family, fold.incident) == ("memory", INCIDENT)


def test_an_open_incident_takes_nothing_of_another_cause() -> None:
    (fold,) = correlate([trouble(PAYMENTS, MEMORY)], GRAPH, [incident_at(PAYMENTS)])
    assert (fold.family, fold.incident) == ("memory", None)
    (fold,) = correlate([trouble(WEB)], GRAPH, [incident_at(PAYMENTS, "disk")])
    assert (fold.service, fold.incident) == (WEB, None)
    (fold,) = correlate([trouble(LEDGER)], GRAPH, [incident_at(PAYMENTS)])
    assert (fold.service, fold.incident) == (LEDGER, None)


def test_each_fold_names_its_own_incident() -> None:
    first, second = incident_at(LEDGER), make_incident(id=IncidentId(43), service=MAILER, family="memory")
    found = correlate([trouble(LEDGER), trouble(MAILER, MEMORY), trouble(MAILER, DISK)], GRAPH, [first, second])
    assert {(fold.family, fold.service): fold.incident for fold in found} == {
        ("requests", LEDGER): 42,
        ("memory", MAILER): 43,
        ("disk", MAILER): None,
    }


SERVICES = [WEB, CHECKOUT, PAYMENTS, LEDGER, MAILER]
ACYCLIC = st.sets(
    st.sampled_from([(caller, callee) for at, caller in enumerate(SERVICES) for callee in SERVICES[at + 1 :]])
)


@given(
    st.permutations([trouble(service, kind) for service in SERVICES for kind in AnomalyKind]),
    st.integers(0, 10),
    ACYCLIC,
    st.randoms(use_true_random=False),
)
def test_every_anomaly_has_one_home_whatever_the_order(
    pool: list[Anomaly], count: int, edges: set[tuple[ServiceName, ServiceName]], random: object
) -> None:
    graph = graph_of(sorted(edges))
    anomalies = pool[:count]
    folds = correlate(anomalies, graph, [])
    assert sorted(map(id, (one for fold in folds for one in fold.anomalies))) == sorted(map(id, anomalies))
    assert places(folds) == places(correlate(list(reversed(anomalies)), graph, []))
    troubled = {one.key.service for one in anomalies}
    for fold in folds:
        assert fold.service in troubled, "no incident at a service that shows nothing"
        for one in fold.anomalies:
            near = graph.callees(one.key.service) | graph.callers(one.key.service)
            near |= frozenset[ServiceName]().union(
                *(graph.callers(shared) for shared in graph.callees(one.key.service))
            )
            assert fold.service == one.key.service or (one.kind in FOLDING_KINDS and fold.service in near)
            assert one.kind in FOLDING_KINDS or fold.family == FAMILY_OF[one.kind]


def test_every_kind_has_a_family_and_a_fingerprint_tells_them_apart() -> None:
    assert set(FAMILY_OF) == set(AnomalyKind)
    assert FAMILY_OF[LATENCY] == FAMILY_OF[ERRORS]
    names = {
        fingerprint(environment, service, family)
        for environment in ("prod", "demo")
        for service in (WEB, CHECKOUT)
        for family in set(FAMILY_OF.values())
    }
    assert len(names) == 2 * 2 * 4


def test_the_lead_is_the_oldest_cause_of_the_incidents_own_service() -> None:
    def lead(*seen: Anomaly) -> Anomaly:
        return replace(CASE, anomalies=tuple(StoredAnomaly(one, None) for one in seen)).lead

    symptom, cause = trouble(CHECKOUT), replace(trouble(CHECKOUT, MEMORY), started_at=after(60))
    later, elsewhere = replace(cause, started_at=after(90)), replace(trouble(WEB, MEMORY), started_at=after(-60))
    assert lead(elsewhere, symptom, later, cause) == cause
    assert lead(elsewhere, symptom) == symptom
    assert lead(elsewhere) == elsewhere


A, B, C = ServiceName("a"), ServiceName("b"), ServiceName("c")
CIRCLE = graph_of([(WEB, A), (A, B), (B, C), (C, A)])


def test_services_that_call_in_a_circle_are_one_cause() -> None:
    for order in permutations([trouble(WEB), trouble(A), trouble(B), trouble(C)]):
        (fold,) = correlate(order, CIRCLE, [])
        assert (fold.service, fold.family, len(fold.anomalies)) == (A, "requests", 4)


def test_the_root_of_a_circle_is_its_cause_or_what_is_open() -> None:
    seen = [trouble(one) for one in (WEB, A, B, C)]
    (fold,) = correlate(seen, CIRCLE, [incident_at(C)])
    assert (fold.service, fold.incident) == (C, INCIDENT)
    (fold,) = correlate([*seen, trouble(B, MEMORY)], CIRCLE, [])
    assert (fold.service, fold.family) == (B, "memory")
    below = graph_of([(WEB, A), (A, B), (B, C), (C, A), (B, LEDGER)])
    (fold,) = correlate([*seen, trouble(LEDGER)], below, [])
    assert fold.service == LEDGER


def traffic(service: ServiceName, value: float) -> Anomaly:
    above = value > 10.0
    bound = Bound(16.0 if above else 6.0, breach_above=above)
    key = SeriesKey(service, Signal.TRAFFIC)
    return make_anomaly(key, kind=AnomalyKind.TRAFFIC, value=value, peak=value, expected=10.0, sigma=1.0, bound=bound)


def test_a_surge_and_what_it_overloads_belong_where_it_comes_in() -> None:
    seen = [traffic(WEB, 30.0), traffic(CHECKOUT, 30.0), traffic(PAYMENTS, 30.0), trouble(PAYMENTS), trouble(CHECKOUT)]
    for order in permutations(seen):
        (fold,) = correlate(order, GRAPH, [])
        assert (fold.service, fold.family, fold.lead.kind) == (WEB, "requests", AnomalyKind.TRAFFIC)


def test_what_gets_slow_under_a_surge_belongs_to_it_and_what_was_slow_before_does_not() -> None:
    surge = traffic(WEB, 30.0)
    under = replace(trouble(PAYMENTS), started_at=after(60))
    (fold,) = correlate([surge, under], GRAPH, [])
    assert (fold.service, fold.lead.kind) == (WEB, AnomalyKind.TRAFFIC)
    before = replace(trouble(PAYMENTS), started_at=after(-600))
    assert {one.service for one in correlate([surge, before], GRAPH, [])} == {WEB, PAYMENTS}
    leak = trouble(PAYMENTS, MEMORY)
    assert {one.service for one in correlate([surge, leak], GRAPH, [])} == {WEB, PAYMENTS}


def test_a_surge_below_that_nobody_above_has_made_is_not_the_cause_of_failures_there() -> None:
    retried = replace(trouble(PAYMENTS, ERRORS), value=0.9, peak=0.9)
    (fold,) = correlate([retried, trouble(CHECKOUT), traffic(PAYMENTS, 14.0)], GRAPH, [])
    assert (fold.service, fold.lead.kind) == (PAYMENTS, ERRORS)


def test_a_drop_belongs_to_the_topmost_or_to_who_fails() -> None:
    drops = [traffic(one, 2.0) for one in (WEB, CHECKOUT, PAYMENTS)]
    (fold,) = correlate(drops, GRAPH, [])
    assert (fold.service, fold.lead.kind) == (WEB, AnomalyKind.TRAFFIC)
    (fold,) = correlate([traffic(PAYMENTS, 2.0), trouble(CHECKOUT, ERRORS)], GRAPH, [])
    assert fold.service == CHECKOUT, "who fails asks no more"
    (fold,) = correlate([*drops, trouble(LEDGER, ERRORS), trouble(WEB, ERRORS)], GRAPH, [])
    assert fold.service == LEDGER, "users leave"
    apart = correlate([traffic(WEB, 2.0), trouble(LEDGER, DISK)], GRAPH, [])
    assert len(apart) == 2


def test_a_release_that_made_things_worse_leads_unless_something_below_is_in_trouble() -> None:
    release = trouble(CHECKOUT, AnomalyKind.DEPLOYMENT_REGRESSION)
    (fold,) = correlate([trouble(WEB), trouble(CHECKOUT), release], GRAPH, [])
    assert (fold.service, fold.lead) == (CHECKOUT, release)
    (fold,) = correlate([release, trouble(LEDGER)], GRAPH, [])
    assert (fold.service, fold.lead.kind) == (LEDGER, LATENCY)


def test_the_root_is_the_first_candidate_and_each_has_a_reason() -> None:
    (fold,) = correlate([trouble(WEB), trouble(CHECKOUT), trouble(LEDGER)], GRAPH, [])
    assert [one.service for one in fold.candidates] == [LEDGER, CHECKOUT, WEB] or fold.candidates[0].service == LEDGER
    assert {one.service for one in fold.candidates} == {LEDGER, CHECKOUT, WEB}
    assert all(0 < one.score <= 1 and one.reason for one in fold.candidates)
    assert fold.candidates[0].score == max(one.score for one in fold.candidates)


def test_symptoms_that_outlast_their_root_stay_with_its_incident() -> None:
    surge = incident_at(WEB)
    left = [trouble(PAYMENTS), trouble(LEDGER)]
    attached = {one.key: INCIDENT for one in left}
    (fold,) = correlate(left, GRAPH, [surge], attached)
    assert (fold.service, fold.incident, len(fold.anomalies)) == (WEB, INCIDENT, 2)
    (fold,) = correlate([*left, trouble(MAILER)][1:2], GRAPH, [surge], {})
    assert (fold.service, fold.incident) == (LEDGER, None)
    found = correlate([trouble(WEB), trouble(LEDGER)], GRAPH, [surge], {trouble(WEB).key: INCIDENT})
    assert [(fold.service, fold.incident) for fold in found] == [(LEDGER, None)], "a root that shows later"


def test_a_storm_is_at_most_one_incident_a_service() -> None:
    names = [ServiceName(f"s{number:02d}") for number in range(20)]
    kinds = [LATENCY, ERRORS, MEMORY, DISK, CERT]
    pool = [trouble(name, kind) for name in names for kind in kinds]
    storm = [replace(pool[number % len(pool)], started_at=after(number % 300)) for number in range(10_000)]
    for graph in (graph_of([]), graph_of([(names[0], name) for name in names[1:]])):
        folds = correlate(storm, graph, [make_incident(service=names[3], family="disk")])
        assert len({fold.service for fold in folds}) == len(folds) <= 20
        assert sum(len(fold.anomalies) for fold in folds) == 10_000
        assert [fold.incident for fold in folds if fold.service == names[3]] == [INCIDENT]


def caller_case(*seen: Anomaly, **changes: Any) -> Case:
    """The open incident of requests at ``web``, with nothing proposed yet, unless ``changes`` say otherwise."""
    anomalies = tuple(StoredAnomaly(one, None) for one in seen or (trouble(WEB),))
    return replace(make_case(), **{"incident": incident_at(WEB), "anomalies": anomalies, "plan": None, **changes})


ROOT = Fold(CHECKOUT, "requests", None, (trouble(WEB), trouble(CHECKOUT)))


@pytest.mark.parametrize("state", IncidentState)
def test_an_undecided_incident_is_explained_by_a_new_root_below_it(state: IncidentState) -> None:
    case = caller_case(incident=make_incident(state, service=WEB, family="requests"))
    undecided = state in {"open", "diagnosing", "awaiting_decision", "escalated"}
    assert explained_by(case, ROOT, GRAPH) is undecided


@pytest.mark.parametrize(
    ("case", "root", "graph"),
    [
        (caller_case(plan=make_plan(state=PlanState.APPROVED)), ROOT, GRAPH),
        (caller_case(plan=make_plan(state=PlanState.BLOCKED), execution=make_execution()), ROOT, GRAPH),
        (caller_case(incident=incident_at(WEB, "memory")), ROOT, GRAPH),
        (caller_case(incident=incident_at(LEDGER)), ROOT, GRAPH),
        (caller_case(trouble(WEB), trouble(MAILER)), ROOT, GRAPH),
        (caller_case(trouble(WEB), trouble(WEB, MEMORY)), ROOT, GRAPH),
        (replace(caller_case(), anomalies=()), ROOT, GRAPH),
        (caller_case(), replace(ROOT, family="disk"), GRAPH),
        (caller_case(), ROOT, graph_of([])),
        (caller_case(), ROOT, graph_of([(WEB, CHECKOUT), (CHECKOUT, WEB)])),
    ],
    ids=[
        "approved",
        "acted on",
        "a cause",
        "below",
        "more than that",
        "own memory",
        "empty",
        "disk",
        "alone",
        "circle",
    ],
)
def test_what_is_not_explained_by_a_new_root(case: Case, root: Fold, graph: DependencyGraph) -> None:
    assert not explained_by(case, root, graph)


def test_a_waiting_plan_and_callers_of_the_caller_do_not_keep_it() -> None:
    front = ServiceName("front")
    graph = graph_of([*CHAIN, (front, WEB)])
    assert explained_by(caller_case(trouble(WEB), trouble(front), plan=make_plan()), ROOT, graph)
    assert explained_by(caller_case(), replace(ROOT, service=LEDGER, family="memory"), graph)
