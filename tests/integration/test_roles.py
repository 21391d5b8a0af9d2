"""The bot's own role in a real PostgreSQL: what it may, what it is refused, and how it is come by."""

import re
import secrets
from collections.abc import AsyncIterator
from pathlib import Path
from urllib.parse import urlsplit

import asyncpg
import pytest
from pydantic import SecretStr

import migrations
from bot.config import Settings, StoreSettings
from bot.doctor import examine
from bot.wiring.database import TRIGGERS_ONLY, prepared
from migrations.roles import APP_ROLE, AppLogin, Protection, protection, standing, use_login, use_role
from migrations.runner import migrate
from pipeline.adapters.postgres.pool import Connection, Pool
from pipeline.adapters.postgres.unit_of_work import PostgresStore
from pipeline.domain.errors import ConfigurationError
from pipeline.domain.ids import IncidentId
from pipeline.domain.trace import TraceEntry, TraceKind
from tests.integration.test_audit import incident_with_plan

ONE = IncidentId(1)


@pytest.fixture
async def app(database_dsn: str) -> AsyncIterator[Connection]:
    """A session of the bot's own login, with two entries in the trail."""
    login = AppLogin(f"app_{secrets.token_hex(4)}", secrets.token_hex(16))
    dsn = await use_login(database_dsn, login)
    assert await protection(dsn) is Protection.OTHER_LOGIN
    pool = Pool(dsn, max_size=2)
    async with PostgresStore(pool).begin() as uow:
        for text in ("one", "two"):
            await uow.trace.add(ONE, TraceEntry(TraceKind.NOTE, text, {}))
        assert await uow.trace.first_broken(ONE) is None
    await pool.close()
    connection = await asyncpg.connect(dsn)
    yield connection
    await connection.close()
    owner = await asyncpg.connect(database_dsn)
    await owner.execute(f"DROP OWNED BY {login.role}; DROP ROLE {login.role}")
    await owner.close()


REFUSED = [
    "UPDATE trace SET summary = 'x'",
    "DELETE FROM trace",
    "TRUNCATE trace",
    "ALTER TABLE trace DISABLE TRIGGER USER",
    "ALTER TABLE trace DISABLE TRIGGER ALL",
    "ALTER TABLE trace OWNER TO CURRENT_USER",
    "DROP TABLE trace",
    "DROP TRIGGER trace_chain ON trace",
    "CREATE TRIGGER mine BEFORE INSERT ON trace FOR EACH ROW EXECUTE FUNCTION refuse_change()",
    "CREATE RULE mine AS ON INSERT TO trace DO INSTEAD NOTHING",
    "CREATE OR REPLACE FUNCTION trace_hash_2(previous text, incident_id bigint, seq bigint, at timestamptz, kind text,"
    " summary text, data jsonb) RETURNS text LANGUAGE sql AS $$ SELECT '' $$",
    "CREATE OR REPLACE FUNCTION trace_chain() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN NEW; END $$",
    "ALTER FUNCTION trace_chain() SECURITY INVOKER",
    "UPDATE trace_heads SET hash = ''",
    "DELETE FROM trace_heads",
    "INSERT INTO trace_heads (incident_id, seq, hash) VALUES (5, 1, 'x')",
    "TRUNCATE trace_heads",
    "SELECT * FROM trace_heads FOR UPDATE",
    "ALTER TABLE trace_heads DISABLE TRIGGER USER",
    "UPDATE approvals SET decision = 'approve'",
    "DELETE FROM approvals",
    "TRUNCATE approvals",
    "ALTER TABLE approvals DISABLE TRIGGER USER",
    "DROP TABLE approvals CASCADE",
    "UPDATE schema_migrations SET checksum = ''",
    "SET session_replication_role = replica",
    "SET ROLE sre_bot",
    "CREATE FUNCTION mine() RETURNS int LANGUAGE sql AS 'SELECT 1'",
]


async def test_threat_audit_tampering_is_refused_to_the_bots_role(app: Connection, sql: Connection) -> None:
    before = await sql.fetch("SELECT * FROM trace ORDER BY seq")
    for statement in REFUSED:
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await app.execute(statement)
    assert await sql.fetch("SELECT * FROM trace ORDER BY seq") == before
    await app.execute("GRANT UPDATE ON trace TO PUBLIC")  # PostgreSQL only warns
    assert (
        await sql.fetchval(
            "SELECT count(*) FROM aclexplode((SELECT relacl FROM pg_class WHERE relname = 'trace')) WHERE grantee = 0"
        )
        == 0
    )


