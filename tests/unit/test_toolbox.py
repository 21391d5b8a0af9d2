"""The tools of an investigation: what they refuse, what they are bounded by, and the trail they leave."""

import asyncio
import json
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

import pytest

from pipeline.domain.diagnosis import Passage, Sign
from pipeline.domain.errors import TemporaryError
from pipeline.domain.ids import ServiceName
from pipeline.domain.logs import LogReading
from pipeline.domain.telemetry import Signal, SourceFailure
from pipeline.domain.trace import TraceKind
from pipeline.ports.knowledge import Found
from pipeline.ports.toolbox import Toolbox
from pipeline.stages.toolbox import ToolLimits
from tests.past import CHECKOUT, DB, PAYMENTS, WEB, Past, PastLogs, PastStore, Shelf, jump, ramp

P99 = {"service": "checkout", "signal": "latency_p99", "minutes": 30}


async def tools_of(past: Past, limits: ToolLimits | None = None, **ports: Any) -> Toolbox:
    return (await past.dossier(ports=past.ports(**ports), limits=limits)).tools


def slow_checkout() -> Past:
    return Past(ago_min=5).service(CHECKOUT, latency_p99=jump(0.1, 2.0)).service(PAYMENTS, 1).service(WEB, 1)


@pytest.mark.parametrize(
    ("name", "arguments", "said"),
    [
        ("delete_everything", {}, "there is no tool 'delete_everything'; there are query_metrics"),
        ("query_metrics", {**P99, "service": "chekout"}, "there is no service 'chekout' here; nearest: checkout"),
        ("query_metrics", {**P99, "service": "*"}, "there is no service '*' here"),
        ("query_metrics", {**P99, "signal": "happiness"}, "signal"),
        ("query_metrics", {**P99, "minutes": 361}, "minutes: Input should be less than or equal to 360"),
        ("query_metrics", {**P99, "minutes": 0}, "minutes"),
        ("query_metrics", {**P99, "minutes": "30"}, "minutes: Input should be a valid integer"),
        ("query_metrics", {**P99, "namespace": "prod"}, "namespace: Extra inputs are not permitted"),
        ("query_metrics", {}, "service: Field required"),
        ("query_metrics", '{"service": "checkout", "service": "web", "signal": "traffic"}', "a key stands twice"),
        ("query_metrics", '{"service": "checkout", "sig', "no JSON object in order"),
        ("query_metrics", "[" * 3000, "no JSON object in order"),
        ("query_metrics", '"' + "x" * 5000 + '"', "longer than 4000 characters"),
        ("query_metrics", "[]", "arguments"),
        ("knowledge_search", {"query": ""}, "query"),
    ],
)
async def test_a_call_out_of_order_is_refused_with_what_to_do(
    name: str, arguments: Mapping[str, Any] | str, said: str
) -> None:
    tools = await tools_of(slow_checkout())
    result = await tools.call(name, arguments)
    assert (result.status, result.evidence) == ("refused", ())
    assert said in result.said
    assert len(result.said) <= 500
    (entry,) = tools.entries
    assert (entry.kind, entry.data["status"]) == (TraceKind.TOOL_CALL, "refused")


async def test_a_metric_comes_judged_with_its_samples() -> None:
    past = slow_checkout()
    tools = await tools_of(past)
    result = await tools.call("query_metrics", {**P99, "minutes": 60})
    (fact,) = result.evidence
    assert (fact.sign, fact.signal, fact.service, fact.kind) == (Sign.ABNORMAL, Signal.LATENCY_P99, CHECKOUT, "metric")
    assert fact.began == past.began
    assert "beyond its bound of 149 ms since 14:25:00 UTC" in fact.statement
    samples = fact.snapshot["samples"]
    assert isinstance(samples, list)
    assert 30 <= len(samples) <= 60
    assert samples[-1] == [past.now.isoformat(timespec="seconds"), pytest.approx(fact.value)]
    usual = await tools.call("query_metrics", {"service": "payments", "signal": "traffic"})
    assert [one.sign for one in usual.evidence] == [Sign.NORMAL]


async def test_every_snapshot_is_small_enough_to_store() -> None:
    past = slow_checkout().change(CHECKOUT, -1, "x" * 5000)
    past.pattern(CHECKOUT, 0, "y" * 5000).line(CHECKOUT, 0, "z" * 5000)
    dossier = await past.dossier()
    for name in ("query_metrics", "search_logs", "log_patterns", "topology", "recent_changes"):
        arguments = P99 if name == "query_metrics" else {"service": "checkout"}
        assert (await dossier.tools.call(name, arguments)).status == "ok"
    for fact in (*dossier.evidence, *dossier.tools.evidence):
        assert len(json.dumps(dict(fact.snapshot))) <= 8000


