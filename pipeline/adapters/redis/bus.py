"""Events on Redis Streams: one stream a topic, every listener reads all of it from when it began."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping

from pydantic import TypeAdapter

from pipeline.adapters.redis.connection import ANSWER_TIMEOUT_S, KEY_PREFIX, answering, connect

_MAX_EVENTS = 10_000
"""Kept per stream, about: hours of events. Who was away longer finds the state in the database."""
_BLOCK_MS = int(ANSWER_TIMEOUT_S * 1000 / 2)
"""One blocking read; shorter than the patience for an answer, so that a silent bus is not taken for a lost one."""
_BATCH = 100

_Entries = list[tuple[str, dict[str, str]]]
_ENTRIES = TypeAdapter(_Entries)
_STREAMS = TypeAdapter(list[tuple[str, _Entries]])


class RedisBus:
    """Events shared by the replicas and other agents. ``url`` is a redis:// URL."""

    def __init__(self, url: str) -> None:
        self._client = connect(url)

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

    async def close(self) -> None:
        await self._client.aclose()


def _stream(topic: str) -> str:
    return f"{KEY_PREFIX}bus:{topic}"
