"""Anomalies into incidents, on the real store."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import UTC, datetime

import pytest

from pipeline.adapters.postgres.pool import Connection
from pipeline.adapters.postgres.unit_of_work import PostgresStore
from pipeline.domain.anomaly import Anomaly, DetectionResult, DetectionSettings
from pipeline.domain.baseline import BaselineBank
from pipeline.domain.catalogue import Catalogue
from pipeline.domain.ids import ServiceName
from pipeline.domain.incident import Case, Incident
from pipeline.domain.lifecycle import IncidentState, PlanState
from pipeline.domain.telemetry import CallEdge, SeriesKey, Signal
from pipeline.domain.trace import TraceKind
from pipeline.stages.advance import advance
from pipeline.stages.correlate import Correlator
from tests.builders import CHECKOUT, LATENCY, MEMORY, T0, WEB, make_anomaly, make_guardrails
from tests.stored import case_of, draft, until_blocked

WEB_LATENCY = SeriesKey(WEB, Signal.LATENCY_P99)
SLOW_WEB, SLOW_CHECKOUT = make_anomaly(WEB_LATENCY), make_anomaly(LATENCY)


@pytest.fixture
async def correlator(store: PostgresStore) -> Correlator:
    """``web`` was seen calling ``checkout``."""
    async with store.begin() as uow:
        await uow.telemetry.save_edges([CallEdge(WEB, CHECKOUT, 1.0)], datetime.now(UTC))
    return Correlator(store, Catalogue({}), DetectionSettings())


async def tick(correlator: Correlator, *seen: Anomaly, cleared: tuple[SeriesKey, ...] = ()) -> int:
    return await correlator.run(DetectionResult(seen, cleared), BaselineBank(), T0)


async def open_at(store: PostgresStore) -> dict[tuple[ServiceName, str], Incident]:
    async with store.begin() as uow:
        return {(incident.service, incident.family): incident for incident in await uow.incidents.open()}


async def slow_web(correlator: Correlator, store: PostgresStore, state: IncidentState) -> Case:
    """The incident that a slow ``web`` opened, brought to ``state``; with a proposal where one waits or did."""
    assert await tick(correlator, SLOW_WEB) == 1
    incident = (await open_at(store))[WEB, "requests"]
    proposed = state in (IncidentState.AWAITING_DECISION, IncidentState.ESCALATED, IncidentState.MITIGATING)
    way = {
        IncidentState.OPEN: (),
        IncidentState.DIAGNOSING: (IncidentState.DIAGNOSING,),
        IncidentState.AWAITING_DECISION: (IncidentState.DIAGNOSING, IncidentState.AWAITING_DECISION),
        IncidentState.ESCALATED: (IncidentState.DIAGNOSING, IncidentState.ESCALATED),
        IncidentState.MITIGATING: (
            IncidentState.DIAGNOSING,
            IncidentState.AWAITING_DECISION,
            IncidentState.MITIGATING,
        ),
    }[state]
    async with store.begin() as uow:
        if proposed:
            plan = await uow.plans.propose(draft(incident.id), make_guardrails())
            if state is IncidentState.MITIGATING:
                await uow.plans.move(plan.id, PlanState.PROPOSED, PlanState.APPROVED)
        for to in way:
            moved = await advance(uow, incident, to)
            assert moved is not None
            incident = moved
    return await case_of(store, incident.id)


@pytest.mark.parametrize(
    "state",
    [IncidentState.OPEN, IncidentState.DIAGNOSING, IncidentState.AWAITING_DECISION, IncidentState.ESCALATED],
)
async def test_a_root_seen_after_its_caller_takes_the_callers_incident_over(
    correlator: Correlator, store: PostgresStore, sql: Connection, state: IncidentState
) -> None:
    before = await slow_web(correlator, store, state)
    assert await tick(correlator, SLOW_WEB, SLOW_CHECKOUT) == 1
    (root,) = (await open_at(store)).values()
    assert (root.service, root.family, root.state) == (CHECKOUT, "requests", IncidentState.OPEN)
    folded = await case_of(store, before.incident.id)
    assert folded.incident.state is IncidentState.CLOSED
    assert folded.incident.outcome == f"folded into INC-{root.id}"
    if folded.plan is not None:
        assert folded.plan.state is PlanState.SUPERSEDED
    async with store.begin() as uow:
        trace = [stored.entry for stored in await uow.trace.read(folded.incident.id)]
    last_fold = [entry for entry in trace if entry.kind is TraceKind.FOLDED][-1]
    assert last_fold.data["into"] == root.id
    lines = await sql.fetch(
        "SELECT payload::text AS said FROM outbox WHERE incident_id = $1 AND payload::text LIKE '%Folded into%'",
        folded.incident.id,
    )
    assert len(lines) == 1
    assert f"INC-{root.id}: checkout, which web depends on, is in trouble itself" in lines[0]["said"]


async def test_the_callers_symptoms_go_on_in_the_new_incident(correlator: Correlator, store: PostgresStore) -> None:
    await slow_web(correlator, store, IncidentState.OPEN)
    await tick(correlator, SLOW_CHECKOUT)
    assert await tick(correlator, SLOW_WEB, SLOW_CHECKOUT) == 0
    (root,) = (await open_at(store)).values()
    assert {item.anomaly.key for item in (await case_of(store, root.id)).anomalies} == {LATENCY, WEB_LATENCY}


async def test_a_folded_incident_whose_symptoms_are_over_in_the_same_tick_stays_closed(
    correlator: Correlator, store: PostgresStore
) -> None:
    before = await slow_web(correlator, store, IncidentState.AWAITING_DECISION)
    assert await tick(correlator, SLOW_CHECKOUT, cleared=(WEB_LATENCY,)) == 1
    assert (await case_of(store, before.incident.id)).incident.state is IncidentState.CLOSED


async def test_memory_found_below_takes_the_callers_incident_over_too(
    correlator: Correlator, store: PostgresStore
) -> None:
    await slow_web(correlator, store, IncidentState.OPEN)
    assert await tick(correlator, SLOW_WEB, make_anomaly(MEMORY)) == 1
    assert set(await open_at(store)) == {(CHECKOUT, "memory")}


async def test_an_incident_that_is_acted_on_stays(correlator: Correlator, store: PostgresStore) -> None:
    before = await slow_web(correlator, store, IncidentState.MITIGATING)
    assert await tick(correlator, SLOW_WEB, SLOW_CHECKOUT) == 1
    assert set(await open_at(store)) == {(WEB, "requests"), (CHECKOUT, "requests")}
    assert (await case_of(store, before.incident.id)).incident == before.incident


async def test_an_incident_with_more_than_the_roots_symptoms_stays(
    correlator: Correlator, store: PostgresStore
) -> None:
    before = await slow_web(correlator, store, IncidentState.OPEN)
    async with store.begin() as uow:
        await uow.incidents.attach(
            before.incident.id, replace(SLOW_WEB, key=SeriesKey(ServiceName("mailer"), Signal.LATENCY_P99))
        )
    assert await tick(correlator, SLOW_WEB, SLOW_CHECKOUT) == 1
    assert set(await open_at(store)) == {(WEB, "requests"), (CHECKOUT, "requests")}


async def test_a_click_that_comes_first_keeps_the_callers_incident(
    correlator: Correlator, store: PostgresStore, sql: Connection
) -> None:
    case = await slow_web(correlator, store, IncidentState.AWAITING_DECISION)
    assert case.plan is not None
    async with store.begin() as uow:
        plan = await uow.plans.get(case.plan.id)  # as an approval begins
        correlating = asyncio.create_task(tick(correlator, SLOW_WEB, SLOW_CHECKOUT))
        await until_blocked(sql)
        assert plan is not None
        assert await uow.plans.move(plan.id, PlanState.PROPOSED, PlanState.APPROVED)
        assert await uow.incidents.move(case.incident, IncidentState.MITIGATING, outcome="") is not None
    assert await correlating == 1
    after = await case_of(store, case.incident.id)
    assert after.plan is not None
    assert (after.incident.state, after.plan.state) == (IncidentState.MITIGATING, PlanState.APPROVED)


async def test_trouble_that_outlives_its_root_becomes_an_incident_of_its_own(
    correlator: Correlator, store: PostgresStore, sql: Connection
) -> None:
    assert await tick(correlator, SLOW_CHECKOUT, SLOW_WEB) == 1
    first = (await open_at(store))[CHECKOUT, "requests"]
    assert await tick(correlator, SLOW_WEB, cleared=(LATENCY,)) == 0, "it may get well a little later"
    await sql.execute("UPDATE anomalies SET cleared_at = cleared_at - interval '11 min' WHERE service = 'checkout'")
    assert await tick(correlator, SLOW_WEB) == 1
    split = (await open_at(store))[WEB, "requests"]
    old = await case_of(store, first.id)
    assert old.incident.state is IncidentState.SELF_RECOVERED
    assert {item.anomaly.key for item in old.anomalies} == {LATENCY, WEB_LATENCY}, "its history stays"
    async with store.begin() as uow:
        said = [stored.entry.summary for stored in await uow.trace.read(first.id)]
        came = [stored.entry.summary for stored in await uow.trace.read(split.id)]
    assert any(f"goes on as INC-{split.id}" in one for one in said)
    assert any(f"was seen with INC-{first.id} before" in one for one in came)
    assert await tick(correlator, SLOW_WEB) == 0
