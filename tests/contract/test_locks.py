"""What the lock port promises, on Redis, on etcd and in memory, between two agents that do not know each other."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack
from dataclasses import replace

import pytest

from pipeline.adapters.etcd import locks as etcd_locks
from pipeline.adapters.etcd.locks import EtcdLocks
from pipeline.adapters.memory.locks import MemoryLocks
from pipeline.adapters.redis.locks import RedisLocks
from pipeline.domain.errors import ConfigurationError, TemporaryError
from pipeline.ports.locks import Holder, Lock, Locks, Priority
from tests.contract.etcd_server import EtcdServer, etcd_server
from tests.databases import open_directory

TTL_S = 30.0
DEADLINE_S = 30.0

Pair = tuple[Locks, Locks]


@pytest.fixture(scope="module")
def etcd() -> Iterator[EtcdServer]:
    with open_directory() as directory, etcd_server(directory) as server:
        yield server


@pytest.fixture(params=["memory", "redis", "etcd"])
async def agents(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Pair]:
    monkeypatch.setattr(etcd_locks, "ANSWER_TIMEOUT_S", DEADLINE_S)  # a shared machine has slow moments
    async with AsyncExitStack() as stack:
        if request.param == "memory":
            alone = MemoryLocks()
            yield alone, alone
            return
        url = request.getfixturevalue("redis_url") if request.param == "redis" else request.getfixturevalue("etcd").url
        pair = (RedisLocks(url), RedisLocks(url)) if request.param == "redis" else (EtcdLocks(url), EtcdLocks(url))
        for one in pair:
            stack.push_async_callback(one.close)
        yield pair


@pytest.fixture
def ours(agents: Pair) -> Locks:
    return agents[0]


@pytest.fixture
def theirs(agents: Pair) -> Locks:
    return agents[1]


@pytest.fixture
def web(request: pytest.FixtureRequest) -> str:
    """A resource of this very test: etcd's data outlive a test."""
    return f"demo/{request.node.name}"


async def taken(locks: Locks, resource: str, *, ttl_s: float = TTL_S, priority: Priority = Priority.SRE) -> Lock:
    lock = await locks.acquire(resource, holder="sre-bot: INC-7", ttl_s=ttl_s, priority=priority)
    assert lock is not None
    return lock


async def in_the_end(look: Callable[[], Awaitable[object]]) -> object:
    async with asyncio.timeout(DEADLINE_S):
        while not (found := await look()):
            await asyncio.sleep(0.02)
    return found


async def test_a_held_lock_is_denied_to_others_and_names_its_holder(ours: Locks, theirs: Locks, web: str) -> None:
    assert await theirs.holder(web) is None
    await taken(ours, web)
    assert await theirs.acquire(web, holder="another", ttl_s=TTL_S) is None
    assert await ours.acquire(web, holder="sre-bot: INC-7", ttl_s=TTL_S) is None
    assert await theirs.holder(web) == Holder("sre-bot: INC-7", Priority.SRE)
    assert await theirs.acquire(f"{web}/other", holder="another", ttl_s=TTL_S) is not None


async def test_a_name_comes_back_as_it_was_given(ours: Locks, theirs: Locks, web: str) -> None:
    name = 'sre-bot "a:1:b"\nZürich σ'
    assert await ours.acquire(web, holder=name, ttl_s=TTL_S, priority=Priority.FINOPS) is not None
    assert await theirs.holder(web) == Holder(name, Priority.FINOPS)


async def test_release_frees_the_lock_once(ours: Locks, theirs: Locks, web: str) -> None:
    lock = await taken(ours, web)
    assert await ours.release(lock) is True
    assert await ours.release(lock) is False
    assert await ours.holder(web) is None
    assert await theirs.acquire(web, holder="another", ttl_s=TTL_S) is not None


async def test_a_lock_expires_and_its_old_holder_can_do_nothing_with_it(ours: Locks, theirs: Locks, web: str) -> None:
    lock = await taken(ours, web, ttl_s=0.05)
    newer = await in_the_end(lambda: theirs.acquire(web, holder="another", ttl_s=TTL_S))
    assert isinstance(newer, Lock)
    assert newer.fence > lock.fence
    assert await ours.renew(lock, ttl_s=TTL_S) is False
    assert await ours.release(lock) is False
    assert await theirs.holder(web) == Holder("another", Priority.SRE)


async def test_renewing_keeps_a_lock_beyond_its_first_term(ours: Locks, theirs: Locks, web: str) -> None:
    """Beside it stands one of the same term that nobody renews: when that is gone, this one would be."""
    beside = f"{web}/beside"
    await taken(ours, beside, ttl_s=1.0)
    lock = await taken(ours, web, ttl_s=1.0)
    assert await ours.renew(lock, ttl_s=600.0) is True

    async def gone() -> bool:
        return await theirs.holder(beside) is None

    await in_the_end(gone)
    assert await theirs.acquire(web, holder="another", ttl_s=TTL_S) is None
    assert await ours.release(lock) is True


async def test_the_fence_grows_with_every_acquisition_of_a_resource_and_outlives_its_lock(
    ours: Locks, theirs: Locks, web: str
) -> None:
    fences = []
    for agent in (ours, theirs, ours):
        lock = await taken(agent, web)
        fences.append(lock.fence)
        await agent.release(lock)
    other = await taken(ours, f"{web}/other")
    assert (fences, other.fence) == ([1, 2, 3], 1)


async def test_neither_a_denied_try_nor_a_renewal_moves_the_fence(ours: Locks, theirs: Locks, web: str) -> None:
    lock = await taken(ours, web)
    assert await theirs.acquire(web, holder="another", ttl_s=TTL_S) is None
    assert await ours.renew(lock, ttl_s=TTL_S) is True
    await ours.release(lock)
    assert (await taken(theirs, web)).fence == lock.fence + 1


