"""Who may decide, what is true at the click, and who is called when nobody decides: on the real store."""

from __future__ import annotations

import asyncio
import json
import os
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from bot.catalogue import CatalogueFile
from executors.targets.registry import Registry
from pipeline.adapters.postgres.pool import Connection, Pool
from pipeline.adapters.postgres.unit_of_work import PostgresStore
from pipeline.domain.action import InstanceRef, RestartAction
from pipeline.domain.approval import DecisionOutcome, default_rules
from pipeline.domain.ids import PlanId, SlackUserId
from pipeline.domain.lifecycle import IncidentState, PlanState
from pipeline.domain.trace import TraceKind
from pipeline.ports.clock import SystemClock
from pipeline.stages.advance import advance
from pipeline.stages.decide import Decider
from pipeline.stages.remind import Reminder
from pipeline.stages.settings import LoopSettings
from tests.builders import ALICE, BOB
from tests.contract.targets.places import KubePlace
from tests.stored import Waiting, awaiting, case_of

SETTINGS = LoopSettings(approvals=default_rules(2, [ALICE, BOB], ["S0SRE"]))
OUTCOME = DecisionOutcome


class Table:
    """A proposal that waits for people, under a policy that may be edited."""

    def __init__(self, store: PostgresStore, place: KubePlace, waiting: Waiting, path: Path) -> None:
        self.store, self.place, self.waiting, self.path = store, place, waiting, path
        self.edits = 0
        self.decider = self.replica()

    def replica(self) -> Decider:
        registry = Registry({"kubernetes": self.place.target})
        return Decider(self.store, registry, CatalogueFile(self.path), SystemClock(), SETTINGS)

    def policy(self, text: str) -> None:
        self.edits += 1
        self.path.write_text(text)
        os.utime(self.path, (self.edits, self.edits))

    @property
    def plan_id(self) -> PlanId:
        return self.waiting.plan.id

    async def states(self) -> tuple[PlanState, IncidentState]:
        case = await case_of(self.store, self.waiting.incident.id)
        assert case.plan is not None
        return case.plan.state, case.incident.state

    async def needed(self) -> int:
        case = await case_of(self.store, self.waiting.incident.id)
        assert case.plan is not None
        return case.plan.approvals_needed

    async def told(self, kind: TraceKind) -> list[str]:
        async with self.store.begin() as uow:
            return [
                one.entry.summary for one in await uow.trace.read(self.waiting.incident.id) if one.entry.kind is kind
            ]


@pytest.fixture
async def paged(database_dsn: str) -> AsyncIterator[PostgresStore]:
    """The store of a bot that has a pager."""
    pool = Pool(database_dsn, max_size=8)
    await pool.open()
    yield PostgresStore(pool, paging=True)
    await pool.close()


@pytest.fixture
async def table(paged: PostgresStore, place: KubePlace, tmp_path: Path) -> Table:
    ref = await place.target.resolve(place.address)
    state = await place.target.observe(ref)
    first = state.instances[0]
    waiting = await awaiting(
        paged,
        action=RestartAction(instances=(InstanceRef(name=first.name, uid=first.uid),)),
        target=ref,
        generation=state.generation,
        replicas_before=state.replicas,
        target_revision=state.revision,
        approvals_needed=2,
    )
    path = tmp_path / "services.yaml"
    path.write_text("{}")
    return Table(paged, place, waiting, path)


# --- the policy is judged at the click


async def test_a_ballot_names_who_may_decide_by_the_policy_of_this_moment(table: Table) -> None:
    ballot = await table.decider.ballot(table.waiting.plan.token)
    assert ballot is not None
    assert (ballot.plan_id, ballot.incident_id) == (table.plan_id, table.waiting.incident.id)
    assert (ballot.rule.people, ballot.rule.users, ballot.rule.groups) == (2, (ALICE, BOB), ("S0SRE",))
    table.policy("approvals:\n  - {severities: [sev2], people: 3, groups: [S0LEADS]}\n")
    ballot = await table.decider.ballot(table.waiting.plan.token)
    assert ballot is not None
    assert (ballot.rule.people, ballot.rule.users, ballot.rule.groups) == (3, (), ("S0LEADS",))
    table.policy("services: {checkout: {tier: 1}}\napprovals:\n  - {tiers: [1], people: 4}\n")
    rule = table.decider.rule(table.waiting.incident)
    assert (rule.people, rule.users) == (4, (ALICE, BOB)), "who names nobody means those of the settings"


