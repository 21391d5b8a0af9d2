"""Consumer groups on the embedded Redis (6.2) and on Debian's (7): each event to one, to another when that one dies."""

import asyncio
import shutil
import subprocess
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
import redis

from pipeline.adapters.redis import bus as redis_bus
from pipeline.adapters.redis.bus import RedisBus
from pipeline.domain.errors import TemporaryError
from tests.databases import flush_redis, open_directory

TOPIC, GROUP = "intake", "sre-bot"


@pytest.fixture(scope="module")
def redis_seven() -> Iterator[str]:
    program = shutil.which("redis-server")
    assert program, "Redis 7 is needed: apt-get install redis-server"
    with open_directory() as directory:
        socket = Path(directory) / "seven.sock"
        arguments = ("--port", "0", "--unixsocket", str(socket), "--save", "", "--dir", str(directory))
        process = subprocess.Popen([program, *arguments], stdout=subprocess.DEVNULL)
        try:
            deadline_s = time.monotonic() + 30.0
            with redis.Redis(unix_socket_path=str(socket)) as client:
                while True:
                    try:
                        assert str(client.info("server")["redis_version"]).startswith("7.")
                        break
                    except redis.ConnectionError:
                        assert time.monotonic() < deadline_s
                        time.sleep(0.02)
            yield f"unix://{socket}"
        finally:
            process.kill()
            process.wait()


@pytest.fixture(params=["6.2", "7"])
def url(request: pytest.FixtureRequest) -> str:
    if request.param == "6.2":
        return str(request.getfixturevalue("redis_url"))
    seven = str(request.getfixturevalue("redis_seven"))
    flush_redis(seven)
    return seven


@pytest.fixture
async def two(url: str, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[tuple[RedisBus, RedisBus]]:
    monkeypatch.setattr(redis_bus, "_BLOCK_MS", 50)
    async with AsyncExitStack() as stack:
        pair = RedisBus(url), RedisBus(url)
        for one in pair:
            stack.push_async_callback(one.close)
        yield pair


async def taken(bus: RedisBus, consumer: str, *, idle_s: float = 60.0) -> list[str]:
    return [event.fields["n"] for event in await bus.take(TOPIC, group=GROUP, consumer=consumer, idle_s=idle_s)]


async def test_what_was_told_before_the_group_began_is_not_lost(two: tuple[RedisBus, RedisBus]) -> None:
    await two[0].publish(TOPIC, {"n": "1"})
    assert await taken(two[0], "one") == []  # the group is made
    assert await taken(two[0], "one") == ["1"]


async def test_each_event_goes_to_one_consumer(two: tuple[RedisBus, RedisBus]) -> None:
    await taken(two[0], "one")
    for n in range(50):
        await two[0].publish(TOPIC, {"n": str(n)})
    found: list[str] = []
    async with asyncio.timeout(30.0):
        while len(found) < 50:
            answers = await asyncio.gather(*(taken(bus, name) for bus, name in zip(two, ("one", "two"), strict=True)))
            found += [n for answer in answers for n in answer]
    assert sorted(found, key=int) == [str(n) for n in range(50)]


async def test_what_a_dead_consumer_took_comes_to_another_and_what_is_done_to_nobody(
    url: str, two: tuple[RedisBus, RedisBus]
) -> None:
    alive, dead = two
    await taken(dead, "dead")
    for n in range(3):
        await alive.publish(TOPIC, {"n": str(n)})
    events = await dead.take(TOPIC, group=GROUP, consumer="dead", idle_s=60.0)
    assert [event.fields["n"] for event in events] == ["0", "1", "2"]
    await dead.done(TOPIC, group=GROUP, event_id=events[0].id)
    assert await taken(alive, "alive", idle_s=60.0) == []  # taken a moment ago: not yet
    fresh = RedisBus(url)  # one that has not looked yet
    try:
        assert await taken(fresh, "alive", idle_s=0.001) == ["1", "2"]
    finally:
        await fresh.close()


async def test_a_server_that_lost_its_data_gets_its_group_back(url: str, two: tuple[RedisBus, RedisBus]) -> None:
    await taken(two[0], "one")
    flush_redis(url)
    assert await taken(two[0], "one") == []
    await two[0].publish(TOPIC, {"n": "after"})
    assert await taken(two[0], "one") == ["after"]


async def test_an_event_cut_off_before_it_was_done_holds_nobody_up(url: str, two: tuple[RedisBus, RedisBus]) -> None:
    await taken(two[0], "one")
    for n in range(3):
        await two[0].publish(TOPIC, {"n": str(n)})
    assert await taken(two[0], "one") == ["0", "1", "2"]
    with redis.Redis.from_url(url) as client:
        client.xtrim("sre:bus:intake", maxlen=1, approximate=False)
    assert await taken(two[1], "two", idle_s=0.001) == ["2"]
    with redis.Redis.from_url(url) as client:
        assert client.xpending("sre:bus:intake", GROUP)["pending"] == 1


async def test_consumers_that_are_gone_for_long_are_forgotten(
    url: str, two: tuple[RedisBus, RedisBus], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(redis_bus, "_FORGET_CONSUMER_MS", -1)
    await taken(two[0], "one")
    for name in ("one", "long gone"):  # a consumer exists once it was given something
        await two[0].publish(TOPIC, {"n": name})
        (event,) = await two[0].take(TOPIC, group=GROUP, consumer=name, idle_s=60.0)
        await two[0].done(TOPIC, group=GROUP, event_id=event.id)
    with redis.Redis.from_url(url) as client:
        assert {one["name"] for one in client.xinfo_consumers("sre:bus:intake", GROUP)} == {b"one", b"long gone"}
    await two[0]._make_group(TOPIC, GROUP)
    with redis.Redis.from_url(url) as client:
        assert client.xinfo_consumers("sre:bus:intake", GROUP) == []


async def test_a_server_that_is_away_is_a_temporary_error(tmp_path: Path) -> None:
    bus = RedisBus(f"unix://{tmp_path}/nobody.sock")
    with pytest.raises(TemporaryError, match=r"^Redis at "):
        await bus.take(TOPIC, group=GROUP, consumer="one", idle_s=1.0)
    with pytest.raises(TemporaryError, match=r"^Redis at "):
        await bus.done(TOPIC, group=GROUP, event_id="1-1")
    await bus.close()
