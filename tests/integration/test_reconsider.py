"""After an action that did not help and was put back: the incident is looked at again, a few times at most."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from executors.rollback import order_rollback
from pipeline.adapters.postgres.pool import Connection
from pipeline.adapters.postgres.unit_of_work import PostgresStore
from pipeline.domain.lifecycle import IncidentState
from pipeline.domain.phase import Phase
from pipeline.domain.telemetry import Sample
from pipeline.domain.verification import Verdict, VerificationSettings
from pipeline.ports.clock import SystemClock
from pipeline.stages.advance import advance
from pipeline.stages.reconsider import MAX_TRIES, Reconsiderer
from pipeline.stages.switches import engage
from pipeline.stages.verify import Verifier
from tests.builders import ALICE, MEMORY
from tests.executing import Bench


def reconsiderer(store: PostgresStore, *, rest_s: float = 0.0) -> Reconsiderer:
    return Reconsiderer(store, SystemClock(), rest_s=rest_s)


async def tried(it: Bench, store: PostgresStore, *, memory: float = 0.99) -> None:
    """The action, and a verdict over a last sample: 0.99 is still beyond the bound."""
    await it.runner().run_once()
    async with store.begin() as uow:
        await uow.telemetry.save_samples([Sample(MEMORY, datetime.now(UTC), memory)])
    at_once = VerificationSettings(hold_s=3600.0, deadline_s=0.0, min_samples=1)
    assert await Verifier(store, order_rollback, SystemClock(), at_once).run((await it.case()).incident)


async def test_it_is_looked_at_again_once_what_was_changed_is_back(scaling: Bench, store: PostgresStore) -> None:
    await tried(scaling, store)
    assert await reconsiderer(store).run() == 0, "the rollback comes first"
    assert await scaling.runner("two").run_once()
    assert (await scaling.case()).incident.state is IncidentState.ESCALATED
    assert await reconsiderer(store, rest_s=300.0).run() == 0, "the target rests"
    assert await reconsiderer(store).run() == 1
    case = await scaling.case()
    assert case.incident.state is IncidentState.DIAGNOSING
    assert any("did not help" in said and "looking again" in said for said in await scaling.told())
    async with store.begin() as uow:
        assert await uow.history.in_vain(case.incident.id) == ("scale",)
        executions = await uow.executions.of_incident(case.incident.id)
    assert [one.kind for one in executions] == ["apply", "rollback"]
    async with store.begin() as uow:
        assert await advance(uow, case.incident, IncidentState.ESCALATED, outcome="escalated by a person")
    assert await reconsiderer(store).run() == 0, "once: the person has the last word"


async def test_what_cannot_be_undone_is_looked_at_again_at_once(one_step: Bench, store: PostgresStore) -> None:
    await tried(one_step, store)
    case = await one_step.case()
    assert case.verification is not None
    assert (case.verification.verdict, case.incident.state) == (Verdict.NOT_RECOVERED, IncidentState.ESCALATED)
    assert await reconsiderer(store).run() == 1


@pytest.mark.parametrize("why", ["shadow", "kill switch", "tries", "rollback failed"])
async def test_people_go_on_alone(scaling: Bench, store: PostgresStore, sql: Connection, why: str) -> None:
    await tried(scaling, store)
    if why == "rollback failed":
        await engage(store, "all", "stop", ALICE)
    assert await scaling.runner("two").run_once()
    if why == "shadow":
        async with store.begin() as uow:
            await uow.control.set_phase(Phase.SHADOW, "for the test", "test")
    elif why == "kill switch":
        await engage(store, "all", "stop", ALICE)
    elif why == "tries":
        incident = (await scaling.case()).incident.id
        for number in range(MAX_TRIES - 1):
            await sql.execute(
                """INSERT INTO plans (incident_id, revision, action, target, generation, replicas_before, hash, state,
                                      approvals_needed, expected_effect, expires_at)
                   SELECT incident_id, -$2::int, action, target, generation, replicas_before, hash, 'approved',
                          approvals_needed, expected_effect, expires_at
                   FROM plans WHERE incident_id = $1 AND revision = 1""",
                incident,
                number,
            )
            await sql.execute(
                """INSERT INTO executions (plan_id, incident_id, kind, target, target_uid, state)
                   SELECT p.id, p.incident_id, 'apply', p.target, p.target ->> 'uid', 'not_verified'
                   FROM plans p WHERE p.incident_id = $1 AND p.revision = -$2::int""",
                incident,
                number,
            )
    assert await reconsiderer(store).run() == 0
    assert (await scaling.case()).incident.state is IncidentState.ESCALATED


async def test_what_helped_is_left_alone(scaling: Bench, store: PostgresStore) -> None:
    await scaling.runner().run_once()
    assert await reconsiderer(store).run() == 0
