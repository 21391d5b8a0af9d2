"""The investigation on the real store: what the dossier holds, what it costs, and what tools add to it."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager
from datetime import UTC, datetime, timedelta

import pytest

from pipeline.adapters.llm.rules import RulesDiagnostician
from pipeline.adapters.postgres.unit_of_work import PostgresStore
from pipeline.domain.diagnosis import Conclusion, Evidence, Sign
from pipeline.domain.spans import SpanSummary, Trace, TraceReading
from pipeline.domain.telemetry import CallEdge, Signal
from pipeline.domain.trace import TraceKind
from pipeline.ports.model import Question
from pipeline.ports.store import Store, UnitOfWork
from pipeline.stages.investigate import Investigator, describe_dossier
from tests.past import CHECKOUT, DB, PAYMENTS, WEB, Past, PastLogs, jump, ramp


def story(now: datetime) -> Past:
    """A database runs into its memory limit, payments and checkout wait for it; web was changed, long before."""
    past = Past(ago_min=6, now=now).service(WEB, 1).service(DB, 1, memory_ratio_1=ramp(0.45, 0.1, at=-3))
    past.service(PAYMENTS, 1, latency_p99=jump(0.1, 1.8)).service(CHECKOUT, latency_p99=jump(0.1, 2.0))
    return past.change(WEB, -40).pattern(CHECKOUT, 0.5, "upstream payments timed out after <*> ms")


async def fill(store: PostgresStore, past: Past) -> None:
    async with store.begin() as uow:
        telemetry = uow.telemetry
        await telemetry.save_samples([sample for samples in past.samples.values() for sample in samples])
        await telemetry.save_edges([CallEdge(caller, callee, 1.0) for caller, callee in past.edges], past.now)
        await telemetry.save_changes(past.told_changes)
        await telemetry.save_log_patterns(past.patterns)


@pytest.fixture
async def past(store: PostgresStore) -> Past:
    past = story(datetime.now(UTC).replace(microsecond=0))
    await fill(store, past)
    return past


class Counting(Store):
    """Counts its transactions."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self.transactions = 0

    def begin(self) -> AbstractAsyncContextManager[UnitOfWork]:
        self.transactions += 1
        return self._store.begin()


def by_words(evidence: tuple[Evidence, ...]) -> list[tuple[str, str, Sign, datetime | None]]:
    return [(item.id, item.statement, item.sign, item.began) for item in evidence]


async def test_the_store_and_the_made_up_past_give_the_same_dossier(store: PostgresStore, past: Past) -> None:
    real = await past.dossier(ports=past.ports(store=store))
    made_up = await past.dossier()
    assert by_words(real.evidence) == by_words(made_up.evidence)
    assert (real.facts, real.graph) == (made_up.facts, made_up.graph)


async def test_the_dossier_holds_what_is_wrong_around_the_service(store: PostgresStore, past: Past) -> None:
    counting = Counting(store)
    dossier = await past.dossier(ports=past.ports(store=counting))
    assert counting.transactions == 1
    assert [entry.data["tool"] for entry in dossier.entries] == ["query_metrics", "observe_target", "judge"]
    assert all(entry.kind is TraceKind.TOOL_CALL and "latency_ms" in entry.data for entry in dossier.entries)
    assert [item.id for item in dossier.evidence] == [f"E{number}" for number in range(1, len(dossier.evidence) + 1)]
    kinds = [item.kind for item in dossier.evidence]
    assert kinds[:3] == ["anomaly"] * 3
    assert {"metric", "topology", "change", "log", "ranking"} <= set(kinds)
    growth = next(item for item in dossier.evidence if item.query.startswith("deriv(") and item.service == DB)
    assert (growth.sign, growth.subject, growth.signal) == (Sign.ABNORMAL, "db-1", Signal.MEMORY_RATIO)
    assert growth.began is not None
    assert growth.began <= past.began
    assert dossier.target_problem == "the catalogue names no target for checkout"
    assert dossier.facts.slow_callees == (PAYMENTS,)
    assert not dossier.facts.recovered
    assert f"[E1] {dossier.evidence[0].statement}" in describe_dossier(dossier)
    anomalies = sorted(past.anomalies(), key=lambda one: one.key.service != CHECKOUT)
    question = Question(CHECKOUT, anomalies, dossier.evidence, (), dossier.facts, dossier.tools)
    found = (await RulesDiagnostician().diagnose(question)).hypothesis
    assert (found.conclusion, [step.service for step in found.path]) == (Conclusion.CAUSE, [DB, PAYMENTS, CHECKOUT])


