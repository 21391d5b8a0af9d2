"""The knowledge base on a real PostgreSQL with pgvector, and with the real embedding model where torch is installed."""

import importlib.util
import json
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import numpy as np
import pytest

from knowledge_base.adapters.embedder import SentenceEmbedder
from knowledge_base.adapters.pgvector_store import NEAREST_384, SEARCH_SETTINGS, PgVectorStore, PostgresDocuments
from knowledge_base.ingest import ingest_folder, ingest_packaged
from knowledge_base.retrieval import FloatArray, Retrieval
from pipeline.adapters.postgres.pool import Pool
from pipeline.domain.errors import PermanentError

MEMORY_QUERY = "checkout memory above 85% of its limit and growing"

needs_torch = pytest.mark.skipif(importlib.util.find_spec("torch") is None, reason="torch is not installed")


class HashedWords:
    """Real vectors without a model: each word adds to a fixed place. Enough where only storing and finding matter."""

    def __init__(self, name: str = "hashed", dimensions: int = 384) -> None:
        self.name = name
        self.texts: list[str] = []
        self._dimensions = dimensions

    async def embed(self, texts: Sequence[str]) -> FloatArray:
        self.texts.extend(texts)
        rows = np.zeros((len(texts), self._dimensions), dtype=np.float32)
        for row, text in zip(rows, texts, strict=True):
            for word in text.lower().split():
                row[sum(word.encode()) % self._dimensions] += 1.0
        return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True), dtype=np.float32)


class BrokenModel:
    name = "broken"

    async def embed(self, texts: Sequence[str]) -> FloatArray:
        raise PermanentError("no such model here")


@pytest.fixture
async def pool(database_dsn: str) -> AsyncIterator[Pool]:
    pool = Pool(database_dsn, max_size=3)
    await pool.open()
    yield pool
    await pool.close()


def write(folder: Path, **bodies: str) -> None:
    for name, body in bodies.items():
        (folder / f"{name}.md").write_text(body)


async def test_second_ingest_changes_nothing_and_an_edit_only_its_section(pool: Pool, tmp_path: Path) -> None:
    documents, vectors, embedder = PostgresDocuments(pool), PgVectorStore(pool), HashedWords()
    write(tmp_path, a="# A\n\n## One\n\nfirst\n\n## Two\n\nsecond", b="# B\n\nother")

    first = await ingest_folder(tmp_path, documents, embedder=embedder, vectors=vectors)
    assert (first.added, first.embedded, first.embedding_note) == (("a.md", "b.md"), 3, "")
    again = await ingest_folder(tmp_path, documents, embedder=embedder, vectors=vectors)
    assert (again.added, again.changed, again.removed, again.unchanged, again.embedded) == ((), (), (), 2, 0)

    embedder.texts.clear()
    write(tmp_path, a="# A\n\n## Zero\n\nnew\n\n## One\n\nfirst\n\n## Two\n\nsecond, edited")
    edited = await ingest_folder(tmp_path, documents, embedder=embedder, vectors=vectors)
    assert (edited.changed, edited.unchanged) == (("a.md",), 1)
    assert embedder.texts == ["A › Zero\nnew", "A › Two\nsecond, edited"]
    assert [chunk.heading for chunk in await documents.chunks()] == ["A › Zero", "A › One", "A › Two", "B"]

    (tmp_path / "b.md").unlink()
    assert (await ingest_folder(tmp_path, documents)).removed == ("b.md",)
    assert {chunk.document for chunk in await documents.chunks()} == {"a.md"}


async def test_unreadable_files_are_named_and_keep_what_was_known(pool: Pool, tmp_path: Path) -> None:
    documents = PostgresDocuments(pool)
    write(tmp_path, good="# Good\n\ntext", bad="# Bad\n\nstill fine")
    await ingest_folder(tmp_path, documents)

    (tmp_path / "bad.md").write_bytes(b"# Bad \xff\xfe")
    (tmp_path / "worse.md").write_text("---\nlast_verified: soon\n---\ntext")
    report = await ingest_folder(tmp_path, documents)
    assert report.failed[0] == "bad.md: not UTF-8 text"
    assert report.failed[1].startswith("worse.md: front matter, last_verified:")
    assert (report.removed, report.unchanged) == ((), 1)
    assert {chunk.document for chunk in await documents.chunks()} == {"good.md", "bad.md"}

    with pytest.raises(PermanentError, match="is not a folder"):
        await ingest_folder(tmp_path / "nowhere", documents)


