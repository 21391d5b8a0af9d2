"""Claude: what the Messages wire format alone has, against a server that speaks it."""

from __future__ import annotations

import json

import pytest

from pipeline.adapters.llm.chat import Conversation, ModelTurn, ToolTurn, Usage, UserTurn
from pipeline.adapters.llm.models import DEFAULT_ANTHROPIC
from pipeline.domain.diagnosis import Hypothesis
from pipeline.domain.errors import PermanentError
from tests.contract.llm.anthropic_server import NOT_TAKEN, THINKING, AnthropicServer
from tests.contract.llm.suite import GOOD, KEY, FakeTools, Say

CALLS = (("read_logs", '{"service": "a"}'), ("read_logs", '{"service": "b"}'))


async def test_what_is_sent(anthropic_server: AnthropicServer) -> None:
    model = anthropic_server.model()
    specs = FakeTools().specs
    turn = await model.turn("be brief", [UserTurn("why?")], tools=specs, schema=Hypothesis)
    assert turn.usage == Usage(sent=1500, cached=300, written=150)
    assert (turn.text, turn.calls, turn.stop) == (GOOD, (), "end")
    (sent,) = anthropic_server.requests
    assert anthropic_server.headers[0]["authorization"] == f"Bearer {KEY}"
    assert sent["model"] == model.name == DEFAULT_ANTHROPIC
    cached = {"cache_control": {"type": "ephemeral"}}
    assert sent["system"] == [{"type": "text", "text": "be brief", **cached}]
    assert sent["messages"] == [{"role": "user", "content": [{"type": "text", "text": "why?", **cached}]}]
    assert sent["output_config"]["effort"] == "medium"
    form = sent["output_config"]["format"]
    assert form["type"] == "json_schema"
    assert form["schema"]["properties"].keys() == Hypothesis.model_fields.keys()
    assert sent["tools"][0]["input_schema"]["required"] == ["service"]
    assert not (NOT_TAKEN | {"tool_choice", "stream"}) & sent.keys()
    await model.close()


@pytest.mark.parametrize("streamed", [False, True])
async def test_a_conversation_with_tools_goes_back_as_it_came(
    anthropic_server: AnthropicServer, streamed: bool
) -> None:
    pieces: list[str] = []

    async def on_text(piece: str) -> None:
        pieces.append(piece)

    model = anthropic_server.model()
    specs = FakeTools().specs
    anthropic_server.script = [Say("Let me see.", calls=CALLS), Say("It is a.")]
    said = await model.turn("s", [UserTurn("why?")], tools=specs, on_text=on_text if streamed else None)
    assert said.stop == "tools"
    assert [json.loads(call.arguments) for call in said.calls] == [{"service": "a"}, {"service": "b"}]
    assert "".join(pieces) == ("Let me see." if streamed else "")
    results = ToolTurn((("toolu_0", "a is fine", False), ("toolu_1", "b was not found", True)))
    conversation: Conversation = [UserTurn("why?"), said, results, UserTurn("Answer now.")]
    last = await model.turn("s", conversation, tools=specs, may_call=False)
    assert last.text == "It is a."
    sent = anthropic_server.requests[1]
    assert sent["tool_choice"] == {"type": "none"}
    user, assistant, more = sent["messages"]
    assert [block["type"] for block in assistant["content"]] == ["thinking", "text", "tool_use", "tool_use"]
    assert assistant["content"][0] == THINKING
    assert [block["type"] for block in more["content"]] == ["tool_result", "tool_result", "text"]
    assert [block.get("is_error") for block in more["content"]] == [False, True, None]
    assert user["role"] == more["role"] == "user"
    await model.close()


async def test_arguments_are_handed_on_as_they_were_written(anthropic_server: AnthropicServer) -> None:
    """In a stream a key that stands twice is seen; the box refuses it. What is no JSON at all is no answer."""
    twice = '{"service": "a", "service": "b"}'
    anthropic_server.script = [Say(calls=(("read_logs", twice),))]
    model = anthropic_server.model()

    async def on_text(_: str) -> None:
        return

    turn = await model.turn("s", [UserTurn("why?")], tools=FakeTools().specs, on_text=on_text)
    assert turn.calls[0].arguments == twice
    await model.close()


async def test_a_turn_of_nothing_is_not_sent_back(anthropic_server: AnthropicServer) -> None:
    model = anthropic_server.model()
    nothing = ModelTurn("", (), "end", Usage(), wire=[])
    await model.turn("s", [UserTurn("why?"), nothing, UserTurn("once more")])
    (message,) = anthropic_server.requests[0]["messages"]
    assert [block["text"] for block in message["content"]] == ["why?", "once more"]
    await model.close()


async def test_a_model_without_effort_is_asked_without_it_from_then_on(anthropic_server: AnthropicServer) -> None:
    anthropic_server.effort_taken = False
    model = anthropic_server.model()
    for _ in range(2):
        assert (await model.turn("s", [UserTurn("why?")], schema=Hypothesis)).text == GOOD
    assert len(anthropic_server.refusals) == 1
    assert all("effort" not in request["output_config"] for request in anthropic_server.requests)
    await model.close()


async def test_stops(anthropic_server: AnthropicServer) -> None:
    model = anthropic_server.model()
    for said, stop in ((Say("x", stop="length"), "length"), (Say("no", stop="refusal"), "refusal"), (Say("x"), "end")):
        anthropic_server.script = [said]
        assert (await model.turn("s", [UserTurn("why?")])).stop == stop
    await model.close()


async def test_a_conversation_the_api_would_refuse_is_named(anthropic_server: AnthropicServer) -> None:
    """The server of these tests is as strict as the real one: calls without results are a 400."""
    model = anthropic_server.model()
    anthropic_server.script = [Say(calls=CALLS)]
    said = await model.turn("s", [UserTurn("why?")], tools=FakeTools().specs)
    with pytest.raises(PermanentError, match="without tool_result blocks"):
        await model.turn("s", [UserTurn("why?"), said, UserTurn("and?")], tools=FakeTools().specs)
    results = ToolTurn((("toolu_0", "", False), ("toolu_1", "", False)))
    with pytest.raises(PermanentError, match="must define tools"):
        await model.turn("s", [UserTurn("why?"), said, results])
    await model.close()
