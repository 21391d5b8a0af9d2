"""The whole trail in a real PostgreSQL, tampered with by its owner in every way: the check finds each, and names it."""

import asyncio
import hashlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest

from bot.anchoring import AnchorKeeper, read_anchors
from bot.audit import AuditReport, export, verify
from bot.redacting import REDACTOR, clean_entry
from pipeline.adapters.postgres.audit import PostgresTrailArchive
from pipeline.adapters.postgres.pool import Connection, Pool
from pipeline.adapters.postgres.unit_of_work import PostgresStore
from pipeline.domain.audit import Fault
from pipeline.domain.errors import ConfigurationError
from pipeline.domain.ids import IncidentId
from pipeline.domain.trace import TraceEntry, TraceKind

FIRST, SECOND = IncidentId(1), IncidentId(2)


class Bench:
    """Two incidents of five entries, the first with an approved plan and a second approval; an anchor before the last.

    Triggers are off: what follows is what an owner can do.
    """

    def __init__(self, sql: Connection, store: PostgresStore, archive: PostgresTrailArchive, path: Path) -> None:
        self.sql = sql
        self.store = store
        self.archive = archive
        self.path = path
        self.keeper = AnchorKeeper(store, archive, path, interval_s=3600.0)

    async def add(self, incident: IncidentId, *summaries: str) -> None:
        async with self.store.begin() as uow:
            for summary in summaries:
                await uow.trace.add(incident, TraceEntry(TraceKind.NOTE, summary, {"of": summary, "σ": [1.50, "|"]}))

    async def check(self, incident: IncidentId | None = None) -> AuditReport:
        return await verify(self.archive, [read_anchors(self.path)], incident)

    async def found(self) -> list[tuple[int | None, int | None, Fault]]:
        return [(one.incident_id, one.seq, one.fault) for one in (await self.check()).defects]

    async def rehash(self, incident: IncidentId, *, from_seq: int = 1) -> None:
        """Every hash made good again, and the head with it."""
        rows = await self.sql.fetch("SELECT seq FROM trace WHERE incident_id = $1 ORDER BY seq", incident)
        for row in (row for row in rows if row["seq"] >= from_seq):
            await self.sql.execute(
                """WITH above AS (SELECT hash FROM trace WHERE incident_id = $1 AND seq < $2 ORDER BY seq DESC LIMIT 1),
                        link AS (SELECT coalesce((SELECT hash FROM above), '') AS previous)
                   UPDATE trace SET previous = link.previous, hash = CASE version
                       WHEN 1 THEN trace_hash(link.previous, incident_id, seq, at, kind, summary, data)
                       ELSE trace_hash_2(link.previous, incident_id, seq, at, kind, summary, data) END
                   FROM link WHERE incident_id = $1 AND seq = $2""",
                incident,
                row["seq"],
            )
        await self.head(incident)

    async def head(self, incident: IncidentId) -> None:
        """The head repaired."""
        await self.sql.execute("DELETE FROM trace_heads WHERE incident_id = $1", incident)
        await self.sql.execute(
            """INSERT INTO trace_heads (incident_id, seq, hash, at)
               SELECT incident_id, seq, hash, at FROM trace WHERE incident_id = $1 ORDER BY seq DESC LIMIT 1""",
            incident,
        )


