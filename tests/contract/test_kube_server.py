"""The Kubernetes-shaped server itself, as the official client meets it: what our adapter's tests rest upon."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from kubernetes import watch
from kubernetes.client import ApiClient, ApiException, AppsV1Api, CoreV1Api

from tests.contract.targets.places import kube_configuration
from tests.kube_server import KubeServer
from tests.kube_store import Object, Resource

KEY = ("deployments", "shop", "checkout")
MERGE = "application/merge-patch+json"


@pytest.fixture
async def server() -> AsyncIterator[KubeServer]:
    async with KubeServer() as server:
        server.paused = True
        server.cluster.add_workload(*KEY, replicas=2)
        yield server


async def called(server: KubeServer, call: Callable[[ApiClient], Any]) -> Any:
    with ApiClient(kube_configuration(server.url)) as client:
        return await asyncio.to_thread(call, client)


async def patched(server: KubeServer, body: Any, kind: str = MERGE, **more: Any) -> Any:
    def call(client: ApiClient) -> Any:
        return AppsV1Api(client).patch_namespaced_deployment("checkout", "shop", body, _content_type=kind, **more)

    return await called(server, call)


async def refused(server: KubeServer, body: Any, kind: str = MERGE) -> int:
    with pytest.raises(ApiException) as caught:
        await patched(server, body, kind)
    return int(caught.value.status)


def stored(server: KubeServer) -> Object:
    return server.cluster.objects[KEY]


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        (MERGE, {"spec": {"template": {"spec": {"containers": [{"name": "main", "image": "main:2"}]}}}}),
        (
            "application/strategic-merge-patch+json",
            {"spec": {"template": {"spec": {"containers": [{"name": "side", "image": "side:1"}]}}}},
        ),
        (
            "application/json-patch+json",
            [
                {"op": "test", "path": "/spec/template/spec/containers/0/name", "value": "main"},
                {"op": "replace", "path": "/spec/template/spec/containers/0/image", "value": "main:2"},
                {"op": "add", "path": "/metadata/annotations", "value": {"a/b": "1"}},
            ],
        ),
    ],
)
async def test_patches_of_three_kinds(server: KubeServer, kind: str, body: Any) -> None:
    rehearsed = await patched(server, body, kind, dry_run="All")
    assert stored(server)["metadata"]["generation"] == 1, "a dry run stores nothing"
    made = await patched(server, body, kind)
    images = [one.image for one in made.spec.template.spec.containers]
    assert images == [one.image for one in rehearsed.spec.template.spec.containers]
    assert images == (["main:1", "side:1"] if "strategic" in kind else ["main:2"])
    assert made.metadata.generation == 2
    assert made.status.replicas is None, "the status has a subresource of its own"


async def test_what_a_patch_is_refused_for(server: KubeServer) -> None:
    old = stored(server)["metadata"]["resourceVersion"]
    server.cluster.edit_status(KEY, replicas=1)
    assert await refused(server, {"metadata": {"resourceVersion": old}}) == 409
    assert await refused(server, {"metadata": {"uid": "of-a-former-one"}}) == 409
    assert await refused(server, {"spec": {"replicas": -1}}) == 422
    other_kind = [{"op": "test", "path": "/kind", "value": "Pod"}]
    assert await refused(server, other_kind, "application/json-patch+json") == 422
    assert await refused(server, {"spec": {"replicas": 3}}, "application/json") == 415
    server.cluster.define(Resource("widgets", "example.org", "v1", "Widget", builtin=False))
    server.cluster.create("widgets", "shop", "one", {"spec": {"size": 1}})
    path = "/apis/example.org/v1/namespaces/shop/widgets/one"
    for kind, status in ((MERGE, 200), ("application/strategic-merge-patch+json", 415)):

        def call(client: ApiClient, kind: str = kind) -> int:
            headers = {"Content-Type": kind}
            request = client.param_serialize(
                "PATCH", path, header_params=headers, body={"spec": {"size": 2}}, auth_settings=["BearerToken"]
            )
            return int(client.call_api(*request).status)

        assert await called(server, call) == status, "a CustomResourceDefinition knows no strategic merge"


async def test_generation_counts_what_is_wanted(server: KubeServer) -> None:
    server.cluster.edit_status(KEY, replicas=1)
    assert stored(server)["metadata"]["generation"] == 1
    await patched(server, {"metadata": {"annotations": {"team": "payments"}}})
    assert stored(server)["metadata"]["generation"] == 2, "of a Deployment its annotations count too"


async def test_the_scale_subresource_sets_the_number_alone(server: KubeServer) -> None:
    body = {"metadata": {"annotations": {"lost": "yes"}}, "spec": {"replicas": 5}}

    def call(client: ApiClient) -> Any:
        return AppsV1Api(client).patch_namespaced_deployment_scale("checkout", "shop", body, _content_type=MERGE)

    assert (await called(server, call)).spec.replicas == 5
    assert stored(server)["spec"]["replicas"] == 5
    assert "annotations" not in stored(server)["metadata"]


async def test_a_watch_tells_every_change_once(server: KubeServer) -> None:
    def changes(client: ApiClient) -> list[tuple[str, int]]:
        found = []
        watching = watch.Watch()
        apps = AppsV1Api(client)
        for event in watching.stream(apps.list_namespaced_deployment, "shop", resource_version="0", timeout_seconds=30):
            found.append((event["type"], event["object"].spec.replicas))
            if event["type"] == "DELETED":
                watching.stop()
        return found

    watching = asyncio.create_task(called(server, changes))
    while not any(call.verb == "watch" for call in server.calls):
        await asyncio.sleep(0.01)
    server.cluster.add_pod("shop", "stranger", {"app": "checkout"})
    server.cluster.edit_spec(KEY, replicas=3)
    server.cluster.remove(KEY)
    assert await watching == [("ADDED", 2), ("MODIFIED", 3), ("DELETED", 3)]


async def test_a_deleted_pod_is_the_one_that_was_meant(server: KubeServer) -> None:
    server.cluster.add_pod("shop", "stranger", {"app": "checkout"})

    def delete(client: ApiClient) -> Any:
        return CoreV1Api(client).delete_namespaced_pod("stranger", "shop", body={"preconditions": {"uid": "another"}})

    with pytest.raises(ApiException, match="UID in precondition: another"):
        await called(server, delete)
