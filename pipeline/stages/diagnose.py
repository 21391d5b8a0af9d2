"""From an open incident to a checked diagnosis and a plan on the table."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence

from pipeline.domain.anomaly import SEARCH_PHRASE
from pipeline.domain.baseline import BaselineBank
from pipeline.domain.confidence import Confidence, evidence_volume
from pipeline.domain.diagnosis import Diagnosis, Passage, check_claims
from pipeline.domain.errors import PermanentError, TemporaryError
from pipeline.domain.incident import Case, Incident
from pipeline.domain.lifecycle import IncidentState
from pipeline.domain.review import review
from pipeline.domain.trace import TraceEntry, TraceKind
from pipeline.ports.clock import Clock
from pipeline.ports.knowledge import Knowledge
from pipeline.ports.model import Answer, Diagnostician, Question
from pipeline.ports.store import Store
from pipeline.stages.advance import advance
from pipeline.stages.investigate import Dossier, Investigator
from pipeline.stages.propose import Proposer
from pipeline.stages.settings import LoopSettings

PASSAGES = 5


class Diagnoser:
    """Investigates, retrieves, asks, checks, and hands over to the proposer."""

    def __init__(
        self,
        store: Store,
        investigator: Investigator,
        knowledge: Knowledge,
        author: Diagnostician,
        rules: Diagnostician,
        proposer: Proposer,
        clock: Clock,
        settings: LoopSettings,
    ) -> None:
        self._store = store
        self._investigator = investigator
        self._knowledge = knowledge
        self._author = author
        self._rules = rules
        self._proposer = proposer
        self._clock = clock
        self._settings = settings

    async def run(self, incident: Incident, bank: BaselineBank) -> None:
        """Carries an open or diagnosing incident to its proposal. Safe to repeat after a crash at any point."""
        if incident.state is IncidentState.OPEN:
            async with self._store.begin() as uow:
                moved = await advance(uow, incident, IncidentState.DIAGNOSING)
            if moved is None:
                return
            incident = moved
        async with self._store.begin() as uow:
            case = await uow.incidents.case(incident.id)
        if case is None or not case.anomalies:
            return
        question, dossier, entries, notes = await self._question(case, bank)
        answer, rules_answer, problems = await self._ask(question)
        diagnosis, more = _checked(question, answer, rules_answer, (*notes, *problems))
        entries = [*entries, *more]
        await self._proposer.run(incident, diagnosis, dossier, question.passages, entries)

    async def question(self, case: Case, bank: BaselineBank) -> Question:
        """What a diagnostician is asked about ``case`` as things stand now."""
        return (await self._question(case, bank))[0]

    async def _question(
        self, case: Case, bank: BaselineBank
    ) -> tuple[Question, Dossier, list[TraceEntry], tuple[str, ...]]:
        service = case.incident.service
        own_first = sorted(case.anomalies, key=lambda item: item.anomaly.key.service != service)
        anomalies = [item.anomaly for item in own_first]
        dossier = await self._investigator.gather(service, anomalies, bank, self._clock.now())
        passages, entry, notes = await self._retrieve(case)
        question = Question(service, anomalies, dossier.evidence, passages, dossier.facts)
        return question, dossier, [*dossier.entries, entry], (*notes, *dossier.blind)

    async def _retrieve(self, case: Case) -> tuple[Sequence[Passage], TraceEntry, tuple[str, ...]]:
        query = f"{case.incident.service}: {SEARCH_PHRASE[case.lead.kind]}"
        started = time.monotonic()
        try:
            passages = await self._knowledge.search(query, limit=PASSAGES)
            note: tuple[str, ...] = ()
        except (TemporaryError, PermanentError) as error:
            passages, note = [], (f"no runbooks: {error}",)
        found = ", ".join(f"{one.document} {one.score:.2f}" for one in passages) or "nothing"
        entry = TraceEntry(
            TraceKind.RETRIEVED,
            f"knowledge search: {found}",
            {
                "query": query,
                "latency_ms": round((time.monotonic() - started) * 1000, 1),
                "passages": [
                    {"document": one.document, "heading": one.heading, "score": one.score, "method": one.method}
                    for one in passages
                ],
            },
        )
        return passages, entry, note

    async def _ask(self, question: Question) -> tuple[Answer, Answer, tuple[str, ...]]:
        rules_answer = await self._rules.diagnose(question)
        if self._author is self._rules:
            return rules_answer, rules_answer, ()
        try:
            async with asyncio.timeout(self._settings.model_deadline_s):
                return await self._author.diagnose(question), rules_answer, ()
        except TimeoutError:
            problem = f"no answer in {self._settings.model_deadline_s:.0f} s"
        except (TemporaryError, PermanentError) as error:
            problem = str(error)
        return rules_answer, rules_answer, (f"{self._author.name}: {problem}; the rules engine answered instead",)


def _checked(
    question: Question, answer: Answer, rules_answer: Answer, notes: tuple[str, ...]
) -> tuple[Diagnosis, list[TraceEntry]]:
    hypothesis = answer.hypothesis
    kept, dropped = check_claims(hypothesis, tuple(question.evidence))
    known_instances = {item.subject for item in question.evidence}
    suspects = tuple(name for name in hypothesis.suspect_instances if name in known_instances)
    independent = None if answer is rules_answer else rules_answer.hypothesis
    reviewer, remarks = review(hypothesis, question, independent)
    cited = {cited for claim in kept for cited in claim.evidence}
    confidence = Confidence(
        author=hypothesis.certainty * (len(kept) / len(hypothesis.claims) if hypothesis.claims else 0.0),
        reviewer=reviewer,
        retrieval=max((passage.score for passage in question.passages), default=0.0),
        evidence=evidence_volume(len(cited)),
    )
    diagnosis = Diagnosis(
        service=question.service,
        category=hypothesis.category,
        root_cause=hypothesis.root_cause,
        suspect_instances=suspects,
        claims=kept,
        confidence=confidence,
        source=answer.source,
        notes=(*notes, *dropped),
    )
    entries = [
        TraceEntry(TraceKind.PROMPT, f"asked {answer.source}", answer.exchange),
        TraceEntry(
            TraceKind.HYPOTHESIS,
            f"{hypothesis.category.value}: {hypothesis.root_cause}",
            hypothesis.model_dump(mode="json"),
        ),
        TraceEntry(TraceKind.REVIEW, f"reviewer {reviewer:.2f}", {"score": reviewer, "notes": list(remarks)}),
        TraceEntry(TraceKind.CONFIDENCE, confidence.arithmetic(), {"score": confidence.score}),
    ]
    return diagnosis, entries
