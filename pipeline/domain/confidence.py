"""How far a diagnosis may be trusted: four measured parts on one 0..1 scale."""

from __future__ import annotations

from dataclasses import dataclass

PROPOSE_FROM = 0.70
"""Below this nothing is proposed: a person decides what to do."""
ENOUGH_EVIDENCE = 5
"""Pieces of cited evidence that count as full volume."""


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

    def arithmetic(self) -> str:
        """The four products, as shown in the thread."""
        return (
            f"0.35·author {self.author:.2f} + 0.25·reviewer {self.reviewer:.2f} + 0.25·retrieval {self.retrieval:.2f}"
            f" + 0.15·evidence {self.evidence:.2f} = {self.score:.2f}"
        )


def evidence_volume(cited: int) -> float:
    """Share of ``ENOUGH_EVIDENCE`` that the claims cite, at most 1."""
    return min(cited / ENOUGH_EVIDENCE, 1.0)
