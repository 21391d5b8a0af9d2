"""OpenAI's two wire formats: what each has of its own, against servers that speak them."""

from __future__ import annotations

import json

import pytest

from pipeline.adapters.llm.chat import ToolTurn, Usage, UserTurn
from pipeline.adapters.llm.models import DEFAULT_OPENAI
from pipeline.adapters.llm.openai import OpenAiModel
from pipeline.adapters.llm.strict_schema import strict_schema
from pipeline.domain.diagnosis import Hypothesis
from pipeline.domain.errors import PermanentError, TemporaryError
from tests.contract.llm.openai_server import REASONING, CompletionsServer, ResponsesServer, wrong_schema
from tests.contract.llm.suite import GOOD, KEY, Fail, FakeTools, Oddly, Say

CALLS = (("read_logs", '{"service": "a"}'), ("read_logs", '{"service": "b"}'))


async def test_what_is_sent_to_responses(responses_server: ResponsesServer) -> None:
    model = responses_server.model()
    turn = await model.turn("be brief", [UserTurn("why?")], tools=FakeTools().specs, schema=Hypothesis)
    assert turn.usage == Usage(sent=1500, cached=300, written=150)
    (sent,) = responses_server.requests
    assert responses_server.headers[0]["authorization"] == f"Bearer {KEY}"
    assert (sent["model"], sent["instructions"], sent["store"]) == (DEFAULT_OPENAI, "be brief", False)
    assert sent["input"] == [{"role": "user", "content": "why?"}]
    form = sent["text"]["format"]
    assert (form["type"], form["name"], form["strict"]) == ("json_schema", "Hypothesis", True)
    assert sent["tools"][0]["strict"]
    assert sent["tools"][0]["parameters"]["required"] == ["service", "minutes", "pattern"]
    assert not {"reasoning", "temperature", "tool_choice", "stream"} & sent.keys()
    await model.close()


@pytest.mark.parametrize("streamed", [False, True])
@pytest.mark.parametrize("sealed", [False, True])
async def test_reasoning_goes_back_sealed_or_not_at_all(
    responses_server: ResponsesServer, sealed: bool, streamed: bool
) -> None:
    async def on_text(_: str) -> None:
        return

    responses_server.sealed = sealed
    responses_server.script = [Say("Let me see.", calls=CALLS), Say("It is a.")]
    model = responses_server.model()
    specs = FakeTools().specs
    said = await model.turn("s", [UserTurn("why?")], tools=specs, on_text=on_text if streamed else None)
    assert [json.loads(call.arguments)["service"] for call in said.calls] == ["a", "b"]
    results = ToolTurn((("call_0", "a is fine", False), ("call_1", "b was not found", True)))
    await model.turn("s", [UserTurn("why?"), said, results], tools=specs, may_call=False)
    sent = responses_server.requests[1]
    assert sent["tool_choice"] == "none"
    assert (sent["input"][1] == REASONING) == sealed
    kinds = [item.get("type", item.get("role")) for item in sent["input"]]
    called = ["function_call"] * 2 + ["function_call_output"] * 2
    assert kinds == ["user", *(["reasoning", "message"] if sealed else ["assistant"]), *called]
    assert sent["input"][-1]["output"] == "error: b was not found"
    await model.close()


async def test_a_response_that_failed(responses_server: ResponsesServer) -> None:
    model = responses_server.model()
    whole = responses_server.body(Say("x"))
    for code, kind in (("server_error", TemporaryError), ("invalid_prompt", PermanentError)):
        failed = {**whole, "status": "failed", "error": {"code": code, "message": "x"}}
        responses_server.script = [Oddly(json.dumps(failed))]
        with pytest.raises(kind, match=f"fails: {code}"):
            await model.turn("s", [UserTurn("why?")])
    await model.close()


async def test_what_is_sent_to_completions(completions_server: CompletionsServer) -> None:
    model = completions_server.model()
    await model.turn("be brief", [UserTurn("why?")], tools=FakeTools().specs, schema=Hypothesis)
    (sent,) = completions_server.requests
    assert sent["model"] == "local-model"
    assert sent["messages"] == [{"role": "system", "content": "be brief"}, {"role": "user", "content": "why?"}]
    assert sent["response_format"]["json_schema"]["strict"]
    assert sent["max_tokens"] == 8000
    assert not {"reasoning_effort", "temperature", "tool_choice", "max_completion_tokens"} & sent.keys()
    await model.close()