async def incident_with_plan(sql: Connection) -> None:
    """Rows as the bot writes them: two incidents, and a plan with two decisions for the first."""
    from pipeline.domain.action import InstanceRef, RestartAction
    from pipeline.domain.plan import TargetRef, plan_hash

    action = RestartAction(instances=(InstanceRef(name="checkout-1", uid="u-1"),))
    target = TargetRef(platform="kubernetes", namespace="shop", name="checkout", uid="t-1")
    for name in ("checkout", "search"):
        await sql.execute(
            """INSERT INTO incidents (fingerprint, service, environment, family, severity, title)
               VALUES ($1, $1, 'prod', 'memory', 'SEV2', 'memory of ' || $1)""",
            name,
        )
    plan = await sql.fetchval(
        """INSERT INTO plans (incident_id, revision, action, target, generation, replicas_before, hash,
                              approvals_needed, expected_effect, expires_at)
           VALUES (1, 1, $1, $2, '7', 2, $3, 2, 'less memory', clock_timestamp() + interval '1 hour') RETURNING id""",
        action.model_dump_json(),
        target.model_dump_json(),
        plan_hash(FIRST, 1, action, target, "7"),
    )
    for user in ("U0ALICE", "U0BOB"):
        await sql.execute(
            """INSERT INTO approvals (plan_id, plan_hash, user_id, decision, reason, at)
               SELECT id, hash, $2, 'approve', 'fine with me', '1999-01-01' FROM plans WHERE id = $1""",
            plan,
            user,
        )


@pytest.fixture
async def bench(sql: Connection, database_dsn: str, tmp_path: Path) -> AsyncIterator[Bench]:
    pool = Pool(database_dsn, max_size=3)
    store = PostgresStore(pool, clean_entry)
    made = Bench(sql, store, PostgresTrailArchive(pool), tmp_path / "anchors.jsonl")
    await made.add(FIRST, "one")
    await incident_with_plan(sql)
    await made.add(FIRST, "four")
    await made.add(SECOND, "one", "two", "three", "four")
    await made.keeper.anchor()
    await made.add(FIRST, "five")
    await made.add(SECOND, "five")
    assert (await made.check()).ok
    for table in ("trace", "trace_heads", "approvals"):
        await sql.execute(f"ALTER TABLE {table} DISABLE TRIGGER USER")
    yield made
    await pool.close()


async def test_a_good_trail_is_counted(bench: Bench) -> None:
    report = await bench.check()
    assert report.ok
    assert (report.chains, report.rows, report.decisions, report.anchors) == (3, 11, 2, 1)
    assert report.lines() == ["checked 3 chains, 11 entries, 2 decisions, 1 anchors: the trail holds"]
    alone = await bench.check(SECOND)
    assert (alone.chains, alone.rows, alone.decisions) == (1, 5, 0)
    with pytest.raises(ConfigurationError, match="INC-77 has no trail here"):
        await bench.check(IncidentId(77))


Work = Callable[[Bench], Awaitable[object]]


def run(*statements: str) -> Work:
    async def work(bench: Bench) -> None:
        for statement in statements:
            await bench.sql.execute(statement)

    return work


def then(work: Work, *more: Work) -> Work:
    async def both(bench: Bench) -> None:
        for one in (work, *more):
            await one(bench)

    return both


