"""The rules engine: whole incidents through the real investigation, its trees, its citations and its answers."""

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.adapters.llm.rules import RIVALLED, UNPROVEN, RulesDiagnostician, decide
from pipeline.adapters.llm.rules_case import Check, certainty
from pipeline.adapters.llm.rules_own import CEILING
from pipeline.domain.anomaly import AnomalyKind
from pipeline.domain.causal import check_path
from pipeline.domain.changes import ChangeEvent, ChangeKind
from pipeline.domain.diagnosis import Category, Conclusion, Hypothesis, Sign, check_claims
from pipeline.domain.facts import Facts
from pipeline.domain.ids import ServiceName
from pipeline.domain.telemetry import Signal
from pipeline.domain.topology import DependencyGraph
from pipeline.ports.model import Question
from pipeline.ports.toolbox import ToolResult
from pipeline.stages.examine import examine
from tests.builders import CHECKOUT, T0, WEB, make_anomaly, make_evidence
from tests.past import DB, Past, jump, ramp
from tests.questions import (
    BELOW_FINE,
    BELOW_SLOW,
    ERRORS_HIGH,
    GRAPH,
    LATENCY_HIGH,
    LEAKING,
    MEMORY_GROWS,
    MEMORY_HIGH,
    MEMORY_OTHER,
    NORMAL,
    PAYMENTS,
    TARGET,
    TRAFFIC_SURGE,
    TRAFFIC_USUAL,
    Row,
    anomaly,
    change_row,
    make_question,
    memory_leak,
    saturation,
)
from tests.toolboxes import ScriptedToolbox

ROWS = (
    *(MEMORY_HIGH, MEMORY_OTHER, MEMORY_GROWS, LATENCY_HIGH, ERRORS_HIGH, TRAFFIC_USUAL),
    *(TRAFFIC_SURGE, BELOW_FINE, BELOW_SLOW, GRAPH, TARGET),
)
CAUSE, NOT_ENOUGH = Conclusion.CAUSE, Conclusion.INSUFFICIENT_EVIDENCE


def usual(ago_min: float = 5.0, *besides: ServiceName) -> Past:
    """All services but ``besides`` and ``checkout`` as usual."""
    past = Past(ago_min=ago_min)
    for service in {WEB, PAYMENTS, DB} - set(besides):
        past.service(service, 1)
    return past


def leak() -> Past:
    return usual(8).service(CHECKOUT, memory_ratio_1=ramp(0.45, 0.08))


def leak_in_seconds() -> Past:
    """To its limit within a quarter of a minute, and there it stays."""
    return usual(3).service(CHECKOUT, memory_ratio_1=ramp(0.26, 3.0, top=0.95))


def surge() -> Past:
    return usual().service(CHECKOUT, traffic=jump(10, 32), latency_p99=jump(0.1, 1.9, 0.3))


def bad_deploy() -> Past:
    return usual().service(CHECKOUT, error_ratio=jump(0.002, 0.3, 0.5)).change(CHECKOUT, 0)


def disk_fill() -> Past:
    past = usual().service(CHECKOUT).pattern(CHECKOUT, 0.1, "debug dump <*>")
    return past.series(CHECKOUT, Signal.DISK_RATIO, ramp(0.01, 7.0), "checkout-1", noise=0)


def certificate_replaced() -> Past:
    shape = jump(60 * 86_400.0, 2 * 86_400.0)
    return usual().service(CHECKOUT).series(CHECKOUT, Signal.CERT_REMAINING, shape, "checkout-1")


def certificate_runs_out() -> Past:
    return usual(30).service(CHECKOUT).series(CHECKOUT, Signal.CERT_REMAINING, lambda _: 7 * 86_400.0, "checkout-1")


def callee_slow_after_its_change() -> Past:
    past = usual(5, PAYMENTS).service(PAYMENTS, latency_p99=jump(0.1, 1.8)).change(PAYMENTS, -1)
    return past.service(CHECKOUT, latency_p99=jump(0.1, 2.0))


