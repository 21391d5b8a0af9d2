"""Bring a database to the schema of this version: each SQL file once, in its own transaction, by one process.

A file whose first line is ``-- requires: vector`` waits until the extension pgvector is there and is applied then,
even after later files.
"""

import asyncio
import hashlib
import logging
import re
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from importlib.resources import files
from importlib.resources.abc import Traversable
from typing import TYPE_CHECKING, Any, TypeAlias
from urllib.parse import urlsplit

import asyncpg

if TYPE_CHECKING:
    Connection: TypeAlias = asyncpg.Connection[Any]

logger = logging.getLogger(__name__)

MINIMUM_POSTGRES = 14
LOCK_KEY = 0x5352_4542_4F54  # "SREBOT"; held to the end of each transaction that changes the schema
CONNECT_TIMEOUT_S = 10.0
CLOSE_TIMEOUT_S = 2.0
COME_BACK_S = 30.0  # how long a server that restarts, or is still starting, is waited for
LOST_LIMIT = 5
LOST = (
    asyncpg.PostgresConnectionError,
    asyncpg.AdminShutdownError,
    asyncpg.CrashShutdownError,
    asyncpg.CannotConnectNowError,
    asyncpg.InterfaceError,
    OSError,
)
REQUIRES_VECTOR = "-- requires: vector"
FILE_NAME = re.compile(r"(\d{4})_[a-z0-9_]+\.sql")

MALFORMED = (
    "DATABASE_URL is not a PostgreSQL address; write it postgresql://user:password@host:port/database, "
    "with special characters of the password percent-encoded"
)

CREATE_HISTORY = """
CREATE TABLE IF NOT EXISTS schema_migrations (
    version    integer PRIMARY KEY,
    name       text NOT NULL,
    checksum   text NOT NULL,
    applied_at timestamptz NOT NULL DEFAULT clock_timestamp()
)
"""
HISTORY_EXISTS = "SELECT to_regclass('schema_migrations') IS NOT NULL"
READ_HISTORY = "SELECT version, name, checksum FROM schema_migrations ORDER BY version"
RECORD = "INSERT INTO schema_migrations (version, name, checksum) VALUES ($1, $2, $3)"
VECTOR_INSTALLED = "SELECT extversion FROM pg_extension WHERE extname = 'vector'"
VECTOR_OFFERED = "SELECT default_version FROM pg_available_extensions WHERE name = 'vector'"


class MigrationError(RuntimeError):
    """The schema cannot be brought to this version; the message says why and what to do."""


class DatabaseUnavailable(MigrationError):
    """The database cannot be reached or refuses us; the message names host, port and database, no password."""


@dataclass(frozen=True, slots=True)
class Migration:
    """One SQL file. ``checksum`` is the SHA-256 of its text with line ends as \\n."""

    version: int
    name: str
    sql: str = field(repr=False)

    @property
    def checksum(self) -> str:
        return hashlib.sha256(self.sql.encode()).hexdigest()

    @property
    def requires_vector(self) -> bool:
        return self.sql.partition("\n")[0].strip() == REQUIRES_VECTOR


@dataclass(frozen=True, slots=True)
class MigrationReport:
    """How a database stands to the schema of this version. Migrations go by file name.

    ``applied``: by this call. ``pending``: to be applied by the next ``migrate``. ``waiting``: pending, but pgvector
    is missing. ``vector_version``: of pgvector in this database, or on offer to it when ``check`` asks; None without.
    """

    server_version: str
    vector_version: str | None
    applied: tuple[str, ...] = ()
    pending: tuple[str, ...] = ()
    waiting: tuple[str, ...] = ()

    @property
    def has_vector(self) -> bool:
        return self.vector_version is not None


