"""What is Kubernetes' own: rights, namespaces, versions, annotations, pods on their way out."""

from __future__ import annotations

import asyncio
import copy
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Literal

import pytest
import yaml

import executors.targets
from executors.targets.kubernetes import KubernetesTarget, from_kubeconfig, in_cluster
from pipeline.domain.action import (
    InstanceRef,
    ManualAction,
    RestartAction,
    RestartInstance,
    RollBackAction,
    RolloutRestart,
    RolloutRestartAction,
    ScaleAction,
    ScaleTo,
)
from pipeline.domain.catalogue import WorkloadAddress
from pipeline.domain.errors import (
    ConfigurationError,
    OutcomeUnknown,
    PermanentError,
    PreconditionFailed,
    TemporaryError,
)
from pipeline.domain.execution import Finding, Intent
from pipeline.domain.ids import ExecutionId
from pipeline.domain.plan import TargetRef, TargetState
from tests.contract.targets.places import KubePlace, intent_for, kube_configuration, kube_place, until
from tests.faults import Answer, Fault
from tests.kube_server import TOKEN, rights
from tests.kube_store import Object

_READS = {
    ("get", "apps", "deployments"),
    ("get", "apps", "statefulsets"),
    ("get", "apps", "daemonsets"),
    ("list", "apps", "replicasets"),
    ("list", "apps", "controllerrevisions"),
    ("get", "", "pods"),
    ("list", "", "pods"),
    ("list", "policy", "poddisruptionbudgets"),
    ("list", "autoscaling", "horizontalpodautoscalers"),
}
GRANTED = _READS | {
    ("patch", "apps", "deployments"),
    ("patch", "apps", "statefulsets"),
    ("patch", "apps", "daemonsets"),
    ("create", "", "pods/eviction"),
    ("patch", "autoscaling", "horizontalpodautoscalers"),
}
"""The golden list: a right added to the role, or a call that needs another one, has to be written here too."""


@pytest.fixture
async def place() -> AsyncIterator[KubePlace]:
    async with kube_place() as place:
        yield place


def _shipped(name: str) -> list[Object]:
    folder = Path(next(iter(executors.targets.__path__)))
    return list(yaml.safe_load_all((folder / name).read_text()))


def _first(state: TargetState) -> InstanceRef:
    return InstanceRef(name=state.instances[0].name, uid=state.instances[0].uid)


def _marks(execution: int, fence: int = 1, generation: str = "1", step: int = 1) -> dict[str, str]:
    return {
        "sre-bot/execution": str(execution),
        "sre-bot/step": str(step),
        "sre-bot/fence": str(fence),
        "sre-bot/generation": generation,
    }


def test_the_shipped_role_grants_the_golden_list() -> None:
    role, binding = _shipped("kubernetes-rbac.yaml")
    assert (role["kind"], binding["kind"]) == ("Role", "RoleBinding")
    assert binding["roleRef"]["name"] == role["metadata"]["name"]
    assert role["metadata"]["namespace"] == binding["metadata"]["namespace"]
    assert rights(role["rules"]) == GRANTED
    nodes, to_all = _shipped("kubernetes-node-rbac.yaml")
    assert (nodes["kind"], to_all["kind"]) == ("ClusterRole", "ClusterRoleBinding")
    assert to_all["roleRef"]["name"] == nodes["metadata"]["name"]
    assert rights(nodes["rules"]) == {("get", "", "nodes"), ("patch", "", "nodes")}
    rules = [*role["rules"], *nodes["rules"]]
    assert not any("*" in word for rule in rules for words in rule.values() for word in words)


@pytest.mark.parametrize("resource", ["deployments", "statefulsets", "daemonsets"])
async def test_the_shipped_role_is_enough_and_not_more(
    resource: Literal["deployments", "statefulsets", "daemonsets"],
) -> None:
    async with kube_place(resource) as place:
        place.server.granted = GRANTED
        ref = await place.target.resolve(place.address)
        restart = RestartInstance(instance=_first(await place.target.observe(ref)))
        for operation in (restart, RolloutRestart() if resource == "daemonsets" else ScaleTo(replicas=3)):
            intent = intent_for(await place.target.observe(ref))
            place.proxy.strike(Fault.CUT)
            with pytest.raises(OutcomeUnknown):
                await place.target.apply(ref, operation, intent)
            assert await place.target.find(ref, operation, intent) is Finding.APPLIED
            await until(lambda operation=operation: place.target.settled(ref, operation))  # type: ignore[misc]
        unused = {("patch", "autoscaling", "horizontalpodautoscalers")}
        unused |= {
            ("patch", "apps", other) for other in ("deployments", "statefulsets", "daemonsets") if other != resource
        }
        unused.add(("list", "apps", "controllerrevisions" if resource == "deployments" else "replicasets"))
        if resource == "daemonsets":
            unused.add(("list", "autoscaling", "horizontalpodautoscalers"))
        assert place.server.used() == GRANTED - unused


