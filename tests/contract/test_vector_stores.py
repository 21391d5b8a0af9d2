"""Vectors of pieces: with pgvector, as JSONB without it, and in memory, all with the same answers."""

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import pytest

from knowledge_base.adapters.documents_store import PostgresDocuments
from knowledge_base.adapters.jsonb_store import JsonVectorStore
from knowledge_base.adapters.memory_store import MemoryDocuments, MemoryVectors
from knowledge_base.adapters.pgvector_store import PgVectorStore
from knowledge_base.chunking import Document, parse_markdown
from knowledge_base.ingest import DocumentStore, VectorSink
from knowledge_base.pieces import PieceKind
from knowledge_base.stored import ChunkSource, FloatArray, StoredPiece, VectorSearch
from pipeline.adapters.postgres.pool import Pool


class Documents(DocumentStore, ChunkSource, Protocol): ...


class Vectors(VectorSink, VectorSearch, Protocol): ...


@dataclass
class Stores:
    documents: Documents
    vectors: Vectors

    async def fill(self, model: str, size: int = 8) -> dict[str, FloatArray]:
        """A vector for every piece that lacks one; by the piece's text."""
        given: dict[str, FloatArray] = {}
        while batch := await self.vectors.missing(model, 5):
            vectors = np.stack([vector_of(piece.text, size) for piece in batch])
            await self.vectors.put(model, [piece.id for piece in batch], vectors)
            given |= {piece.text: vector for piece, vector in zip(batch, vectors, strict=True)}
        return given

    async def id_of(self, path: str) -> int:
        (found,) = [document.id for document in await self.documents.documents() if document.path == path]
        return found


def vector_of(text: str, size: int = 8) -> FloatArray:
    """Different texts, different directions; the same text, the same one."""
    row = np.random.default_rng(list(text.encode())).normal(size=size).astype(np.float32)
    return np.asarray(row / np.linalg.norm(row), dtype=np.float32)


@pytest.fixture(params=["pgvector", "jsonb", "memory"])
async def stores(request: pytest.FixtureRequest) -> AsyncIterator[Stores]:
    if request.param == "memory":
        documents = MemoryDocuments()
        yield Stores(documents, MemoryVectors(documents))
        return
    pool = Pool(request.getfixturevalue("database_dsn"), max_size=3)
    if request.param == "jsonb":
        async with pool.transaction() as db:
            await db.execute("DROP EXTENSION vector CASCADE; DROP TABLE piece_vectors")
    yield Stores(PostgresDocuments(pool), PgVectorStore(pool) if request.param == "pgvector" else JsonVectorStore(pool))
    await pool.close()


def document(path: str, *sections: str) -> Document:
    return parse_markdown(path, "\n\n".join((f"# {path}", *(f"## Part\n\n{text}" for text in sections))))


async def texts(stores: Stores, model: str) -> list[str]:
    missing: Sequence[StoredPiece] = await stores.vectors.missing(model, 100)
    return [piece.text for piece in missing]


async def test_documents_come_back_as_they_were_put(stores: Stores) -> None:
    put = parse_markdown(
        "disk.md",
        "---\nservices: [checkout]\nplatform: kubernetes\ncategory: disk\nalerts: [DiskFull]\ntrust: 0.5\n"
        "last_verified: 2026-01-31\n---\n# Disk\n\n## Meaning\n\nFull.\n\n## Fix\n\nEmpty it.",
    )
    await stores.documents.put("c", put)
    await stores.documents.put("c", document("b.md", "one"))
    first, second = await stores.documents.documents()
    assert [first.path, second.path] == ["b.md", "disk.md"]
    assert (second.title, second.services, second.platform, second.category) == (
        "Disk",
        ("checkout",),
        "kubernetes",
        "disk",
    )
    assert (second.trust, second.last_verified, second.alerts) == (0.5, put.meta.last_verified, put.alerts)
    chunks = await stores.documents.chunks()
    assert [(chunk.document_id, chunk.text) for chunk in chunks] == [
        (first.id, "one"),
        (second.id, "Full."),
        (second.id, "Empty it."),
    ]


