"""The real store on a fresh database, its owner's own connection, and approved plans on a Kubernetes API server."""

from collections.abc import AsyncIterator

import asyncpg
import pytest

from pipeline.adapters.postgres.pool import Connection, Pool
from pipeline.adapters.postgres.unit_of_work import PostgresStore
from pipeline.adapters.redis.locks import RedisLocks
from tests.contract.targets.places import KubePlace, kube_place
from tests.executing import Bench, bench


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


@pytest.fixture
async def place() -> AsyncIterator[KubePlace]:
    async with kube_place() as place:
        yield place


@pytest.fixture
async def locks(redis_url: str) -> AsyncIterator[RedisLocks]:
    locks = RedisLocks(redis_url)
    yield locks
    await locks.close()


@pytest.fixture
def _no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is put off for a moment is due at once."""
    monkeypatch.setattr("executors.ledger.RETRY_S", 0.0)
    monkeypatch.setattr("executors.runner.POLL_S", 0.05)


@pytest.fixture
async def two_steps(store: PostgresStore, place: KubePlace, locks: RedisLocks, _no_pauses: None) -> Bench:
    """Both replicas are to be restarted."""
    return await bench(store, place, locks)


@pytest.fixture
async def one_step(store: PostgresStore, place: KubePlace, locks: RedisLocks, _no_pauses: None) -> Bench:
    return await bench(store, place, locks, restarts=1)


@pytest.fixture
async def scaling(store: PostgresStore, place: KubePlace, locks: RedisLocks, _no_pauses: None) -> Bench:
    """From two replicas to four."""
    return await bench(store, place, locks, to_replicas=4)
