"""What each convention's metrics become, as a real Prometheus answers our queries."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterator
from datetime import UTC, datetime

import pytest

from pipeline.adapters.telemetry.prometheus import PrometheusSource
from pipeline.domain.catalogue import Catalogue, Watch, WorkloadAddress
from pipeline.domain.ids import ServiceName
from pipeline.domain.telemetry import Reading, Signal
from tests.contract.metrics_world import World
from tests.contract.telemetry.real_prometheus import (
    DEADLINE_S,
    PROTOBUF,
    histogram,
    line,
    native_histogram,
    real_prometheus,
)

WINDOW = "8s"
DAY_S = 86_400.0
FAST, SLOW = {0.1: 0.5, 0.2: 1.0}, {100.0: 0.5, 200.0: 1.0}
"""Shares of the requests by bound, in seconds and in milliseconds: the 99th percentile is just under 0.2 s."""
CHECKOUT, CHECKOUT_POD = "checkout", "checkout-6d5f8c9b7-x2k4z"
SERVER = {"span_kind": "SPAN_KIND_SERVER"}


def count(per_s: float) -> float:
    return int(per_s * (time.time() % 1e7))


def opentelemetry_old() -> bytes:
    return "".join(
        histogram("http_server_duration_milliseconds", count(per_s), SLOW, http_status_code=status, service="old")
        for per_s, status in ((90.0, "200"), (10.0, "500"))
    ).encode()


def opentelemetry_grpc() -> bytes:
    return "".join(
        histogram("rpc_server_duration_milliseconds", count(per_s), SLOW, rpc_grpc_status_code=status, service="grpc")
        + histogram("rpc_server_call_duration_seconds", count(per_s), FAST, rpc_response_status_code=name, app="rpc")
        for per_s, status, name in ((90.0, "0", "OK"), (5.0, "5", "NOT_FOUND"), (5.0, "14", "UNAVAILABLE"))
    ).encode()


def both_names() -> bytes:
    """A service on its way from the old names to the new ones counts each request twice."""
    return "".join(
        histogram(name, count(100.0), shares, http_status_code="200", service="dup")
        for name, shares in (
            ("http_server_duration_milliseconds", SLOW),
            ("http_server_request_duration_seconds", FAST),
        )
    ).encode()


def istio() -> bytes:
    ends = {
        "source_canonical_service": "web",
        "source_workload": "web-v1",
        "destination_canonical_service": "orders",
        "destination_workload": "orders-v1",
        "destination_workload_namespace": "shop",
    }
    text = ""
    for reporter in ("source", "destination"):
        for per_s, code, grpc in ((85.0, "200", ""), (10.0, "503", ""), (5.0, "200", "14")):
            labels = {**ends, "reporter": reporter, "response_code": code, "grpc_response_status": grpc}
            text += line("istio_requests_total", count(per_s), **labels)
            text += histogram("istio_request_duration_milliseconds", count(per_s), SLOW, **labels)
    stranger = {**ends, "source_canonical_service": "unknown", "source_workload": "unknown"}
    return (
        text + line("istio_requests_total", count(50.0), **stranger, reporter="destination", response_code="200")
    ).encode()


def linkerd() -> bytes:
    text = ""
    for per_s, outcome in ((95.0, "success"), (5.0, "failure")):
        own = {"deployment": "emoji", "namespace": "voto", "classification": outcome}
        text += line("response_total", count(per_s), direction="inbound", **own)
        text += histogram("response_latency_ms", count(per_s), SLOW, direction="inbound", **own)
        text += line("response_total", count(per_s), direction="outbound", dst_deployment="voting", **own)
    return text.encode()


def span_metrics() -> bytes:
    text = ""
    for per_s, status in ((80.0, "STATUS_CODE_UNSET"), (20.0, "STATUS_CODE_ERROR")):
        labels = {**SERVER, "status_code": status}
        text += line("traces_spanmetrics_calls_total", count(per_s), service="tempo-seen", **labels)
        text += histogram("traces_spanmetrics_latency", count(per_s), FAST, service="tempo-seen", **labels)
        text += line("traces_span_metrics_calls_total", count(per_s), service_name="collector-seen", **labels)
        text += histogram(
            "traces_span_metrics_duration_milliseconds", count(per_s), SLOW, service_name="collector-seen", **labels
        )
    client = {"span_kind": "SPAN_KIND_CLIENT", "status_code": "STATUS_CODE_UNSET", "service": "tempo-seen"}
    return (text + line("traces_spanmetrics_calls_total", count(500.0), **client)).encode()


def cadvisor() -> bytes:
    text = line("container_memory_working_set_bytes", 9e9, id="/", pod="", container="", namespace="")
    for pod, used, cpu in ((CHECKOUT_POD, 300e6, 0.4), ("ledger-0", 50e6, 0.1), ("backup-28391030-abcde", 90e6, 0.1)):
        for container, share in (("app", 1.0), ("proxy", 0.1)):
            labels = {"namespace": "shop", "pod": pod, "container": container, "id": f"/{pod}/{container}"}
            text += line("container_memory_working_set_bytes", used * share, **labels)
            for core in ("cpu00", "cpu01"):
                text += line("container_cpu_usage_seconds_total", cpu * share * time.time() / 2, cpu=core, **labels)
    for used, claim in ((95.0, "data-ledger-0"), (10.0, "wal-ledger-0")):
        volume = {"namespace": "shop", "persistentvolumeclaim": claim}
        text += line("kubelet_volume_stats_used_bytes", used, **volume)
        text += line("kubelet_volume_stats_capacity_bytes", 100.0, **volume)
    return text.encode()


def kube_state() -> bytes:
    text = ""
    owners = (
        (CHECKOUT_POD, "ReplicaSet", "checkout-6d5f8c9b7"),
        ("ledger-0", "StatefulSet", "ledger"),
        ("backup-28391030-abcde", "Job", "backup-28391030"),
        ("odd-name-1", "Rollout", "odd"),
    )
    for pod, kind, owner in owners:
        text += line("kube_pod_owner", 1, namespace="shop", pod=pod, owner_kind=kind, owner_name=owner)
        for resource, limit in (("memory", 400e6), ("cpu", 0.5)):
            text += line(
                "kube_pod_container_resource_limits",
                limit,
                namespace="shop",
                pod=pod,
                container="app",
                resource=resource,
            )
    text += line("kube_pod_labels", 1, namespace="shop", pod="ledger-0", label_app_kubernetes_io_name="general-ledger")
    for claim in ("data-ledger-0", "wal-ledger-0"):
        text += line(
            "kube_pod_spec_volumes_persistentvolumeclaims_info",
            1,
            namespace="shop",
            pod="ledger-0",
            persistentvolumeclaim=claim,
            volume=claim,
        )
    for kind, value in (("hard", 20.0), ("used", 19.0)):
        text += line(
            "kube_resourcequota", value, namespace="shop", resourcequota="compute", resource="limits.cpu", type=kind
        )
    return text.encode()


def node() -> bytes:
    text = line("node_memory_MemAvailable_bytes", 2e9) + line("node_memory_MemTotal_bytes", 8e9)
    for core, idle in (("0", 0.2), ("1", 0.6)):
        for mode, share in (("idle", idle), ("iowait", 0.1), ("user", 0.9 - idle)):
            text += line("node_cpu_seconds_total", share * time.time(), cpu=core, mode=mode)
    for mountpoint, kind, free in (("/", "ext4", 30.0), ("/snap/core", "squashfs", 0.0)):
        text += line("node_filesystem_size_bytes", 100.0, mountpoint=mountpoint, fstype=kind)
        text += line("node_filesystem_avail_bytes", free, mountpoint=mountpoint, fstype=kind)
    return text.encode()


def certificates() -> bytes:
    end = time.time() + 5 * DAY_S
    return (
        line("probe_ssl_earliest_cert_expiry", end, instance="https://shop.example.org/health", service="")
        + line("certmanager_certificate_expiration_timestamp_seconds", end, name="checkout-tls", namespace="shop")
    ).encode()


def native() -> bytes:
    series = {
        (("http_response_status_code", "200"),): {-3: int(count(90.0)), -2: int(count(90.0))},
        (("http_response_status_code", "503"),): {-2: int(count(20.0))},
    }
    return native_histogram("http_server_request_duration_seconds", series)


@pytest.fixture(scope="module")
def prometheus_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    world = World(tmp_path_factory.mktemp("world"))
    for service, body in {
        "otel": opentelemetry_old,
        "otel-grpc": opentelemetry_grpc,
        "otel-dup": both_names,
        "istio-proxy": istio,
        "linkerd-proxy": linkerd,
        "tempo": span_metrics,
        "kubelet": cadvisor,
        "kube-state-metrics": kube_state,
        "node-exporter": node,
        "cert-exporter": certificates,
    }.items():
        world.start(service, f"{service}-1", body)
    world.start("native", "native-1", native, Content_Type=PROTOBUF)
    try:
        with real_prometheus(
            tmp_path_factory.mktemp("prometheus"), world.file, "--enable-feature=native-histograms"
        ) as url:
            yield url
    finally:
        world.stop()


@pytest.fixture(params=["service", "app,service,pod"])
async def source(request: pytest.FixtureRequest, prometheus_url: str) -> AsyncIterator[PrometheusSource]:
    """By the label that names the service, and by several."""
    source = PrometheusSource(
        prometheus_url, service_label=request.param, instance_label="instance_name", window=WINDOW, timeout_s=30
    )
    yield source
    await source.close()


async def reading(source: PrometheusSource, holds: Callable[[Reading], bool]) -> Reading:
    deadline_s = time.monotonic() + DEADLINE_S
    while True:
        last = await source.read(datetime.now(UTC))
        if holds(last):
            return last
        assert time.monotonic() < deadline_s, last
        await asyncio.sleep(0.3)


def of(reading: Reading, signal: Signal) -> dict[tuple[str, str], float]:
    return {(s.key.service, s.key.instance): s.value for s in reading.samples if s.key.signal is signal}


def settled(service: str, *, traffic: float, errors: float) -> Callable[[Reading], bool]:
    def holds(reading: Reading) -> bool:
        seen, failed = (of(reading, signal).get((service, "")) for signal in (Signal.TRAFFIC, Signal.ERROR_RATIO))
        return seen == pytest.approx(traffic, rel=0.2) and failed == pytest.approx(errors, abs=0.03)

    return holds


@pytest.mark.parametrize(
    ("service", "errors"),
    [
        pytest.param("old", 0.1, id="OpenTelemetry's old names, in ms"),
        pytest.param("grpc", 0.05, id="gRPC by number: not found is the client's fault"),
        pytest.param("dup", 0.0, id="two names of the same requests are counted once"),
        pytest.param("emoji", 0.05, id="Linkerd, inbound alone"),
        pytest.param("tempo-seen", 0.2, id="span metrics of Tempo, server spans alone"),
        pytest.param("collector-seen", 0.2, id="span metrics of the Collector"),
    ],
)
async def test_requests(source: PrometheusSource, service: str, errors: float) -> None:
    seen = await reading(source, settled(service, traffic=100.0, errors=errors))
    assert of(seen, Signal.LATENCY_P99)[service, ""] == pytest.approx(0.199, abs=0.01)


async def test_istio_counts_the_servers_side_with_strangers_calls(source: PrometheusSource) -> None:
    seen = await reading(source, settled("orders", traffic=150.0, errors=0.1))
    assert of(seen, Signal.LATENCY_P99)["orders", ""] == pytest.approx(0.199, abs=0.01)


async def test_native_histograms_give_all_three_signals(source: PrometheusSource) -> None:
    seen = await reading(source, settled("native", traffic=200.0, errors=0.1))
    assert 0.2 < of(seen, Signal.LATENCY_P99)["native", ""] <= 0.25


async def test_a_label_that_only_some_series_have_names_them(prometheus_url: str) -> None:
    source = PrometheusSource(prometheus_url, service_label="app,service", window=WINDOW, timeout_s=30)
    seen = await reading(source, settled("rpc", traffic=100.0, errors=0.05))
    await source.close()
    assert of(seen, Signal.LATENCY_P99)["rpc", ""] == pytest.approx(0.199, abs=0.01)


async def test_calls_of_a_mesh_are_edges(source: PrometheusSource) -> None:
    def holds(reading: Reading) -> bool:
        calls = {(edge.caller, edge.callee): edge.calls_per_s for edge in reading.edges}
        return calls == {
            ("web", "orders"): pytest.approx(100, rel=0.2),
            ("emoji", "voting"): pytest.approx(100, rel=0.2),
        }

    await reading(source, holds)


async def test_pods_are_named_by_label_owner_or_their_own_name(source: PrometheusSource) -> None:
    seen = await reading(source, lambda seen: bool(of(seen, Signal.MEMORY_RATIO) and of(seen, Signal.CPU_RATIO)))
    memory = {key: ratio for key, ratio in of(seen, Signal.MEMORY_RATIO).items() if key[0] != "node-exporter"}
    assert memory == {
        (CHECKOUT, CHECKOUT_POD): pytest.approx(0.75),
        ("general-ledger", "ledger-0"): pytest.approx(0.125),
        ("backup", "backup-28391030-abcde"): pytest.approx(0.225),
    }
    assert of(seen, Signal.CPU_RATIO)[CHECKOUT, CHECKOUT_POD] == pytest.approx(0.8, rel=0.25)


async def test_the_fullest_volume_is_its_pods(source: PrometheusSource) -> None:
    seen = await reading(source, lambda seen: len(of(seen, Signal.DISK_RATIO)) > 1)
    assert of(seen, Signal.DISK_RATIO) == {
        ("general-ledger", "ledger-0"): pytest.approx(0.95),
        ("node-exporter", "node-exporter-1"): pytest.approx(0.7),
    }


async def test_a_node_has_memory_and_cpu(source: PrometheusSource) -> None:
    node = ("node-exporter", "node-exporter-1")

    def holds(reading: Reading) -> bool:
        known = node in of(reading, Signal.MEMORY_RATIO)
        return known and of(reading, Signal.CPU_RATIO).get(node) == pytest.approx(0.5, abs=0.1)

    seen = await reading(source, holds)
    assert of(seen, Signal.MEMORY_RATIO)[node] == pytest.approx(0.75)


async def test_a_quota_is_the_namespaces(source: PrometheusSource) -> None:
    seen = await reading(source, lambda seen: bool(of(seen, Signal.QUOTA_RATIO)))
    assert of(seen, Signal.QUOTA_RATIO) == {("shop", "compute limits.cpu"): pytest.approx(0.95)}


async def test_certificates_that_are_probed_or_renewed(source: PrometheusSource) -> None:
    seen = await reading(source, lambda seen: len(of(seen, Signal.CERT_REMAINING)) > 1)
    remaining = {
        key: pytest.approx(5 * DAY_S, abs=900) for key in (("shop.example.org",) * 2, (CHECKOUT, "checkout-tls"))
    }
    assert of(seen, Signal.CERT_REMAINING) == remaining


async def test_where_services_run_is_discovered(prometheus_url: str) -> None:
    expected = {CHECKOUT: "shop", "general-ledger": "shop", "odd": "shop", "orders": "shop", "emoji": "voto"}
    deadline_s = time.monotonic() + DEADLINE_S
    while True:
        source = PrometheusSource(prometheus_url, window=WINDOW, timeout_s=30)
        found = dict((await source.read(datetime.now(UTC))).namespaces)
        await source.close()
        if expected.items() <= found.items():
            break
        assert time.monotonic() < deadline_s, found
        await asyncio.sleep(0.3)
    assert not {"kubelet", "kube-state-metrics", "old"} & found.keys()

    catalogue = Catalogue({}, watch=[Watch(namespace="shop", provider="kubernetes", tier=2, exclude=("odd",))])
    catalogue.discover(found)
    assert {name for name in found if catalogue[name].tier == 2} == {
        "backup",
        CHECKOUT,
        "general-ledger",
        "orders",
    }
    address = WorkloadAddress(platform="kubernetes", namespace="shop", name=CHECKOUT)
    assert catalogue[ServiceName(CHECKOUT)].target == address


async def test_conventions_that_are_not_chosen_are_not_asked(prometheus_url: str) -> None:
    source = PrometheusSource(prometheus_url, window=WINDOW, conventions=("istio",), timeout_s=30)
    seen = await reading(source, settled("orders", traffic=150.0, errors=0.1))
    await source.close()
    assert {sample.key.service for sample in seen.samples} == {"orders"}
    assert {(edge.caller, edge.callee) for edge in seen.edges} == {("web", "orders")}
    assert seen.failures == ()


async def test_services_of_other_namespaces_are_not_asked_for(prometheus_url: str) -> None:
    deadline_s = time.monotonic() + DEADLINE_S
    while True:
        source = PrometheusSource(prometheus_url, window=WINDOW, namespaces=("voto",), timeout_s=30)
        seen = await source.read(datetime.now(UTC))
        await source.close()
        if ("emoji", "") in of(seen, Signal.LATENCY_P99):
            break
        assert time.monotonic() < deadline_s, seen
        await asyncio.sleep(0.3)
    assert seen.namespaces == {"emoji": "voto"}
    assert of(seen, Signal.QUOTA_RATIO) == {}
    assert ("orders", "") not in of(seen, Signal.TRAFFIC)
    assert (CHECKOUT, CHECKOUT_POD) not in of(seen, Signal.MEMORY_RATIO)
