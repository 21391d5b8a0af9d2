"""Asking a diagnostician, a language model or the rules engine, and a second one about what the first said."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from pipeline.domain.anomaly import Anomaly
from pipeline.domain.diagnosis import Evidence, Hypothesis, Opinion, Passage
from pipeline.domain.errors import PermanentError, TemporaryError
from pipeline.domain.facts import Facts
from pipeline.domain.ids import ServiceName
from pipeline.domain.trace import JsonValue
from pipeline.ports.toolbox import Toolbox

OnText = Callable[[str], Awaitable[None]]
"""Takes the answer as it grows, piece by piece."""


@dataclass(frozen=True, slots=True)
class Question:
    """What a diagnostician is given: facts with ids, passages of runbooks, and tools to read more.

    ``evidence`` is what was read before asking; what ``tools`` read meanwhile stands in ``tools.evidence``.
    """

    service: ServiceName
    anomalies: Sequence[Anomaly]
    evidence: Sequence[Evidence]
    passages: Sequence[Passage]
    facts: Facts
    tools: Toolbox
    known: Hypothesis | None = None
    """What was diagnosed already: an answer explains that, and does not diagnose anew."""

    @property
    def read(self) -> tuple[Evidence, ...]:
        """All evidence so far: given, and read by tools since."""
        return (*self.evidence, *self.tools.evidence)


@dataclass(frozen=True, slots=True)
class Answer:
    """A hypothesis and how it came about. ``exchange`` (prompts, raw replies, tokens) goes to the trace."""

    hypothesis: Hypothesis
    source: str
    exchange: Mapping[str, JsonValue]
    shown: Mapping[str, str]
    """The text of each piece of evidence as the author was given it, by id: what may be cited, and quoted."""


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer to a person in plain text, and how it came about, for the trace."""

    text: str
    exchange: Mapping[str, JsonValue]


class GaveNoAnswer(TemporaryError):
    """The model could not be had now. ``exchange`` is what was sent and came back until then, for the trace."""

    def __init__(self, message: str, exchange: Mapping[str, JsonValue], retry_after_s: float | None = None) -> None:
        super().__init__(message, retry_after_s=retry_after_s)
        self.exchange = exchange


class GaveNoUsableAnswer(PermanentError):
    """The model answered, and not in a form that may be believed. ``exchange`` as above."""

    def __init__(self, message: str, exchange: Mapping[str, JsonValue]) -> None:
        super().__init__(message)
        self.exchange = exchange


class Diagnostician(Protocol):
    """Turns evidence into a hypothesis, or answers a person's question from it."""

    @property
    def name(self) -> str:
        """As the card shows it: ``rules`` or the model's id."""
        ...

    async def diagnose(self, question: Question) -> Answer:
        """Raises TemporaryError or PermanentError when there is no usable answer."""
        ...

    async def reply(self, question: Question, asked: str, on_text: OnText | None = None) -> Reply:
        """Answers ``asked`` from evidence, citing ids like ``[E1]``; plain text. It may use the tools, never act."""
        ...

    async def close(self) -> None:
        """Releases connections."""
        ...


class Reviewer(Protocol):
    """A second model's opinion on a hypothesis that it did not write."""

    @property
    def name(self) -> str:
        """As the card shows it: the model's id."""
        ...

    async def review(self, question: Question, hypothesis: Hypothesis) -> tuple[Opinion, Mapping[str, JsonValue]]:
        """The opinion, and the exchange for the trace. Raises TemporaryError or PermanentError when there is none."""
        ...

    async def close(self) -> None:
        """Releases connections."""
        ...
