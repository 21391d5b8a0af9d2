"""Stopping and releasing by scope, as people write it: everything, an environment, a service."""

from __future__ import annotations

from typing import Any

import pytest

from pipeline.adapters.postgres.pool import Connection
from pipeline.adapters.postgres.unit_of_work import PostgresStore
from pipeline.domain.anomaly import DetectionSettings
from pipeline.domain.catalogue import Catalogue, Service
from pipeline.domain.errors import PermanentError
from pipeline.domain.lifecycle import IncidentState
from pipeline.ports.clock import SystemClock
from pipeline.ports.trail import SYSTEM
from pipeline.stages.desk import Desk
from pipeline.stages.detect import Detector
from pipeline.stages.settings import LoopSettings
from tests.builders import ALICE, BOB, CHECKOUT, WEB
from tests.stored import approved, case_of, execution_of


@pytest.fixture
def desk(store: PostgresStore) -> Desk:
    """``checkout`` runs in Production; incidents of these tests began in demo."""
    catalogue = Catalogue({CHECKOUT: Service(environment="Production"), WEB: Service(environment="staging")})
    unused: Any = None
    detector = Detector(store, DetectionSettings())
    parts = (detector, unused, unused, unused, unused, SystemClock(), LoopSettings(), ())
    return Desk(store, unused, catalogue, *parts, command="/sre")


async def scopes(store: PostgresStore) -> list[str]:
    async with store.begin() as uow:
        return [one.scope for one in await uow.control.switches() if one.engaged]


@pytest.mark.parametrize(
    ("written", "scope"),
    [("ALL", "all"), ("env:production", "env:Production"), ("ENV:Staging", "env:staging"), ("web", "web")],
)
async def test_a_scope_is_stored_as_it_is_known(desk: Desk, store: PostgresStore, written: str, scope: str) -> None:
    assert f"Kill switch ON for *{scope}*" in await desk.kill(written, "deploy freeze", ALICE)
    assert await scopes(store) == [scope]
    assert "second person" in await desk.resume(scope.upper() if scope == "all" else written, "over", ALICE)
    assert "released" in await desk.resume(written, "over", BOB)
    assert await scopes(store) == []


@pytest.mark.parametrize("written", ["env:", "env:productoin", "env:demo", "prod", "env:*"])
async def test_a_scope_that_covers_nothing_is_refused_and_what_there_is_is_named(desk: Desk, written: str) -> None:
    with pytest.raises(PermanentError, match="Known: "):
        await desk.kill(written, "typo", ALICE)


async def test_an_environment_in_which_an_incident_is_open_can_be_stopped(desk: Desk, store: PostgresStore) -> None:
    """The catalogue may have been edited since; its executions go on by the environment they began in."""
    execution = await execution_of(store, await approved(store))
    await desk.kill("env:demo", "not today", ALICE)
    case = await case_of(store, execution.incident_id)
    (refusal,) = case.guardrails.refusals
    assert (refusal.rule, refusal.reason) == ("kill_switch", "engaged for env:demo: not today")
    assert refusal.inputs["scopes"] == ["all", "env:demo", "checkout"]
    async with store.begin() as uow:
        await uow.incidents.move(case.incident, IncidentState.ESCALATED, outcome="")
    await desk.close(execution.incident_id, ALICE)
    assert "second person" in await desk.resume("env:demo", "over", ALICE)
    assert "released" in await desk.resume("env:demo", "over", BOB), "although nothing is known of it any more"
    assert "No kill switch is engaged for all" in await desk.resume("all", "over", BOB)


async def test_no_incident_that_cannot_be_read_keeps_the_switch_from_holding(
    desk: Desk, store: PostgresStore, sql: Connection
) -> None:
    """Such as one that a newer version wrote while this replica still runs."""
    execution = await execution_of(store, await approved(store))
    await sql.execute("UPDATE executions SET target = '{}' WHERE id = $1", execution.id)
    await desk.kill("all", "stop everything", ALICE)
    assert await scopes(store) == ["all"]
    async with store.begin() as uow:
        assert any("kill switch on for all" in one.entry.summary for one in await uow.trace.read(SYSTEM))
