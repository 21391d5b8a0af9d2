"""Root-cause ranking on simulated incidents, beside the plain largest z-score. Two worlds, traps in both.

`calls`: some 30 components seen through traces only (latency average and percentiles, requests, availability) every
five minutes, a known call graph, a baseline from another season (levels have shifted), half of the windows with the
incident in a part of them. `hosts`: a shop of 11 services with resource metrics every few seconds, one fault injected,
with and without the graph. Traps: traffic rises in the window, metrics missing, samples missing, noisy rare components.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from time import perf_counter
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from pipeline.domain.detection.rca import Table, rank

Values = NDArray[np.float64]
Tables = Mapping[str, Table]
Edges = Sequence[tuple[str, str]]
PERCENTILES = (50, 90, 95, 99)
CASES = 52


class Case(NamedTuple):
    baseline: dict[str, Table]
    window: dict[str, Table]
    edges: list[tuple[str, str]]
    root: str


def run() -> None:
    """Prints the share of cases whose first service is the right one."""
    for name, world, with_graph in (
        ("calls, with graph", calls_case, True),
        ("hosts, with graph", hosts_case, True),
        ("hosts, without", hosts_case, False),
    ):
        cases = [world(seed) for seed in range(1000, 1000 + CASES)]
        start = perf_counter()
        ours = share_right(cases, ranked, with_graph)
        took_ms = (perf_counter() - start) / CASES * 1000
        plain = share_right(cases, by_largest_z, with_graph)
        print(f"rank · {name}: top-1 {ours:.2f}, largest z-score {plain:.2f}; {took_ms:.0f} ms a case ({CASES} cases)")


def share_right(cases: Sequence[Case], method: Callable[[Tables, Tables, Edges], str], with_graph: bool) -> float:
    hits = [method(case.baseline, case.window, case.edges if with_graph else []) == case.root for case in cases]
    return float(np.mean(hits))


def ranked(baseline: Tables, window: Tables, edges: Edges) -> str:
    return rank(baseline, window, edges).services[0].service


def by_largest_z(baseline: Tables, window: Tables, edges: Edges) -> str:
    del edges
    best: dict[str, float] = {}
    for service in set(baseline) & set(window):
        scores = [0.0]
        for name, values in baseline[service].columns.items():
            known = values[np.isfinite(values)]
            now = window[service].columns.get(name, np.empty(0))
            now = now[np.isfinite(now)]
            if len(known) > 1 and len(now):
                scores.append(float(np.max(np.abs(now - known.mean())) / (known.std() + 1e-9)))
        best[service] = max(scores)
    return max(sorted(best), key=lambda name: best[name])


def calls_case(seed: int) -> Case:
    rng = np.random.default_rng(seed)
    graph, share = _layers(rng, int(rng.integers(18, 34)))
    count = len(graph)
    reach = _visits(graph, share)
    inner = [node for node in range(1, count) if reach[node] > 0.05 and graph[node]]
    leaves = [node for node in range(1, count) if reach[node] > 0.05 and not graph[node]]
    if not inner:
        return calls_case(seed + 1_000_000)
    root = int(rng.choice(leaves if leaves and rng.random() < 0.3 else inner))
    length = int(rng.integers(5, 9))
    on = np.ones(length)
    if rng.random() < 0.6:
        on[:2] = 0.0
        on[length - int(rng.integers(0, 2)) :] = 0.0
    fault = str(rng.choice(["delay", "delay", "errors"]))
    hit = float(rng.choice([0.05, 0.3, 1.0]))
    delay = float(np.exp(rng.uniform(np.log(0.1), np.log(2.0)))) / np.sqrt(hit)
    wrong = float(rng.uniform(0.01, 0.08))
    own = np.exp(rng.normal(-4.0, 1.0, count))
    front = float(reach @ own)
    if (
        max(
            delay * hit * reach[root] / front if fault == "delay" else 0.0,
            10 * wrong * reach[root] * (fault == "errors"),
        )
        < 0.2
    ):
        return calls_case(seed + 1_000_000)  # nobody would have noticed
    noise = rng.uniform(0.03, 0.3, count)
    tail = rng.uniform(1.2, 2.0, count)
    shift = np.where(rng.random(count) < 0.35, np.exp(rng.normal(0.0, 0.3, count)), 1.0)
    traffic_now = float(rng.choice([1.0, 1.0, 1.6]))
    names = [f"svc-{node:02d}" for node in range(count)]
    silent = {node for node in range(1, count) if node != root and rng.random() < 0.1}
    base_errors = np.where(rng.random(count) < 0.15, rng.uniform(0.0, 0.03, count), 0.0)

    def tables(rows: int, start: float, during: bool, active: Values) -> dict[str, Table]:
        volume = 500.0 * (1 + 0.1 * rng.normal(size=rows)) * (traffic_now if during else 1.0)
        average = np.zeros((count, rows))
        touched = np.zeros((count, rows))
        failing = np.zeros((count, rows))
        made = {}
        for node in reversed(range(count)):
            level = own[node] * (shift[node] if during else 1.0)
            few = np.maximum(1.0, volume * reach[node])
            average[node] = level * np.exp(noise[node] * rng.normal(size=rows) * (1 + 3 / np.sqrt(few)))
            failing[node] = base_errors[node] * (0.5 if during and shift[node] != 1 else 1.0)
            if node == root and during:
                touched[node] = active * (hit if fault == "delay" else 0.0)
                average[node] += delay * touched[node]
                failing[node] = np.maximum(failing[node], active * (wrong if fault == "errors" else 0.0))
            for callee in graph[node]:
                average[node] += share[node, callee] * average[callee]
                touched[node] = 1 - (1 - touched[node]) * (1 - touched[callee]) ** share[node, callee]
                failing[node] = np.minimum(1.0, failing[node] + 0.8 * share[node, callee] * failing[callee])
            seen = rng.poisson(few)
            columns = {"latency_Average": average[node].copy(), "requests_Sum": seen.astype(float)}
            for percentile in PERCENTILES:
                over = touched[node] > (100 - percentile) / 100
                usual = (average[node] - delay * touched[node] * 0.9) * tail[node] ** ((percentile - 50) / 15)
                wobble = np.exp(noise[node] * rng.normal(size=rows) * (1 + (percentile == 99)))
                columns[f"latency_p{percentile}"] = np.maximum(usual, 1e-4) * wobble + delay * over
            failed = rng.binomial(np.maximum(seen, 1), np.clip(failing[node], 0, 1))
            columns["availability_Average"] = 100.0 * (1 - failed / np.maximum(seen, 1))
            if node not in silent:
                holes = rng.random(rows) < (0.3 if reach[node] < 0.1 else 0.01)
                made[names[node]] = Table(
                    start + 300.0 * np.arange(rows, dtype=np.float64),
                    {name: np.where(holes, np.nan, values) for name, values in columns.items()},
                )
        return made

    edges = [(names[node], names[callee]) for node in range(count) for callee in graph[node]]
    return Case(tables(300, 0.0, False, np.zeros(300)), tables(length, 9e6, True, on), edges, names[root])


def hosts_case(seed: int) -> Case:
    rng = np.random.default_rng(seed)
    graph, share = _layers(rng, 11)
    count = len(graph)
    reach = _visits(graph, share)
    root = int(rng.choice([node for node in range(count) if reach[node] > 0.05]))
    fault = str(rng.choice(["cpu", "mem", "disk", "delay", "loss"]))
    force = float(np.exp(rng.uniform(np.log(0.6), np.log(3.0))))
    own = np.exp(rng.normal(-4.0, 0.7, count))
    cpu_per_call = np.exp(rng.normal(-4.0, 0.5, count))
    memory = np.exp(rng.normal(18.0, 0.7, count))
    noise = rng.uniform(0.05, 0.25, count)
    traffic_now = float(rng.choice([1.0, 1.0, 1.3, 1.8]))
    names = [f"shop-{node:02d}" for node in range(count)]
    lacking = {(node, str(rng.choice(["diskio", "socket", "mem"]))) for node in range(count) if rng.random() < 0.15}

    def tables(rows: int, start: float, during: bool) -> dict[str, Table]:
        ramp = np.clip(np.arange(rows) / (0.3 * rows), 0, 1) if during else np.zeros(rows)
        volume = 60.0 * np.exp(0.15 * rng.normal(size=rows)) * (1 + 0.15 * np.sin(np.arange(rows) / 25.0))
        if during:
            volume = volume * traffic_now * (0.8 if fault in ("delay", "loss") else 1.0)
        latency = np.zeros((count, rows))
        failing = np.zeros((count, rows))
        made = {}
        for node in reversed(range(count)):
            seen = volume * reach[node]
            hot = during and node == root
            cpu = cpu_per_call[node] * seen * np.exp(noise[node] * rng.normal(size=rows)) + 0.01
            mem = memory[node] * (1 + 0.01 * rng.normal(size=rows) + 0.02 * rng.normal())
            disk = 1e4 * np.exp(0.4 * rng.normal(size=rows)) * (rng.random(rows) < 0.7)
            socket = np.round(20 + 2 * rng.normal(size=rows) + seen / 10)
            slow = np.ones(rows)
            if hot and fault == "cpu":
                cpu = cpu + force * ramp * (0.3 + np.mean(cpu))
                slow = 1 + force * ramp
            if hot and fault == "mem":
                mem = mem * (1 + 0.5 * force * ramp)
                slow = 1 + 0.2 * force * ramp
            if hot and fault == "disk":
                disk = disk + 3e5 * force * ramp
                slow = 1 + 0.5 * force * ramp
            latency[node] = own[node] * slow * np.exp(noise[node] * rng.normal(size=rows))
            if hot and fault == "delay":
                latency[node] += 0.2 * force
            if hot and fault == "loss":
                latency[node] += 0.05 * force * rng.exponential(size=rows)
                failing[node] = 0.02 * force
                socket = socket * 1.5
            for callee in graph[node]:
                latency[node] += share[node, callee] * latency[callee]
                failing[node] += 0.7 * share[node, callee] * failing[callee]
            columns = {
                "cpu": cpu,
                "mem": mem,
                "diskio": disk,
                "socket": socket,
                "workload": seen,
                "latency-50": latency[node],
                "latency-90": latency[node] * np.exp(0.3 + 0.1 * rng.normal(size=rows)),
                "error": rng.poisson(np.clip(failing[node], 0, 1) * seen + 0.001).astype(float),
            }
            kept = {name: values for name, values in columns.items() if (node, name) not in lacking}
            made[names[node]] = Table(start + 5.0 * np.arange(rows, dtype=np.float64), kept)
        return made

    edges = [(names[node], names[callee]) for node in range(count) for callee in graph[node]]
    return Case(tables(240, 0.0, False), tables(120, 1200.0, True), edges, names[root])


def _layers(rng: np.random.Generator, count: int) -> tuple[list[list[int]], Values]:
    """A random call graph from node 0 downwards, and the calls of each callee for a request of each caller."""
    graph: list[list[int]] = [[] for _ in range(count)]
    share = np.zeros((count, count))
    for node in range(1, count):
        for caller in rng.choice(node, size=min(node, int(rng.integers(1, 3))), replace=False):
            graph[int(caller)].append(node)
            share[int(caller), node] = float(rng.choice([0.02, 0.2, 0.5, 1.0, 1.0, 2.0]))
    return graph, share


def _visits(graph: list[list[int]], share: Values) -> Values:
    """Calls of each node for a request at the front."""
    visits = np.zeros(len(graph))
    visits[0] = 1.0
    for node, callees in enumerate(graph):
        for callee in callees:
            visits[callee] += visits[node] * share[node, callee]
    return visits
