"""Reads what a trial left in the database and in Slack."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import asyncpg

from bot.slack.names import APPROVE
from bot.slack.standing import awaits_decision, standing
from pipeline.adapters.postgres.pool import Connection, Pool
from pipeline.adapters.postgres.unit_of_work import PostgresStore
from pipeline.domain.ids import IncidentId
from tests.crash.invariants import (
    ApprovalRow,
    CardLook,
    ExecutionRow,
    History,
    PlanRow,
    StepRow,
    TrailRow,
)


async def gather(dsn: str, messages: Sequence[dict[str, Any]], told: dict[str, Any]) -> History:
    """``told`` are the fields of the history that the trial knows itself."""
    pool = Pool(dsn, max_size=2)
    connection = await asyncpg.connect(dsn)
    try:
        return await read(connection, PostgresStore(pool), told, messages)
    finally:
        await connection.close()
        await pool.close()


async def read(
    connection: Connection, store: PostgresStore, told: dict[str, Any], messages: Sequence[dict[str, Any]] | None
) -> History:
    """The same over connections that are there; without ``messages`` the cards are left out."""
    async with connection.transaction(isolation="repeatable_read", readonly=True):
        steps = defaultdict(list)
        for row in await connection.fetch("SELECT execution_id, number, state FROM execution_steps ORDER BY number"):
            steps[row["execution_id"]].append(StepRow(row["number"], row["state"]))
        executions = [
            ExecutionRow(**dict(row), steps=tuple(steps[row["id"]]))
            for row in await connection.fetch(
                """SELECT id, plan_id, incident_id, kind, state, created_at FROM executions
                   WHERE plan_id NOT IN (SELECT id FROM plans WHERE hash = 'earlier') ORDER BY id"""
            )
        ]
        earlier = await connection.fetchval(
            "SELECT count(*) FROM executions WHERE plan_id IN (SELECT id FROM plans WHERE hash = 'earlier')"
        )
        plans = await connection.fetch(
            "SELECT id, incident_id, state, approvals_needed, expires_at FROM plans WHERE hash <> 'earlier'"
        )
        approvals = await connection.fetch('SELECT plan_id, user_id AS "user", decision, at FROM approvals')
        trail = await connection.fetch(
            """SELECT incident_id, seq, at, kind, summary, previous, hash, data FROM trace ORDER BY incident_id, seq"""
        )
        dead = await connection.fetchval("SELECT count(*) FROM outbox WHERE state = 'dead'")
        told_of = await connection.fetch("SELECT id FROM incidents WHERE title <> 'earlier' ORDER BY id")
        incidents = [row["id"] for row in told_of]
    async with store.begin() as uow:
        broken = {one: await uow.trace.first_broken(IncidentId(one)) for one in (0, *incidents)}
    cards = [await _card(store, one, messages) for one in incidents] if messages is not None else []
    return History(
        executions=executions,
        plans=[PlanRow(**dict(row)) for row in plans],
        approvals=[ApprovalRow(**dict(row)) for row in approvals],
        trail=[TrailRow(**(dict(row) | {"data": json.loads(row["data"])})) for row in trail],
        first_broken=broken,
        dead_letters=dead,
        earlier_actions=earlier,
        cards=cards,
        **told,
    )


async def _card(store: PostgresStore, incident_id: int, messages: Sequence[dict[str, Any]]) -> CardLook:
    async with store.begin() as uow:
        case = await uow.incidents.case(IncidentId(incident_id))
    assert case is not None
    now = standing(case)
    roots = [
        message
        for message in messages
        if message.get("thread_ts", message["ts"]) == message["ts"]
        and (message.get("metadata") or {}).get("event_payload", {}).get("incident_id") == incident_id
    ]
    shown = "\n".join(_texts(roots[0].get("blocks", []))) if roots else ""
    buttons = {
        element.get("action_id")
        for block in (roots[0].get("blocks", []) if roots else [])
        for element in block.get("elements", [])
        if isinstance(element, dict)
    }
    words = (f"· {now.word}", *([now.line] if now.line else []))
    return CardLook(incident_id, len(roots), shown, words, APPROVE in buttons, awaits_decision(case))


def _texts(value: object) -> list[str]:
    """Every text of a message's blocks."""
    if isinstance(value, dict):
        own = [value["text"]] if isinstance(value.get("text"), str) else []
        return own + [text for one in value.values() for text in _texts(one)]
    if isinstance(value, list):
        return [text for one in value for text in _texts(one)]
    return []