TAIL = "DELETE FROM trace WHERE incident_id = 1 AND seq >= 4"
FORGED = """
INSERT INTO trace (incident_id, version, seq, at, kind, summary, data, previous, hash)
SELECT 1, 2, 6, {at}, 'note', 'forged', '{{}}', hash, '' FROM trace WHERE incident_id = 1 AND seq = 5
"""
TAMPERING: dict[str, tuple[Work, tuple[int | None, int | None, Fault]]] = {
    "updated": (run("UPDATE trace SET summary = 'x' WHERE incident_id = 1 AND seq = 3"), (1, 3, Fault.CHANGED)),
    "back-dated by update": (
        run("UPDATE trace SET at = at - interval '1 microsecond' WHERE incident_id = 1 AND seq = 3"),
        (1, 3, Fault.CHANGED),
    ),
    "deleted from the middle": (run("DELETE FROM trace WHERE incident_id = 1 AND seq = 3"), (1, 3, Fault.MISSING)),
    "tail cut": (run("DELETE FROM trace WHERE incident_id = 1 AND seq = 5"), (1, 5, Fault.TAIL_CUT)),
    "tail cut, head repaired": (then(run(TAIL), lambda bench: bench.head(FIRST)), (1, 4, Fault.TAIL_CUT)),
    "tail cut and written anew": (
        then(
            run(TAIL, "UPDATE trace SET seq = 4 WHERE false"),
            lambda bench: bench.head(FIRST),
            run("ALTER TABLE trace ENABLE TRIGGER trace_chain", "ALTER TABLE trace_heads ENABLE TRIGGER USER"),
            lambda bench: bench.add(FIRST, "other four", "other five"),
        ),
        (1, 1, Fault.REWRITTEN),
    ),
    "whole chain rewritten": (
        then(
            run("UPDATE trace SET summary = 'nothing' WHERE incident_id = 2 AND seq = 2"),
            lambda bench: bench.rehash(SECOND),
        ),
        (2, 1, Fault.REWRITTEN),
    ),
    "passed off as the old version": (
        then(run("UPDATE trace SET version = 1 WHERE incident_id = 1 AND seq = 5"), lambda bench: bench.rehash(FIRST)),
        (1, 5, Fault.CHANGED),
    ),
    "back-dated, hashed": (
        then(
            run("UPDATE trace SET at = at - interval '1 hour' WHERE incident_id = 1 AND seq = 5"),
            lambda bench: bench.rehash(FIRST, from_seq=5),
        ),
        (1, 5, Fault.BACK_DATED),
    ),
    "late entry of a new chain, dated before the anchor": (
        then(
            run(
                """INSERT INTO trace (incident_id, version, seq, at, kind, summary, data, previous, hash)
                   VALUES (9, 2, 1, clock_timestamp() - interval '11 minutes', 'note', 'forged', '{}', '', '')"""
            ),
            lambda bench: bench.rehash(IncidentId(9)),
        ),
        (9, 1, Fault.BACK_DATED),
    ),
    "forged at the end": (
        then(
            run(FORGED.format(at="clock_timestamp()")),
            lambda bench: bench.rehash(FIRST),
            run(
                "UPDATE trace_heads SET seq = 5, hash = (SELECT hash FROM trace WHERE incident_id = 1 AND seq = 5)"
                " WHERE incident_id = 1"
            ),
        ),
        (1, 6, Fault.FORGED),
    ),
    "chain removed": (run("DELETE FROM trace WHERE incident_id = 2"), (2, 1, Fault.REMOVED)),
    "chain removed with its head": (
        run("DELETE FROM trace WHERE incident_id = 2", "DELETE FROM trace_heads WHERE incident_id = 2"),
        (2, 1, Fault.REMOVED),
    ),
    "decision edited": (run("UPDATE approvals SET user_id = 'U0EVE' WHERE id = 1"), (1, 2, Fault.DECISION)),
    "reason edited": (run("UPDATE approvals SET reason = 'no' WHERE id = 2"), (1, 3, Fault.DECISION)),
    "decision deleted": (run("DELETE FROM approvals WHERE id = 2"), (1, 3, Fault.DECISION)),
    "decision slipped in": (
        run("INSERT INTO approvals (plan_id, plan_hash, user_id, decision) SELECT id, hash, 'E', 'reject' FROM plans"),
        (1, None, Fault.DECISION),
    ),
    "plan changed under its decision": (
        run("""UPDATE plans SET action = jsonb_set(action, '{instances,0,uid}', '"u-2"')"""),
        (1, 2, Fault.DECISION),
    ),
}
"""What the owner does, and the defect that has to be found: incident, entry, fault."""


@pytest.mark.parametrize("name", TAMPERING)
async def test_threat_audit_tampering_by_the_owner_is_found(bench: Bench, name: str) -> None:
    work, expected = TAMPERING[name]
    await work(bench)
    assert await bench.found() == [expected]