async def migrate(dsn: str, directory: Traversable | None = None) -> MigrationReport:
    """Apply what is missing, safely against other replicas that do the same, and against lost connections.

    When a connection breaks, even in the reply to COMMIT, what the database says afterwards counts.

    Raises DatabaseUnavailable; MigrationError for a server older than MINIMUM_POSTGRES, a database newer than this
    version, an applied file that changed, or SQL that fails.
    """
    migrations = load(directory)
    before: frozenset[int] | None = None
    lost: Exception | None = None
    for _ in range(LOST_LIMIT):
        try:
            async with connection(dsn, patience_s=COME_BACK_S if lost else 0.0) as db:
                server_version = _require_version(db)
                await _create_history(db)
                vector_version = await _install_vector(db)
                history = await _history(db)
                before = frozenset(history) if before is None else before
                for migration in _unapplied(history, migrations, vector_version is not None)[0]:
                    await _apply(db, migration)
                history = await _history(db)
                waiting = _unapplied(history, migrations, vector_version is not None)[1]
                applied = [m for m in migrations if m.version in history and m.version not in before]
                return MigrationReport(server_version, vector_version, _names(applied), (), _names(waiting))
        except LOST as error:
            lost = error
            logger.warning("lost the connection to %s while migrating (%s)", location(dsn), _reason(error))
        except asyncpg.PostgresError as error:
            raise refused(dsn, error) from error
    raise DatabaseUnavailable(
        f"the database at {location(dsn)} dropped the connection {LOST_LIMIT} times while migrating; see its log"
    ) from lost


async def check(dsn: str, directory: Traversable | None = None) -> MigrationReport:
    """What ``migrate`` would do; changes nothing. Raises as ``migrate`` does."""
    migrations = load(directory)
    async with connection(dsn) as db:
        server_version = _require_version(db)
        try:
            history = await _history(db) if await db.fetchval(HISTORY_EXISTS) else {}
            vector_version = await db.fetchval(VECTOR_INSTALLED) or await db.fetchval(VECTOR_OFFERED)
        except LOST as error:
            raise DatabaseUnavailable(
                f"the database at {location(dsn)} dropped the connection: {_reason(error)}; see its log"
            ) from error
        except asyncpg.PostgresError as error:
            raise refused(dsn, error) from error
    pending, waiting = _unapplied(history, migrations, vector_version is not None)
    return MigrationReport(server_version, vector_version, pending=_names(pending), waiting=_names(waiting))


def load(directory: Traversable | None = None) -> tuple[Migration, ...]:
    """The SQL files of ``directory`` (default: of this package) by version. Raises MigrationError for odd names."""
    found: dict[int, Migration] = {}
    for entry in (directory or files("migrations")).iterdir():
        if not entry.name.endswith(".sql"):
            continue
        match = FILE_NAME.fullmatch(entry.name)
        if match is None:
            raise MigrationError(f"migration file {entry.name} is not named NNNN_name.sql")
        version = int(match[1])
        if version in found:
            raise MigrationError(f"migrations {found[version].name} and {entry.name} have the same number")
        found[version] = Migration(version, entry.name, entry.read_text("utf-8").replace("\r\n", "\n"))
    return tuple(found[version] for version in sorted(found))


@asynccontextmanager
async def connection(dsn: str, *, patience_s: float = 0.0) -> AsyncIterator["Connection"]:
    """A connection of its own. A server that is starting up is waited for; one that is away, for ``patience_s``.

    Raises DatabaseUnavailable.
    """
    db = await _connect(dsn, patience_s)
    try:
        yield db
    finally:
        with suppress(asyncpg.PostgresError, asyncpg.InterfaceError, OSError, TimeoutError):
            await db.close(timeout=CLOSE_TIMEOUT_S)


