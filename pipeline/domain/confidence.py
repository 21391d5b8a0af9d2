"""How far a diagnosis may be trusted: four measured parts on one 0..1 scale."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

PROPOSE_FROM = 0.70
"""Below this nothing is proposed: a person decides what to do."""
ACT_FROM = 0.85
"""Below this a person decides in every phase; from it on a phase that acts by itself may."""
ENOUGH_EVIDENCE = 5
"""Pieces of cited evidence that count as full volume."""


class Trust(StrEnum):
    """What a confidence is enough for."""

    NOTHING = "below 0.70: nothing is proposed"
    PROPOSAL = "proposal only"
    AUTONOMY = "enough to act where the phase allows"


@dataclass(frozen=True, slots=True)
class Confidence:
    """0.35 author + 0.25 reviewer + 0.25 retrieval relevance + 0.15 evidence volume, each 0..1."""

    author: float
    reviewer: float
    retrieval: float
    evidence: float

    @property
    def score(self) -> float:
        return 0.35 * self.author + 0.25 * self.reviewer + 0.25 * self.retrieval + 0.15 * self.evidence

    @property
    def trust(self) -> Trust:
        if not self.score >= PROPOSE_FROM:
            return Trust.NOTHING
        return Trust.AUTONOMY if self.score >= ACT_FROM else Trust.PROPOSAL

    def parts(self) -> str:
        """``author 0.95 · reviewer 0.80 · runbooks 0.74 · evidence 1.00``, for the card."""
        return (
            f"author {self.author:.2f} · reviewer {self.reviewer:.2f} · runbooks {self.retrieval:.2f}"
            f" · evidence {self.evidence:.2f}"
        )

    def arithmetic(self) -> str:
        """The four products, as shown in the thread."""
        return (
            f"0.35·author {self.author:.2f} + 0.25·reviewer {self.reviewer:.2f} + 0.25·retrieval {self.retrieval:.2f}"
            f" + 0.15·evidence {self.evidence:.2f} = {self.score:.2f}"
        )


def evidence_volume(cited: int) -> float:
    """Share of ``ENOUGH_EVIDENCE`` that the claims cite, at most 1."""
    return min(cited / ENOUGH_EVIDENCE, 1.0)
