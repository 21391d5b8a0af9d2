"""Three faults of the demo at once: each is one incident, of the right kind, at the service it comes from."""

from __future__ import annotations

import asyncio

import pytest

from bot.demo.world.client import WorldClient
from pipeline.adapters.postgres.pool import Pool
from pipeline.adapters.postgres.unit_of_work import PostgresStore
from pipeline.domain.incident import Case
from pipeline.domain.lifecycle import IncidentState
from tests.databases import open_directory
from tests.whole import WholeDemo, whole_demo

pytestmark = [pytest.mark.whole, pytest.mark.timeout(400)]

FAULTS = ("cert-expiry", "disk-fill", "bad-deploy")
LONG_S = 180.0


async def test_each_fault_is_one_incident_at_its_root() -> None:
    with open_directory() as directory, whole_demo(directory / "demo") as demo:
        async with WorldClient(demo.world_url) as world:
            for fault in FAULTS:
                await world.set_fault(fault, True)
            cases = await told(demo, len(FAULTS))
    found = {(case.incident.service, case.lead.kind.value) for case in cases}
    assert found == {
        ("web", "certificate_expiry"),
        ("worker", "disk_exhaustion"),
        ("payments", "deployment_regression"),
    }
    assert len(cases) == len(FAULTS)
    for case in cases:
        assert case.diagnosis is not None
        assert case.diagnosis.path.holds, f"{case.incident.service}: {case.diagnosis.path}"
    (regression,) = [case for case in cases if case.incident.service == "payments"]
    assert regression.lead.change is not None
    assert "lower the provider time-out" in regression.lead.change.title
    assert regression.diagnosis is not None
    assert regression.lead.change.revision[:12] in regression.diagnosis.root_cause
    assert {item.anomaly.key.service for item in regression.anomalies} >= {"payments", "checkout"}


async def told(demo: WholeDemo, number: int) -> list[Case]:
    """All incidents once ``number`` of them are diagnosed and left to a person."""
    pool = Pool(demo.setting("DATABASE_URL"), max_size=2)
    store = PostgresStore(pool)
    deadline = asyncio.get_running_loop().time() + LONG_S
    cases: list[Case] = []
    try:
        while asyncio.get_running_loop().time() < deadline:
            async with store.begin() as uow:
                known = await uow.incidents.recent(50)
                cases = [case for one in known if (case := await uow.incidents.case(one.id)) is not None]
            if sum(case.incident.state is IncidentState.ESCALATED for case in cases) >= number:
                return cases
            await asyncio.sleep(0.5)
    finally:
        await pool.close()
    raise AssertionError(f"{[(case.incident.service, case.incident.state) for case in cases]}\n{demo.said()}")
