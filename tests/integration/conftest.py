"""The real store on a fresh database, and the owner's own connection to it."""

from collections.abc import AsyncIterator

import asyncpg
import pytest

from pipeline.adapters.postgres.pool import Connection, Pool
from pipeline.adapters.postgres.unit_of_work import PostgresStore


@pytest.fixture
async def store(database_dsn: str) -> AsyncIterator[PostgresStore]:
    pool = Pool(database_dsn, max_size=8)
    await pool.open()
    yield PostgresStore(pool)
    await pool.close()


@pytest.fixture
async def sql(database_dsn: str) -> AsyncIterator[Connection]:
    """Looks past the store, lets time pass, and tampers."""
    connection = await asyncpg.connect(database_dsn)
    yield connection
    await connection.close()
