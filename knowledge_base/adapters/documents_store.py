"""Documents and their chunks in PostgreSQL."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from knowledge_base.chunking import Document
from knowledge_base.pieces import pieces
from knowledge_base.stored import StoredChunk, StoredDocument, Transactions

HASHES = "SELECT path, content_hash FROM documents WHERE collection = $1"

PUT_DOCUMENT = """
INSERT INTO documents (collection, path, title, services, category, platform, owner, last_verified, content_hash,
                       alerts, kind, trust, source)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13)
ON CONFLICT (collection, path) DO UPDATE SET
    title = EXCLUDED.title, services = EXCLUDED.services, category = EXCLUDED.category, platform = EXCLUDED.platform,
    owner = EXCLUDED.owner, last_verified = EXCLUDED.last_verified, content_hash = EXCLUDED.content_hash,
    alerts = EXCLUDED.alerts, kind = EXCLUDED.kind, trust = EXCLUDED.trust, source = EXCLUDED.source,
    ingested_at = clock_timestamp()
RETURNING id
"""

DROP_CHUNKS = "DELETE FROM chunks WHERE document_id = $1 AND content_hash <> ALL ($2::text[])"

PUT_CHUNK = """
INSERT INTO chunks (document_id, number, heading, text, content_hash) VALUES ($1, $2, $3, $4, $5)
ON CONFLICT (document_id, content_hash) DO UPDATE SET number = EXCLUDED.number
"""

# A chunk that went took its pieces with it; of the others, an opening or a title may have changed.
DROP_PIECES = "DELETE FROM pieces WHERE document_id = $1 AND content_hash <> ALL ($2::text[])"

PUT_PIECE = """
INSERT INTO pieces (document_id, chunk_id, kind, text, content_hash)
SELECT $1, c.id, $3, $4, $5 FROM chunks c WHERE c.document_id = $1 AND c.content_hash = $2
ON CONFLICT (document_id, content_hash) DO UPDATE SET chunk_id = EXCLUDED.chunk_id
"""

REMOVE = "DELETE FROM documents WHERE collection = $1 AND path = ANY ($2::text[])"

# A removal changes the number of documents, anything else the newest time.
VERSION = "SELECT count(*) || ' documents, newest ' || coalesce(max(ingested_at)::text, 'none') FROM documents"

DOCUMENTS = """
SELECT id, path, title, alerts, services, platform, category, trust, last_verified FROM documents
ORDER BY collection, path
"""

CHUNKS = """
SELECT c.id, c.document_id, c.heading, c.text FROM chunks c JOIN documents d ON d.id = c.document_id
ORDER BY d.collection, d.path, c.number
"""


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
                list(document.alerts),
                meta.kind,
                meta.trust,
                document.source,
            )
            await db.execute(DROP_CHUNKS, document_id, [chunk.content_hash for chunk in document.chunks])
            await db.executemany(
                PUT_CHUNK,
                [
                    (document_id, number, chunk.heading, chunk.text, chunk.content_hash)
                    for number, chunk in enumerate(document.chunks)
                ],
            )
            found = list(pieces(document.path, document.title, [chunk.text for chunk in document.chunks]))
            await db.execute(DROP_PIECES, document_id, [piece.content_hash for piece in found])
            hashes = [chunk.content_hash for chunk in document.chunks]
            await db.executemany(
                PUT_PIECE,
                [
                    (document_id, hashes[piece.chunk], int(piece.kind), piece.text, piece.content_hash)
                    for piece in found
                ],
            )

    async def remove(self, collection: str, paths: Sequence[str]) -> None:
        async with self._pool.transaction() as db:
            await db.execute(REMOVE, collection, list(paths))

    async def version(self) -> str:
        async with self._pool.transaction() as db:
            return str(await db.fetchval(VERSION))

    async def documents(self) -> Sequence[StoredDocument]:
        async with self._pool.transaction() as db:
            return [_document(row) for row in await db.fetch(DOCUMENTS)]

    async def chunks(self) -> Sequence[StoredChunk]:
        async with self._pool.transaction() as db:
            return [StoredChunk(*row) for row in await db.fetch(CHUNKS)]


def _document(row: Mapping[str, Any]) -> StoredDocument:
    return StoredDocument(
        id=row["id"],
        path=row["path"],
        title=row["title"],
        alerts=tuple(row["alerts"]),
        services=tuple(row["services"]),
        platform=row["platform"],
        category=row["category"],
        trust=row["trust"],
        last_verified=row["last_verified"],
    )
