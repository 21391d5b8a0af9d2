"""A second language model's opinion on what the first one said."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from pipeline.adapters.llm.chat import ChatModel
from pipeline.adapters.llm.checks import InvalidReply, parse_strictly
from pipeline.adapters.llm.prompts import Fit, Redact, Wording, review_prompt
from pipeline.adapters.llm.talk import DEFAULT_LIMITS, Limits, Talk, bounded
from pipeline.domain.diagnosis import Category, Hypothesis, Opinion
from pipeline.domain.errors import PermanentError
from pipeline.domain.trace import JsonValue
from pipeline.domain.untrusted import neutralise
from pipeline.ports.model import Question, Reviewer

DISAGREES_CAP = 0.4
"""Highest score of an opinion that says no: a reviewer that disagrees and scores high has not made up its mind."""
NOTE_CHARS = 300


class Verdict(BaseModel):
    """What a reviewer may say. Anything else it writes is refused."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    agrees: bool
    category: Category
    score: Annotated[float, Field(ge=0, le=1)]
    objections: Annotated[tuple[Annotated[str, Field(max_length=600)], ...], Field(max_length=5)]
    unsupported_claims: Annotated[tuple[int, ...], Field(max_length=8)]


class ModelReviewer(Reviewer):
    """Any ``ChatModel``. It gets no tools, and is not told how certain the author is; ``deadline_s`` bounds it all."""

    def __init__(
        self,
        model: ChatModel,
        *,
        redact: Redact,
        deadline_s: float = 10.0,
        fit: Fit | None = None,
        evidence_tokens: int = DEFAULT_LIMITS.evidence_tokens,
    ) -> None:
        self._model = model
        self._redact = redact
        self._fit = fit
        self._limits = Limits(deadline_s=deadline_s, evidence_tokens=evidence_tokens)

    @property
    def name(self) -> str:
        return self._model.name

    async def review(self, question: Question, hypothesis: Hypothesis) -> tuple[Opinion, Mapping[str, JsonValue]]:
        """Score 0..1: the model's own, at most DISAGREES_CAP when it says no, less the share of claims it doubts."""
        words = Wording(self._redact, self._fit, self._limits.evidence_tokens)
        prompt = await asyncio.to_thread(review_prompt, question, hypothesis, words)
        talk = Talk(self._model, prompt, words, self._limits)
        verdict = await bounded(talk, self._verdict(talk))
        return _opinion(self._model.name, verdict, hypothesis), talk.exchange()

    async def close(self) -> None:
        await self._model.close()

    async def _verdict(self, talk: Talk) -> Verdict:
        turn = await talk.answer(schema=Verdict)
        try:
            return parse_strictly(turn.text, Verdict)
        except InvalidReply as error:
            why = neutralise(str(error), 500)
        talk.refused.append({"reply": turn.text, "why": why})
        talk.say(f"That is not a valid verdict: {why}. Reply once more, as one JSON object.")
        turn = await talk.answer(schema=Verdict)
        try:
            return parse_strictly(turn.text, Verdict)
        except InvalidReply as error:
            why = neutralise(str(error), 200)
            raise PermanentError(f"{self._model.name} gave no usable opinion in two tries: {why}") from error


def _opinion(name: str, verdict: Verdict, hypothesis: Hypothesis) -> Opinion:
    doubted = sorted({number for number in verdict.unsupported_claims if 1 <= number <= len(hypothesis.claims)})
    share = 1.0 - len(doubted) / len(hypothesis.claims) if hypothesis.claims else 1.0
    agrees = verdict.agrees and verdict.category is hypothesis.category
    score = min(verdict.score, 1.0 if agrees else DISAGREES_CAP) * share
    notes = [f"{name}: {neutralise(objection, NOTE_CHARS)}" for objection in verdict.objections if objection.strip()]
    if verdict.category is not hypothesis.category:
        notes.insert(0, f"{name} says {verdict.category.value}, the author {hypothesis.category.value}")
    elif not verdict.agrees:
        notes.insert(0, f"{name} does not agree")
    notes += [f"{name}: claim {number} says more than its evidence" for number in doubted]
    return Opinion(name, score, tuple(notes))