def database_out_of_memory() -> Past:
    past = usual(5, PAYMENTS, DB).service(DB, 1, memory_ratio_1=ramp(0.45, 0.1, at=-5))
    return past.service(PAYMENTS, latency_p99=jump(0.1, 1.8)).service(CHECKOUT, latency_p99=jump(0.1, 2.0))


def load_fills_memory() -> Past:
    return usual(6).service(CHECKOUT, traffic=jump(10, 30), memory_ratio=ramp(0.45, 0.1, at=0.5))


def leak_beside_load() -> Past:
    return usual(6).service(CHECKOUT, traffic=jump(10, 30), memory_ratio_1=ramp(0.45, 0.1, at=0.5))


def flat_high_memory() -> Past:
    return usual().service(CHECKOUT, memory_ratio_1=lambda _: 0.93, latency_p99=jump(0.1, 2.0))


def busy_without_load() -> Past:
    return usual().service(CHECKOUT, cpu_ratio=jump(0.3, 0.98), latency_p99=jump(0.1, 2.0, 0.5))


def busy_after_a_change() -> Past:
    return busy_without_load().change(CHECKOUT, -1)


def leak_of_a_release() -> Past:
    return usual(6).service(CHECKOUT, memory_ratio=ramp(0.45, 0.1, at=0.5)).change(CHECKOUT, 0)


def old_change_and_one_far_below() -> Past:
    past = usual().service(CHECKOUT, error_ratio=jump(0.002, 0.3, 0.5))
    return past.change(CHECKOUT, -40).change(DB, -3)


def slow_at_usual_load() -> Past:
    return usual().service(CHECKOUT, traffic=jump(10, 12.5), latency_p99=jump(0.1, 2.0))


def killed_for_memory() -> Past:
    """Memory rose until the kill; the process that came after is small. Its logs tell of the kill."""
    past = usual(8).service(
        CHECKOUT, error_ratio=jump(0.002, 0.3, 0.5), memory_ratio_1=lambda m: 0.45 + 0.06 * (m + 8) * (-8 <= m < 0)
    )
    return past.line(CHECKOUT, 0, "OOMKilled: container app ended with code 137", "checkout-1")


def killed_again_and_again() -> Past:
    """The same, as detection has found it in the logs."""
    past = killed_for_memory()
    past.lines.clear()
    return past.pattern(CHECKOUT, 0, "container <*> terminated: OOMKilled, exit code 137")


def fewer_requests_from_above() -> Past:
    return usual(6, WEB).service(WEB, 1, traffic=jump(10, 2)).service(CHECKOUT, traffic=jump(10, 2))


