"""Calls to Kubernetes that never left: no thread in time, no token. Nothing was sent, and nothing is sent later."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path

import pytest
from kubernetes.client import Configuration
from kubernetes.config.incluster_config import InClusterConfigLoader

from executors.targets import kubernetes_api
from executors.targets.kubernetes_api import MERGE, Foreign, KubernetesApi, Right, Write
from pipeline.domain.errors import TemporaryError
from tests.contract.targets.places import kube_configuration
from tests.faults import Fault, Proxy
from tests.kube_server import KubeServer

NODE = "/api/v1/nodes/node-1"
WRITE = Write(Right("patch", "nodes"), "PATCH", NODE, MERGE, {"metadata": {"annotations": {"a": "b"}}})


class _Anything(Foreign):
    pass


@pytest.fixture
async def proxy() -> AsyncIterator[Proxy]:
    async with KubeServer() as server, Proxy(server.url) as proxy:
        server.cluster.add_node("node-1")
        yield proxy


def _api(configuration: Configuration, timeout_s: float = 20.0) -> KubernetesApi:
    return KubernetesApi(configuration, timeout_s=timeout_s, privileges="kubernetes-node-rbac.yaml")


async def test_threads_that_others_keep_busy_are_not_waited_for(proxy: Proxy) -> None:
    release = threading.Event()
    loop = asyncio.get_running_loop()
    loop.set_default_executor(ThreadPoolExecutor(1))
    waiting = loop.run_in_executor(None, release.wait)
    api = _api(kube_configuration(proxy.url), timeout_s=5.0)
    try:
        assert await api.read(Right("get", "nodes"), NODE, _Anything) is not None
    finally:
        release.set()
        await waiting
        api.close()


async def test_what_was_given_up_before_it_was_sent_is_never_sent(
    proxy: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kubernetes_api, "_THREADS", 1)
    release = threading.Event()
    configuration = kube_configuration(proxy.url)
    configuration.refresh_api_key_hook = lambda _: release.wait(60)  # type: ignore[assignment]
    api = _api(configuration, timeout_s=0.1)
    writes = (api.write(WRITE), api.write(WRITE))  # one that has its thread, and one that never gets any
    ended = await asyncio.gather(*writes, return_exceptions=True)
    assert [type(one) for one in ended] == [TemporaryError, TemporaryError]
    assert all("nothing was sent to patch nodes" in str(one) for one in ended)
    release.set()
    await asyncio.to_thread(api._threads.shutdown)
    assert proxy.requests == []
    api.close()


async def test_closing_waits_for_nobody(proxy: Proxy) -> None:
    api = _api(kube_configuration(proxy.url))
    proxy.strike(Fault.HELD)
    writing = asyncio.create_task(api.write(WRITE))
    await proxy.held.wait()
    api.close()
    assert any(thread.is_alive() for thread in api._threads._threads), "it is still waiting for the answer"
    proxy.release()
    await writing


@pytest.mark.parametrize("lost", ["empty", "gone"])
async def test_without_a_token_nothing_is_sent(proxy: Proxy, tmp_path: Path, lost: str) -> None:
    token, certificate = tmp_path / "token", tmp_path / "ca.crt"
    token.write_text("the-bot")
    certificate.write_text("not read before a connection is made")
    place = {"KUBERNETES_SERVICE_HOST": "127.0.0.1", "KUBERNETES_SERVICE_PORT": proxy.url.rpartition(":")[2]}
    loader = InClusterConfigLoader(str(token), str(certificate), environ=place)  # type: ignore[no-untyped-call]
    loader._token_refresh_period = timedelta()
    configuration = kube_configuration(proxy.url)
    loader.load_and_set(configuration)  # type: ignore[no-untyped-call]
    if lost == "empty":
        token.write_text("")
    else:
        token.unlink()
    api = _api(configuration)
    with pytest.raises(TemporaryError, match="nothing was sent"):
        await api.write(WRITE)
    assert proxy.requests == []
    api.close()
