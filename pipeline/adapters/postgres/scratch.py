"""Databases for a while: a migrated template, copies of it, and a clock in each that says what it is told.

Everything in the store that goes by the database's clock (ages of edges, cooldowns, expiry) then goes by the time of a
recording. It rests on the order of names: a function ``clock_timestamp`` in a schema that is searched before
``pg_catalog`` is taken for the system's. No SQL of ours names the schema, and none may.

A run that is killed cannot drop its databases. Their names say whose they are, and as long as a run lives one
connection of it bears that name: what no connection answers for is dropped by the next run.
"""

from __future__ import annotations

import itertools
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from urllib.parse import quote, urlsplit, urlunsplit

import asyncpg

from pipeline.domain.errors import ConfigurationError, TemporaryError

PREFIX = "sre_bot_eval_"
_CLOCK = """
CREATE SCHEMA recorded_time;
CREATE TABLE recorded_time.moment (at timestamptz);
INSERT INTO recorded_time.moment VALUES (pg_catalog.clock_timestamp());
CREATE FUNCTION recorded_time.clock_timestamp() RETURNS timestamptz LANGUAGE sql VOLATILE
    AS 'SELECT at FROM recorded_time.moment';
"""
_LEFT_OVER = """
SELECT made.datname FROM pg_database made
WHERE made.datname ~ $1 AND made.datdba = (SELECT oid FROM pg_roles WHERE rolname = current_user)
  AND NOT EXISTS (
    SELECT 1 FROM pg_stat_activity living
    WHERE living.application_name = regexp_replace(made.datname::text, '_[0-9]+$', ''))
"""
"""Databases of this account that bear the name of a run which has no connection to this server any more."""
_SEARCHED = "public,recorded_time,pg_catalog"


@dataclass(frozen=True, slots=True)
class Scratch:
    """A database of its own; ``set_clock`` says what time it is there."""

    dsn: str
    set_clock: Callable[[datetime], Awaitable[None]]


class ScratchDatabases:
    """On one server, reached by ``dsn`` as somebody who may create databases. Each is dropped when its block ends."""

    def __init__(self, dsn: str) -> None:
        self._dsn = dsn
        self._template = ""
        self._run = f"{PREFIX}{secrets.token_hex(6)}"
        self._numbers = itertools.count(1)

    @asynccontextmanager
    async def template(self, prepare: Callable[[str], Awaitable[None]]) -> AsyncIterator[None]:
        """Makes the database that the others are copied from; ``prepare`` migrates and fills it.

        Before that, drops what runs that are dead left behind.

        Raises ConfigurationError when the account may not create databases, TemporaryError when the server is away.
        """
        async with _connected(self._dsn, self._run) as living, self._made("template1") as name:
            await _tidied(living)
            dsn = _of(self._dsn, name)
            async with _connected(dsn) as db:
                await db.execute(_CLOCK)
            await prepare(_timed(dsn))
            self._template = name
            yield
            self._template = ""

    @asynccontextmanager
    async def copy(self) -> AsyncIterator[Scratch]:
        """A copy of the template, with its own clock."""
        async with self._made(self._template) as name, _connected(_of(self._dsn, name)) as db:

            async def set_clock(at: datetime) -> None:
                await db.execute("UPDATE recorded_time.moment SET at = $1", at)

            yield Scratch(_timed(_of(self._dsn, name)), set_clock)

    @asynccontextmanager
    async def _made(self, source: str) -> AsyncIterator[str]:
        name = f"{self._run}_{next(self._numbers)}"
        async with _connected(self._dsn) as db:
            try:
                await db.execute(f'CREATE DATABASE {name} TEMPLATE "{source}"')
            except asyncpg.InsufficientPrivilegeError as error:
                raise ConfigurationError(
                    "DATABASE_URL: its account may not create databases, which `sre-bot eval` needs (a scratch one a"
                    " case): leave it empty to use the embedded server, or ALTER ROLE … CREATEDB"
                ) from error
        try:
            yield name
        finally:
            async with _connected(self._dsn) as db:
                await db.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")


async def _tidied(db: Any) -> None:
    """Without force: what somebody is connected to after all stays, and so does what another run drops just now."""
    for (name,) in await db.fetch(_LEFT_OVER, f"^{PREFIX}[0-9a-f]{{12}}_[0-9]+$"):
        with suppress(asyncpg.PostgresError):
            await db.execute(f"DROP DATABASE IF EXISTS {name}")


@asynccontextmanager
async def _connected(dsn: str, called: str = "sre-bot eval") -> AsyncIterator[Any]:
    try:
        db = await asyncpg.connect(
            dsn, timeout=15.0, command_timeout=60.0, server_settings={"application_name": called}
        )
    except (OSError, TimeoutError, asyncpg.PostgresError) as error:
        raise TemporaryError(f"DATABASE_URL: the database server cannot be used: {str(error)[:200]}") from error
    try:
        yield db
    finally:
        await db.close()


def _of(dsn: str, database: str) -> str:
    parts = urlsplit(dsn)
    return urlunsplit(parts._replace(path=f"/{database}"))


def _timed(dsn: str) -> str:
    """With the clock's schema searched first; and without waiting for disks, as nothing here has to last."""
    parts = urlsplit(dsn)
    ours = (f"search_path={quote(_SEARCHED)}", "synchronous_commit=off")
    asked = "&".join(part for part in (parts.query, *ours) if part)
    return urlunsplit(parts._replace(query=asked))