async def test_rights_are_checked_without_acting(place: KubePlace) -> None:
    ref = await place.target.resolve(place.address)
    assert all(one.held and one.said for one in await place.target.check(ref))
    place.server.granted = _READS | {("patch", "apps", "deployments")}
    checked = {one.right: one.held for one in await place.target.check(ref)}
    assert checked["patch deployments.apps in namespace shop"] is True
    assert checked["create pods/eviction in namespace shop"] is False
    assert checked["patch horizontalpodautoscalers.autoscaling in namespace shop"] is False
    assert place.server.writes == []
    place.proxy.strike(Answer(403, b'{"message": "no reviews"}'))
    unknown = [one for one in await place.target.check(ref) if one.held is None]
    assert [one.said.endswith("no reviews") for one in unknown] == [True]


@pytest.mark.parametrize(
    ("missing", "operation", "named"),
    [
        (("patch", "apps", "deployments"), "scale", "patch deployments.apps in namespace shop"),
        (("list", "autoscaling", "horizontalpodautoscalers"), "scale", "list horizontalpodautoscalers.autoscaling"),
        (("create", "", "pods/eviction"), "restart", "create pods/eviction in namespace shop"),
        (("list", "", "pods"), "restart", "list pods in namespace shop"),
        (("get", "apps", "deployments"), "scale", "get deployments.apps in namespace shop"),
    ],
)
async def test_a_missing_right_is_named(
    place: KubePlace, missing: tuple[str, str, str], operation: str, named: str
) -> None:
    ref = await place.target.resolve(place.address)
    before = await place.target.observe(ref)
    place.server.granted = GRANTED - {missing}
    wish = ScaleTo(replicas=3) if operation == "scale" else RestartInstance(instance=_first(before))
    with pytest.raises(PermanentError, match=named) as caught:
        await place.target.apply(ref, wish, intent_for(before))
    assert f'cannot {missing[0]} resource "{missing[2]}"' in str(caught.value), "the server's own words"


@pytest.mark.parametrize("operation", ["scale", "restart"])
async def test_a_rehearsal_needs_the_same_rights_and_stores_nothing(place: KubePlace, operation: str) -> None:
    ref = await place.target.resolve(place.address)
    before = await place.target.observe(ref)
    wish = ScaleTo(replicas=3) if operation == "scale" else RestartInstance(instance=_first(before))
    right = ("patch", "apps", "deployments") if operation == "scale" else ("create", "", "pods/eviction")
    objects = copy.deepcopy(place.server.cluster.objects)
    assert "dryRun=All" in await place.target.rehearse(ref, wish, before.generation)
    assert place.server.cluster.objects == objects
    assert right in place.server.used()
    place.server.granted = GRANTED - {right}
    with pytest.raises(PermanentError, match="may not"):
        await place.target.rehearse(ref, wish, before.generation)


async def test_refused_credentials_are_told(place: KubePlace) -> None:
    target = KubernetesTarget(kube_configuration(place.server.url, "someone-else"), namespaces=["shop"])
    with pytest.raises(PermanentError, match="credentials"):
        await target.resolve(place.address)
    await target.close()


async def test_other_namespaces_are_refused_before_anything_is_sent(place: KubePlace) -> None:
    ref = TargetRef(platform="kubernetes", namespace="kube-system", name="checkout", uid="u")
    intent = Intent(execution_id=ExecutionId(1), step=1, fence=1, generation="1")
    for call in (
        place.target.resolve(WorkloadAddress(platform="kubernetes", namespace="kube-system", name="checkout")),
        place.target.observe(ref),
        place.target.apply(ref, ScaleTo(replicas=2), intent),
        place.target.find(ref, ScaleTo(replicas=2), intent),
    ):
        with pytest.raises(PermanentError, match=r"kube-system .*allowed: shop"):
            await call
    assert place.server.calls == []


async def test_one_name_for_two_workloads_is_no_target(place: KubePlace) -> None:
    place.server.cluster.add_workload("statefulsets", "shop", "checkout", 1)
    with pytest.raises(PermanentError, match="Deployment and a StatefulSet"):
        await place.target.resolve(place.address)


