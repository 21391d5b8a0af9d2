"""The migration runner on a real PostgreSQL: order, replicas, lost connections, and errors in one clear line."""

import asyncio
import re
import socket
from pathlib import Path

import asyncpg
import pytest

from migrations import runner
from migrations.runner import DatabaseUnavailable, MigrationError, check, migrate


def write(directory: Path, **sql: str) -> Path:
    """Migration files: keyword ``m0001_first`` becomes 0001_first.sql."""
    directory.mkdir(exist_ok=True)
    for name, text in sql.items():
        (directory / f"{name[1:]}.sql").write_text(text)
    return directory


async def fetch(dsn: str, query: str) -> list[asyncpg.Record]:
    db = await asyncpg.connect(dsn)
    try:
        return list(await db.fetch(query))
    finally:
        await db.close()


async def test_applies_files_in_order_and_once(blank_database_dsn: str, tmp_path: Path) -> None:
    files = write(
        tmp_path / "sql",
        m0002_second="ALTER TABLE a ADD y int; INSERT INTO a VALUES (1, 2);",
        m0001_first="CREATE TABLE a (x int);",
    )
    assert (await check(blank_database_dsn, files)).pending == ("0001_first.sql", "0002_second.sql")
    assert (await migrate(blank_database_dsn, files)).applied == ("0001_first.sql", "0002_second.sql")
    again = await migrate(blank_database_dsn, files)
    assert (again.applied, again.pending, again.waiting) == ((), (), ())
    assert (await check(blank_database_dsn, files)).pending == ()
    assert await fetch(blank_database_dsn, "SELECT x, y FROM a") == [(1, 2)]
    rows = await fetch(blank_database_dsn, "SELECT version, name, length(checksum) FROM schema_migrations ORDER BY 1")
    assert rows == [(1, "0001_first.sql", 64), (2, "0002_second.sql", 64)]


async def test_the_shipped_schema_is_what_the_template_has(database_dsn: str) -> None:
    report = await check(database_dsn)
    assert (report.pending, report.waiting, report.has_vector) == ((), (), True)
    assert report.server_version.startswith("18.")


async def test_a_failing_file_leaves_nothing_of_itself(blank_database_dsn: str, tmp_path: Path) -> None:
    files = write(
        tmp_path / "sql", m0001_fine="CREATE TABLE a (x int)", m0002_bad="CREATE TABLE b (x int); SELECT nonsense"
    )
    with pytest.raises(MigrationError, match=r"0002_bad.sql failed and was undone: .*nonsense"):
        await migrate(blank_database_dsn, files)
    assert (await check(blank_database_dsn, files)).pending == ("0002_bad.sql",)
    assert await fetch(blank_database_dsn, "SELECT to_regclass('b') IS NULL AS gone") == [(True,)]


async def test_replicas_that_start_together_migrate_once(blank_database_dsn: str, tmp_path: Path) -> None:
    files = write(
        tmp_path / "sql",
        m0001_slow="CREATE TABLE a (x int); SELECT pg_sleep(0.2)",
        m0002_more="INSERT INTO a VALUES (1)",
    )
    await asyncio.gather(*(migrate(blank_database_dsn, files) for _ in range(4)))
    assert await fetch(blank_database_dsn, "SELECT count(*) FROM a") == [(1,)]


async def test_a_changed_file_is_refused_but_line_ends_do_not_matter(blank_database_dsn: str, tmp_path: Path) -> None:
    files = write(tmp_path / "sql", m0001_first="CREATE TABLE a (\nx int)")
    await migrate(blank_database_dsn, files)
    (files / "0001_first.sql").write_bytes(b"CREATE TABLE a (\r\nx int)")
    assert (await check(blank_database_dsn, files)).pending == ()
    write(files, m0001_first="CREATE TABLE a (x bigint)")
    for operation in (migrate, check):
        with pytest.raises(MigrationError, match=r"0001_first.sql was changed after it was applied"):
            await operation(blank_database_dsn, files)


async def test_a_database_of_a_newer_version_is_refused(blank_database_dsn: str, tmp_path: Path) -> None:
    files = write(tmp_path / "sql", m0001_first="SELECT 1", m0002_future="SELECT 2")
    await migrate(blank_database_dsn, files)
    (files / "0002_future.sql").unlink()
    with pytest.raises(MigrationError, match=r"0002_future.sql, which this version .* Upgrade sre-bot"):
        await migrate(blank_database_dsn, files)


