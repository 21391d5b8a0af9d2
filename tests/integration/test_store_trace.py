"""The trail in a real PostgreSQL: who owns its tables may break it, but not unseen."""

import asyncio
from datetime import UTC, datetime

import asyncpg
import pytest

from pipeline.adapters.postgres.pool import Connection
from pipeline.adapters.postgres.unit_of_work import PostgresStore
from pipeline.domain.ids import IncidentId
from pipeline.domain.trace import JsonValue, TraceEntry, TraceKind
from pipeline.ports.trail import SYSTEM

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

    async def fail() -> None:
        async with store.begin() as uow:
            await uow.trace.add(ONE, entry(2))
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await fail()
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
    ],
    ids=["change", "back-date", "delete", "truncate"],
)
async def test_the_trail_is_append_only(store: PostgresStore, sql: Connection, statement: str) -> None:
    await add(store, ONE, entry(1), entry(2), entry(3))
    with pytest.raises(asyncpg.InsufficientPrivilegeError, match="trace is append-only"):
        await sql.execute(statement)
    async with store.begin() as uow:
        assert len(await uow.trace.read(ONE)) == 3


def change(what: str, rows: str) -> str:
    return f"UPDATE trace SET {what} WHERE incident_id = $1 AND seq {rows}"


def delete(rows: str) -> str:
    return f"DELETE FROM trace WHERE incident_id = $1 AND seq {rows}"


def rehash(seq: int) -> str:
    return change("hash = trace_hash_2(previous, incident_id, seq, at, kind, summary, data)", f"= {seq}")


FORGE = """
INSERT INTO trace SELECT $1, 6, at, kind, 'forged', data, hash, 'x', 2 FROM trace WHERE incident_id = $1 AND seq = 5
"""
NO_HEAD = "DELETE FROM trace_heads WHERE incident_id = $1"
TAMPERING: dict[str, tuple[int, list[str]]] = {
    "summary": (3, [change("summary = 'nothing happened'", "= 3")]),
    "data": (3, [change("data = '{}'", "= 3")]),
    "kind": (3, [change("kind = 'denied'", "= 3")]),
    "back-dated": (3, [change("at = at - interval '1 microsecond'", "= 3")]),
    "two rows": (2, [change("summary = 'x'", "IN (2, 4)")]),
    "rehashed": (4, [change("summary = 'x'", "= 3"), rehash(3)]),
    "last rehashed": (5, [change("summary = 'x'", "= 5"), rehash(5)]),
    "first deleted": (1, [delete("= 1")]),
    "middle deleted": (3, [delete("= 3")]),
    "last deleted": (5, [delete("= 5")]),
    "tail deleted": (4, [delete(">= 4")]),
    "all deleted": (1, [delete("> 0")]),
    "tail and head deleted": (4, [delete(">= 4"), NO_HEAD]),
    "renumbered": (3, [change("seq = 9", "= 3")]),
    "moved": (5, [change("incident_id = 999", "= 5")]),
    "forged tail": (6, [FORGE]),
    "forged and hashed tail": (6, [FORGE, rehash(6)]),
}
"""The first entry that does not fit, and what the owner did to five good ones: with triggers off, it all succeeds."""


async def test_the_owner_cannot_tamper_unseen(store: PostgresStore, sql: Connection) -> None:
    trails = dict(zip(TAMPERING, (IncidentId(number) for number in range(1, 99)), strict=False))
    for incident_id in trails.values():
        await add(store, incident_id, *(entry(number) for number in range(1, 6)))
    await sql.execute("ALTER TABLE trace DISABLE TRIGGER USER; ALTER TABLE trace_heads DISABLE TRIGGER USER")
    for name, (broken, statements) in TAMPERING.items():
        assert await first_broken(store, trails[name]) is None, "what is done to one trail is not blamed on another"
        for statement in statements:
            await sql.execute(statement, trails[name])
        assert await first_broken(store, trails[name]) == broken, name


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
    assert all(
        second == (first[0], int(str(first[1])) + 100) for first, second in zip(pairs[::2], pairs[1::2], strict=True)
    )
    assert await first_broken(store) is None


async def test_times_are_utc(store: PostgresStore) -> None:
    await add(store, ONE, entry(1))
    async with store.begin() as uow:
        (stored,) = await uow.trace.read(ONE)
    assert stored.at.utcoffset() == datetime.now(UTC).utcoffset()
