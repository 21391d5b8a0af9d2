"""What a trial stands on: real PostgreSQL and Redis for each lane of trials, and a warm process that forks replicas."""

from __future__ import annotations

import asyncio
import json
import os
import secrets
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Self
from urllib.parse import urlsplit, urlunsplit

import asyncpg
import redis.asyncio

from bot.embedded.postgres import EmbeddedPostgres
from bot.embedded.redis import EmbeddedRedis
from migrations.runner import migrate
from tests.crash.replica import ReplicaOrder
from tests.databases import open_directory

TEMPLATE = "migrated_template"
COMES_BACK_S = 60.0
ROOT = Path(__file__).parent.parent.parent
AWAY = (asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError, OSError, TimeoutError)
ANSWERS_S = 10.0


def through(url: str, port: int, *, path: str | None = None) -> str:
    """``url`` on another port of 127.0.0.1, perhaps with another path."""
    parts = urlsplit(url)
    credentials = parts.netloc.rpartition("@")[0]
    netloc = f"{credentials}@127.0.0.1:{port}" if credentials else f"127.0.0.1:{port}"
    return urlunsplit(parts._replace(netloc=netloc, path=parts.path if path is None else path))


def address_of(url: str) -> tuple[str, int]:
    parts = urlsplit(url)
    assert parts.hostname is not None
    assert parts.port is not None
    return parts.hostname, parts.port


