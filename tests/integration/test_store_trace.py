"""The trail in a real PostgreSQL: who owns its tables may break it, but not unseen."""

import asyncio
from datetime import UTC, datetime

import asyncpg
import pytest

from pipeline.adapters.postgres.pool import Connection
from pipeline.adapters.postgres.unit_of_work import PostgresStore
from pipeline.domain.ids import IncidentId
from pipeline.domain.trace import JsonValue, TraceEntry, TraceKind
from pipeline.ports.store import SYSTEM

ONE, TWO = IncidentId(1), IncidentId(2)


def entry(number: int, **data: JsonValue) -> TraceEntry:
    return TraceEntry(TraceKind.NOTE, f"entry {number}", {"number": number, **data})


async def add(store: PostgresStore, incident_id: IncidentId, *entries: TraceEntry) -> None:
    async with store.begin() as uow:
        for one in entries:
            await uow.trace.add(incident_id, one)


async def first_broken(store: PostgresStore, incident_id: IncidentId = ONE) -> int | None:
    async with store.begin() as uow:
        return await uow.trace.first_broken(incident_id)


async def test_numbers_times_and_hashes_are_given_by_the_database(store: PostgresStore, sql: Connection) -> None:
    began = await sql.fetchval("SELECT clock_timestamp()")
    await add(store, ONE, entry(1), entry(2))
    await add(store, TWO, entry(3))
    await sql.execute(
        """INSERT INTO trace (incident_id, seq, at, kind, summary, data, previous, hash)
           VALUES (1, 77, '1999-01-01', 'note', 'forged', '{}', 'x', 'y')"""
    )
    async with store.begin() as uow:
        stored, other = await uow.trace.read(ONE), await uow.trace.read(TWO)
    assert [(one.seq, one.entry.summary) for one in stored] == [(1, "entry 1"), (2, "entry 2"), (3, "forged")]
    assert [one.seq for one in other] == [1], "each incident counts for itself"
    times = [began, *(one.at for one in stored), await sql.fetchval("SELECT clock_timestamp()")]
    assert times == sorted(times)
    assert await first_broken(store) is None
    assert await first_broken(store, TWO) is None


async def test_an_entry_comes_back_as_it_was_written(store: PostgresStore) -> None:
    written = TraceEntry(
        TraceKind.PROMPT,
        'asked „rules“\nsecond line \\ "quoted" | 1.9 s → 240 ms',
        {"text": "σ \\u0041 \U0001f6d1", "number": 0.1, "none": None, "list": [1, True, {"deep": []}], "empty": {}},
    )
    await add(store, SYSTEM, written)
    async with store.begin() as uow:
        (stored,) = await uow.trace.read(SYSTEM)
    assert stored.entry == written
    assert await first_broken(store, SYSTEM) is None


async def test_a_transaction_that_fails_leaves_no_gap(store: PostgresStore) -> None:
    await add(store, ONE, entry(1))
    with pytest.raises(ZeroDivisionError):
        async with store.begin() as uow:
            await uow.trace.add(ONE, entry(2))
            raise ZeroDivisionError
    await add(store, ONE, entry(3))
    async with store.begin() as uow:
        assert [(one.seq, one.entry.summary) for one in await uow.trace.read(ONE)] == [(1, "entry 1"), (2, "entry 3")]
    assert await first_broken(store) is None


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE trace SET summary = 'nothing happened' WHERE seq = 2",
        "UPDATE trace SET at = at - interval '1 hour'",
        "DELETE FROM trace WHERE seq = 2",
        "TRUNCATE trace",
        "INSERT INTO trace (incident_id, kind, summary, data) VALUES (1, 'note', 'x', '{}') ON CONFLICT (incident_id, seq)"
        " DO UPDATE SET summary = 'y'; UPDATE trace SET summary = 'z'",
    ],
    ids=["change", "back-date", "delete", "truncate", "upsert"],
)
async def test_the_trail_is_append_only(store: PostgresStore, sql: Connection, statement: str) -> None:
    await add(store, ONE, entry(1), entry(2), entry(3))
    with pytest.raises(asyncpg.InsufficientPrivilegeError, match="trace is append-only"):
        await sql.execute(statement)
    async with store.begin() as uow:
        assert len(await uow.trace.read(ONE)) == 3


