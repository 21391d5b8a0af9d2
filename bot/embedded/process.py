"""Start a server as our child, wait until it is ready, restart it when it dies, stop it."""

import asyncio
import logging
import os
import random
import signal
import socket
import sys
from abc import ABC, abstractmethod
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path
from typing import ClassVar

from bot.embedded.directory import (
    DirectoryInUseError,
    DirectoryLock,
    EmbeddedError,
    ServerHome,
    ServerRecord,
    disk_full,
    explain,
    make_directory,
    new_password,
)
from bot.embedded.leftovers import end_leftovers
from bot.embedded.placement import Account

logger = logging.getLogger(__name__)

LAUNCHER = Path(__file__).with_name("launch.py")
START_TIMEOUT_S = 120.0  # replaying the log after a crash may take a while on a slow disk
READY_POLL_S = 0.02
LOCK_PATIENCE_S = 1.0  # a process killed a moment ago lets go of its locks when it is gone
LOG_CHECK_S = 60.0
STEADY_S = 10.0  # a server that lived this long is restarted at once when it dies
LONGEST_PAUSE_S = 5.0
PORT_TRIES = 5
PORT_RANGE = range(20_000, 32_000)  # below Linux' default range for outgoing connections, 32768 to 60999


class ServerState(StrEnum):
    STOPPED = "stopped"
    STARTING = "starting"
    RUNNING = "running"
    RESTARTING = "restarting"


@dataclass(frozen=True, slots=True)
class ServerHealth:
    """How an embedded server is now. ``detail`` is a line for people, empty when all is well."""

    server: str
    state: ServerState
    pid: int | None = None
    port: int | None = None
    restarts: int = 0
    detail: str = ""


class PortTakenError(EmbeddedError):
    """Another program took the port between our look and the server's bind."""


