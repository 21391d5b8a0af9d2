"""Connections and transactions on a real PostgreSQL."""

import asyncio

import asyncpg
import pytest

from pipeline.adapters.postgres.pool import Connection, Pool
from pipeline.adapters.postgres.unit_of_work import PostgresStore
from pipeline.domain.errors import TemporaryError
from pipeline.domain.ids import IncidentId
from tests.builders import make_anomaly
from tests.stored import open_incident, until

OURS = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND application_name = 'sre-bot'"


async def test_the_first_users_at_once_open_one_pool(database_dsn: str, sql: Connection) -> None:
    pool = Pool(database_dsn)
    store = PostgresStore(pool)

    async def use() -> None:
        async with store.begin() as uow:
            await uow.control.phase()

    await asyncio.gather(*(use() for _ in range(5)))
    await pool.close()

    async def none_left() -> bool:
        return bool(await sql.fetchval(OURS) == 0)

    await until(none_left)


async def test_a_block_that_fails_leaves_nothing(store: PostgresStore, sql: Connection) -> None:
    async def fail() -> None:
        async with store.begin() as uow:
            await uow.control.first_time("one")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await fail()
    assert await sql.fetchval("SELECT count(*) FROM seen_requests") == 0


async def test_a_connection_that_is_cut_is_temporary_and_replaced(store: PostgresStore, sql: Connection) -> None:
    async def be_cut() -> None:
        async with store.begin() as uow:
            await uow.control.first_time("one")
            await sql.fetch(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'sre-bot'"
                " AND datname = current_database()"
            )
            await uow.control.first_time("two")

    with pytest.raises(TemporaryError, match="database away"):
        await be_cut()

    async def works_again() -> bool:
        try:
            return await open_incident(store) is not None
        except TemporaryError:
            return False

    await until(works_again)
    assert await sql.fetchval("SELECT count(*) FROM seen_requests") == 0


async def test_a_database_that_is_away_is_temporary() -> None:
    store = PostgresStore(Pool("postgresql://nobody@127.0.0.1:1/none", command_timeout_s=2.0))
    with pytest.raises(TemporaryError, match="database not reachable"):
        await open_incident(store)


async def test_a_mistake_of_ours_is_not_taken_for_an_outage(store: PostgresStore) -> None:
    with pytest.raises(asyncpg.ForeignKeyViolationError):
        await _attach_to_nothing(store)


async def _attach_to_nothing(store: PostgresStore) -> None:
    async with store.begin() as uow:
        await uow.incidents.attach(IncidentId(999), make_anomaly())
