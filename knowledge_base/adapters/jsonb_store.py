"""Vectors of the pieces in PostgreSQL without pgvector: kept as JSONB, read as a whole and compared here, exactly."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

from knowledge_base.exact import ExactVectors
from knowledge_base.stored import FloatArray, Hit, StoredPiece, Transactions

READ_TIMEOUT_S = 60.0
"""For all vectors at once: 100,000 are half a gigabyte of JSON."""

PENDING = """
SELECT count(*) FROM pieces p
WHERE NOT EXISTS (SELECT FROM piece_vectors_json v WHERE v.piece_id = p.id AND v.model = $1 AND v.dimensions = $2)
"""

MISSING = """
SELECT p.id, p.text FROM pieces p
WHERE NOT EXISTS (SELECT FROM piece_vectors_json v WHERE v.piece_id = p.id AND v.model = $1)
ORDER BY p.id LIMIT $2
"""

FORGET_OTHER_SIZES = "DELETE FROM piece_vectors_json WHERE model = $1 AND dimensions <> $2"

# Only for pieces that still exist, held until the end: another replica may be replacing their document.
PUT_VECTOR = """
INSERT INTO piece_vectors_json (piece_id, model, dimensions, embedding)
SELECT p.id, $2, cardinality($3::real[]), to_jsonb($3::real[]) FROM pieces p WHERE p.id = $1 FOR KEY SHARE
ON CONFLICT (piece_id) DO UPDATE SET
    model = EXCLUDED.model, dimensions = EXCLUDED.dimensions, embedding = EXCLUDED.embedding
"""

# A piece never changes its text, so the set of pieces says whether the vectors of a model are still the same.
STATE = """
SELECT count(*), sum(piece_id), sum(piece_id % 8191 * (piece_id % 127)) FROM piece_vectors_json
WHERE model = $1 AND dimensions = $2
"""

VECTORS = """
SELECT p.id, p.document_id, p.chunk_id, p.kind, v.embedding FROM piece_vectors_json v JOIN pieces p ON p.id = v.piece_id
WHERE v.model = $1 AND v.dimensions = $2 ORDER BY p.id
"""


class JsonVectorStore:
    """The fallback for ``PgVectorStore``, with the same answers; its time grows with the number of pieces."""

    def __init__(self, pool: Transactions) -> None:
        self._pool = pool
        self._read: tuple[tuple[object, ...], ExactVectors] | None = None
        self._reading = asyncio.Lock()

    async def pending(self, model: str, dimensions: int) -> int:
        async with self._pool.transaction() as db:
            return int(await db.fetchval(PENDING, model, dimensions))

    async def forget_other_sizes(self, model: str, dimensions: int) -> None:
        async with self._pool.transaction() as db:
            await db.execute(FORGET_OTHER_SIZES, model, dimensions)

    async def missing(self, model: str, limit: int) -> Sequence[StoredPiece]:
        async with self._pool.transaction() as db:
            return [StoredPiece(*row) for row in await db.fetch(MISSING, model, limit)]

    async def put(self, model: str, piece_ids: Sequence[int], vectors: FloatArray) -> None:
        async with self._pool.transaction() as db:
            rows = [(piece_id, model, row.tolist()) for piece_id, row in zip(piece_ids, vectors, strict=True)]
            await db.executemany(PUT_VECTOR, rows)

    async def nearest(
        self, model: str, vector: FloatArray, limit: int, *, within: Sequence[int] | None = None
    ) -> Sequence[Hit]:
        known = await self._vectors(model, len(vector))
        return await asyncio.to_thread(known.nearest, vector, limit, within)

    async def cosines(self, model: str, vector: FloatArray, documents: Sequence[int]) -> Sequence[Hit]:
        known = await self._vectors(model, len(vector))
        return await asyncio.to_thread(known.cosines, vector, documents)

    async def _vectors(self, model: str, dimensions: int) -> ExactVectors:
        async with self._reading, self._pool.transaction() as db:
            state = (model, dimensions, *(await db.fetchrow(STATE, model, dimensions)))
            if self._read is None or self._read[0] != state:
                rows = await db.fetch(VECTORS, model, dimensions, timeout=READ_TIMEOUT_S)
                self._read = (state, await asyncio.to_thread(_exact, rows))
            return self._read[1]


def _exact(rows: Sequence[Mapping[str, Any]]) -> ExactVectors:
    return ExactVectors.of(
        [(row["id"], row["document_id"], row["chunk_id"], row["kind"]) for row in rows],
        [row["embedding"] for row in rows],
    )