def libfaketime() -> Path | None:
    """The library that shows a process another time: LIBFAKETIME, or where Debian's package puts it."""
    named = os.environ.get("LIBFAKETIME")
    return Path(named) if named else next(iter(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1")), None)


class Sql:
    """The trial's own way to the database, past every proxy; connects anew where the last connection was lost."""

    def __init__(self, dsn: str) -> None:
        self._dsn = dsn
        self._connection: Any = None
        self._one_at_a_time = asyncio.Lock()

    async def value(self, statement: str, *arguments: Any) -> Any:
        """The first value; of several statements in one nothing. Raises what ``AWAY`` names."""
        async with self._connected() as connection:
            if not arguments and ";" in statement:
                return await connection.execute(statement, timeout=ANSWERS_S)
            return await connection.fetchval(statement, *arguments, timeout=ANSWERS_S)

    async def rows(self, statement: str) -> list[Any]:
        async with self._connected() as connection:
            found: list[Any] = await connection.fetch(statement, timeout=ANSWERS_S)
            return found

    async def close(self) -> None:
        if self._connection is not None:
            self._connection.terminate()

    @asynccontextmanager
    async def _connected(self) -> AsyncIterator[Any]:
        async with self._one_at_a_time:
            try:
                if self._connection is None or self._connection.is_closed():
                    self._connection = await asyncpg.connect(self._dsn, timeout=ANSWERS_S)
                yield self._connection
            except BaseException:
                # Cut off in the middle of something, by the server's death or by a cancellation: not used again.
                if self._connection is not None:
                    self._connection.terminate()
                    self._connection = None
                raise


@dataclass
class Lane:
    """One PostgreSQL and one Redis, used by one trial after another."""

    postgres: EmbeddedPostgres
    postgres_url: str
    redis: EmbeddedRedis
    redis_url: str
    folder: Path
    disk: Path | None = None
    """Where the database lies on a small disk of its own."""

    @asynccontextmanager
    async def database(self) -> AsyncIterator[str]:
        """A fresh migrated database, and an empty Redis beside it."""
        name = f"trial_{secrets.token_hex(6)}"
        async with redis.asyncio.Redis.from_url(self.redis_url) as client:
            await client.flushall()
        await self._admin(f"CREATE DATABASE {name} TEMPLATE {TEMPLATE}")
        try:
            yield through(self.postgres_url, address_of(self.postgres_url)[1], path=f"/{name}")
        finally:
            await self._admin(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")

    async def prepare(self) -> None:
        await self._admin(f"CREATE DATABASE {TEMPLATE}")
        await migrate(through(self.postgres_url, address_of(self.postgres_url)[1], path=f"/{TEMPLATE}"))

    async def kill_postgres(self) -> None:
        """kill -9 of the postmaster; it is started anew by its supervisor. Returns when it answers again."""
        pid = self.postgres.health.pid
        if pid is not None:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        await self.postgres_answers(other_than=pid)

    async def kill_redis(self) -> None:
        """kill -9 of Redis; it is started anew by its supervisor."""
        pid = self.redis.health.pid
        if pid is not None:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        async with asyncio.timeout(COMES_BACK_S):
            while self.redis.health.pid in (None, pid):
                await asyncio.sleep(0.02)

    async def flush_redis(self) -> None:
        async with redis.asyncio.Redis.from_url(self.redis_url) as client:
            await client.flushall()

    async def postgres_answers(self, *, other_than: int | None = None) -> None:
        async with asyncio.timeout(COMES_BACK_S):
            while True:
                if self.postgres.health.pid not in (None, other_than):
                    with suppress(*AWAY):
                        await self._admin("SELECT 1")
                        return
                await asyncio.sleep(0.05)

    async def _admin(self, statement: str) -> None:
        connection = await asyncpg.connect(self.postgres_url, timeout=10)
        try:
            await connection.execute(statement)
        finally:
            await connection.close()


@asynccontextmanager
async def lane(postgres_home: Path | None = None) -> AsyncIterator[Lane]:
    """Starts the servers; ``postgres_home`` puts the database elsewhere, on a small disk for one."""
    async with AsyncExitStack() as stack:
        folder = stack.enter_context(open_directory("sre-bot-crash-"))
        postgres, redis_ = EmbeddedPostgres(postgres_home or folder), EmbeddedRedis(folder)
        postgres_url = await postgres.start()
        stack.push_async_callback(postgres.stop)
        redis_url = await redis_.start()
        stack.push_async_callback(redis_.stop)
        made = Lane(postgres, postgres_url, redis_, redis_url, folder, postgres_home)
        await made.prepare()
        yield made


@dataclass
class Child:
    """A replica's process."""

    pid: int
    gone: asyncio.Event = field(default_factory=asyncio.Event)
    status: int | None = None

    def send(self, number: signal.Signals) -> None:
        if not self.gone.is_set():
            with suppress(ProcessLookupError):
                os.kill(self.pid, number)

    async def end(self) -> None:
        """kill -9, and SIGCONT is not needed for that."""
        self.send(signal.SIGKILL)
        async with asyncio.timeout(COMES_BACK_S):
            await self.gone.wait()


class WarmProcess:
    """Has everything imported, and forks a replica in milliseconds. ``async with WarmProcess() as warm``."""

    def __init__(self) -> None:
        self._process: asyncio.subprocess.Process | None = None
        self._listening: asyncio.Task[None] | None = None
        self._born: asyncio.Queue[Child] = asyncio.Queue()
        self._children: dict[int, Child] = {}
        self._one_at_a_time = asyncio.Lock()
        self._cold: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        self._process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "tests.crash.replica", "--warm"),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            cwd=ROOT,
            env={**_clean_environment(), "PYTHONDONTWRITEBYTECODE": "1"},
        )
        self._listening = asyncio.create_task(self._listen())
        return self

    async def __aexit__(self, *_: Any) -> None:
        for child in list(self._children.values()):
            await child.end()
        assert self._process is not None
        assert self._process.stdin is not None
        self._process.stdin.close()
        await self._process.wait()
        if self._listening is not None:
            await self._listening

    async def start(self, order: ReplicaOrder, preload: Path | None = None) -> Child:
        """A forked replica; with ``preload``, a library that must be there from the start, a process of its own."""
        if preload is None:
            return await self._fork(order)
        environment = {
            **_clean_environment(),
            "LD_PRELOAD": str(preload),
            "FAKETIME_TIMESTAMP_FILE": order.clock_file,
            "FAKETIME_CACHE_DURATION": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
            "DONT_FAKE_MONOTONIC": "1",
            "PYTHONDONTWRITEBYTECODE": "1",
        }
        with Path(order.log).open("ab") as log:
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "tests.crash.replica"),
                stdin=asyncio.subprocess.PIPE,
                stdout=log,
                stderr=log,
                cwd=ROOT,
                env=environment,
                start_new_session=True,
            )
        assert process.stdin is not None
        process.stdin.write(replace(order, clock_file="").line().encode())
        process.stdin.close()
        child = Child(process.pid)
        self._cold.add(task := asyncio.create_task(_report_end(process, child)))
        task.add_done_callback(self._cold.discard)
        return child

    async def _fork(self, order: ReplicaOrder) -> Child:
        assert self._process is not None
        assert self._process.stdin is not None
        async with self._one_at_a_time:
            self._process.stdin.write(order.line().encode())
            await self._process.stdin.drain()
            async with asyncio.timeout(COMES_BACK_S):
                return await self._born.get()

    async def _listen(self) -> None:
        assert self._process is not None
        assert self._process.stdout is not None
        async for line in self._process.stdout:
            said = json.loads(line)
            if "born" in said:
                child = self._children[said["born"]] = Child(said["born"])
                self._born.put_nowait(child)
            else:
                child = self._children.pop(said["gone"])
                child.status = said["status"]
                child.gone.set()


async def _report_end(process: asyncio.subprocess.Process, child: Child) -> None:
    child.status = await process.wait()
    child.gone.set()


def _clean_environment() -> dict[str, str]:
    """Ours without settings of the bot's."""
    ours = ("SRE_", "SLACK_", "DATABASE_URL", "REDIS_URL", "ANTHROPIC_", "OPENAI_", "PROMETHEUS_", "LOKI_", "JAEGER_")
    return {name: value for name, value in os.environ.items() if not name.startswith(ours)}
