"""One score for a document from the cosines of its pieces and the words it shares with the query. Pure.

Scores are added on their own absolute scales, not by rank: a rank forgets how clear a case is, and the sum says by
itself whether anything fits. The four parts weigh the same; a fit of the weights on labelled queries gave no more.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from knowledge_base.lexical import NO_WORDS, WordFit
from knowledge_base.pieces import PieceKind
from knowledge_base.stored import Hit

WORDS_WEIGHT = 0.3
"""Of the coverage by words, beside the mean of the three cosines; 0.2 to 0.4 rank alike."""
TITLE_WEIGHT = 0.15
"""Of the square of the title's share in the query: half a title says little, nearly all of it much. 0.1 to 0.3 do."""
SECTIONS = 2
"""Best sections whose mean counts: a runbook of one fitting section among others fits less than one of two."""


@dataclass(slots=True)
class Candidate:
    """A document and how it fits. ``score`` is what is ranked by; ``chunk_id`` is its chunk that fits best."""

    document_id: int
    words: WordFit = NO_WORDS
    score: float = 0.0
    cosine: float | None = None
    chunk_id: int | None = None
    _sections: list[float] = field(default_factory=list)
    _window: float = -1.0
    _opening: float = -1.0

    def take(self, hit: Hit) -> None:
        """Counts one of its pieces."""
        if hit.kind is PieceKind.OPENING:
            self._opening = max(self._opening, hit.cosine)
        else:
            if hit.kind is PieceKind.SECTION:
                self._sections.append(hit.cosine)
            if hit.cosine > self._window:
                self._window, self.chunk_id = hit.cosine, hit.chunk_id
        self.cosine = hit.cosine if self.cosine is None else max(self.cosine, hit.cosine)

    def finish(self) -> None:
        """Makes the score from what was taken."""
        best = sorted(self._sections, reverse=True)[:SECTIONS]
        parts = [sum(best) / len(best)] if best else []
        parts += [cosine for cosine in (self._window, self._opening) if cosine > -1.0]
        self.score = (sum(parts) / len(parts) if parts else 0.0) + by_words(self.words) * WORDS_WEIGHT


def by_words(fit: WordFit) -> float:
    """Text and title as one figure: what documents are ranked by where nothing can be embedded."""
    return fit.text + TITLE_WEIGHT / WORDS_WEIGHT * fit.title**2


def fuse(hits: Iterable[Hit], words: Mapping[int, WordFit]) -> dict[int, Candidate]:
    """Candidates by document, from every piece of each (``hits``) and how it fits by ``words``."""
    found: dict[int, Candidate] = {}
    for hit in hits:
        candidate = found.get(hit.document_id)
        if candidate is None:
            candidate = found[hit.document_id] = Candidate(hit.document_id, words.get(hit.document_id, NO_WORDS))
        candidate.take(hit)
    for candidate in found.values():
        candidate.finish()
    return found
