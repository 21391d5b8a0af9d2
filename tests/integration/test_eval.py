"""Recorded cases through the real pipeline and a real database."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from bot.config import Settings, load
from bot.eval import EvalOptions, evaluate
from bot.eval_cases import read_case
from bot.eval_record import record_incident
from bot.eval_runner import run_case
from bot.wiring.evaluation import EvalBench, eval_bench, with_model
from pipeline.adapters.postgres.pool import Pool
from pipeline.adapters.postgres.scratch import PREFIX, ScratchDatabases
from pipeline.domain.catalogue import Catalogue
from pipeline.domain.errors import ConfigurationError, TemporaryError
from pipeline.domain.ids import IncidentId, ServiceName
from pipeline.domain.trace import JsonValue, TraceKind
from pipeline.ports.store import Store
from tests.cases_plain import shop
from tests.cases_world import World, climb


def settings_for(dsn: str) -> Settings:
    return load({"DATABASE_URL": dsn}, None)


def leak() -> World:
    world = shop(World("leak", "A leak that is over its bound when the replay begins", minutes=2.5, hours=2))
    world.shape("checkout/memory_ratio/checkout-1", climb(-30, 0.02, 0.97))
    world.expect("cause", "memory", "checkout", evidence=[{"series": "checkout/memory_ratio/checkout-1"}],
                 forbidden=["(?i)certificate"])  # fmt: skip
    return world


def calm() -> World:
    world = shop(World("calm", "Nothing is wrong", minutes=2.5, hours=2))
    world.expect("healthy")
    return world


async def test_cases_are_diagnosed_scored_and_told_and_a_broken_one_stops_no_other(
    database_dsn: str, tmp_path: Path
) -> None:
    for world in (leak(), calm()):
        world.write(tmp_path / "cases")
    (tmp_path / "cases" / "broken").mkdir()
    (tmp_path / "cases" / "broken" / "case.yaml").write_text("title: half\n")
    said: list[str] = []
    complaints: list[str] = []

    @asynccontextmanager
    async def workbench() -> AsyncIterator[EvalBench]:
        async with eval_bench(settings_for(database_dsn), "rules", embed=False) as bench:
            yield bench

    options = EvalOptions(tmp_path / "cases", out=tmp_path / "out.json", min_top1=1.0)
    assert await evaluate(options, workbench, said.append, complaints.append) == 2
    assert "broken/case.yaml, line 1: now: field required" in complaints[0]
    report = json.loads((tmp_path / "out.json").read_text())
    calm_one, leak_one = report["cases"]
    assert (report["model"], leak_one["got"], leak_one["top1"]) == (
        "rules",
        "memory at checkout",
        True,
    )
    assert leak_one["path_holds"], leak_one["path_problem"]
    assert leak_one["offered"], leak_one["why_not_offered"]
    assert (leak_one["evidence_found"], leak_one["forbidden"], leak_one["incidents"]) == (1, [], 1)
    assert (calm_one["got"], calm_one["false_alarm"]) == ("no incident", False)
    assert any(line.startswith("leak") and "memory at checkout" in line for line in said)

    connection = await asyncpg.connect(database_dsn)
    left = await connection.fetchval("SELECT count(*) FROM pg_database WHERE starts_with(datname, $1)", PREFIX)
    await connection.close()
    assert left == 0


async def retrieved(store: Store) -> Any:
    """What was searched for the first incident, and found."""
    async with store.begin() as uow:
        trail = await uow.trace.read(IncidentId(1))
    return next(one.entry.data for one in trail if one.entry.kind is TraceKind.RETRIEVED)


async def first_runbook(store: Store) -> tuple[JsonValue, str]:
    """How the first passage of the first incident was found, and the document it is of."""
    first = (await retrieved(store))["passages"][0]
    return first["method"], str(first["document"]).rpartition("/")[2]


async def test_an_incident_that_was_recorded_is_a_case_that_gives_the_same_answer(
    database_dsn: str, tmp_path: Path
) -> None:
    world = leak()
    world.alert("checkout: p99 far above its objective", "X509CertificateExpiringSoon")
    world.write(tmp_path)
    case = read_case(tmp_path / "leak")
    async with eval_bench(settings_for(database_dsn), "rules", embed=False) as work:
        async with work.bench(case) as bench:
            (told,) = (await run_case(case, bench)).told
            assert (await first_runbook(bench.store)) == ("alert", "certificate-expiry.md"), (
                "the alert's own comes first"
            )
            assert (await retrieved(bench.store))["filters"]["category"] == "memory"
            place = await record_incident(bench.store, IncidentId(1), tmp_path, Catalogue(case.services))
            with pytest.raises(ConfigurationError, match="is there already"):
                await record_incident(bench.store, IncidentId(1), tmp_path, Catalogue(case.services))
            with pytest.raises(ConfigurationError, match="INC-9 is not known here"):
                await record_incident(bench.store, IncidentId(9), tmp_path, Catalogue(case.services))
        again = read_case(place)
        assert (again.id, again.expected.causes[0].service) == ("inc-1", "checkout")
        assert again.services[ServiceName("checkout")] == case.services[ServiceName("checkout")]
        again = replace(again, begin=case.begin, now=case.now, interval_s=case.interval_s)
        async with work.bench(again) as bench:
            (same,) = (await run_case(again, bench)).told
    assert (same.root, same.category, same.conclusion) == (told.root, told.category, told.conclusion)


async def test_a_case_is_run_as_the_bot_runs(database_dsn: str, tmp_path: Path) -> None:
    """Secrets are taken out of what is recorded, documents and evidence alike."""
    secret = "sk-ant-api03-" + "Zq7" * 12
    docs = tmp_path / "runbooks"
    docs.mkdir()
    (docs / "leak.md").write_text(f"---\nalerts: [CheckoutLeaks]\n---\n# Leak\n\nLog in with {secret} and restart.")
    world = leak()
    world.alert("checkout leaks", "CheckoutLeaks")
    world.log("checkout", f"ERROR cannot charge with key {secret}", -2.4, every_s=2.0)
    world.write(tmp_path)
    settings = load({"DATABASE_URL": database_dsn, "SRE_RUNBOOKS": str(docs)}, None)
    case = read_case(tmp_path / "leak")
    async with eval_bench(settings, "rules", embed=False) as work, work.bench(case) as bench:
        await run_case(case, bench)
        async with bench.store.begin() as uow:
            told = await uow.incidents.case(IncidentId(1))
    assert told is not None
    assert told.passages[0].document.endswith("leak.md")
    assert "and restart." in told.passages[0].text
    lines = [one.statement for one in told.evidence if "cannot charge with key" in one.statement]
    assert lines
    assert secret not in str((told.passages, told.evidence))


async def test_a_copy_has_what_the_template_has_and_its_own_time(database_dsn: str) -> None:
    databases = ScratchDatabases(database_dsn)
    then = datetime(2026, 1, 2, 3, 4, tzinfo=UTC)

    async def prepare(dsn: str) -> None:
        pool = Pool(dsn, max_size=1)
        async with pool.transaction() as connection:
            await connection.execute("CREATE TABLE told (at timestamptz DEFAULT clock_timestamp())")
        await pool.close()

    async with databases.template(prepare), databases.copy() as one, databases.copy() as other:
        await one.set_clock(then)
        pool = Pool(one.dsn, max_size=1)
        async with pool.transaction() as connection:
            at = await connection.fetchval("INSERT INTO told DEFAULT VALUES RETURNING at")
            assert at == then == await connection.fetchval("SELECT clock_timestamp()")
        await pool.close()
        pool = Pool(other.dsn, max_size=1)
        async with pool.transaction() as connection:
            assert await connection.fetchval("SELECT count(*) FROM told") == 0
            assert await connection.fetchval("SELECT clock_timestamp() <> $1", then)
        await pool.close()


async def test_what_a_killed_run_left_behind_is_dropped_by_the_next(database_dsn: str) -> None:
    """And nothing of a run that lives, however idle, nor a database that only looks alike."""

    async def nothing(dsn: str) -> None:
        assert dsn

    left, alike = f"{PREFIX}{'0' * 12}_7", f"{PREFIX}of_mine"
    connection = await asyncpg.connect(database_dsn)
    try:
        for name in (left, alike):
            await connection.execute(f"DROP DATABASE IF EXISTS {name}")
            await connection.execute(f"CREATE DATABASE {name}")

        async def there() -> set[str]:
            found = await connection.fetch("SELECT datname FROM pg_database WHERE starts_with(datname, $1)", PREFIX)
            return {str(row["datname"]) for row in found}

        living = ScratchDatabases(database_dsn)
        before = await there()
        async with living.template(nothing):
            assert left not in await there()
            (idle,) = await there() - before
            async with ScratchDatabases(database_dsn).template(nothing):
                assert {idle, alike} <= await there()
            async with living.copy() as one:
                await one.set_clock(datetime(2026, 1, 2, tzinfo=UTC))
        assert idle not in await there()
    finally:
        await connection.execute(f"DROP DATABASE IF EXISTS {alike}")
        await connection.close()


async def test_a_model_that_cannot_be_had_is_no_evaluation_of_the_rules(database_dsn: str) -> None:
    settings = settings_for(database_dsn)
    with pytest.raises(ConfigurationError, match="--model anthropic: no ANTHROPIC_API_KEY"):
        async with eval_bench(settings, "anthropic", embed=False):
            pytest.fail("it was had")
    assert with_model(settings, "gpt-6-luna").model.name == "gpt-6-luna"
    assert with_model(settings, "rules").model.provider == "rules"
    assert with_model(settings, "") is settings


async def test_a_server_that_is_away_is_told() -> None:
    nowhere = ScratchDatabases("postgresql://nobody@127.0.0.1:1/none")

    async def prepare(dsn: str) -> None:
        pytest.fail(dsn)

    with pytest.raises(TemporaryError, match="DATABASE_URL: the database server cannot be used"):
        async with nowhere.template(prepare):
            pytest.fail("there is no server")
