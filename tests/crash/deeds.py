"""What a strike does: to a replica, to its connections, to the servers, or to the world around it."""

from __future__ import annotations

import asyncio
import signal
from abc import ABC, abstractmethod
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any, assert_never

import aiohttp

from tests.crash.invariants import Blind, SwitchTime
from tests.crash.plans import Strike
from tests.crash.proxy import Cut, TcpProxy
from tests.crash.recorder import Recorder
from tests.crash.servers import Child, Lane
from tests.crash.slack import FaultySlack
from tests.crash.smalldisk import empty, fill


class Deeds(ABC):
    """The part of a trial that does harm; the trial says to what."""

    _lane: Lane
    _children: dict[int, Child]
    _postgres: TcpProxy
    _redis: TcpProxy
    _slack_way: TcpProxy
    _slack: FaultySlack
    _recorder: Recorder
    _switches: list[SwitchTime]
    _blind: list[Blind]
    _foreign: int

    @property
    @abstractmethod
    def _clock(self) -> Path: ...

    @abstractmethod
    def _later(self, work: Coroutine[Any, Any, None]) -> None:
        """Goes on in the background; the trial is not over before it is."""

    @abstractmethod
    async def _revive(self, number: int) -> None: ...

    @abstractmethod
    async def _one(self, statement: str, *arguments: Any) -> Any: ...

    async def _do(self, strike: Strike, said: dict[str, Any]) -> None:
        number: int = said["replica"]
        child = self._children[number]
        match strike.deed:
            case "kill":
                child.send(signal.SIGKILL)
                self._later(self._revive(number))
                await child.gone.wait()
            case "kill_both":
                for other, each in self._children.items():
                    each.send(signal.SIGKILL)
                    self._later(self._revive(other))
                await child.gone.wait()
            case "stop":
                child.send(signal.SIGSTOP)
                self._later(self._after(strike.seconds, lambda: child.send(signal.SIGCONT)))
            case "drain":
                child.send(signal.SIGTERM)
                self._later(self._revive(number))
            case "cut_request" | "cut_reply":
                what = Cut.REQUEST if strike.deed == "cut_request" else Cut.REPLY
                self._postgres.cut(int(said["port"]), what)
            case "postgres_killed":
                self._later(self._lane.kill_postgres())
                await asyncio.sleep(0.05)
            case "postgres_away":
                self._postgres.go_away()
                self._later(self._after(strike.seconds, self._postgres.come_back))
            case "postgres_frozen":
                self._postgres.freeze()
                self._later(self._after(strike.seconds, self._postgres.thaw))
            case "redis_killed":
                self._later(self._lane.kill_redis())
                await asyncio.sleep(0.05)
            case "redis_flushed":
                await self._lane.flush_redis()
            case "redis_away":
                self._redis.go_away()
                self._later(self._after(strike.seconds, self._redis.come_back))
            case "slack_limited":
                await self._trouble(rate_limit_s=strike.seconds)
                self._later(self._after(strike.seconds, lambda: None))
            case "slack_outage":
                await self._trouble(outage=True)
                self._later(self._outage_over(strike.seconds))
            case "slack_away":
                self._slack_way.go_away()
                self._later(self._after(strike.seconds, self._slack_way.come_back))
            case "slack_socket_dropped":
                await self._trouble(drop_socket=True)
            case "slack_reply_lost":
                self._slack_way.cut_next(Cut.REPLY)
            case "switch_on":
                await self._switch_on()
            case "foreign_change":
                self._recorder.foreign_change()
                self._foreign += 1
            case "clock_jumps":
                self._clock.write_text(f"{strike.seconds:+.0f}\n")
            case "expire":
                await self._one(
                    "UPDATE plans SET expires_at = clock_timestamp() - interval '1 s' WHERE state = 'proposed'"
                )
            case "trail_full":
                await self._no_room_for_the_trail(strike.seconds)
            case "disk_full":
                assert self._lane.disk is not None
                await asyncio.to_thread(fill, self._lane.disk)
                self._later(self._room_again(strike.seconds))
            case _:
                assert_never(strike.deed)

    async def _after(self, seconds: float, then: Callable[[], object]) -> None:
        await asyncio.sleep(seconds)
        then()

    async def _outage_over(self, seconds: float) -> None:
        await asyncio.sleep(seconds)
        await self._trouble(outage=False)

    async def _trouble(self, **what: Any) -> None:
        url = f"{self._slack.base_url}/local/trouble"
        async with aiohttp.ClientSession() as http, http.post(url, json=what) as answer:
            answer.raise_for_status()

    async def _switch_on(self) -> None:
        since = await self._one(
            """INSERT INTO kill_switches (scope, engaged, reason, changed_by) VALUES ('all', true, 'trial', 'U0BOB')
               ON CONFLICT (scope) DO UPDATE SET engaged = true RETURNING clock_timestamp()"""
        )
        self._switches.append(SwitchTime("all", since))

    async def _no_room_for_the_trail(self, seconds: float) -> None:
        """Every entry of the trail is refused with PostgreSQL's own words for a full disk."""
        await self._one("INSERT INTO no_room VALUES (clock_timestamp())")
        since = await self._one("SELECT clock_timestamp()")

        async def room_for_the_trail() -> None:
            await asyncio.sleep(seconds)
            until = await self._one("SELECT clock_timestamp()")
            self._blind.append(Blind(since, until))
            await self._one("DELETE FROM no_room")

        self._later(room_for_the_trail())

    async def _room_again(self, seconds: float) -> None:
        assert self._lane.disk is not None
        await asyncio.sleep(seconds)
        await asyncio.to_thread(empty, self._lane.disk)
        await self._lane.postgres_answers()
