"""python -m bot.demo.world --data-dir D [--port 0] [--parent-pid P]: the demo world, until SIGTERM or Ctrl-C.

Prints one JSON line {"url": "http://127.0.0.1:PORT"} when all services are up.
"""

import argparse
import asyncio
import fcntl
import json
import logging
import signal
import sys
from pathlib import Path
from typing import IO

from aiohttp import web

from bot.demo.world.api import ControlApi
from bot.demo.world.certificate import ensure_authority, issue_certificate
from bot.demo.world.config_repo import ConfigRepo, GitError
from bot.demo.world.faults import (
    HEALTHY_CERTIFICATE,
    BadDeploy,
    CertExpiry,
    DiskFill,
    FaultBoard,
    MemoryLeak,
    Slow,
    WrongFix,
)
from bot.demo.world.journal import Journal, JournalError
from bot.demo.world.load import Load
from bot.demo.world.process_guard import ParentGoneError, die_with_parent
from bot.demo.world.spec import WorldPaths
from bot.demo.world.supervisor import Supervisor

_START_TIMEOUT_S = 60.0


class StartError(Exception):
    """The world cannot start; the message says why and what to do."""


async def run(paths: WorldPaths, port: int) -> None:
    """Run the world until SIGTERM or SIGINT. Raises: StartError, JournalError, GitError, OSError, TimeoutError."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for stop_signal in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(stop_signal, stop.set)
    repo = ConfigRepo(paths)
    await repo.ensure()
    ensure_authority(paths.authority)
    if not paths.certificate.exists():
        issue_certificate(paths.authority, paths.certificate, HEALTHY_CERTIFICATE)
    supervisor = Supervisor(paths, Journal(paths.root))
    load = Load(lambda: [replica.port for replica in supervisor.ready("web") if replica.port is not None])
    faults = FaultBoard(
        (
            MemoryLeak(supervisor),
            Slow(load),
            BadDeploy(repo, paths),
            DiskFill(supervisor, paths),
            CertExpiry(paths),
            WrongFix(load, paths),
        ),
        paths.root / "faults.json",
    )
    load.surges = {name for name in (Slow.name, WrongFix.name) if faults.was_active(name)}
    runner = web.AppRunner(ControlApi(supervisor, faults, load).app(), access_log=None, shutdown_timeout=2.0)
    await runner.setup()
    try:
        url = await _listen(runner, port)
        supervisor.start()
        if await _ready(supervisor, stop):
            load.start()
            sys.stdout.write(json.dumps({"url": url}) + "\n")
            sys.stdout.flush()
            await stop.wait()
    finally:
        await load.stop()
        await runner.cleanup()
        await supervisor.stop()


async def _listen(runner: web.AppRunner, port: int) -> str:
    try:
        await web.TCPSite(runner, "127.0.0.1", port).start()
    except OSError as error:
        raise StartError(f"port {port} cannot be used: {error.strerror}; choose another with --port") from error
    return f"http://127.0.0.1:{runner.addresses[0][1]}"


async def _ready(supervisor: Supervisor, stop: asyncio.Event) -> bool:
    """True when all services are up, False when somebody stopped us before."""
    ready = asyncio.create_task(supervisor.wait_ready(_START_TIMEOUT_S))
    stopped = asyncio.create_task(stop.wait())
    await asyncio.wait({ready, stopped}, return_when=asyncio.FIRST_COMPLETED)
    stopped.cancel()
    if not ready.done():
        ready.cancel()
        return False
    ready.result()
    return True


def _lock(path: Path) -> IO[str]:
    """Hold the data directory for this process alone; the kernel gives it free when the process ends."""
    path.parent.mkdir(parents=True, exist_ok=True)
    file = path.open("w")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        file.close()
        raise StartError(f"another demo world is running in {path.parent}; stop it first") from error
    return file


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bot.demo.world")
    parser.add_argument("--data-dir", required=True, type=Path)
    parser.add_argument("--port", default=0, type=int, help="loopback port of the control API; 0: any free one")
    parser.add_argument("--parent-pid", type=int, help="our parent; the world ends when it dies")
    arguments = parser.parse_args()
    logging.basicConfig(format="demo world: %(message)s", level=logging.WARNING)
    try:
        if arguments.parent_pid is not None:
            die_with_parent(arguments.parent_pid, signal.SIGTERM)
        paths = WorldPaths(arguments.data_dir.absolute() / "world")
        with _lock(paths.root / "lock"):
            asyncio.run(run(paths, arguments.port))
    except (StartError, JournalError, GitError, ParentGoneError, OSError, TimeoutError) as error:
        sys.stderr.write(f"demo world: {error}\n")
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
