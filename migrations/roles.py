"""Who the bot is in the database: a role that owns nothing, wherever one can be had. README.md says why and how."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING
from urllib.parse import quote, urlsplit, urlunsplit

import asyncpg

from migrations.runner import LOST, DatabaseUnavailable, connection, migrating_turn, refused

if TYPE_CHECKING:
    from migrations.runner import Connection

APP_ROLE = "sre_bot_app"
"""The bot's login in the embedded server; elsewhere, with the owner's name behind it, the role it works as."""
PROTECTED = ("trace", "trace_heads", "approvals")

_MAY_SET = """
SELECT rolname <> current_user AND NOT rolsuper AND pg_has_role(current_user, oid, 'MEMBER') FROM pg_roles
WHERE rolname = $1
"""
_POWERS = """
SELECT coalesce(bool_or(pg_has_role(session_user, c.relowner, 'MEMBER')), false) AS could,
    coalesce(bool_or(pg_has_role(current_user, c.relowner, 'MEMBER')
        OR has_table_privilege(c.oid, 'UPDATE') OR has_table_privilege(c.oid, 'DELETE')
        OR has_table_privilege(c.oid, 'TRUNCATE') OR has_table_privilege(c.oid, 'TRIGGER')
        OR (c.relname = 'trace_heads' AND has_table_privilege(c.oid, 'INSERT'))), false) AS can
FROM pg_class c WHERE c.oid = ANY (ARRAY(SELECT to_regclass(name)::oid FROM unnest($1::text[]) AS name))
"""
_KNOWN = "SELECT EXISTS (SELECT FROM pg_roles WHERE rolname = $1)"
_OWN_ROLE = """
SELECT name::text, quote_ident(name) FROM (SELECT left($1 || '_' || session_user, 63) AS name) AS own
"""
_GIVE = "SELECT give_rights($1)"
_TRIES = 3
"""To make the role: another database of the server may be making it at the same time."""


class Protection(StrEnum):
    """What stands between the bot's sessions and the trail."""

    OTHER_LOGIN = "another login"
    """The bot's login has no way to the owner's rights."""
    OTHER_ROLE = "another role"
    """The bot works as a role without them; its login could take them back."""
    TRIGGERS = "triggers only"
    """The bot's sessions own the trail."""


@dataclass(frozen=True, slots=True)
class AppLogin:
    """A login to be made; the password needs no quoting."""

    role: str
    password: str


async def use_login(owner_dsn: str, login: AppLogin) -> str:
    """The DSN of ``login``, which is made if need be and has the bot's rights. Raises as ``migrate`` does."""
    parts = urlsplit(owner_dsn)
    place = parts.netloc.rpartition("@")[2]
    dsn = urlunsplit(parts._replace(netloc=f"{login.role}:{quote(login.password, safe='')}@{place}"))
    async with _owner_at_work(owner_dsn) as db:
        known = await db.fetchval(_KNOWN, login.role)
        if not known or not await _lets_in(dsn):
            rights = f"LOGIN NOSUPERUSER NOCREATEROLE NOCREATEDB PASSWORD '{login.password}'"
            await db.execute(f"{'ALTER' if known else 'CREATE'} ROLE {login.role} {rights}")
        await db.execute(_GIVE, login.role)
    return dsn


async def use_role(owner_dsn: str) -> str:
    """A DSN whose sessions work as a role without the owner's rights; ``owner_dsn`` where none can be had."""
    role = ""
    for left in reversed(range(_TRIES)):
        try:
            async with connection(owner_dsn) as db, migrating_turn(db):
                role, quoted = await db.fetchrow(_OWN_ROLE, APP_ROLE)
                if not await db.fetchval(_MAY_SET, role):
                    if not await db.fetchval(_KNOWN, role):
                        await db.execute(f"CREATE ROLE {quoted} NOLOGIN")
                    await db.execute(f"GRANT {quoted} TO CURRENT_USER")
                await db.execute(_GIVE, role)
                await db.execute(f"SET LOCAL ROLE {quoted}")  # from PostgreSQL 16 on, to be a member is not enough
            break
        except (asyncpg.DuplicateObjectError, asyncpg.UniqueViolationError, asyncpg.InternalServerError):
            if not left:
                return owner_dsn
        except asyncpg.InsufficientPrivilegeError:
            return owner_dsn
    return _as_role(owner_dsn, role)


async def give_rights(owner_dsn: str, app_dsn: str) -> None:
    """Gives the login of ``app_dsn`` the bot's rights, as the owner. Raises as ``migrate`` does."""
    async with connection(app_dsn) as db:
        role = await db.fetchval("SELECT current_user::text")
    async with _owner_at_work(owner_dsn) as db:
        if role != await db.fetchval("SELECT current_user::text"):
            await db.execute(_GIVE, role)


async def protection(dsn: str) -> Protection:
    """What sessions of ``dsn`` could do to the trail. Raises as ``migrate`` does."""
    async with connection(dsn) as db:
        powers = await db.fetchrow(_POWERS, list(PROTECTED))
    if powers["can"]:
        return Protection.TRIGGERS
    return Protection.OTHER_ROLE if powers["could"] else Protection.OTHER_LOGIN


async def standing(dsn: str) -> Protection:
    """What ``protection`` is for a bot that was started with ``dsn``; changes nothing. Raises as ``migrate`` does."""
    found = await protection(dsn)
    if found is not Protection.TRIGGERS:
        return found
    async with connection(dsn) as db:
        role, _ = await db.fetchrow(_OWN_ROLE, APP_ROLE)
        if not await db.fetchval(_MAY_SET, role):
            return found
    return await protection(_as_role(dsn, role))


def _as_role(dsn: str, role: str) -> str:
    parts = urlsplit(dsn)
    query = "&".join(part for part in (parts.query, f"role={quote(role, safe='')}") if part)
    return urlunsplit(parts._replace(query=query))


@asynccontextmanager
async def _owner_at_work(dsn: str) -> AsyncIterator[Connection]:
    async with connection(dsn) as db:
        try:
            async with migrating_turn(db):
                yield db
        except LOST as error:
            raise DatabaseUnavailable("the database went away while rights were given; start again") from error
        except asyncpg.PostgresError as error:
            raise refused(dsn, error) from error


async def _lets_in(dsn: str) -> bool:
    try:
        async with connection(dsn):
            return True
    except DatabaseUnavailable:
        return False
