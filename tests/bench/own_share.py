"""What the bot itself adds to a diagnosis: ten incidents at once on real stores, beside the same one after the other.

Everything but the model's thinking is counted: reading the store, tools, retrieval with embeddings over the shipped
runbooks, compression, prompts, three rounds of tools over the wire, checks, and the transaction that records it all.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from contextlib import AsyncExitStack
from datetime import UTC, datetime, timedelta
from typing import Any

from bot.config import Settings
from bot.embedded.postgres import EmbeddedPostgres
from bot.redacting import REDACTOR, clean_entry, redact
from bot.wiring.knowledge import KnowledgeBase, knowledge_of
from executors.targets.registry import Registry
from migrations.runner import migrate
from pipeline.adapters.llm.reasoner import ModelDiagnostician
from pipeline.adapters.llm.rules import RulesDiagnostician
from pipeline.adapters.postgres.pool import Pool
from pipeline.adapters.postgres.unit_of_work import PostgresStore
from pipeline.domain.anomaly import DetectionSettings
from pipeline.domain.catalogue import Catalogue
from pipeline.domain.ids import ServiceName
from pipeline.domain.incident import Incident
from pipeline.domain.phase import Phase
from pipeline.domain.telemetry import Sample, SeriesKey, Signal
from pipeline.domain.trace import TraceKind
from pipeline.ports.clock import SystemClock
from pipeline.stages.correlate import Correlator
from pipeline.stages.detect import Detector
from pipeline.stages.diagnose import Authors, Diagnoser
from pipeline.stages.investigate import Investigator
from pipeline.stages.propose import Proposer
from pipeline.stages.reads import Ports
from pipeline.stages.settings import LoopSettings
from pipeline.stages.witnesses import Witnesses
from tests.contract.llm.suite import Say, Step
from tests.databases import open_directory
from tests.model_brain import ThinkingAnthropic

AT_ONCE, TICKS, BAD_TICKS, STEP_S = 10, 120, 40, 2
WANTED_S = 1.5
READS = (
    ("query_metrics", '{"service": "%s", "signal": "memory_ratio", "minutes": 30}'),
    ("topology", '{"service": "%s"}'),
    ("knowledge_search", '{"query": "memory of one replica climbs until it is killed"}'),
)
DETECTION = DetectionSettings(memory_sustain_s=10, clear_after_s=10)
CATALOGUE = Catalogue({})
SERVICES = tuple(ServiceName(f"shop-{number}") for number in range(2 * AT_ONCE))
"""Half of them one after the other, half at once."""


class Reader(ThinkingAnthropic):
    """Reads three times, a tool a round, before it answers."""

    def step(self, asked: dict[str, Any]) -> Step:
        had = sum(message["role"] == "assistant" for message in asked["messages"])
        may_call = asked.get("tools") and asked.get("tool_choice", {}).get("type") != "none"
        if had < len(READS) and may_call:
            name, arguments = READS[had]
            said = str(asked["messages"][0]["content"])
            service = next(one for one in SERVICES if f"Service: {one}" in said)
            return Say(calls=((name, arguments % service if "%s" in arguments else arguments),))
        return super().step(asked)


def run() -> None:
    """Prints seconds for one after the other, and for all at once."""
    asyncio.run(_run())


async def _run() -> None:
    async with AsyncExitStack() as stack:
        directory = stack.enter_context(open_directory())
        server = EmbeddedPostgres(directory)
        url = await server.start()
        stack.push_async_callback(server.stop)
        report = await migrate(url)
        pool = Pool(url)
        stack.push_async_callback(pool.close)
        knowledge = knowledge_of(Settings().knowledge, pool, report, [])
        stack.push_async_callback(knowledge.close)
        await knowledge.learn()
        model = await stack.enter_async_context(Reader().running())
        author = ModelDiagnostician(model.model(), redact=redact)
        stack.push_async_callback(author.close)
        store = PostgresStore(pool, clean_entry)
        async with store.begin() as uow:
            await uow.control.set_phase(Phase.ASSIST, "bench", "bench")
        detector, incidents = await _incidents(store)
        diagnoser = _diagnoser(store, knowledge, author)
        # The first one pays for what a process does once: the SDK's types, the embedder's first run.
        await diagnoser.run(incidents[0], await detector.bank())
        alone = [await _took(diagnoser, one, detector) for one in incidents[1:AT_ONCE]]
        at_once = await asyncio.gather(*(_took(diagnoser, one, detector) for one in incidents[AT_ONCE:]))
        calls = [await _calls(store, one) for one in incidents]
    print(
        f"   {len(incidents)} incidents, {len(READS)} rounds of tools wanted,"
        f" {min(calls)} to {max(calls)} calls made by the model"
    )
    print(f"   one after the other  p50 {_p(alone, 0.5):.2f} s, p95 {_p(alone, 0.95):.2f} s")
    ratio = _p(at_once, 0.95) / _p(alone, 0.95)
    print(
        f"   {AT_ONCE} at once           p50 {_p(at_once, 0.5):.2f} s, p95 {_p(at_once, 0.95):.2f} s"
        f" (wanted: at most {WANTED_S:g} s), {ratio:.1f}x one alone; the model's server shares the two cores"
    )


async def _incidents(store: PostgresStore) -> tuple[Detector, Sequence[Incident]]:
    """Services whose memory stood at 40 % and climbs to 93 %."""
    detector, correlator = Detector(store, DETECTION), Correlator(store, CATALOGUE, DETECTION)
    now = datetime.now(UTC) - timedelta(seconds=STEP_S * TICKS)
    for tick in range(TICKS):
        now += timedelta(seconds=STEP_S)
        level = 0.4 if tick < TICKS - BAD_TICKS else min(0.93, 0.4 + 0.02 * (tick - TICKS + BAD_TICKS))
        samples = [Sample(SeriesKey(one, Signal.MEMORY_RATIO, f"{one}-a"), now, level) for one in SERVICES]
        samples += [Sample(SeriesKey(one, Signal.TRAFFIC), now, 10.0) for one in SERVICES]
        async with store.begin() as uow:
            await uow.telemetry.save_samples(samples)
        result = await detector.run(now, reload=True)
        await correlator.run(result, await detector.bank(), now)
    async with store.begin() as uow:
        found = await uow.incidents.open()
    assert len(found) == len(SERVICES), [one.service for one in found]
    return detector, found


def _diagnoser(store: PostgresStore, knowledge: KnowledgeBase, author: ModelDiagnostician) -> Diagnoser:
    settings = LoopSettings(detection=DETECTION)
    ports = Ports(store, Registry({}), CATALOGUE, Witnesses((), ()), knowledge.retrieval)
    rules = RulesDiagnostician()
    return Diagnoser(
        store,
        Investigator(ports, DETECTION, redactor=REDACTOR),
        knowledge.retrieval,
        Authors(author, rules, None),
        Proposer(store, ports.targets, CATALOGUE, settings),
        CATALOGUE,
        SystemClock(),
        settings,
        redact=redact,
    )


async def _took(diagnoser: Diagnoser, incident: Incident, detector: Detector) -> float:
    """Seconds from the incident to the record of its diagnosis and plan, from which the card is drawn."""
    began = time.perf_counter()
    await diagnoser.run(incident, await detector.bank())
    return time.perf_counter() - began


async def _calls(store: PostgresStore, incident: Incident) -> int:
    async with store.begin() as uow:
        entries = [one.entry for one in await uow.trace.read(incident.id)]
    prompts: list[Any] = [one.data for one in entries if one.kind is TraceKind.PROMPT]
    assert prompts, [one.summary for one in entries]
    return sum(len(turn["calls"]) for prompt in prompts for turn in prompt["turns"])


def _p(values: Sequence[float], share: float) -> float:
    return sorted(values)[max(0, round(share * len(values)) - 1)]