@pytest.mark.parametrize(
    ("story", "conclusion", "category", "way"),
    [
        (leak, CAUSE, Category.MEMORY, [CHECKOUT, CHECKOUT]),
        (leak_in_seconds, CAUSE, Category.MEMORY, [CHECKOUT, CHECKOUT]),
        (surge, CAUSE, Category.SATURATION, [CHECKOUT, CHECKOUT]),
        (bad_deploy, CAUSE, Category.BAD_CHANGE, [CHECKOUT, CHECKOUT]),
        (disk_fill, CAUSE, Category.DISK, [CHECKOUT, CHECKOUT]),
        (certificate_replaced, CAUSE, Category.CERTIFICATE, [CHECKOUT, CHECKOUT]),
        (certificate_runs_out, CAUSE, Category.CERTIFICATE, [CHECKOUT, CHECKOUT]),
        (callee_slow_after_its_change, CAUSE, Category.UNKNOWN, [PAYMENTS, PAYMENTS, CHECKOUT]),
        (database_out_of_memory, CAUSE, Category.UNKNOWN, [DB, PAYMENTS, CHECKOUT]),
        (load_fills_memory, CAUSE, Category.SATURATION, [CHECKOUT, CHECKOUT, CHECKOUT]),
        (leak_beside_load, CAUSE, Category.MEMORY, [CHECKOUT, CHECKOUT]),
        (busy_without_load, CAUSE, Category.SATURATION, [CHECKOUT, CHECKOUT]),
        (busy_after_a_change, CAUSE, Category.BAD_CHANGE, [CHECKOUT, CHECKOUT, CHECKOUT]),
        (leak_of_a_release, CAUSE, Category.BAD_CHANGE, [CHECKOUT, CHECKOUT, CHECKOUT]),
        (killed_for_memory, CAUSE, Category.MEMORY, [CHECKOUT, CHECKOUT, CHECKOUT]),
        (killed_again_and_again, CAUSE, Category.MEMORY, [CHECKOUT, CHECKOUT, CHECKOUT]),
        (fewer_requests_from_above, NOT_ENOUGH, Category.UNKNOWN, []),
        (flat_high_memory, NOT_ENOUGH, Category.MEMORY, []),
        (old_change_and_one_far_below, NOT_ENOUGH, Category.UNKNOWN, []),
        (slow_at_usual_load, NOT_ENOUGH, Category.UNKNOWN, []),
    ],
)
async def test_an_incident_is_put_down_to_what_brought_it(
    story: Callable[[], Past], conclusion: Conclusion, category: Category, way: list[ServiceName]
) -> None:
    past = story()
    question = await past.question()
    answer = await RulesDiagnostician().diagnose(question)
    found = answer.hypothesis
    assert (found.conclusion, found.category) == (conclusion, category)
    assert [step.service for step in found.path] == way
    assert check_claims(found.claims, answer.shown) == (found.claims, ())
    graph = DependencyGraph(frozenset(past.edges))
    evidence = {str(item.id): item for item in question.read}
    assert check_path(found.path, category, CHECKOUT, evidence, graph).holds == bool(way)
    if conclusion is NOT_ENOUGH:
        assert found.certainty <= UNPROVEN
        assert found.missing
    abnormal = {item.subject for item in question.read if item.sign in (Sign.ABNORMAL, Sign.HAPPENED)}
    assert set(found.suspect_instances) <= abnormal


@pytest.mark.parametrize("story", [killed_for_memory, killed_again_and_again])
async def test_who_is_killed_for_its_memory_is_restarted_though_memory_is_low_again(story: Callable[[], Past]) -> None:
    """And a kill of before, which came of memory that was full before, does not break the chain of this one."""
    question = await story().pattern(CHECKOUT, -25, "container <*> was terminated before: OOMKilled").question()
    answer = await RulesDiagnostician().diagnose(question)
    assert answer.hypothesis.suspect_instances == ("checkout-1",)
    examined = examine(question, answer, DependencyGraph(frozenset(story().edges)))
    assert (examined.suspects, examined.path.why_not()) == (("checkout-1",), "")


async def test_without_a_kill_memory_that_is_low_again_is_no_reason_to_restart() -> None:
    question = await killed_again_and_again().question()
    unkilled = replace(question, evidence=[item for item in question.evidence if item.kind not in ("log", "activity")])
    answer = await RulesDiagnostician().diagnose(question)
    assert examine(unkilled, answer, DependencyGraph(frozenset())).suspects == ()


async def test_the_service_below_and_what_was_done_to_it_are_named() -> None:
    found = decide(await callee_slow_after_its_change().question())
    assert found.root_cause.startswith("The cause lies below checkout, at payments: payments: deployment 0f2a91c")
    assert found.suspect_instances == ()


async def test_of_two_causes_at_once_the_other_is_told_and_certainty_falls() -> None:
    alone, both = decide(await surge().question()), decide(await leak_beside_load().question())
    assert alone.alternatives == ()
    assert both.alternatives[0].category is Category.SATURATION
    assert both.alternatives[0].why_not.startswith("it may be at work as well, but:")
    assert both.certainty <= 0.95 * RIVALLED


