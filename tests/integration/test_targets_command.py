"""`sre-bot targets` and `targets check`, on real folders and a real repository; and what a plan reads of a service."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from bot.__main__ import main
from executors.targets.kubernetes_node import KubernetesNodeTarget
from executors.targets.log_files import LogFilesTarget
from executors.targets.registry import Registry
from pipeline.domain.catalogue import Catalogue, Role, Service, WorkloadAddress
from pipeline.domain.ids import ServiceName
from pipeline.domain.plan import InstanceState, TargetState
from pipeline.stages.sites import SiteReader
from pipeline.stages.survey import Surveyor
from tests.builders import CHECKOUT, make_target
from tests.contract.targets.places import kube_configuration
from tests.kube_objects import Cluster
from tests.kube_server import KubeServer

CATALOGUE = """
services:
  worker:
    logs: {platform: log_files, namespace: logs, name: worker}
    config: {platform: git, namespace: settings, name: main}
  web:
    certificate: {platform: certificate_file, namespace: certs, name: gone}
"""


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A log of 3 MiB, a repository with one commit, and a folder without the certificate that is asked for."""
    (tmp_path / "logs" / "worker-1").mkdir(parents=True)
    (tmp_path / "logs" / "worker-1" / "service.log").write_bytes(b"line\n" * 600_000)
    (tmp_path / "certs").mkdir()
    repository = tmp_path / "settings"
    repository.mkdir()
    for command in (
        ("init", "--quiet", "--initial-branch=main"),
        ("-c", "user.name=Dana", "-c", "user.email=dana@demo.invalid", "commit", "-q", "--allow-empty", "-m", "first"),
    ):
        subprocess.run(["git", *command], cwd=repository, check=True)
    (tmp_path / "services.yaml").write_text(CATALOGUE)
    for name, value in {
        "SRE_CATALOGUE": tmp_path / "services.yaml",
        "SRE_TRUNCATE_FOLDERS": f"logs={tmp_path / 'logs'}",
        "SRE_GIT_REPOSITORIES": f"settings={repository}",
        "SRE_CERTIFICATE_FOLDERS": f"certs={tmp_path / 'certs'}",
        "SRE_DATA_DIR": tmp_path / "data",
    }.items():
        monkeypatch.setenv(name, str(value))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def _run(*words: str) -> Result:
    return CliRunner().invoke(main, list(words))


def test_targets_are_listed_with_what_may_be_done_to_each(world: Path) -> None:
    told = _run("targets", "--json")
    assert told.exit_code == 0, told.output
    found = {one["role"] + " of " + one["service"]: one for one in map(json.loads, told.stdout.splitlines())}
    assert list(found) == ["config of worker", "logs of worker", "certificate of web"]
    assert found["logs of worker"]["uid"]
    assert [one["kind"] for one in found["config of worker"]["offers"]] == ["revert"]
    assert found["certificate of web"]["uid"] is None
    assert "gone" in found["certificate of web"]["problem"]
    said = _run("targets").stdout
    assert "✅ worker · logs · log_files logs/worker · uid" in said
    assert "truncate (cannot be undone" in said
    assert "revert (can be undone" in said


def test_rights_are_proven_and_what_is_missing_ends_with_1(world: Path) -> None:
    wrong = _run("targets", "check")
    assert wrong.exit_code == 1, "the certificate is not there"
    assert "⛔ web · certificate · certificate_file certs/gone" in wrong.stdout
    (world / "services.yaml").write_text(CATALOGUE.partition("  web:")[0])
    right = _run("targets", "check")
    assert right.exit_code == 0, right.output
    assert "⛔" not in right.stdout
    assert "✅ push to the branch" in right.stdout
    assert (world / "logs" / "worker-1" / "service.log").stat().st_size == 3_000_000, "nothing was done"


def test_a_catalogue_without_targets_is_told(world: Path) -> None:
    (world / "services.yaml").write_text("services: {}\n")
    assert "names no target" in _run("targets").stderr
    assert _run("targets", "check").exit_code == 1


async def test_one_thing_that_runs_belongs_to_one_service(world: Path) -> None:
    async with KubeServer() as server:
        server.cluster.add_workload("deployments", "shop", "checkout", replicas=1)
        from executors.targets.kubernetes import KubernetesTarget

        registry = Registry({"kubernetes": KubernetesTarget(kube_configuration(server.url), namespaces=["shop"])})
        address = WorkloadAddress(platform="kubernetes", namespace="shop", name="checkout")
        both = {ServiceName(name): Service(target=address) for name in ("checkout", "basket")}
        found = await Surveyor(registry, Catalogue(both)).find()
        await registry.close()
    assert [one.problem for one in found] == ["is the target of basket as well", "is the target of checkout as well"]


async def test_the_node_is_read_only_when_all_that_is_suspected_is_on_it(world: Path) -> None:
    async with KubeServer(Cluster()) as server:
        server.cluster.add_node("node-7")
        registry = Registry(
            {
                "kubernetes_node": KubernetesNodeTarget(kube_configuration(server.url)),
                "log_files": LogFilesTarget({"logs": world / "logs"}),
            }
        )
        logs = WorkloadAddress(platform="log_files", namespace="logs", name="worker")
        reader = SiteReader(registry, Catalogue({CHECKOUT: Service(logs=logs)}))
        names = (("checkout-1", "node-7"), ("checkout-2", "node-7"), ("checkout-3", "node-8"))
        instances = tuple(InstanceState(name, name, True, node) for name, node in names)
        workload = TargetState(make_target(), "1", 3, instances)
        sites = await reader.read(CHECKOUT, workload, "", ("checkout-1", "checkout-2"))
        elsewhere = await reader.read(CHECKOUT, workload, "", ("checkout-1", "checkout-3"))
        await registry.close()
    node = sites[Role.NODE].state
    assert node is not None
    assert (node.ref.name, node.cordoned) == ("node-7", False)
    assert sites[Role.LOGS].state is not None
    assert Role.NODE not in elsewhere
