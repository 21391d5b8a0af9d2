"""What every language model is to us: one turn of a conversation with tools. The wire formats stay in the adapters."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from pydantic import BaseModel

from pipeline.ports.model import OnText
from pipeline.ports.toolbox import ToolSpec

Stop = Literal["end", "tools", "length", "refusal"]


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A tool the model wants to be called. ``arguments`` is JSON text as it wrote it, checked by nobody yet."""

    id: str
    name: str
    arguments: str


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens of one turn. ``sent`` counts all of the prompt, ``cached`` the part of it that was read from a cache."""

    sent: int = 0
    cached: int = 0
    written: int = 0


@dataclass(frozen=True, slots=True)
class UserTurn:
    """Something said to the model."""

    text: str


@dataclass(frozen=True, slots=True)
class ModelTurn:
    """What the model said. ``wire`` is the adapter's own form of it, sent back as it came in the next turn."""

    text: str
    calls: tuple[ToolCall, ...]
    stop: Stop
    usage: Usage
    wire: object = None


@dataclass(frozen=True, slots=True)
class ToolTurn:
    """The results of the calls of the turn before, as (call id, text, is an error)."""

    results: tuple[tuple[str, str, bool], ...]


Conversation = Sequence[UserTurn | ModelTurn | ToolTurn]


class ChatModel(Protocol):
    """A language model behind an API."""

    @property
    def name(self) -> str:
        """The model's id."""
        ...

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
        """One request. ``schema``: the form that a final answer must have. ``on_text`` streams what is written.

        ``may_call`` False: the tools are still named, as APIs want them when a conversation has used some, but none may
        be called; the answer is due.

        Raises TemporaryError (overloaded, unreachable, unreadable) or PermanentError (key, model, request refused),
        with what to do. A refusal by the model is a turn with ``stop`` refusal, not an error.
        """
        ...

    async def close(self) -> None:
        """Releases connections."""
        ...