async def test_what_is_said_names_entry_anchor_and_time(bench: Bench) -> None:
    await bench.sql.execute("UPDATE trace SET summary = 'nothing' WHERE incident_id = 2 AND seq = 2")
    await bench.rehash(SECOND)
    await bench.sql.execute("DELETE FROM trace WHERE incident_id = 1 AND seq = 3")
    anchored = read_anchors(bench.path).last_at
    assert anchored is not None
    first, second, summary = (await bench.check()).lines()
    assert first == "❌ INC-1 entry 3 is missing: 4 comes in its place (missing)"
    assert second == f"❌ INC-2 entries 1 to 4 are not what the anchor of {anchored.isoformat()} holds (rewritten)"
    assert summary.endswith("2 broken")
    assert [one.incident_id for one in (await bench.check(SECOND)).defects] == [SECOND]
    loaded = json.loads((await bench.check(SECOND)).as_json())
    assert (loaded["ok"], loaded["defects"][0]["fault"], loaded["defects"][0]["seq"]) == (False, "rewritten", 1)


def edit_lines(change: Callable[[list[bytes]], list[bytes]]) -> Callable[[Path], object]:
    return lambda path: path.write_bytes(b"".join(change(path.read_bytes().splitlines(keepends=True))))


def relinked(lines: list[bytes]) -> list[bytes]:
    """The second line without its chains, and every hash after it made good."""
    made: list[bytes] = []
    for number, line in enumerate(lines):
        one = json.loads(line)
        one["previous"] = hashlib.sha256(made[-1].rstrip(b"\n")).hexdigest() if made else ""
        if number == 1:
            one["chains"] = []
        made.append(json.dumps(one, separators=(",", ":")).encode() + b"\n")
    return made


FILES: dict[str, tuple[Callable[[Path], object], str]] = {
    "edited": (
        edit_lines(lambda lines: [lines[0], lines[1].replace(b'"seq":5', b'"seq":4'), lines[2]]),
        "line 2 its digest",
    ),
    "line taken out": (edit_lines(lambda lines: [lines[0], lines[2]]), "line 2 does not follow the line before"),
    "beginning cut": (edit_lines(lambda lines: lines[1:]), "line 1 does not follow the line before: lines before it"),
    "end cut": (
        edit_lines(lambda lines: lines[:2]),
        "cut: it ends with line 2, the trail tells of line 3",
    ),
    "last line halved": (edit_lines(lambda lines: [*lines[:2], lines[2][:40]]), "it ends with line 2"),
    "scribbled over": (edit_lines(lambda lines: [lines[0], b"{}\n", lines[2]]), "line 2 is no anchor"),
    "rewritten as a whole": (edit_lines(relinked), "line 2 its digest"),
    "emptied": (lambda path: path.write_bytes(b""), "is gone, or another was put in its place"),
    "removed": (lambda path: path.unlink(), "is gone, or another was put in its place"),
}


async def test_threat_audit_tampering_with_the_file_of_anchors_is_found(bench: Bench) -> None:
    await bench.sql.execute("ALTER TABLE trace ENABLE TRIGGER USER; ALTER TABLE trace_heads ENABLE TRIGGER USER")
    await bench.keeper.anchor()
    await bench.add(FIRST, "six")
    await bench.keeper.anchor()
    whole = bench.path.read_bytes()
    assert (await bench.check()).ok
    for name, (tamper, said) in FILES.items():
        tamper(bench.path)
        told = [one.said for one in (await bench.check()).defects if one.fault is Fault.ANCHORS]
        assert any(said in one for one in told), name
        bench.path.write_bytes(whole)
    bench.path.unlink()
    await bench.keeper.anchor()
    (defect,) = (await bench.check()).defects
    assert "another was put in its place" in defect.said


async def test_half_a_line_of_a_crash_is_replaced_by_the_next_anchor(bench: Bench) -> None:
    with bench.path.open("ab") as file:
        file.write(b'{"at":"2026')
    assert (await bench.check()).ok
    await bench.sql.execute("ALTER TABLE trace ENABLE TRIGGER USER; ALTER TABLE trace_heads ENABLE TRIGGER USER")
    anchors = await asyncio.gather(*(bench.keeper.anchor() for _ in range(3)))
    assert sorted(anchor.number for anchor in anchors) == [2, 3, 4], "writers take turns"
    assert (await bench.check()).ok
    assert bench.path.stat().st_mode & 0o777 == 0o600


