"""Finding the passages that fit: by meaning where a model and pgvector are there, by words where they are not."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from knowledge_base.lexical import LexicalIndex
from pipeline.domain.diagnosis import Passage
from pipeline.domain.errors import PermanentError, TemporaryError
from pipeline.ports.knowledge import Knowledge

FloatArray = npt.NDArray[np.float32]

EMBED_DEADLINE_S = 20.0
"""Longest wait for a query's vector: the model's first load takes 5 s alone and half a minute on a busy machine."""


@dataclass(frozen=True, slots=True)
class StoredChunk:
    """A chunk as the database keeps it; ``document`` is its path inside its collection."""

    id: int
    document: str
    heading: str
    text: str

    @property
    def searchable(self) -> str:
        """As ``Chunk.searchable``: what is embedded and ranked."""
        return f"{self.heading}\n{self.text}"


class Embedder(Protocol):
    """Texts into vectors of one model."""

    @property
    def name(self) -> str:
        """The model's name: vectors of different models are never compared."""
        ...

    async def embed(self, texts: Sequence[str]) -> FloatArray:
        """Shape (texts, dimensions), rows of length 1. Raises PermanentError when there is no such model here."""
        ...


class ChunkSource(Protocol):
    """Every chunk of the knowledge base."""

    async def version(self) -> str:
        """Changes whenever a document is added, changed or removed."""
        ...

    async def chunks(self) -> Sequence[StoredChunk]:
        """All of them, in a stable order."""
        ...


class VectorSearch(Protocol):
    """Nearest neighbours among the chunks' vectors. Raises PermanentError where the database has no pgvector."""

    async def pending(self, model: str) -> int:
        """Chunks that have no vector of ``model`` yet."""
        ...

    async def nearest(self, model: str, vector: FloatArray, limit: int) -> Sequence[tuple[StoredChunk, float]]:
        """The chunks with the highest cosine to ``vector`` (shape (dimensions,)), best first, each with that cosine."""
        ...


class Retrieval(Knowledge):
    """Search over the knowledge base. ``embedder`` and ``vectors`` are both given, or words alone are used."""

    def __init__(
        self,
        documents: ChunkSource,
        *,
        embedder: Embedder | None = None,
        vectors: VectorSearch | None = None,
        embed_deadline_s: float = EMBED_DEADLINE_S,
    ) -> None:
        self._documents = documents
        self._embedder = embedder
        self._vectors = vectors
        self._embed_deadline_s = embed_deadline_s
        self._index: tuple[str, tuple[StoredChunk, ...], LexicalIndex] | None = None
        self._embedded_version: str | None = None
        self._fallback = "" if embedder and vectors else "no embedding model is set up"

    @property
    def fallback(self) -> str:
        """Why the last search was by words alone; empty when it was by meaning."""
        return self._fallback

    async def search(self, query: str, *, limit: int) -> Sequence[Passage]:
        """The best passages, best first. ``score`` is the cosine (0..1) or that of ``LexicalIndex.rank``."""
        if self._embedder and self._vectors:
            try:
                found = await self._by_meaning(self._embedder, self._vectors, query, limit)
            except (PermanentError, TemporaryError) as error:
                self._fallback = str(error)
            else:
                self._fallback = ""
                return found
        return await self._by_words(query, limit)

    async def _by_meaning(
        self, embedder: Embedder, vectors: VectorSearch, query: str, limit: int
    ) -> tuple[Passage, ...]:
        version = await self._documents.version()
        if self._embedded_version != version:
            pending = await vectors.pending(embedder.name)
            if pending:
                raise TemporaryError(f"{pending} passages are not embedded yet")
            self._embedded_version = version
        try:
            embedded = await asyncio.wait_for(embedder.embed([query]), self._embed_deadline_s)
        except TimeoutError as error:
            waited = f"{self._embed_deadline_s:.0f} s"
            raise TemporaryError(f"the embedding model gave no answer within {waited}") from error
        found = await vectors.nearest(embedder.name, embedded[0], limit)
        return tuple(
            Passage(chunk.document, chunk.heading, chunk.text, min(max(cosine, 0.0), 1.0), "vector")
            for chunk, cosine in found
        )

    async def _by_words(self, query: str, limit: int) -> tuple[Passage, ...]:
        version = await self._documents.version()
        if self._index is None or self._index[0] != version:
            chunks = tuple(await self._documents.chunks())
            index = await asyncio.to_thread(LexicalIndex, [chunk.searchable for chunk in chunks])
            self._index = (version, chunks, index)
        _, known, ranking = self._index
        return tuple(
            Passage(known[number].document, known[number].heading, known[number].text, score, "lexical")
            for number, score in ranking.rank(query, limit)
        )
