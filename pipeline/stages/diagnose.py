"""From an open incident to a checked diagnosis and a plan on the table."""

from __future__ import annotations

import asyncio
import dataclasses
import hashlib
import time
from collections.abc import Callable, Sequence

from pipeline.domain.anomaly import SEARCH_PHRASE, AnomalyKind
from pipeline.domain.baseline import BaselineBank
from pipeline.domain.catalogue import Catalogue
from pipeline.domain.confidence import PROPOSE_FROM
from pipeline.domain.diagnosis import Category, Conclusion, Diagnosis, Opinion
from pipeline.domain.errors import PermanentError, SreBotError, TemporaryError
from pipeline.domain.ids import incident_label
from pipeline.domain.incident import Case, Incident
from pipeline.domain.lifecycle import IncidentState
from pipeline.domain.review import review
from pipeline.domain.trace import JsonValue, TraceEntry, TraceKind
from pipeline.ports.clock import Clock
from pipeline.ports.diagnoses import CachedDiagnosis, CauseKey
from pipeline.ports.knowledge import Found, Knowledge, KnowledgeQuery
from pipeline.ports.model import (
    Answer,
    Diagnostician,
    GaveNoAnswer,
    GaveNoUsableAnswer,
    Question,
    Reviewer,
)
from pipeline.ports.store import Store
from pipeline.stages.advance import advance, record
from pipeline.stages.examine import Examined, conclude, examine
from pipeline.stages.investigate import Dossier, Investigator
from pipeline.stages.propose import Proposer
from pipeline.stages.settings import LoopSettings

PASSAGES = 5
_CATEGORY: dict[AnomalyKind, str] = {
    AnomalyKind.MEMORY_PRESSURE: Category.MEMORY,
    AnomalyKind.LATENCY: Category.SATURATION,
    AnomalyKind.ERROR_SURGE: Category.BAD_CHANGE,
    AnomalyKind.DISK_EXHAUSTION: Category.DISK,
    AnomalyKind.CERTIFICATE_EXPIRY: Category.CERTIFICATE,
    AnomalyKind.TRAFFIC: "traffic",
    AnomalyKind.DEPLOYMENT_REGRESSION: Category.BAD_CHANGE,
    AnomalyKind.MULTI_DIMENSIONAL: Category.SATURATION,
}
"""Which runbooks are the likelier ones; nothing is ruled out by it."""
DAY_S = 86_400.0
REVIEW_LEAST_S = 3.0
"""A second model has this long, however long the first one took."""


@dataclasses.dataclass(frozen=True, slots=True)
class Authors:
    """Who diagnoses. ``author`` may be ``rules`` itself; ``reviewer`` is a second model, or None."""

    author: Diagnostician
    rules: Diagnostician
    reviewer: Reviewer | None = None


