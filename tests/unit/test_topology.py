"""Who depends on whom."""

from hypothesis import given
from hypothesis import strategies as st

from pipeline.domain.ids import ServiceName
from pipeline.domain.telemetry import CallEdge
from pipeline.domain.topology import DependencyGraph, EdgeAges

NAMES = [ServiceName(name) for name in "abcdef"]
A, B, C, D, E, F = NAMES
PAIRS = st.lists(st.tuples(st.sampled_from(NAMES), st.sampled_from(NAMES)), max_size=20)


def graph_of(*pairs: tuple[ServiceName, ServiceName]) -> DependencyGraph:
    return DependencyGraph.of(CallEdge(caller, callee, 1.0) for caller, callee in pairs)


def test_over_any_number_of_hops_and_one_way_only() -> None:
    graph = graph_of((A, B), (B, C), (C, D), (E, C))
    assert graph.callees(A) == {B, C, D}
    assert graph.callees(C) == {D}
    assert graph.callers(D) == {A, B, C, E}
    assert graph.callers(A) == graph.callees(D) == frozenset()


def test_a_cycle_ends_and_nobody_calls_itself() -> None:
    graph = graph_of((A, B), (B, C), (C, A), (C, D))
    assert graph.callees(A) == {B, C, D}
    assert graph.callers(A) == {B, C}
    assert graph.callers(D) == {A, B, C}
    assert graph_of((A, A), (A, B)) == graph_of((A, B))


def test_two_services_that_call_each_other() -> None:
    graph = graph_of((A, B), (B, A))
    assert graph.callees(A) == graph.callers(A) == {B}


def test_a_service_of_which_no_call_was_seen_is_unknown() -> None:
    graph = graph_of((A, B))
    assert (graph.knows(A), graph.knows(B), graph.knows(C)) == (True, True, False)
    assert graph.callees(C) == graph.callers(C) == frozenset()
    assert not graph_of((A, A)).knows(A)


def test_an_edge_seen_twice_is_one() -> None:
    assert len(graph_of((A, B), (A, B)).edges) == 1


@given(PAIRS)
def test_callers_and_callees_are_two_sides_of_one_relation(pairs: list[tuple[ServiceName, ServiceName]]) -> None:
    graph = graph_of(*pairs)
    for here in NAMES:
        assert here not in graph.callees(here) | graph.callers(here)
        direct = {callee for caller, callee in graph.edges if caller == here}
        assert direct <= graph.callees(here)
        further = frozenset[ServiceName]().union(*(graph.callees(callee) for callee in direct))
        assert graph.callees(here) == (direct | further) - {here}
        assert all(here in graph.callers(callee) for callee in graph.callees(here))


def test_edges_age_unless_they_were_given_for_good() -> None:
    ages = EdgeAges([(A, B), (C, C)], max_age_s=100.0)
    ages.see([(B, C), (D, D)], 1000.0)
    ages.see([(C, D)], 1050.0)
    assert ages.graph(1100.0).edges == {(A, B), (B, C), (C, D)}
    assert ages.graph(1101.0).edges == {(A, B), (C, D)}
    ages.see([(B, C)], 1140.0)
    assert ages.graph(1150.0).edges == {(A, B), (B, C), (C, D)}
    assert ages.graph(9999.0).edges == {(A, B)}
