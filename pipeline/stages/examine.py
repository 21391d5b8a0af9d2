"""What is left of an answer when code has looked at it: claims that cite, a path that holds, opinions, a confidence."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from pipeline.domain.causal import LATE_S, check_path
from pipeline.domain.confidence import Confidence, evidence_volume
from pipeline.domain.diagnosis import (
    Category,
    CheckedPath,
    Claim,
    Conclusion,
    Diagnosis,
    Evidence,
    Hypothesis,
    Opinion,
    Sign,
    check_claims,
)
from pipeline.domain.review import known_instances
from pipeline.domain.telemetry import Signal
from pipeline.domain.topology import DependencyGraph
from pipeline.domain.trace import JsonValue, TraceEntry, TraceKind
from pipeline.domain.untrusted import without_links
from pipeline.ports.model import Answer, Question

NO_PATH_FACTOR = 0.5
"""An author whose causal path does not hold is believed half."""


@dataclass(frozen=True, slots=True)
class Examined:
    """An answer after the checks; ``hypothesis`` says only what may be believed, ``claims`` and ``path`` what holds."""

    answer: Answer
    hypothesis: Hypothesis
    claims: tuple[Claim, ...]
    path: CheckedPath
    suspects: tuple[str, ...]
    notes: tuple[str, ...]


def examine(question: Question, answer: Answer, graph: DependencyGraph) -> Examined:
    """Checks every claim, every hop and every name of ``answer`` against what was read for ``question``."""
    said = answer.hypothesis
    # What is typical, in documents, is no proof that it happened here: it cannot be cited.
    evidence: dict[str, Evidence] = {item.id: item for item in question.read if item.kind != "knowledge"}
    shown = {name: answer.shown[name] for name in evidence if name in answer.shown}
    claims, notes = check_claims(said.claims, shown)
    conclusion, why = _conclusion(said, claims, question)
    notes = (*notes, *why)
    category = said.category if conclusion is Conclusion.CAUSE else Category.UNKNOWN
    path = check_path(said.path, category, question.service, {name: evidence[name] for name in shown}, graph)
    suspects, unproven = _suspects(said, question)
    if unproven:
        notes = (*notes, f"no abnormal memory was read of {', '.join(unproven)[:120]}: not suspected")
    believed = said.model_copy(
        update={
            "conclusion": conclusion,
            "category": category,
            "root_cause": without_links(said.root_cause),
            "claims": tuple(one.model_copy(update={"text": without_links(one.text)}) for one in claims),
            "alternatives": tuple(
                one.model_copy(
                    update={"root_cause": without_links(one.root_cause), "why_not": without_links(one.why_not)}
                )
                for one in said.alternatives
            ),
            "missing": tuple(without_links(what) for what in said.missing),
        }
    )
    plain = CheckedPath(tuple(replace(step, what=without_links(step.what)) for step in path.steps), path.problem)
    return Examined(answer, believed, believed.claims, plain, suspects, notes)


def conclude(
    question: Question,
    examined: Examined,
    opinions: Sequence[Opinion],
    *,
    novel: bool,
    notes: Sequence[str],
    cached_from: str = "",
) -> tuple[Diagnosis, tuple[TraceEntry, ...]]:
    """The diagnosis and its arithmetic. Of several opinions the lowest counts: disagreement can only lower."""
    said, claims = examined.hypothesis, examined.claims
    offered = len(examined.answer.hypothesis.claims)
    kept_share = len(claims) / offered if offered else 0.0
    path_factor = 1.0 if examined.path.holds else NO_PATH_FACTOR
    cited = {name for claim in claims for name in claim.ids}
    confidence = Confidence(
        author=said.certainty * kept_share * path_factor,
        reviewer=min((opinion.score for opinion in opinions), default=0.0),
        retrieval=max((passage.score for passage in question.passages), default=0.0),
        evidence=evidence_volume(len(cited)),
    )
    diagnosis = Diagnosis(
        service=question.service,
        category=said.category,
        root_cause=said.root_cause,
        suspect_instances=examined.suspects,
        claims=claims,
        confidence=confidence,
        source=examined.answer.source,
        notes=(*notes, *examined.notes),
        conclusion=said.conclusion,
        path=examined.path,
        alternatives=said.alternatives,
        missing=said.missing,
        opinions=tuple(replace(one, notes=tuple(without_links(note) for note in one.notes)) for one in opinions),
        novel=novel,
        cached_from=cached_from,
    )
    arithmetic: dict[str, JsonValue] = {
        "score": confidence.score,
        "certainty": said.certainty,
        "claims kept": kept_share,
        "path factor": path_factor,
    }
    return diagnosis, (*_entries(examined), TraceEntry(TraceKind.CONFIDENCE, confidence.arithmetic(), arithmetic))


def _entries(examined: Examined) -> tuple[TraceEntry, ...]:
    answer, path = examined.answer, examined.path
    said = answer.hypothesis
    steps: list[JsonValue] = [
        {
            "what": step.what,
            "service": step.service,
            "evidence": list(step.evidence),
            "problem": step.problem,
            "found": step.found,
        }
        for step in path.steps
    ]
    held = "every step holds" if path.holds else path.why_not()
    return (
        TraceEntry(TraceKind.PROMPT, f"asked {answer.source}", answer.exchange),
        TraceEntry(
            TraceKind.HYPOTHESIS,
            f"{said.category.value}: {examined.hypothesis.root_cause}",
            said.model_dump(mode="json"),
        ),
        TraceEntry(
            TraceKind.PATH, f"causal path: {held}", {"holds": path.holds, "why": path.why_not(), "steps": steps}
        ),
    )


def _conclusion(said: Hypothesis, claims: tuple[Claim, ...], question: Question) -> tuple[Conclusion, tuple[str, ...]]:
    if said.conclusion is Conclusion.HEALTHY and not question.facts.recovered:
        return Conclusion.INSUFFICIENT_EVIDENCE, ("said to be healthy, but series are still outside their bounds",)
    if said.conclusion is Conclusion.CAUSE and not claims:
        return Conclusion.INSUFFICIENT_EVIDENCE, ("a cause without a single claim that stands",)
    return said.conclusion, ()


def _suspects(said: Hypothesis, question: Question) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Instances of the service that may be acted on: measured, and for memory, with memory of their own abnormal, or
    beyond its bound until a process of the service was killed for its memory."""
    measured = [name for name in said.suspect_instances if name in set(known_instances(question))]
    if said.category is not Category.MEMORY:
        return tuple(measured), ()
    kills = [item.began for item in question.read if _kill(item, question) and item.began is not None]
    proven = {item.subject for item in question.read if _abnormal_memory(item, kills)}
    return tuple(n for n in measured if n in proven), tuple(n for n in measured if n not in proven)


def _kill(item: Evidence, question: Question) -> bool:
    """What happened by the logs or the kernel is the end of a process for its memory; nothing else is told as such."""
    return item.kind in ("log", "activity") and item.sign is Sign.HAPPENED and item.service == question.service


def _abnormal_memory(item: Evidence, kills: Sequence[datetime]) -> bool:
    if item.signal is not Signal.MEMORY_RATIO:
        return False
    if item.sign is Sign.HAPPENED and item.began is not None:
        return any((kill - item.began).total_seconds() >= -LATE_S for kill in kills)
    return item.sign is Sign.ABNORMAL