async def test_vector_files_wait_until_the_extension_appears(
    blank_database_dsn: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = write(
        tmp_path / "sql",
        m0001_vectors="-- requires: vector\nCREATE TABLE v (embedding vector(3))",
        m0002_plain="CREATE TABLE a (x int)",
    )
    with monkeypatch.context() as without:  # as on a server without the package: nothing is on offer
        without.setattr(runner, "VECTOR_OFFERED", "SELECT NULL::text")
        report = await migrate(blank_database_dsn, files)
        assert not report.has_vector
        assert (report.applied, report.waiting) == (("0002_plain.sql",), ("0001_vectors.sql",))
        assert (await check(blank_database_dsn, files)).waiting == ("0001_vectors.sql",)
    assert (await check(blank_database_dsn, files)).pending == ("0001_vectors.sql",)
    report = await migrate(blank_database_dsn, files)
    assert report.has_vector
    assert report.applied == ("0001_vectors.sql",)


async def test_a_user_who_may_not_install_the_extension_gets_the_rest(blank_database_dsn: str, tmp_path: Path) -> None:
    database = blank_database_dsn.rpartition("/")[2]
    files = write(tmp_path / "sql", m0001_plain="CREATE TABLE a (x int)", m0002_vectors="-- requires: vector\nSELECT 1")
    await fetch(blank_database_dsn, f"CREATE ROLE owner_{database} LOGIN PASSWORD 'plain'")
    dsn = re.sub(r"//[^@]*@", f"//owner_{database}:plain@", blank_database_dsn)
    with pytest.raises(MigrationError, match="has to own the database"):
        await migrate(dsn, files)
    await fetch(blank_database_dsn, f"ALTER DATABASE {database} OWNER TO owner_{database}")
    report = await migrate(dsn, files)
    assert (report.has_vector, report.applied) == (False, ("0001_plain.sql",))


async def test_an_old_server_is_refused_by_its_version(
    blank_database_dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runner, "MINIMUM_POSTGRES", 99)
    with pytest.raises(MigrationError, match=r"PostgreSQL 18\.\d+, sre-bot needs 99 or newer"):
        await migrate(blank_database_dsn)


@pytest.mark.parametrize("name", ["1_short.sql", "0001-dash.sql", "0001_Upper.sql"])
def test_a_misnamed_file_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("SELECT 1")
    with pytest.raises(MigrationError, match="NNNN_name"):
        runner.load(tmp_path)


def test_two_files_with_one_number_are_refused(tmp_path: Path) -> None:
    with pytest.raises(MigrationError, match="same number"):
        runner.load(write(tmp_path, m0001_a="SELECT 1", m0001_b="SELECT 1"))


async def test_an_unreachable_database_is_one_line_without_the_password() -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
        with pytest.raises(DatabaseUnavailable) as refused:
            await migrate(f"postgresql://me:s3cret@127.0.0.1:{port}/ops")
    message = str(refused.value)
    assert f"127.0.0.1:{port}/ops: connection refused" in message
    assert "s3cret" not in message
    assert "\n" not in message


@pytest.mark.parametrize("dsn", ["postgresql://me:s3/cret@127.0.0.1:5432/ops", "postgresql://me:pw@h:s3cret/x"])
async def test_a_malformed_address_never_shows_pieces_of_the_password(dsn: str) -> None:
    with pytest.raises(DatabaseUnavailable, match="percent-encoded") as refused:
        await check(dsn)
    assert "s3" not in str(refused.value)
    assert refused.value.__suppress_context__


async def test_wrong_password_and_missing_database_are_told(blank_database_dsn: str) -> None:
    with pytest.raises(DatabaseUnavailable, match="password authentication failed"):
        await check(re.sub(r":[^:@]*@", ":wr0ng@", blank_database_dsn))
    with pytest.raises(DatabaseUnavailable, match=r'database "absent" does not exist'):
        await check(blank_database_dsn.rpartition("/")[0] + "/absent")


class CommitEater:
    """A proxy that passes the n-th COMMIT on to PostgreSQL and then cuts the client off before the reply."""

    def __init__(self, port: int, eaten: int) -> None:
        self._port, self._left = port, eaten
        self._eating = False
        self.cuts = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        up_reader, up_writer = await asyncio.open_connection("127.0.0.1", self._port)
        answers = asyncio.create_task(self._answers(up_reader, writer))
        try:
            while chunk := await reader.read(65536):
                if b"COMMIT" in chunk:
                    self._left -= 1
                    self._eating = self._left == 0
                up_writer.write(chunk)
            up_writer.write_eof()
        finally:
            await answers
            up_writer.close()

    async def _answers(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while chunk := await reader.read(65536):
            if self._eating:  # the server's "done", which the client never sees
                self._eating = False
                self.cuts += 1
                break
            writer.write(chunk)
        writer.close()


@pytest.mark.parametrize("eaten", [1, 2, 3, 4])
async def test_a_lost_reply_to_commit_applies_nothing_twice(
    blank_database_dsn: str, tmp_path: Path, eaten: int
) -> None:
    files = write(tmp_path / "sql", m0001_a="CREATE TABLE a (x int)", m0002_b="INSERT INTO a VALUES (1)")
    real_port = int(blank_database_dsn.rpartition(":")[2].partition("/")[0])
    eater = CommitEater(real_port, eaten)
    async with await asyncio.start_server(eater.serve, "127.0.0.1", 0) as proxy:
        port = proxy.sockets[0].getsockname()[1]
        report = await migrate(blank_database_dsn.replace(f":{real_port}/", f":{port}/"), files)
    assert eater.cuts == 1
    assert report.applied == ("0001_a.sql", "0002_b.sql")
    assert await fetch(blank_database_dsn, "SELECT x FROM a") == [(1,)]
