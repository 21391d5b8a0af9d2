"""A diagnosis: what is said, what each sentence rests on, and who said it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from pipeline.domain.confidence import Confidence
from pipeline.domain.ids import EvidenceId, ServiceName

EvidenceKind = Literal["anomaly", "metric", "topology", "target", "change", "log", "trace", "activity", "ranking"]


class Category(StrEnum):
    """The closed list of causes that a strategy may be built on."""

    MEMORY = "memory"
    SATURATION = "saturation"
    BAD_CHANGE = "bad_change"
    DISK = "disk"
    CERTIFICATE = "certificate"
    UNKNOWN = "unknown"


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


@dataclass(frozen=True, slots=True)
class Passage:
    """A retrieved piece of a runbook; ``score`` is its relevance, 0..1 (cosine, or the lexical score's share)."""

    document: str
    heading: str
    text: str
    score: float
    method: Literal["vector", "lexical"]


class Claim(BaseModel):
    """One sentence and the evidence that carries it."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    text: Annotated[str, Field(min_length=1, max_length=600)]
    evidence: Annotated[tuple[str, ...], Field(min_length=1, max_length=8)]


class Hypothesis(BaseModel):
    """What a diagnostician, model or rules, may say. Anything else it writes is refused."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    category: Category
    root_cause: Annotated[str, Field(min_length=1, max_length=600)]
    suspect_instances: tuple[str, ...] = ()
    claims: Annotated[tuple[Claim, ...], Field(max_length=8)]
    certainty: Annotated[float, Field(ge=0, le=1)]


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


def check_claims(hypothesis: Hypothesis, evidence: tuple[Evidence, ...]) -> tuple[tuple[Claim, ...], tuple[str, ...]]:
    """Keeps the claims whose every evidence id exists in this incident; names the rest in the second value."""
    known = {item.id for item in evidence}
    kept = tuple(claim for claim in hypothesis.claims if all(EvidenceId(cited) in known for cited in claim.evidence))
    dropped = tuple(
        f"claim without evidence left out: {claim.text[:120]}" for claim in hypothesis.claims if claim not in kept
    )
    return kept, dropped
