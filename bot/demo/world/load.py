"""The users of the demo world: a steady stream of requests to web, or a surge of it."""

import asyncio
import math
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import aiohttp

from bot.demo.world.spec import SPECS
from bot.demo.world.timing import gap_s

NORMAL_RATE_PER_S = 6.0
SURGE_RATE_PER_S = 32.0
# People wait for their answer before they click again. So a surge makes a queue of at most this length:
# 48 users / 25 requests/s that two checkout replicas serve = 1.9 s of waiting, and no runaway.
_USERS = 48
_WINDOW_S = 15.0


@dataclass(frozen=True, slots=True)
class _Answer:
    at_s: float
    duration_s: float
    success: bool


class Load:
    """Sends requests to the ports that `web_ports` names, in turn."""

    def __init__(self, web_ports: Callable[[], Sequence[int]]) -> None:
        self.surges: set[str] = set()
        """Who wants a surge: it lasts as long as anybody does."""
        self._web_ports = web_ports
        self._answers: deque[_Answer] = deque()
        self._in_flight: set[asyncio.Task[None]] = set()
        self._task: asyncio.Task[None] | None = None
        self._turn = 0

    def start(self) -> None:
        self._task = asyncio.create_task(self._run())

    async def stop(self) -> None:
        tasks = [*self._in_flight, *([self._task] if self._task else [])]
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)

    def view(self) -> dict[str, float | bool | None]:
        """The last 15 seconds as the users saw them; p99_ms is null when nothing was answered."""
        self._forget()
        durations_s = sorted(answer.duration_s for answer in self._answers)
        failed = sum(not answer.success for answer in self._answers)
        answered = len(durations_s)
        p99_s = durations_s[math.ceil(0.99 * answered) - 1] if answered else None
        return {
            "surge": bool(self.surges),
            "offered_per_s": self._rate_per_s,
            "answered_per_s": round(answered / _WINDOW_S, 2),
            "failed_ratio": round(failed / answered, 4) if answered else 0.0,
            "p99_ms": None if p99_s is None else round(p99_s * 1000, 1),
            "waiting_users": len(self._in_flight),
        }

    @property
    def _rate_per_s(self) -> float:
        return SURGE_RATE_PER_S if self.surges else NORMAL_RATE_PER_S

    async def _run(self) -> None:
        async with aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0), timeout=aiohttp.ClientTimeout(total=10)
        ) as session:
            due_s = time.monotonic()
            while True:
                # After a stall of this process the missed arrivals are dropped: nobody clicked them.
                due_s = max(due_s + gap_s(self._rate_per_s), time.monotonic() - 1.0)
                await asyncio.sleep(due_s - time.monotonic())
                if len(self._in_flight) < _USERS:
                    request = asyncio.create_task(self._request(session))
                    self._in_flight.add(request)
                    request.add_done_callback(self._in_flight.discard)

    async def _request(self, session: aiohttp.ClientSession) -> None:
        started_s = time.monotonic()
        success = False
        ports = self._web_ports()
        if ports:
            self._turn += 1
            port = ports[self._turn % len(ports)]
            try:
                async with session.get(f"http://127.0.0.1:{port}{SPECS['web'].route}") as response:
                    await response.read()
                    success = response.status == 200
            except (aiohttp.ClientError, TimeoutError):
                success = False
        ended_s = time.monotonic()
        self._answers.append(_Answer(ended_s, ended_s - started_s, success))
        self._forget()

    def _forget(self) -> None:
        oldest_s = time.monotonic() - _WINDOW_S
        while self._answers and self._answers[0].at_s < oldest_s:
            self._answers.popleft()
