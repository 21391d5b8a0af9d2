"""Vectors of the pieces in PostgreSQL by pgvector: one HNSW index for each size of vector in use."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import asyncpg

from knowledge_base.pieces import PieceKind
from knowledge_base.stored import FloatArray, Hit, StoredPiece, Transactions
from pipeline.domain.errors import PermanentError

MIN_PGVECTOR = (0, 8, 4)
"""Earlier ones: a CVE in parallel HNSW builds, and indexes damaged by vacuum."""
EF_SEARCH = 250
"""Candidates HNSW keeps while it searches; 40, its default, loses neighbours. See ``make bench``, hnsw."""
LARGEST_INDEXED = 4000
"""Dimensions that HNSW takes as half precision; larger vectors are searched exactly."""
EXACT_UP_TO = 5_000
"""Pieces that a filter may leave to be compared one by one, by btree and sort: faster than HNSW, and complete."""
INDEX_TIMEOUT_S = 1800.0
INDEX_LOCK_KEY = 0x5352_4556_4543  # "SREVEC"

PENDING = """
SELECT count(*) FROM pieces p
WHERE NOT EXISTS (SELECT FROM piece_vectors v WHERE v.piece_id = p.id AND v.model = $1 AND v.dimensions = $2)
"""

MISSING = """
SELECT p.id, p.text FROM pieces p
WHERE NOT EXISTS (SELECT FROM piece_vectors v WHERE v.piece_id = p.id AND v.model = $1)
ORDER BY p.id LIMIT $2
"""

FORGET_OTHER_SIZES = "DELETE FROM piece_vectors WHERE model = $1 AND dimensions <> $2"

# Only for pieces that still exist, held until the end: another replica may be replacing their document.
PUT_VECTOR = """
INSERT INTO piece_vectors (piece_id, document_id, model, embedding)
SELECT p.id, p.document_id, $2, $3::real[]::vector FROM pieces p WHERE p.id = $1 FOR KEY SHARE
ON CONFLICT (piece_id) DO UPDATE SET model = EXCLUDED.model, embedding = EXCLUDED.embedding
"""

INSTALLED = "SELECT extversion FROM pg_extension WHERE extname = 'vector'"

INDEXED = "SELECT to_regclass('piece_vectors_hnsw_' || $1::int) IS NOT NULL"
LOCK_INDEXES = "SELECT pg_advisory_xact_lock($1)"
CREATE_INDEX = "SELECT index_piece_vectors($1)"  # as the tables' owner, who the bot is not

SEARCH_SETTINGS = """
SELECT set_config('hnsw.ef_search', $1, true), set_config('hnsw.iterative_scan', 'relaxed_order', true)
"""

# The planner takes fetching and sorting tens of thousands of vectors for cheap: with a filter, too, the index is used.
ALONG_THE_INDEX = "SET LOCAL enable_sort = off"

# Relaxed order and half precision give rows nearly in order: more than are wanted are taken and sorted by the vectors.
NEAREST = """
WITH nearest AS MATERIALIZED (
    SELECT piece_id, embedding <=> $1::real[]::vector AS distance FROM piece_vectors
    WHERE dimensions = {size} AND model = $2{filter}
    ORDER BY embedding::halfvec({size}) <=> $1::real[]::halfvec({size}) LIMIT $3
)
SELECT p.id, p.document_id, p.chunk_id, p.kind, 1 - n.distance AS cosine
FROM nearest n JOIN pieces p ON p.id = n.piece_id ORDER BY n.distance, p.id
"""
WITHIN = " AND document_id = ANY ($4::bigint[])"

WITHIN_AT_MOST = """
SELECT count(*) FROM (SELECT FROM piece_vectors WHERE document_id = ANY ($1::bigint[]) LIMIT $2) AS few
"""

COSINES = """
SELECT p.id, p.document_id, p.chunk_id, p.kind, 1 - (v.embedding <=> $1::real[]::vector) AS cosine
FROM piece_vectors v JOIN pieces p ON p.id = v.piece_id
WHERE v.model = $2 AND v.dimensions = cardinality($1::real[])
  AND ($3::bigint[] IS NULL OR v.document_id = ANY ($3::bigint[]))
