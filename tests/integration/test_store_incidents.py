"""Incidents in a real PostgreSQL: the latch, conditional moves, leases, and that a case comes back as it was stored."""

import asyncio
import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from pipeline.adapters.postgres.pool import Connection
from pipeline.adapters.postgres.unit_of_work import PostgresStore
from pipeline.domain.anomaly import AnomalyKind
from pipeline.domain.changes import ChangeEvent, ChangeKind
from pipeline.domain.confidence import Confidence
from pipeline.domain.ids import IncidentId, ServiceName
from pipeline.domain.incident import Incident
from pipeline.domain.lifecycle import FINAL_INCIDENT_STATES, IncidentState, PlanState
from pipeline.domain.phase import Phase
from pipeline.domain.severity import Severity
from pipeline.domain.telemetry import SeriesKey, Signal
from pipeline.domain.verification import Verdict
from pipeline.ports.store import CardPlace
from tests.builders import (
    ALICE,
    BOB,
    CHECKOUT,
    LATENCY,
    MEMORY,
    WEB,
    after,
    make_anomaly,
    make_approval,
    make_diagnosis,
    make_evidence,
    make_guardrails,
    make_passage,
    make_severity,
    make_verification,
)
from tests.stored import awaiting, case_of, claimed, draft, lapse, open_incident, opened, until_blocked

WORK = (IncidentState.OPEN, IncidentState.DIAGNOSING)


async def move(store: PostgresStore, incident: Incident, to: IncidentState, outcome: str | None = None) -> Incident:
    async with store.begin() as uow:
        moved = await uow.incidents.move(incident, to, outcome=outcome)
    assert moved is not None
    return moved


async def claim(
    store: PostgresStore, worker: str, states: Sequence[IncidentState] = WORK, lease_s: float = 60.0
) -> IncidentId | None:
    async with store.begin() as uow:
        incident = await uow.incidents.claim(states, worker=worker, lease_s=lease_s)
    return incident.id if incident else None


# --- the latch


@pytest.mark.parametrize("first_commits", [True, False])
async def test_of_two_creates_at_once_exactly_one_opens(
    store: PostgresStore, sql: Connection, first_commits: bool
) -> None:
    class Cancelled(Exception):
        pass

    second: asyncio.Task[Incident | None] | None = None
    try:
        async with store.begin() as uow:
            made = await uow.incidents.create(
                service=CHECKOUT,
                environment="demo",
                family="memory",
                severity=make_severity(),
                title="first",
                callers=[],
                generated_baseline=False,
            )
            assert made is not None
            second = asyncio.create_task(open_incident(store))
            await until_blocked(sql)
            if not first_commits:
                raise Cancelled
    except Cancelled:
        pass
    assert second is not None
    assert (await second is None) is first_commits
    assert await sql.fetchval("SELECT count(*) FROM incidents") == 1


async def test_another_family_service_or_environment_is_another_cause(store: PostgresStore) -> None:
    await opened(store)
    await opened(store, family="requests")
    await opened(store, service=WEB)
    assert await open_incident(store) is None


async def test_the_latch_holds_until_the_fault_is_over(store: PostgresStore) -> None:
    for state in IncidentState:
        first = await opened(store, family=state.value)
        if state is not IncidentState.OPEN:
            await move(store, first, state)
        again = await open_incident(store, family=state.value)
        assert (again is not None) is (state in FINAL_INCIDENT_STATES), state


async def test_a_muted_cause_stays_quiet_until_the_time_is_over(store: PostgresStore, sql: Connection) -> None:
    first = await opened(store)
    async with store.begin() as uow:
        await uow.incidents.mute(first.id, for_s=3600)
    await move(store, first, IncidentState.CLOSED)
    assert await open_incident(store) is None
    assert await open_incident(store, family="requests") is not None
    await sql.execute("UPDATE incidents SET muted_until = clock_timestamp() - interval '1 s'")
    assert await open_incident(store) is not None


# --- moving


