"""Documents, chunks and vectors in memory: for ``kb eval``, which needs no database."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from knowledge_base.chunking import Document
from knowledge_base.exact import ExactVectors
from knowledge_base.pieces import PieceKind, pieces
from knowledge_base.stored import FloatArray, Hit, StoredChunk, StoredDocument, StoredPiece


@dataclass(frozen=True, slots=True)
class _Kept:
    id: int
    document: Document
    chunks: Mapping[str, StoredChunk]
    pieces: Mapping[str, tuple[StoredPiece, int, PieceKind]]


class MemoryDocuments:
    """Keeps what ``PostgresDocuments`` keeps, with the same answers, as long as the process lives."""

    def __init__(self) -> None:
        self._numbers = itertools.count(1)
        self._kept: dict[tuple[str, str], _Kept] = {}
        self._changes = 0

    async def hashes(self, collection: str) -> Mapping[str, str]:
        return {path: kept.document.content_hash for (name, path), kept in self._kept.items() if name == collection}

    async def put(self, collection: str, document: Document) -> None:
        before = self._kept.get((collection, document.path))
        number = before.id if before else next(self._numbers)
        chunks: dict[str, StoredChunk] = {}
        for chunk in document.chunks:
            same = before.chunks.get(chunk.content_hash) if before else None
            chunks[chunk.content_hash] = same or StoredChunk(next(self._numbers), number, chunk.heading, chunk.text)
        ids = [chunks[chunk.content_hash].id for chunk in document.chunks]
        found = {}
        for piece in pieces(document.path, document.title, [chunk.text for chunk in document.chunks]):
            known = before.pieces.get(piece.content_hash) if before else None
            stored = known[0] if known else StoredPiece(next(self._numbers), piece.text)
            found[piece.content_hash] = (stored, ids[piece.chunk], piece.kind)
        self._kept[collection, document.path] = _Kept(number, document, chunks, found)
        self._changes += 1

    async def remove(self, collection: str, paths: Sequence[str]) -> None:
        for path in paths:
            self._kept.pop((collection, path), None)
        self._changes += 1

    async def version(self) -> str:
        return f"{len(self._kept)} documents, change {self._changes}"

    async def documents(self) -> Sequence[StoredDocument]:
        return [_stored(kept.id, kept.document) for kept in self._in_order()]

    async def chunks(self) -> Sequence[StoredChunk]:
        return [chunk for kept in self._in_order() for chunk in kept.chunks.values()]

    def pieces(self) -> Iterator[tuple[StoredPiece, int, int, PieceKind]]:
        """Every piece, with the ids of its document and its chunk."""
        for kept in self._in_order():
            for piece, chunk, kind in kept.pieces.values():
                yield piece, kept.id, chunk, kind

    def _in_order(self) -> list[_Kept]:
        return [kept for _, kept in sorted(self._kept.items(), key=lambda item: item[0])]


class MemoryVectors:
    """Keeps what ``PgVectorStore`` keeps, with the same answers, for the pieces of ``documents``."""

    def __init__(self, documents: MemoryDocuments) -> None:
        self._documents = documents
        self._vectors: dict[int, tuple[str, FloatArray]] = {}
        self._gathered: tuple[tuple[object, ...], ExactVectors] | None = None
        self._puts = 0

    async def pending(self, model: str, dimensions: int) -> int:
        there = {number for number, (of, vector) in self._vectors.items() if of == model and len(vector) == dimensions}
        return sum(piece.id not in there for piece, _, _, _ in self._documents.pieces())

    async def forget_other_sizes(self, model: str, dimensions: int) -> None:
        self._vectors = {
            piece_id: (of, vector)
            for piece_id, (of, vector) in self._vectors.items()
            if of != model or len(vector) == dimensions
        }

    async def missing(self, model: str, limit: int) -> Sequence[StoredPiece]:
        return sorted(self._without(model), key=lambda piece: piece.id)[:limit]

    async def put(self, model: str, piece_ids: Sequence[int], vectors: FloatArray) -> None:
        self._vectors.update(zip(piece_ids, ((model, vector) for vector in vectors), strict=True))
        self._puts += 1

    async def nearest(
        self, model: str, vector: FloatArray, limit: int, *, within: Sequence[int] | None = None
    ) -> Sequence[Hit]:
        return (await self._exact(model, len(vector))).nearest(vector, limit, within)

    async def cosines(self, model: str, vector: FloatArray, documents: Sequence[int]) -> Sequence[Hit]:
        return (await self._exact(model, len(vector))).cosines(vector, documents)

    def _without(self, model: str) -> list[StoredPiece]:
        return [piece for piece, _, _, _ in self._documents.pieces() if self._vectors.get(piece.id, ("",))[0] != model]

    async def _exact(self, model: str, dimensions: int) -> ExactVectors:
        state = (model, dimensions, self._puts, await self._documents.version())
        if self._gathered is None or self._gathered[0] != state:
            keys, vectors = [], []
            for piece, document, chunk, kind in self._documents.pieces():
                of, vector = self._vectors.get(piece.id, ("", None))
                if of == model and vector is not None and len(vector) == dimensions:
                    keys.append((piece.id, document, chunk, int(kind)))
                    vectors.append(vector)
            self._gathered = (state, ExactVectors.of(keys, vectors))
        return self._gathered[1]


def _stored(number: int, document: Document) -> StoredDocument:
    meta = document.meta
    return StoredDocument(
        id=number,
        path=document.path,
        title=document.title,
        alerts=document.alerts,
        services=meta.services,
        platform=meta.platform,
        category=meta.category,
        trust=meta.trust,
        last_verified=meta.last_verified,
    )