"""

NEAREST_EXACT = f"{COSINES} ORDER BY cosine DESC, p.id LIMIT $4"


class PgVectorStore:
    """Vectors of the pieces. Every method raises PermanentError where pgvector or its tables are missing or too old."""

    def __init__(self, pool: Transactions) -> None:
        self._pool = pool
        self._usable = False
        self._indexed: set[int] = set()

    async def pending(self, model: str, dimensions: int) -> int:
        async with self._pool.transaction() as db:
            await self._require(db)
            return int(await db.fetchval(PENDING, model, dimensions))

    async def forget_other_sizes(self, model: str, dimensions: int) -> None:
        async with self._pool.transaction() as db:
            await self._require(db)
            await db.execute(FORGET_OTHER_SIZES, model, dimensions)

    async def missing(self, model: str, limit: int) -> Sequence[StoredPiece]:
        async with self._pool.transaction() as db:
            await self._require(db)
            return [StoredPiece(*row) for row in await db.fetch(MISSING, model, limit)]

    async def put(self, model: str, piece_ids: Sequence[int], vectors: FloatArray) -> None:
        async with self._pool.transaction() as db:
            await self._require(db)
            await self._index(db, vectors.shape[1])
            rows = [(piece_id, model, row.tolist()) for piece_id, row in zip(piece_ids, vectors, strict=True)]
            await db.executemany(PUT_VECTOR, rows)

    async def nearest(
        self, model: str, vector: FloatArray, limit: int, *, within: Sequence[int] | None = None
    ) -> Sequence[Hit]:
        size, values = len(vector), vector.tolist()
        documents = None if within is None else list(within)
        async with self._pool.transaction() as db:
            await self._require(db)
            if size > LARGEST_INDEXED or (documents is not None and await self._few(db, documents)):
                return _hits(await db.fetch(NEAREST_EXACT, values, model, documents, limit))
            taken = limit + limit // 4 + 10
            await db.execute(SEARCH_SETTINGS, str(min(max(EF_SEARCH, taken), 1000)))
            if documents is None:
                rows = await db.fetch(NEAREST.format(size=size, filter=""), values, model, taken)
            else:
                await db.execute(ALONG_THE_INDEX)
                rows = await db.fetch(NEAREST.format(size=size, filter=WITHIN), values, model, taken, documents)
            return _hits(rows)[:limit]

    async def cosines(self, model: str, vector: FloatArray, documents: Sequence[int]) -> Sequence[Hit]:
        async with self._pool.transaction() as db:
            await self._require(db)
            return _hits(await db.fetch(COSINES, vector.tolist(), model, list(documents)))

    async def _few(self, db: Any, documents: list[int]) -> bool:
        return bool(await db.fetchval(WITHIN_AT_MOST, documents, EXACT_UP_TO + 1) <= EXACT_UP_TO)

    async def _index(self, db: Any, size: int) -> None:
        """An index for this size of vector, unless there is one. Waits for another replica that is making it."""
        if size in self._indexed or size > LARGEST_INDEXED:
            return
        if not await db.fetchval(INDEXED, size):
            await db.execute(LOCK_INDEXES, INDEX_LOCK_KEY)
            await db.execute(CREATE_INDEX, size, timeout=INDEX_TIMEOUT_S)
        self._indexed.add(size)

    async def _require(self, db: Any) -> None:
        if self._usable:
            return
        version = await db.fetchval(INSTALLED)
        wanted = ".".join(map(str, MIN_PGVECTOR))
        if version is None:
            raise PermanentError(f"the database has no pgvector: install its package ({wanted} or newer) on the server")
        if tuple(int(part) for part in re.findall(r"\d+", version)[:3]) < MIN_PGVECTOR:
            raise PermanentError(
                f"pgvector {version} is too old: install {wanted} or newer, ALTER EXTENSION vector UPDATE"
            )
        try:
            await db.fetchval("SELECT FROM piece_vectors LIMIT 0")
        except asyncpg.UndefinedTableError as error:
            raise PermanentError("the table of vectors is missing: start the bot once more to migrate") from error
        self._usable = True


def _hits(rows: Sequence[Mapping[str, Any]]) -> list[Hit]:
    return [
        Hit(row["id"], row["document_id"], row["chunk_id"], PieceKind(row["kind"]), float(row["cosine"]))
        for row in rows
    ]
