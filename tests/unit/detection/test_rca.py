"""Root-cause ranking: causes before symptoms, with and without a graph."""

from collections.abc import Mapping

import numpy as np
import pytest
from numpy.typing import NDArray

from pipeline.domain.detection.rca import Ranking, Table, rank
from pipeline.domain.detection.rca_graph import CallGraph
from pipeline.domain.detection.rca_metrics import MetricKind, deviations, kind_of, profile_of
from tests.bench.rank import by_largest_z, calls_case, hosts_case, ranked, share_right

Values = NDArray[np.float64]
NOW_S = 1_000_000.0
CHAIN = [("front", "cart"), ("cart", "store")]


def noisy(level: float, rows: int = 200, seed: int = 0, share: float = 0.05) -> Values:
    return level * (1.0 + share * np.random.default_rng(seed).normal(size=rows))


def table(start: float = 0.0, step: float = 60.0, **columns: Values) -> Table:
    rows = len(next(iter(columns.values())))
    return Table(start + step * np.arange(rows), columns)


def world(latency: Mapping[str, float], rows: int = 30) -> dict[str, Table]:
    """Latency and processor of three services, each of which also waits for the one below."""
    return {
        name: table(
            NOW_S,
            latency_avg=noisy(level, rows, seed),
            cpu=noisy(0.2, rows, seed + 10),
            requests=noisy(100.0, rows, seed + 20),
        )
        for seed, (name, level) in enumerate(latency.items())
    }


NORMAL = {"front": 0.3, "cart": 0.2, "store": 0.1}
BASELINE = world(NORMAL, rows=200)


def order(ranking: Ranking) -> list[str]:
    return [service.service for service in ranking.services]


@pytest.mark.parametrize(
    ("metric", "kind"),
    [
        ("container_cpu_usage_seconds_total", MetricKind.CPU),
        ("mem", MetricKind.MEMORY),
        ("memoryWorkingSet", MetricKind.MEMORY),
        ("diskio", MetricKind.DISK),
        ("packet_loss", MetricKind.NETWORK),
        ("socket", MetricKind.NETWORK),
        ("latency-90", MetricKind.LATENCY),
        ("request_duration_p99", MetricKind.LATENCY),
        ("failed_requests", MetricKind.ERRORS),
        ("http_5xx", MetricKind.ERRORS),
        ("availability_Average", MetricKind.AVAILABILITY),
        ("requests_Sum", MetricKind.TRAFFIC),
        ("workload", MetricKind.TRAFFIC),
        ("load", MetricKind.TRAFFIC),
        ("node_load1", MetricKind.CPU),
        ("blorp", MetricKind.OTHER),
    ],
)
def test_the_kind_is_read_from_the_name(metric: str, kind: MetricKind) -> None:
    assert kind_of(metric) is kind


def test_the_slow_callee_comes_before_its_slow_callers() -> None:
    slow = {"front": 0.8, "cart": 0.7, "store": 0.6}
    ranking = rank(BASELINE, world(slow), CHAIN)
    assert order(ranking)[0] == "store"
    assert ranking.services[0].reason.endswith("and it calls nobody that is in trouble")
    front = next(service for service in ranking.services if service.service == "front")
    assert "which its callees explain" in front.reason
    assert "cart" in front.reason


def test_a_caller_slower_than_its_callees_explain_is_the_cause() -> None:
    ranking = rank(BASELINE, world({"front": 1.2, "cart": 1.1, "store": 0.13}), CHAIN)
    assert order(ranking)[0] == "cart"


def test_a_callee_without_metrics_is_passed_through() -> None:
    slow = {"front": 0.8, "cart": 0.2, "store": 0.6}
    ranking = rank(BASELINE, world(slow), [("front", "balancer"), ("balancer", "store")])
    assert order(ranking)[0] == "store"


def test_a_starved_resource_comes_before_the_latency_it_causes_without_a_graph() -> None:
    window = world({"front": 0.5, "cart": 0.4, "store": 0.3})
    window["store"] = table(NOW_S, latency_avg=noisy(0.3, 30, 4), cpu=noisy(0.95, 30, 5), requests=noisy(100.0, 30, 6))
    best = rank(BASELINE, window).services[0]
    assert best.service == "store"
    assert best.metrics[0].metric == "cpu"
    assert best.metrics[0].direction == "up"
    assert "cpu of store is" in best.reason
    assert "above its baseline (0.2" in best.reason


def test_nothing_stands_out_of_a_usual_window() -> None:
    ranking = rank(BASELINE, world(NORMAL), CHAIN)
    assert {service.score for service in ranking.services} == {0.0}
    assert ranking.services[0].reason == "nothing beyond its usual range"


def test_scores_are_shares_and_the_answer_is_the_same_each_time() -> None:
    window = world({"front": 0.8, "cart": 0.7, "store": 0.6})
    ranking = rank(BASELINE, window, CHAIN)
    assert sum(service.score for service in ranking.services) == pytest.approx(1.0, abs=1e-4)
    assert ranking == rank(BASELINE, window, list(reversed(CHAIN)))


def test_an_improvement_is_no_cause() -> None:
    window = world({"front": 0.1, "cart": 0.2, "store": 0.16})
    ranking = rank(BASELINE, window, CHAIN)
    assert order(ranking)[0] == "store"


