"""Secrets in telemetry and documents: neither stored, nor shown, nor handed to an author, nor in the trail."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from datetime import datetime, timedelta

import asyncpg
import pytest

from bot.redacting import REDACTOR, clean_entry, redact
from pipeline.adapters.llm.rules import RulesDiagnostician
from pipeline.adapters.postgres.pool import Pool
from pipeline.adapters.postgres.unit_of_work import PostgresStore
from pipeline.domain.changes import ChangeEvent, ChangeKind, ChangeReading
from pipeline.domain.diagnosis import Passage
from pipeline.domain.ids import IncidentId, ServiceName
from pipeline.domain.logs import LogLine, LogReading
from pipeline.domain.trace import TraceEntry, TraceKind
from pipeline.ports.clock import SystemClock
from pipeline.ports.knowledge import Found, KnowledgeQuery
from pipeline.ports.model import Answer, Question
from pipeline.stages.diagnose import Authors, Diagnoser
from pipeline.stages.investigate import Investigator
from pipeline.stages.observe import Sources
from pipeline.stages.propose import Proposer
from pipeline.stages.reads import Ports
from pipeline.stages.settings import LoopSettings
from pipeline.stages.witnesses import Witnesses
from tests.contract.targets.places import KubePlace
from tests.integration.test_loop_stages import CHECKOUT, DETECTION, leaking, warm_loop

IN_A_COMMIT = "hunter2-in-a-commit"
IN_A_RUNBOOK = "correct-horse-battery"
IN_NAMES = "ghp_" + "a1B2" * 9
"""Where nobody writes a secret, and somebody did: names of documents and authors, revisions, headings."""
IN_A_LOG = "tr0ub4dor-in-a-log"


class Commits:
    name = "git"

    async def changes(self, since: datetime, until: datetime) -> ChangeReading:
        at = until - timedelta(minutes=3)
        return ChangeReading(
            (
                ChangeEvent(
                    CHECKOUT, at, ChangeKind.CONFIGURATION, "3f2a91c", f"set DB_PASSWORD={IN_A_COMMIT}", "alice"
                ),
                ChangeEvent(CHECKOUT, at, ChangeKind.DEPLOYMENT, f"app:{IN_NAMES}", "4.15.0", f"bot {IN_NAMES}"),
            )
        )

    async def close(self) -> None:
        return


class Shelf:
    async def search(self, query: KnowledgeQuery, *, limit: int) -> Found:
        text = f"Restart it. Log in with password: {IN_A_RUNBOOK}"
        named = Passage(f"{IN_NAMES}.md", f"Token {IN_NAMES}", "Rotate it.", 0.8, "hybrid")
        return Found((Passage("memory.md", "Memory leak", text, 0.9, "hybrid"), named))


class Lines:
    """The same line again and again; its secret stands across the place where samples are cut."""

    name = "files"

    async def tail(self, since: datetime, until: datetime, *, limit: int) -> LogReading:
        said = f"fatal: {'x ' * 130}cannot log in, password={IN_A_LOG}{'-9' * 60}"
        return LogReading(tuple(LogLine(until - timedelta(seconds=n), CHECKOUT, said) for n in range(9)))

    async def search(
        self, service: ServiceName, text: str, since: datetime, until: datetime, *, limit: int
    ) -> LogReading:
        return await self.tail(since, until, limit=limit)

    async def close(self) -> None:
        return


class Listening(RulesDiagnostician):
    def __init__(self) -> None:
        self.heard = ""

    async def diagnose(self, question: Question) -> Answer:
        told = [item.statement + json.dumps(dict(item.snapshot), default=str) for item in question.read]
        self.heard = "\n".join([*told, *(f"{one.document} {one.heading} {one.text}" for one in question.passages)])
        return await super().diagnose(question)


@pytest.fixture
async def clean_store(database_dsn: str) -> AsyncIterator[PostgresStore]:
    pool = Pool(database_dsn, max_size=4)
    await pool.open()
    yield PostgresStore(pool, clean_entry)
    await pool.close()


async def test_secrets_in_commits_and_runbooks_go_nowhere(
    clean_store: PostgresStore, place: KubePlace, database_dsn: str
) -> None:
    loop = await warm_loop(clean_store, place)
    sources = Sources(metrics=(loop.source,), changes=(Commits(),), logs=(Lines(),))
    loop.observer = loop.observing(sources, redact=redact)
    await loop.ticks(10, leaking(loop))
    rules, settings = Listening(), LoopSettings(detection=DETECTION)
    witnesses = Witnesses((), (), (Lines(),))
    ports = Ports(clean_store, loop.targets, loop.catalogue, witnesses, Shelf())
    diagnoser = Diagnoser(
        clean_store,
        Investigator(ports, DETECTION, None, REDACTOR),
        Shelf(),
        Authors(rules, rules),
        Proposer(clean_store, loop.targets, loop.catalogue, settings),
        loop.catalogue,
        SystemClock(),
        settings,
        redact=redact,
    )
    async with clean_store.begin() as uow:
        (incident,) = await uow.incidents.open()
    await diagnoser.run(incident, await loop.detector.bank())
    assert "3f2a91c" in rules.heard, "the change itself is told"
    assert "‹secret:password:" in rules.heard
    assert "‹secret:github" in rules.heard
    await diagnosed_without(database_dsn, rules.heard)


async def diagnosed_without(dsn: str, heard: str) -> None:
    connection = await asyncpg.connect(dsn)
    try:
        tables = ("changes", "evidence", "incidents", "plans", "trace", "outbox", "log_patterns")
        stored = [str(row) for table in tables for row in await connection.fetch(f"SELECT * FROM {table}")]
    finally:
        await connection.close()
    everything = "\n".join([heard, *stored])
    assert IN_A_COMMIT not in everything
    assert IN_A_RUNBOOK not in everything
    assert IN_NAMES not in everything
    assert IN_A_LOG[:8] not in everything


async def test_the_trail_takes_no_secret_whoever_writes_it(clean_store: PostgresStore) -> None:
    entry = TraceEntry(TraceKind.NOTE, "token=ghp_" + "a1B2" * 9, {"asked": "Authorization: Bearer abcdef123456789xyz"})
    async with clean_store.begin() as uow:
        await uow.trace.add(IncidentId(1), entry)
        (stored,) = await uow.trace.read(IncidentId(1))
        assert await uow.trace.first_broken(IncidentId(1)) is None
    told = stored.entry.summary + json.dumps(dict(stored.entry.data))
    assert "ghp_a1B2" not in told
    assert "abcdef123456789xyz" not in told
