"""The rules engine's decision tree, its citations and its answers."""

from dataclasses import replace
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.adapters.llm.rules import CEILING, Check, RulesDiagnostician, certainty, decide
from pipeline.domain.anomaly import AnomalyKind
from pipeline.domain.changes import ChangeEvent, ChangeKind
from pipeline.domain.diagnosis import Category, check_claims
from pipeline.domain.facts import Facts
from pipeline.domain.ids import ServiceName
from pipeline.ports.model import Question
from tests.builders import CHECKOUT, T0, WEB, make_anomaly
from tests.questions import (
    BELOW_FINE,
    BELOW_SLOW,
    ERRORS_HIGH,
    GRAPH,
    LATENCY_HIGH,
    LEAKING,
    MEMORY_HIGH,
    MEMORY_OTHER,
    NORMAL,
    PAYMENTS,
    TARGET,
    TRAFFIC_SURGE,
    TRAFFIC_USUAL,
    anomaly,
    make_question,
    memory_leak,
    saturation,
)

ROWS = (MEMORY_HIGH, MEMORY_OTHER, LATENCY_HIGH, ERRORS_HIGH, TRAFFIC_USUAL, TRAFFIC_SURGE, BELOW_FINE, GRAPH, TARGET)


def ask(kinds: list[AnomalyKind], facts: Facts) -> Question:
    return make_question([anomaly(kind) for kind in kinds], facts, *ROWS)


def test_growth_in_one_replica_at_usual_traffic_is_a_leak_there() -> None:
    found = decide(memory_leak())
    assert (found.category, found.suspect_instances) == (Category.MEMORY, ("checkout-1",))
    assert found.certainty == CEILING[Category.MEMORY]
    assert {cited for claim in found.claims for cited in claim.evidence} == {f"E{number}" for number in range(1, 8)}


def test_memory_with_a_surge_is_less_certain() -> None:
    leak = memory_leak()
    surge = decide(replace(leak, facts=replace(leak.facts, traffic_ratio=2.5)))
    assert surge.category is Category.MEMORY
    assert surge.certainty < decide(leak).certainty - 0.2
    assert "load or a leak" in surge.root_cause


def test_memory_at_the_limit_need_not_grow_any_more() -> None:
    leak = memory_leak()
    full = decide(replace(leak, facts=replace(leak.facts, memory_slope_per_min=0.0)))
    falling = decide(replace(leak, facts=replace(leak.facts, memory_slope_per_min=-0.05)))
    assert CEILING[Category.MEMORY] > full.certainty > falling.certainty
    assert "does not grow" in " ".join(claim.text for claim in falling.claims)


def test_every_replica_above_the_bound_is_a_suspect() -> None:
    everywhere = {"checkout-1": 0.93, "checkout-2": 0.91}
    found = decide(ask([AnomalyKind.MEMORY_PRESSURE], Facts(traffic_ratio=1.0, memory_ratio_by_instance=everywhere)))
    assert found.suspect_instances == ("checkout-1", "checkout-2")


def test_latency_with_a_surge_and_nothing_slow_below_is_saturation() -> None:
    found = decide(saturation())
    assert (found.category, found.certainty, found.suspect_instances) == (
        Category.SATURATION,
        CEILING[Category.SATURATION],
        (),
    )
    assert "2.5 times" in found.root_cause


@pytest.mark.parametrize(
    ("kinds", "facts", "category"),
    [
        ([AnomalyKind.ERROR_SURGE], Facts(traffic_ratio=1.0), Category.BAD_CHANGE),
        ([AnomalyKind.ERROR_SURGE, AnomalyKind.LATENCY], Facts(traffic_ratio=1.1), Category.BAD_CHANGE),
        ([AnomalyKind.ERROR_SURGE, AnomalyKind.LATENCY], Facts(traffic_ratio=2.0), Category.SATURATION),
        ([AnomalyKind.ERROR_SURGE], Facts(traffic_ratio=2.0, latency_ratio=4.0), Category.SATURATION),
        ([AnomalyKind.LATENCY], Facts(traffic_ratio=1.0), Category.UNKNOWN),
        ([AnomalyKind.LATENCY], Facts(), Category.UNKNOWN),
        ([AnomalyKind.LATENCY], Facts(traffic_ratio=2.0, slow_callees=(PAYMENTS,)), Category.UNKNOWN),
        ([AnomalyKind.MEMORY_PRESSURE, AnomalyKind.LATENCY], Facts(traffic_ratio=1.0), Category.MEMORY),
        ([AnomalyKind.DISK_EXHAUSTION], Facts(), Category.DISK),
        ([AnomalyKind.CERTIFICATE_EXPIRY], Facts(), Category.CERTIFICATE),
        ([AnomalyKind.DEPLOYMENT_REGRESSION, AnomalyKind.ERROR_SURGE], Facts(traffic_ratio=2.0), Category.BAD_CHANGE),
        ([AnomalyKind.TRAFFIC], Facts(traffic_ratio=2.5), Category.UNKNOWN),
        ([AnomalyKind.MULTI_DIMENSIONAL], Facts(traffic_ratio=1.0), Category.UNKNOWN),
        ([], Facts(), Category.UNKNOWN),
    ],
)
def test_the_tree(kinds: list[AnomalyKind], facts: Facts, category: Category) -> None:
    found = decide(ask(kinds, facts))
    assert found.category is category
    if category is Category.UNKNOWN:
        assert found.certainty <= 0.4
    if category is Category.BAD_CHANGE:
        assert found.certainty <= 0.6