async def test_what_is_no_token_of_a_plan_opens_nothing(table: Table) -> None:
    assert re.fullmatch("[0-9a-f]{32}", table.waiting.plan.token)
    for token in ("", "0" * 32, "7", str(table.plan_id), "' OR true --"):
        assert await table.decider.ballot(token) is None


async def test_a_policy_made_stricter_counts_for_a_plan_that_waits(table: Table) -> None:
    table.policy("approvals:\n  - {severities: [sev2], people: 3, groups: [S0SRE]}\n")
    for number, user in enumerate(("U1", "U2"), start=1):
        counted = await table.decider.approve(table.plan_id, SlackUserId(user))
        assert (counted.outcome, counted.message) == (OUTCOME.COUNTED, f"Counted: {number} of 3 approvals.")
    assert await table.needed() == 3, "the card and the runner ask for three too"
    table.policy("approvals:\n  - {people: 1, groups: [S0SRE]}\n")
    assert await table.needed() == 3, "one made weaker does not help a plan that waits"
    assert (await table.decider.approve(table.plan_id, SlackUserId("U3"))).outcome is OUTCOME.ACCEPTED


async def test_twenty_people_at_once_in_two_replicas_make_one_execution(table: Table, sql: Connection) -> None:
    replicas = (table.decider, table.replica())
    people = [SlackUserId(f"U{number:02}") for number in range(20)]
    results = await asyncio.gather(
        *(replicas[number % 2].approve(table.plan_id, user) for number, user in enumerate(people))
    )
    outcomes = [result.outcome for result in results]
    assert (outcomes.count(OUTCOME.COUNTED), outcomes.count(OUTCOME.ACCEPTED)) == (1, 1)
    assert outcomes.count(OUTCOME.ALREADY_DECIDED) == 18
    assert await sql.fetchval("SELECT count(*) FROM executions") == 1
    assert await sql.fetchval("SELECT count(*) FROM approvals") == 2
    assert await table.states() == (PlanState.APPROVED, IncidentState.MITIGATING)


async def test_one_person_many_times_is_one_and_each_time_stands_in_the_trail(table: Table, sql: Connection) -> None:
    results = await asyncio.gather(*(table.decider.approve(table.plan_id, ALICE) for _ in range(5)))
    outcomes = [result.outcome for result in results]
    assert (outcomes.count(OUTCOME.COUNTED), outcomes.count(OUTCOME.SAME_PERSON)) == (1, 4)
    assert await sql.fetchval("SELECT count(*) FROM executions") == 0
    assert len(await table.told(TraceKind.DENIED)) == 4


async def test_who_asked_for_the_plan_is_refused_and_it_stands_in_the_trail(table: Table, sql: Connection) -> None:
    await sql.execute("UPDATE plans SET requested_by = $1", ALICE)
    refused = await table.decider.approve(table.plan_id, ALICE)
    assert refused.outcome is OUTCOME.SAME_PERSON
    (denied,) = await table.told(TraceKind.DENIED)
    assert denied == f"approval by {ALICE} refused: You asked for this plan: somebody else has to approve it."
    assert await sql.fetchval("SELECT count(*) FROM approvals") == 0


# --- what is true at the click


async def test_alerts_that_have_cleared_void_the_plan(table: Table, sql: Connection) -> None:
    await sql.execute("UPDATE anomalies SET cleared_at = '2026-11-20T14:09:30Z'")
    result = await table.decider.approve(table.plan_id, ALICE)
    assert result.outcome is OUTCOME.OVER
    assert "firing → cleared" in result.message
    assert "cleared 14:09:30 UTC" in result.message
    assert await table.states() == (PlanState.SUPERSEDED, IncidentState.SELF_RECOVERED)
    assert await sql.fetchval("SELECT count(*) FROM executions") == 0
    assert table.place.server.writes == []
    late = await table.decider.approve(table.plan_id, BOB)
    assert late.message == "Too late: replaced or over by itself."
    assert await pages(sql) == [], "nobody was called, so nothing is to be resolved"


