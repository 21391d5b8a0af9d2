"""The Chat Completions wire format, which most servers that call themselves OpenAI-compatible speak."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, cast

import openai
from openai.types import CompletionUsage
from openai.types.chat import ChatCompletionChunk, ChatCompletionFunctionToolParam, ChatCompletionMessageParam
from pydantic import BaseModel

from pipeline.adapters.llm.api_errors import unreadable
from pipeline.adapters.llm.chat import Conversation, ModelTurn, Stop, ToolCall, ToolTurn, Usage, UserTurn
from pipeline.adapters.llm.openai_wire import MAX_TOKENS, Asked, Takes
from pipeline.adapters.llm.strict_schema import strict_schema
from pipeline.ports.model import OnText
from pipeline.ports.toolbox import ToolSpec

_THOUGHTS = re.compile(r"^\s*<think>.*?</think>\s*", re.DOTALL)
"""Some servers leave a model's reasoning in front of its answer."""
_STOPS: dict[str, Stop] = {"length": "length", "content_filter": "refusal"}


async def ask(client: openai.AsyncOpenAI, asked: Asked, takes: Takes, on_text: OnText | None) -> ModelTurn:
    """One request."""
    request: dict[str, Any] = {
        "model": asked.model,
        "messages": _messages(asked.instructions(takes), asked.conversation),
        takes.tokens_key: MAX_TOKENS,
        "response_format": _response_format(asked.schema, takes) if asked.schema is not None else openai.omit,
        "tools": [_tool(spec) for spec in asked.tools] if asked.tools else openai.omit,
        "tool_choice": "none" if asked.tools and not asked.may_call else openai.omit,
        "reasoning_effort": takes.effort if takes.effort is not None else openai.omit,
    }
    said = _Said()
    if on_text is None:
        completion = await client.chat.completions.create(**request)
        choice = completion.choices[0]
        message = choice.message
        said.texts = [message.content or ""]
        said.refused = bool(message.refusal)
        said.calls = {
            number: [call.id, call.function.name, call.function.arguments]
            for number, call in enumerate(message.tool_calls or ())
            if call.type == "function"
        }
        said.finished, said.usage = choice.finish_reason or "stop", completion.usage
    else:
        request["stream_options"] = {"include_usage": True} if takes.stream_usage else openai.omit
        async with await client.chat.completions.create(stream=True, **request) as stream:
            async for chunk in stream:
                if piece := said.take(chunk):
                    await on_text(piece)
    if not said.finished:
        raise unreadable(asked.api, "it broke off before its end")
    return said.turn()


@dataclass(slots=True)
class _Said:
    """An answer as it comes together, whole or in chunks."""

    texts: list[str] = field(default_factory=list)
    calls: dict[int, list[str]] = field(default_factory=dict)
    """Id, name and arguments by position."""
    refused: bool = False
    finished: str = ""
    usage: CompletionUsage | None = None
    given: int = 0
    """Characters handed on so far."""

    def take(self, chunk: ChatCompletionChunk) -> str:
        """Adds a chunk; gives the text to hand on, without thoughts in front of the answer."""
        self.usage = chunk.usage or self.usage
        if not chunk.choices:
            return ""
        choice = chunk.choices[0]
        self.finished = choice.finish_reason or self.finished
        self.refused = self.refused or bool(choice.delta.refusal)
        for piece in choice.delta.tool_calls or ():
            call = self.calls.setdefault(piece.index, ["", "", ""])
            call[0] = piece.id or call[0]
            if piece.function is not None:
                call[1] += piece.function.name or ""
                call[2] += piece.function.arguments or ""
        self.texts.append(choice.delta.content or "")
        whole = "".join(self.texts)
        begun = whole.lstrip()[: len("<think>")]
        if "</think>" not in whole and begun and "<think>".startswith(begun):
            return ""
        shown = _THOUGHTS.sub("", whole)
        new, self.given = shown[self.given :], len(shown)
        return new

    def turn(self) -> ModelTurn:
        # Some servers give calls no id.
        calls = tuple(
            ToolCall(call_id or f"call_{number}", name, arguments)
            for number, (call_id, name, arguments) in sorted(self.calls.items())
        )
        stop: Stop = "refusal" if self.refused else _STOPS.get(self.finished, "tools" if calls else "end")
        text = _THOUGHTS.sub("", "".join(self.texts))
        return ModelTurn(text, calls, stop, self._used(), _wire(text, calls))

    def _used(self) -> Usage:
        if self.usage is None:
            return Usage()
        details = self.usage.prompt_tokens_details
        cached = (details.cached_tokens if details is not None else None) or 0
        return Usage(self.usage.prompt_tokens, cached, self.usage.completion_tokens)


def _wire(text: str, calls: Sequence[ToolCall]) -> dict[str, object]:
    message: dict[str, object] = {"role": "assistant", "content": text}
    if calls:
        message["tool_calls"] = [
            {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.arguments}}
            for call in calls
        ]
    return message


def _messages(system: str, conversation: Conversation) -> list[ChatCompletionMessageParam]:
    messages: list[ChatCompletionMessageParam] = [{"role": "system", "content": system}]
    for turn in conversation:
        match turn:
            case UserTurn(text):
                messages.append({"role": "user", "content": text})
            case ToolTurn(results):
                for call_id, text, is_error in results:
                    content = f"error: {text}" if is_error else text
                    messages.append({"role": "tool", "tool_call_id": call_id, "content": content})
            case ModelTurn(wire=wire):
                messages.append(cast(ChatCompletionMessageParam, wire))
    return messages


def _response_format(schema: type[BaseModel], takes: Takes) -> object:
    match takes.format:
        case "json_schema":
            form = {"name": schema.__name__, "schema": strict_schema(schema), "strict": True}
            return {"type": "json_schema", "json_schema": form}
        case "json_object":
            return {"type": "json_object"}
        case "text":
            return openai.omit


def _tool(spec: ToolSpec) -> ChatCompletionFunctionToolParam:
    parameters = strict_schema(spec.arguments)
    return {
        "type": "function",
        "function": {"name": spec.name, "description": spec.description, "parameters": parameters},
    }
