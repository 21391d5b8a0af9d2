"""One conversation with a model: turns, tools, and the limits on both, with a record of everything for the trace."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from pydantic import BaseModel

from pipeline.adapters.llm.chat import ChatModel, ModelTurn, ToolCall, ToolTurn, Usage, UserTurn
from pipeline.adapters.llm.models import cost_usd
from pipeline.adapters.llm.prompts import Prompt, Wording, tokens
from pipeline.domain.errors import PermanentError, TemporaryError
from pipeline.domain.trace import JsonValue
from pipeline.ports.model import GaveNoAnswer, GaveNoUsableAnswer, OnText
from pipeline.ports.toolbox import Toolbox

T = TypeVar("T")
ARGUMENTS_CHARS = 2000
"""Of a call's arguments, as the trace keeps them."""


CALLS_A_TURN = 8
"""More in one turn is a flood: what is over it is refused unread."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What one answer may take.

    Tools are withdrawn when the slowest turn so far would not fit twice more into ``deadline_s``, for the answer has to
    fit as well. So a model that needs 8 s a turn has two turns with tools and answers at 24 s; a faster one gets
    ``max_rounds``.
    """

    deadline_s: float = 28.0
    """For everything: the SDKs' own timeouts do not bound a slow drip."""
    max_rounds: int = 4
    """Turns in which tools may be called."""
    budget_tokens: int = 120_000
    """Of all turns together, sent and written."""
    evidence_tokens: int = 16_000
    """Of the evidence and documents in the first request; what is over it is compressed."""


DEFAULT_LIMITS = Limits()


