"""The demo world as it is used: real processes, real load, faults that happen."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import aiohttp
import pytest
from cryptography import x509

from bot.demo.world.certificate import issue_certificate
from bot.demo.world.client import WorldClient, WorldError
from bot.demo.world.messages import ServiceView
from bot.demo.world.spec import MIB
from tests.demo_worlds import (
    LAUNCH,
    World,
    failed_ratio,
    instance_uids,
    is_active,
    p99_s,
    post,
    processes_of,
    restart,
    scale,
    scrape,
    start_world,
    totals,
    until,
    until_gone,
    value,
)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    data_dir = tmp_path_factory.mktemp("shared")
    world = start_world(data_dir)
    yield world
    world.process.terminate()
    assert world.process.wait(20) == 0
    assert processes_of(data_dir) == set()


@pytest.fixture
async def client(world: World) -> AsyncIterator[WorldClient]:
    async with WorldClient(world.url) as client:
        await client.wait_ready(30)
        yield client


async def test_every_service_runs_and_exports_the_series_of_the_contract(world: World, client: WorldClient) -> None:
    expected = {"web": 1, "checkout": 2, "payments": 2, "worker": 1}
    services = {service.name: service for service in await client.services()}
    assert {name: len(service.instances) for name, service in services.items()} == expected
    assert all(service.replicas_1h_ago == expected[name] for name, service in services.items())

    async def traffic_everywhere() -> bool:
        name = "http_server_request_duration_seconds_count"
        counts = [await totals(world, service, name, "http_response_status_code") for service in expected]
        return all(count.get("200", 0) > 0 for count in counts)

    await until(traffic_everywhere, 10)
    for service in expected:
        for instance, address in world.targets(service).items():
            samples = {sample.name: sample for sample in await scrape(address)}
            view = next(it for it in services[service].instances if it.name == instance)
            resident = samples["process_resident_memory_bytes"].value
            assert resident == pytest.approx(view.memory_bytes, rel=0.2)
            assert resident < samples["container_spec_memory_limit_bytes"].value / 2
            assert samples["node_filesystem_size_bytes"].labels["mountpoint"].endswith(instance)
            edge = samples.get("traces_service_graph_request_total")
            calls = {"web": "checkout", "checkout": "payments", "worker": "payments"}.get(service)
            assert (edge.labels if edge else None) == ({"client": service, "server": calls} if calls else None)
            assert ("x509_cert_not_after" in samples) == (service == "web")


async def test_scale_is_absolute_and_guarded_by_generation_and_fence(world: World, client: WorldClient) -> None:
    before = await client.service("payments")
    status, answer = await scale(world.url, "payments", 4, before.generation, execution_id="S1")
    assert (status, answer["replicas"], answer["generation"]) == (202, 4, before.generation + 1)
    assert answer["last_change"]["execution_id"] == "S1"
    assert answer["replicas_1h_ago"] == before.replicas

    async def four_targets() -> bool:
        return set(world.targets("payments")) == {f"payments-{number}" for number in range(1, 5)}

    await until(four_targets, 20)
    assert (await scale(world.url, "payments", 5, before.generation, execution_id="S2"))[0] == 409
    now = before.generation + 1
    assert (await scale(world.url, "payments", 5, now, fence=0, execution_id="S2"))[0] == 409
    assert (await scale(world.url, "payments", 9, now, execution_id="S2"))[0] == 422
    assert (await scale(world.url, "payments", 0, now, execution_id="S2"))[0] == 422
    assert (await scale(world.url, "payments", 2.0, now, execution_id="S2"))[0] == 422
    assert (await scale(world.url, "nobody", 2, now, execution_id="S2"))[0] == 404
    assert await client.journal("S2") == []

    pids = {instance.name: instance.pid for instance in (await client.service("payments")).instances}
    assert (await scale(world.url, "payments", 2, now, execution_id="S3"))[0] == 202

    async def two_instances() -> bool:
        service = await client.service("payments")
        return {it.name for it in service.instances} == set(world.targets("payments")) == {"payments-1", "payments-2"}

    await until(two_instances, 20)
    assert not any(Path(f"/proc/{pids[name]}/stat").exists() for name in ("payments-3", "payments-4"))
    changes = [(entry.execution_id, entry.kind, entry.detail) for entry in await client.journal()]
    assert ("S1", "scale", {"from": 2, "to": 4}) in changes
    assert ("S3", "scale", {"from": 4, "to": 2}) in changes


async def test_restart_replaces_the_process_behind_the_name_once(world: World, client: WorldClient) -> None:
    before = await client.service("payments")
    old = before.instances[0]
    status, answer = await restart(world.url, "payments", old.name, old.uid, execution_id="R1")
    assert status == 202
    new_uid = instance_uids(ServiceView.model_validate(answer))[old.name]
    assert new_uid != old.uid
    assert (await restart(world.url, "payments", old.name, old.uid, execution_id="R2"))[0] == 409
    assert (await restart(world.url, "payments", old.name, new_uid, fence=0, execution_id="R2"))[0] == 409
    await client.wait_ready(20)
    after = await client.service("payments")
    assert instance_uids(after)[old.name] == new_uid
    assert after.instances[0].pid not in (None, old.pid)
    assert (after.uid, after.generation) == (before.uid, before.generation)
    assert after.instances[1].pid == before.instances[1].pid
    assert await client.journal("R2") == []
    (entry,) = await client.journal("R1")
    assert entry.detail == {"instance": old.name, "old_uid": old.uid, "new_uid": new_uid}


async def test_a_crashed_instance_comes_back_as_a_new_one(world: World, client: WorldClient) -> None:
    old = (await client.service("checkout")).instances[0]
    assert old.pid is not None
    os.kill(old.pid, signal.SIGKILL)

    async def replaced() -> bool:
        new = (await client.service("checkout")).instances[0]
        return new.ready and new.name == old.name and new.uid != old.uid

    await until(replaced, 20)
    assert f"127.0.0.1:{old.port}" not in world.targets("checkout").values()


@pytest.mark.long
async def test_memory_leak_passes_85_percent_and_ends_with_the_process(world: World, client: WorldClient) -> None:
    fault = await client.set_fault("memory-leak", on=True)
    assert (fault.active, fault.detail) == (True, "checkout-1")
    assert fault.since is not None

    async def above_85_percent() -> bool:
        address = world.targets("checkout")["checkout-1"]
        limit = await value(address, "container_spec_memory_limit_bytes")
        return await value(address, "process_resident_memory_bytes") > 0.85 * limit

    await until(above_85_percent, 40)
    sick, healthy = (await client.service("checkout")).instances
    assert healthy.memory_bytes < 0.5 * healthy.memory_limit_bytes
    assert (await restart(world.url, "checkout", sick.name, sick.uid))[0] == 202
    assert not await is_active(client, "memory-leak")
    await client.wait_ready(20)
    cured = (await client.service("checkout")).instances[0]
    assert cured.memory_bytes < 0.5 * cured.memory_limit_bytes


@pytest.mark.long
async def test_four_replicas_cure_a_surge_but_not_one_lock_for_them_all(world: World, client: WorldClient) -> None:
    assert await p99_s(world, "web", 4) <= 0.4
    await client.set_fault("slow", on=True)
    try:

        async def over_a_second() -> bool:
            return await p99_s(world, "checkout", 2) > 1.0

        await until(over_a_second, 30)
        assert await p99_s(world, "payments", 2) < 0.2
        service = await client.service("checkout")
        assert (await scale(world.url, "checkout", 4, service.generation))[0] == 202

        async def near_normal() -> bool:
            return await p99_s(world, "web", 3) <= 0.4

        await until(near_normal, 40)
        assert await is_active(client, "slow")
        assert not await is_active(client, "wrong-fix")
        await client.set_fault("wrong-fix", on=True)
        await client.set_fault("slow", on=False)
        await until(over_a_second, 30)
        assert (await client.service("checkout")).replicas == 4
        assert [fault.name for fault in await client.faults() if fault.active] == ["wrong-fix"]
        await client.set_fault("wrong-fix", on=False)
        assert not (world.directory / "order-book.lock").exists()
        await until(near_normal, 40)
    finally:
        for fault in ("slow", "wrong-fix"):
            await client.set_fault(fault, on=False)
        service = await client.service("checkout")
        await scale(world.url, "checkout", 2, service.generation)


async def test_bad_deploy_is_a_commit_and_the_push_of_its_revert_the_cure(
    world: World, client: WorldClient, tmp_path: Path
) -> None:
    deployed, clone = world.directory / "config-repo", tmp_path / "clone"

    def git(tree: Path, *arguments: str) -> str:
        identity = ["-c", "user.name=Test", "-c", "user.email=test@example.invalid"]
        command = ["git", "-C", str(tree), *identity, *arguments]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()

    fault = await client.set_fault("bad-deploy", on=True)
    assert fault.detail == git(deployed, "rev-parse", "HEAD")
    assert "+upstream_timeout_ms = 23" in git(deployed, "show", "HEAD")

    async def a_third_fails() -> bool:
        return 0.15 < await failed_ratio(world, "payments", 3) < 0.5

    await until(a_third_fails, 20)
    git(tmp_path, "clone", "--quiet", str(deployed), str(clone))
    git(clone, "revert", "--no-edit", "HEAD")
    git(clone, "push", "--quiet", "origin", "HEAD:main")
    assert not await is_active(client, "bad-deploy")

    async def none_fails() -> bool:
        return await failed_ratio(world, "payments", 1) == 0

    await until(none_fails, 15)
    reverted = git(deployed, "rev-parse", "HEAD")
    assert (await client.set_fault("bad-deploy", on=False)).active is False
    assert git(deployed, "rev-parse", "HEAD") == reverted
    await client.set_fault("bad-deploy", on=True)
    assert (await client.set_fault("bad-deploy", on=False)).active is False
    assert git(deployed, "rev-list", "--count", f"{reverted}..HEAD") == "2"
    assert git(deployed, "status", "--porcelain") == ""


@pytest.mark.long
async def test_disk_fill_is_cured_by_truncation_and_does_not_return(world: World, client: WorldClient) -> None:
    async def used_ratio() -> float:
        address = world.targets("worker")["worker-1"]
        size = await value(address, "node_filesystem_size_bytes")
        return 1 - await value(address, "node_filesystem_avail_bytes") / size

    assert await used_ratio() < 0.1
    await client.set_fault("disk-fill", on=True)

    async def burst_is_over() -> bool:
        detail = next(fault.detail for fault in await client.faults() if fault.name == "disk-fill")
        return detail.endswith("service.log") and await used_ratio() > 0.965

    await until(burst_is_over, 40)
    assert await used_ratio() <= 0.97

    async def burst_has_ended() -> bool:
        address = world.targets("worker")["worker-1"]
        async with aiohttp.ClientSession() as session, session.get(f"http://{address}/faults/disk-fill") as answer:
            return not (await answer.json())["running"]

    await until(burst_has_ended, 20)
    (world.directory / "logs" / ".sre-bot").mkdir()
    (world.directory / "logs" / "worker-1" / "service.log.1.gz").write_bytes(b"x" * MIB)
    os.truncate(world.directory / "logs" / "worker-1" / "service.log", 0)
    assert 1 / 64 <= await used_ratio() < 0.1
    assert not await is_active(client, "disk-fill")


async def test_certificate_is_read_at_each_scrape(world: World, client: WorldClient) -> None:
    async def days_left() -> float:
        end = datetime.fromtimestamp(await value(world.targets("web")["web-1"], "x509_cert_not_after"), UTC)
        return (end - datetime.now(UTC)) / timedelta(days=1)

    web, authority = (world.directory / "certs" / name for name in ("web.pem", "authority.pem"))
    assert authority.stat().st_mode & 0o077 == 0
    issuer = x509.load_pem_x509_certificate(authority.read_bytes())
    assert await days_left() > 80
    await client.set_fault("cert-expiry", on=True)
    assert 1.9 < await days_left() <= 2
    x509.load_pem_x509_certificate(web.read_bytes()).verify_directly_issued_by(issuer)
    issue_certificate(authority, web, timedelta(days=30))
    assert await days_left() > 29
    assert not await is_active(client, "cert-expiry")


async def test_world_view_and_refusals(world: World, client: WorldClient) -> None:
    async with aiohttp.ClientSession() as session:
        async with session.get(f"{world.url}/v1/world") as response:
            view = await response.json()
        async with session.post(f"{world.url}/v1/faults/slow", data='{"on": true}') as response:
            assert response.status == 415
        async with session.get(f"{world.url}/v1/services/nobody") as response:
            assert (response.status, (await response.json())["error"]) == (404, "not_found")
    assert [service["name"] for service in view["services"]] == ["web", "checkout", "payments", "worker"]
    instance = view["services"][0]["instances"][0]
    assert set(instance) == {"name", "ready", "memory_bytes", "memory_limit_bytes"}
    assert {fault["name"] for fault in view["faults"]} == {
        *("memory-leak", "slow", "bad-deploy", "disk-fill", "cert-expiry", "wrong-fix")
    }
    assert all(set(fault) == {"name", "title", "description", "active"} for fault in view["faults"])
    assert view["load"]["answered_per_s"] > 0
    assert (await post(world.url, "/v1/faults/slow", {"on": "yes"}))[0] == 422
    with pytest.raises(WorldError) as refused:
        await client.set_fault("gremlins", on=True)
    assert refused.value.status == 404


async def test_kill_of_the_supervisor_leaves_no_orphan_and_loses_nothing(tmp_path: Path) -> None:
    world = start_world(tmp_path)
    second = subprocess.run([*LAUNCH, str(tmp_path)], capture_output=True, text=True, timeout=30)
    assert (second.returncode, second.stderr.count("\n")) == (1, 1)
    assert "another demo world is running" in second.stderr
    async with WorldClient(world.url) as client:
        assert (await scale(world.url, "checkout", 3, 1, execution_id="K1"))[0] == 202
        before = await client.service("checkout")
        journal = await client.journal()
        surges = [await client.set_fault(name, on=True) for name in ("slow", "wrong-fix")]
        world.process.kill()
        world.process.wait()
    await until_gone(tmp_path)

    world = start_world(tmp_path)
    async with WorldClient(world.url) as client:
        await client.wait_ready(30)
        after = await client.service("checkout")
        assert (after.uid, after.generation, after.replicas) == (before.uid, 2, 3)
        assert (after.last_change, after.replicas_1h_ago) == (before.last_change, 2)
        assert not set(instance_uids(after).values()) & set(instance_uids(before).values())
        assert await client.journal() == journal
        assert [fault for fault in await client.faults() if fault.active] == surges
        assert set(world.targets("checkout")) == {"checkout-1", "checkout-2", "checkout-3"}
    world.process.terminate()
    assert world.process.wait(20) == 0
    assert processes_of(tmp_path) == set()


async def test_kill_of_its_parent_ends_the_world(tmp_path: Path) -> None:
    launcher = (
        "import os, subprocess, sys\nsubprocess.Popen([*sys.argv[1:], '--parent-pid', str(os.getpid())]).wait()\n"
    )
    parent = subprocess.Popen(
        [sys.executable, "-c", launcher, *LAUNCH, str(tmp_path)], stdout=subprocess.PIPE, text=True
    )
    assert parent.stdout is not None
    with parent.stdout as stdout:
        assert json.loads(stdout.readline())["url"]
    parent.kill()
    parent.wait()
    await until_gone(tmp_path)