async def test_what_is_back_inside_its_bound_is_told_and_counts_as_recovered(store: PostgresStore, past: Past) -> None:
    anomalies = [one for one in past.anomalies() if one.key.service == CHECKOUT]
    key = anomalies[0].key
    well = [sample for sample in past.samples[key] if sample.at < past.began]
    back = [(past.now - timedelta(seconds=20 * at), well[-1 - at].value) for at in range(4)]
    async with store.begin() as uow:
        await uow.telemetry.save_samples([type(well[0])(key, at, value) for at, value in back])
    dossier = await past.dossier(CHECKOUT, anomalies, ports=past.ports(store=store))
    assert dossier.facts.recovered
    anomaly, now = (item for item in dossier.evidence if item.signal is key.signal and item.service == CHECKOUT)
    assert (anomaly.kind, now.kind, now.sign) == ("anomaly", "metric", Sign.HAPPENED)
    assert "it was beyond its bound from" in now.statement
    silent = [replaced for replaced in anomalies if replaced.key.service == WEB]
    assert not (await past.dossier(CHECKOUT, silent, ports=past.ports(store=store))).facts.recovered


async def test_tools_for_a_later_question_go_on_where_the_record_ends(store: PostgresStore, past: Past) -> None:
    investigator = Investigator(past.ports(store=store), past.settings)
    tools = investigator.toolbox(past.bank, past.now, taken=17)
    result = await tools.call("query_metrics", {"service": "db", "signal": "memory_ratio", "minutes": 60})
    assert [item.id for item in result.evidence] == ["E18", "E19"]
    graph = await tools.call("topology", {"service": "payments"})
    assert graph.evidence[0].statement == "payments is called by checkout, web and calls db"
    assert (await tools.call("topology", {"service": "nobody"})).status == "refused"


class Tracing:
    """One slow request through payments."""

    name = "jaeger"

    async def search(
        self, service: str, since: datetime, until: datetime, *, limit: int, errors_only: bool = False
    ) -> TraceReading:
        root = SpanSummary("a", "", CHECKOUT, "POST /orders", since, 2.1, error=False)
        slow = SpanSummary("b", "a", PAYMENTS, "POST /charges", since, 1.9, error=True)
        return TraceReading((Trace("4bf92f35", (root, slow)),))

    async def close(self) -> None:
        return


async def test_a_trace_is_context_and_its_spans_are_kept(store: PostgresStore, past: Past) -> None:
    ports = past.ports(store=store, traces=(Tracing(),), logs=(PastLogs(past),))
    dossier = await past.dossier(ports=ports)
    (trace,) = [item for item in dossier.evidence if item.kind == "trace"]
    assert "most of it in payments POST /charges (1.9 s, failed)" in trace.statement
    assert trace.sign is Sign.STATED
    assert trace.snapshot["spans"] == [
        {"service": "checkout", "operation": "POST /orders", "ms": 2100.0, "error": False},
        {"service": "payments", "operation": "POST /charges", "ms": 1900.0, "error": True},
    ]


async def test_a_service_without_an_incident_is_told_as_it_is(store: PostgresStore, past: Past) -> None:
    dossier = await past.dossier(WEB, (), ports=past.ports(store=store))
    assert not any(item.kind in ("anomaly", "ranking") for item in dossier.evidence)
    assert not dossier.facts.recovered
    own = [item for item in dossier.evidence if item.service == WEB and item.kind == "metric"]
    assert own
    assert all(item.sign is Sign.NORMAL for item in own)
