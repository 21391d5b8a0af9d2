"""The embedded PostgreSQL with pgvector: the wheel's binaries, a cluster of our own, supervised."""

import asyncio
import hashlib
import hmac
import os
import secrets
import shutil
import signal
from pathlib import Path
from urllib.parse import urlsplit

from bot.embedded.directory import (
    EmbeddedError,
    ServerRecord,
    disk_full,
    new_password,
    sync_directory,
    write_private,
)
from bot.embedded.placement import (
    SYSTEM_DIR,
    PostgresBinaries,
    account_for,
    find_binaries,
    place_binaries,
    place_home,
)
from bot.embedded.process import SupervisedServer, choose_port, run_tool
from migrations.roles import APP_ROLE, AppLogin

ROLE = "sre_bot"
DATABASE = "sre_bot"

# Small, and safe before fast: the bot's record of what it did must survive a power cut.
SETTINGS = {
    "listen_addresses": "127.0.0.1",
    "unix_socket_directories": "",  # a socket's path is limited to 107 bytes, a data directory's is not
    "shared_buffers": "64MB",
    "max_connections": "60",
    "fsync": "on",
    "synchronous_commit": "on",
    "max_wal_size": "256MB",
    "max_parallel_maintenance_workers": "0",  # parallel builds need more than a container's /dev/shm
    "timezone": "UTC",
    "log_timezone": "UTC",
    "log_checkpoints": "off",
}


class EmbeddedPostgres(SupervisedServer):
    """A PostgreSQL on 127.0.0.1 with the database ``sre_bot``, owned by the superuser ``sre_bot``.

    ``start()`` returns ``postgresql://sre_bot:<password>@127.0.0.1:<port>/sre_bot``. ``system_dir`` is where
    copies go that the account which runs PostgreSQL for root can reach.
    """

    name = "PostgreSQL"
    slug = "postgres"
    program = "postgres"
    death_signal = signal.SIGINT  # fast shutdown: clients are cut, nothing needs recovery afterwards
    stop_signals = ((signal.SIGINT, 15.0), (signal.SIGQUIT, 5.0))

    def __init__(self, data_dir: Path, *, system_dir: Path = SYSTEM_DIR) -> None:
        super().__init__(data_dir)
        self._system_dir = system_dir
        self._binaries: PostgresBinaries | None = None

    @staticmethod
    def app_login(url: str) -> AppLogin:
        """The bot's own login beside the owner of ``url``. Its password follows from the owner's, never the reverse."""
        secret = (urlsplit(url).password or "").encode()
        return AppLogin(APP_ROLE, hmac.digest(secret, APP_ROLE.encode(), "sha256").hex())

    @property
    def _cluster(self) -> Path:
        return self._home.path / "cluster"

    def _place(self) -> Path:
        cluster = Path(os.path.realpath(self._data_dir / self.slug)) / "cluster"
        self._account = account_for(cluster)
        version = cluster / "PG_VERSION"
        major = int(version.read_text()) if version.exists() else None
        self._binaries = place_binaries(find_binaries(major), self._account, self._system_dir)
        return place_home(self._data_dir, self._account, self._system_dir)

    async def _prepare(self) -> None:
        if not self._cluster.exists():
            await self._make_cluster()
        elif self._record is None:
            self._record = ServerRecord(port=choose_port(None), password=new_password())
            await self._single_user(self._cluster, f"ALTER ROLE {ROLE} PASSWORD '{self._record.password}'")
            self._home.save(self._record)

    async def _make_cluster(self) -> None:
        """Made beside its place and renamed into it: a crash on the way leaves nothing that looks whole."""
        if self._record is None:
            self._record = ServerRecord(port=choose_port(None), password=new_password())
            self._home.save(self._record)
        for litter in self._home.path.glob("draft-*"):
            await asyncio.to_thread(shutil.rmtree, litter)
        draft = self._home.path / f"draft-{secrets.token_hex(4)}"
        draft.mkdir(mode=0o700)
        cluster, password = draft / "cluster", draft / "password"
        write_private(password, self._record.password + "\n")
        for path in (draft, password):
            self._give(path)
        try:
            code, said = await run_tool(
                [
                    *(self._tool("initdb"), "--pgdata", str(cluster), "--username", ROLE),
                    *("--pwfile", str(password), "--auth", "scram-sha-256", "--encoding", "UTF8", "--locale", "C"),
                    # Code point order with Unicode upper and lower case, the same on every machine.
                    *("--locale-provider", "builtin", "--builtin-locale", "C.UTF-8", "--no-instructions"),
                ],
                self._account,
            )
            if code != 0:
                raise self._tool_error("initdb", said)
            await self._single_user(cluster, f"CREATE DATABASE {DATABASE}")
            cluster.rename(self._cluster)
            sync_directory(self._home.path)
        finally:
            await asyncio.to_thread(shutil.rmtree, draft, ignore_errors=True)

    def _give(self, path: Path) -> None:
        if self._account is not None:
            os.chown(path, self._account.uid, self._account.gid)

    async def _single_user(self, cluster: Path, statement: str) -> None:
        """Run one statement while no server runs (postgres --single exits 0 whatever happens in it)."""
        (cluster / "postmaster.pid").unlink(missing_ok=True)
        command = [self._tool("postgres"), "--single", "-D", str(cluster), "-c", "log_checkpoints=off"]
        code, said = await run_tool(
            [*command, "-c", f"cluster_name={self._marker()}", "postgres"], self._account, statement + "\n"
        )
        if code != 0 or any(word in said for word in ("ERROR:", "FATAL:", "PANIC:")):
            raise self._tool_error("postgres --single", said.replace(self.record.password, "…"))

    def _tool(self, name: str) -> str:
        assert self._binaries is not None
        return self._binaries.tool(name)

    def _tool_error(self, tool: str, said: str) -> EmbeddedError:
        if "No space left on device" in said:
            return disk_full(self._data_dir)
        lines = " / ".join(line.strip() for line in said.splitlines()[-4:])
        return EmbeddedError(f"the embedded PostgreSQL cannot be set up in {self._data_dir}, {tool} says: {lines}")

    def _command(self, record: ServerRecord) -> list[str]:
        # No process of this cluster lives (start and restart ended them): the pid in the file is a stranger.
        (self._cluster / "postmaster.pid").unlink(missing_ok=True)
        settings = {**SETTINGS, "port": str(record.port), "cluster_name": self._marker()}
        options = [word for name, value in settings.items() for word in ("-c", f"{name}={value}")]
        return [self._tool("postgres"), "-D", str(self._cluster), *options]

    async def _is_ready(self, pid: int, record: ServerRecord) -> bool:
        """As pg_ctl asks: postmaster.pid has the pid in line 1, the port in line 4, the status in line 8."""
        try:
            lines = (self._cluster / "postmaster.pid").read_text().splitlines()
        except FileNotFoundError:
            return False
        return len(lines) >= 8 and (lines[0], lines[3], lines[7].strip()) == (
            str(pid),
            str(record.port),
            "ready",
        )

    def _marker(self) -> str:
        return "sre-bot-" + hashlib.sha256(os.fsencode(self._home.path)).hexdigest()[:16]

    def _url(self, record: ServerRecord) -> str:
        return f"postgresql://{ROLE}:{record.password}@127.0.0.1:{record.port}/{DATABASE}"
