"""The whole demo as a person starts it, for tests that look at it from the outside."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

import psutil

START_S = 120.0
STOP_S = 60.0
Found = TypeVar("Found")


def until(look: Callable[[], Found | None], what: str, timeout_s: float) -> Found:
    """Polls ``look`` until it finds something."""
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        found = look()
        if found:
            return found
        time.sleep(0.2)
    raise AssertionError(f"{what} did not come within {timeout_s:.0f} s")


class WholeDemo:
    """A running ``sre-bot demo``: its addresses, its processes, and its last words."""

    def __init__(self, process: subprocess.Popen[bytes], data_dir: Path, log: Path) -> None:
        self.process = process
        self.data_dir = data_dir
        self.log = log

    @property
    def page_url(self) -> str:
        return str(self._running()["page"])

    @property
    def world_url(self) -> str:
        return str(self._running()["world"])

    def bots(self) -> list[psutil.Process]:
        """The bot's processes that run now, one a replica."""
        found = []
        for child in psutil.Process(self.process.pid).children():
            try:
                if child.cmdline()[-2:] == ["bot", "run"] and child.status() != psutil.STATUS_ZOMBIE:
                    found.append(child)
            except psutil.NoSuchProcess:
                continue
        return found

    def bot(self) -> psutil.Process | None:
        """The bot's process, while there is one."""
        return next(iter(self.bots()), None)

    def setting(self, name: str) -> str:
        """A variable of the running bot's environment."""
        bot = until(self.bot, "the bot's process", START_S)
        return bot.environ()[name]

    def kill_bot(self) -> None:
        """kill -9; the demo starts it again."""
        until(self.bot, "the bot's process", START_S).send_signal(signal.SIGKILL)

    def said(self) -> str:
        bot_log = self.data_dir / "bot.log"
        return self.log.read_text() + (bot_log.read_text() if bot_log.exists() else "")

    def _running(self) -> dict[str, object]:
        found: dict[str, object] = json.loads((self.data_dir / "demo.json").read_text())
        return found


@contextmanager
def whole_demo(data_dir: Path, *, replicas: int = 1) -> Iterator[WholeDemo]:
    """Starts it, and stops it as Ctrl-C does: everything it started must be gone afterwards."""
    log = data_dir.with_suffix(".log")
    environ = {name: value for name, value in os.environ.items() if not name.startswith(("SRE_", "ANTHROPIC_"))}
    # Tests act on one target again and again.
    environ |= {"SRE_COOLDOWN_S": "1", "SRE_INEFFECTIVE_S": "1", "SRE_MAX_REVERSALS": "99"}
    with log.open("wb") as output:
        process = subprocess.Popen(
            [
                sys.executable,
                "-m",
                "bot",
                "demo",
                "--port",
                "0",
                "--data-dir",
                str(data_dir),
                "--replicas",
                str(replicas),
            ],
            stdout=output,
            stderr=output,
            env=environ,
            start_new_session=True,
        )
    demo = WholeDemo(process, data_dir, log)
    try:
        until(lambda: "ready." in log.read_text() or process.poll() is not None, "a started demo", START_S)
        assert process.poll() is None, demo.said()
        started = psutil.Process(process.pid).children(recursive=True)
        yield demo
    finally:
        process.send_signal(signal.SIGINT)
        try:
            code = process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            process.kill()
            raise AssertionError(f"the demo did not stop: {demo.said()}") from None
    assert code == 0, demo.said()
    _, alive = psutil.wait_procs(started, timeout=10)
    assert not alive, f"left behind: {[child.cmdline() for child in alive if child.is_running()]}"
