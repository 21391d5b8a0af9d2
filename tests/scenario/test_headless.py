"""The command line's headless run, as a script would use it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Any

import pytest

pytestmark = [pytest.mark.whole, pytest.mark.timeout(400)]

FIELDS = {
    "incident",
    "severity",
    "fault",
    "detected_after_s",
    "diagnosis",
    "plan",
    "decision",
    "execution",
    "verification",
    "rollback",
    "attempts",
    "incident_state",
    "card",
    "trace_events",
}


def headless(*arguments: str) -> tuple[int, dict[str, Any]]:
    environ = {name: value for name, value in os.environ.items() if not name.startswith(("SRE_", "ANTHROPIC_"))}
    done = subprocess.run(
        [sys.executable, "-m", "bot", "demo", "--headless", "--json", "--limit", "300", *arguments],
        capture_output=True,
        text=True,
        env=environ,
        check=False,
    )
    assert done.stdout, done.stderr
    return done.returncode, json.loads(done.stdout)


def test_slow_is_scaled_up_and_recovers() -> None:
    code, report = headless("--fault", "slow", "--decide", "approve")
    assert code == 0, report
    assert set(report) >= FIELDS
    assert report["plan"]["action"] == {"kind": "scale", "from_replicas": 2, "to_replicas": 4}
    assert report["decision"] == "approved"
    assert report["execution"]["state"] == "verified"
    assert report["execution"]["physical_changes"] == report["execution"]["journal_changes"] == 1
    assert (report["attempts"], report["rollback"], report["next_plan"]) == (1, None, None)
    assert [step["operation"] for step in report["execution"]["steps"]] == [{"op": "scale_to", "replicas": 4}]
    verification = report["verification"]
    assert verification["verdict"] == "recovered"
    assert verification["unit"] == "s"
    assert verification["after"] < verification["before"] / 2
    assert report["incident_state"] == "resolved"
    assert "recovered in" in json.dumps(report["card"])
    assert report["trace_events"] > 15
    known = {item["id"] for item in report["diagnosis"]["evidence"]}
    assert known
    assert 0.7 <= report["diagnosis"]["confidence"] <= 1
    path = report["diagnosis"]["path"]
    assert path["holds"], path
    assert set(path["steps"][0]["evidence"]) <= known


@pytest.mark.long
def test_what_does_not_help_is_put_back_and_not_proposed_again() -> None:
    code, report = headless("--fault", "wrong-fix", "--decide", "approve")
    assert code == 0, report
    assert report["plan"]["action"] == {"kind": "scale", "from_replicas": 2, "to_replicas": 4}
    assert report["execution"]["state"] == "not_verified"
    assert report["verification"]["verdict"] == "not_recovered"
    assert report["verification"]["after"] > 1
    assert report["rollback"]["state"] == "applied"
    assert report["rollback"]["change"] == "4 → 2 replicas"
    assert report["execution"]["physical_changes"] == report["execution"]["journal_changes"] == 2
    assert report["attempts"] == 1
    assert report["next_plan"]["action"]["kind"] != "scale"
    assert report["incident_state"] in ("escalated", "awaiting_decision")
    assert report["incidents_opened"] == 1
