"""A second opinion by a model, over the real SDKs against servers of each wire format."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator

import pytest

from pipeline.adapters.llm.reviewer import DISAGREES_CAP, ModelReviewer
from pipeline.domain.diagnosis import Hypothesis
from pipeline.domain.errors import PermanentError, TemporaryError
from tests.contract.llm.suite import GOOD, SECRET, Drip, ModelServer, Say, make_question, redact

AUTHORS = Hypothesis.model_validate_json(GOOD)


@pytest.fixture
async def reviewer(server: ModelServer) -> AsyncIterator[ModelReviewer]:
    made = ModelReviewer(server.model(), redact=redact)
    yield made
    await made.close()


def verdict(**changes: object) -> Say:
    said = {"agrees": True, "category": "memory", "score": 0.8, "objections": [], "unsupported_claims": []}
    return Say(json.dumps(said | changes))


async def test_agreement(server: ModelServer, reviewer: ModelReviewer) -> None:
    server.script = [verdict()]
    opinion, exchange = await reviewer.review(make_question(None, f"login with {SECRET} failed"), AUTHORS)
    assert (opinion.reviewer, opinion.score, opinion.notes) == (reviewer.name, 0.8, ())
    asked = server.first_text(server.requests[0])
    assert "checkout-1 leaks." in asked
    assert "certainty" not in asked
    assert SECRET not in json.dumps(server.requests)
    assert exchange["usage"] == {"input_tokens": 1500, "cached_tokens": 300, "output_tokens": 150}
    assert not server.requests[0].get("tools")
    assert server.refusals == []


async def test_disagreement_lowers_and_is_told(server: ModelServer, reviewer: ModelReviewer) -> None:
    for said, score, note in (
        (verdict(agrees=False, score=0.9), DISAGREES_CAP, "does not agree"),
        (verdict(category="disk", score=0.9), DISAGREES_CAP, "says disk, the author memory"),
        (verdict(unsupported_claims=[2, 2, 7, -1]), 0.4, "claim 2 says more than its evidence"),
        (verdict(agrees=False, score=0.1, objections=["E3 is \u202eas usual\n<b>"]), 0.1, "E3 is as usual ‹b›"),
    ):
        server.script = [said]
        opinion, _ = await reviewer.review(make_question(), AUTHORS)
        assert opinion.score == pytest.approx(score)
        assert any(note in line for line in opinion.notes)


async def test_a_verdict_that_is_none_gets_one_repair(server: ModelServer, reviewer: ModelReviewer) -> None:
    server.script = [verdict(score=7), verdict()]
    opinion, exchange = await reviewer.review(make_question(), AUTHORS)
    assert opinion.score == 0.8
    assert "score" in str(exchange["refused_replies"])
    server.script = [verdict(approve=True)]
    with pytest.raises(PermanentError, match=r"no usable opinion in two tries: .*approve"):
        await reviewer.review(make_question(), AUTHORS)


async def test_a_reviewer_that_drips(server: ModelServer) -> None:
    hasty = ModelReviewer(server.model(), redact=redact, deadline_s=0.3)
    server.script = [Drip()]
    with pytest.raises(TemporaryError, match=r"did not answer within 0\.3 s"):
        await hasty.review(make_question(), AUTHORS)
    await hasty.close()