async def test_of_two_movers_one_wins(store: PostgresStore, sql: Connection) -> None:
    incident = await opened(store)

    async def second() -> Incident | None:
        async with store.begin() as uow:
            return await uow.incidents.move(incident, IncidentState.CLOSED, outcome="second")

    async with store.begin() as uow:
        assert await uow.incidents.move(incident, IncidentState.DIAGNOSING, outcome=None) is not None
        task = asyncio.create_task(second())
        await until_blocked(sql)
    assert await task is None
    case = await case_of(store, incident.id)
    assert (case.incident.state, case.incident.version, case.incident.outcome) == (IncidentState.DIAGNOSING, 2, "")


@pytest.mark.parametrize("stale", [{"version": 7}, {"state": IncidentState.ESCALATED}])
async def test_a_move_names_version_and_state(store: PostgresStore, stale: dict[str, Any]) -> None:
    incident = await opened(store)
    async with store.begin() as uow:
        assert await uow.incidents.move(replace(incident, **stale), IncidentState.CLOSED, outcome=None) is None


async def test_a_move_keeps_the_books(store: PostgresStore) -> None:
    incident = await opened(store)
    diagnosing = await move(store, incident, IncidentState.DIAGNOSING, "why")
    assert diagnosing.version == incident.version + 1
    assert diagnosing.state_since > incident.state_since
    assert diagnosing.closed_at is None
    resolved = await move(store, diagnosing, IncidentState.RESOLVED)
    assert resolved.outcome == "why"
    assert resolved.closed_at is not None
    closed = await move(store, resolved, IncidentState.CLOSED, "")
    assert (closed.outcome, closed.closed_at, closed.over) == ("", resolved.closed_at, True)


# --- leases


async def test_the_most_severe_is_claimed_first_and_each_once(store: PostgresStore) -> None:
    wanted = {}
    for number, severity in enumerate((Severity.SEV3, Severity.SEV1, Severity.SEV4, Severity.SEV1)):
        incident = await opened(store, service=ServiceName(f"service-{number}"), severity=severity)
        wanted[number] = incident.id
    order = [await claim(store, f"worker-{turn}") for turn in range(5)]
    assert order == [wanted[1], wanted[3], wanted[0], wanted[2], None]


async def test_two_workers_at_once_never_get_the_same(store: PostgresStore) -> None:
    first, second = await opened(store), await opened(store, service=WEB)
    async with store.begin() as uow:
        mine = await uow.incidents.claim(WORK, worker="one", lease_s=60)
        theirs = await claim(store, "two")  # must not wait for the first one's transaction
    assert mine is not None
    assert {mine.id, theirs} == {first.id, second.id}
    assert await claim(store, "three") is None


async def test_only_the_states_asked_for_are_claimed(store: PostgresStore) -> None:
    incident = await opened(store)
    assert await claim(store, "one", (IncidentState.VERIFYING,)) is None
    assert await claim(store, "one", (IncidentState.OPEN,)) == incident.id


async def test_a_lease_is_kept_and_released_by_its_holder_alone(store: PostgresStore, sql: Connection) -> None:
    incident = await opened(store)
    await claim(store, "one")
    before = await sql.fetchval("SELECT lease_until FROM incidents")
    async with store.begin() as uow:
        assert await uow.incidents.keep(incident.id, worker="one", lease_s=120)
        assert not await uow.incidents.keep(incident.id, worker="two", lease_s=120)
        await uow.incidents.release(incident.id, worker="two")
    assert await sql.fetchval("SELECT lease_until FROM incidents") > before
    assert await claim(store, "two") is None
    async with store.begin() as uow:
        await uow.incidents.release(incident.id, worker="one")
    assert await claim(store, "two") == incident.id


async def test_a_lease_that_ran_out_hands_the_incident_on(store: PostgresStore, sql: Connection) -> None:
    incident = await opened(store)
    await claim(store, "one")
    await lapse(sql, "incidents")
    assert await claim(store, "two") == incident.id
    async with store.begin() as uow:
        assert not await uow.incidents.keep(incident.id, worker="one", lease_s=60)
        assert await uow.incidents.keep(incident.id, worker="two", lease_s=60)