@pytest.mark.parametrize("foreign", ["", "0" * 32, "f" * 31])
async def test_a_foreign_token_opens_nothing(ours: Locks, theirs: Locks, web: str, foreign: str) -> None:
    forged = replace(await taken(ours, web), token=foreign)
    assert await theirs.release(forged) is False
    assert await theirs.renew(forged, ttl_s=TTL_S) is False
    assert await ours.holder(web) == Holder("sre-bot: INC-7", Priority.SRE)


async def test_of_many_who_try_at_once_one_gets_the_lock(agents: Pair, web: str) -> None:
    tries = [one.acquire(web, holder=f"agent {n}", ttl_s=TTL_S) for n in range(10) for one in agents]
    assert len([lock for lock in await asyncio.gather(*tries) if lock is not None]) == 1


@pytest.mark.parametrize(
    ("held_by", "wanted_by", "gets_it"),
    [
        (Priority.FINOPS, Priority.SRE, True),
        (Priority.FINOPS, Priority.SECOPS, True),
        (Priority.SRE, Priority.SECOPS, True),
        (Priority.SRE, Priority.SRE, False),
        (Priority.SRE, Priority.FINOPS, False),
        (Priority.SECOPS, Priority.SRE, False),
        (Priority.SECOPS, Priority.SECOPS, False),
    ],
)
async def test_a_higher_priority_takes_the_lock_away(
    ours: Locks, theirs: Locks, web: str, held_by: Priority, wanted_by: Priority, gets_it: bool
) -> None:
    first = await taken(ours, web, priority=held_by)
    second = await theirs.acquire(web, holder="the other agent", ttl_s=TTL_S, priority=wanted_by)
    assert (second is not None) is gets_it
    if second is not None:
        assert second.fence == first.fence + 1
        assert await theirs.holder(web) == Holder("the other agent", wanted_by)
    # The holder learns of it when it renews, which it does before its next call.
    assert await ours.renew(first, ttl_s=TTL_S) is not gets_it
    assert await ours.release(first) is not gets_it
    assert (await ours.holder(web) is not None) is gets_it


async def test_of_many_who_pre_empt_at_once_one_gets_the_lock(agents: Pair, web: str) -> None:
    await taken(agents[0], web, priority=Priority.FINOPS)
    tries = [one.acquire(web, holder=f"{n}", ttl_s=TTL_S, priority=Priority.SRE) for n in range(6) for one in agents]
    assert len([lock for lock in await asyncio.gather(*tries) if lock is not None]) == 1


async def test_a_person_breaks_any_lock(ours: Locks, theirs: Locks, web: str) -> None:
    lock = await taken(ours, web, priority=Priority.SECOPS)
    assert await theirs.break_(web) == Holder("sre-bot: INC-7", Priority.SECOPS)
    assert await theirs.break_(web) is None
    assert await ours.renew(lock, ttl_s=TTL_S) is False
    assert (await taken(theirs, web, priority=Priority.FINOPS)).fence == lock.fence + 1


async def test_a_rest_is_seen_by_all_and_only_grows(ours: Locks, theirs: Locks, web: str) -> None:
    assert await theirs.resting(web) == 0.0
    await ours.rest(web, holder="sre-bot", for_s=100.0)
    assert 90.0 < await theirs.resting(web) <= 100.0
    await theirs.rest(web, holder="another", for_s=5.0)
    assert 90.0 < await ours.resting(web) <= 100.0
    await theirs.rest(web, holder="another", for_s=200.0)
    assert 190.0 < await ours.resting(web) <= 200.0


async def test_a_rest_ends_by_itself_and_holds_no_lock(ours: Locks, theirs: Locks, web: str) -> None:
    await ours.rest(web, holder="sre-bot", for_s=0.05)
    assert await theirs.acquire(web, holder="another", ttl_s=TTL_S) is not None

    async def over() -> bool:
        return await theirs.resting(web) == 0.0

    await in_the_end(over)


async def test_what_another_agent_wrote_in_its_own_way_is_held_against_all(redis_url: str, etcd: EtcdServer) -> None:
    redis, its_client = RedisLocks(redis_url), EtcdLocks(etcd.url)
    await redis._client.set("sre:lock:{odd}", "written by hand")
    await its_client._client.put(b"/sre/lock/odd", b"written by hand")
    for locks in (redis, its_client):
        assert await locks.acquire("odd", holder="sre-bot", ttl_s=TTL_S, priority=Priority.SECOPS) is None
        assert await locks.holder("odd") == Holder("written by hand", Priority.SECOPS)
        assert await locks.break_("odd") == Holder("written by hand", Priority.SECOPS)
        await locks.close()


async def test_an_etcd_that_is_away_is_a_temporary_error_in_one_line() -> None:
    with open_directory() as directory, etcd_server(directory) as server:
        locks = EtcdLocks(server.url)
        lock = await taken(locks, "web")
        server.kill()
        calls: list[Awaitable[object]] = [
            locks.acquire("web", holder="sre-bot", ttl_s=TTL_S),
            locks.renew(lock, ttl_s=TTL_S),
            locks.holder("web"),
            locks.resting("web"),
        ]
        for call in calls:
            with pytest.raises(TemporaryError, match=f"^etcd at {server.url.removeprefix('http://')}: [^\n]+$"):
                await call
        await locks.close()


@pytest.mark.parametrize("url", ["redis://127.0.0.1:2379", "https://127.0.0.1:2379", "127.0.0.1:2379", "http://h:port"])
def test_an_unusable_etcd_url_is_a_configuration_error(url: str) -> None:
    with pytest.raises(ConfigurationError, match="ETCD_URL"):
        EtcdLocks(url)