async def test_files_of_other_replicas_are_counted_and_may_be_given(bench: Bench, tmp_path: Path) -> None:
    await bench.sql.execute("ALTER TABLE trace ENABLE TRIGGER USER; ALTER TABLE trace_heads ENABLE TRIGGER USER")
    other = tmp_path / "other" / "anchors.jsonl"
    await AnchorKeeper(bench.store, bench.archive, other, interval_s=3600.0).anchor()
    report = await bench.check()
    assert (report.ok, report.anchors, report.elsewhere) == (True, 1, 1)
    both = await verify(bench.archive, [read_anchors(bench.path), read_anchors(other)], None)
    assert (both.ok, both.anchors, both.elsewhere) == (True, 2, 0)
    nothing = await verify(bench.archive, [read_anchors(tmp_path / "none.jsonl")], None)
    assert [one.fault for one in nothing.defects] == [Fault.ANCHORS, Fault.ANCHORS]


async def test_an_anchor_is_due_when_an_incident_ended_or_the_interval_is_over(bench: Bench) -> None:
    await bench.sql.execute("ALTER TABLE trace ENABLE TRIGGER USER; ALTER TABLE trace_heads ENABLE TRIGGER USER")
    assert not await bench.keeper.anchor_if_due()
    await bench.sql.execute("UPDATE incidents SET state = 'resolved', closed_at = clock_timestamp() WHERE id = 2")
    assert await bench.keeper.anchor_if_due()
    assert not await bench.keeper.anchor_if_due()
    assert await AnchorKeeper(bench.store, bench.archive, bench.path, interval_s=1e-6).anchor_if_due()


def recompute(text: str) -> list[str]:
    """An auditor's script: SHA-256 and what the file itself says of how its hashes are made. What is wrong."""
    file, wrong, previous = json.loads(text), [], ""
    for number, row in enumerate(file["trail"]["rows"], start=1):
        fields = [row["previous"], str(row["incident"]), str(row["seq"]), str(row["at_us"]), row["kind"]]
        fields += [row["summary"], row["data"]]
        parts = [part.encode() for part in ["2", *fields]]
        two = b"".join(b"%d:%s," % (len(part), part) for part in parts)
        covered = two if row["version"] == 2 else "|".join(fields).encode()
        if hashlib.sha256(covered).hexdigest() != row["hash"] or (row["seq"], row["previous"]) != (number, previous):
            wrong.append(f"entry {number}")
        previous = row["hash"]
    plans = {plan["id"]: hashlib.sha256(plan["hashed_text"].encode()).hexdigest() for plan in file["plans"]}
    told = [json.loads(row["data"]) for row in file["trail"]["rows"] if row["kind"] == "approval"]
    for decision, entry in zip(file["approvals"], told, strict=True):
        reason = hashlib.sha256(decision["reason"].encode()).hexdigest()
        ours = [decision[name] for name in ("id", "plan_id", "user_id", "decision", "at_us")]
        if [*ours, reason, plans[decision["plan_id"]]] != [
            *(entry[name] for name in ("approval", "plan", "user", "decision", "at_us", "reason_sha256", "hash"))
        ]:
            wrong.append(f"decision {decision['id']}")
    hashes = {row["seq"]: row["hash"] for row in file["trail"]["rows"]}
    for anchor in file["anchors"]:
        heads = [head for head in json.loads(anchor["line"])["chains"] if head["incident"] == file["incident"]["id"]]
        if hashlib.sha256(anchor["line"].encode()).hexdigest() != anchor["sha256"] or not heads:
            wrong.append("anchor")
        wrong += [f"anchored {head['seq']}" for head in heads if hashes.get(head["seq"]) != head["hash"]]
    return wrong if file["trail"]["head"] == {"seq": len(hashes), "hash": previous} else [*wrong, "tail"]