class Diagnoser:
    """Investigates, retrieves, asks, checks, and hands over to the proposer."""

    def __init__(
        self,
        store: Store,
        investigator: Investigator,
        knowledge: Knowledge,
        authors: Authors,
        proposer: Proposer,
        catalogue: Catalogue,
        clock: Clock,
        settings: LoopSettings,
        *,
        redact: Callable[[str], str] = str,
    ) -> None:
        """``redact`` takes secrets out of what documents say."""
        self._redact = redact
        self._store = store
        self._investigator = investigator
        self._knowledge = knowledge
        self._authors = authors
        self._proposer = proposer
        self._catalogue = catalogue
        self._clock = clock
        self._settings = settings

    async def run(self, incident: Incident, bank: BaselineBank, *, alerts: Sequence[str] = ()) -> None:
        """Carries an open or diagnosing incident to its proposal. Safe to repeat after a crash at any point.

        ``alerts``: names of alerts that somebody was paged with: their own runbooks are looked up first.
        """
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
        work = await self._prepare(case, bank, alerts)
        diagnosis, entries = await self._diagnose(case, work)
        question = work.question
        await self._proposer.run(
            incident, diagnosis, work.dossier, question.read, question.passages, [*work.entries, *entries]
        )

    async def question(self, case: Case, bank: BaselineBank) -> Question:
        """What a diagnostician is asked about ``case`` as things stand now."""
        return (await self._prepare(case, bank)).question

    async def _prepare(self, case: Case, bank: BaselineBank, alerts: Sequence[str] = ()) -> _Work:
        service = case.incident.service
        own_first = sorted(case.anomalies, key=lambda item: item.anomaly.key.service != service)
        anomalies = [item.anomaly for item in own_first]
        async with self._store.begin() as uow:
            in_vain = await uow.history.in_vain(case.incident.id)
        gathering = self._investigator.gather(service, anomalies, bank, self._clock.now(), in_vain=in_vain)
        dossier, (found, entry, notes) = await asyncio.gather(gathering, self._retrieve(case, alerts))
        question = Question(service, anomalies, dossier.evidence, found.passages, dossier.facts, dossier.tools)
        return _Work(question, dossier, found.novel, (*dossier.entries, entry), (*notes, *dossier.blind))

    async def _retrieve(self, case: Case, alerts: Sequence[str]) -> tuple[Found, TraceEntry, tuple[str, ...]]:
        query = self._query(case, alerts)
        started = time.monotonic()
        try:
            found = await self._knowledge.search(query, limit=PASSAGES)
            notes: tuple[str, ...] = ()
        except (TemporaryError, PermanentError) as error:
            found, notes = Found(), (f"no runbooks: {error}",)
        clean = tuple(
            dataclasses.replace(
                one,
                document=self._redact(one.document),
                heading=self._redact(one.heading),
                text=self._redact(one.text),
            )
            for one in found.passages
        )
        found = dataclasses.replace(found, passages=clean)
        if found.novel and found.passages:
            notes = (*notes, "nothing known is like this incident: the runbooks shown are only the nearest")
        names = ", ".join(f"{one.document} {one.score:.2f}" for one in found.passages) or "nothing"
        entry = TraceEntry(
            TraceKind.RETRIEVED,
            f"knowledge search: {names}" + ("; nothing known is like this" if found.novel else ""),
            {
                "query": query.text,
                "alerts": list(query.alerts),
                "filters": {"services": list(query.services), "platform": query.platform, "category": query.category},
                "novel": found.novel,
                "best_cosine": found.best_cosine,
                "fallback": found.fallback,
                "latency_ms": round((time.monotonic() - started) * 1000, 1),
                "steps_ms": dict(found.latency_ms),
                "passages": [
                    {
                        "document": one.document,
                        "heading": one.heading,
                        "score": one.score,
                        "method": one.method,
                        "text": one.text,
                    }
                    for one in found.passages
                ],
            },
        )
        return found, entry, notes

    def _query(self, case: Case, alerts: Sequence[str]) -> KnowledgeQuery:
        service = case.incident.service
        target = self._catalogue[service].target
        return KnowledgeQuery(
            f"{service}: {SEARCH_PHRASE[case.lead.kind]}",
            alerts=tuple(alerts),
            services=(service,),
            platform=target.platform if target is not None else "",
            category=_CATEGORY[case.lead.kind],
        )

    async def _diagnose(self, case: Case, work: _Work) -> tuple[Diagnosis, list[TraceEntry]]:
        question, rules = work.question, self._authors.rules
        rules_answer = await rules.diagnose(question)
        by_rules = self._examined(work, rules_answer)
        if self._authors.author is rules:
            return await self._concluded(work, by_rules, rules_answer, ())
        if (cached := await self._cached(case, work)) is not None:
            diagnosis, entries = await self._from_cache(work, by_rules, rules_answer, cached)
            if diagnosis is not None:
                return diagnosis, entries
        await self._show_first_view(case, work, by_rules, rules_answer)
        started_s = time.monotonic()
        answer, problem, failed = await self._ask_author(question)
        if answer is None:
            notes = (f"{self._authors.author.name}: {problem}; the rules engine answered instead",)
            diagnosis, entries = await self._concluded(work, by_rules, rules_answer, notes)
            return diagnosis, [*failed, *entries]
        examined = self._examined(work, answer)
        left_s = self._settings.model_deadline_s - (time.monotonic() - started_s)
        diagnosis, entries = await self._concluded(work, examined, rules_answer, (), left_s=left_s)
        await self._keep(case, work, diagnosis, answer)
        return diagnosis, entries

    def _examined(self, work: _Work, answer: Answer) -> Examined:
        return examine(work.question, answer, work.dossier.graph)

    async def _ask_author(self, question: Question) -> tuple[Answer | None, str, tuple[TraceEntry, ...]]:
        """The answer, or why there is none and what was said in vain."""
        try:
            async with self._store.begin() as uow:
                spent = await uow.control.tokens_spent(within_s=DAY_S)
            if spent >= self._settings.tokens_day:
                used_up = f"the {self._settings.tokens_day} tokens of 24 hours (SRE_MODEL_TOKENS_DAY) are used up"
                return None, used_up, ()
            async with asyncio.timeout(self._settings.model_deadline_s):
                return await self._authors.author.diagnose(question), "", ()
        except TimeoutError:
            return None, f"no answer in {self._settings.model_deadline_s:.0f} s", ()
        except (GaveNoAnswer, GaveNoUsableAnswer) as error:
            said = f"asked {self._authors.author.name}, no usable answer: {error}"
            return None, str(error), (TraceEntry(TraceKind.PROMPT, said, error.exchange),)
        except (TemporaryError, PermanentError) as error:
            return None, str(error), ()

    async def _concluded(
        self, work: _Work, examined: Examined, rules_answer: Answer, notes: Sequence[str], *, left_s: float = 0.0
    ) -> tuple[Diagnosis, list[TraceEntry]]:
        """``left_s`` of the time for a diagnosis is left for a second model; it gets ``REVIEW_LEAST_S`` at least."""
        opinions, entries, problems = await self._opinions(work.question, examined, rules_answer, left_s)
        diagnosis, more = conclude(
            work.question, examined, opinions, novel=work.novel, notes=(*work.notes, *notes, *problems)
        )
        return diagnosis, [*work.question.tools.entries, *more, *entries]

    async def _opinions(
        self, question: Question, examined: Examined, rules_answer: Answer, left_s: float
    ) -> tuple[list[Opinion], list[TraceEntry], tuple[str, ...]]:
        """What the reviewers say; a model that gives no opinion is replaced by the rules."""
        answer, reviewer, mode = examined.answer, self._authors.reviewer, self._settings.review
        independent = None if answer is rules_answer else rules_answer.hypothesis
        by_rules = Opinion("rules", *review(answer.hypothesis, question, independent))
        opinions, entries, problems = [by_rules], [_reviewed(by_rules)], ()
        if reviewer is None or mode == "rule_based" or answer is rules_answer:
            return opinions, entries, problems
        try:
            async with asyncio.timeout(min(self._settings.review_deadline_s, max(left_s, REVIEW_LEAST_S))):
                said, exchange = await reviewer.review(question, examined.hypothesis)
        except TimeoutError:
            return opinions, entries, (f"{reviewer.name} gave no second opinion in time; the rules reviewed",)
        except (TemporaryError, PermanentError) as error:
            if isinstance(error, GaveNoAnswer | GaveNoUsableAnswer):
                entries.append(TraceEntry(TraceKind.REVIEW, f"{reviewer.name}: no opinion, {error}", error.exchange))
            return opinions, entries, (f"{reviewer.name} gave no second opinion: {error}; the rules reviewed",)
        asked = TraceEntry(
            TraceKind.REVIEW, f"{said.reviewer} {said.score:.2f}", {**exchange, "notes": list(said.notes)}
        )
        if mode == "llm_cross_check":
            return [said], [asked], ()
        return [by_rules, said], [*entries, asked], ()

    async def _show_first_view(self, case: Case, work: _Work, by_rules: Examined, rules_answer: Answer) -> None:
        """Puts the rules' view on the card while the model reads: at three in the morning 20 seconds are long."""
        note = f"first view by the rules; {self._authors.author.name} is still reading"
        opinion = Opinion("rules", *review(rules_answer.hypothesis, work.question, None))
        first, _ = conclude(work.question, by_rules, [opinion], novel=work.novel, notes=(*work.notes, note))
        async with self._store.begin() as uow:
            current = await uow.incidents.get(case.incident.id)
            if current is None or current.state is not IncidentState.DIAGNOSING:
                return
            await uow.incidents.save_diagnosis(case.incident.id, first, work.question.read, work.question.passages)
            await record(uow, case.incident.id, entries=[TraceEntry(TraceKind.NOTE, note, {})])

    async def _cached(self, case: Case, work: _Work) -> CachedDiagnosis | None:
        try:
            async with self._store.begin() as uow:
                return await uow.diagnoses.find(_key(case), work.rests_on, ttl_s=self._settings.cache_ttl_s)
        except TemporaryError:
            return None

    async def _from_cache(
        self, work: _Work, by_rules: Examined, rules_answer: Answer, cached: CachedDiagnosis
    ) -> tuple[Diagnosis | None, list[TraceEntry]]:
        """The model's words of before, over claims and a path checked on what was read now.

        Nothing when the rules see another category today: then it is another trouble under the same name.
        """
        if by_rules.hypothesis.category is not cached.hypothesis.category or not by_rules.path.holds:
            return None, []
        said = cached.hypothesis
        words = {
            "root_cause": said.root_cause,
            "alternatives": said.alternatives,
            "missing": said.missing,
            "certainty": min(said.certainty, by_rules.hypothesis.certainty),
        }
        label = incident_label(cached.incident_id)
        again = dataclasses.replace(
            by_rules,
            answer=dataclasses.replace(rules_answer, source=cached.source),
            hypothesis=by_rules.hypothesis.model_copy(update=words),
        )
        opinion = Opinion("rules", *review(again.hypothesis, work.question, None))
        note = f"cause as {cached.source} said for {label} at {cached.made_at:%H:%M} UTC; evidence and path are of now"
        diagnosis, entries = conclude(
            work.question, again, [opinion], novel=work.novel, notes=(*work.notes, note), cached_from=label
        )
        return diagnosis, [*work.question.tools.entries, *entries, _reviewed(opinion)]

    async def _keep(self, case: Case, work: _Work, diagnosis: Diagnosis, answer: Answer) -> None:
        """Keeps an answer that may be used again: a cause that was found, and whose path holds."""
        if diagnosis.conclusion is not Conclusion.CAUSE or diagnosis.category is Category.UNKNOWN:
            return
        if not diagnosis.path.holds or diagnosis.confidence.score < PROPOSE_FROM:
            return
        try:
            async with self._store.begin() as uow:
                await uow.diagnoses.keep(
                    _key(case), work.rests_on, case.incident.id, answer.hypothesis, self._authors.author.name
                )
        except SreBotError:
            return  # it is asked anew the next time


@dataclasses.dataclass(frozen=True, slots=True)
class _Work:
    """What one diagnosis works on."""

    question: Question
    dossier: Dossier
    novel: bool
    entries: tuple[TraceEntry, ...]
    notes: tuple[str, ...]

    @property
    def rests_on(self) -> str:
        """Changes when what an answer rests on does: the deployments, and the documents that were found."""
        changes = ",".join(sorted({change.revision for change in self.question.facts.recent_changes}))
        documents = "\n".join(f"{one.document}\n{one.heading}\n{one.text}" for one in self.question.passages)
        return hashlib.sha256(f"{changes}\n{documents}".encode()).hexdigest()[:32]


def _key(case: Case) -> CauseKey:
    return CauseKey(case.incident.service, case.lead.kind, case.lead.key.signal)


def _reviewed(opinion: Opinion) -> TraceEntry:
    data: dict[str, JsonValue] = {"reviewer": opinion.reviewer, "score": opinion.score, "notes": list(opinion.notes)}
    return TraceEntry(TraceKind.REVIEW, f"{opinion.reviewer} {opinion.score:.2f}", data)
