"""Asking a diagnostician: a language model or the rules engine."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from pipeline.domain.anomaly import Anomaly
from pipeline.domain.diagnosis import Evidence, Hypothesis, Passage
from pipeline.domain.facts import Facts
from pipeline.domain.ids import ServiceName
from pipeline.domain.trace import JsonValue


@dataclass(frozen=True, slots=True)
class Question:
    """What a diagnostician is given: facts with ids, passages of runbooks, and the services it may speak of."""

    service: ServiceName
    anomalies: Sequence[Anomaly]
    evidence: Sequence[Evidence]
    passages: Sequence[Passage]
    facts: Facts
    known: Hypothesis | None = None
    """What was diagnosed already: an answer explains that, and does not diagnose anew."""


@dataclass(frozen=True, slots=True)
class Answer:
    """A hypothesis and how it came about. ``exchange`` (prompt, raw reply, tokens) goes to the trace."""

    hypothesis: Hypothesis
    source: str
    exchange: Mapping[str, JsonValue]


class Diagnostician(Protocol):
    """Turns evidence into a hypothesis, or answers a person's question from it."""

    @property
    def name(self) -> str:
        """As the card shows it: ``rules`` or the model's id."""
        ...

    async def diagnose(self, question: Question) -> Answer:
        """Raises TemporaryError or PermanentError when there is no usable answer."""
        ...

    async def reply(self, question: Question, asked: str) -> str:
        """Answers ``asked`` from the incident's own evidence, citing ids like ``[E1]``; plain text."""
        ...

    async def close(self) -> None:
        """Releases connections."""
        ...
