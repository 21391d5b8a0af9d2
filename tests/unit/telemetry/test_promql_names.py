"""Whose a row is: pods, owners, labels and namespaces."""

import pytest

from pipeline.adapters.telemetry.conventions import GAUGES, Subject
from pipeline.adapters.telemetry.prometheus_names import Names
from pipeline.adapters.telemetry.promql import RANK, SERVICE, PromQL, workload_of
from pipeline.domain.telemetry import SeriesKey, Signal


def names(*services: str) -> Names:
    return Names(PromQL(services or ("service",), "instance", "1m", ""))


def rank(subject: Subject) -> str:
    return str(next(n for n, gauge in enumerate(GAUGES) if gauge.subject is subject))


@pytest.mark.parametrize(
    ("pod", "workload"),
    [
        ("checkout-6d5f8c9b7-x2k4z", "checkout"),
        ("api-gateway-v2-7c9d8b6f54-2xkqp", "api-gateway-v2"),
        ("fluent-bit-x7k2p", "fluent-bit"),
        ("ledger-0", "ledger"),
        ("web-1-12", "web-1"),
        ("standalone", "standalone"),
        ("node-exporter", "node-exporter"),
        ("etcd-control-plane", "etcd-control-plane"),
    ],
)
def test_a_workload_is_its_pods_name_without_what_was_appended(pod: str, workload: str) -> None:
    assert workload_of(pod) == workload


def owner(pod: str, kind: str, name: str, namespace: str = "shop") -> dict[str, str]:
    return {"namespace": namespace, "pod": pod, "owner_kind": kind, "owner_name": name}


@pytest.mark.parametrize(
    ("row", "service"),
    [
        (owner("a-1", "ReplicaSet", "my-app-6d5f8c9b7"), "my-app"),
        (owner("a-1", "ReplicaSet", "single"), "single"),
        (owner("a-1", "StatefulSet", "ledger"), "ledger"),
        (owner("a-1", "DaemonSet", "fluent-bit"), "fluent-bit"),
        (owner("a-1", "Job", "backup-28391030"), "backup"),
        (owner("a-1", "Job", "migrate"), "migrate"),
        (owner("web-0", "<none>", "<none>"), "web"),
        (owner("etcd-node1", "Node", "node1"), "etcd-node1"),
    ],
)
def test_a_pod_is_its_owners(row: dict[str, str], service: str) -> None:
    known = names()
    known.learn([row])
    figure = {"namespace": "shop", "pod": row["pod"], RANK: rank(Subject.POD)}
    found = known.of_gauge(Signal.MEMORY_RATIO, figure)
    assert found is not None
    assert found[1] == SeriesKey(service, Signal.MEMORY_RATIO, row["pod"])
    assert known.namespaces == {service: "shop"}


def test_a_pods_label_says_more_than_its_owner_and_the_first_label_of_the_settings_most() -> None:
    rows = [
        {"namespace": "shop", "pod": "a-0", "label_app_kubernetes_io_name": "third"},
        {"namespace": "shop", "pod": "a-0", "label_app": "second"},
        owner("a-0", "StatefulSet", "a"),
        {"namespace": "shop", "pod": "a-0", "label_team_service": "first"},
    ]
    for order in (rows, rows[::-1]):
        known = names("team_service", "app")
        known.learn(order)
        assert known.namespaces == {"first": "shop"}


def test_what_is_learned_takes_the_place_of_what_was() -> None:
    known = names()
    known.learn([owner("a-0", "StatefulSet", "a")])
    known.learn([owner("b-0", "StatefulSet", "b")])
    assert known.namespaces == {"b": "shop"}


def test_a_service_of_two_namespaces_has_none_of_its_own() -> None:
    known = names()
    known.learn([owner("a-0", "StatefulSet", "a"), {"namespace": "staging", "service": "a"}])
    assert known.namespaces == {}
    assert known.ambiguous == {"a": {"shop", "staging"}}


@pytest.mark.parametrize(
    ("row", "found"),
    [
        ({"namespace": "shop", "service": "web"}, {"web": "shop"}),
        ({"k8s_namespace_name": "shop", "service": "web"}, {"web": "shop"}),
        ({"destination_workload_namespace": "shop", "destination_workload": "web-v1"}, {"web-v1": "shop"}),
        ({"namespace": "shop", "deployment": "web"}, {"web": "shop"}),
        ({"service": "web"}, {}),
        ({"namespace": "shop"}, {}),
        ({}, {}),
    ],
)
def test_where_a_service_runs(row: dict[str, str], found: dict[str, str]) -> None:
    known = names()
    known.learn([row])
    assert known.namespaces == found


@pytest.mark.parametrize(
    ("subject", "row", "service", "instance"),
    [
        (Subject.TARGET, {"app": "web", "instance": "10.0.0.7:80"}, "web", "10.0.0.7:80"),
        (Subject.TARGET, {"job": "shop/web", "instance": "web-1"}, "web", "web-1"),
        (Subject.TARGET, {"pod": "web-6d5f8c9b7-x2k4z", "instance": "i"}, "web", "i"),
        (Subject.PROBE, {"instance": "https://Shop.example.org:8443/a?b"}, "shop.example.org", "shop.example.org"),
        (Subject.PROBE, {"instance": "shop.example.org:443", "app": "web"}, "web", "shop.example.org"),
        (Subject.PROBE, {"instance": "http://[::1"}, "http://[::1", "http://[::1"),
        (Subject.PROBE, {"instance": "shop.example.org", "pod": "blackbox-0"}, "shop.example.org", "shop.example.org"),
        (Subject.CERTIFICATE, {"name": "web-tls"}, "web", "web-tls"),
        (Subject.CERTIFICATE, {"name": "-tls"}, "-tls", "-tls"),
        (Subject.QUOTA, {"namespace": "shop", "resourcequota": "q", "resource": "pods"}, "shop", "q pods"),
    ],
)
def test_whose_a_gauge_is(subject: Subject, row: dict[str, str], service: str, instance: str) -> None:
    found = names("app", "job", "pod").of_gauge(Signal.DISK_RATIO, {**row, RANK: rank(subject)})
    assert found is not None
    assert (found[1].service, found[1].instance) == (service, instance)


@pytest.mark.parametrize(
    "row",
    [
        {},
        {RANK: "x"},
        {RANK: "999", "service": "web", "instance": "1"},
        {RANK: rank(Subject.TARGET), "instance": "1"},
        {RANK: rank(Subject.TARGET), "service": "web"},
        {RANK: rank(Subject.POD), "namespace": "shop"},
        {RANK: rank(Subject.QUOTA), "namespace": "shop"},
    ],
)
def test_a_gauge_of_nobody(row: dict[str, str]) -> None:
    assert names().of_gauge(Signal.DISK_RATIO, row) is None


def test_a_service_as_a_whole() -> None:
    assert names().of_service(Signal.TRAFFIC, {SERVICE: "web"}) == SeriesKey("web", Signal.TRAFFIC)
    assert names().of_service(Signal.TRAFFIC, {"service": "web"}) is None
