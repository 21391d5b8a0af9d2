"""The wheel holds the five packages with their data, and nothing of ours is shadowed by a package of the same name."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

import bot
import executors
import knowledge_base
import migrations
import pipeline

ROOT = Path(__file__).parents[2]


def test_every_root_package_is_ours() -> None:
    for package in (bot, executors, knowledge_base, migrations, pipeline):
        assert Path(package.__path__[0]).resolve() == ROOT / package.__name__


def test_the_wheel_carries_data_and_no_tests(tmp_path: Path) -> None:
    build = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "-q", "-w", str(tmp_path)]
    subprocess.run([*build, str(ROOT)], check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    names = set(zipfile.ZipFile(wheel).namelist())
    assert {name.split("/")[0] for name in names if ".dist-info" not in name} == {
        "bot",
        "executors",
        "knowledge_base",
        "migrations",
        "pipeline",
    }
    assert "migrations/0001_core.sql" in names
    assert "bot/demo/slack/page/index.html" in names
    assert "bot/demo/services.yaml" in names
    for privileges in (
        "kubernetes-rbac.yaml",
        "kubernetes-node-rbac.yaml",
        "cert-manager-rbac.yaml",
        "pod-logs-rbac.yaml",
        "aws-ecs-policy.json",
        "aws-asg-policy.json",
        "aws-lambda-policy.json",
        "azure-role.json",
        "gitops-privileges.md",
    ):
        assert f"executors/targets/{privileges}" in names
    assert any(name.startswith("knowledge_base/runbooks/") for name in names)