async def test_growth_stands_beside_what_it_led_to() -> None:
    past = Past(ago_min=8).service(CHECKOUT, memory_ratio_1=ramp(0.45, 0.08))
    tools = await tools_of(past)
    result = await tools.call(
        "query_metrics", {"service": "checkout", "signal": "memory_ratio", "instance": "checkout-1"}
    )
    now, growth = result.evidence
    assert (now.sign, growth.sign) == (Sign.ABNORMAL, Sign.ABNORMAL)
    assert growth.began is not None
    assert now.began is not None
    assert past.began <= growth.began < now.began
    assert "of the limit a minute" in growth.statement


async def test_ids_go_on_after_the_dossier_and_follow_the_order_of_calls() -> None:
    past = slow_checkout().line(CHECKOUT, 1, "pool is empty").change(PAYMENTS, -1)

    class Slow(PastLogs):
        async def search(
            self, service: ServiceName, text: str, since: datetime, until: datetime, *, limit: int
        ) -> LogReading:
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            return await super().search(service, text, since, until, limit=limit)

    dossier = await past.dossier(ports=past.ports(logs=(Slow(past),)))
    last = len(dossier.evidence)
    calls = [
        dossier.tools.call("search_logs", {"service": "checkout"}),
        dossier.tools.call("query_metrics", {"service": "payments", "signal": "memory_ratio"}),
        dossier.tools.call("query_metrics", {"service": "web", "signal": "cpu_ratio"}),
    ]
    results = await asyncio.gather(*calls)
    ids = [item.id for result in results for item in result.evidence]
    assert ids == [f"E{number}" for number in range(last + 1, last + 4)]
    assert [item.id for item in dossier.tools.evidence] == ids
    assert [entry.data["tool"] for entry in dossier.tools.entries] == ["search_logs", "query_metrics", "query_metrics"]


async def test_what_the_dossier_says_already_keeps_its_id() -> None:
    past = slow_checkout().change(CHECKOUT, -1)
    dossier = await past.dossier()
    (told,) = [item for item in dossier.evidence if item.kind == "change"]
    result = await dossier.tools.call("recent_changes", {"service": "checkout"})
    assert result.evidence == (told,)
    assert dossier.tools.evidence == ()


async def test_the_same_call_is_answered_once() -> None:
    past = slow_checkout()
    store = PastStore(past)
    tools = await tools_of(past, store=store)
    before = store.transactions
    same = ({"service": "web", "signal": "traffic", "minutes": 60}, '{"signal":"traffic", "service":"web"}')
    first, second = await asyncio.gather(*(tools.call("query_metrics", one) for one in same))
    third = await tools.call("query_metrics", same[0])
    assert store.transactions == before + 1
    assert (first.cached, second.cached, third.cached) == (False, True, True)
    assert first.evidence == second.evidence == third.evidence
    assert [entry.data["cached"] for entry in tools.entries] == [False, True, True]


async def test_a_flood_of_calls_ends_at_the_limit() -> None:
    tools = await tools_of(slow_checkout(), ToolLimits(calls=3))
    results = [await tools.call("query_metrics", {**P99, "minutes": 10 + number}) for number in range(6)]
    assert [result.status for result in results] == ["ok", "ok", "ok", "refused", "refused", "refused"]
    assert results[-1].said == "all 3 calls are used: conclude from what was read"
    assert tools.exhausted == "all 3 calls are used"
    assert len(tools.entries) == 6


async def test_results_end_at_the_bytes_that_may_be_read() -> None:
    past = slow_checkout()
    for number in range(12):
        past.change(CHECKOUT, -number - 30, f"number {number} " + "x" * 200)
    tools = await tools_of(past, ToolLimits(result_bytes=700))
    result = await tools.call("query_metrics", {"service": "web", "signal": "memory_ratio"})
    assert result.status == "ok"
    cut = await tools.call("recent_changes", {"service": "checkout", "minutes": 120})
    assert 0 < len(cut.evidence) < 12
    assert "left out" in cut.said
    assert "bytes of results are read" in tools.exhausted
    assert (await tools.call("topology", {"service": "web"})).status == "refused"


class Broken(PastStore):
    """Works for the dossier, then as told."""

    def __init__(self, past: Past, trouble: Exception | None) -> None:
        super().__init__(past)
        self.trouble = trouble
        self.calls = 0

    def begin(self) -> Any:
        self.calls += 1
        if self.calls > 1 and self.trouble is not None:
            raise self.trouble
        return super().begin()


@pytest.mark.parametrize(
    ("trouble", "said"),
    [(TemporaryError("the database is away"), "the database is away"), (ZeroDivisionError("?"), "internal error")],
)
async def test_what_breaks_is_told_and_not_kept(trouble: Exception, said: str) -> None:
    past = slow_checkout()
    store = Broken(past, trouble)
    tools = await tools_of(past, store=store)
    failed = await tools.call("query_metrics", P99)
    assert failed.status == "failed"
    assert said in failed.said
    store.trouble = None
    again = await tools.call("query_metrics", P99)
    assert (again.status, again.cached) == ("ok", False)