async def test_trouble_that_is_over_is_no_incident() -> None:
    before = Past(ago_min=3).service(CHECKOUT, memory_ratio_1=jump(0.45, 0.95)).anomalies()
    now = Past(ago_min=3).service(CHECKOUT)
    question = await now.question(anomalies=before)
    found = decide(question)
    assert (found.conclusion, found.path, found.certainty) == (Conclusion.HEALTHY, (), 0.9)
    assert found.claims[0].ids == ("E2",) or "inside its bound" in found.claims[0].evidence[0].quote


async def test_what_is_missing_is_read_with_the_tools() -> None:
    growth = make_evidence(
        8,
        query='deriv(memory_ratio{service="checkout", instance="checkout-1"})',
        service=CHECKOUT,
        sign=Sign.ABNORMAL,
        signal=Signal.MEMORY_RATIO,
        began=T0 - timedelta(minutes=40),
    )
    tools = ScriptedToolbox({"query_metrics": [ToolResult("ok", (growth,))], "kubernetes_events": []})
    flat = make_question(
        [anomaly(AnomalyKind.MEMORY_PRESSURE)],
        Facts(traffic_ratio=1.0, memory_ratio_by_instance=LEAKING),
        *(MEMORY_HIGH, MEMORY_OTHER, TRAFFIC_USUAL, GRAPH),
        tools=tools,
    )
    assert decide(flat).conclusion is NOT_ENOUGH
    answer = await RulesDiagnostician().diagnose(flat)
    assert tools.asked == [
        ("query_metrics", {"service": "checkout", "signal": "memory_ratio", "minutes": 360}),
        ("kubernetes_events", {"service": "checkout", "minutes": 60}),
    ]
    assert answer.hypothesis.conclusion is CAUSE
    assert answer.hypothesis.path[0].evidence == ("E8",)
    assert "E8" in answer.shown


async def test_what_is_certain_needs_no_tools() -> None:
    tools = ScriptedToolbox({"query_metrics": []})
    await RulesDiagnostician().diagnose(replace(memory_leak(), tools=tools))
    assert tools.asked == []


def ask(kinds: list[AnomalyKind], facts: Facts, *rows: Row) -> Question:
    return make_question([anomaly(kind) for kind in kinds], facts, *(rows or (*ROWS[:2], *ROWS[3:])))


def test_growth_in_one_replica_at_usual_traffic_is_a_leak_there() -> None:
    found = decide(memory_leak())
    assert (found.category, found.suspect_instances) == (Category.MEMORY, ("checkout-1",))
    assert found.certainty == CEILING[Category.MEMORY]
    assert {cited for claim in found.claims for cited in claim.ids} == {f"E{number}" for number in range(1, 8)}
    assert [step.evidence for step in found.path] == [("E3",), ("E1",)]


def test_memory_with_a_surge_is_less_certain() -> None:
    leak = memory_leak()
    surge = decide(replace(leak, facts=replace(leak.facts, traffic_ratio=2.5)))
    assert surge.category is Category.MEMORY
    assert surge.certainty < decide(leak).certainty - 0.2
    assert "load or a leak" in surge.root_cause


def test_memory_that_falls_again_is_less_likely_a_leak_than_one_that_stands() -> None:
    rows = (MEMORY_HIGH, MEMORY_OTHER, TRAFFIC_USUAL)
    facts = Facts(traffic_ratio=1.0, memory_ratio_by_instance=LEAKING)
    falling = ask([AnomalyKind.MEMORY_PRESSURE], replace(facts, memory_slope_per_min=-0.05), *rows)
    assert "does not grow" in " ".join(claim.text for claim in decide(falling).claims)
    standing = ask([AnomalyKind.MEMORY_PRESSURE], replace(facts, memory_slope_per_min=0.0), *rows)
    assert "does not grow" not in " ".join(claim.text for claim in decide(standing).claims)


