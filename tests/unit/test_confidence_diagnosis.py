"""How sure a diagnosis is, and which of its claims stand."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from pipeline.domain.confidence import PROPOSE_FROM, Confidence, evidence_volume
from pipeline.domain.diagnosis import Category, Citation, Claim, Hypothesis, check_claims

PART = st.floats(0, 1)
RAW: dict[str, Any] = {
    "conclusion": "cause",
    "category": "memory",
    "root_cause": "a leak",
    "suspect_instances": ["checkout-1"],
    "claims": [{"text": "it grows", "evidence": [{"id": "E1", "quote": "grows"}]}],
    "certainty": 0.9,
}
SHOWN = {f"E{number}": f"memory of checkout-1 grows (fact {number})" for number in range(1, 7)}


def saying(*claims: tuple[str, tuple[str, ...]], quote: str = "memory of checkout-1 grows") -> tuple[Claim, ...]:
    return tuple(
        Claim(text=text, evidence=tuple(Citation(id=name, quote=quote) for name in cited)) for text, cited in claims
    )


def shown(*numbers: int) -> dict[str, str]:
    return {f"E{number}": SHOWN[f"E{number}"] for number in numbers}


@pytest.mark.parametrize(
    ("parts", "score"),
    [
        ((1, 1, 1, 1), 1.0),
        ((0, 0, 0, 0), 0.0),
        ((1, 0, 0, 0), 0.35),
        ((0, 1, 0, 0), 0.25),
        ((0, 0, 1, 0), 0.25),
        ((0, 0, 0, 1), 0.15),
        ((0.9, 0.8, 0.74, 0.6), 0.79),
    ],
)
def test_the_score_is_the_stated_sum(parts: tuple[float, ...], score: float) -> None:
    assert Confidence(*parts).score == pytest.approx(score)


def test_the_arithmetic_is_shown() -> None:
    assert Confidence(0.9, 0.8, 0.74, 0.6).arithmetic() == (
        "0.35·author 0.90 + 0.25·reviewer 0.80 + 0.25·retrieval 0.74 + 0.15·evidence 0.60 = 0.79"
    )


@given(PART, PART, PART, PART)
def test_the_score_stays_on_its_scale_and_the_author_alone_is_never_enough(
    a: float, b: float, c: float, d: float
) -> None:
    assert 0 <= Confidence(a, b, c, d).score <= 1 + 1e-9
    assert Confidence(a, 0, 0, d).score < PROPOSE_FROM


def test_evidence_volume_is_full_at_five() -> None:
    assert [evidence_volume(cited) for cited in (0, 1, 3, 5, 50)] == [0, 0.2, 0.6, 1, 1]


def test_claims_without_evidence_are_dropped_and_named() -> None:
    claims = saying(("grows", ("E1", "E2")), ("invented", ("E9",)), ("half invented", ("E1", "E9")))
    kept, dropped = check_claims(claims, shown(1, 2))
    assert [claim.text for claim in kept] == ["grows"]
    assert dropped == (
        "claim left out, E9 was not given: invented",
        "claim left out, E9 was not given: half invented",
    )


@pytest.mark.parametrize("quote", ["memory of checkout-1 shrinks", "Memory of checkout-1", "", "  ", "fact 2"])
def test_a_quote_must_stand_there_word_for_word(quote: str) -> None:
    kept, (dropped,) = check_claims(saying(("grows", ("E1",)), quote=quote), shown(1))
    assert kept == ()
    assert "its quote does not stand in E1" in dropped


def test_no_evidence_carries_no_claim() -> None:
    kept, dropped = check_claims(saying(("grows", ("E1",)), ("slow", ("E2",))), {})
    assert (kept, len(dropped)) == ((), 2)
    assert check_claims(saying(), shown(1)) == ((), ())


@pytest.mark.parametrize("cited", ["e1", "E1 ", " E1", "E01", "*", "E1,E2", "\u04151"])
def test_an_id_must_be_the_very_id(cited: str) -> None:
    assert check_claims(saying(("grows", (cited,))), shown(1))[0] == ()


def test_a_long_claim_is_named_by_its_beginning() -> None:
    _, (dropped,) = check_claims(saying(("x" * 600, ("E9",))), {})
    assert dropped.endswith("x" * 120)
    assert len(dropped) < 200


@given(st.lists(st.lists(st.integers(1, 6), min_size=1, max_size=4), max_size=8), st.sets(st.integers(1, 6)))
def test_what_is_kept_cites_only_what_exists(cited: list[list[int]], known: set[int]) -> None:
    made = [(f"claim {at}", tuple(f"E{number}" for number in numbers)) for at, numbers in enumerate(cited)]
    kept, dropped = check_claims(saying(*made), shown(*known))
    assert len(kept) + len(dropped) == len(cited)
    assert [claim.text for claim in kept] == [f"claim {at}" for at, one in enumerate(cited) if set(one) <= known]


@pytest.mark.parametrize(
    "changes",
    [
        {"category": "reboot_everything"},
        {"category": "MEMORY"},
        {"certainty": 1.01},
        {"certainty": -0.1},
        {"certainty": float("nan")},
        {"root_cause": ""},
        {"root_cause": "x" * 601},
        {"claims": [{"text": "no evidence", "evidence": []}]},
        {"claims": [{"text": "", "evidence": [{"id": "E1", "quote": "x"}]}]},
        {"claims": [{"text": "x", "evidence": [{"id": "E1", "quote": "x"}], "action": "delete"}]},
        {"claims": [{"text": "x", "evidence": [{"id": "E1", "quote": "x"}]}] * 9},
        {"claims": None},
        {"claims": [{"text": "x", "evidence": ["E1"]}]},
        {"conclusion": "certain"},
        {"command": "kubectl delete namespace prod"},
    ],
)
def test_anything_else_a_model_writes_is_refused(changes: dict[str, Any]) -> None:
    assert Hypothesis.model_validate(RAW).category is Category.MEMORY
    with pytest.raises(ValidationError):
        Hypothesis.model_validate({**RAW, **changes})


@pytest.mark.parametrize("name", ["conclusion", "category", "root_cause", "claims", "certainty"])
def test_nothing_is_made_up_for_what_is_missing(name: str) -> None:
    with pytest.raises(ValidationError):
        Hypothesis.model_validate({key: value for key, value in RAW.items() if key != name})
