"""What may be done, and what holds when things go wrong: the rest of the rows of the threat table, named after them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import asyncpg
import pytest
import yaml

import executors.targets
import pipeline.adapters.telemetry
from bot.anchoring import AnchorKeeper, read_anchors
from bot.audit import verify
from bot.catalogue import CatalogueFile
from executors.guardrails.facts import GuardrailLimits
from executors.rollback import order_rollback
from executors.targets.registry import Registry
from migrations.roles import AppLogin, use_login
from pipeline.adapters.postgres.audit import PostgresTrailArchive
from pipeline.adapters.postgres.pool import Connection, Pool
from pipeline.adapters.postgres.unit_of_work import PostgresStore
from pipeline.adapters.redis.locks import RedisLocks
from pipeline.domain.action import InstanceRef, RestartAction, RestartInstance, ScaleTo, TargetAction
from pipeline.domain.anomaly import Anomaly, AnomalyKind, DetectionResult, DetectionSettings
from pipeline.domain.approval import DecisionOutcome, default_rules
from pipeline.domain.audit import Fault as AuditFault
from pipeline.domain.baseline import BaselineBank
from pipeline.domain.catalogue import Catalogue
from pipeline.domain.errors import OutcomeUnknown, TemporaryError
from pipeline.domain.ids import IncidentId, ServiceName
from pipeline.domain.lifecycle import ExecutionState, IncidentState, PlanState
from pipeline.domain.notice import CardNotice
from pipeline.domain.phase import RUNNING_PHASES, Phase
from pipeline.domain.telemetry import SeriesKey, Signal
from pipeline.domain.trace import TraceEntry, TraceKind
from pipeline.domain.verification import VerificationSettings
from pipeline.ports.clock import SystemClock
from pipeline.ports.model import GaveNoAnswer
from pipeline.stages.correlate import Correlator
from pipeline.stages.decide import Decider
from pipeline.stages.settings import LoopSettings
from pipeline.stages.verify import Verifier
from tests.builders import ALICE, BOB, CHECKOUT, T0, make_anomaly, restart, scale
from tests.contract.llm.anthropic_server import AnthropicServer
from tests.contract.llm.suite import Drip, make_question
from tests.contract.llm.test_reasoner import limited
from tests.contract.targets.places import KubePlace, intent_for
from tests.contract.test_target_kubernetes import GRANTED
from tests.executing import Bench
from tests.faults import Answer, Fault
from tests.integration.test_guardrail_history import acted, judged, saw
from tests.integration.test_loop_stages import Author, leaking, warm_loop
from tests.kube_server import rights
from tests.stored import Waiting, approved, awaiting, case_of, opened

SETTINGS = LoopSettings(approvals=default_rules(1, (), ["S0SRE"]))


def decider(store: PostgresStore, place: KubePlace, clock: Any = None) -> Decider:
    targets = Registry({"kubernetes": place.target})
    return Decider(store, targets, CatalogueFile(None), clock or SystemClock(), SETTINGS)


async def proposed(store: PostgresStore, place: KubePlace, action: Any = None) -> Waiting:
    """A restart of the first replica of what runs in ``place``, that waits for one person."""
    state = await place.target.observe(await place.target.resolve(place.address))
    first = state.instances[0]
    return await awaiting(
        store,
        action=action or RestartAction(instances=(InstanceRef(name=first.name, uid=first.uid),)),
        target=state.ref,
        generation=state.generation,
        replicas_before=state.replicas,
        target_revision=state.revision,
    )


async def test_scale_up(scaling: Bench, store: PostgresStore, sql: Connection) -> None:
    """From two replicas to four, and then no further: what counts is the hour, not the plan."""
    assert await scaling.runner().run_once()
    assert [call.verb for call in scaling.changes] == ["patch"]
    await sql.execute("UPDATE incidents SET state = 'closed'")
    await sql.execute("UPDATE executions SET state = 'verified'")
    now = await scaling.place.target.observe(scaling.before.ref)
    assert now.replicas == 4
    again = await approved(store, scale(4, 6), target=scaling.before.ref, generation=now.generation)
    settings = replace(SETTINGS, limits=GuardrailLimits(cooldown_s=0.0, rest_s=0.0))
    assert await scaling.runner(settings=settings).run_once()
    async with store.begin() as uow:
        execution = await uow.executions.get(again)
    assert execution is not None
    assert (execution.state, "scale cap" in execution.detail) == (ExecutionState.FAILED, True), execution.detail
    assert len(scaling.changes) == 1


@pytest.mark.parametrize("unknown", ["callers", "replicas"])
async def test_blast_radius(store: PostgresStore, sql: Connection, place: KubePlace, unknown: str) -> None:
    waiting = await proposed(store, place)
    if unknown == "callers":
        await sql.execute("DELETE FROM edges")
    else:
        place.server.paused = True
        for key in [key for key in place.server.cluster.objects if key[0] == "pods"]:
            del place.server.cluster.objects[key]
    result = await decider(store, place).approve(waiting.plan.id, ALICE)
    assert result.outcome in (DecisionOutcome.BLOCKED, DecisionOutcome.CHANGED)
    case = await case_of(store, waiting.incident.id)
    assert "blast_radius" in {answer.rule for answer in case.guardrails.refusals}
    assert (case.execution, place.server.writes) == (None, [])


async def test_kubernetes_rights(place: KubePlace) -> None:
    acting = _documents(executors.targets, "kubernetes-rbac.yaml")
    looking = _documents(pipeline.adapters.telemetry, "kubernetes-rbac.yaml")
    assert rights(acting[0]["rules"]) == GRANTED
    assert {kind["kind"] for kind in (*acting, *looking)} == {"Role", "RoleBinding"}, "nothing of the whole cluster"
    for rule in (rule for role in (*acting, *looking) for rule in role.get("rules", ())):
        words = [word for part in rule.values() for word in part]
        assert "*" not in words
        forbidden = {"secrets", "pods/exec", "create", "update", "delete", "deletecollection", "escalate"}
        if rule["resources"] == ["pods/eviction"]:
            forbidden.discard("create")  # evicting is creating an Eviction, which a disruption budget may refuse
        assert not forbidden & set(words)
    assert {verb for role in looking for rule in role.get("rules", ()) for verb in rule["verbs"]} <= {"get", "list"}
    place.server.granted = rights(acting[0]["rules"])
    ref = await place.target.resolve(place.address)
    state = await place.target.observe(ref)
    first = InstanceRef(name=state.instances[0].name, uid=state.instances[0].uid)
    await place.target.apply(ref, RestartInstance(instance=first), intent_for(state))
    assert place.server.used() <= GRANTED


def _documents(package: Any, name: str) -> list[dict[str, Any]]:
    return list(yaml.safe_load_all((Path(next(iter(package.__path__))) / name).read_text()))


@pytest.fixture
async def bots_own_login(database_dsn: str) -> AsyncIterator[Connection]:
    login = AppLogin("app_of_the_threats", "a-password")
    connection = await asyncpg.connect(await use_login(database_dsn, login))
    yield connection
    await connection.close()
    owner = await asyncpg.connect(database_dsn)
    await owner.execute(f"DROP OWNED BY {login.role}; DROP ROLE {login.role}")
    await owner.close()


async def test_audit_tampering(
    store: PostgresStore, sql: Connection, database_dsn: str, bots_own_login: Connection, tmp_path: Path
) -> None:
    async with store.begin() as uow:
        for text in ("one", "two", "three"):
            await uow.trace.add(IncidentId(1), TraceEntry(TraceKind.NOTE, text, {}))
    for forbidden in ("UPDATE trace SET summary = 'x'", "DELETE FROM trace", "TRUNCATE trace", "DROP TABLE trace"):
        with pytest.raises(asyncpg.PostgresError):
            await bots_own_login.execute(forbidden)
    pool = Pool(database_dsn, max_size=2)
    archive, path = PostgresTrailArchive(pool), tmp_path / "anchors.jsonl"
    await AnchorKeeper(store, archive, path, interval_s=3600.0).anchor_if_due()
    assert (await verify(archive, [read_anchors(path)], None)).defects == ()
    # The owner cuts the tail off and mends the head: inside the table all is well.
    await sql.execute("ALTER TABLE trace DISABLE TRIGGER USER; ALTER TABLE trace_heads DISABLE TRIGGER USER")
    await sql.execute("DELETE FROM trace WHERE seq = 3; DELETE FROM trace_heads")
    await sql.execute(
        """INSERT INTO trace_heads (incident_id, seq, hash, at)
           SELECT incident_id, seq, hash, at FROM trace WHERE seq = 2"""
    )
    found = (await verify(archive, [read_anchors(path)], None)).defects
    await pool.close()
    assert found, "the anchor outside the table knows better"
    assert {one.incident_id for one in found} <= {0, 1, None}
    assert all(isinstance(one.fault, AuditFault) for one in found)


async def test_lock_loss(one_step: Bench, sql: Connection, locks: RedisLocks, redis_url: str) -> None:
    """The lock is not lost, the fence is: at the last look before the call the database says no."""

    async def taken_over() -> None:
        await sql.execute("UPDATE executions SET fence = fence + 1, leased_by = 'another'")

    one_step.target.at("observe", taken_over, nth=2)
    await one_step.runner().run_once()
    assert one_step.changes == []
    assert await locks.holder("kubernetes/shop/checkout") is not None


async def test_lock_loss_of_all_locks_stops_nobody_who_holds_the_fence(one_step: Bench, redis_url: str) -> None:
    away = RedisLocks("redis://127.0.0.1:1/0")
    await one_step.runner(locks=away).run_once()
    await away.close()
    assert len(one_step.changes) == 1


class Off:
    """A machine whose clock is wrong."""

    def __init__(self, hours: float) -> None:
        self.hours = hours

    def now(self) -> datetime:
        return datetime.now(UTC) + timedelta(hours=self.hours)


@pytest.mark.parametrize("hours", [-1.0, 1.0])
async def test_clock_jump(store: PostgresStore, sql: Connection, place: KubePlace, hours: float) -> None:
    jumped = decider(store, place, Off(hours))
    waiting = await proposed(store, place)
    await sql.execute("UPDATE plans SET expires_at = clock_timestamp() + interval '10 min'")
    assert await jumped.expire() == 0
    await sql.execute("UPDATE plans SET expires_at = clock_timestamp() - interval '1 s'")
    assert (await jumped.approve(waiting.plan.id, ALICE)).outcome is DecisionOutcome.EXPIRED
    assert await jumped.expire() == 1
    await sql.execute("UPDATE incidents SET state = 'closed'")
    # Cooldown: an action of a minute ago is a minute old.
    await acted(store, sql, restart("checkout-1"), ago="1 min")
    await sql.execute("UPDATE executions SET target_uid = $1", waiting.plan.target.uid)  # type: ignore[union-attr]
    second = await proposed(store, place)
    assert (await jumped.approve(second.plan.id, ALICE)).outcome is DecisionOutcome.BLOCKED
    case = await case_of(store, second.incident.id)
    assert "cooldown" in {answer.rule for answer in case.guardrails.refusals}


async def test_telemetry_goes_blind(one_step: Bench, database_dsn: str, sql: Connection) -> None:
    assert await one_step.runner().run_once()
    await sql.execute("DELETE FROM samples")
    await sql.execute("UPDATE anomalies SET seen_at = clock_timestamp()")
    pool = Pool(database_dsn, max_size=2)
    paged = PostgresStore(pool, paging=True)
    # No answer of a detector is no recovery either.
    await Correlator(paged, Catalogue({}), DetectionSettings()).run(DetectionResult((), ()), BaselineBank(), T0)
    case = await one_step.case()
    assert case.incident.state is IncidentState.VERIFYING
    clock = Off(-2.0)
    verifier = Verifier(paged, order_rollback, clock, VerificationSettings(hold_s=0.1, deadline_s=0.2))
    clock.hours = 1.0  # it has looked on for long
    assert await verifier.run(case.incident)
    case = await one_step.case()
    assert case.verification is not None
    assert case.verification.verdict == "inconclusive"
    assert (case.incident.state, case.incident.outcome[:11]) == (IncidentState.ESCALATED, "cannot tell")
    assert (await one_step.execution()).state is ExecutionState.INCONCLUSIVE
    told = [row["kind"] for row in await sql.fetch("SELECT kind FROM outbox WHERE state = 'pending'")]
    assert {"card", "thread", "pager"} <= set(told), "a person is told, in Slack and by the pager"
    # Nothing is done again by itself: the same action is refused for this trouble, and no phase acts without people.
    await sql.execute("UPDATE incidents SET state = 'closed'")
    waiting = await proposed(paged, one_step.place)
    result = await decider(paged, one_step.place).approve(waiting.plan.id, BOB)
    await pool.close()
    assert "could not be shown to have helped" in result.message
    assert frozenset({Phase.SHADOW, Phase.ASSIST}) == RUNNING_PHASES


async def test_runaway_loop_oscillation(store: PostgresStore, sql: Connection) -> None:
    async def refused_by(action: TargetAction, replicas: int = 3) -> set[str]:
        await sql.execute("UPDATE incidents SET state = 'closed'")
        found = await judged(store, action, replicas=replicas)
        await sql.execute("UPDATE incidents SET state = 'closed'")
        return found

    await acted(store, sql, restart("checkout-1"), state="failed", ago="5 min")
    assert "cooldown" in await refused_by(restart("checkout-1")), "after a failure too"
    await acted(store, sql, restart("checkout-2"), state="verified", ago="40 min")
    assert "budget" in await refused_by(restart("checkout-1")), "two an hour on one target"
    await sql.execute("UPDATE executions SET created_at = created_at - interval '3 h', applied_at = NULL")
    await sql.execute("UPDATE execution_steps SET dispatched_at = dispatched_at - interval '3 h', applied_at = NULL")
    assert await refused_by(restart("checkout-1")) == set()
    await acted(store, sql, restart("checkout-1"), state="not_verified", ago="4 h")
    assert await refused_by(restart("checkout-1")) == {"ineffective"}
    await saw(store, 2, 4, 2)
    assert "oscillation" in await refused_by(scale(2, 4), 2), "up, down, and up again, by whomever it was"


def storm(anomalies: int, services: int) -> tuple[Anomaly, ...]:
    """Every service slow, failing and out of memory, in as many replicas as it takes."""
    kinds = {
        Signal.LATENCY_P99: AnomalyKind.LATENCY,
        Signal.ERROR_RATIO: AnomalyKind.ERROR_SURGE,
        Signal.MEMORY_RATIO: AnomalyKind.MEMORY_PRESSURE,
    }
    made = []
    for number in range(anomalies):
        signal = list(kinds)[number // services % 3]
        key = SeriesKey(ServiceName(f"shop-{number % services}"), signal, f"pod-{number // services}")
        made.append(make_anomaly(key, kind=kinds[signal]))
    return tuple(made)


async def test_alert_storm(store: PostgresStore, sql: Connection) -> None:
    correlator = Correlator(store, Catalogue({}), DetectionSettings())
    assert await correlator.run(DetectionResult(storm(400, 20), ()), BaselineBank(), T0) <= 20
    await correlator.run(DetectionResult(storm(600, 20), ()), BaselineBank(), T0)
    assert await sql.fetchval("SELECT count(*) FROM incidents") <= 20
    cards = await sql.fetch("SELECT incident_id, count(*) AS rows FROM outbox WHERE kind = 'card' GROUP BY 1")
    assert {row["rows"] for row in cards} == {1}, "one card an incident, its updates coalesced"
    worst = await opened(store, service=CHECKOUT)
    await sql.execute("UPDATE incidents SET severity = CASE id WHEN $1 THEN 'SEV1' ELSE 'SEV3' END", worst.id)
    async with store.begin() as uow:
        await uow.outbox.add(worst.id, CardNotice())
    await sql.execute("DELETE FROM outbox WHERE kind = 'bus'")
    async with store.begin() as uow:
        first = await uow.outbox.claim(worker="one", lease_s=60.0)
    assert first is not None
    assert first.incident_id == worst.id, "SEV1 first, though it came last"


async def test_model_cost_and_delay(store: PostgresStore, place: KubePlace) -> None:
    async with AnthropicServer().running() as server:
        server.script = [Drip()]
        hasty = limited(server, deadline_s=0.3)
        with pytest.raises(GaveNoAnswer, match=r"did not answer within 0\.3 s"):
            await hasty.diagnose(make_question())
        await hasty.close()
    loop = await warm_loop(store, place)
    await loop.ticks(10, leaking(loop))
    author = Author()
    async with store.begin() as uow:
        spent = {"usage": {"input_tokens": 900_000, "output_tokens": 200_000}}
        await uow.trace.add(IncidentId(1), TraceEntry(TraceKind.PROMPT, "asked before", spent))  # type: ignore[arg-type]
    case = await loop.diagnosed(author, tokens_day=1_000_000)
    assert author.asked == 0, "the day's tokens are spent"
    assert case.diagnosis is not None
    assert case.diagnosis.source == "rules"
    assert case.plan is not None
    assert case.plan.state is PlanState.PROPOSED


async def test_kubernetes_client_retries(place: KubePlace) -> None:
    ref = await place.target.resolve(place.address)
    for trouble, raised in (
        (Answer(503, headers={"Retry-After": "0"}), (TemporaryError, OutcomeUnknown)),
        (Answer(429, headers={"Retry-After": "0"}), (TemporaryError,)),
        (Fault.CUT, (OutcomeUnknown,)),
        (Fault.LOST, (OutcomeUnknown,)),
    ):
        state = await place.target.observe(ref)
        place.proxy.requests.clear()
        place.proxy.strike(trouble)
        with pytest.raises(raised):
            await place.target.apply(ref, ScaleTo(replicas=state.replicas + 1), intent_for(state))
        assert len(place.proxy.writes) == 1, trouble