# --- anomalies


async def test_the_change_that_is_blamed_is_kept_and_may_come_late(store: PostgresStore) -> None:
    change = ChangeEvent(CHECKOUT, after(-60), ChangeKind.DEPLOYMENT, "7", "image 1.4.2", "alice")
    blamed = make_anomaly(LATENCY, kind=AnomalyKind.DEPLOYMENT_REGRESSION, change=change)
    incident = await opened(store)
    async with store.begin() as uow:
        await uow.incidents.attach(incident.id, make_anomaly(LATENCY))
        await uow.incidents.attach(incident.id, blamed)
        await uow.incidents.attach(incident.id, make_anomaly(LATENCY))
    (item,) = (await case_of(store, incident.id)).anomalies
    assert (item.anomaly.kind, item.anomaly.change) == (AnomalyKind.DEPLOYMENT_REGRESSION, change)


async def test_attaching_refreshes_a_series_and_says_when_it_is_new(store: PostgresStore) -> None:
    incident = await opened(store)
    later = make_anomaly(seen_at=after(90), value=0.9, peak=0.97, started_at=after(80))
    async with store.begin() as uow:
        assert await uow.incidents.attach(incident.id, make_anomaly())
        assert not await uow.incidents.attach(incident.id, later)
        assert not await uow.incidents.attach(incident.id, replace(later, peak=0.91, seen_at=after(100)))
        assert await uow.incidents.attach(incident.id, make_anomaly(LATENCY))
    memory, latency = (await case_of(store, incident.id)).anomalies
    assert memory.anomaly == make_anomaly(seen_at=after(100), value=0.9, peak=0.97)
    assert latency.anomaly == make_anomaly(LATENCY)


async def test_a_peak_below_its_bound_is_the_lowest(store: PostgresStore) -> None:
    incident = await opened(store, family="certificate")
    key = SeriesKey(CHECKOUT, Signal.CERT_REMAINING)
    low = replace(make_anomaly(), key=key, peak=100.0)
    low = replace(low, bound=replace(low.bound, threshold=600.0, breach_above=False))
    async with store.begin() as uow:
        for peak in (100.0, 50.0, 80.0):
            await uow.incidents.attach(incident.id, replace(low, peak=peak))
    assert (await case_of(store, incident.id)).anomalies[0].anomaly == replace(low, peak=50.0)


async def test_clearing_counts_each_series_once_and_a_new_breach_reopens_it(store: PostgresStore) -> None:
    incident = await opened(store)
    async with store.begin() as uow:
        await uow.incidents.attach(incident.id, make_anomaly())
        await uow.incidents.attach(incident.id, make_anomaly(LATENCY))
        elsewhere = SeriesKey(WEB, Signal.LATENCY_P99)
        assert await uow.incidents.clear(incident.id, [MEMORY, elsewhere]) == 1
        assert await uow.incidents.clear(incident.id, [MEMORY]) == 0
        assert await uow.incidents.clear(incident.id, []) == 0
    assert [item.cleared_at is None for item in (await case_of(store, incident.id)).anomalies] == [False, True]
    async with store.begin() as uow:
        assert not await uow.incidents.attach(incident.id, make_anomaly())
    assert [item.cleared_at for item in (await case_of(store, incident.id)).anomalies] == [None, None]


async def test_an_anomaly_without_a_baseline_comes_back_without_one(store: PostgresStore) -> None:
    incident = await opened(store)
    async with store.begin() as uow:
        await uow.incidents.attach(incident.id, make_anomaly(expected=math.nan, sigma=math.nan))
    anomaly = (await case_of(store, incident.id)).anomalies[0].anomaly
    assert math.isnan(anomaly.expected)
    assert math.isnan(anomaly.sigma)


# --- the whole case


