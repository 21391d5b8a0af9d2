"""Cases in a real database: an incident brought by the store to where a test begins, and ways to let time pass."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

from pipeline.adapters.postgres.pool import Connection
from pipeline.adapters.postgres.unit_of_work import PostgresStore
from pipeline.domain.action import TargetAction
from pipeline.domain.approval import Approval
from pipeline.domain.execution import Execution
from pipeline.domain.ids import ExecutionId, IncidentId, ServiceName, SlackUserId
from pipeline.domain.incident import Case, Incident
from pipeline.domain.lifecycle import IncidentState, PlanState
from pipeline.domain.phase import Phase
from pipeline.domain.plan import Plan, TargetRef
from pipeline.domain.severity import Severity
from pipeline.domain.telemetry import CallEdge
from pipeline.ports.plans import PlanDraft
from pipeline.stages.advance import advance
from tests.builders import (
    CHECKOUT,
    WEB,
    make_anomaly,
    make_diagnosis,
    make_evidence,
    make_guardrails,
    make_passage,
    make_severity,
    make_target,
    restart,
)

PATIENCE_S = 60.0


@dataclass(frozen=True, slots=True)
class Waiting:
    """An incident that awaits a decision on a plan."""

    incident: Incident
    plan: Plan


async def open_incident(
    store: PostgresStore,
    *,
    service: ServiceName = CHECKOUT,
    family: str = "memory",
    severity: Severity = Severity.SEV2,
) -> Incident | None:
    """As the correlator does it; None where the latch holds."""
    async with store.begin() as uow:
        return await uow.incidents.create(
            service=service,
            environment="demo",
            family=family,
            severity=replace(make_severity(), severity=severity),
            title=f"{family} of {service}",
            callers=[WEB],
            generated_baseline=False,
        )


async def opened(store: PostgresStore, **what: Any) -> Incident:
    """The same where it must succeed."""
    incident = await open_incident(store, **what)
    assert incident is not None
    return incident


def draft(incident_id: IncidentId, **changes: Any) -> PlanDraft:
    """A restart of ``checkout-1`` unless ``changes`` say otherwise."""
    made = PlanDraft(
        incident_id=incident_id,
        action=restart("checkout-1"),
        target=make_target(),
        generation="12",
        replicas_before=3,
        approvals_needed=1,
        expected_effect="memory falls back to its baseline",
        ttl_s=1800.0,
    )
    return replace(made, **changes)


async def awaiting(store: PostgresStore, *, service: ServiceName = CHECKOUT, **changes: Any) -> Waiting:
    """A diagnosed incident of ``service`` in phase Assist, whose plan waits for people."""
    incident = await opened(store, service=service)
    async with store.begin() as uow:
        await uow.control.set_phase(Phase.ASSIST, "for the test", "test")
        await uow.telemetry.save_edges([CallEdge(WEB, service, 1.0)], datetime.now(UTC))
        await uow.incidents.attach(incident.id, make_anomaly())
        moved = await advance(uow, incident, IncidentState.DIAGNOSING)
        assert moved is not None
        plan = await uow.plans.propose(draft(incident.id, **changes), make_guardrails())
        await uow.incidents.save_diagnosis(
            incident.id, make_diagnosis(), [make_evidence(1), make_evidence(2), make_evidence(3)], [make_passage()]
        )
        moved = await advance(uow, moved, IncidentState.AWAITING_DECISION)
        assert moved is not None
    return Waiting(moved, plan)


async def approved(
    store: PostgresStore,
    action: TargetAction | None = None,
    *,
    target: TargetRef | None = None,
    service: ServiceName = CHECKOUT,
    generation: str = "12",
) -> ExecutionId:
    """An execution that stands ready, as the last approval leaves it."""
    wanted = action or restart("checkout-1")
    waiting = await awaiting(
        store, service=service, action=wanted, target=target or make_target(), generation=generation
    )
    async with store.begin() as uow:
        now = datetime.now(UTC)
        said_yes = Approval(waiting.plan.id, waiting.plan.hash, SlackUserId("U1"), "approve", "", now)
        assert await uow.plans.decide(said_yes)
        assert await uow.plans.move(waiting.plan.id, PlanState.PROPOSED, PlanState.APPROVED)
        assert await uow.executions.create(waiting.plan, "apply", wanted)
        assert await advance(uow, waiting.incident, IncidentState.MITIGATING) is not None
    case = await case_of(store, waiting.incident.id)
    assert case.execution is not None
    return case.execution.id


async def case_of(store: PostgresStore, incident_id: IncidentId) -> Case:
    async with store.begin() as uow:
        case = await uow.incidents.case(incident_id)
    assert case is not None
    return case


async def execution_of(store: PostgresStore, execution_id: ExecutionId) -> Execution:
    async with store.begin() as uow:
        execution = await uow.executions.get(execution_id)
    assert execution is not None
    return execution


async def claimed(store: PostgresStore, *, worker: str = "one", lease_s: float = 60.0) -> Execution:
    async with store.begin() as uow:
        execution = await uow.executions.claim(worker=worker, lease_s=lease_s)
    assert execution is not None
    return execution


async def lapse(sql: Connection, table: str) -> None:
    """Every lease of ``table`` (``incidents``, ``executions`` or ``outbox``) ran out a second ago."""
    await sql.execute(
        f"UPDATE {table} SET lease_until = clock_timestamp() - interval '1 s' WHERE lease_until IS NOT NULL"
    )


async def fall_due(sql: Connection) -> None:
    """Whatever was put off is due at once."""
    await sql.execute("UPDATE executions SET not_before = clock_timestamp()")
    await sql.execute("UPDATE outbox SET available_at = clock_timestamp()")
    await sql.execute("UPDATE incidents SET card_updated_at = NULL")


async def until(condition: Callable[[], Awaitable[object]]) -> None:
    """Waits for ``condition`` with a deadline."""
    deadline = time.monotonic() + PATIENCE_S
    while not await condition():
        assert time.monotonic() < deadline, "it did not come about"
        await asyncio.sleep(0.02)


async def until_blocked(sql: Connection, sessions: int = 1) -> None:
    """Waits until so many sessions of this database wait for a lock that another one holds."""

    async def blocked() -> bool:
        waiting = await sql.fetchval(
            """SELECT count(*) FROM pg_stat_activity
               WHERE datname = current_database() AND wait_event_type = 'Lock'"""
        )
        return bool(waiting >= sessions)

    await until(blocked)
