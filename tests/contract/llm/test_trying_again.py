"""An API that cannot take a request just then: asked once more where the wait is short, never waited for long."""

from __future__ import annotations

import pytest

from pipeline.adapters.llm.api_errors import NotNow, retry_after_s, tried_again
from pipeline.adapters.llm.chat import UserTurn
from pipeline.adapters.llm.reasoner import ModelDiagnostician
from pipeline.ports.model import GaveNoAnswer, OnText
from tests.contract.llm.suite import GOOD, Fail, ModelServer, Say, make_question, redact


async def test_overload_is_tried_once_more(server: ModelServer) -> None:
    patient = ModelDiagnostician(server.model(max_retries=1), redact=redact)
    server.script = [Fail(529, headers={"retry-after-ms": "10"}), Say(GOOD)]
    assert (await patient.diagnose(make_question())).hypothesis.certainty == 0.9
    assert len(server.requests) == 2
    await patient.close()


@pytest.mark.parametrize("status", [429, 503, 529])
async def test_nobody_waits_as_long_as_a_server_asks(server: ModelServer, status: int) -> None:
    """A minute is longer than an incident's whole deadline: the error comes at once, and says what was asked."""
    patient = ModelDiagnostician(server.model(max_retries=1), redact=redact)
    server.script = [Fail(status, headers={"retry-after": "45"}), Say(GOOD)]
    with pytest.raises(GaveNoAnswer, match="asks to wait 45 s") as raised:
        await patient.diagnose(make_question())
    assert raised.value.retry_after_s == 45.0
    assert len(server.requests) == 1
    await patient.close()


async def test_a_stream_that_was_not_begun_is_asked_for_again(server: ModelServer) -> None:
    pieces: list[str] = []

    async def on_text(piece: str) -> None:
        pieces.append(piece)

    model = server.model(max_retries=1)
    server.script = [Fail(503, headers={"retry-after-ms": "1"}), Say("It leaks.")]
    assert (await model.turn("s", [UserTurn("why?")], on_text=on_text)).text == "It leaks."
    assert ("".join(pieces), len(server.requests)) == ("It leaks.", 2)
    await model.close()


async def test_an_api_busy_in_mid_answer_is_asked_again_only_before_its_first_word() -> None:
    told: list[str] = []

    async def on_text(piece: str) -> None:
        told.append(piece)

    async def breaks_off(telling: OnText | None) -> str:
        assert telling is not None
        await telling("It ")
        raise NotNow("busy", retry_after_s=0.0)

    with pytest.raises(NotNow, match="busy"):
        await tried_again(breaks_off, on_text, 1)
    assert told == ["It "]


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"retry-after": "45"}, 45.0),
        ({"retry-after": "45", "retry-after-ms": "20"}, 0.02),
        ({"retry-after": "-1"}, 0.0),
        ({"retry-after": "inf"}, None),
        ({"retry-after": "Wed, 21 Oct 2026 07:28:00 GMT"}, None),
        ({}, None),
    ],
)
def test_the_wait_that_is_asked_for(headers: dict[str, str], seconds: float | None) -> None:
    assert retry_after_s(headers) == seconds
