"""Claude through the Anthropic SDK: one turn of a conversation at a time, in the Messages wire format."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import cache
from typing import Any, Literal, cast

import anthropic
import httpx2
from anthropic.types import (
    ContentBlockParam,
    Message,
    MessageParam,
    OutputConfigParam,
    ToolParam,
    ToolResultBlockParam,
)
from pydantic import BaseModel

from pipeline.adapters.llm.api_errors import status_error, tried_again, unreachable, unreadable
from pipeline.adapters.llm.chat import ChatModel, Conversation, ModelTurn, Stop, ToolCall, ToolTurn, Usage, UserTurn
from pipeline.adapters.llm.models import DEFAULT_ANTHROPIC
from pipeline.domain.errors import PermanentError, TemporaryError
from pipeline.ports.model import OnText
from pipeline.ports.toolbox import ToolSpec

DEFAULT_BASE_URL = "https://api.anthropic.com"
MAX_TOKENS = 8000
"""Room for the thinking of the model as well; a hypothesis takes about 1,000."""
API = "the Anthropic API"

Effort = Literal["low", "medium", "high", "xhigh", "max"]

_STOPS: dict[str, Stop] = {
    "tool_use": "tools",
    "refusal": "refusal",
    "max_tokens": "length",
    "model_context_window_exceeded": "length",
}
_STATUS_OF_TYPE = {"overloaded_error": 529, "rate_limit_error": 429, "api_error": 500, "timeout_error": 504}
"""An error inside a stream comes with a 200; its type tells what it is."""


class AnthropicModel(ChatModel):
    """``timeout_s`` bounds one attempt's silence only: whoever asks puts a deadline around the whole.

    ``max_retries``: how often more a request is tried that the API could not take just then, where the wait is short.

    Sampling parameters, prefill, forced tools and thinking budgets are never sent: Sonnet 5.5 answers 400 to them.
    ``effort`` is left out from the first 400 on that names it: older models know none.
    """

    def __init__(
        self,
        api_key: str,
        *,
        model: str = DEFAULT_ANTHROPIC,
        base_url: str = "",
        effort: Effort = "medium",
        timeout_s: float = 60.0,
        max_retries: int = 1,
    ) -> None:
        self._model = model
        self._key = api_key
        self._effort: Effort | None = effort
        self._max_retries = max_retries
        self._client = anthropic.AsyncAnthropic(
            api_key=api_key, base_url=base_url or DEFAULT_BASE_URL, max_retries=0, timeout=timeout_s
        )

    @property
    def name(self) -> str:
        return self._model

    async def turn(
        self,
        system: str,
        conversation: Conversation,
        *,
        tools: Sequence[ToolSpec] = (),
        may_call: bool = True,
        schema: type[BaseModel] | None = None,
        on_text: OnText | None = None,
    ) -> ModelTurn:
        async def ask(telling: OnText | None) -> ModelTurn:
            return await self._turn(system, conversation, tools, may_call, schema, telling)

        return await tried_again(ask, on_text, self._max_retries)

    async def close(self) -> None:
        await self._client.close()

    async def _turn(
        self,
        system: str,
        conversation: Conversation,
        tools: Sequence[ToolSpec],
        may_call: bool,
        schema: type[BaseModel] | None,
        on_text: OnText | None,
    ) -> ModelTurn:
        while True:
            request = self._request(system, conversation, tools, may_call, schema)
            try:
                return await self._asked(request, on_text)
            except anthropic.BadRequestError as error:
                if "effort" not in str(error) or "effort" not in (request["output_config"] or {}):
                    raise self._refused(error) from error
                self._effort = None
            except anthropic.APITimeoutError as error:
                raise TemporaryError(f"{API} was silent for too long") from error
            except anthropic.APIStatusError as error:
                raise self._refused(error) from error
            except (anthropic.APIConnectionError, httpx2.TransportError) as error:
                raise unreachable(API, error) from error
            except (anthropic.AnthropicError, json.JSONDecodeError, UnicodeDecodeError) as error:
                raise unreadable(API, self._said(error)) from error

    def _request(
        self,
        system: str,
        conversation: Conversation,
        tools: Sequence[ToolSpec],
        may_call: bool,
        schema: type[BaseModel] | None,
    ) -> dict[str, Any]:
        output: OutputConfigParam = {}
        if self._effort is not None:
            output["effort"] = self._effort
        if schema is not None:
            output["format"] = {"type": "json_schema", "schema": _schema(schema)}
        return {
            "model": self._model,
            "max_tokens": MAX_TOKENS,
            "system": [{"type": "text", "text": system, "cache_control": {"type": "ephemeral"}}],
            "messages": _messages(conversation),
            "tools": [_tool(spec) for spec in tools] if tools else anthropic.omit,
            "tool_choice": {"type": "none"} if tools and not may_call else anthropic.omit,
            "output_config": output or anthropic.omit,
        }

    async def _asked(self, request: dict[str, Any], on_text: OnText | None) -> ModelTurn:
        written: dict[int, str] = {}
        if on_text is None:
            message = await self._client.messages.create(**request)
        else:
            message = await self._streamed(request, on_text, written)
        try:
            return _turn(message, written)
        # The SDK hands on whatever came with a 200, a proxy's page too, without checking its form.
        except (AttributeError, TypeError) as error:
            raise unreadable(API, "no message in it") from error

    async def _streamed(self, request: dict[str, Any], on_text: OnText, written: dict[int, str]) -> Message:
        """``written`` gets the arguments of tools as the model wrote them, by the number of their block."""
        async with self._client.messages.stream(**request) as stream:
            whole = False
            try:
                async for event in stream:
                    if event.type == "text":
                        await on_text(event.text)
                    elif event.type == "content_block_delta" and event.delta.type == "input_json_delta":
                        written[event.index] = written.get(event.index, "") + event.delta.partial_json
                    whole = whole or event.type == "message_stop"
            # Events in an order, or with arguments, that the SDK cannot put together.
            except (RuntimeError, ValueError, AttributeError, IndexError, TypeError) as error:
                raise unreadable(API, self._said(error)) from error
            if not whole:
                raise unreadable(API, "it broke off before its end")
            return await stream.get_final_message()

    def _refused(self, error: anthropic.APIStatusError) -> PermanentError | TemporaryError:
        status = error.status_code
        if status < 400:
            status = _STATUS_OF_TYPE.get(str(error.type), 500)
        return status_error(API, "ANTHROPIC_API_KEY", self._model, status, error.response.headers, self._said(error))

    def _said(self, error: Exception) -> str:
        return (str(error) or type(error).__name__).replace(self._key, "…")


def _turn(message: Message, written: dict[int, str]) -> ModelTurn:
    usage = message.usage
    cached = usage.cache_read_input_tokens or 0
    calls = tuple(
        ToolCall(block.id, block.name, written.get(number) or json.dumps(block.input))
        for number, block in enumerate(message.content)
        if block.type == "tool_use"
    )
    stop = _STOPS.get(message.stop_reason or "", "end")
    return ModelTurn(
        text="".join(block.text for block in message.content if block.type == "text"),
        calls=calls,
        stop="tools" if calls and stop == "end" else stop,
        usage=Usage(
            sent=usage.input_tokens + (usage.cache_creation_input_tokens or 0) + cached,
            cached=cached,
            written=usage.output_tokens,
        ),
        # Thinking is signed and bound to its conversation: it goes back exactly as it came.
        wire=[block.to_dict(mode="json") for block in message.content],
    )


def _messages(conversation: Conversation) -> list[MessageParam]:
    """Turns of one side that follow each other become one message, as results of tools must stand first in theirs."""
    sides: list[tuple[bool, list[ContentBlockParam]]] = []
    for number, turn in enumerate(conversation):
        blocks = _blocks(turn, first=number == 0)
        by_model = isinstance(turn, ModelTurn)
        if sides and sides[-1][0] == by_model:
            sides[-1][1].extend(blocks)
        # An empty message is refused by the API.
        elif blocks:
            sides.append((by_model, blocks))
    return [
        {"role": "assistant", "content": blocks} if by_model else {"role": "user", "content": blocks}
        for by_model, blocks in sides
    ]


def _blocks(turn: UserTurn | ModelTurn | ToolTurn, *, first: bool) -> list[ContentBlockParam]:
    match turn:
        case UserTurn(text) if first:
            return [{"type": "text", "text": text, "cache_control": {"type": "ephemeral"}}]
        case UserTurn(text):
            return [{"type": "text", "text": text}]
        case ToolTurn(results):
            return [_result(*result) for result in results]
        case ModelTurn(wire=wire):
            return list(cast(list[ContentBlockParam], wire))


def _result(call_id: str, text: str, is_error: bool) -> ToolResultBlockParam:
    return {"type": "tool_result", "tool_use_id": call_id, "content": text, "is_error": is_error}


def _tool(spec: ToolSpec) -> ToolParam:
    return {"name": spec.name, "description": spec.description, "input_schema": _schema(spec.arguments)}


@cache
def _schema(form: type[BaseModel]) -> dict[str, object]:
    return anthropic.transform_schema(form)