async def test_another_model_embeds_everything_anew_and_any_size_is_found(pool: Pool, tmp_path: Path) -> None:
    documents, vectors = PostgresDocuments(pool), PgVectorStore(pool)
    write(tmp_path, disk="# Disk\n\nlogs fill the volume", memory="# Memory\n\nleak until killed")
    await ingest_folder(tmp_path, documents, embedder=HashedWords(), vectors=vectors)

    small = HashedWords("small", dimensions=64)
    search = Retrieval(documents, embedder=small, vectors=vectors)
    assert (await search.search("logs fill the volume", limit=1))[0].method == "lexical"
    assert search.fallback == "2 passages are not embedded yet"

    assert (await ingest_folder(tmp_path, documents, embedder=small, vectors=vectors)).embedded == 2
    (best,) = await search.search("logs fill the volume", limit=1)
    assert (best.document, best.method, search.fallback) == ("disk.md", "vector", "")


async def test_without_a_model_the_packaged_runbooks_are_found_by_words(pool: Pool) -> None:
    documents, vectors = PostgresDocuments(pool), PgVectorStore(pool)
    report = await ingest_packaged(documents, embedder=BrokenModel(), vectors=vectors)
    assert (len(report.added), report.failed, report.embedding_note) == (9, (), "no such model here")

    search = Retrieval(documents, embedder=BrokenModel(), vectors=vectors)
    found = await search.search(MEMORY_QUERY, limit=5)
    assert found[0].document.startswith("memory-leak")
    assert all(passage.method == "lexical" and 0 < passage.score <= 1 for passage in found)
    assert search.fallback != ""
    assert (await Retrieval(documents).search("certificate expires soon", limit=1))[
        0
    ].document == "certificate-expiry.md"


async def test_without_pgvector_search_goes_on_by_words(pool: Pool) -> None:
    async with pool.transaction() as db:
        await db.execute("DROP EXTENSION vector CASCADE; DROP TABLE chunk_vectors")
    documents, vectors = PostgresDocuments(pool), PgVectorStore(pool)
    report = await ingest_packaged(documents, embedder=HashedWords(), vectors=vectors)
    assert report.embedding_note.startswith("the database has no pgvector")
    search = Retrieval(documents, embedder=HashedWords(), vectors=vectors)
    assert (await search.search(MEMORY_QUERY, limit=1))[0].method == "lexical"
    assert search.fallback.startswith("the database has no pgvector")


async def test_the_hot_query_uses_the_index_and_its_settings_hold(pool: Pool) -> None:
    numbers = np.random.default_rng(7)
    rows = numbers.normal(size=(500, 384)).astype(np.float32)
    async with pool.transaction() as db:
        await db.execute("INSERT INTO documents (collection, path, title, content_hash) VALUES ('t', 'x.md', 'X', '')")
        await db.execute(
            "INSERT INTO chunks (document_id, number, heading, text, content_hash) "
            "SELECT 1, n, 'X', n::text, n::text FROM generate_series(1, 500) n"
        )
    store = PgVectorStore(pool)
    await store.put("m", range(1, 501), rows)
    async with pool.transaction() as db:
        # So few rows are read faster without an index: what is guarded is that the query's form fits it.
        await db.execute("SET LOCAL enable_seqscan = off; SET LOCAL enable_sort = off")
        await db.execute(SEARCH_SETTINGS, "100")
        plan = json.loads(await db.fetchval("EXPLAIN (FORMAT json) " + NEAREST_384, rows[0].tolist(), "m", 10))
        scan = await db.fetchval("SHOW hnsw.iterative_scan")
    assert "chunk_vectors_hnsw_384" in json.dumps(plan)
    assert scan == "relaxed_order"

    (best, *rest) = await store.nearest("m", rows[41], 10)
    assert (best[0].id, round(best[1], 3)) == (42, 1.0)
    assert [cosine for _, cosine in rest] == sorted((cosine for _, cosine in rest), reverse=True)


@needs_torch
async def test_the_real_model_finds_the_runbook(pool: Pool) -> None:
    documents, vectors, embedder = PostgresDocuments(pool), PgVectorStore(pool), SentenceEmbedder()
    report = await ingest_packaged(documents, embedder=embedder, vectors=vectors)
    assert (len(report.added), report.embedding_note) == (9, "")
    search = Retrieval(documents, embedder=embedder, vectors=vectors, embed_deadline_s=120.0)
    expected = {
        MEMORY_QUERY: "memory-leak",
        "p99 latency high, traffic five times the usual, requests queue": "latency-saturation",
        "errors jumped right after a configuration commit": "error-surge-bad-change",
        "volume 97 % full, debug log written in a loop": "disk-filled-by-logs",
        "tls certificate ends in two days": "certificate-expiry",
    }
    for query, document in expected.items():
        found = await search.search(query, limit=3)
        assert found[0].document.startswith(document), query
        assert found[0].method == "vector"
        assert 0.3 < found[0].score <= 1
    await embedder.close()


@needs_torch
async def test_a_model_that_is_not_there_is_one_clear_line(tmp_path: Path) -> None:
    empty = SentenceEmbedder(str(tmp_path))
    with pytest.raises(PermanentError, match="cannot be loaded, give a local folder") as error:
        await empty.embed(["x"])
    assert "\n" not in str(error.value)
    await empty.close()