async def test_an_edit_keeps_the_vectors_of_what_stays(stores: Stores) -> None:
    await stores.documents.put("c", document("a.md", "first part", "second part"))
    await stores.fill("m")
    before = await stores.documents.version()

    await stores.documents.put("c", document("a.md", "first part", "third part"))
    assert await stores.documents.version() != before
    assert sorted(await texts(stores, "m")) == sorted({"a.md: first part third part", "a.md: third part"})
    await stores.documents.remove("c", ["a.md"])
    assert (await texts(stores, "m"), await stores.documents.chunks(), await stores.documents.hashes("c")) == (
        [],
        [],
        {},
    )


async def test_the_nearest_come_first_with_their_cosine(stores: Stores) -> None:
    await stores.documents.put("c", document("a.md", "alpha alpha", "beta beta"))
    await stores.documents.put("c", document("b.md", "gamma gamma", "delta delta"))
    given = await stores.fill("m")
    query = vector_of("a query")
    hits = await stores.vectors.nearest("m", query, 4)
    cosines = sorted((float(vector @ query) for vector in given.values()), reverse=True)
    assert [hit.cosine for hit in hits] == pytest.approx(cosines[:4], abs=1e-5)

    (exact,) = await stores.vectors.nearest("m", given["a.md: beta beta"], 1)
    chunks = {chunk.id: chunk for chunk in await stores.documents.chunks()}
    assert (chunks[exact.chunk_id].text, exact.document_id) == ("beta beta", await stores.id_of("a.md"))
    assert exact.kind in (PieceKind.SECTION, PieceKind.WINDOW)
    assert exact.cosine == pytest.approx(1.0, abs=1e-5)


async def test_a_filter_by_documents_loses_none_of_theirs(stores: Stores) -> None:
    for name in ("a", "b", "c"):
        await stores.documents.put("c", document(f"{name}.md", f"{name} one.", "Do this. Do that. Then wait."))
    await stores.fill("m")
    wanted = await stores.id_of("b.md")
    near = await stores.vectors.nearest("m", vector_of("a query"), 50, within=[wanted])
    every = await stores.vectors.cosines("m", vector_of("a query"), [wanted])
    assert {hit.document_id for hit in near} == {wanted}
    assert {hit.piece_id: hit.cosine for hit in every} == pytest.approx(
        {hit.piece_id: hit.cosine for hit in near}, abs=1e-6
    )
    assert {hit.kind for hit in every} == set(PieceKind)
    assert not await stores.vectors.nearest("m", vector_of("a query"), 50, within=[])
    assert not await stores.vectors.cosines("m", vector_of("a query"), [])


async def test_vectors_of_another_model_or_size_are_never_compared(stores: Stores) -> None:
    await stores.documents.put("c", document("a.md", "alpha"))
    await stores.fill("m")
    assert await stores.vectors.pending("m", 8) == 0
    assert not await stores.vectors.nearest("other", vector_of("a query"), 5)
    assert not await stores.vectors.nearest("m", vector_of("a query", 12), 5)
    assert not await stores.vectors.cosines("m", vector_of("a query", 12), [await stores.id_of("a.md")])

    pieces = await stores.vectors.pending("m", 12)
    assert pieces > 0
    # Counting changes nothing.
    assert (await stores.vectors.pending("m", 8), len(await texts(stores, "m"))) == (0, 0)
    await stores.vectors.forget_other_sizes("m", 12)
    assert (await stores.vectors.pending("m", 8), len(await texts(stores, "m"))) == (pieces, pieces)
    await stores.fill("m", 12)
    assert await stores.vectors.pending("m", 12) == 0
    assert len(await stores.vectors.nearest("m", vector_of("a query", 12), 5)) > 0
    await stores.fill("other", 12)
    assert not await stores.vectors.nearest("m", vector_of("a query", 12), 5)


async def test_vectors_of_pieces_that_went_meanwhile_are_dropped(stores: Stores) -> None:
    await stores.documents.put("c", document("a.md", "alpha"))
    (piece, *_) = await stores.vectors.missing("m", 1)
    await stores.documents.remove("c", ["a.md"])
    await stores.vectors.put("m", [piece.id], vector_of("x")[None])
    assert not await stores.vectors.nearest("m", vector_of("a query"), 5)