async def test_what_it_adds_is_numbered_dated_and_hashed_by_the_database(app: Connection, sql: Connection) -> None:
    began = await sql.fetchval("SELECT clock_timestamp()")
    await app.execute("CREATE TEMP TABLE trace_heads (incident_id bigint, seq bigint, hash text)")
    await app.execute(
        """INSERT INTO trace (incident_id, version, seq, at, kind, summary, data, previous, hash)
           VALUES (1, 1, 77, '1999-01-01', 'note', 'forged', '{}', 'x', 'y')"""
    )
    row = await sql.fetchrow("SELECT version, seq, at, previous FROM trace WHERE summary = 'forged'")
    assert (row["version"], row["seq"]) == (2, 3)
    assert row["at"] >= began
    assert row["previous"] == await sql.fetchval("SELECT hash FROM trace WHERE incident_id = 1 AND seq = 2")
    assert await app.fetchval("SELECT count(*) FROM pg_temp.trace_heads") == 0, "nothing of the session's is looked at"


async def test_the_trails_triggers_cannot_be_borrowed_for_a_table_of_its_own(app: Connection, sql: Connection) -> None:
    """They run as the owner: on another table they would move heads."""
    heads = await sql.fetch("SELECT * FROM trace_heads ORDER BY incident_id")
    await app.execute("CREATE TEMP TABLE mine (LIKE public.trace)")
    for function in ("trace_chain", "approval_to_trail"):
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await app.execute(
                f"CREATE TRIGGER borrowed BEFORE INSERT ON mine FOR EACH ROW EXECUTE FUNCTION public.{function}()"
            )
    assert await sql.fetch("SELECT * FROM trace_heads ORDER BY incident_id") == heads


async def test_it_can_do_the_rest_of_its_work(app: Connection, sql: Connection) -> None:
    owned = await sql.fetch(
        """SELECT relname::text AS name FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind = 'r'
           AND relname NOT IN ('trace', 'trace_heads', 'approvals', 'schema_migrations')"""
    )
    for row in owned:
        for right in ("SELECT", "INSERT", "UPDATE", "DELETE"):
            assert await app.fetchval("SELECT has_table_privilege($1, $2)", row["name"], right), (row["name"], right)
        assert not await app.fetchval("SELECT has_table_privilege($1, 'TRUNCATE')", row["name"])
    await app.fetchval("SELECT nextval('fences')")
    await incident_with_plan(app)
    told = await sql.fetch("SELECT summary FROM trace WHERE kind = 'approval' ORDER BY seq")
    assert [row["summary"] for row in told] == ["approve of plan 1 by U0ALICE", "approve of plan 1 by U0BOB"]
    await app.execute("SELECT index_piece_vectors(32)")
    assert await sql.fetchval("SELECT to_regclass('piece_vectors_hnsw_32') IS NOT NULL")


async def test_a_database_of_before_goes_over_with_its_rows_and_decisions(
    blank_database_dsn: str, tmp_path: Path
) -> None:
    """Up to 0007, filled, then brought up to date: old rows keep their hashes, old decisions come into the trail."""
    home, old = Path(migrations.__path__[0]), tmp_path / "sql"
    old.mkdir()
    for file in sorted(home.glob("*.sql")):
        if file.name < "0008":
            (old / file.name).write_bytes(file.read_bytes())
    await migrate(blank_database_dsn, old)
    sql = await asyncpg.connect(blank_database_dsn)
    for _ in range(3):
        await sql.execute("INSERT INTO trace (incident_id, kind, summary, data) VALUES (1, 'note', 'a|b', '{}')")
    await incident_with_plan(sql)
    before = await sql.fetch("SELECT incident_id, seq, at, kind, summary, data, previous, hash FROM trace ORDER BY seq")
    await migrate(blank_database_dsn)
    after = await sql.fetch("SELECT incident_id, seq, at, kind, summary, data, previous, hash FROM trace ORDER BY seq")
    assert after[:3] == before
    assert await sql.fetch("SELECT version, kind FROM trace ORDER BY seq") == [
        *[(1, "note")] * 3,
        *[(2, "approval")] * 2,
    ]
    pool = Pool(await use_role(blank_database_dsn))
    async with PostgresStore(pool).begin() as uow:
        assert await uow.trace.first_broken(ONE) is None
    await pool.close()
    await sql.execute("ALTER TABLE trace DISABLE TRIGGER USER")
    await sql.execute("UPDATE trace SET kind = 'note|a', summary = 'b' WHERE seq = 2")
    store = PostgresStore(pool)
    async with store.begin() as uow:
        assert await uow.trace.first_broken(ONE) is None, "version 1 cannot tell: that is why there is version 2"
    await pool.close()
    await sql.close()