class SupervisedServer(ABC):
    """One embedded server on ``data_dir``.

    ``start()`` and ``stop()`` belong to one event loop, whose thread must live as long as the server should
    (PR_SET_PDEATHSIG follows the thread that started the child).
    """

    name: ClassVar[str]
    slug: ClassVar[str]
    program: ClassVar[str]
    death_signal: ClassVar[signal.Signals]
    stop_signals: ClassVar[tuple[tuple[signal.Signals, float], ...]]

    def __init__(self, data_dir: Path) -> None:
        self._data_dir = data_dir.absolute()
        self._health = ServerHealth(self.name, ServerState.STOPPED)
        self._locks: list[DirectoryLock] = []
        self._process: asyncio.subprocess.Process | None = None
        self._supervisor: asyncio.Task[None] | None = None
        self._account: Account | None = None
        self._home = ServerHome(self._data_dir / self.slug)
        self._record: ServerRecord | None = None

    @property
    def health(self) -> ServerHealth:
        return self._health

    async def start(self) -> str:
        """Start the server and its supervision; its URL, password included.

        Raises EmbeddedError: wheel missing, directory in use or not writable, disk full, server refuses.
        """
        if self._supervisor is not None:
            raise EmbeddedError(f"the embedded {self.name} is already running")
        self._health = ServerHealth(self.name, ServerState.STARTING)
        try:
            await self._take_directory()
            await self._end_leftovers(gentle=self.stop_signals)
            await self._prepare()
            await self._launch_on_free_port()
        except OSError as error:
            told = explain(error, self._data_dir)
            await self._give_up(told)
            raise told from error
        except BaseException as error:
            await self._give_up(error)
            raise
        self._supervisor = asyncio.create_task(self._supervise(), name=f"supervise {self.name}")
        return self._url(self.record)

    def url_beside(self) -> str | None:
        """The URL of the server that another process supervises on this directory; None when nobody does."""
        path = self._data_dir / f"{self.slug}.lock"
        if not path.exists():
            return None
        try:
            DirectoryLock(path, self._data_dir).release()
        except DirectoryInUseError:
            record = ServerHome(self._place()).load()
            return self._url(record) if record is not None else None
        return None

    async def stop(self) -> None:
        """Stop the server and let the directory go. Does nothing when it is not running."""
        if self._supervisor is not None:
            self._supervisor.cancel()
            await asyncio.wait({self._supervisor})
            self._supervisor = None
        await self._end_process()
        self._release()
        self._health = replace(self._health, state=ServerState.STOPPED, pid=None, detail="")

    @property
    def record(self) -> ServerRecord:
        """Port and password, once ``start()`` has come that far."""
        if self._record is None:
            raise EmbeddedError(f"the embedded {self.name} has not been started")
        return self._record

    @abstractmethod
    def _place(self) -> Path:
        """Choose (and make) the server's directory and the account that runs it. May block."""

    @abstractmethod
    async def _prepare(self) -> None:
        """Make the data ready for a start; ``self._record`` is None when no earlier record is known."""

    @abstractmethod
    def _command(self, record: ServerRecord) -> list[str]:
        """Program and arguments; writes the configuration when the server reads one from a file."""

    @abstractmethod
    async def _is_ready(self, pid: int, record: ServerRecord) -> bool:
        """Whether the process ``pid`` serves clients now."""

    @abstractmethod
    def _marker(self) -> str:
        """What the command lines of this server's processes contain, and no other's."""

    @abstractmethod
    def _url(self, record: ServerRecord) -> str: ...

    async def _give_up(self, error: BaseException) -> None:
        await self._end_process()
        self._release()
        self._health = ServerHealth(self.name, ServerState.STOPPED, detail=str(error))

    async def _take_directory(self) -> None:
        make_directory(self._data_dir)
        await self._lock(self._data_dir / f"{self.slug}.lock")
        home = self._place()
        # A second lock, for a copied data directory whose link leads to the home of the first.
        await self._lock(home / "lock")
        self._home = ServerHome(home)
        self._record = self._home.load()

    async def _lock(self, path: Path) -> None:
        deadline_s = asyncio.get_running_loop().time() + LOCK_PATIENCE_S
        while True:
            try:
                self._locks.append(DirectoryLock(path, self._data_dir))
                return
            except DirectoryInUseError:
                if asyncio.get_running_loop().time() > deadline_s:
                    raise
            await asyncio.sleep(READY_POLL_S)

    def _release(self) -> None:
        while self._locks:
            self._locks.pop().release()

    async def _end_leftovers(self, gentle: Sequence[tuple[signal.Signals, float]] = ()) -> None:
        try:
            ended = await end_leftovers(self.program, self._marker(), gentle)
        except (PermissionError, TimeoutError) as error:
            raise EmbeddedError(
                f"a {self.name} of an earlier run still holds {self._data_dir} and cannot be ended ({error}); "
                "end it by hand"
            ) from error
        if ended and gentle:
            logger.warning("ended a %s that an earlier run left behind on %s", self.name, self._data_dir)

    async def _launch_on_free_port(self) -> None:
        for attempt in range(PORT_TRIES):
            port = choose_port(self._record.port if self._record and attempt == 0 else None)
            password = self._record.password if self._record else new_password()
            record = ServerRecord(port=port, password=password)
            if record != self._record:
                self._home.save(record)
                self._record = record
            try:
                await self._launch()
            except PortTakenError:
                continue
            return
        raise EmbeddedError(f"the embedded {self.name} found no free port on 127.0.0.1 in {PORT_TRIES} tries")

    async def _launch(self) -> None:
        record = self.record
        self._home.trim_log()
        offset_bytes = self._home.log_size_bytes()
        log = self._home.open_log()
        try:
            process = await spawn(
                self._command(record),
                self.death_signal,
                self._account,
                stdin=asyncio.subprocess.DEVNULL,
                output=log,
            )
        finally:
            os.close(log)
        self._process = process
        try:
            async with asyncio.timeout(START_TIMEOUT_S):
                while not await self._is_ready(process.pid, record):
                    if process.returncode is not None:
                        raise self._refusal(self._home.log_since(offset_bytes), record.port)
                    await asyncio.sleep(READY_POLL_S)
        except TimeoutError:
            raise EmbeddedError(
                f"the embedded {self.name} is not ready after {START_TIMEOUT_S:.0f} s; see {self._home.path}/server.log"
            ) from None
        restarts = self._health.restarts
        self._health = ServerHealth(self.name, ServerState.RUNNING, process.pid, record.port, restarts)

    def _refusal(self, log: str, port: int) -> EmbeddedError:
        if "Address already in use" in log:
            return PortTakenError(
                f"port {port} of the embedded {self.name} is taken by another program; end that program"
            )
        if "No space left on device" in log:
            return disk_full(self._data_dir)
        said = " / ".join(line.strip() for line in log.splitlines()[-3:]) or "it said nothing"
        return EmbeddedError(f"the embedded {self.name} does not start: {said} (log: {self._home.path}/server.log)")

    async def _supervise(self) -> None:
        loop = asyncio.get_running_loop()
        pause_s = 0.0
        while True:
            began_s = loop.time()
            code = await self._wait_for_exit()
            pause_s = 0.0 if loop.time() - began_s > STEADY_S else pause_s
            detail = f"ended with code {code}"
            logger.warning("%s (port %d) %s; restarting it", self.name, self.record.port, detail)
            while True:
                self._health = replace(self._health, state=ServerState.RESTARTING, pid=None, detail=detail)
                await asyncio.sleep(pause_s)
                pause_s = min(pause_s * 2 + 0.1, LONGEST_PAUSE_S)
                self._health = replace(self._health, restarts=self._health.restarts + 1)
                try:
                    await self._end_leftovers()
                    await self._launch()
                    break
                except (EmbeddedError, OSError) as error:
                    detail = str(error)
                    logger.error("%s could not be restarted, trying again: %s", self.name, detail)
                    await self._end_process()
            logger.info("%s is back on port %d", self.name, self.record.port)

    async def _wait_for_exit(self) -> int:
        assert self._process is not None
        while True:
            try:
                async with asyncio.timeout(LOG_CHECK_S):
                    return await self._process.wait()
            except TimeoutError:
                self._home.trim_log()

    async def _end_process(self) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        for number, patience_s in (*self.stop_signals, (signal.SIGKILL, START_TIMEOUT_S)):
            if process.returncode is not None:
                return
            with suppress(ProcessLookupError):
                process.send_signal(number)
            with suppress(TimeoutError):
                async with asyncio.timeout(patience_s):
                    await process.wait()


