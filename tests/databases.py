"""Real PostgreSQL and Redis for tests: one of each per session, a fresh database a test from a migrated template."""

import asyncio
import secrets
import shutil
import tempfile
import threading
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import asyncpg
import redis

from migrations.runner import migrate

TEMPLATE = "migrated_template"
PATIENCE_S = 120.0
MEMORY = Path("/dev/shm")
MEMORY_NEEDED_BYTES = 2_000_000_000

T = TypeVar("T")


class BackgroundLoop:
    """An event loop in a thread, for servers that outlive a test's own loop (and the thread they are tied to)."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="test servers", daemon=True)
        self._thread.start()

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(PATIENCE_S)

    def close(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(PATIENCE_S)
        self._loop.close()


@contextmanager
def open_directory(prefix: str = "sre-bot-test-", *, in_memory: bool = True) -> Iterator[Path]:
    """A temporary directory that every user may enter (pytest's own may not), as PostgreSQL under root needs.

    ``in_memory``: on /dev/shm where that has room, which halves the time of tests; programs may not run from there.
    """
    roomy = in_memory and MEMORY.is_dir() and shutil.disk_usage(MEMORY).free > MEMORY_NEEDED_BYTES
    path = Path(tempfile.mkdtemp(prefix=prefix, dir=MEMORY if roomy else None))
    path.chmod(0o755)
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)


class PostgresFactory:
    """Makes and drops databases on one server; ``server_dsn`` is a superuser's."""

    def __init__(self, loop: BackgroundLoop, server_dsn: str) -> None:
        self._loop = loop
        self._server_dsn = server_dsn
        self._has_template = False

    @contextmanager
    def blank(self) -> Iterator[str]:
        """The DSN of a new empty database."""
        with self._database("template1") as dsn:
            yield dsn

    @contextmanager
    def migrated(self) -> Iterator[str]:
        """The DSN of a new database with every migration applied."""
        if not self._has_template:
            self._execute(f"CREATE DATABASE {TEMPLATE}")
            self._loop.run(migrate(self._dsn(TEMPLATE)))
            self._has_template = True
        with self._database(TEMPLATE) as dsn:
            yield dsn

    @contextmanager
    def _database(self, template: str) -> Iterator[str]:
        name = f"test_{secrets.token_hex(6)}"
        self._execute(f"CREATE DATABASE {name} TEMPLATE {template}")
        try:
            yield self._dsn(name)
        finally:
            self._execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")

    def _dsn(self, name: str) -> str:
        return f"{self._server_dsn.rpartition('/')[0]}/{name}"

    def _execute(self, statement: str) -> None:
        async def run() -> None:
            db = await asyncpg.connect(self._server_dsn)
            try:
                await db.execute(statement)
            finally:
                await db.close()

        self._loop.run(run())


def flush_redis(url: str) -> None:
    with redis.Redis.from_url(url) as client:
        client.flushall()


def alive(pid: int) -> bool:
    """Whether a process runs; a zombie does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


async def until(condition: Callable[[], bool], deadline_s: float = 20.0) -> float:
    """Wait until ``condition()`` holds; how long it took, in seconds. Raises TimeoutError after ``deadline_s``."""
    began_s = asyncio.get_running_loop().time()
    async with asyncio.timeout(deadline_s):
        while not condition():
            await asyncio.sleep(0.01)
    return asyncio.get_running_loop().time() - began_s
