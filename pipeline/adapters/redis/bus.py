"""Events on Redis Streams: one stream a topic.

Every listener reads all of it from when it began. A group's consumers share it: each event goes to one of them, and to
another when that one fell silent (XAUTOCLAIM, whose answer has two elements on Redis 6.2 and three from 7 on).
https://redis.io/docs/latest/develop/data-types/streams/#consumer-groups
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Mapping, Sequence

from pydantic import TypeAdapter
from redis.exceptions import ResponseError

from pipeline.adapters.redis.connection import ANSWER_TIMEOUT_S, KEY_PREFIX, answering, connect
from pipeline.domain.errors import TemporaryError
from pipeline.ports.bus import BusEvent

_MAX_EVENTS = 10_000
"""Kept per stream, about: hours of events. Who was away longer finds the state in the database."""
_BLOCK_MS = int(ANSWER_TIMEOUT_S * 1000 / 2)
"""One blocking read; shorter than the patience for an answer, so that a silent bus is not taken for a lost one."""
_BATCH = 100
_FORGET_CONSUMER_MS = 24 * 3600 * 1000
"""A consumer is named after its process: one that has nothing open and was silent for a day is gone."""

_Entries = list[tuple[str, dict[str, str]]]
_ENTRIES = TypeAdapter(_Entries)
_STREAMS = TypeAdapter(list[tuple[str, _Entries]])
_CLAIMED = TypeAdapter(list[tuple[str | None, dict[str, str] | None]])
"""Redis 6.2 gives a pair of nothings for an event that was cut off the stream's end before it was done."""


class RedisBus:
    """Events shared by the replicas and other agents. ``url`` is a redis:// URL."""

    def __init__(self, url: str) -> None:
        self._client = connect(url)
        self._claimed_s: dict[tuple[str, str], float] = {}

    async def publish(self, topic: str, fields: Mapping[str, str]) -> None:
        """Appends one event of at least one field; a repeat after a lost answer may append it twice."""
        async with answering(self._client):
            await self._client.xadd(_stream(topic), dict(fields), maxlen=_MAX_EVENTS, approximate=True)  # type: ignore[arg-type]

    async def listen(self, topic: str) -> AsyncIterator[Mapping[str, str]]:
        """Events from the first ``anext`` on.

        A connection that drops is made anew and continues where it was; TemporaryError when Redis stays away.
        """
        stream = _stream(topic)
        async with answering(self._client):
            newest = _ENTRIES.validate_python(await self._client.xrevrange(stream, count=1))
        # Not "$": that would skip what comes in while a dropped connection is made anew.
        position = newest[0][0] if newest else "0-0"
        while True:
            async with answering(self._client):
                answer = await self._client.xread({stream: position}, count=_BATCH, block=_BLOCK_MS)
            for _, entries in _STREAMS.validate_python(answer):
                for event_id, fields in entries:
                    yield fields
                    position = event_id

    async def take(self, topic: str, *, group: str, consumer: str, idle_s: float) -> Sequence[BusEvent]:
        """A group begins with what the stream still holds; one that the server has lost is made anew."""
        try:
            return await self._left_behind(topic, group, consumer, idle_s) or await self._new(topic, group, consumer)
        except TemporaryError as error:
            if not (isinstance(error.__cause__, ResponseError) and str(error.__cause__).startswith("NOGROUP")):
                raise
        await self._make_group(topic, group)
        return []

    async def done(self, topic: str, *, group: str, event_id: str) -> None:
        async with answering(self._client):
            await self._client.xack(_stream(topic), group, event_id)

    async def _left_behind(self, topic: str, group: str, consumer: str, idle_s: float) -> Sequence[BusEvent]:
        """Looked for at most once in ``idle_s``: nothing can have become older meanwhile than it was then."""
        if time.monotonic() - self._claimed_s.get((topic, group), float("-inf")) < idle_s:
            return []
        async with answering(self._client):
            answer = await self._client.xautoclaim(
                _stream(topic), group, consumer, min_idle_time=int(idle_s * 1000), count=_BATCH
            )
        claimed = _CLAIMED.validate_python(answer[1])
        found = [BusEvent(event_id, fields) for event_id, fields in claimed if event_id and fields is not None]
        if len(found) < len(claimed):
            await self._let_go_of_the_cut_off(topic, group, consumer)
        if not found:
            self._claimed_s[topic, group] = time.monotonic()
        return found

    async def _let_go_of_the_cut_off(self, topic: str, group: str, consumer: str) -> None:
        async with answering(self._client):
            held = await self._client.xpending_range(_stream(topic), group, "-", "+", _BATCH, consumername=consumer)
            for one in held:
                event_id = one["message_id"]
                if not await self._client.xrange(_stream(topic), event_id, event_id):
                    await self._client.xack(_stream(topic), group, event_id)

    async def _new(self, topic: str, group: str, consumer: str) -> Sequence[BusEvent]:
        async with answering(self._client):
            answer = await self._client.xreadgroup(
                group, consumer, {_stream(topic): ">"}, count=_BATCH, block=_BLOCK_MS
            )
        streams = _STREAMS.validate_python(answer)
        return [BusEvent(event_id, fields) for _, entries in streams for event_id, fields in entries]

    async def _make_group(self, topic: str, group: str) -> None:
        async with answering(self._client):
            try:
                await self._client.xgroup_create(_stream(topic), group, id="0", mkstream=True)
            except ResponseError as error:
                if not str(error).startswith("BUSYGROUP"):  # another replica was first
                    raise
            for one in await self._client.xinfo_consumers(_stream(topic), group):
                if one["pending"] == 0 and one["idle"] > _FORGET_CONSUMER_MS:
                    await self._client.xgroup_delconsumer(_stream(topic), group, one["name"])

    async def close(self) -> None:
        await self._client.aclose()


def _stream(topic: str) -> str:
    return f"{KEY_PREFIX}bus:{topic}"