def choose_port(preferred: int | None) -> int:
    """``preferred`` if it is free on 127.0.0.1, else a random free port of PORT_RANGE, else any free one.

    Outside the kernel's range for outgoing connections no client can take the port while the server is away.
    """
    candidates = random.sample(PORT_RANGE, 50)
    for port in ([preferred] if preferred else []) + candidates + [0]:
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as the servers do: TIME_WAIT is free
            with suppress(OSError):
                probe.bind(("127.0.0.1", port))
                return int(probe.getsockname()[1])
    raise EmbeddedError("no free TCP port on 127.0.0.1; end programs that hold them")


async def spawn(
    command: Sequence[str], death_signal: signal.Signals, account: Account | None, *, stdin: int, output: int
) -> asyncio.subprocess.Process:
    """Start ``command`` through launch.py, in a session of its own: Ctrl-C reaches us and not the server.

    The environment is not passed on: PGPORT, LD_PRELOAD and the like are meant for others.
    """
    uid, gid = (account.uid, account.gid) if account else (-1, -1)
    return await asyncio.create_subprocess_exec(
        *(sys.executable, "-I", "-S", str(LAUNCHER)),
        *(str(os.getpid()), str(int(death_signal)), str(uid), str(gid)),
        *command,
        stdin=stdin,
        stdout=output,
        stderr=asyncio.subprocess.STDOUT,
        env={"PATH": "/usr/bin:/bin", "LC_ALL": "C"},
        cwd="/",
        start_new_session=True,
    )


async def run_tool(command: Sequence[str], account: Account | None, text: str = "") -> tuple[int, str]:
    """Run a server's own tool to its end, ``text`` on its input; exit code and output. It dies with us."""
    pipe = asyncio.subprocess.PIPE
    process = await spawn(command, signal.SIGKILL, account, stdin=pipe, output=pipe)
    try:
        out, _ = await process.communicate(text.encode())
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert process.returncode is not None
    return process.returncode, out.decode(errors="replace")