CHANGE, DELETE = "UPDATE trace SET {} WHERE incident_id = 1 AND seq {}", "DELETE FROM trace WHERE incident_id = 1 AND seq {}"
FORGE = "INSERT INTO trace SELECT 1, 6, at, kind, 'forged', data, hash, 'x' FROM trace WHERE incident_id = 1 AND seq = 5"
NO_HEAD = "DELETE FROM trace_heads WHERE incident_id = 1"


def rehash(seq: int) -> str:
    return CHANGE.format("hash = trace_hash(previous, incident_id, seq, at, kind, summary, data)", f"= {seq}")


@pytest.mark.parametrize(
    ("broken", "tampering"),
    [
        pytest.param(3, [CHANGE.format("summary = 'nothing happened'", "= 3")], id="summary"),
        pytest.param(3, [CHANGE.format("data = '{}'", "= 3")], id="data"),
        pytest.param(3, [CHANGE.format("kind = 'denied'", "= 3")], id="kind"),
        pytest.param(3, [CHANGE.format("at = at - interval '1 microsecond'", "= 3")], id="back-dated"),
        pytest.param(2, [CHANGE.format("summary = 'x'", "IN (2, 4)")], id="two rows"),
        pytest.param(4, [CHANGE.format("summary = 'x'", "= 3"), rehash(3)], id="rehashed"),
        pytest.param(5, [CHANGE.format("summary = 'x'", "= 5"), rehash(5)], id="last rehashed"),
        pytest.param(2, [DELETE.format("= 1")], id="first deleted"),
        pytest.param(4, [DELETE.format("= 3")], id="middle deleted"),
        pytest.param(5, [DELETE.format("= 5")], id="last deleted"),
        pytest.param(4, [DELETE.format(">= 4")], id="tail deleted"),
        pytest.param(1, [DELETE.format("> 0")], id="all deleted"),
        pytest.param(4, [DELETE.format(">= 4"), NO_HEAD], id="tail and head deleted"),
        pytest.param(4, [CHANGE.format("seq = 9", "= 3")], id="renumbered"),
        pytest.param(5, [CHANGE.format("incident_id = 2", "= 5")], id="moved"),
        pytest.param(6, [FORGE], id="forged tail"),
        pytest.param(6, [FORGE, rehash(6)], id="forged and hashed tail"),
    ],
)
async def test_the_owner_cannot_tamper_unseen(
    store: PostgresStore, sql: Connection, tampering: list[str], broken: int
) -> None:
    for incident_id in (ONE, IncidentId(3)):
        await add(store, incident_id, *(entry(number) for number in range(1, 6)))
    await sql.execute("ALTER TABLE trace DISABLE TRIGGER USER")
    for statement in tampering:
        await sql.execute(statement)
    assert await first_broken(store) == broken
    assert await first_broken(store, IncidentId(3)) is None


async def test_no_trail_is_no_broken_trail(store: PostgresStore) -> None:
    assert await first_broken(store, IncidentId(5)) is None
    async with store.begin() as uow:
        assert await uow.trace.read(IncidentId(5)) == []


async def test_writers_at_once_keep_the_chain(store: PostgresStore) -> None:
    async def write(writer: int) -> None:
        for number in range(6):
            await add(store, ONE, entry(number, writer=writer), entry(number + 100, writer=writer))

    await asyncio.gather(*(write(writer) for writer in range(6)))
    async with store.begin() as uow:
        stored = await uow.trace.read(ONE)
    assert [one.seq for one in stored] == list(range(1, 73))
    assert [one.at for one in stored] == sorted(one.at for one in stored)
    pairs = [(one.entry.data["writer"], one.entry.data["number"]) for one in stored]
    assert all(second == (first[0], int(str(first[1])) + 100) for first, second in zip(pairs[::2], pairs[1::2], strict=True))
    assert await first_broken(store) is None


async def test_times_are_utc(store: PostgresStore) -> None:
    await add(store, ONE, entry(1))
    async with store.begin() as uow:
        (stored,) = await uow.trace.read(ONE)
    assert stored.at.utcoffset() == datetime.now(UTC).utcoffset()
