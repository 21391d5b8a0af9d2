"""One replica of the bot in a process of its own, or a warm process that brings replicas into the world by fork.

``python -m tests.crash.replica`` reads one JSON line (``ReplicaOrder``) from its input and is that replica: the real
composition root, real servers, with moments wrapped around its ports. With ``--warm`` it reads orders for as long as
its input lasts and forks for each; it answers with the pid.
"""

from __future__ import annotations

import asyncio
import ctypes
import json
import logging
import os
import signal
import sys
import time
import traceback
from dataclasses import asdict, dataclass, field
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import bot.demo.launch
import bot.wiring as wiring
import bot.wiring.targets as wired_targets
import executors.ledger
import executors.recovery
import executors.runner
import pipeline.adapters.postgres.outbox
from bot.config import load
from bot.slack.chart_files import ChartFiles
from bot.wiring.knowledge import KnowledgeBase, knowledge_of
from pipeline.domain.incident import Case
from pipeline.ports.clock import SystemClock
from pipeline.stages.decide import Decider
from tests.crash.points import (
    Moments,
    wrapped_approve,
    wrapped_bus,
    wrapped_locks,
    wrapped_publisher,
    wrapped_store,
    wrapped_target,
)

PR_SET_PDEATHSIG = 1
"""A replica never outlives the process that forked it. man 2 prctl"""
HASTE: tuple[tuple[Any, str, float], ...] = (
    (executors.ledger, "RETRY_S", 0.4),
    (executors.ledger, "PATIENCE_S", 12.0),
    (executors.recovery, "GIVE_UP_S", 10.0),
    (executors.runner, "POLL_S", 0.1),
    (pipeline.adapters.postgres.outbox, "CARD_INTERVAL_S", 0.2),
    (bot.slack.publisher, "UPDATE_EVERY_S", 0.2),
    (bot.relay, "MAX_BACKOFF_S", 2.0),
    (bot.runtime, "IDLE_S", 0.4),
)
"""Waits that are cut short, so that a trial takes seconds; every one is of the product's and keeps its meaning."""


@dataclass(frozen=True, slots=True)
class ReplicaOrder:
    """What a replica is told. ``armed`` maps moments to passings; ``trial`` is the socket it tells them to."""

    number: int
    environment: dict[str, str]
    armed: dict[str, list[int]] = field(default_factory=dict)
    trial: str = ""
    log: str = ""
    target_timeout_s: float = 1.5
    clock_file: str = ""
    """Its clock goes wrong by the seconds that stand in this file, as libfaketime reads them."""

    def line(self) -> str:
        return json.dumps(asdict(self)) + "\n"


def order_of(line: str) -> ReplicaOrder:
    return ReplicaOrder(**json.loads(line))


def run(order: ReplicaOrder) -> None:
    """Is the replica, until SIGTERM or worse."""
    for module, name, value in HASTE:
        if not hasattr(module, name):
            raise SystemExit(f"{module.__name__} has no {name} any more: mend tests/crash/replica.py")
        setattr(module, name, value)
    if order.clock_file:
        _misset_clock(Path(order.clock_file))
    armed = {moment: frozenset(passings) for moment, passings in order.armed.items()}
    moments = Moments(order.number, armed, Path(order.trial))
    places: dict[str, Any] = {
        "PostgresStore": wrapped_store(moments),
        "LocalProcessTarget": wrapped_target(moments, order.target_timeout_s),
        "SlackPublisher": wrapped_publisher(moments),
        "RedisBus": wrapped_bus(moments),
        "RedisLocks": wrapped_locks(moments),
        "knowledge_of": partial(knowledge_of, words_only=True),
    }
    for name, place in places.items():
        module = wired_targets if name == "LocalProcessTarget" else wiring
        if not hasattr(module, name):
            raise SystemExit(f"{module.__name__} has no {name} any more: mend tests/crash/replica.py")
        setattr(module, name, place)
    Decider.approve = wrapped_approve(Decider.approve, moments)  # type: ignore[method-assign,assignment]
    # Charts, runbooks and embeddings change nothing that is checked here, and cost seconds a start.
    ChartFiles.file_id = _no_chart  # type: ignore[method-assign]
    KnowledgeBase.learn = _no_learning  # type: ignore[method-assign]
    logging.basicConfig(level="INFO", stream=sys.stderr, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    asyncio.run(_serve(order, moments))


def _misset_clock(offset: Path) -> None:
    """What libfaketime does to a whole process, done to the bot's own clocks, where that library is not there."""
    right_time, right_now = time.time, SystemClock.now

    def wrong_now(self: SystemClock) -> datetime:
        return right_now(self) + timedelta(seconds=float(offset.read_text()))

    setattr(time, "time", lambda: right_time() + float(offset.read_text()))  # noqa: B010 - a module's function
    setattr(SystemClock, "now", wrong_now)  # noqa: B010


async def _no_chart(self: ChartFiles, case: Case) -> str | None:
    del self, case
    return None


async def _no_learning(self: KnowledgeBase) -> None:
    del self


async def _serve(order: ReplicaOrder, moments: Moments) -> None:
    settings = load(order.environment, env_file=None)
    told_to_stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, told_to_stop.set)
    async with wiring.running_bot(settings):
        moments.tell(up=True)
        await told_to_stop.wait()


def warm() -> None:
    """Forks a replica for each order; reaps them, and says on its output who was born and who has ended how."""
    signal.signal(signal.SIGCHLD, _reap)
    for line in sys.stdin:
        order = order_of(line)
        # Nobody is reported gone before he is reported born.
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGCHLD})
        pid = os.fork()
        if pid == 0:
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGCHLD})
            _become(order)
        _say({"born": pid})
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGCHLD})


def _become(order: ReplicaOrder) -> None:
    os.setsid()
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    nothing = os.open(os.devnull, os.O_RDONLY)
    log = os.open(order.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(nothing, 0)
    os.dup2(log, 1)
    os.dup2(log, 2)
    code = 1
    try:
        run(order)
        code = 0
    except BaseException:
        traceback.print_exc()
        raise
    finally:
        sys.stderr.flush()
        os._exit(code)


def _reap(*_: object) -> None:
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return
        if pid == 0:
            return
        _say({"gone": pid, "status": os.waitstatus_to_exitcode(status)})


def _say(what: dict[str, int]) -> None:
    os.write(1, json.dumps(what).encode() + b"\n")


if __name__ == "__main__":
    if "--warm" in sys.argv:
        warm()
    else:
        run(order_of(sys.stdin.readline()))
