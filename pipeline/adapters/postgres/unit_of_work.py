"""One transaction over all stores."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from pipeline.adapters.postgres.control import PostgresControl
from pipeline.adapters.postgres.diagnoses import PostgresDiagnoses
from pipeline.adapters.postgres.executions import PostgresExecutions
from pipeline.adapters.postgres.history import PostgresHistory
from pipeline.adapters.postgres.incidents import PostgresIncidents
from pipeline.adapters.postgres.intake import PostgresIntake
from pipeline.adapters.postgres.outbox import PostgresOutbox
from pipeline.adapters.postgres.pages import PostgresPages
from pipeline.adapters.postgres.plans import PostgresPlans
from pipeline.adapters.postgres.pool import Connection, Pool
from pipeline.adapters.postgres.telemetry import PostgresTelemetry
from pipeline.adapters.postgres.trace import Clean, PostgresTrace


@dataclass(frozen=True, slots=True)
class PostgresUnitOfWork:
    """All stores on one connection inside one transaction."""

    telemetry: PostgresTelemetry
    incidents: PostgresIncidents
    plans: PostgresPlans
    executions: PostgresExecutions
    history: PostgresHistory
    control: PostgresControl
    outbox: PostgresOutbox
    pages: PostgresPages
    trace: PostgresTrace
    diagnoses: PostgresDiagnoses
    intake: PostgresIntake


class PostgresStore:
    """Opens units of work on a pool."""

    def __init__(self, pool: Pool, clean: Clean = lambda entry: entry, *, paging: bool = False) -> None:
        """``clean`` takes secrets out of everything that goes to the trail; ``paging``: there is a pager to be told."""
        self._pool = pool
        self._clean = clean
        self._paging = paging

    @asynccontextmanager
    async def begin(self) -> AsyncIterator[PostgresUnitOfWork]:
        async with self._pool.transaction() as connection:
            yield _unit_of_work(connection, self._clean, paging=self._paging)


def _unit_of_work(connection: Connection, clean: Clean, *, paging: bool) -> PostgresUnitOfWork:
    return PostgresUnitOfWork(
        PostgresTelemetry(connection),
        PostgresIncidents(connection),
        PostgresPlans(connection),
        PostgresExecutions(connection),
        PostgresHistory(connection),
        PostgresControl(connection),
        PostgresOutbox(connection),
        PostgresPages(connection, paging=paging),
        PostgresTrace(connection, clean),
        PostgresDiagnoses(connection),
        PostgresIntake(connection),
    )
