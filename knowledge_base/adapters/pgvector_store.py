"""Documents, chunks and their vectors in PostgreSQL; the vectors need pgvector, the rest does not."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any, Protocol

import asyncpg

from knowledge_base.chunking import Document
from knowledge_base.retrieval import FloatArray, StoredChunk
from pipeline.domain.errors import PermanentError

MIN_PGVECTOR = (0, 8, 4)
"""Earlier ones: a CVE in parallel HNSW builds, and indexes damaged by vacuum."""
EF_SEARCH = 100
"""Candidates HNSW keeps while it searches; 40, its default, loses neighbours."""

HASHES = "SELECT path, content_hash FROM documents WHERE collection = $1"

PUT_DOCUMENT = """
INSERT INTO documents (collection, path, title, services, category, platform, owner, last_verified, content_hash)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)
ON CONFLICT (collection, path) DO UPDATE SET
    title = EXCLUDED.title, services = EXCLUDED.services, category = EXCLUDED.category, platform = EXCLUDED.platform,
    owner = EXCLUDED.owner, last_verified = EXCLUDED.last_verified, content_hash = EXCLUDED.content_hash,
    ingested_at = clock_timestamp()
RETURNING id
"""

DROP_CHUNKS = "DELETE FROM chunks WHERE document_id = $1 AND content_hash <> ALL ($2::text[])"

PUT_CHUNK = """
INSERT INTO chunks (document_id, number, heading, text, content_hash) VALUES ($1, $2, $3, $4, $5)
ON CONFLICT (document_id, content_hash) DO UPDATE SET number = EXCLUDED.number
"""

REMOVE = "DELETE FROM documents WHERE collection = $1 AND path = ANY ($2::text[])"

# A removal changes the number of documents, anything else the newest time.
VERSION = "SELECT count(*) || ' documents, newest ' || coalesce(max(ingested_at)::text, 'none') FROM documents"

CHUNKS = """
SELECT c.id, d.path, c.heading, c.text FROM chunks c JOIN documents d ON d.id = c.document_id
ORDER BY d.collection, d.path, c.number
"""

PENDING = """
SELECT count(*) FROM chunks c
WHERE NOT EXISTS (SELECT FROM chunk_vectors v WHERE v.chunk_id = c.id AND v.model = $1)
"""

MISSING = """
SELECT c.id, d.path, c.heading, c.text FROM chunks c JOIN documents d ON d.id = c.document_id
WHERE NOT EXISTS (SELECT FROM chunk_vectors v WHERE v.chunk_id = c.id AND v.model = $1)
ORDER BY c.id LIMIT $2
"""

# Only for chunks that still exist, held until the end: another replica may be replacing their document.
PUT_VECTOR = """
INSERT INTO chunk_vectors (chunk_id, model, embedding)
SELECT c.id, $2, $3::real[]::vector FROM chunks c WHERE c.id = $1 FOR KEY SHARE
ON CONFLICT (chunk_id) DO UPDATE SET model = EXCLUDED.model, embedding = EXCLUDED.embedding
"""

INSTALLED = "SELECT extversion FROM pg_extension WHERE extname = 'vector'"

SEARCH_SETTINGS = """
SELECT set_config('hnsw.ef_search', $1, true), set_config('hnsw.iterative_scan', 'relaxed_order', true)
"""

# Relaxed order gives rows nearly in order, hence the second sort. The index takes one fixed size: see the migration.
NEAREST_384 = """
WITH nearest AS MATERIALIZED (
    SELECT chunk_id, embedding::vector(384) <=> $1::real[]::vector(384) AS distance
    FROM chunk_vectors WHERE dimensions = 384 AND model = $2
    ORDER BY embedding::vector(384) <=> $1::real[]::vector(384) LIMIT $3
)
SELECT c.id, d.path, c.heading, c.text, 1 - n.distance AS cosine
FROM nearest n JOIN chunks c ON c.id = n.chunk_id JOIN documents d ON d.id = c.document_id
ORDER BY n.distance, c.id
"""

NEAREST_ANY_SIZE = """
WITH nearest AS MATERIALIZED (
    SELECT chunk_id, embedding <=> $1::real[]::vector AS distance
    FROM chunk_vectors WHERE dimensions = cardinality($1::real[]) AND model = $2
    ORDER BY distance LIMIT $3
)
SELECT c.id, d.path, c.heading, c.text, 1 - n.distance AS cosine
FROM nearest n JOIN chunks c ON c.id = n.chunk_id JOIN documents d ON d.id = c.document_id
ORDER BY n.distance, c.id
"""


class Transactions(Protocol):
    """A pool of asyncpg connections; it turns a database that is away into TemporaryError."""

    def transaction(self) -> AbstractAsyncContextManager[Any]:
        """A connection inside a transaction."""
        ...


class PostgresDocuments:
    """Documents and chunks. Safe to run from several replicas at once: a document's row is the lock on its chunks."""

    def __init__(self, pool: Transactions) -> None:
        self._pool = pool

    async def hashes(self, collection: str) -> Mapping[str, str]:
        async with self._pool.transaction() as db:
            return {row["path"]: row["content_hash"] for row in await db.fetch(HASHES, collection)}

    async def put(self, collection: str, document: Document) -> None:
        meta = document.meta
        async with self._pool.transaction() as db:
            document_id = await db.fetchval(
                PUT_DOCUMENT,
                collection,
                document.path,
                document.title,
                list(meta.services),
                meta.category,
                meta.platform,
                meta.owner,
                meta.last_verified,
                document.content_hash,
            )
            await db.execute(DROP_CHUNKS, document_id, [chunk.content_hash for chunk in document.chunks])
            await db.executemany(
                PUT_CHUNK,
                [
                    (document_id, number, chunk.heading, chunk.text, chunk.content_hash)
                    for number, chunk in enumerate(document.chunks)
                ],
            )

    async def remove(self, collection: str, paths: Sequence[str]) -> None:
        async with self._pool.transaction() as db:
            await db.execute(REMOVE, collection, list(paths))

    async def version(self) -> str:
        async with self._pool.transaction() as db:
            return str(await db.fetchval(VERSION))

    async def chunks(self) -> Sequence[StoredChunk]:
        async with self._pool.transaction() as db:
            return [_chunk(row) for row in await db.fetch(CHUNKS)]


