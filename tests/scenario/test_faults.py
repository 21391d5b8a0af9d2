"""Four faults of the demo at once: each is one incident at the service it comes from, and ends by its own remedy."""

from __future__ import annotations

import asyncio
import gzip
import subprocess
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509

from bot.demo.launch import APPROVERS, CHANNEL
from bot.demo.slack.person import Person
from bot.demo.world.client import WorldClient
from bot.demo.world.spec import LOG_VOLUME_BYTES, SPECS, WorldPaths
from bot.slack.names import APPROVE
from pipeline.adapters.postgres.pool import Pool
from pipeline.adapters.postgres.unit_of_work import PostgresStore
from pipeline.domain.ids import IncidentId, ServiceName
from pipeline.domain.incident import Case
from pipeline.domain.lifecycle import ExecutionState, IncidentState
from tests.databases import open_directory
from tests.whole import WholeDemo, whole_demo

pytestmark = [pytest.mark.whole, pytest.mark.timeout(500)]

LONG_S = 180.0
BY_FAULT = {
    "cert-expiry": ("web", "certificate_expiry", "renew"),
    "disk-fill": ("worker", "disk_exhaustion", "truncate"),
    "bad-deploy": ("payments", "deployment_regression", "revert"),
    "memory-leak": ("checkout", "memory_pressure", "restart"),
}
"""Service and kind of the incident, and what cures it. The other two faults have the command line's test."""


async def test_each_fault_is_one_incident_at_its_root_and_ends_by_its_own_remedy() -> None:
    with open_directory() as directory, whole_demo(directory / "demo") as demo:
        async with WorldClient(demo.world_url) as world, store_of(demo) as store:
            desk = Desk(demo, store)
            await desk.watches(datetime.now(UTC))
            for fault in BY_FAULT:
                await world.set_fault(fault, True)
            asked = await desk.until(lambda case: case.incident.state is IncidentState.AWAITING_DECISION)
            for case in asked.values():
                await desk.approve(case)
            ended = await desk.until(lambda case: case.incident.over)
            active = [fault.name for fault in await world.faults() if fault.active]
        paths = WorldPaths(demo.data_dir / "world")
        assert active == []
        for service, kind, remedy in BY_FAULT.values():
            assert asked[service].lead.kind.value == kind
            diagnosis = asked[service].diagnosis
            assert diagnosis is not None
            assert diagnosis.path.holds, f"{service}: {diagnosis.path}"
            case = ended[service]
            assert case.plan is not None
            assert case.plan.action.kind == remedy
            assert case.execution is not None
            assert case.execution.state is ExecutionState.VERIFIED
            assert case.execution.physical_changes == len(case.execution.steps) >= 1
            assert case.incident.state is IncidentState.RESOLVED
        assert_the_change_was_blamed(asked["payments"])
        assert_one_revert(paths, asked["payments"])
        assert_kept_and_empty(paths)
        assert_issued_anew(paths)


