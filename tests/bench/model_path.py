"""A diagnosis by a model that needs 8 s a turn, over the real SDK and wire: seconds to the answer, and the bot's share.

Beside it the same without a schedule: the model reads as often as it likes.
"""

from __future__ import annotations

import asyncio
import json
import statistics
import time
from collections.abc import Sequence
from typing import Any, NamedTuple

from pipeline.adapters.llm.reasoner import ModelDiagnostician
from pipeline.adapters.llm.reviewer import ModelReviewer
from pipeline.adapters.llm.talk import DEFAULT_LIMITS, Limits
from pipeline.domain.redaction import Redactor
from pipeline.ports.model import GaveNoAnswer
from tests.contract.llm.anthropic_server import AnthropicServer
from tests.contract.llm.openai_server import ResponsesServer
from tests.contract.llm.suite import GOOD, FakeTools, ModelServer, Say, Step, make_question

AT_ONCE = 10
ROUNDS = 2
FACTS = 40
TURN_S, WANTED_ROUNDS = 8.0, 3
LOGS = ("read_logs", '{"service": "payments", "minutes": 5, "pattern": null}')
VERDICT = {"agrees": True, "category": "memory", "score": 0.8, "objections": [], "unsupported_claims": []}


SCHEDULES = (
    ("no schedule", Limits(deadline_s=600.0), False),
    ("28 s for the author", DEFAULT_LIMITS, False),
    ("20 s for the author, then a reviewer as slow", Limits(deadline_s=20.0), True),
)


class PatientAuthor(AnthropicServer):
    """Reads three times, as long as it may, and answers when it may not."""

    def step(self, asked: dict[str, Any]) -> Step:
        had = sum(message["role"] == "assistant" for message in asked["messages"])
        may_call = asked.get("tool_choice", {}).get("type") != "none"
        return Say(calls=(LOGS,) * 3) if may_call and had < WANTED_ROUNDS else Say(GOOD)


class PatientReviewer(ResponsesServer):
    def step(self, _: dict[str, Any]) -> Step:
        return Say(json.dumps(VERDICT))


class Took(NamedTuple):
    """Of one diagnosis: whether there was an answer, turns, rounds of tools, seconds in all, of the bot's own."""

    answered: bool
    turns: int
    rounds: int
    all_s: float
    own_s: float


def run() -> None:
    """Prints a row for each schedule."""
    asyncio.run(_run())


async def _run() -> None:
    print(f"   {AT_ONCE} at once, {ROUNDS} times; the model takes {TURN_S:g} s a turn and wants {WANTED_ROUNDS} rounds")
    author, reviewer = PatientAuthor(), PatientReviewer()
    async with author.running(), reviewer.running():
        # The SDKs build the types of an answer at the first one, once for a process' life.
        await _measured(author, DEFAULT_LIMITS, reviewer, rounds=1)
        author.delay_s, reviewer.delay_s = TURN_S, TURN_S
        for name, limits, second in SCHEDULES:
            cpu_s = time.process_time()
            took = await _measured(author, limits, reviewer if second else None)
            _print(name, took, (time.process_time() - cpu_s) / len(took))


async def _measured(
    author: ModelServer, limits: Limits, reviewer: ModelServer | None, *, rounds: int = ROUNDS
) -> Sequence[Took]:
    redactor = Redactor()

    def redact(text: str) -> str:
        return redactor.text(text).text

    asking = ModelDiagnostician(author.model(), redact=redact, limits=limits)
    second = ModelReviewer(reviewer.model(), redact=redact) if reviewer is not None else None
    took: list[Took] = []
    for _ in range(rounds):
        took += await asyncio.gather(*(_one(asking, second) for _ in range(AT_ONCE)))
    await asking.close()
    if second is not None:
        await second.close()
    return took


async def _one(author: ModelDiagnostician, reviewer: ModelReviewer | None) -> Took:
    facts = [f"fact {number}: {number} of 200 connections of payments are in use, as usual" for number in range(FACTS)]
    question = make_question(FakeTools(first_id=100), *facts)
    started = time.monotonic()
    try:
        answer = await author.diagnose(question)
        exchange: Any = answer.exchange
        turns, waits = exchange["turns"], len(exchange["turns"])
        if reviewer is not None:
            waits += 1
            await reviewer.review(question, answer.hypothesis)
        answered = True
    except GaveNoAnswer:
        turns, waits, answered = [], 0, False
    all_s = time.monotonic() - started
    rounds = sum(bool(turn["calls"]) for turn in turns)
    return Took(answered, len(turns), rounds, all_s, all_s - TURN_S * waits)


def _print(name: str, took: Sequence[Took], cpu_s: float) -> None:
    answered = [one for one in took if one.answered] or took
    p95_s, own_s = _p95([one.all_s for one in took]), _p95([one.own_s for one in answered])
    turns, rounds = (statistics.mean(getattr(one, part) for one in answered) for part in ("turns", "rounds"))
    count = f"{sum(one.answered for one in took)}/{len(took)}"
    print(
        f"   {name:<46} answers {count}, turns {turns:.1f}, tool rounds {rounds:.1f},"
        f" p95 {p95_s:5.2f} s, the bot's own {own_s:.2f} s; {cpu_s * 1000:.0f} ms of CPU each, the servers' among them"
    )


def _p95(values: Sequence[float]) -> float:
    return sorted(values)[max(0, round(0.95 * len(values)) - 1)]