async def test_a_case_comes_back_as_it_was_stored(store: PostgresStore) -> None:
    waiting = await awaiting(store)
    incident_id, plan = waiting.incident.id, waiting.plan
    diagnosis = make_diagnosis(notes=("one claim left out",), confidence=Confidence(0.1, 1 / 3, 0.7, 0.9))
    evidence = [make_evidence(number) for number in (1, 2, 10, 3)]
    passages = [make_passage(), make_passage(method="lexical", text='„quoted" \\ back\nnew line', score=1 / 3)]
    guardrails = make_guardrails(("cooldown", "4 min ago"))
    verification = make_verification(Verdict.INCONCLUSIVE, after=None, expected=None, at=after(500.123456))
    async with store.begin() as uow:
        await uow.incidents.attach(incident_id, make_anomaly(LATENCY))
        await uow.incidents.save_severity(incident_id, replace(make_severity(), severity=Severity.SEV1))
        await uow.incidents.save_diagnosis(incident_id, diagnosis, evidence, passages)
        await uow.incidents.save_verification(incident_id, verification)
        await uow.incidents.set_owner(incident_id, BOB)
        await uow.plans.save_guardrails(plan.id, guardrails)
        await uow.plans.decide(replace(make_approval(), plan_id=plan.id, plan_hash=plan.hash, reason="go"))
        await uow.plans.move(plan.id, PlanState.PROPOSED, PlanState.APPROVED)
        await uow.executions.create(plan, "apply", plan.action)  # type: ignore[arg-type]
    execution = await claimed(store)
    case = await case_of(store, incident_id)
    assert [item.anomaly for item in case.anomalies] == [make_anomaly(), make_anomaly(LATENCY)]
    assert case.severity == replace(make_severity(), severity=Severity.SEV1)
    assert case.incident == replace(waiting.incident, severity=Severity.SEV1, owner=BOB)
    assert case.callers == (WEB,)
    assert case.evidence == tuple(make_evidence(number) for number in (1, 2, 3, 10))
    assert case.passages == tuple(passages)
    assert case.diagnosis == diagnosis
    assert case.plan == replace(plan, state=PlanState.APPROVED)
    assert case.guardrails == guardrails
    assert [(one.user_id, one.decision, one.reason, one.plan_hash) for one in case.approvals] == [
        (ALICE, "approve", "go", plan.hash)
    ]
    assert case.execution == execution
    assert (case.rollback, case.verification, case.phase) == (None, verification, Phase.ASSIST)
    assert case.read_at > case.incident.opened_at


async def test_a_case_shows_the_newest_plan(store: PostgresStore) -> None:
    waiting = await awaiting(store)
    async with store.begin() as uow:
        second = await uow.plans.propose(draft(waiting.incident.id, generation="13"), make_guardrails())
    case = await case_of(store, waiting.incident.id)
    assert case.plan == second
    assert case.approvals == ()


async def test_a_bare_case_and_one_that_is_not_there(store: PostgresStore) -> None:
    incident = await opened(store)
    case = await case_of(store, incident.id)
    assert (case.incident, case.plan, case.diagnosis, case.phase) == (incident, None, None, Phase.SHADOW)
    assert not case.guardrails.allowed
    async with store.begin() as uow:
        assert await uow.incidents.case(IncidentId(999)) is None
        assert await uow.incidents.get(IncidentId(999)) is None


async def test_lists_and_cards(store: PostgresStore) -> None:
    mild = await opened(store, severity=Severity.SEV3)
    bad = await opened(store, service=WEB, severity=Severity.SEV1)
    over = await move(store, await opened(store, family="disk"), IncidentState.CLOSED)
    place = CardPlace("C0INCIDENTS", "1763647320.000100")
    async with store.begin() as uow:
        assert [one.id for one in await uow.incidents.open()] == [bad.id, mild.id]
        assert [one.id for one in await uow.incidents.recent(5)] == [bad.id, mild.id, over.id]
        assert [one.id for one in await uow.incidents.recent(1)] == [bad.id]
        assert await uow.incidents.card(mild.id) is None
        await uow.incidents.set_card(mild.id, place)
        assert await uow.incidents.card(mild.id) == place
        assert await uow.incidents.by_card(place) == mild.id
        await uow.incidents.set_card(mild.id, None)
        assert (await uow.incidents.card(mild.id), await uow.incidents.by_card(place)) == (None, None)