async def test_another_image_voids_the_plan_and_is_shown(table: Table, sql: Connection) -> None:
    await sql.execute("UPDATE plans SET target_revision = 'shop/checkout:old'")
    result = await table.decider.approve(table.plan_id, ALICE)
    assert result.outcome is OUTCOME.CHANGED
    assert f"revision shop/checkout:old → {table.waiting.plan.target_revision}" in result.message
    assert await table.states() == (PlanState.SUPERSEDED, IncidentState.DIAGNOSING)
    shown = await sql.fetchval("SELECT payload ->> 'text' FROM outbox WHERE kind = 'thread' ORDER BY id DESC LIMIT 1")
    assert "revision shop/checkout:old → " in shown


async def test_a_workload_that_is_gone_voids_the_plan(table: Table, sql: Connection) -> None:
    await sql.execute("UPDATE plans SET target = jsonb_set(target, '{uid}', '\"another\"')")
    result = await table.decider.approve(table.plan_id, ALICE)
    assert result.outcome is OUTCOME.CHANGED
    assert "the workload was recreated or deleted" in result.message
    assert await table.states() == (PlanState.SUPERSEDED, IncidentState.DIAGNOSING)


async def test_a_click_at_the_moment_of_expiry_is_one_or_the_other(table: Table, sql: Connection) -> None:
    await sql.execute("UPDATE plans SET approvals_needed = 1, expires_at = clock_timestamp() + interval '0.1 s'")
    table.policy("approvals:\n  - {people: 1}\n")

    async def expire() -> None:
        while (await table.states())[0] is PlanState.PROPOSED:
            await table.decider.expire()

    async def click() -> None:
        while (await table.decider.approve(table.plan_id, ALICE)).outcome is OUTCOME.BLOCKED:
            pass

    await asyncio.gather(expire(), click())
    executions = await sql.fetchval("SELECT count(*) FROM executions")
    assert (await table.states(), executions) in (
        ((PlanState.APPROVED, IncidentState.MITIGATING), 1),
        ((PlanState.EXPIRED, IncidentState.ESCALATED), 0),
    )


# --- reminders, and then the pager


async def waited(sql: Connection, seconds: float) -> None:
    await sql.execute("UPDATE plans SET created_at = clock_timestamp() - make_interval(secs => $1)", seconds)


async def notices(sql: Connection, kind: str) -> list[dict[str, Any]]:
    """What was put into the outbox, apart from cards."""
    rows = await sql.fetch("SELECT payload::text FROM outbox WHERE kind = $1 ORDER BY id", kind)
    return [json.loads(row["payload"]) for row in rows]


async def reminders(sql: Connection) -> list[str]:
    return [one["text"] for one in await notices(sql, "thread") if one["part"] == "reminder"]


async def pages(sql: Connection) -> list[str]:
    return [one["event"] for one in await notices(sql, "pager")]


async def test_people_are_reminded_once_each_time_whatever_the_number_of_replicas(
    table: Table, sql: Connection
) -> None:
    replicas = [Reminder(table.store, table.replica(), SETTINGS) for _ in range(3)]
    assert await replicas[0].run() == 0
    for seconds, count in ((301, 1), (599, 1), (901, 2), (1100, 2)):
        await waited(sql, seconds)
        await asyncio.gather(*(one.run() for one in replicas for _ in range(2)))
        assert await Reminder(table.store, table.replica(), SETTINGS).run() == 0, "after a restart too"
        assert len(await reminders(sql)) == count
    assert (await reminders(sql))[0] == (
        f"⏰ Waiting for a decision for 5 min, 2 more people have to approve. <!subteam^S0SRE> <@{ALICE}> <@{BOB}>"
    )
    assert await pages(sql) == []


