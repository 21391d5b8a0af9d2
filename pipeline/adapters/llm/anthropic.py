"""Claude as a diagnostician, through the Anthropic SDK."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Awaitable, Sequence
from dataclasses import dataclass, field
from typing import Literal, TypeVar

import anthropic
from anthropic.types import Message, MessageParam, OutputConfigParam

from pipeline.adapters.llm.checks import InvalidReply, checked_reply, parse_hypothesis
from pipeline.adapters.llm.prompts import Prompt, diagnosis_prompt, neutralise, reply_prompt
from pipeline.domain.diagnosis import Hypothesis
from pipeline.domain.errors import PermanentError, TemporaryError
from pipeline.domain.trace import JsonValue
from pipeline.ports.model import Answer, Diagnostician, Question

DEFAULT_MODEL = "claude-sonnet-5-5"
DEFAULT_BASE_URL = "https://api.anthropic.com"
MAX_TOKENS = 8000
"""Room for the thinking of the model as well; a hypothesis takes about 600."""

Effort = Literal["low", "medium", "high", "xhigh", "max"]
T = TypeVar("T")


@dataclass(slots=True)
class _Exchange:
    """What was sent and what came back, as the trace keeps it."""

    prompt: Prompt
    usage: dict[str, JsonValue] = field(default_factory=lambda: {"input_tokens": 0, "output_tokens": 0})
    reply: str = ""
    stop_reason: str = ""
    refused: list[JsonValue] = field(default_factory=list)
    """Replies that were no hypothesis, each with what was wrong."""

    def took(self, message: Message) -> None:
        usage = message.usage
        sent = usage.input_tokens + (usage.cache_creation_input_tokens or 0) + (usage.cache_read_input_tokens or 0)
        self._add("input_tokens", sent)
        self._add("output_tokens", usage.output_tokens)
        self.reply = "".join(block.text for block in message.content if block.type == "text")
        self.stop_reason = message.stop_reason or ""

    def _add(self, name: str, tokens: int) -> None:
        before = self.usage[name]
        self.usage[name] = tokens + (before if isinstance(before, int) else 0)


class AnthropicDiagnostician(Diagnostician):
    """Asks one model with one overall deadline, ``deadline_s``; the SDK's own timeouts do not bound a slow drip."""

    def __init__(
        self,
        api_key: str,
        *,
        model: str = DEFAULT_MODEL,
        base_url: str = DEFAULT_BASE_URL,
        deadline_s: float = 60.0,
        effort: Effort = "medium",
        max_retries: int = 1,
    ) -> None:
        self._model = model
        self._deadline_s = deadline_s
        self._effort: Effort = effort
        self._client = anthropic.AsyncAnthropic(
            api_key=api_key, base_url=base_url, max_retries=max_retries, timeout=deadline_s
        )

    @property
    def name(self) -> str:
        return self._model

    async def diagnose(self, question: Question) -> Answer:
        """Asks for a hypothesis; a reply that is none gets one chance to be repaired."""
        exchange = _Exchange(diagnosis_prompt(question))
        started = time.monotonic()
        hypothesis = await self._bounded(self._hypothesis(question, exchange))
        return Answer(
            hypothesis,
            self._model,
            {
                "model": self._model,
                "prompt": {"system": exchange.prompt.system, "user": exchange.prompt.user},
                "reply": exchange.reply,
                "refused_replies": exchange.refused,
                "usage": exchange.usage,
                "stop_reason": exchange.stop_reason,
                "latency_ms": round((time.monotonic() - started) * 1000),
            },
        )

    async def reply(self, question: Question, asked: str) -> str:
        """Answers from the evidence; ids that do not exist are taken out of the answer."""
        exchange = _Exchange(reply_prompt(question, asked))
        await self._bounded(self._ask(exchange, [{"role": "user", "content": exchange.prompt.user}], {}))
        if not exchange.reply.strip():
            raise TemporaryError(f"{self._model} gave an empty answer ({exchange.stop_reason or 'no reason given'})")
        return checked_reply(exchange.reply, question.evidence)

    async def close(self) -> None:
        await self._client.close()

    async def _hypothesis(self, question: Question, exchange: _Exchange) -> Hypothesis:
        schema: OutputConfigParam = {
            "format": {"type": "json_schema", "schema": anthropic.transform_schema(Hypothesis)},
        }
        messages: list[MessageParam] = [{"role": "user", "content": exchange.prompt.user}]
        await self._ask(exchange, messages, schema)
        try:
            return parse_hypothesis(exchange.reply, question, check_citations=True)
        except InvalidReply as error:
            exchange.refused.append({"reply": exchange.reply, "why": str(error)})
            messages += _repair(exchange.reply, exchange.stop_reason, str(error))
        await self._ask(exchange, messages, schema)
        try:
            return parse_hypothesis(exchange.reply, question, check_citations=False)
        except InvalidReply as error:
            why = neutralise(str(error), 200)
            raise PermanentError(f"{self._model} gave no usable hypothesis in two tries: {why}") from error

    async def _ask(self, exchange: _Exchange, messages: Sequence[MessageParam], output: OutputConfigParam) -> None:
        message = await self._client.messages.create(
            model=self._model,
            max_tokens=MAX_TOKENS,
            system=exchange.prompt.system,
            messages=messages,
            output_config={"effort": self._effort, **output},
        )
        try:
            exchange.took(message)
        # The SDK hands on whatever came with a 200, a proxy's page too, without checking its form.
        except (AttributeError, TypeError) as error:
            raise TemporaryError("the Anthropic API gave an answer that cannot be read: no message in it") from error
        if message.stop_reason == "refusal":
            raise PermanentError(f"{self._model} declined to answer this question")

    async def _bounded(self, asking: Awaitable[T]) -> T:
        """Waits at most the deadline, and turns the SDK's errors into ours with one line of what to do."""
        try:
            return await asyncio.wait_for(asking, self._deadline_s)
        except (TimeoutError, anthropic.APITimeoutError) as error:
            raise TemporaryError(f"{self._model} did not answer within {self._deadline_s:g} s") from error
        except anthropic.APIStatusError as error:
            raise self._refused(error) from error
        except anthropic.APIConnectionError as error:
            raise TemporaryError(f"the Anthropic API cannot be reached: {_line(error.__cause__ or error)}") from error
        except (anthropic.AnthropicError, json.JSONDecodeError) as error:
            raise TemporaryError(f"the Anthropic API gave an answer that cannot be read: {_line(error)}") from error

    def _refused(self, error: anthropic.APIStatusError) -> PermanentError | TemporaryError:
        match error.status_code:
            case 401 | 403:
                return PermanentError(
                    f"the Anthropic API refused the key ({error.status_code}): check ANTHROPIC_API_KEY"
                )
            case 402:
                return PermanentError("the Anthropic account has no credit left (402): see its billing page")
            case 404:
                return PermanentError(
                    f"the Anthropic API knows no model {self._model} (404): name one that is not retired"
                )
            case 408 | 409 | 429:
                what = f"the Anthropic API asks to wait ({error.status_code})"
                return TemporaryError(what, retry_after_s=_retry_after_s(error))
            case status if status >= 500:
                what = "is overloaded" if status == 529 else "fails"
                return TemporaryError(f"the Anthropic API {what} ({status})", retry_after_s=_retry_after_s(error))
            case status:
                return PermanentError(f"the Anthropic API refused the request ({status}): {_line(error)}")


def _repair(reply: str, stop_reason: str, why: str) -> list[MessageParam]:
    shorter = " It was cut off: be shorter." if stop_reason == "max_tokens" else ""
    request = f"That is not a valid hypothesis: {neutralise(why, 500)}.{shorter} Reply once more, the whole of it."
    asked: MessageParam = {"role": "user", "content": request}
    # An empty turn is refused by the API; two turns of the user in a row are not.
    return [{"role": "assistant", "content": reply}, asked] if reply.strip() else [asked]


def _retry_after_s(error: anthropic.APIStatusError) -> float | None:
    """The header in seconds; its other form, a date, is not used by this API."""
    try:
        return max(0.0, float(error.response.headers.get("retry-after", "")))
    except ValueError:
        return None


def _line(error: BaseException) -> str:
    return neutralise(str(error) or type(error).__name__, 200)