def changed(after_s: float, **fields: str) -> Facts:
    """A commit ``after_s`` seconds after the first symptom."""
    at = T0 + timedelta(seconds=after_s)
    change = ChangeEvent(CHECKOUT, at, ChangeKind.CONFIGURATION, "3f2a91c0ffee00", "fail fast", "Dana")
    return Facts(traffic_ratio=1.0, recent_changes=(replace(change, **fields),))


@pytest.mark.parametrize("kind", [AnomalyKind.ERROR_SURGE, AnomalyKind.LATENCY])
@pytest.mark.parametrize("after_s", [-600.0, 30.0])
def test_the_change_that_came_before_is_named_and_cited(kind: AnomalyKind, after_s: float) -> None:
    facts = changed(after_s)
    told = ("change", f"checkout: {facts.recent_changes[0].describe()}", "checkout")
    question = make_question([anomaly(kind)], facts, *ROWS, told)
    found = decide(question)
    assert found.category is Category.BAD_CHANGE
    assert "3f2a91c0ffee “fail fast” by Dana" in found.root_cause
    (claim,) = [claim for claim in found.claims if "3f2a91c" in claim.text]
    assert claim.evidence == (question.evidence[-1].id,)
    assert found.certainty > 0.6


def test_the_change_that_detection_blames_is_believed_whatever_else_was_read() -> None:
    facts = changed(-2000.0)
    blamed = replace(anomaly(AnomalyKind.DEPLOYMENT_REGRESSION), change=facts.recent_changes[0])
    told = ("change", f"checkout: {facts.recent_changes[0].describe()}", "checkout")
    found = decide(make_question([blamed], replace(facts, slow_callees=(PAYMENTS,)), *ROWS, told))
    assert found.category is Category.BAD_CHANGE
    assert "3f2a91c0ffee" in found.root_cause


def test_traffic_is_told_with_what_was_expected() -> None:
    found = decide(ask([AnomalyKind.TRAFFIC], Facts(traffic_ratio=2.5)))
    assert found.root_cause == "checkout gets more requests than usual: 12.0 /s are expected at this hour."


@pytest.mark.parametrize("after_s", [-3600.0, 300.0])
def test_a_change_long_before_or_after_the_symptoms_is_not_blamed(after_s: float) -> None:
    found = decide(ask([AnomalyKind.LATENCY], changed(after_s)))
    assert found.category is Category.UNKNOWN


def test_a_slow_callee_is_named_and_nothing_here_is_suspected() -> None:
    question = make_question(
        [anomaly(AnomalyKind.LATENCY)],
        Facts(traffic_ratio=1.0, slow_callees=(PAYMENTS,)),
        *(LATENCY_HIGH, TRAFFIC_USUAL, BELOW_SLOW),
    )
    found = decide(question)
    assert "payments" in found.root_cause
    assert (found.claims[0].evidence, found.suspect_instances) == (("E3",), ())


def test_a_caller_in_trouble_is_no_anomaly_of_the_service() -> None:
    callers = [make_anomaly(replace(anomaly(AnomalyKind.LATENCY).key, service=WEB), kind=AnomalyKind.LATENCY)]
    assert decide(make_question(callers, Facts(traffic_ratio=3.0), *ROWS)).category is Category.UNKNOWN


def test_without_evidence_nothing_is_claimed_and_little_is_certain() -> None:
    bare = replace(memory_leak(), evidence=())
    assert decide(bare).claims == ()
    assert decide(bare).certainty == round(CEILING[Category.MEMORY] / 2, 3)


def test_certainty_is_the_stated_formula() -> None:
    def check(holds: bool | None, weight: int) -> Check:
        return Check("x", holds, weight, ("E1",))

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
    st.sets(st.sampled_from(ROWS)),
)
def test_whatever_was_read_claims_cite_what_exists(
    kinds: list[AnomalyKind], facts: Facts, rows: set[tuple[str, str, str]]
) -> None:
    question = make_question([anomaly(kind) for kind in kinds], facts, *sorted(rows))
    found = decide(question)
    assert check_claims(found, tuple(question.evidence)) == (found.claims, ())
    assert 0 <= found.certainty <= CEILING[found.category]
    assert decide(question) == found


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
    }


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
        ("how sure are you", "95% certain of memory"),
        ("generation 7 of the demo?", "2 replicas, 2 ready, generation 7 [E7]"),
        ("sing me a song", "does not answer that"),
        ("", "does not answer that"),
    ],
)
async def test_replies_come_from_the_evidence(asked: str, expected: str) -> None:
    assert expected in await RulesDiagnostician().reply(memory_leak(), asked)


@pytest.mark.parametrize(
    "asked", ["why", "what happened", "evidence", "who", "when", "is it memory", "what next", "hm"]
)
async def test_replies_survive_having_nothing(asked: str) -> None:
    empty = make_question([], Facts(), passages=())
    assert await RulesDiagnostician().reply(empty, asked)


@given(st.text(max_size=200))
async def test_no_question_breaks_it(asked: str) -> None:
    assert await RulesDiagnostician().reply(saturation(), asked)