async def test_a_provider_that_hangs_costs_one_bounded_call() -> None:
    class Hanging(PastLogs):
        async def search(
            self, service: ServiceName, text: str, since: datetime, until: datetime, *, limit: int
        ) -> LogReading:
            await asyncio.Event().wait()
            raise AssertionError

    past = slow_checkout()
    tools = await tools_of(past, ToolLimits(call_s=0.05), logs=(Hanging(past),))
    result = await tools.call("search_logs", {"service": "checkout"})
    assert (result.status, result.said) == ("failed", "no answer within 0.05 s: ask for less")


async def test_a_call_that_is_given_up_holds_nobody_up() -> None:
    class Hanging(PastLogs):
        async def search(
            self, service: ServiceName, text: str, since: datetime, until: datetime, *, limit: int
        ) -> LogReading:
            await asyncio.Event().wait()
            raise AssertionError

    past = slow_checkout()
    tools = await tools_of(past, logs=(Hanging(past),))
    given_up = asyncio.create_task(tools.call("search_logs", {"service": "checkout"}))
    waiting = asyncio.create_task(tools.call("query_metrics", {"service": "web", "signal": "traffic"}))
    await asyncio.sleep(0)
    given_up.cancel()
    with pytest.raises(asyncio.CancelledError):
        await given_up
    assert (await waiting).status == "ok"


async def test_lines_are_grouped_and_a_kill_is_an_event() -> None:
    past = slow_checkout()
    for number in range(7):
        past.line(CHECKOUT, 1 + number / 10, f"request {number} failed after 2{number} ms", "checkout-1")
    past.line(CHECKOUT, 2, "OOMKilled: container app ended with code 137", "checkout-2")
    past.line(CHECKOUT, 2, "password=hunter2hunter2 refused", "checkout-2")
    tools = await tools_of(past)
    result = await tools.call("search_logs", {"service": "checkout"})
    kill, often, other = result.evidence
    assert (kill.sign, kill.began, kill.subject) == (Sign.HAPPENED, past.began + timedelta(minutes=2), "checkout-2")
    assert often.sign is other.sign is Sign.STATED
    assert "7 lines" in often.statement
    assert "request 0 failed after 20 ms" in often.statement
    assert "hunter2" not in json.dumps(dict(other.snapshot)) + other.statement
    (event,) = (await tools.call("kubernetes_events", {"service": "checkout"})).evidence
    assert "OOMKilled" in event.statement
    nothing = await tools.call("search_logs", {"service": "checkout", "text": "no such words"})
    assert (nothing.status, nothing.said) == ("empty", "no line of checkout with 'no such words' in 30 min")


async def test_logs_that_cannot_be_read_are_no_empty_logs() -> None:
    class Down(PastLogs):
        async def search(
            self, service: ServiceName, text: str, since: datetime, until: datetime, *, limit: int
        ) -> LogReading:
            return LogReading(failures=(SourceFailure("loki", "connection refused"),))

    past = slow_checkout()
    result = await (await tools_of(past, logs=(Down(past),))).call("search_logs", {"service": "checkout"})
    assert (result.status, result.said) == ("failed", "loki gave nothing: connection refused")


async def test_documents_are_context_of_no_service() -> None:
    text = "Restart the replica. " * 200
    passage = Passage("leak.md", "Memory leak", text, 0.8, "rerank")
    tools = await tools_of(slow_checkout(), knowledge=Shelf(Found((passage,), novel=True)))
    result = await tools.call("knowledge_search", {"query": "memory leak"})
    (fact,) = result.evidence
    assert (fact.kind, fact.service, fact.sign, fact.value) == ("knowledge", "", Sign.STATED, 0.8)
    assert fact.statement.startswith("leak.md › Memory leak: Restart")
    assert len(fact.statement) <= 700
    assert "only the nearest" in result.said


async def test_topology_tells_the_worst_of_each_neighbour() -> None:
    past = slow_checkout().service(DB, 1, memory_ratio_1=ramp(0.45, 0.2, at=-2))
    tools = await tools_of(past)
    graph, *around = (await tools.call("topology", {"service": "payments"})).evidence
    assert graph.snapshot["edges"] == [["checkout", "payments"], ["payments", "db"], ["web", "checkout"]]
    assert {item.service: item.sign for item in around} == {
        DB: Sign.ABNORMAL,
        CHECKOUT: Sign.ABNORMAL,
        WEB: Sign.NORMAL,
    }


async def test_the_platform_says_what_runs_or_why_it_cannot() -> None:
    result = await (await tools_of(slow_checkout())).call("target", {"service": "checkout"})
    assert (result.status, result.said) == ("failed", "the catalogue names no target for checkout")


async def test_specs_have_schemas_that_refuse_more() -> None:
    tools = await tools_of(slow_checkout())
    assert len({spec.name for spec in tools.specs}) == len(tools.specs) == 10
    for spec in tools.specs:
        schema = spec.arguments.model_json_schema()
        assert schema["additionalProperties"] is False
        assert spec.description
