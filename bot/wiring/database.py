"""The bot's database: who migrates it, who the bot is in it, and what of the trail is kept outside it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from bot.anchoring import AnchorKeeper
from bot.config import Settings, StoreSettings
from bot.embedded.directory import EmbeddedError
from bot.embedded.postgres import EmbeddedPostgres
from bot.redacting import clean_entry
from migrations.roles import AppLogin, Protection, give_rights, protection, use_login, use_role
from migrations.runner import MigrationError, MigrationReport, migrate
from pipeline.adapters.postgres.audit import PostgresTrailArchive
from pipeline.adapters.postgres.pool import Pool
from pipeline.adapters.postgres.unit_of_work import PostgresStore
from pipeline.domain.errors import ConfigurationError
from pipeline.ports.trail import TrailArchive

TRIGGERS_ONLY = (
    "the trail is protected by triggers only: the bot's database login owns its tables. Give the bot a login of its own"
    " in DATABASE_URL and the owner's in MIGRATION_DATABASE_URL"
)


@dataclass(frozen=True, slots=True)
class Database:
    """A migrated database as the bot uses it: ``url`` is that of its own login or role."""

    url: str
    report: MigrationReport
    protection: Protection


@dataclass(frozen=True, slots=True)
class AuditParts:
    """What the commands of ``sre-bot audit`` work with."""

    archive: TrailArchive
    keeper: AnchorKeeper
    path: Path


async def migrated(database_url: str) -> MigrationReport:
    """Brings the schema up to date. Raises ConfigurationError with what to do."""
    try:
        return await migrate(database_url)
    except MigrationError as error:
        raise ConfigurationError(f"DATABASE_URL: {error}") from error


async def prepared(url: str, store: StoreSettings, login: AppLogin | None = None) -> Database:
    """Migrates as the owner, and sees to it that the bot is somebody else.

    ``url`` is what the bot was given, ``login`` the bot's in the embedded server, which ``url`` owns. Raises
    ConfigurationError with what to do.
    """
    owner = store.migration_database_url
    if login is None and owner is not None:
        try:
            report = await migrate(owner.get_secret_value())
            await give_rights(owner.get_secret_value(), url)
        except MigrationError as error:
            raise ConfigurationError(f"MIGRATION_DATABASE_URL: {error}") from error
    else:
        report = await migrated(url)
    try:
        if login is not None:
            url = await use_login(url, login)
        elif owner is None and await protection(url) is Protection.TRIGGERS:
            url = await use_role(url)
        return Database(url, report, await protection(url))
    except MigrationError as error:
        raise ConfigurationError(f"DATABASE_URL: {error}") from error


@asynccontextmanager
async def database_of(settings: Settings) -> AsyncIterator[tuple[Pool, MigrationReport]]:
    """The bot's migrated database for a command: the configured one, that of the bot that runs here, or a started one.

    Raises ConfigurationError with what to do.
    """
    async with AsyncExitStack() as stack:
        url, login = await server_of(settings.store, stack, beside=True)
        database = await prepared(url, settings.store, login)
        pool = Pool(database.url, max_size=4)
        stack.push_async_callback(pool.close)
        yield pool, database.report


async def server_of(store: StoreSettings, stack: AsyncExitStack, *, beside: bool) -> tuple[str, AppLogin | None]:
    """The configured URL; or the owner's of the embedded server, and the login that is the bot's there.

    ``beside``: a server that another process supervises will do. Raises ConfigurationError.
    """
    if store.database_url is not None:
        return store.database_url.get_secret_value(), None
    embedded = EmbeddedPostgres(store.data_dir)
    try:
        url = await asyncio.to_thread(embedded.url_beside) if beside else None
        if url is None:
            url = await embedded.start()
            stack.push_async_callback(embedded.stop)
    except EmbeddedError as error:
        raise ConfigurationError(str(error)) from error
    return url, embedded.app_login(url)


def anchor_file(store: StoreSettings) -> Path:
    """Where anchors are kept."""
    return store.anchor_file or store.data_dir / "anchors.jsonl"


@asynccontextmanager
async def audit_parts(settings: Settings) -> AsyncIterator[AuditParts]:
    """The trail for a command. Raises ConfigurationError with what to do."""
    async with database_of(settings) as (pool, _):
        archive, path = PostgresTrailArchive(pool), anchor_file(settings.store)
        store = PostgresStore(pool, clean_entry)
        keeper = AnchorKeeper(store, archive, path, interval_s=settings.store.anchor_interval_s)
        yield AuditParts(archive, keeper, path)
