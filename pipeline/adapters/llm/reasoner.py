"""A language model as a diagnostician: it reads evidence and tools, and what it says is believed only in one form."""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Mapping

from pipeline.adapters.llm.chat import ChatModel, ModelTurn
from pipeline.adapters.llm.checks import DoubtfulReply, InvalidReply, checked_reply, doubts, parse_hypothesis
from pipeline.adapters.llm.prompts import Fit, Redact, Wording, diagnosis_prompt, reply_prompt
from pipeline.adapters.llm.talk import DEFAULT_LIMITS, Limits, Talk, bounded
from pipeline.domain.diagnosis import Hypothesis
from pipeline.domain.errors import PermanentError, TemporaryError
from pipeline.domain.untrusted import fence, neutralise
from pipeline.ports.model import Answer, Diagnostician, GaveNoAnswer, GaveNoUsableAnswer, OnText, Question, Reply

log = logging.getLogger(__name__)

_OPEN_BRACKET_CHARS = 60
"""A citation is no longer than this; a bracket that stays open longer is none."""


class ModelDiagnostician(Diagnostician):
    """Any ``ChatModel``. ``redact`` takes secrets out of every text that goes to it; ``fit`` shortens what is too long.

    When ``redact`` raises nothing is sent.
    """

    def __init__(
        self, model: ChatModel, *, redact: Redact, limits: Limits = DEFAULT_LIMITS, fit: Fit | None = None
    ) -> None:
        self._model = model
        self._redact = redact
        self._limits = limits
        self._fit = fit

    @property
    def name(self) -> str:
        return self._model.name

    async def diagnose(self, question: Question) -> Answer:
        """Asks for a hypothesis; a reply that is none gets one chance to be repaired."""
        words = self._words()
        # Shortening what is too long may take seconds of a model of its own: the loop goes on meanwhile.
        prompt = await asyncio.to_thread(diagnosis_prompt, question, words)
        talk = Talk(self._model, prompt, words, self._limits, question.tools)
        hypothesis = await bounded(talk, self._hypothesis(question, talk))
        return Answer(hypothesis, self._model.name, talk.exchange(), dict(words.shown))

    async def reply(self, question: Question, asked: str, on_text: OnText | None = None) -> Reply:
        """Answers from the evidence; ids that do not exist are taken out of the answer.

        What ``on_text`` gets may hold remarks that the model makes between calls of tools: the answer is what is
        returned.
        """
        words = self._words()
        prompt = await asyncio.to_thread(reply_prompt, question, asked, words)
        talk = Talk(self._model, prompt, words, self._limits, question.tools)
        turn = await bounded(talk, self._told(talk, on_text))
        if not turn.text.strip():
            why = turn.stop if turn.stop != "end" else "no reason given"
            raise GaveNoAnswer(f"{self._model.name} gave an empty answer ({why})", talk.exchange())
        return Reply(checked_reply(turn.text, words.shown), talk.exchange())

    async def close(self) -> None:
        await self._model.close()

    def _words(self) -> Wording:
        return Wording(self._redact, self._fit, self._limits.evidence_tokens)

    async def _told(self, talk: Talk, on_text: OnText | None) -> ModelTurn:
        if on_text is None:
            return await talk.answer()
        stream = _Stream(on_text, talk.words.shown)
        turn = await talk.answer(on_text=stream.take)
        await stream.end()
        return turn

    async def _hypothesis(self, question: Question, talk: Talk) -> Hypothesis:
        turn = await talk.answer(schema=Hypothesis)
        first: Hypothesis | None = None
        try:
            first = parse_hypothesis(turn.text, question)
            if not (found := doubts(first, question, talk.words.shown)):
                return first
            raise DoubtfulReply("; ".join(found))
        except InvalidReply as error:
            why = neutralise(str(error), 700)
        talk.refused.append({"reply": turn.text, "why": why})
        # The checks after this one take out what is doubtful; they cannot do without an answer.
        if first is not None and not talk.time_for_another:
            return first
        shorter = " It was cut off: be shorter." if turn.stop == "length" else ""
        talk.say(
            f"That is not a valid hypothesis.{shorter} Reply once more, the whole of it, as one JSON object. What is"
            f" wrong with it:\n{fence('data', why, {'kind': 'what is wrong'})}"
        )
        turn = await talk.answer(schema=Hypothesis, with_tools=False)
        try:
            return parse_hypothesis(turn.text, question)
        except InvalidReply as error:
            why = neutralise(str(error), 200)
            if first is not None:
                talk.refused.append({"reply": turn.text, "why": why})
                return first
            talk.failed = f"{self._model.name} gave no usable hypothesis in two tries: {why}"
            raise GaveNoUsableAnswer(talk.failed, talk.exchange()) from error


class _Stream:
    """Hands on whole words as they come, without citations of what does not exist.

    Where they cannot be shown, nothing more is: the answer comes as a whole in the end.
    """

    def __init__(self, on_text: OnText, known: Mapping[str, str]) -> None:
        self._on_text = on_text
        self._known = known
        self._held = ""
        self._lost = False

    async def take(self, piece: str) -> None:
        self._held += piece
        cut = max(self._held.rfind(" "), self._held.rfind("\n")) + 1
        bracket = self._held.rfind("[", max(0, len(self._held) - _OPEN_BRACKET_CHARS))
        if bracket >= 0 and "]" not in self._held[bracket:]:
            cut = min(cut, bracket)
        await self._give(cut)

    async def end(self) -> None:
        await self._give(len(self._held))

    async def _give(self, cut: int) -> None:
        ready, self._held = self._held[:cut], self._held[cut:]
        clean = re.sub(r"\bE\d+\b", lambda found: found[0] if found[0] in self._known else "…", ready)
        if not clean or self._lost:
            return
        try:
            await self._on_text(clean)
        except (TemporaryError, PermanentError) as error:
            self._lost = True
            log.info("an answer is not shown as it grows: %s", error)