def test_no_replica_is_suspected_without_abnormal_memory_of_its_own() -> None:
    everywhere = {"checkout-1": 0.93, "checkout-2": 0.91}
    found = decide(ask([AnomalyKind.MEMORY_PRESSURE], Facts(traffic_ratio=1.0, memory_ratio_by_instance=everywhere)))
    assert found.suspect_instances == ("checkout-1",)


def test_latency_with_a_surge_and_nothing_slow_below_is_saturation() -> None:
    found = decide(saturation())
    assert (found.category, found.certainty, found.suspect_instances) == (
        Category.SATURATION,
        CEILING[Category.SATURATION],
        (),
    )
    assert "2.5 times" in found.root_cause
    assert [step.evidence for step in found.path] == [("E2",), ("E1",)]


def change(after_s: float) -> ChangeEvent:
    """A commit ``after_s`` seconds after the first symptom."""
    at = T0 + timedelta(seconds=after_s)
    return ChangeEvent(CHECKOUT, at, ChangeKind.CONFIGURATION, "3f2a91c0ffee00", "fail fast", "Dana")


@pytest.mark.parametrize("kind", [AnomalyKind.ERROR_SURGE, AnomalyKind.LATENCY])
@pytest.mark.parametrize("after_s", [-600.0, 30.0])
def test_the_change_that_came_before_is_named_and_cited(kind: AnomalyKind, after_s: float) -> None:
    rows = (LATENCY_HIGH, ERRORS_HIGH, TRAFFIC_USUAL, BELOW_FINE, GRAPH, change_row(change(after_s)))
    found = decide(ask([kind], Facts(traffic_ratio=1.0), *rows))
    assert found.category is Category.BAD_CHANGE
    assert "3f2a91c0ffee “fail fast” by Dana" in found.root_cause
    (claim,) = [claim for claim in found.claims if "3f2a91c" in claim.text]
    assert claim.ids == ("E6",)
    assert found.path[0].evidence == ("E6",)
    assert found.certainty > 0.6


def test_the_change_that_detection_blames_is_believed_whatever_else_was_read() -> None:
    blamed = replace(anomaly(AnomalyKind.DEPLOYMENT_REGRESSION), change=change(-2000))
    facts = Facts(traffic_ratio=2.0, slow_callees=(PAYMENTS,))
    rows = (LATENCY_HIGH, TRAFFIC_SURGE, BELOW_SLOW, GRAPH, change_row(change(-2000)))
    found = decide(make_question([blamed], facts, *rows))
    assert found.category is Category.BAD_CHANGE
    assert "3f2a91c0ffee" in found.root_cause
    assert {one.category for one in found.alternatives} >= {Category.SATURATION, Category.UNKNOWN}


def test_traffic_is_told_with_what_was_expected() -> None:
    found = decide(ask([AnomalyKind.TRAFFIC], Facts(traffic_ratio=2.5), TRAFFIC_SURGE))
    assert found.root_cause == "checkout gets more requests than usual: 12.0 /s are expected at this hour."
    assert found.conclusion is NOT_ENOUGH


@pytest.mark.parametrize("after_s", [-3600.0, 300.0])
def test_a_change_long_before_or_after_the_symptoms_is_not_blamed(after_s: float) -> None:
    found = decide(ask([AnomalyKind.LATENCY], Facts(traffic_ratio=1.0), LATENCY_HIGH, change_row(change(after_s))))
    assert (found.conclusion, found.category) == (NOT_ENOUGH, Category.UNKNOWN)


def test_scaling_is_no_bad_change() -> None:
    scaled = change_row(replace(change(-60), kind=ChangeKind.SCALING))
    assert decide(ask([AnomalyKind.LATENCY], Facts(traffic_ratio=1.0), LATENCY_HIGH, scaled)).path == ()


def test_a_slow_callee_is_named_and_nothing_here_is_suspected() -> None:
    facts = Facts(traffic_ratio=1.0, slow_callees=(PAYMENTS,))
    found = decide(ask([AnomalyKind.LATENCY], facts, LATENCY_HIGH, TRAFFIC_USUAL, BELOW_SLOW, GRAPH))
    assert "at payments" in found.root_cause
    assert ([step.service for step in found.path], found.suspect_instances) == ([PAYMENTS, CHECKOUT], ())


