"""The second opinion."""

from dataclasses import replace

import pytest

from pipeline.adapters.llm.rules import decide
from pipeline.domain.diagnosis import Category, Citation, Claim, Conclusion, Hypothesis, Sign
from pipeline.domain.review import INVENTED_CAP, NOT_INDEPENDENT_CAP, known_instances, review
from pipeline.domain.telemetry import Signal
from tests.builders import CHECKOUT, make_evidence
from tests.questions import PAYMENTS, memory_leak, saturation


def claim(text: str, *cited: str) -> Claim:
    return Claim(text=text, evidence=tuple(Citation(id=name, quote="is") for name in cited))


LEAK = Hypothesis(
    conclusion=Conclusion.CAUSE,
    category=Category.MEMORY,
    root_cause="a leak",
    suspect_instances=("checkout-1",),
    claims=(claim("high", "E1"), claim("traffic as usual", "E4")),
    certainty=0.9,
)


def test_everything_right_and_the_rules_agree() -> None:
    assert review(LEAK, memory_leak(), decide(memory_leak())) == (1.0, ())


def test_the_rules_engine_cannot_be_its_own_independent_reviewer() -> None:
    score, notes = review(decide(memory_leak()), memory_leak(), None)
    assert score == NOT_INDEPENDENT_CAP
    assert "not independent" in notes[-1]


def test_disagreement_lowers_the_score() -> None:
    question = memory_leak()
    score, notes = review(LEAK, question, decide(saturation()))
    unsure, _ = review(LEAK, question, decide(replace(question, anomalies=())))
    assert score < unsure < 1.0
    assert notes == ("the rules engine says saturation, the author memory",)


def test_evidence_that_does_not_exist_is_named() -> None:
    wrong = LEAK.model_copy(update={"claims": (*LEAK.claims, claim("made up", "E1", "E99"))})
    score, notes = review(wrong, memory_leak(), decide(memory_leak()))
    assert score == pytest.approx(1 - 0.25 / 3)
    assert notes == ("cites evidence that does not exist: E99",)
    nothing, notes = review(LEAK.model_copy(update={"claims": ()}), memory_leak(), decide(memory_leak()))
    assert (nothing, notes) == (0.75, ("no claim cites any evidence",))


def test_an_invented_instance_caps_the_score() -> None:
    assert known_instances(memory_leak()) == ("checkout-1", "checkout-2")
    wrong = LEAK.model_copy(update={"suspect_instances": ("checkout-1", "payments-1")})
    score, notes = review(wrong, memory_leak(), decide(memory_leak()))
    assert score == INVENTED_CAP
    assert notes == ("names instances that nobody measured: payments-1",)


@pytest.mark.parametrize(
    ("category", "notes"),
    [
        (Category.DISK, "disk explains no anomaly of checkout (seen: memory_pressure)"),
        (Category.SATURATION, "saturation, but traffic is only 1.0 times the usual"),
    ],
)
def test_a_category_that_explains_nothing_here(category: Category, notes: str) -> None:
    score, said = review(LEAK.model_copy(update={"category": category}), memory_leak(), decide(memory_leak()))
    assert score < 0.5
    assert notes in said


def test_facts_against_the_hypothesis_are_said() -> None:
    question = saturation()
    below = replace(question, facts=replace(question.facts, slow_callees=(PAYMENTS,)))
    _, notes = review(decide(question), below, None)
    assert "saturation here, but payments below is slow too" in notes
    unread = replace(question, facts=replace(question.facts, traffic_ratio=None))
    _, notes = review(decide(question), unread, None)
    assert "traffic neither confirms nor refutes saturation" in notes


def test_what_a_tool_read_may_be_cited() -> None:
    question = memory_leak()
    read = LEAK.model_copy(update={"claims": (claim("seen later", "E8"),)})
    assert "E8" in review(read, question, decide(question)).notes[0]
    more = replace(question, evidence=(*question.evidence, make_evidence(8)))
    assert review(read, more, decide(question)) == (1.0, ())


def test_used_up_processors_speak_for_saturation_without_more_traffic() -> None:
    question = saturation()
    usual = replace(question, facts=replace(question.facts, traffic_ratio=1.0))
    saturated = decide(question)
    assert "saturation, but traffic is only 1.0 times the usual" in review(saturated, usual, None).notes
    busy = make_evidence(9, service=CHECKOUT, sign=Sign.ABNORMAL, signal=Signal.CPU_RATIO)
    assert review(saturated, replace(usual, evidence=(*usual.evidence, busy)), None).notes == (
        "the rules engine is author and reviewer: not independent, at most 0.80",
    )


def test_healthy_is_held_against_the_newest_samples() -> None:
    well = LEAK.model_copy(update={"conclusion": Conclusion.HEALTHY, "category": Category.UNKNOWN})
    question = memory_leak()
    score, notes = review(well, question, None)
    assert "not every series is back inside its bound" in notes[0]
    recovered = replace(question, facts=replace(question.facts, recovered=True))
    better, notes = review(well, recovered, None)
    assert better > score
    assert len(notes) == 1