class PgVectorStore:
    """Vectors of the chunks. Every method raises PermanentError where pgvector or its tables are missing or too old."""

    def __init__(self, pool: Transactions) -> None:
        self._pool = pool
        self._usable = False

    async def pending(self, model: str) -> int:
        async with self._pool.transaction() as db:
            await self._require(db)
            return int(await db.fetchval(PENDING, model))

    async def missing(self, model: str, limit: int) -> Sequence[StoredChunk]:
        async with self._pool.transaction() as db:
            await self._require(db)
            return [_chunk(row) for row in await db.fetch(MISSING, model, limit)]

    async def put(self, model: str, chunk_ids: Sequence[int], vectors: FloatArray) -> None:
        async with self._pool.transaction() as db:
            await self._require(db)
            rows = [(chunk_id, model, row.tolist()) for chunk_id, row in zip(chunk_ids, vectors, strict=True)]
            await db.executemany(PUT_VECTOR, rows)

    async def nearest(self, model: str, vector: FloatArray, limit: int) -> Sequence[tuple[StoredChunk, float]]:
        statement = NEAREST_384 if vector.shape == (384,) else NEAREST_ANY_SIZE
        async with self._pool.transaction() as db:
            await self._require(db)
            await db.execute(SEARCH_SETTINGS, str(max(EF_SEARCH, limit)))
            rows = await db.fetch(statement, vector.tolist(), model, limit)
            return [(_chunk(row), float(row["cosine"])) for row in rows]

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
            await db.fetchval("SELECT FROM chunk_vectors LIMIT 0")
        except asyncpg.UndefinedTableError as error:
            raise PermanentError("the table of vectors is missing: start the bot once more to migrate") from error
        self._usable = True


def _chunk(row: Mapping[str, Any]) -> StoredChunk:
    return StoredChunk(row["id"], row["path"], row["heading"], row["text"])