def test_without_the_graph_no_way_leads_from_one_service_to_another() -> None:
    facts = Facts(traffic_ratio=1.0, slow_callees=(PAYMENTS,))
    found = decide(ask([AnomalyKind.LATENCY], facts, LATENCY_HIGH, TRAFFIC_USUAL, BELOW_SLOW))
    assert (found.conclusion, found.path) == (NOT_ENOUGH, ())


def test_a_caller_in_trouble_is_no_anomaly_of_the_service() -> None:
    callers = [make_anomaly(replace(anomaly(AnomalyKind.LATENCY).key, service=WEB), kind=AnomalyKind.LATENCY)]
    found = decide(make_question(callers, Facts(traffic_ratio=3.0), TRAFFIC_SURGE, GRAPH))
    assert (found.conclusion, found.category) == (NOT_ENOUGH, Category.UNKNOWN)


def test_without_evidence_nothing_is_claimed_and_little_is_certain() -> None:
    bare = decide(replace(memory_leak(), evidence=()))
    assert (bare.claims, bare.path, bare.conclusion) == ((), (), NOT_ENOUGH)
    assert bare.certainty <= UNPROVEN


def test_certainty_is_the_stated_formula() -> None:
    shown = (make_evidence(),)

    def check(holds: bool | None, weight: int) -> Check:
        return Check("x", holds, weight, shown)

    assert certainty(0.85, [check(True, 1), check(True, 3)]) == 0.85
    assert certainty(0.85, [check(True, 1), check(False, 1)]) == 0.425
    assert certainty(0.85, [check(None, 2)]) == 0.425
    assert certainty(0.85, [check(False, 2)]) == 0
    assert certainty(0.85, [Check("no evidence", True, 2, ())]) == 0.425


RATIO = st.none() | st.floats(0, 20)


@given(
    st.lists(st.sampled_from(AnomalyKind), max_size=4, unique=True),
    st.builds(
        Facts,
        traffic_ratio=RATIO,
        latency_ratio=RATIO,
        error_ratio=RATIO,
        memory_ratio_by_instance=st.sampled_from([{}, NORMAL, LEAKING]),
        memory_slope_per_min=st.none() | st.floats(),
        slow_callees=st.sampled_from([(), (PAYMENTS,), (PAYMENTS, ServiceName("db"))]),
        replicas=st.none() | st.integers(0, 9),
    ),
    st.lists(st.sampled_from(ROWS), unique_by=lambda row: row.statement),
)
def test_whatever_was_read_claims_cite_what_exists(kinds: list[AnomalyKind], facts: Facts, rows: list[Row]) -> None:
    question = make_question([anomaly(kind) for kind in kinds], facts, *rows)
    found = decide(question)
    shown = {str(item.id): item.statement for item in question.evidence}
    assert check_claims(found.claims, shown) == (found.claims, ())
    assert 0 <= found.certainty <= 1
    assert bool(found.path) == (found.conclusion is CAUSE)
    assert decide(question) == found
    assert Hypothesis.model_validate_json(found.model_dump_json(), strict=True) == found


