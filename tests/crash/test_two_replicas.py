"""Two bots side by side in the whole demo: whichever is killed during an execution, the other finishes it, once."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import asyncpg
import pytest

from bot.demo.launch import CHANNEL
from bot.demo.slack.person import Person
from bot.demo.world.client import WorldClient
from bot.slack.names import APPROVE
from pipeline.domain.ids import IncidentId
from tests.crash.test_kill_the_bot import ends_recovered, open_card, store_of
from tests.databases import open_directory
from tests.whole import START_S, WholeDemo, until, whole_demo

pytestmark = [pytest.mark.whole, pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def demo() -> Iterator[WholeDemo]:
    with open_directory() as directory, whole_demo(directory / "demo", replicas=2) as running:
        yield running


async def carrying_out(demo: WholeDemo, incident_id: IncidentId) -> tuple[int, int]:
    """The process that holds the execution, and the other one."""
    connection = await asyncpg.connect(demo.setting("DATABASE_URL"))
    try:
        asked = "SELECT leased_by FROM executions WHERE incident_id = $1"
        while not (worker := await connection.fetchval(asked, incident_id)):
            await asyncio.sleep(0.02)
    finally:
        await connection.close()
    holder = int(worker.rpartition(":")[2])
    (other,) = (pid for pid in running(demo) if pid != holder)
    return holder, other


def running(demo: WholeDemo) -> list[int]:
    found = until(lambda: found if len(found := demo.bots()) == 2 else None, "two replicas", START_S)
    return [one.pid for one in found]


@pytest.mark.parametrize("killed", ["the one that acts", pytest.param("the other one", marks=pytest.mark.long)])
async def test_a_replica_killed_during_an_execution(demo: WholeDemo, killed: str) -> None:
    async with (
        store_of(demo) as store,
        Person(demo.page_url, "U0ALICE") as person,
        WorldClient(demo.world_url) as world,
    ):
        before = len(await world.journal())
        case, ts = await open_card(demo, store, person, world)
        await person.click(CHANNEL, ts, APPROVE)
        holder, other = await carrying_out(demo, case.incident.id)
        os.kill(holder if killed == "the one that acts" else other, signal.SIGKILL)
        await ends_recovered(store, person, case, ts)
        assert len(await world.journal()) == before + 1
    assert Path(f"/proc/{other if killed == 'the one that acts' else holder}").exists()