async def test_an_auditor_checks_the_exported_incident_without_the_bot(bench: Bench) -> None:
    async def exported() -> tuple[str, str]:
        text, defect = await export(bench.archive, [read_anchors(bench.path)], FIRST, REDACTOR.json)
        return text, defect.describe() if defect else ""

    text, said = await exported()
    assert (recompute(text), said) == ([], "")
    file = json.loads(text)
    assert file["checked"]["ok"]
    assert [row["kind"] for row in file["trail"]["rows"]] == ["note", "approval", "approval", "note", "note"]
    assert [json.loads(row["data"]) for row in file["trail"]["rows"]][3] == {"of": "four", "σ": [1.5, "|"]}
    assert [one["user_id"] for one in file["approvals"]] == ["U0ALICE", "U0BOB"]
    assert not file["approvals"][0]["at"].startswith("1999"), "dated by the database"
    assert len(file["anchors"]) == 1
    assert set(file["how_hashes_are_made"]) == {"trail", "plans", "approvals", "anchors", "secrets"}
    await bench.sql.execute("UPDATE trace SET data = '{}' WHERE incident_id = 1 AND seq = 4")
    await bench.sql.execute("UPDATE approvals SET decision = 'reject' WHERE id = 1")
    text, said = await exported()
    assert recompute(text) == ["entry 4", "decision 1"]
    assert said.startswith("INC-1 decision 1 in approvals is not that of entry 2")
    with pytest.raises(ConfigurationError, match="INC-99 is not known here"):
        await export(bench.archive, [], IncidentId(99), REDACTOR.json)


async def test_fields_cannot_be_shifted_into_one_another(bench: Bench) -> None:
    shifted = await bench.sql.fetchval(
        """SELECT trace_hash_2('', 1, 1, now(), 'a|b', 'c', '{}') = trace_hash_2('', 1, 1, now(), 'a', 'b|c', '{}')"""
    )
    assert shifted is False
    await bench.sql.execute("UPDATE trace SET kind = 'no', summary = 'te:five' WHERE incident_id = 1 AND seq = 5")
    assert await bench.found() == [(1, 5, Fault.CHANGED)]


async def test_a_clock_that_is_set_back_stands_still_in_the_trail(bench: Bench) -> None:
    await bench.sql.execute("UPDATE trace_heads SET at = clock_timestamp() + interval '1 hour' WHERE incident_id = 1")
    await bench.sql.execute("ALTER TABLE trace ENABLE TRIGGER USER; ALTER TABLE trace_heads ENABLE TRIGGER USER")
    ahead = await bench.sql.fetchval("SELECT at FROM trace_heads WHERE incident_id = 1")
    await bench.add(FIRST, "six", "seven")
    times = await bench.sql.fetch("SELECT at FROM trace WHERE incident_id = 1 AND seq >= 6")
    assert [row["at"] for row in times] == [ahead, ahead]
    assert (await bench.check()).ok


async def test_a_long_trail_passes_through_a_cursor(bench: Bench) -> None:
    await bench.sql.execute("ALTER TABLE trace ENABLE TRIGGER USER; ALTER TABLE trace_heads ENABLE TRIGGER USER")
    await bench.sql.execute(
        """INSERT INTO trace (incident_id, kind, summary, data)
           SELECT 3, 'note', 'entry ' || n, jsonb_build_object('n', n) FROM generate_series(1, 1700) n"""
    )
    report = await bench.check()
    assert (report.ok, report.rows, report.chains) == (True, 1711, 4)
    await bench.sql.execute("ALTER TABLE trace DISABLE TRIGGER USER")
    await bench.sql.execute("DELETE FROM trace WHERE incident_id = 3 AND seq = 1234")
    assert await bench.found() == [(3, 1234, Fault.MISSING)]