@pytest.mark.parametrize(
    ("forms", "sent"),
    [
        ({"json_object", "text"}, {"type": "json_object"}),
        ({"text"}, None),
        ({"json_schema", "text"}, {"type": "json_schema"}),
    ],
)
async def test_a_weaker_form_is_asked_for_once_and_remembered(
    completions_server: CompletionsServer, forms: set[str], sent: dict[str, str] | None
) -> None:
    completions_server.forms = forms
    completions_server.script = [Say(f"```json\n{GOOD}\n```")]
    model = completions_server.model()
    for _ in range(2):
        await model.turn("be brief", [UserTurn("why?")], schema=Hypothesis)
    assert len(completions_server.refusals) == (0 if "json_schema" in forms else 1 if "json_object" in forms else 2)
    for request in completions_server.requests:
        form = request.get("response_format")
        assert (form and {"type": form["type"]}) == sent
        in_words = '"suspect_instances"' in request["messages"][0]["content"]
        assert in_words == ("json_schema" not in forms)
    await model.close()


async def test_a_server_error_that_names_the_form_is_no_outage(completions_server: CompletionsServer) -> None:
    completions_server.script = [Fail(500, kind="response_format must be text"), Say(GOOD)]
    model = completions_server.model()
    assert (await model.turn("s", [UserTurn("why?")], schema=Hypothesis)).text == GOOD
    assert completions_server.requests[1]["response_format"] == {"type": "json_object"}
    await model.close()


async def test_a_request_that_fails_in_every_form_says_so(completions_server: CompletionsServer) -> None:
    """What is remembered is what was taken: the next question asks for the schema again."""
    completions_server.script = [Fail(400), Fail(400), Fail(400), Say(GOOD)]
    model = completions_server.model()
    with pytest.raises(PermanentError, match=r"refused the request \(400\)"):
        await model.turn("s", [UserTurn("why?")], schema=Hypothesis)
    await model.turn("s", [UserTurn("why?")], schema=Hypothesis)
    assert completions_server.requests[-1]["response_format"]["type"] == "json_schema"
    assert len(completions_server.requests) == 4
    await model.close()


async def test_parameters_a_server_does_not_know_are_left_out(completions_server: CompletionsServer) -> None:
    completions_server.unknown = {"max_tokens", "reasoning_effort"}
    model = OpenAiModel(KEY, model="m", base_url=f"{completions_server.url}/v1", effort="low", max_retries=0)
    await model.turn("s", [UserTurn("why?")])
    (sent,) = completions_server.requests
    assert sent["max_completion_tokens"] == 8000
    assert not {"max_tokens", "reasoning_effort"} & sent.keys()
    await model.close()


async def test_thoughts_in_front_of_an_answer_are_no_answer(completions_server: CompletionsServer) -> None:
    pieces: list[str] = []

    async def on_text(piece: str) -> None:
        pieces.append(piece)

    model = completions_server.model()
    for answer in (f"<think>\nhmm {{}}\n</think>\n\n{GOOD}", GOOD, "<b>no thought</b>"):
        completions_server.script = [Say(answer)]
        pieces.clear()
        for streamed in (None, on_text):
            said = await model.turn("s", [UserTurn("why?")], on_text=streamed)
            assert said.text == answer.rpartition("</think>\n\n")[2]
        assert "".join(pieces) == said.text
    await model.close()


async def test_an_account_without_credit_is_no_rate_limit(completions_server: CompletionsServer) -> None:
    completions_server.script = [Fail(429, kind="insufficient_quota")]
    model = completions_server.model()
    with pytest.raises(PermanentError, match="no credit left"):
        await model.turn("s", [UserTurn("why?")])
    await model.close()


def test_which_format_is_spoken_where() -> None:
    assert OpenAiModel(KEY).speaks == "responses"
    assert OpenAiModel(KEY, base_url="https://eu.api.openai.com/v1").speaks == "responses"
    assert OpenAiModel(KEY, base_url="https://x.openai.azure.com/openai/v1/").speaks == "responses"
    assert OpenAiModel("", base_url="http://127.0.0.1:11434/v1").speaks == "completions"
    assert OpenAiModel(KEY, base_url="https://evil-openai.com/v1").speaks == "completions"
    assert OpenAiModel("", base_url="http://127.0.0.1:8000/v1", api="responses").speaks == "responses"


def test_the_schema_of_a_hypothesis_is_one_that_strict_mode_takes() -> None:
    assert wrong_schema(dict(strict_schema(Hypothesis))) == ""
    assert "maxLength: 600" in json.dumps(strict_schema(Hypothesis))
