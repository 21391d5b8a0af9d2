"""Connections: a pool with JSON codecs, and database errors as ours."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from math import isfinite
from typing import Any

import asyncpg

from pipeline.domain.errors import TemporaryError

Connection = Any
"""An asyncpg connection; asyncpg ships no types."""

AWAY = (
    asyncpg.PostgresConnectionError,
    asyncpg.InterfaceError,
    asyncpg.CannotConnectNowError,
    asyncpg.AdminShutdownError,
    asyncpg.CrashShutdownError,
    asyncpg.TooManyConnectionsError,
    asyncpg.DeadlockDetectedError,
    asyncpg.SerializationError,
    asyncpg.InsufficientResourcesError,
    ConnectionError,
    TimeoutError,
)
"""What may pass by itself. A lost reply to COMMIT is among them: the row may be there, so callers re-read."""


class Pool:
    """Opens lazily, so that a database that is away delays and does not stop the start."""

    def __init__(self, dsn: str, *, max_size: int = 10, command_timeout_s: float = 10.0) -> None:
        self._dsn = dsn
        self._max_size = max_size
        self._command_timeout_s = command_timeout_s
        self._pool: Any = None
        self._opening = asyncio.Lock()

    async def open(self) -> None:
        """Connects, once. Raises TemporaryError when the database cannot be reached."""
        async with self._opening:
            if self._pool is not None:
                return
            try:
                self._pool = await asyncpg.create_pool(
                    self._dsn,
                    min_size=1,
                    max_size=self._max_size,
                    command_timeout=self._command_timeout_s,
                    init=_set_codecs,
                    reset=_nothing_to_forget,
                    server_settings={"application_name": "sre-bot", "timezone": "UTC"},
                )
            except (*AWAY, OSError) as error:
                raise TemporaryError(f"database not reachable: {_line(error)}") from error

    async def close(self) -> None:
        """Gives every connection back; those still busy after 5 s are cut."""
        if self._pool is None:
            return
        try:
            async with asyncio.timeout(5.0):
                await self._pool.close()
        except TimeoutError:
            self._pool.terminate()
        self._pool = None

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[Connection]:
        """A connection inside a transaction: commits at the end, rolls back on an error."""
        if self._pool is None:
            await self.open()
        try:
            async with self._pool.acquire(timeout=self._command_timeout_s) as connection, connection.transaction():
                yield connection
        except (*AWAY, OSError) as error:
            raise TemporaryError(f"database away: {_line(error)}") from error


async def _nothing_to_forget(connection: Connection) -> None:
    """Nobody changes a session beyond a transaction, so asyncpg's RESET ALL would be one more question for each.

    What was left in the middle asyncpg has rolled back by then.
    """
    del connection


async def _set_codecs(connection: Connection) -> None:
    await connection.set_type_codec("jsonb", encoder=_to_json, decoder=json.loads, schema="pg_catalog")


def storable(text: str) -> str:
    """``text`` without what PostgreSQL refuses: NUL characters and lone surrogates."""
    return text.replace("\x00", "").encode("utf-8", "replace").decode("utf-8")


def _to_json(value: object) -> str:
    return json.dumps(_clean(value), allow_nan=False)


def _clean(value: object) -> object:
    if isinstance(value, str):
        return storable(value)
    if isinstance(value, float):
        return value if isfinite(value) else None
    if isinstance(value, Mapping):
        return {storable(str(key)): _clean(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_clean(item) for item in value]
    return value


def _line(error: BaseException) -> str:
    return (str(error) or type(error).__name__).splitlines()[0][:200]
