"""The life of one replica: its process is started, watched, drained, restarted and started again after a crash."""

import asyncio
import json
import logging
import os
import sys
import time
import uuid
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime

from bot.demo.world.spec import WorldPaths

# Callers re-read the list of instances every 0.5 s; a second later no new request reaches one that was taken off it.
_DRAIN_S = 1.0
_STOP_TIMEOUT_S = 6.0  # more than the instance allows itself to finish its requests
_FIRST_BACKOFF_S = 0.5
_LONGEST_BACKOFF_S = 10.0
_STABLE_AFTER_S = 30.0  # the time a process has to live for the next crash to begin at the first back-off

_log = logging.getLogger(__name__)


def new_uid() -> str:
    return str(uuid.uuid4())


class Replica:
    """One named place of a service. The uid changes with every new process that is to stand in it."""

    def __init__(self, service: str, name: str, paths: WorldPaths, on_change: Callable[[], None]) -> None:
        """`on_change` is called whenever `port` came or went."""
        self.service = service
        self.name = name
        self.uid = new_uid()
        self.started_at = datetime.now(UTC)
        self.pid: int | None = None
        self.port: int | None = None
        self.retiring = False
        self._paths = paths
        self._on_change = on_change
        self._wake = asyncio.Event()
        self._hurry = asyncio.Event()
        self.life = asyncio.create_task(self._live())

    @property
    def ready(self) -> bool:
        """Takes requests: the process announced its port and is not on its way out."""
        return self.port is not None

    def restart(self, successor_uid: str) -> None:
        """Have the process drained, stopped and replaced by one that bears the uid given."""
        self._renew(successor_uid)
        self._wake.set()

    def retire(self) -> None:
        """Have the process drained and stopped for good; `life` ends when it is gone."""
        self.retiring = True
        self._withdraw()
        self._wake.set()

    def stop_now(self) -> None:
        """Stop without draining: the whole world ends."""
        self._hurry.set()
        self.retire()

    def _renew(self, uid: str) -> None:
        self.uid = uid
        self.started_at = datetime.now(UTC)
        self.pid = None
        self._withdraw()

    def _withdraw(self) -> None:
        if self.port is not None:
            self.port = None
            self._on_change()

    async def _live(self) -> None:
        backoff_s = _FIRST_BACKOFF_S
        while not self.retiring:
            self._wake.clear()
            began = time.monotonic()
            try:
                process = await self._spawn()
            except OSError as error:
                ended = f"cannot be started: {error}"
            else:
                await self._serve(process)
                if self._wake.is_set():
                    await self._stop(process)
                    continue
                ended = f"ended with status {process.returncode}, see {self._paths.stderr_file(self.name)}"
            self._renew(new_uid())
            if time.monotonic() - began > _STABLE_AFTER_S:
                backoff_s = _FIRST_BACKOFF_S
            _log.warning("%s %s; starting it in %.1f s", self.name, ended, backoff_s)
            await _wait(self._wake, backoff_s)
            backoff_s = min(2 * backoff_s, _LONGEST_BACKOFF_S)

    async def _spawn(self) -> Process:
        stderr_file = self._paths.stderr_file(self.name)
        stderr_file.parent.mkdir(parents=True, exist_ok=True)
        arguments = ("--service", self.service, "--name", self.name, "--world-dir", str(self._paths.root))
        with stderr_file.open("ab") as stderr:
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                "bot.demo.world.instance",
                *arguments,
                "--parent-pid",
                str(os.getpid()),
                stdin=DEVNULL,
                stdout=PIPE,
                stderr=stderr,
                # The bot's tokens are none of a service's business.
                env={"PATH": os.defpath, "LANG": "C.UTF-8"},
                # Ctrl-C in the terminal is for the supervisor, which then stops its services in order.
                start_new_session=True,
            )
        self.pid = process.pid
        return process

    async def _serve(self, process: Process) -> None:
        """Until the process ends or somebody wakes us."""
        assert process.stdout is not None
        announced = asyncio.create_task(process.stdout.readline())
        exited = asyncio.create_task(process.wait())
        woken = asyncio.create_task(self._wake.wait())
        try:
            await asyncio.wait({announced, woken}, return_when=asyncio.FIRST_COMPLETED)
            if not woken.done() and (line := announced.result()):
                self.port = json.loads(line)["port"]
                self._on_change()
            await asyncio.wait({exited, woken}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in (announced, exited, woken):
                task.cancel()

    async def _stop(self, process: Process) -> None:
        await _wait(self._hurry, _DRAIN_S)
        with suppress(ProcessLookupError):
            process.terminate()
        try:
            await asyncio.wait_for(process.wait(), _STOP_TIMEOUT_S)
        except TimeoutError:
            with suppress(ProcessLookupError):
                process.kill()
            await process.wait()


async def _wait(event: asyncio.Event, seconds: float) -> None:
    """Wait for the event, at most so long."""
    with suppress(TimeoutError):
        await asyncio.wait_for(event.wait(), seconds)
