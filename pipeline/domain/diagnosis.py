"""A diagnosis: what is said, what each sentence rests on, and who said it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from pipeline.domain.confidence import Confidence
from pipeline.domain.ids import EvidenceId, ServiceName
from pipeline.domain.telemetry import Signal
from pipeline.domain.trace import JsonValue

EvidenceKind = Literal[
    "anomaly", "metric", "topology", "target", "change", "log", "trace", "activity", "ranking", "knowledge"
]
MAX_STEPS = 6
MAX_CLAIMS = 8
_NO_SERVICE = ServiceName("")


class Category(StrEnum):
    """The closed list of causes that a strategy may be built on."""

    MEMORY = "memory"
    SATURATION = "saturation"
    BAD_CHANGE = "bad_change"
    DISK = "disk"
    CERTIFICATE = "certificate"
    UNKNOWN = "unknown"


class Conclusion(StrEnum):
    """What kind of result a diagnosis is; only a cause can be acted on."""

    CAUSE = "cause"
    INSUFFICIENT_EVIDENCE = "insufficient_evidence"
    HEALTHY = "healthy"


class Sign(StrEnum):
    """What code judged of a fact when it was read: no author has a say in it."""

    ABNORMAL = "abnormal"
    """Outside what is usual or allowed."""
    NORMAL = "normal"
    HAPPENED = "happened"
    """Something took place at ``began``: a change, a rollout, a restart."""
    STATED = "stated"
    """Context: neither for nor against anything."""


@dataclass(frozen=True, slots=True)
class Evidence:
    """One fact, as it was read: ``query`` over ``window`` (UTC) gave ``statement``. Stored, never recomputed."""

    id: EvidenceId
    kind: EvidenceKind
    statement: str
    query: str
    window_from: datetime
    window_to: datetime
    subject: str = ""
    """The instance, service or document the fact is about."""
    service: ServiceName = _NO_SERVICE
    """The service it belongs to; empty for documents."""
    sign: Sign = Sign.STATED
    signal: Signal | None = None
    """What was measured; None for what is no metric."""
    began: datetime | None = None
    """Since when it is so, or when it happened; None where that cannot be told."""
    value: float | None = None
    """In the unit of ``signal``."""
    snapshot: Mapping[str, JsonValue] = field(default_factory=dict)
    """The values as they were read, so that the fact can be checked later."""


@dataclass(frozen=True, slots=True)
class Passage:
    """A retrieved piece of a document; ``score`` is its relevance on an absolute scale, 0..1."""

    document: str
    heading: str
    text: str
    score: float
    method: Literal["alert", "rerank", "hybrid", "vector", "lexical"]


class _Said(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Citation(_Said):
    """An id of this very prompt, and words that stand there exactly so."""

    id: Annotated[str, Field(max_length=20)]
    quote: Annotated[str, Field(max_length=400)]


class Claim(_Said):
    """One sentence and the evidence that carries it."""

    text: Annotated[str, Field(min_length=1, max_length=600)]
    evidence: Annotated[tuple[Citation, ...], Field(min_length=1, max_length=8)]

    @property
    def ids(self) -> tuple[str, ...]:
        return tuple(citation.id for citation in self.evidence)


class PathStep(_Said):
    """One link of the chain from the cause to the symptom, and the ids of the evidence that shows it."""

    what: Annotated[str, Field(min_length=1, max_length=300)]
    service: Annotated[str, Field(min_length=1, max_length=253)]
    evidence: Annotated[tuple[str, ...], Field(max_length=4)]


class Alternative(_Said):
    """A competing cause, and why it was not taken."""

    category: Category
    root_cause: Annotated[str, Field(min_length=1, max_length=300)]
    why_not: Annotated[str, Field(min_length=1, max_length=300)]


class Hypothesis(_Said):
    """What a diagnostician, model or rules, may say. Anything else it writes is refused.

    ``path``: cause first, symptom last. ``missing``: what would have to be read to be sure.
    """

    conclusion: Conclusion
    category: Category
    root_cause: Annotated[str, Field(min_length=1, max_length=600)]
    suspect_instances: tuple[str, ...] = ()
    claims: Annotated[tuple[Claim, ...], Field(max_length=MAX_CLAIMS)]
    path: Annotated[tuple[PathStep, ...], Field(max_length=MAX_STEPS)] = ()
    alternatives: Annotated[tuple[Alternative, ...], Field(max_length=3)] = ()
    missing: Annotated[tuple[Annotated[str, Field(min_length=1, max_length=200)], ...], Field(max_length=5)] = ()
    certainty: Annotated[float, Field(ge=0, le=1)]


@dataclass(frozen=True, slots=True)
class CheckedStep:
    """A step of the path after code looked at it. ``problem`` is empty where the step, and the hop to it, hold."""

    what: str
    service: str
    evidence: tuple[str, ...]
    problem: str = ""
    found: str = ""
    """What the check found, in a few words: ``2 min earlier; called by checkout``."""


@dataclass(frozen=True, slots=True)
class CheckedPath:
    """The causal path as checked. It holds when it has a cause and a symptom and every step of it holds."""

    steps: tuple[CheckedStep, ...] = ()
    problem: str = "no causal path was given"
    """What is wrong with the path as a whole; empty when nothing is."""

    @property
    def holds(self) -> bool:
        return not self.problem and bool(self.steps) and not any(step.problem for step in self.steps)

    def why_not(self) -> str:
        """The first thing that is wrong, in one line; empty when the path holds."""
        return next((f"{step.what}: {step.problem}" for step in self.steps if step.problem), self.problem)


@dataclass(frozen=True, slots=True)
class Opinion:
    """What a reviewer said. ``score`` 0..1 is how far it agrees; ``notes`` are for the thread."""

    reviewer: str
    score: float
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """The checked result. ``source`` is ``rules`` or a model's name, as the card shows it."""

    service: ServiceName
    category: Category
    root_cause: str
    suspect_instances: tuple[str, ...]
    claims: tuple[Claim, ...]
    confidence: Confidence
    source: str
    notes: tuple[str, ...] = ()
    """What the checks took away or fell back from, in words for the card and the thread."""
    conclusion: Conclusion = Conclusion.CAUSE
    path: CheckedPath = CheckedPath()
    alternatives: tuple[Alternative, ...] = ()
    missing: tuple[str, ...] = ()
    opinions: tuple[Opinion, ...] = ()
    novel: bool = False
    """Nothing in the knowledge base is like this incident."""
    cached_from: str = ""
    """The incident whose diagnosis this was first; empty when it was made anew."""


def check_claims(claims: tuple[Claim, ...], shown: Mapping[str, str]) -> tuple[tuple[Claim, ...], tuple[str, ...]]:
    """Keeps the claims whose every citation stands in ``shown`` (text by id, as the author was given it) word for word.

    The second value names the others, each with what is wrong.
    """
    kept: list[Claim] = []
    dropped: list[str] = []
    for claim in claims:
        wrong = next((problem for cited in claim.evidence if (problem := _miscited(cited, shown))), "")
        if wrong:
            dropped.append(f"claim left out, {wrong}: {claim.text[:120]}")
        else:
            kept.append(claim)
    return tuple(kept), tuple(dropped)


def _miscited(cited: Citation, shown: Mapping[str, str]) -> str:
    text = shown.get(cited.id)
    if text is None:
        return f"{cited.id[:12]} was not given"
    if not cited.quote.strip() or cited.quote not in text:
        return f"its quote does not stand in {cited.id[:12]}"
    return ""