async def test_with_one_url_the_bot_works_as_a_role_that_it_makes(database_dsn: str) -> None:
    """The owner is no superuser here, and may make roles."""
    owner = await make_owner(database_dsn, "CREATEROLE")
    database = await prepared(owner, StoreSettings())
    assert database.protection is Protection.OTHER_ROLE
    role = f"{APP_ROLE}_{urlsplit(owner).username}"
    assert database.url == f"{owner}?role={role}"
    app = await asyncpg.connect(database.url)
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        await app.execute("DELETE FROM trace")
    await app.execute("RESET ROLE")
    assert await app.fetchval("SELECT current_user::text") == role
    await app.execute("INSERT INTO trace (incident_id, kind, summary, data) VALUES (1, 'note', 'x', '{}')")
    await app.close()
    assert await standing(owner) is Protection.OTHER_ROLE, "what doctor says of the plain URL"
    assert await prepared(database.url, StoreSettings()) == database, "a URL that was prepared stays what it is"


async def test_who_may_not_make_a_role_is_told(database_dsn: str) -> None:
    owner = await make_owner(database_dsn, "NOCREATEROLE")
    database = await prepared(owner, StoreSettings())
    assert (database.url, database.protection) == (owner, Protection.TRIGGERS)
    said = [finding.said async for finding in examine(Settings(store=StoreSettings(database_url=SecretStr(owner))))]
    assert TRIGGERS_ONLY in said


async def test_with_two_urls_the_owner_migrates_and_the_bot_has_its_own_login(blank_database_dsn: str) -> None:
    sql = await asyncpg.connect(blank_database_dsn)
    role = f"bot_{secrets.token_hex(4)}"
    await sql.execute(f"CREATE ROLE {role} LOGIN PASSWORD 'plain-secret'")
    url = as_user(blank_database_dsn, role, "plain-secret")
    with pytest.raises(ConfigurationError, match=r"has to own the database \(or that in MIGRATION_DATABASE_URL"):
        await prepared(url, StoreSettings())
    settings = StoreSettings(migration_database_url=SecretStr(blank_database_dsn))
    database = await prepared(url, settings)
    assert (database.url, database.protection) == (url, Protection.OTHER_LOGIN)
    assert (await prepared(url, StoreSettings())).protection is Protection.OTHER_LOGIN, "a replica without the owner's"
    same = await prepared(blank_database_dsn, settings)
    assert same.protection is Protection.TRIGGERS, "the owner's own URL twice protects nothing"
    await sql.execute(f"DROP OWNED BY {role}; DROP ROLE {role}")
    await sql.close()


async def make_owner(dsn: str, right: str) -> str:
    """The DSN of a fresh role that owns the database and all in it."""
    sql = await asyncpg.connect(dsn)
    role, database = f"owner_{secrets.token_hex(4)}", dsn.rpartition("/")[2]
    await sql.execute(f"CREATE ROLE {role} LOGIN {right} PASSWORD 'plain-secret'")
    await sql.execute(f"ALTER DATABASE {database} OWNER TO {role}")
    names = await sql.fetch(
        """SELECT format('ALTER TABLE %s OWNER TO ', c.oid::regclass) AS alter FROM pg_class c
           WHERE relnamespace = 'public'::regnamespace AND relkind = 'r'
           UNION ALL SELECT format('ALTER FUNCTION %s OWNER TO ', p.oid::regprocedure) FROM pg_proc p
           WHERE pronamespace = 'public'::regnamespace
             AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.objid = p.oid AND d.deptype = 'e')
           UNION ALL SELECT 'ALTER SEQUENCE fences OWNER TO '"""
    )
    await sql.execute("; ".join(row["alter"] + role for row in names))
    await sql.close()
    return as_user(dsn, role, "plain-secret")


def as_user(dsn: str, user: str, password: str) -> str:
    return re.sub(r"//[^@]*@", f"//{user}:{password}@", dsn)
