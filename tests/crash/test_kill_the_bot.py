"""kill -9 of the bot at the worst moments: it finishes after its restart, and changes the target once."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager

import pytest

from bot.demo.launch import CHANNEL
from bot.demo.slack.person import Person
from bot.demo.world.client import WorldClient
from bot.slack.names import APPROVE
from pipeline.adapters.postgres.pool import Pool
from pipeline.adapters.postgres.unit_of_work import PostgresStore
from pipeline.adapters.redis.locks import RedisLocks
from pipeline.domain.ids import IncidentId
from pipeline.domain.incident import Case
from pipeline.domain.lifecycle import ExecutionState, IncidentState
from tests.databases import open_directory
from tests.whole import WholeDemo, whole_demo

pytestmark = [pytest.mark.whole, pytest.mark.timeout(600)]

LONG_S = 180.0
LOCK = "local_process/demo/checkout"


@pytest.fixture(scope="module")
def demo() -> Iterator[WholeDemo]:
    with open_directory() as directory, whole_demo(directory / "demo") as running:
        yield running


@asynccontextmanager
async def store_of(demo: WholeDemo) -> AsyncIterator[PostgresStore]:
    pool = Pool(demo.setting("DATABASE_URL"), max_size=2)
    try:
        yield PostgresStore(pool)
    finally:
        await pool.close()


async def eventually(look: Callable[[], Awaitable[Case | None]], what: str) -> Case:
    deadline = asyncio.get_running_loop().time() + LONG_S
    while asyncio.get_running_loop().time() < deadline:
        found = await look()
        if found is not None:
            return found
        await asyncio.sleep(0.2)
    raise AssertionError(f"{what} did not come")


def newest(
    store: PostgresStore, after: IncidentId, reached: Callable[[Case], bool]
) -> Callable[[], Awaitable[Case | None]]:
    async def look() -> Case | None:
        async with store.begin() as uow:
            incidents = [one for one in await uow.incidents.recent(20) if one.id > after]
            case = await uow.incidents.case(incidents[0].id) if incidents else None
        return case if case is not None and reached(case) else None

    return look


async def has_approve(person: Person, ts: str) -> None:
    def look(state: dict[str, object]) -> bool:
        messages = state["messages"][CHANNEL]  # type: ignore[index]
        card = next((message for message in messages if message["ts"] == ts), {})
        elements = [element for block in card.get("blocks", []) for element in block.get("elements", [])]
        return any(isinstance(one, dict) and one.get("action_id") == APPROVE for one in elements)

    await person.wait_for(look, LONG_S)


async def open_card(demo: WholeDemo, store: PostgresStore, person: Person, world: WorldClient) -> tuple[Case, str]:
    """Leaks memory, and waits until the card can be approved."""
    async with store.begin() as uow:
        known = max((one.id for one in await uow.incidents.recent(1)), default=IncidentId(0))
    await world.set_fault("memory-leak", True)
    waiting = lambda case: case.incident.state is IncidentState.AWAITING_DECISION  # noqa: E731
    case = await eventually(newest(store, known, waiting), "an incident that awaits a decision")
    async with store.begin() as uow:
        place = await uow.incidents.card(case.incident.id)
    while place is None:
        await asyncio.sleep(0.2)
        async with store.begin() as uow:
            place = await uow.incidents.card(case.incident.id)
    await has_approve(person, place.ts)
    return case, place.ts


async def ends_recovered(store: PostgresStore, person: Person, case: Case, ts: str) -> None:
    """I1 to I4 and I6 of the safety rules: database, card and trail agree that it recovered."""
    over = newest(store, IncidentId(case.incident.id - 1), lambda now: now.incident.state is IncidentState.RESOLVED)
    ended = await eventually(over, "a recovered incident")
    assert ended.incident.id == case.incident.id
    assert ended.execution is not None
    assert ended.execution.state is ExecutionState.VERIFIED

    def shown(state: dict[str, object]) -> bool:
        messages = state["messages"][CHANNEL]  # type: ignore[index]
        return any(one["ts"] == ts and "recovered in" in str(one["blocks"]) for one in messages)

    await person.wait_for(shown, LONG_S)
    roots = [one for one in await person.messages(CHANNEL) if one.get("thread_ts", one["ts"]) == one["ts"]]
    assert len([one for one in roots if f"INC-{case.incident.id}" in str(one.get("blocks"))]) == 1
    async with store.begin() as uow:
        assert await uow.trace.first_broken(case.incident.id) is None


@pytest.mark.long
async def test_between_approval_and_dispatch(demo: WholeDemo) -> None:
    async with (
        store_of(demo) as store,
        Person(demo.page_url, "U0ALICE") as person,
        WorldClient(demo.world_url) as world,
    ):
        before = len(await world.journal())
        case, ts = await open_card(demo, store, person, world)
        locks = RedisLocks(demo.setting("REDIS_URL"))
        held = await locks.acquire(LOCK, holder="another agent", ttl_s=120)
        assert held is not None
        await person.click(CHANNEL, ts, APPROVE)
        waits = lambda now: now.execution is not None and now.execution.waiting_since is not None  # noqa: E731
        await eventually(newest(store, IncidentId(case.incident.id - 1), waits), "an approved execution that waits")
        assert len(await world.journal()) == before
        demo.kill_bot()
        assert await locks.release(held)
        await locks.close()
        await ends_recovered(store, person, case, ts)
        assert len(await world.journal()) == before + 1


@pytest.mark.long
async def test_while_the_target_carries_it_out(demo: WholeDemo) -> None:
    async with (
        store_of(demo) as store,
        Person(demo.page_url, "U0ALICE") as person,
        WorldClient(demo.world_url) as world,
    ):
        before = len(await world.journal())
        case, ts = await open_card(demo, store, person, world)
        await person.click(CHANNEL, ts, APPROVE)
        while len(await world.journal()) == before:
            await asyncio.sleep(0.02)
        demo.kill_bot()
        await ends_recovered(store, person, case, ts)
        assert len(await world.journal()) == before + 1


@pytest.mark.long
async def test_before_the_card_is_posted(demo: WholeDemo) -> None:
    async with (
        store_of(demo) as store,
        Person(demo.page_url, "U0ALICE") as person,
        WorldClient(demo.world_url) as world,
    ):
        async with store.begin() as uow:
            known = max((one.id for one in await uow.incidents.recent(1)), default=IncidentId(0))
        await world.set_fault("memory-leak", True)
        await eventually(newest(store, known, lambda _: True), "an incident")
        demo.kill_bot()
        waiting = lambda case: case.incident.state is IncidentState.AWAITING_DECISION  # noqa: E731
        case = await eventually(newest(store, known, waiting), "an incident that awaits a decision")

        def cards(state: dict[str, object]) -> list[object]:
            messages = state["messages"][CHANNEL]  # type: ignore[index]
            label = f"INC-{case.incident.id}"
            roots = [one for one in messages if one.get("thread_ts", one["ts"]) == one["ts"]]
            return [one for one in roots if label in str(one.get("blocks"))]

        found = await person.wait_for(cards, LONG_S)
        assert len(found) == 1
        await has_approve(person, found[0]["ts"])  # type: ignore[index]
        await person.click(CHANNEL, found[0]["ts"], APPROVE)  # type: ignore[index]
        await ends_recovered(store, person, case, found[0]["ts"])  # type: ignore[index]
