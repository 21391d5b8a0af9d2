"""What a store keeps of the knowledge base, and what search and ingest ask of one."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from datetime import date
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from knowledge_base.pieces import PieceKind

FloatArray = npt.NDArray[np.float32]


class Transactions(Protocol):
    """A pool of asyncpg connections with JSON codecs; it turns a database that is away into TemporaryError."""

    def transaction(self) -> AbstractAsyncContextManager[Any]:
        """A connection inside a transaction."""
        ...


@dataclass(frozen=True, slots=True)
class StoredDocument:
    """A document without its text; ``path`` is relative to its collection."""

    id: int
    path: str
    title: str
    alerts: tuple[str, ...] = ()
    services: tuple[str, ...] = ()
    platform: str = ""
    category: str = ""
    trust: float | None = None
    last_verified: date | None = None


@dataclass(frozen=True, slots=True)
class StoredChunk:
    """A chunk as a store keeps it: what is shown."""

    id: int
    document_id: int
    heading: str
    text: str


@dataclass(frozen=True, slots=True)
class StoredPiece:
    """A piece of a document as a store keeps it: ``text`` is what is embedded."""

    id: int
    text: str


@dataclass(frozen=True, slots=True)
class Hit:
    """How near a piece is to a query: ``cosine``, -1..1."""

    piece_id: int
    document_id: int
    chunk_id: int
    kind: PieceKind
    cosine: float


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
    """Every document of the knowledge base and its chunks."""

    async def version(self) -> str:
        """Changes whenever a document is added, changed or removed."""
        ...

    async def documents(self) -> Sequence[StoredDocument]:
        """All of them, in a stable order."""
        ...

    async def chunks(self) -> Sequence[StoredChunk]:
        """All of them, those of a document together and in its order."""
        ...


class VectorSearch(Protocol):
    """Cosines between a query's vector, shape (dimensions,), and the pieces' vectors of the same model and size.

    Every method raises PermanentError where vectors cannot be kept.
    """

    async def pending(self, model: str, dimensions: int) -> int:
        """How many pieces have no vector of ``model`` in this size."""
        ...

    async def nearest(
        self, model: str, vector: FloatArray, limit: int, *, within: Sequence[int] | None = None
    ) -> Sequence[Hit]:
        """The pieces with the highest cosine, best first. ``within``: only pieces of the documents with these ids."""
        ...

    async def cosines(self, model: str, vector: FloatArray, documents: Sequence[int]) -> Sequence[Hit]:
        """Every piece of these documents; in no order."""
        ...