async def test_diagnose_names_itself_and_shows_what_it_was_given() -> None:
    answer = await RulesDiagnostician().diagnose(memory_leak())
    assert answer.source == "rules"
    assert answer.exchange["facts"] == {
        "traffic_ratio": 1.0,
        "latency_ratio": None,
        "error_ratio": None,
        "memory_ratio_by_instance": LEAKING,
        "memory_slope_per_min": 0.021,
        "recent_changes": [],
        "slow_callees": [],
        "replicas": 2,
        "recovered": False,
        "in_vain": [],
    }
    assert answer.shown == {str(item.id): item.statement for item in memory_leak().evidence}


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        ("why?", "probably a leak"),
        ("What happened?", "above its bound of 85 % since 14:02:00 UTC [E1]"),
        (
            "what is the evidence?",
            "traffic of checkout is 12 /s (baseline 12 /s, 1.0× of it) [E4] (read by read checkout",
        ),
        ("What would you do?", "Restart the leaking replicas"),
        ("is it the memory?", "Probably yes."),
        ("is it the traffic", "It does not look like saturation"),
        ("could it be the last deploy?", "does not answer that: nothing was read about bad change"),
        ("is the database slow?", "No service below is seen to be slow."),
        ("who is affected?", "called by web and calls payments [E6]"),
        ("since when?", "left its bounds at 2026-11-20 14:02:00 UTC [E1]"),
        ("how sure are you", "95% certain, by memory"),
        ("generation 7 of the demo?", "2 replicas, 2 ready, generation 7 [E7]"),
        ("what else could it be?", "No other cause was close"),
        ("what is missing", "Nothing in particular is missing"),
        ("sing me a song", "does not answer that"),
        ("", "does not answer that"),
    ],
)
async def test_replies_come_from_the_evidence(asked: str, expected: str) -> None:
    assert expected in (await RulesDiagnostician().reply(memory_leak(), asked)).text


@pytest.mark.parametrize(
    "asked", ["why", "what happened", "evidence", "who", "when", "is it memory", "what next", "hm"]
)
async def test_replies_survive_having_nothing(asked: str) -> None:
    empty = make_question([], Facts(), passages=())
    assert (await RulesDiagnostician().reply(empty, asked)).text


@given(st.text(max_size=200))
async def test_no_question_breaks_it(asked: str) -> None:
    assert (await RulesDiagnostician().reply(saturation(), asked)).text


READ = make_evidence(9, statement="CPU use of payments-1 is 98 %", service=PAYMENTS, subject="payments-1")


@pytest.mark.parametrize(
    ("asked", "tool", "arguments"),
    [
        (
            "What about the cpu of payments in the last 2 hours?",
            "query_metrics",
            {"service": "payments", "signal": "cpu_ratio", "minutes": 120},
        ),
        ("show me the p99", "query_metrics", {"service": "checkout", "signal": "latency_p99", "minutes": 60}),
        (
            "any logs with “pool is empty”?",
            "search_logs",
            {"service": "checkout", "text": "pool is empty", "minutes": 30},
        ),
        ("What changed in web?", "recent_changes", {"service": "web", "minutes": 180}),
        ("traces that fail", "traces", {"service": "checkout", "minutes": 15, "errors_only": True}),
        ("was it restarted? events?", "kubernetes_events", {"service": "checkout", "minutes": 60}),
    ],
)
async def test_a_question_that_names_what_to_read_is_answered_by_reading(
    asked: str, tool: str, arguments: dict[str, object]
) -> None:
    tools = ScriptedToolbox({tool: [ToolResult("ok", (READ,), "2 more are left out")]})
    said: list[str] = []

    async def take(text: str) -> None:
        said.append(text)

    answer = (await RulesDiagnostician().reply(replace(memory_leak(), tools=tools), asked, take)).text
    assert tools.asked == [(tool, arguments)]
    assert "- CPU use of payments-1 is 98 % [E9]" in answer
    assert "2 more are left out" in answer
    assert said == [answer]


async def test_a_tool_that_is_spent_leaves_the_evidence_and_one_that_is_empty_says_so() -> None:
    nothing = ScriptedToolbox({"recent_changes": [ToolResult("empty", said="no change of web was told")]})
    answer = (await RulesDiagnostician().reply(replace(memory_leak(), tools=nothing), "what changed in web?")).text
    assert answer == "Nothing was found: no change of web was told."
    spent = ScriptedToolbox({"query_metrics": []}, calls=0)
    answer = (await RulesDiagnostician().reply(replace(memory_leak(), tools=spent), "show me the traffic")).text
    assert "traffic of checkout is 12 /s" in answer
