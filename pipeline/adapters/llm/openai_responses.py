"""The Responses wire format: what is sent, and how an answer is read."""

from __future__ import annotations

from typing import Any, cast

import openai
from openai.types.responses import (
    FunctionToolParam,
    Response,
    ResponseInputItemParam,
    ResponseTextConfigParam,
)

from pipeline.adapters.llm.api_errors import unreadable
from pipeline.adapters.llm.chat import Conversation, ModelTurn, Stop, ToolCall, ToolTurn, Usage, UserTurn
from pipeline.adapters.llm.openai_wire import MAX_TOKENS, Asked, Takes
from pipeline.adapters.llm.strict_schema import strict_schema
from pipeline.domain.errors import PermanentError, TemporaryError
from pipeline.ports.model import OnText
from pipeline.ports.toolbox import ToolSpec

_COMES_BACK = ("server_error", "rate_limit_exceeded")
_ENDS = ("response.completed", "response.incomplete", "response.failed")


async def ask(client: openai.AsyncOpenAI, asked: Asked, takes: Takes, on_text: OnText | None) -> ModelTurn:
    """One request. Nothing is stored at the server: the conversation is sent whole, the model's reasoning sealed."""
    text: ResponseTextConfigParam = {}
    if asked.schema is not None:
        match takes.format:
            case "json_schema":
                form = strict_schema(asked.schema)
                text["format"] = {"type": "json_schema", "name": asked.schema.__name__, "schema": form, "strict": True}
            case "json_object":
                text["format"] = {"type": "json_object"}
            case "text":
                pass
    request: dict[str, Any] = {
        "model": asked.model,
        "instructions": asked.instructions(takes),
        "input": _items(asked.conversation),
        "max_output_tokens": MAX_TOKENS,
        "store": False,
        "text": text or openai.omit,
        "tools": [_tool(spec) for spec in asked.tools] if asked.tools else openai.omit,
        "tool_choice": "none" if asked.tools and not asked.may_call else openai.omit,
        "reasoning": {"effort": takes.effort} if takes.effort is not None else openai.omit,
    }
    response: Response | None = None
    if on_text is None:
        response = await client.responses.create(**request)
    else:
        async with await client.responses.create(stream=True, **request) as stream:
            async for event in stream:
                if event.type == "response.output_text.delta":
                    await on_text(event.delta)
                elif event.type == "error":
                    raise TemporaryError(f"{asked.api} fails: {event.code or 'no code'}")
                elif event.type in _ENDS:
                    response = event.response
    if response is None:
        raise unreadable(asked.api, "it broke off before its end")
    return _turn(response, asked.api)


def _turn(response: Response, api: str) -> ModelTurn:
    texts: list[str] = []
    calls: list[ToolCall] = []
    stop: Stop = "end"
    for item in response.output:
        if item.type == "message":
            for part in item.content:
                if part.type == "output_text":
                    texts.append(part.text)
                else:
                    stop = "refusal"
        elif item.type == "function_call":
            calls.append(ToolCall(item.call_id, item.name, item.arguments))
    if response.status == "failed":
        code = response.error.code if response.error is not None else "no code"
        kind = TemporaryError if code in _COMES_BACK else PermanentError
        raise kind(f"{api} fails: {code}")
    if response.status == "incomplete":
        why = response.incomplete_details.reason if response.incomplete_details is not None else None
        stop = "refusal" if why == "content_filter" else "length"
    elif calls and stop == "end":
        stop = "tools"
    usage = Usage()
    if response.usage is not None:
        details = response.usage.input_tokens_details
        usage = Usage(response.usage.input_tokens, details.cached_tokens or 0, response.usage.output_tokens)
    return ModelTurn("".join(texts), tuple(calls), stop, usage, _sendable(response))


def _sendable(response: Response) -> list[dict[str, Any]]:
    """The answer's items as they go back; unsealed reasoning stays out: a server that keeps nothing refuses it."""
    items = [item.to_dict(mode="json") for item in response.output]
    if all(item.get("encrypted_content") for item in items if item["type"] == "reasoning"):
        return items
    kept: list[dict[str, Any]] = []
    for item in items:
        if item["type"] == "message":
            text = "".join(str(part.get("text", "")) for part in cast(list[dict[str, object]], item["content"]))
            kept.append({"role": "assistant", "content": text})
        elif item["type"] == "function_call":
            kept.append({key: item[key] for key in ("type", "call_id", "name", "arguments")})
    return kept


def _items(conversation: Conversation) -> list[ResponseInputItemParam]:
    items: list[ResponseInputItemParam] = []
    for turn in conversation:
        match turn:
            case UserTurn(text):
                items.append({"role": "user", "content": text})
            case ToolTurn(results):
                for call_id, text, is_error in results:
                    output = f"error: {text}" if is_error else text
                    items.append({"type": "function_call_output", "call_id": call_id, "output": output})
            case ModelTurn(wire=wire):
                items += cast(list[ResponseInputItemParam], wire)
    return items


def _tool(spec: ToolSpec) -> FunctionToolParam:
    return {
        "type": "function",
        "name": spec.name,
        "description": spec.description,
        "parameters": strict_schema(spec.arguments),
        "strict": True,
    }
