"""Kubernetes: the contract of logs, events and endings as lines, rollouts as changes, and the rights it takes."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml
from kubernetes.client import Configuration

from pipeline.adapters.telemetry import kubernetes_logs
from pipeline.adapters.telemetry.kubernetes_logs import KubernetesSource
from pipeline.domain.changes import ChangeEvent, ChangeKind
from pipeline.domain.errors import ConfigurationError
from pipeline.domain.ids import ServiceName
from pipeline.domain.logs import LogLine, LogReading
from tests.contract.telemetry.faults import SAID, Fault, FaultyServer
from tests.contract.telemetry.kube_log_server import TOKEN, KubeLogServer, Object, ended, owner, rfc3339, running
from tests.contract.telemetry.suite import AGAIN, CART, SHOP, LogsContract, long_ago, told

MINUTE = timedelta(minutes=1)
START = long_ago()


def configuration(url: str, token: str = TOKEN) -> Configuration:
    made = Configuration(host=url)
    made.api_key["authorization"] = token
    made.api_key_prefix["authorization"] = "Bearer"
    return made


@dataclass
class World:
    kube: KubeLogServer
    server: FaultyServer
    source: KubernetesSource
    impatient: KubernetesSource

    async def put(self, lines: Sequence[LogLine]) -> None:
        for line in lines:
            pod = f"{line.service}-7d9f8bc4d-x2v5k"
            if (pod, "main", False) not in self.kube.logs:
                self.kube.add_pod(pod, labels={"app.kubernetes.io/name": line.service})
            self.kube.logs.setdefault((pod, "main", False), []).append((line.at, line.text))

    async def misbehave(self, fault: Fault) -> None:
        await self.server.misbehave(fault)


@asynccontextmanager
async def source_of(world: World, *, token: str = TOKEN, **arguments: Any) -> AsyncIterator[KubernetesSource]:
    source = KubernetesSource(
        configuration(world.server.url, token), **{"namespaces": ["shop"], "timeout_s": 30.0, **arguments}
    )
    yield source
    await source.close()


@pytest.fixture
async def world() -> AsyncIterator[World]:
    kube = KubeLogServer()
    refusal = json.dumps({"kind": "Status", "status": "Failure", "message": SAID, "reason": "Forbidden", "code": 403})
    async with FaultyServer(kube.app(), refusal=refusal) as server:
        made = configuration(server.url)
        sources = (
            KubernetesSource(made, namespaces=["shop"], timeout_s=30.0),
            KubernetesSource(made, namespaces=["shop"], timeout_s=0.3),
        )
        yield World(kube, server, *sources)
        for source in sources:
            await source.close()


class TestContract(LogsContract):
    """Every test of the suite, on a Kubernetes API server."""


async def tail(world: World, limit: int = 100) -> LogReading:
    return await world.source.tail(START, datetime.now(UTC) + MINUTE, limit=limit)


def at(seconds: float) -> datetime:
    return START + timedelta(seconds=seconds)


async def test_the_last_lines_before_a_crash_and_how_it_ended(world: World) -> None:
    world.kube.add_pod("shop-0", running(last=ended(at(20), "OOMKilled", 137)), labels={"app": "shop"})
    world.kube.logs["shop-0", "main", True] = [(at(18), "allocating"), (at(19), '{"level": "warn", "msg": "low"}')]
    world.kube.logs["shop-0", "main", False] = [(at(25), "started")]
    reading = await tail(world)
    assert [(line.text, line.instance, line.service) for line in reading.lines] == [
        ("allocating", "shop-0", SHOP),
        ("warn low", "shop-0", SHOP),
        ("OOMKilled: container main ended with code 137", "shop-0", SHOP),
        ("started", "shop-0", SHOP),
    ]
    assert (reading.failures, reading.truncated) == ((), False)


async def test_a_crash_from_before_the_window_is_not_read_again(world: World) -> None:
    world.kube.add_pod("shop-0", running(last=ended(at(-20), "Error", 1)), labels={"app": "shop"})
    world.kube.logs["shop-0", "main", True] = [(at(-21), "panic")]
    world.kube.logs["shop-0", "main", False] = [(at(1), "well")]
    assert [line.text for line in (await tail(world)).lines] == ["well"]
    assert [asked["pod"] for asked in world.kube.log_requests] == ["shop-0"]


async def test_a_container_that_waits_after_a_crash_is_asked_for_its_last_run_alone(world: World) -> None:
    waiting = {"name": "main", "state": {"waiting": {"reason": "CrashLoopBackOff"}}}
    world.kube.add_pod("shop-0", {**waiting, "lastState": ended(at(20), "Error", 2, "no config\n")}, labels=None)
    world.kube.add_pod("shop-1", {**waiting, "lastState": {}})
    world.kube.logs["shop-0", "main", True] = [(at(19), "panic")]
    texts = [line.text for line in (await tail(world)).lines]
    assert texts == ["panic", "Error: container main ended with code 2: no config"]
    assert [asked["previous"].lower() for asked in world.kube.log_requests] == ["true"]


async def test_all_containers_and_those_that_failed_to_initialise(world: World) -> None:
    pod = world.kube.add_pod("shop-0", running("main"), running("proxy"))
    migrate = {"name": "migrate", "state": ended(at(5), "Error", 1), "lastState": {}}
    pod["status"]["initContainerStatuses"] = [migrate]
    pod["spec"]["containers"].append({"name": "migrate"})
    for n, container in enumerate(("main", "proxy", "migrate")):
        world.kube.logs["shop-0", container, False] = [(at(n), f"from {container}")]
    texts = [line.text for line in (await tail(world)).lines]
    assert texts == ["from main", "from proxy", "from migrate", "Error: container migrate ended with code 1"]


async def test_a_log_that_is_not_there_yet_or_any_more_is_no_failure(world: World) -> None:
    world.kube.add_pod("shop-0", running(last=ended(at(20), "Completed", 0)))
    world.kube.add_pod("shop-1")
    reading = await tail(world)
    assert (reading.lines, reading.failures) == ((), ())
    assert len(world.kube.log_requests) == 3


def event(world: World, reason: str, kind: str, name: str, message: str = "why", **rest: Any) -> None:
    times = {"firstTimestamp": None, "lastTimestamp": None, "eventTime": None, **rest}
    involved = {"kind": kind, "name": name, "namespace": "shop"}
    world.kube.add(
        "events",
        f"{name}.{reason}",
        involvedObject=involved,
        reason=reason,
        message=message,
        **{"type": "Warning", **times},
    )


async def test_warnings_are_lines_of_the_service_they_concern(world: World) -> None:
    world.kube.add_pod(
        "store-7d9f8bc4d-x2v5k",
        labels={"app.kubernetes.io/name": "shop", "pod-template-hash": "7d9f8bc4d"},
        ownerReferences=[owner("ReplicaSet", "store-7d9f8bc4d")],
    )
    event(
        world,
        "BackOff",
        "Pod",
        "store-7d9f8bc4d-x2v5k",
        "Back-off restarting\nfailed container",
        lastTimestamp=rfc3339(at(1)),
        count=12,
    )
    event(
        world,
        "Unhealthy",
        "Pod",
        "store-7d9f8bc4d-zzzzz",
        "of a pod that is gone",
        eventTime=f"{at(2):%Y-%m-%dT%H:%M:%S}.000001Z",
    )
    event(
        world,
        "FailedScheduling",
        "Pod",
        "cart-0",
        series={"count": 3, "lastObservedTime": f"{at(3):%Y-%m-%dT%H:%M:%S}.500000Z"},
        eventTime=rfc3339(at(0)),
    )
    event(world, "FailedCreate", "ReplicaSet", "store-7d9f8bc4d", firstTimestamp=rfc3339(at(4)))
    event(world, "FailedGetResourceMetric", "HorizontalPodAutoscaler", "store", lastTimestamp=rfc3339(at(5)))
    event(world, "NodeNotReady", "Node", "node-1", lastTimestamp=rfc3339(at(6)))
    event(world, "Pulled", "Pod", "cart-0", type="Normal", lastTimestamp=rfc3339(at(7)))
    event(world, "Old", "Pod", "cart-0", lastTimestamp=rfc3339(at(-7)))
    reading = await tail(world)
    assert [(line.service, line.text, (line.at - START).total_seconds()) for line in reading.lines] == [
        (SHOP, "BackOff: Back-off restarting failed container (12 times)", 1.0),
        (SHOP, "Unhealthy: of a pod that is gone", 2.000001),
        (CART, "FailedScheduling: why (3 times)", 3.5),
        (SHOP, "FailedCreate: why", 4.0),
        (SHOP, "FailedGetResourceMetric: why", 5.0),
    ]
    assert reading.failures == ()
    found = await world.source.search(CART, "Failed", START, datetime.now(UTC), limit=9)
    assert [line.text for line in found.lines] == ["FailedScheduling: why (3 times)"]


async def test_a_node_that_is_away_does_not_hide_the_others(world: World) -> None:
    for n in range(12):
        world.kube.add_pod(f"shop-{n}", labels={"app": "shop"})
        world.kube.logs[f"shop-{n}", "main", False] = [(at(n), f"line {n}")]
    world.kube.node_down = {f"shop-{n}" for n in range(11)}
    for _ in range(2):
        reading = await tail(world)
        assert [line.text for line in reading.lines] == ["line 11"]
        assert {failure.source for failure in reading.failures} == {"kubernetes logs in shop"}
        assert all("no route to host" in failure.reason for failure in reading.failures)
        assert all(failure.reason.endswith(AGAIN) for failure in reading.failures)


async def test_a_tail_up_to_now_asks_for_no_more_lines_than_it_needs(world: World) -> None:
    await world.put([LogLine(at(n), SHOP, f"line {n}") for n in range(9)])
    reading = await tail(world, limit=3)
    assert [line.text for line in reading.lines] == ["line 6", "line 7", "line 8"]
    assert reading.truncated
    assert world.kube.log_requests[-1]["tailLines"] == "4"
    assert not (await tail(world, limit=9)).truncated


async def test_a_log_longer_than_is_read_at_once_is_told(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kubernetes_logs, "MAX_TAIL_LINES", 5)
    await world.put([LogLine(at(n), SHOP, f"line {n}") for n in range(9)])
    reading = await world.source.search(SHOP, "line", START, START + MINUTE, limit=100)
    assert ([line.text for line in reading.lines], reading.truncated) == ([f"line {n}" for n in range(4, 9)], True)


async def test_lists_are_read_page_by_page(world: World) -> None:
    world.kube.page_size = 2
    for n in range(5):
        world.kube.add_pod(f"shop-{n}", labels={"app": "shop"})
        world.kube.logs[f"shop-{n}", "main", False] = [(at(n), f"line {n}")]
    assert [line.text for line in (await tail(world)).lines] == [f"line {n}" for n in range(5)]


async def test_of_too_many_pods_those_that_crashed_are_read_and_the_youngest(world: World) -> None:
    for n in range(5):
        born = rfc3339(START + n * MINUTE)
        world.kube.add_pod(f"shop-{n}", labels={"app": "shop"}, creationTimestamp=born)
        world.kube.logs[f"shop-{n}", "main", False] = [(at(n), f"line {n}")]
    world.kube.add_pod("shop-9", running(last=ended(at(20), "Error", 1)), creationTimestamp=rfc3339(START - MINUTE))
    world.kube.logs["shop-9", "main", False] = [(at(9), "after the crash")]
    async with source_of(world, max_pods=2) as source:
        reading = await source.tail(START, datetime.now(UTC), limit=100)
    assert [line.text for line in reading.lines] == [
        "line 4",
        "after the crash",
        "Error: container main ended with code 1",
    ]
    (failure,) = reading.failures
    assert failure.source == "kubernetes pods in shop"
    assert failure.reason.startswith("6 pods are there and the logs of 2 are read")


async def test_one_namespace_that_is_forbidden_does_not_hide_the_other(world: World) -> None:
    world.kube.add_pod("shop-0", labels={"app": "shop"})
    world.kube.logs["shop-0", "main", False] = [(at(1), "hello")]
    world.kube.granted = shipped_rights() - {("list", "", "events")}
    reading = await tail(world)
    assert [line.text for line in reading.lines] == ["hello"]
    (failure,) = reading.failures
    assert failure.source == "kubernetes events in shop"
    assert failure.reason.startswith("the bot's account may not list events in namespace shop: events is forbidden")
    assert "kubernetes-rbac.yaml grants it" in failure.reason


async def test_a_token_that_is_wrong(world: World) -> None:
    async with source_of(world, token="stolen") as source:
        reading = await source.tail(START, datetime.now(UTC), limit=9)
    assert all("does not accept the bot's credentials" in failure.reason for failure in reading.failures)


def shipped_rights() -> set[tuple[str, str, str]]:
    file = Path(kubernetes_logs.__file__).with_name("kubernetes-rbac.yaml")
    role, binding = yaml.safe_load_all(file.read_text())
    assert binding["roleRef"]["name"] == role["metadata"]["name"]
    return {
        (verb, group, resource)
        for rule in role["rules"]
        for verb in rule["verbs"]
        for group in rule["apiGroups"]
        for resource in rule["resources"]
    }


async def test_the_shipped_role_grants_what_is_used_and_nothing_else(world: World) -> None:
    world.kube.granted = shipped_rights()
    world.kube.add_pod("shop-0")
    world.kube.logs["shop-0", "main", False] = [(at(1), "hello")]
    assert (await tail(world)).failures == ()
    assert (await world.source.changes(START, datetime.now(UTC))).failures == ()
    assert world.kube.used == world.kube.granted


def replica_set(
    world: World, revision: int, created: datetime, image: str, deployment: Object, **annotations: str
) -> None:
    meta = {
        "labels": {"app.kubernetes.io/name": "shop", "pod-template-hash": "abc"},
        "annotations": {"deployment.kubernetes.io/revision": str(revision), **annotations},
        "creationTimestamp": rfc3339(created),
        "ownerReferences": [owner("Deployment", "web", deployment["metadata"]["uid"])],
    }
    template = {"spec": {"containers": [{"name": "main", "image": image}]}}
    world.kube.add("replicasets", f"web-{revision}", metadata=meta, spec={"template": template})


def deployment(world: World, progressed: datetime) -> Object:
    conditions = [
        {"type": "Available", "lastUpdateTime": rfc3339(at(-999))},
        {"type": "Progressing", "lastUpdateTime": rfc3339(progressed)},
    ]
    return world.kube.add("deployments", "web", status={"conditions": conditions})


async def changes(world: World) -> tuple[ChangeEvent, ...]:
    reading = await world.source.changes(START, START + MINUTE)
    assert reading.failures == ()
    return reading.changes


async def test_rollouts_with_their_cause_and_images(world: World) -> None:
    web = deployment(world, at(50))
    replica_set(world, 10, at(30), "web:1.4", web, **{"kubernetes.io/change-cause": "raise pool size"})
    replica_set(world, 9, at(10), "web:1.3", web)
    replica_set(world, 11, at(40), "web:1.4", web)
    replica_set(world, 8, at(-10), "web:1.2", web)
    world.kube.add("replicasets", "by-hand", metadata={"annotations": None})
    found = await changes(world)
    assert [(change.revision, change.title, change.at) for change in found] == [
        ("revision 9", "web:1.3 (was web:1.2)", at(10)),
        ("revision 10", "raise pool size; web:1.4 (was web:1.3)", at(30)),
        ("revision 11", "same image web:1.4, other settings", at(40)),
    ]
    assert {(change.service, change.kind) for change in found} == {(ServiceName("shop"), ChangeKind.DEPLOYMENT)}


async def test_a_rollback_is_dated_by_the_deployments_progress_and_once(world: World) -> None:
    web = deployment(world, at(45))
    replica_set(world, 2, at(-20), "web:1.4", web)
    history = {"deployment.kubernetes.io/revision-history": "1"}
    replica_set(world, 3, at(-99), "web:1.3", web, **history)
    expected = [("revision 3", "rolled back; web:1.3 (was web:1.4)", at(45))]
    assert [(change.revision, change.title, change.at) for change in await changes(world)] == expected
    web["status"]["conditions"][1]["lastUpdateTime"] = rfc3339(at(55))
    assert [(change.revision, change.title, change.at) for change in await changes(world)] == expected


@pytest.mark.parametrize("fault", [Fault.BUSY, Fault.REFUSED, Fault.BROKEN, Fault.DRIP])
async def test_rollouts_that_cannot_be_read_are_a_failure(world: World, fault: Fault) -> None:
    await world.misbehave(fault)
    source = world.impatient if fault is Fault.DRIP else world.source
    reading = await source.changes(START, START + MINUTE)
    assert reading.changes == ()
    told(reading.failures, "kubernetes rollouts in shop", fault)


@pytest.mark.parametrize("arguments", [{"namespaces": []}, {"namespaces": ["shop"], "max_pods": 0}])
def test_settings_that_cannot_be_right_are_refused(arguments: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError):
        KubernetesSource(Configuration(), **arguments)