async def test_the_execution_is_written_with_the_replicas(place: KubePlace) -> None:
    place.server.cluster.edit_annotations(place.key, {"team": "payments"})
    ref = await place.target.resolve(place.address)
    intent = intent_for(await place.target.observe(ref))
    await place.target.apply(ref, ScaleTo(replicas=3), intent)
    workload = place.server.cluster.objects[place.key]
    marks = _marks(intent.execution_id, intent.fence, intent.generation, intent.step)
    assert workload["metadata"]["annotations"].items() >= {"team": "payments", **marks}.items()
    assert workload["spec"]["replicas"] == 3
    sent = json.loads(place.proxy.writes[0].body)
    assert set(sent) == {"metadata", "spec"}
    assert set(sent["metadata"]) == {"annotations", "uid", "resourceVersion"}
    assert set(sent["spec"]) == {"replicas"}


async def test_a_change_of_status_alone_is_worth_another_try(place: KubePlace) -> None:
    ref = await place.target.resolve(place.address)
    before = await place.target.observe(ref)
    place.proxy.strike(Fault.HELD)
    applying = asyncio.create_task(place.target.apply(ref, ScaleTo(replicas=3), intent_for(before)))
    await place.proxy.held.wait()
    place.server.paused = True
    place.server.cluster.edit_status(place.key, readyReplicas=1)
    place.proxy.release()
    with pytest.raises(TemporaryError, match="the object has been modified") as caught:
        await applying
    assert caught.value.retry_after_s
    after = await place.target.observe(ref)
    assert (after.replicas, after.generation) == (2, before.generation)
    assert len(place.proxy.writes) == 1


async def test_retry_after_is_handed_on(place: KubePlace) -> None:
    ref = await place.target.resolve(place.address)
    before = await place.target.observe(ref)
    place.proxy.strike(Answer(429, b'{"message": "too many requests"}', {"Retry-After": "7"}))
    with pytest.raises(TemporaryError, match="too many requests") as caught:
        await place.target.apply(ref, ScaleTo(replicas=3), intent_for(before))
    assert caught.value.retry_after_s == 7


async def test_a_lower_fence_of_the_same_execution_is_refused(place: KubePlace) -> None:
    ref = await place.target.resolve(place.address)
    number = intent_for(await place.target.observe(ref)).execution_id
    place.server.cluster.edit_annotations(place.key, _marks(number, fence=8))
    generation = (await place.target.observe(ref)).generation
    intent = Intent(execution_id=number, step=1, fence=7, generation=generation)
    with pytest.raises(PreconditionFailed, match="fence"):
        await place.target.apply(ref, ScaleTo(replicas=3), intent)
    assert place.proxy.writes == []


async def test_pods_on_their_way_out_or_ended_are_no_replicas(place: KubePlace) -> None:
    ref = await place.target.resolve(place.address)
    place.server.paused = True
    first, second = place.server.cluster.pods_of(place.key)
    stranger = place.server.cluster.add_pod("shop", "stranger", first["metadata"]["labels"])
    place.server.cluster.delete_pod(("pods", "shop", first["metadata"]["name"]))
    place.server.cluster.edit_status(("pods", "shop", second["metadata"]["name"]), phase="Failed")
    state = await place.target.observe(ref)
    assert (state.replicas, state.instances) == (2, ())
    for pod in (first, stranger):
        instance = InstanceRef(name=pod["metadata"]["name"], uid=pod["metadata"]["uid"])
        with pytest.raises(PreconditionFailed, match="is no pod of"):
            await place.target.apply(ref, RestartInstance(instance=instance), intent_for(state))
    assert place.proxy.writes == []


async def test_a_restart_is_settled_when_the_old_pod_is_gone_too(place: KubePlace) -> None:
    ref = await place.target.resolve(place.address)
    operation = RestartInstance(instance=_first(await place.target.observe(ref)))
    place.server.paused = True
    await place.target.apply(ref, operation, intent_for(await place.target.observe(ref)))
    assert not await place.target.settled(ref, operation)
    place.server.paused = False
    await until(lambda: place.target.settled(ref, operation))


async def test_a_spec_the_controller_has_not_seen_is_not_settled(place: KubePlace) -> None:
    ref = await place.target.resolve(place.address)
    place.server.paused = True
    place.server.cluster.edit_spec(place.key, paused=True)
    assert not await place.target.settled(ref, ScaleTo(replicas=2))


