"""The list of documents, read from PostgreSQL."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from knowledge_base.listing import ListedDocument
from knowledge_base.stored import Transactions

LISTED = """
SELECT d.collection, d.path, d.title, d.kind, d.category, d.services, d.platform, d.owner, d.last_verified,
       d.ingested_at, (SELECT count(*) FROM chunks c WHERE c.document_id = d.id) AS chunks
FROM documents d ORDER BY d.collection, d.path
"""


class PostgresDocumentList:
    """Every document with the number of its chunks."""

    def __init__(self, pool: Transactions) -> None:
        self._pool = pool

    async def listed(self) -> Sequence[ListedDocument]:
        async with self._pool.transaction() as db:
            return [_document(row) for row in await db.fetch(LISTED)]


def _document(row: Mapping[str, Any]) -> ListedDocument:
    return ListedDocument(
        collection=row["collection"],
        path=row["path"],
        title=row["title"],
        kind=row["kind"],
        category=row["category"],
        services=tuple(row["services"]),
        platform=row["platform"],
        owner=row["owner"],
        last_verified=row["last_verified"],
        chunks=row["chunks"],
        ingested_at=row["ingested_at"],
    )
