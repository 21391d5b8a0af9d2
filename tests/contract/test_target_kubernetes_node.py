"""What is a node's own: a generation of what people want of it, and the word that stands for its namespace."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from executors.targets.kubernetes_node import KubernetesNodeTarget
from pipeline.domain.action import CordonAction, ScaleTo, SetCordon
from pipeline.domain.catalogue import WorkloadAddress
from pipeline.domain.errors import PermanentError, PreconditionFailed
from tests.contract.targets.places import intent_for, kube_configuration
from tests.kube_objects import CORDON_TAINT
from tests.kube_server import KubeServer


@pytest.fixture
async def cluster_of_nodes() -> AsyncIterator[tuple[KubeServer, KubernetesNodeTarget]]:
    async with KubeServer() as server:
        server.cluster.add_node("node-1")
        target = KubernetesNodeTarget(kube_configuration(server.url))
        yield server, target
        await target.close()


async def test_a_cordon_is_its_own_generation(cluster_of_nodes: tuple[KubeServer, KubernetesNodeTarget]) -> None:
    server, target = cluster_of_nodes
    key = ("nodes", "", "node-1")
    ref = await target.resolve(WorkloadAddress(platform="kubernetes_node", namespace="cluster", name="node-1"))
    before = await target.observe(ref)
    pressure = {"key": "node.kubernetes.io/memory-pressure", "effect": "NoSchedule"}
    server.cluster.edit_spec(key, taints=[pressure])
    server.cluster.edit_status(key, conditions=[])
    assert (await target.observe(ref)).generation == before.generation, "the cluster's own taints are no wish"
    assert "dryRun" in await target.rehearse(ref, SetCordon(cordoned=True), before.generation)
    assert "unschedulable" not in server.cluster.objects[key]["spec"]
    said = await target.apply(ref, SetCordon(cordoned=True), intent_for(before))
    assert said == "cordoned the node node-1"
    server.cluster.reconcile()
    assert server.cluster.objects[key]["spec"]["taints"] == [pressure, CORDON_TAINT]
    after = await target.observe(ref)
    assert (before.cordoned, after.cordoned, after.generation == before.generation) == (False, True, False)
    with pytest.raises(PreconditionFailed, match="has changed"):
        await target.apply(ref, SetCordon(cordoned=False), intent_for(before))
    assert target.command(ref, CordonAction(cordoned=True)) == "kubectl cordon node-1"
    assert target.command(ref, CordonAction(cordoned=False)) == "kubectl uncordon node-1"


async def test_a_node_is_of_the_cluster_and_takes_nothing_else(
    cluster_of_nodes: tuple[KubeServer, KubernetesNodeTarget],
) -> None:
    server, target = cluster_of_nodes
    address = WorkloadAddress(platform="kubernetes_node", namespace="shop", name="node-1")
    with pytest.raises(PermanentError, match="written as 'cluster'"):
        await target.resolve(address)
    assert server.calls == []
    state = await target.observe(await target.resolve(address.model_copy(update={"namespace": "cluster"})))
    with pytest.raises(PermanentError, match="has no scale to: nothing was sent"):
        await target.apply(state.ref, ScaleTo(replicas=2), intent_for(state))
    server.granted = {("get", "", "nodes")}
    assert [one.held for one in await target.check(state.ref)] == [True, False]
    with pytest.raises(PermanentError, match=r"kubernetes-node-rbac\.yaml grants it"):
        await target.apply(state.ref, SetCordon(cordoned=True), intent_for(state))