async def test_who_has_approved_is_not_reminded(table: Table, sql: Connection) -> None:
    await table.decider.approve(table.plan_id, ALICE)
    await waited(sql, 400)
    await Reminder(table.store, table.decider, SETTINGS).run()
    assert await reminders(sql) == [
        f"⏰ Waiting for a decision for 5 min, 1 more person has to approve. <!subteam^S0SRE> <@{BOB}>"
    ]


async def test_after_a_standstill_one_reminder_is_said_and_somebody_is_called(table: Table, sql: Connection) -> None:
    await waited(sql, 1300)
    replicas = [Reminder(table.store, table.replica(), SETTINGS) for _ in range(2)]
    await asyncio.gather(*(one.run() for one in replicas))
    assert [text.split(",")[0] for text in sorted(await reminders(sql))] == [
        "⏰ Waiting for a decision for 15 min",
        "📟 Nobody has decided for 20 min: whoever is on call is paged.",
    ]
    assert await pages(sql) == ["trigger"]


@pytest.mark.parametrize("how", ["approve", "reject", "expire"])
async def test_of_what_is_decided_nobody_is_reminded(table: Table, sql: Connection, how: str) -> None:
    if how == "approve":
        for user in (ALICE, BOB):
            await table.decider.approve(table.plan_id, user)
    elif how == "reject":
        await table.decider.reject(table.plan_id, ALICE, "no")
    else:
        await sql.execute("UPDATE plans SET expires_at = clock_timestamp()")
    await waited(sql, 1500)
    assert await Reminder(table.store, table.decider, SETTINGS).run() == 0
    assert (await reminders(sql), await pages(sql)) == ([], [])


async def test_a_reminder_and_a_decision_at_once_come_one_after_the_other(table: Table, sql: Connection) -> None:
    await waited(sql, 1300)
    await asyncio.gather(
        Reminder(table.store, table.decider, SETTINGS).run(), table.decider.reject(table.plan_id, ALICE, "no")
    )
    assert await pages(sql) in ([], ["trigger", "acknowledge"])
    assert await table.states() == (PlanState.REJECTED, IncidentState.ESCALATED)


async def test_a_page_is_acknowledged_by_the_decision_and_resolved_by_the_end(table: Table, sql: Connection) -> None:
    await waited(sql, 1300)
    await Reminder(table.store, table.decider, SETTINGS).run()
    for user in (ALICE, BOB):
        await table.decider.approve(table.plan_id, user)
    assert await pages(sql) == ["trigger", "acknowledge"]
    async with table.store.begin() as uow:
        incident = await uow.incidents.get(table.waiting.incident.id)
        assert incident is not None
        escalated = await advance(uow, incident, IncidentState.ESCALATED, outcome="not recovered")
        assert escalated is not None
        assert await advance(uow, escalated, IncidentState.CLOSED, outcome="closed") is not None
    told = await notices(sql, "pager")
    assert [one["event"] for one in told] == ["trigger", "acknowledge", "trigger", "resolve"]
    assert len({one["dedup_key"] for one in told}) == 1, "one key an incident"
    assert told[2]["reason"] == "not recovered"


async def test_a_proposal_that_expires_calls_somebody(table: Table, sql: Connection) -> None:
    await sql.execute("UPDATE plans SET expires_at = clock_timestamp()")
    await table.decider.expire()
    (page,) = await notices(sql, "pager")
    assert page["event"] == "trigger"
    assert page["reason"].startswith("nobody decided in time")


async def test_without_a_pager_nothing_is_put_out_for_one(table: Table, store: PostgresStore, sql: Connection) -> None:
    await waited(sql, 1300)
    unpaged = Decider(store, Registry({"kubernetes": table.place.target}), CatalogueFile(None), SystemClock(), SETTINGS)
    await Reminder(store, unpaged, SETTINGS).run()
    assert len(await reminders(sql)) == 1
    await sql.execute("UPDATE plans SET expires_at = clock_timestamp()")
    await unpaged.expire()
    assert await pages(sql) == []