@pytest.mark.parametrize(
    ("marks", "found"),
    [
        (_marks(execution=8), Finding.UNKNOWN),
        (_marks(execution=7, generation="0"), Finding.UNKNOWN),
        ({"sre-bot/execution": "edited by hand"}, Finding.UNKNOWN),
        (None, Finding.UNKNOWN),
        (_marks(execution=7), Finding.APPLIED),
    ],
    ids=["later execution", "same id of another life", "edited", "none", "ours"],
)
async def test_what_the_annotations_prove_once_the_generation_has_moved_on(
    place: KubePlace, marks: dict[str, str] | None, found: Finding
) -> None:
    ref = await place.target.resolve(place.address)
    place.server.cluster.edit_annotations(place.key, marks)
    place.server.cluster.edit_spec(place.key, replicas=4)
    intent = Intent(execution_id=ExecutionId(7), step=1, fence=1, generation="1")
    async with asyncio.timeout(20):  # waiting it out would take 40 s
        assert await place.target.find(ref, ScaleTo(replicas=3), intent) is found


async def test_a_selector_of_expressions_finds_the_pods(place: KubePlace) -> None:
    expressions = [
        {"key": "app", "operator": "In", "values": ["search", "find"]},
        {"key": "track", "operator": "NotIn", "values": ["canary"]},
        {"key": "track", "operator": "Exists"},
        {"key": "legacy", "operator": "DoesNotExist"},
    ]
    selector = {"matchLabels": {"track": "stable"}, "matchExpressions": expressions}
    place.server.cluster.add_workload("deployments", "shop", "search", 1, selector)
    ref = await place.target.resolve(place.address.model_copy(update={"name": "search"}))
    await until(lambda: place.target.settled(ref, ScaleTo(replicas=1)))
    assert len((await place.target.observe(ref)).instances) == 1


async def test_the_command_for_a_person(place: KubePlace) -> None:
    ref = await place.target.resolve(place.address)
    scale = ScaleAction(from_replicas=2, to_replicas=4)
    restart = RestartAction(instances=(InstanceRef(name="a-1", uid="u1"), InstanceRef(name="a-2", uid="u2")))
    manual = ManualAction(command="kubectl get nodes", why_manual="a node is down")
    numbers = "--current-replicas=2 --replicas=4"
    assert place.target.command(ref, scale) == f"kubectl -n shop scale deployment/checkout {numbers}"
    assert place.target.command(ref.model_copy(update={"uid": "not read yet"}), scale) == (
        f"kubectl -n shop scale deployment/checkout statefulset/checkout {numbers}"
    )
    evict = (
        """echo '{"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": "a-1", "namespace": "shop"}, """
        """"deleteOptions": {"preconditions": {"uid": "u1"}}}' | kubectl create --raw """
        "/api/v1/namespaces/shop/pods/a-1/eviction -f - && kubectl -n shop wait --for=delete pod/a-1"
    )
    assert place.target.command(ref, restart) == f"{evict} && {evict.replace('a-1', 'a-2').replace('u1', 'u2')}"
    rolling = RolloutRestartAction()
    assert place.target.command(ref, rolling) == "kubectl -n shop rollout restart deployment/checkout"
    back = RollBackAction(from_revision="3", to_revision="2")
    assert place.target.command(ref, back) == "kubectl -n shop rollout undo deployment/checkout --to-revision=2"
    assert place.target.command(ref, manual) == "kubectl get nodes"


async def test_a_kubeconfig_is_read_and_no_retry_is_left_on(place: KubePlace, tmp_path: Path) -> None:
    path = tmp_path / "config"
    path.write_text(
        yaml.safe_dump(
            {
                "apiVersion": "v1",
                "kind": "Config",
                "clusters": [{"name": "c", "cluster": {"server": place.proxy.url}}],
                "users": [{"name": "u", "user": {"token": TOKEN}}],
                "contexts": [{"name": "shop", "context": {"cluster": "c", "user": "u"}}],
            }
        )
    )
    configuration = from_kubeconfig(path, "shop")
    configuration.no_proxy = "*"
    target = KubernetesTarget(configuration, namespaces=["shop"])
    ref = await target.resolve(place.address)
    state = await target.observe(ref)
    place.proxy.strike(Answer(503, headers={"Retry-After": "0"}))
    with pytest.raises(OutcomeUnknown):
        await target.apply(ref, RestartInstance(instance=_first(state)), intent_for(state))
    assert [write.method for write in place.proxy.writes] == ["POST"]
    await target.close()


def test_settings_that_lead_nowhere_are_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="kubeconfig"):
        from_kubeconfig(tmp_path / "absent")
    (tmp_path / "broken").write_text("a: [")
    with pytest.raises(ConfigurationError, match="kubeconfig"):
        from_kubeconfig(tmp_path / "broken")
    with pytest.raises(ConfigurationError, match="service account"):
        in_cluster()