async def _connect(dsn: str, patience_s: float) -> "Connection":
    loop = asyncio.get_running_loop()
    began_s = loop.time()
    while True:
        try:
            return await asyncpg.connect(dsn, timeout=CONNECT_TIMEOUT_S)
        except (OSError, ValueError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
            if isinstance(error, ValueError) and not isinstance(error, OSError):
                # Neither the error nor its cause may be shown: they quote pieces of the address, password included.
                raise DatabaseUnavailable(MALFORMED) from None
            starting = isinstance(error, asyncpg.CannotConnectNowError)
            away = starting or isinstance(error, OSError | asyncpg.PostgresConnectionError)
            if away and loop.time() - began_s < max(patience_s, COME_BACK_S if starting else 0.0):
                await asyncio.sleep(0.1)
                continue
            raise DatabaseUnavailable(
                f"cannot use the database at {location(dsn)}: {_reason(error)}. Start it or correct DATABASE_URL; "
                "without DATABASE_URL sre-bot runs a PostgreSQL of its own"
            ) from error


def refused(dsn: str, error: Exception) -> MigrationError:
    return MigrationError(
        f"cannot migrate the database at {location(dsn)}: {_reason(error)}. "
        "The user in DATABASE_URL has to own the database (or that in MIGRATION_DATABASE_URL, where it is set), "
        "and the server must take writes"
    )


def _reason(error: Exception) -> str:
    if isinstance(error, TimeoutError):
        return f"no answer within {CONNECT_TIMEOUT_S:.0f} s"
    if isinstance(error, ConnectionRefusedError):
        return "connection refused"
    return str(error).splitlines()[0] if str(error) else type(error).__name__


def location(dsn: str) -> str:
    """``host:port/database`` of a DSN, for messages: never the user's password."""
    try:
        parts = urlsplit(dsn)
        return f"{parts.hostname or 'localhost'}:{parts.port or 5432}/{parts.path.lstrip('/')}"
    except ValueError:
        return "the address in DATABASE_URL"


def _require_version(db: "Connection") -> str:
    """The server's version, as "18.4". Raises MigrationError when it is older than MINIMUM_POSTGRES."""
    version = db.get_server_version()
    text = f"{version.major}.{version.minor}"
    if version.major < MINIMUM_POSTGRES:
        raise MigrationError(
            f"the database is PostgreSQL {text}, sre-bot needs {MINIMUM_POSTGRES} or newer: upgrade it, "
            "or leave DATABASE_URL out to use the embedded one"
        )
    return text


@asynccontextmanager
async def migrating_turn(db: "Connection") -> AsyncIterator[None]:
    """A transaction in which no other replica migrates this database."""
    async with db.transaction():
        await db.execute("SELECT pg_advisory_xact_lock($1)", LOCK_KEY)
        yield


async def _create_history(db: "Connection") -> None:
    if not await db.fetchval(HISTORY_EXISTS):
        async with migrating_turn(db):
            await db.execute(CREATE_HISTORY)


async def _install_vector(db: "Connection") -> str | None:
    """The version of pgvector in this database, installing it where the server offers it and lets us."""
    installed: str | None = await db.fetchval(VECTOR_INSTALLED)
    if installed is None and await db.fetchval(VECTOR_OFFERED):
        try:
            async with migrating_turn(db):
                await db.execute("CREATE EXTENSION IF NOT EXISTS vector")
        except LOST:
            raise
        except asyncpg.PostgresError as error:
            logger.warning("pgvector cannot be installed (%s): run CREATE EXTENSION vector as a superuser", error)
        installed = await db.fetchval(VECTOR_INSTALLED)
    return installed


async def _history(db: "Connection") -> dict[int, tuple[str, str]]:
    return {row["version"]: (row["name"], row["checksum"]) for row in await db.fetch(READ_HISTORY)}


def _unapplied(
    history: dict[int, tuple[str, str]], migrations: Sequence[Migration], has_vector: bool
) -> tuple[list[Migration], list[Migration]]:
    """What can be applied now, and what waits for pgvector. Raises MigrationError when history and files disagree."""
    known = {migration.version: migration for migration in migrations}
    for version, (name, checksum) in history.items():
        if version not in known:
            raise MigrationError(
                f"the database has migration {name}, which this version of sre-bot does not know: "
                "it was used by a newer one. Upgrade sre-bot or give another database"
            )
        if known[version].checksum != checksum:
            raise MigrationError(
                f"migration {known[version].name} was changed after it was applied to this database; "
                "restore the file and put the change into a new migration"
            )
    missing = [migration for migration in migrations if migration.version not in history]
    waiting = [migration for migration in missing if migration.requires_vector and not has_vector]
    return [migration for migration in missing if migration not in waiting], waiting


async def _apply(db: "Connection", migration: Migration) -> None:
    """Apply one migration, unless another replica was first."""
    async with migrating_turn(db):
        if migration.version in await _history(db):
            return
        try:
            await db.execute(migration.sql)
        except LOST:
            raise
        except asyncpg.PostgresError as error:
            raise MigrationError(f"migration {migration.name} failed and was undone: {_reason(error)}") from error
        await db.execute(RECORD, migration.version, migration.name, migration.checksum)
    logger.info("applied migration %s", migration.name)


def _names(migrations: Sequence[Migration]) -> tuple[str, ...]:
    return tuple(migration.name for migration in migrations)