def test_services_of_one_side_only_come_last_with_the_reason() -> None:
    window = world({"front": 0.8, "cart": 0.7, "store": 0.6})
    window["fresh"] = window["store"]
    reasons = {
        item.service: item.reason for item in rank({**BASELINE, "gone": BASELINE["cart"]}, window, CHAIN).services
    }
    assert reasons["fresh"] == "no data in the baseline: not compared"
    assert reasons["gone"] == "no data in the incident window: not compared"


def test_what_was_off_all_the_while_is_not_what_came_with_the_incident() -> None:
    """The baseline is old: one service has become slower since, another is slow just while the front is."""
    course = np.array([0.0, 0.0, 1.0, 1.0, 0.0, 0.0])
    window = {
        "front": table(NOW_S, 300.0, latency_avg=noisy(0.3, 6, 1, 0.02) + 0.5 * course, requests=noisy(100.0, 6, 2)),
        "cart": table(NOW_S, 300.0, latency_avg=noisy(0.2, 6, 3, 0.02) + 0.5 * course, requests=noisy(100.0, 6, 4)),
        "store": table(NOW_S, 300.0, latency_avg=noisy(0.3, 6, 5, 0.02), requests=noisy(100.0, 6, 6)),
    }
    assert order(rank(BASELINE, window, [("front", "cart"), ("front", "store")]))[0] == "cart"


def test_load_that_explains_a_metric_is_taken_out() -> None:
    load = noisy(100.0, 200, 1, 0.2)
    more = np.full(30, 150.0)
    steady = deviations({"cpu": load / 500, "requests": load}, {"cpu": more / 500, "requests": more})
    busy = deviations({"cpu": load / 500, "requests": load}, {"cpu": more / 500 + 0.4, "requests": more})
    of = {item.metric: item.strength for item in steady}
    assert of["cpu"] < 0.5
    assert next(item.strength for item in busy if item.metric == "cpu") > 2.0


def test_counters_count_by_their_growth_and_a_restart_is_nothing() -> None:
    growth = np.cumsum(noisy(10.0, 200, 1))
    restarted = np.concatenate((growth[-1] + np.cumsum(noisy(10.0, 10, 2)), np.cumsum(noisy(10.0, 10, 3))))
    faster = growth[-1] + np.cumsum(noisy(40.0, 20, 4))
    (same,) = deviations({"cpu_total": growth}, {"cpu_total": restarted})
    (more,) = deviations({"cpu_total": growth}, {"cpu_total": faster})
    assert same.strength < 0.5 < 2.0 < more.strength


@pytest.mark.parametrize("after", [np.full(20, 5.0), np.full(20, np.nan), np.empty(0)])
def test_constant_missing_and_empty_columns_say_nothing(after: Values) -> None:
    found = deviations(
        {"cpu": np.full(50, 5.0), "mem": np.full(3, 1.0)}, {"cpu": after, "mem": np.ones(4), "new": after}
    )
    assert all(item.strength == 0.0 for item in found)


def test_a_constant_that_moves_counts_and_errors_from_zero_do() -> None:
    found = {
        item.metric: item
        for item in deviations(
            {"errors": np.zeros(50), "availability": np.full(50, 100.0), "disk": np.full(50, 7.0)},
            {"errors": np.full(9, 0.2), "availability": np.full(9, 97.0), "disk": np.full(9, 7.01)},
        )
    }
    assert found["errors"].strength > 1.0
    assert found["availability"].strength > 1.0
    assert found["disk"].strength == 0.0


def test_holes_in_the_samples_are_left_out() -> None:
    slow = world({"front": 0.8, "cart": 0.7, "store": 0.6})
    for item in slow.values():
        for values in item.columns.values():
            values[::3] = np.nan
    assert order(rank(BASELINE, slow, CHAIN))[0] == "store"


def test_a_circle_of_calls_ends() -> None:
    slow = world({"front": 0.8, "cart": 0.7, "store": 0.6})
    ranking = rank(BASELINE, slow, [*CHAIN, ("store", "front"), ("cart", "cart")])
    assert sorted(order(ranking)) == ["cart", "front", "store"]


def test_the_graph_knows_what_is_below() -> None:
    graph = CallGraph.of([*CHAIN, ("store", "hidden"), ("hidden", "disk")], ["front", "cart", "store", "disk"])
    assert graph.below("front") == {"cart", "store", "disk"}
    assert graph.callees("store") == ("disk",)
    assert graph.knows("hidden")
    assert not graph.knows("elsewhere")


def test_a_profile_follows_the_metric_and_a_steady_metric_has_none() -> None:
    before = noisy(0.2)
    (item,) = deviations({"latency": before}, {"latency": np.array([0.2, 0.2, 0.9, 0.9, 0.2, 0.2])})
    _, course = profile_of(item, before, np.array([0.2, 0.2, 0.9, 0.9, 0.2, 0.2]))
    assert course is not None
    assert course.round(1).tolist() == [0.0, 0.0, 1.0, 1.0, 0.0, 0.0]
    assert profile_of(item, before, np.full(6, 0.9))[1] is None


def test_simulated_incidents_are_ranked_better_than_by_the_largest_z_score() -> None:
    calls = [calls_case(seed) for seed in range(5000, 5012)]
    hosts = [hosts_case(seed) for seed in range(5000, 5008)]
    assert share_right(calls, ranked, with_graph=True) >= max(0.75, share_right(calls, by_largest_z, with_graph=True))
    assert share_right(hosts, ranked, with_graph=False) >= 0.85