@dataclass(slots=True)
class Talk:
    """``say`` and ``answer`` in turns. Nothing in it outlives one question."""

    model: ChatModel
    prompt: Prompt
    words: Wording
    limits: Limits
    tools: Toolbox | None = None
    conversation: list[UserTurn | ModelTurn | ToolTurn] = field(default_factory=list)
    refused: list[JsonValue] = field(default_factory=list)
    """Replies that could not be used, each with what was wrong."""
    failed: str = ""
    _turns: list[JsonValue] = field(default_factory=list)
    _sent: int = 0
    _cached: int = 0
    _written: int = 0
    _last_sent: int = 0
    _slowest_s: float = 0.0
    _rounds: int = 0
    _withdrawn: str = ""
    _started: float = field(default_factory=time.monotonic)

    def __post_init__(self) -> None:
        self.conversation.append(UserTurn(self.prompt.user))
        self._last_sent = tokens(self.prompt.system) + tokens(self.prompt.user)
        if self._last_sent > self.limits.budget_tokens:
            raise PermanentError(
                f"the evidence takes about {self._last_sent} tokens, more than the {self.limits.budget_tokens} that"
                " one answer may take: raise the budget or give less evidence"
            )

    @property
    def elapsed_s(self) -> float:
        return time.monotonic() - self._started

    @property
    def time_for_another(self) -> bool:
        """Whether one more turn, as slow as the slowest so far, ends before the deadline."""
        return self.elapsed_s + self._slowest_s <= self.limits.deadline_s

    def say(self, text: str) -> None:
        self.conversation.append(UserTurn(text))

    async def answer(
        self, *, schema: type[BaseModel] | None = None, on_text: OnText | None = None, with_tools: bool = True
    ) -> ModelTurn:
        """Lets the model call tools until it answers. Raises PermanentError when it declines or the budget is spent.

        A model that calls tools after they were withdrawn gets no results: what it wrote beside is its answer.
        """
        while True:
            self._withdrawn = self._why_no_tools() if with_tools else self._withdrawn or "the answer is due"
            may_call = not self._withdrawn
            if not may_call and isinstance(self.conversation[-1], ToolTurn):
                self.say("No more tools can be called. Answer now, from what you have.")
            turn = await self._turn(schema, on_text, may_call)
            if turn.stop == "refusal":
                raise PermanentError(f"{self.model.name} declined to answer this question")
            if not turn.calls:
                return turn
            results = await self._call(turn.calls) if may_call else _refused(turn.calls, "no more tools can be called")
            self._recorded({"results": [[call_id, text, is_error] for call_id, text, is_error in results]})
            self.conversation.append(ToolTurn(results))
            if not may_call:
                return turn
            self._rounds += 1

    def exchange(self) -> dict[str, JsonValue]:
        """Everything that was sent and came back, with what it took, for the trace."""
        last = self._turns[-1] if self._turns else {}
        ended = last if isinstance(last, dict) else {}
        return {
            "model": self.model.name,
            "prompt": {"system": self.prompt.system, "user": self.prompt.user},
            "dropped": list(self.prompt.dropped),
            "turns": self._turns,
            "tools_withdrawn": self._withdrawn,
            "reply": ended.get("text", ""),
            "stop_reason": ended.get("stop", ""),
            "refused_replies": self.refused,
            "failed": self.failed,
            "usage": {"input_tokens": self._sent, "cached_tokens": self._cached, "output_tokens": self._written},
            "cost_usd": cost_usd(self.model.name, self._sent, self._cached, self._written),
            "latency_ms": round(self.elapsed_s * 1000),
        }

    async def _turn(self, schema: type[BaseModel] | None, on_text: OnText | None, may_call: bool) -> ModelTurn:
        if self._sent + self._written >= self.limits.budget_tokens:
            raise PermanentError(f"{self.model.name} has used the {self.limits.budget_tokens} tokens of one answer")
        specs = () if self.tools is None else self.tools.specs
        started = time.monotonic()
        turn = await self.model.turn(
            self.prompt.system,
            self.conversation,
            tools=specs,
            may_call=may_call,
            schema=schema,
            on_text=on_text,
        )
        took_s = time.monotonic() - started
        self._slowest_s = max(self._slowest_s, took_s)
        self._count(turn.usage)
        self.conversation.append(turn)
        self._turns.append(
            {
                "text": turn.text,
                "stop": turn.stop,
                "may_call": may_call,
                "calls": [{"name": call.name, "arguments": call.arguments[:ARGUMENTS_CHARS]} for call in turn.calls],
                "tokens": {"sent": turn.usage.sent, "cached": turn.usage.cached, "written": turn.usage.written},
                "latency_ms": round(took_s * 1000),
            }
        )
        return turn

    def _count(self, usage: Usage) -> None:
        self._sent += usage.sent
        self._cached += usage.cached
        self._written += usage.written
        self._last_sent = max(self._last_sent, usage.sent)

    def _why_no_tools(self) -> str:
        limits, elapsed_s = self.limits, self.elapsed_s
        if self.tools is None or not self.tools.specs:
            return "there are none"
        if self._rounds >= limits.max_rounds:
            return f"{self._rounds} rounds were had"
        if elapsed_s + 2 * self._slowest_s > limits.deadline_s:
            return f"after {elapsed_s:.1f} s there is time for the answer only"
        if self._sent + self._written + 2 * self._last_sent > limits.budget_tokens:
            return "the tokens left are needed for the answer"
        return self.tools.exhausted

    async def _call(self, calls: Sequence[ToolCall]) -> tuple[tuple[str, str, bool], ...]:
        """Side by side; what is over the number for one turn is refused unread."""
        assert self.tools is not None
        run, over = calls[:CALLS_A_TURN], calls[CALLS_A_TURN:]
        results = await asyncio.gather(*(self.tools.call(call.name, call.arguments or "{}") for call in run))
        given = [
            (call.id, self.words.result(result), result.status in ("failed", "refused"))
            for call, result in zip(run, results, strict=True)
        ]
        return (*given, *_refused(over, f"at most {CALLS_A_TURN} calls are answered in one turn"))

    def _recorded(self, more: dict[str, JsonValue]) -> None:
        last = self._turns[-1]
        assert isinstance(last, dict)
        last.update(more)


def _refused(calls: Sequence[ToolCall], why: str) -> tuple[tuple[str, str, bool], ...]:
    return tuple((call.id, why, True) for call in calls)


async def bounded(talk: Talk, asking: Awaitable[T]) -> T:
    """Waits at most the deadline; an error takes with it what was exchanged."""
    try:
        return await asyncio.wait_for(asking, talk.limits.deadline_s)
    except (GaveNoAnswer, GaveNoUsableAnswer):
        raise
    except TimeoutError as error:
        talk.failed = f"{talk.model.name} did not answer within {talk.limits.deadline_s:g} s"
        raise GaveNoAnswer(talk.failed, talk.exchange()) from error
    except TemporaryError as error:
        talk.failed = str(error)
        raise GaveNoAnswer(talk.failed, talk.exchange(), error.retry_after_s) from error
    except PermanentError as error:
        talk.failed = str(error)
        raise GaveNoUsableAnswer(talk.failed, talk.exchange()) from error
