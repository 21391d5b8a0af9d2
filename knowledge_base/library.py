"""One state of the knowledge base in memory: what is there, whose it is, and the indexes over its words and names."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import date

from knowledge_base.alerts import AlertIndex
from knowledge_base.lexical import LexicalIndex, WordFit, terms
from knowledge_base.pieces import name_of
from knowledge_base.stored import StoredChunk, StoredDocument
from pipeline.ports.knowledge import KnowledgeQuery

ANY = frozenset({"", "any", "all", "*"})
"""What a document says that is for every service or platform."""
TRUST_RANGE = 0.05
"""How much less a document that is not trusted at all counts than one that is trusted fully."""
FRESH_BONUS = 0.03
"""How much more a document counts that was verified today; one that does not say when is neither more nor less."""
FRESH_FOR_DAYS = 365
SAME_CATEGORY = 1.02


class Library:
    """Built once for a version of the knowledge base; then only read."""

    def __init__(self, documents: Sequence[StoredDocument], chunks: Sequence[StoredChunk]) -> None:
        self.documents: Mapping[int, StoredDocument] = {document.id: document for document in documents}
        self._ids = [document.id for document in documents]
        by_document: dict[int, list[StoredChunk]] = {document.id: [] for document in documents}
        for chunk in chunks:
            # A document that was put between the two reads is known at the next version.
            by_document.get(chunk.document_id, []).append(chunk)
        self.chunks: Mapping[int, Sequence[StoredChunk]] = by_document
        self.alerts = AlertIndex(documents)
        self._words = LexicalIndex(
            (
                name_of(document.path, document.title),
                "\n".join(chunk.text for chunk in by_document[document.id]),
            )
            for document in documents
        )

    def coverage(self, query: str) -> dict[int, WordFit]:
        """By document, how far it fits the words of ``query``; documents that share none are left out."""
        return {self._ids[place]: fit for place, fit in self._words.coverage(query).items()}

    def eligible(self, query: KnowledgeQuery) -> frozenset[int] | None:
        """Documents that are not for other services or another platform only; None when that leaves out none."""
        services = {service.casefold() for service in query.services}
        platform = query.platform.casefold()
        fitting = frozenset(
            number
            for number, document in self.documents.items()
            if _for(document.services, services) and _for((document.platform,), {platform} - ANY)
        )
        return fitting if len(fitting) < len(self.documents) else None

    def weight(self, number: int, query: KnowledgeQuery, today: date) -> float:
        """What trust, freshness and category make of a document's score: a factor near 1."""
        document = self.documents[number]
        factor = 1.0
        if document.trust is not None:
            factor -= TRUST_RANGE * (1 - min(max(document.trust, 0.0), 1.0))
        if document.last_verified is not None:
            age_days = max((today - document.last_verified).days, 0)
            factor += FRESH_BONUS * max(1 - age_days / FRESH_FOR_DAYS, 0.0)
        if query.category and document.category.casefold() == query.category.casefold():
            factor *= SAME_CATEGORY
        return factor

    def likeliest_chunk(self, number: int, query: str) -> int | None:
        """The chunk of a document that holds most words of ``query``; None when it has no chunks."""
        wanted = set(terms(query))
        shared = {chunk.id: len(wanted.intersection(terms(chunk.text))) for chunk in self.chunks[number]}
        return max(shared, key=lambda chunk: shared[chunk]) if shared else None


def _for(said: Sequence[str], wanted: set[str]) -> bool:
    names = {name.casefold() for name in said}
    return not wanted or names <= ANY or not ANY.isdisjoint(names) or not wanted.isdisjoint(names)
