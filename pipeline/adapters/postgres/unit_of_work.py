"""One transaction over all stores."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from pipeline.adapters.postgres.control import PostgresControl
from pipeline.adapters.postgres.executions import PostgresExecutions
from pipeline.adapters.postgres.incidents import PostgresIncidents
from pipeline.adapters.postgres.outbox import PostgresOutbox
from pipeline.adapters.postgres.plans import PostgresPlans
from pipeline.adapters.postgres.pool import Connection, Pool
from pipeline.adapters.postgres.telemetry import PostgresTelemetry
from pipeline.adapters.postgres.trace import PostgresTrace


@dataclass(frozen=True, slots=True)
class PostgresUnitOfWork:
    """All stores on one connection inside one transaction."""

    telemetry: PostgresTelemetry
    incidents: PostgresIncidents
    plans: PostgresPlans
    executions: PostgresExecutions
    control: PostgresControl
    outbox: PostgresOutbox
    trace: PostgresTrace


class PostgresStore:
    """Opens units of work on a pool."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    @asynccontextmanager
    async def begin(self) -> AsyncIterator[PostgresUnitOfWork]:
        async with self._pool.transaction() as connection:
            yield _unit_of_work(connection)


def _unit_of_work(connection: Connection) -> PostgresUnitOfWork:
    return PostgresUnitOfWork(
        PostgresTelemetry(connection),
        PostgresIncidents(connection),
        PostgresPlans(connection),
        PostgresExecutions(connection),
        PostgresControl(connection),
        PostgresOutbox(connection),
        PostgresTrace(connection),
    )