class Desk:
    """Sees the incidents as they are stored, and approves as people do."""

    def __init__(self, demo: WholeDemo, store: PostgresStore) -> None:
        self._demo = demo
        self._store = store

    async def watches(self, since: datetime) -> None:
        """Until the bot has read every service: what it has not seen begin, it cannot explain."""
        async with asyncio.timeout(LONG_S), self._store.begin() as uow:
            for service in SPECS:
                while not await uow.telemetry.service_window(ServiceName(service), since):
                    await asyncio.sleep(0.2)

    async def until(self, reached: Callable[[Case], bool]) -> Mapping[str, Case]:
        """The incident of each fault's service once all of them have ``reached`` it; no service has two."""
        deadline = asyncio.get_running_loop().time() + LONG_S
        cases: list[Case] = []
        while asyncio.get_running_loop().time() < deadline:
            async with self._store.begin() as uow:
                known = await uow.incidents.recent(50)
                cases = [case for one in known if (case := await uow.incidents.case(one.id)) is not None]
            if sum(reached(case) for case in cases) >= len(BY_FAULT):
                break
            await asyncio.sleep(0.5)
        told = [(case.incident.service, case.incident.state.value, case.incident.outcome) for case in cases]
        assert all(reached(case) for case in cases), f"{told}\n{self._demo.said()}"
        assert sorted(case.incident.service for case in cases) == sorted(where for where, _, _ in BY_FAULT.values())
        return {case.incident.service: case for case in cases}

    async def approve(self, case: Case) -> None:
        """By as many people as it takes; returns when it is carried out, so that the next one need not wait for it."""
        assert case.plan is not None
        ts = await self._card(case.incident.id)
        for user in APPROVERS[: case.plan.approvals_needed]:
            async with Person(self._demo.page_url, user) as person:
                await person.wait_for(lambda state: has_approve(state, ts), LONG_S)
                await person.click(CHANNEL, ts, APPROVE)
        async with asyncio.timeout(LONG_S):
            while True:
                async with self._store.begin() as uow:
                    done = await uow.executions.of_plan(case.plan.id, "apply")
                if done is not None and done.applied_at is not None:
                    return
                await asyncio.sleep(0.2)

    async def _card(self, incident_id: IncidentId) -> str:
        async with asyncio.timeout(LONG_S):
            while True:
                async with self._store.begin() as uow:
                    place = await uow.incidents.card(incident_id)
                if place is not None:
                    return place.ts
                await asyncio.sleep(0.2)


@asynccontextmanager
async def store_of(demo: WholeDemo) -> AsyncIterator[PostgresStore]:
    pool = Pool(demo.setting("DATABASE_URL"), max_size=2)
    try:
        yield PostgresStore(pool)
    finally:
        await pool.close()


def has_approve(state: Mapping[str, Any], ts: str) -> bool:
    cards = [one for one in state["messages"].get(CHANNEL, []) if one["ts"] == ts]
    elements = [element for card in cards for block in card["blocks"] for element in block.get("elements", [])]
    return any(isinstance(element, dict) and element.get("action_id") == APPROVE for element in elements)


def assert_the_change_was_blamed(case: Case) -> None:
    assert case.lead.change is not None
    assert "lower the provider time-out" in case.lead.change.title
    assert case.diagnosis is not None
    assert case.lead.change.revision[:12] in case.diagnosis.root_cause
    assert {item.anomaly.key.service for item in case.anomalies} >= {"payments", "checkout"}


def assert_one_revert(paths: WorldPaths, case: Case) -> None:
    """On top of the change, with the settings of before in the files that are served."""

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(paths.config_repo), *arguments]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()

    assert case.lead.change is not None
    assert git("rev-parse", "HEAD^") == case.lead.change.revision
    assert git("diff", "HEAD", "HEAD^^") == ""
    assert git("status", "--porcelain") == ""


def assert_kept_and_empty(paths: WorldPaths) -> None:
    """The log is small again, and what it held lies beside it."""
    log = paths.log_directory("worker-1") / "service.log"
    assert log.stat().st_size < LOG_VOLUME_BYTES / 64
    (copy,) = [one for one in log.parent.iterdir() if one.name.endswith(".gz")]
    with gzip.open(copy) as kept:
        assert sum(len(chunk) for chunk in iter(lambda: kept.read(1 << 20), b"")) > LOG_VOLUME_BYTES * 0.9


def assert_issued_anew(paths: WorldPaths) -> None:
    """By the same authority, the one of before beside it."""
    authority = x509.load_pem_x509_certificate(paths.authority.read_bytes())
    now, before = (
        x509.load_pem_x509_certificate(Path(name).read_bytes())
        for name in (paths.certificate, f"{paths.certificate}.previous")
    )
    now.verify_directly_issued_by(authority)
    assert now.subject == before.subject
    assert (now.not_valid_after_utc - before.not_valid_after_utc).days > 80
