"""The knowledge base on a real PostgreSQL with pgvector, and with the real embedding model where torch is installed."""

import asyncio
import importlib.util
import json
import shutil
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import cast

import numpy as np
import pytest

import knowledge_base
from bot.config import load
from bot.config_model import KnowledgeSettings
from bot.wiring.knowledge import knowledge_of, tried_models
from knowledge_base.adapters.cross_encoder import SentenceCrossEncoder
from knowledge_base.adapters.documents_store import PostgresDocuments
from knowledge_base.adapters.embedder import SentenceEmbedder
from knowledge_base.adapters.jsonb_store import JsonVectorStore
from knowledge_base.adapters.pgvector_store import NEAREST, SEARCH_SETTINGS, WITHIN, PgVectorStore
from knowledge_base.ingest import ingest_folder, ingest_packaged
from knowledge_base.novelty import NAMED
from knowledge_base.retrieval import Retrieval
from knowledge_base.stored import FloatArray, StoredChunk
from migrations.runner import MigrationReport
from pipeline.adapters.postgres.pool import Pool
from pipeline.domain.errors import PermanentError
from pipeline.ports.knowledge import KnowledgeQuery

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


class StuckModel(HashedWords):
    async def embed(self, texts: Sequence[str]) -> FloatArray:
        await asyncio.Event().wait()
        raise AssertionError


class Judge:
    """A cross-encoder that likes what holds its word."""

    name = "judge"

    def __init__(self, word: str, *, trouble: Exception | None = None, stuck: bool = False) -> None:
        self.read: list[str] = []
        self._word, self._trouble, self._stuck = word, trouble, stuck

    async def logits(self, query: str, texts: Sequence[str]) -> FloatArray:
        self.read = list(texts)
        if self._stuck:
            await asyncio.Event().wait()
        if self._trouble is not None:
            raise self._trouble
        return np.array([5.0 if self._word in text else -5.0 for text in texts], dtype=np.float32)


@pytest.fixture
async def pool(database_dsn: str) -> AsyncIterator[Pool]:
    pool = Pool(database_dsn, max_size=3)
    await pool.open()
    yield pool
    await pool.close()


def write(folder: Path, **bodies: str) -> None:
    for name, body in bodies.items():
        (folder / f"{name}.md").write_text(body)


async def found(search: Retrieval, text: str, limit: int = 5) -> list[str]:
    return [passage.document for passage in (await search.search(KnowledgeQuery(text), limit=limit)).passages]


async def test_second_ingest_changes_nothing_and_an_edit_only_its_section(pool: Pool, tmp_path: Path) -> None:
    documents, vectors, embedder = PostgresDocuments(pool), PgVectorStore(pool), HashedWords()
    write(tmp_path, alpha="# Alpha\n\n## One\n\nfirst\n\n## Two\n\nsecond", beta="# Beta\n\nother")

    first = await ingest_folder(tmp_path, documents, embedder=embedder, vectors=vectors)
    assert (first.added, first.embedded, first.embedding_note) == (("alpha.md", "beta.md"), 5, "")
    again = await ingest_folder(tmp_path, documents, embedder=embedder, vectors=vectors)
    assert (again.added, again.changed, again.removed, again.unchanged, again.embedded) == ((), (), (), 2, 0)

    embedder.texts.clear()
    write(tmp_path, alpha="# Alpha\n\n## Zero\n\nnew\n\n## One\n\nfirst\n\n## Two\n\nsecond, edited")
    edited = await ingest_folder(tmp_path, documents, embedder=embedder, vectors=vectors)
    assert (edited.changed, edited.unchanged) == (("alpha.md",), 1)
    assert sorted(embedder.texts) == ["Alpha: new", "Alpha: new first second, edited", "Alpha: second, edited"]
    assert [chunk.heading for chunk in await documents.chunks()] == [
        "Alpha › Zero",
        "Alpha › One",
        "Alpha › Two",
        "Beta",
    ]

    (tmp_path / "beta.md").unlink()
    assert (await ingest_folder(tmp_path, documents)).removed == ("beta.md",)
    assert {document.path for document in await documents.documents()} == {"alpha.md"}


async def test_a_folder_that_is_none_is_one_clear_line(pool: Pool, tmp_path: Path) -> None:
    with pytest.raises(PermanentError, match="no such file or folder"):
        await ingest_folder(tmp_path / "nowhere", PostgresDocuments(pool))


async def test_another_model_embeds_everything_anew_and_gets_an_index_of_its_size(pool: Pool, tmp_path: Path) -> None:
    documents, vectors = PostgresDocuments(pool), PgVectorStore(pool)
    write(tmp_path, disk="# Disk\n\nlogs fill the volume", memory="# Memory\n\nleak until killed")
    await ingest_folder(tmp_path, documents, embedder=HashedWords(), vectors=vectors)

    small = HashedWords("small", dimensions=64)
    search = Retrieval(documents, embedder=small, vectors=vectors)
    by_words = await search.search(KnowledgeQuery("logs fill the volume"), limit=1)
    assert (by_words.method, by_words.fallback) == ("lexical", "4 passages are not embedded yet")

    assert (await ingest_folder(tmp_path, documents, embedder=small, vectors=vectors)).embedded == 4
    again = await search.search(KnowledgeQuery("logs fill the volume"), limit=1)
    assert (again.passages[0].document, again.method, again.fallback) == ("disk.md", "hybrid", "")
    async with pool.transaction() as db:
        assert await db.fetchval("SELECT to_regclass('piece_vectors_hnsw_64')") == "piece_vectors_hnsw_64"

    # The same name, another size: nothing of the old size is compared, the next ingest embeds everything.
    larger = HashedWords("small", dimensions=96)
    async with pool.transaction() as db:
        written = "SELECT count(*) FROM piece_vectors"
        before = await db.fetchval(written)
    grown = await Retrieval(documents, embedder=larger, vectors=vectors).search(KnowledgeQuery("logs"), limit=1)
    assert (grown.method, grown.fallback) == ("lexical", "4 passages are not embedded yet")
    async with pool.transaction() as db:
        assert await db.fetchval(written) == before > 0, "a search writes nothing"
    assert (await ingest_folder(tmp_path, documents, embedder=larger, vectors=vectors)).embedded == 4
    assert grown.latency_ms["library"] > 0
    assert sum(took for step, took in grown.latency_ms.items() if step != "total") <= grown.latency_ms["total"]


async def test_without_a_model_the_packaged_runbooks_are_found_by_words(pool: Pool) -> None:
    documents, vectors = PostgresDocuments(pool), PgVectorStore(pool)
    report = await ingest_packaged(documents, embedder=BrokenModel(), vectors=vectors)
    assert (report.failed, report.embedding_note) == ((), "no such model here")

    for search in (
        Retrieval(documents, embedder=BrokenModel(), vectors=vectors),
        Retrieval(documents, embedder=StuckModel(), vectors=vectors, embed_deadline_s=0.01),
        Retrieval(documents),
    ):
        answer = await search.search(KnowledgeQuery(MEMORY_QUERY), limit=5)
        assert answer.passages[0].document.startswith("memory-leak")
        assert all(passage.method == "lexical" and 0 < passage.score <= 1 for passage in answer.passages)
        assert answer.best_cosine is None
        assert answer.fallback != ""
        assert not answer.novel
        assert (await found(search, "certificate expires soon", limit=1))[0].startswith("certificate-expiry")
        assert (await search.search(KnowledgeQuery("zebra quagga"), limit=5)).novel


class LoadedModel(HashedWords):
    runs_on = "nothing"


class CountingDocuments(PostgresDocuments):
    def __init__(self, pool: Pool) -> None:
        super().__init__(pool)
        self.reads = 0

    async def chunks(self) -> Sequence[StoredChunk]:
        self.reads += 1
        return await super().chunks()


async def test_a_start_leaves_nothing_to_load_to_the_first_search(pool: Pool, tmp_path: Path) -> None:
    """Though everything is embedded already, and a folder that is set is not there."""
    settings = load({"SRE_RUNBOOKS": str(tmp_path / "nowhere")}, None).knowledge
    vectors = PgVectorStore(pool)
    await ingest_packaged(PostgresDocuments(pool), embedder=HashedWords(), vectors=vectors)

    documents, embedder, reranker = CountingDocuments(pool), LoadedModel(), Judge("memory")
    base = replace(
        knowledge_of(settings, pool, MigrationReport("18", None), [], words_only=True),
        documents=documents,
        embedder=cast(SentenceEmbedder, embedder),
        vectors=vectors,
        reranker=cast(SentenceCrossEncoder, reranker),
        retrieval=Retrieval(documents, embedder=embedder, vectors=vectors, reranker=reranker),
    )
    await base.learn()
    assert embedder.texts
    assert reranker.read
    assert documents.reads == 1
    found = await base.retrieval.search(KnowledgeQuery(MEMORY_QUERY), limit=1)
    assert (found.method, found.fallback, documents.reads) == ("rerank", "", 1)


@needs_torch
async def test_the_doctor_loads_the_models_that_are_set(tmp_path: Path) -> None:
    def knowledge(**values: str) -> KnowledgeSettings:
        return load(dict(values), None).knowledge

    ((state, said),) = await tried_models(knowledge())
    assert (state, said.partition(":")[0]) == ("ok", "all-MiniLM-L6-v2")
    assert "embeddings by" in said
    embedder, reranker = await tried_models(knowledge(SRE_EMBEDDER="/nope", SRE_RERANKER=str(tmp_path)))
    assert embedder == (
        "wrong",
        "SRE_EMBEDDER /nope: embedding model /nope: there is no such folder; runbooks are searched by words",
    )
    assert reranker[0] == "wrong"
    assert f"SRE_RERANKER: {tmp_path} holds no cross-encoder" in reranker[1]


async def test_without_pgvector_meaning_still_counts(pool: Pool, tmp_path: Path) -> None:
    async with pool.transaction() as db:
        await db.execute("DROP EXTENSION vector CASCADE; DROP TABLE piece_vectors")
    documents = PostgresDocuments(pool)
    write(tmp_path, disk="# Disk\n\nlogs fill the volume", memory="# Memory\n\nleak until killed")
    refused = await ingest_folder(tmp_path, documents, embedder=HashedWords(), vectors=PgVectorStore(pool))
    assert refused.embedding_note.startswith("the database has no pgvector")
    search = Retrieval(documents, embedder=HashedWords(), vectors=PgVectorStore(pool))
    answer = await search.search(KnowledgeQuery("logs fill"), limit=1)
    assert (answer.method, answer.fallback.partition(":")[0]) == ("lexical", "the database has no pgvector")

    vectors = JsonVectorStore(pool)
    assert (await ingest_folder(tmp_path, documents, embedder=HashedWords(), vectors=vectors)).embedding_note == ""
    search = Retrieval(documents, embedder=HashedWords(), vectors=vectors)
    answer = await search.search(KnowledgeQuery("logs fill"), limit=1)
    assert (answer.passages[0].document, answer.method, answer.fallback) == ("disk.md", "hybrid", "")


async def test_an_empty_knowledge_base_knows_nothing(pool: Pool) -> None:
    search = Retrieval(PostgresDocuments(pool), embedder=HashedWords(), vectors=PgVectorStore(pool))
    answer = await search.search(KnowledgeQuery("disk full", alerts=("DiskFull",)), limit=5)
    assert (answer.passages, answer.novel) == ((), True)


async def test_a_named_alert_comes_first_and_filters_leave_out_others(pool: Pool, tmp_path: Path) -> None:
    documents, vectors, embedder = PostgresDocuments(pool), PgVectorStore(pool), HashedWords()
    text = "the volume of the service runs full, logs fill it, remove old logs"
    write(
        tmp_path,
        general=f"# Volume full\n\n{text}",
        ours=f"---\nservices: [checkout]\nplatform: kubernetes\n---\n# Volume of checkout\n\n{text}",
        theirs=f"---\nservices: [billing]\n---\n# Volume of billing\n\n{text}",
        cloud=f"---\nplatform: aws\nservices: [any]\n---\n# Volume in the cloud\n\n{text}",
        paper="---\nalerts: [VolumeFillingUp]\n---\n# Paper jam\n\nThe printer has none left.",
        trusted=f"---\ntrust: 1.0\nlast_verified: 2026-11-01\nplatform: gitops\n---\n# Volume here\n\n{text}",
        doubted=f"---\ntrust: 0.1\nlast_verified: 2020-11-01\nplatform: gitops\n---\n# Volume here\n\n{text}",
    )
    await ingest_folder(tmp_path, documents, embedder=embedder, vectors=vectors)
    search = Retrieval(documents, embedder=embedder, vectors=vectors, today=lambda: date(2026, 11, 23))

    named = await search.search(KnowledgeQuery(text, alerts=("volume_filling_up",)), limit=3)
    assert (named.passages[0].document, named.passages[0].method, named.method) == ("paper.md", "alert", "alert")
    assert named.passages[0].score >= NAMED
    assert [passage.method for passage in named.passages[1:]] == ["hybrid", "hybrid"]
    assert not named.novel

    async def answers(**query: str | tuple[str, ...]) -> set[str]:
        answer = await search.search(KnowledgeQuery(text, **query), limit=10)  # type: ignore[arg-type]
        return {passage.document.removesuffix(".md") for passage in answer.passages} - {"paper"}

    everything = {"general", "ours", "theirs", "cloud", "trusted", "doubted"}
    assert await answers() == everything
    assert await answers(services=("checkout",)) == everything - {"theirs"}
    assert await answers(platform="kubernetes") == {"general", "ours", "theirs"}
    assert await answers(platform="AWS", services=("Checkout",)) == {"general", "cloud"}
    assert await answers(platform="any") == everything
    assert await answers(services=("nosuch",), platform="azure") == {"general"}

    order = await found(search, text, limit=10)
    assert order.index("trusted.md") < order.index("doubted.md")


async def test_a_second_reading_reorders_and_never_stops_a_search(pool: Pool, tmp_path: Path) -> None:
    documents = PostgresDocuments(pool)
    write(tmp_path, first="# First\n\nthe volume is full of logs", second="# Second\n\nthe volume is full of gadgets")
    await ingest_folder(tmp_path, documents)
    query = KnowledgeQuery("the volume is full of logs")

    async def search(judge: Judge, deadline_s: float = 60.0) -> tuple[list[str], str]:
        answer = await Retrieval(documents, reranker=judge, rerank_deadline_s=deadline_s).search(query, limit=5)
        assert all(0 <= passage.score <= 1 for passage in answer.passages)
        return [passage.document for passage in answer.passages], answer.fallback

    judge = Judge("gadgets")
    assert (await search(judge))[0] == ["second.md", "first.md"]
    assert len(judge.read) == 2
    order, fallback = await search(Judge("gadgets", trouble=PermanentError("no weights")))
    assert (order, fallback) == (["first.md", "second.md"], "no embedding model is set up; not reranked: no weights")
    order, fallback = await search(Judge("gadgets", stuck=True), deadline_s=0.01)
    assert order == ["first.md", "second.md"]
    assert fallback.endswith("not reranked: judge gave no answer within 0.0 s")


async def test_a_new_document_is_found_at_once(pool: Pool, tmp_path: Path) -> None:
    documents = PostgresDocuments(pool)
    write(tmp_path, disk="# Disk\n\nlogs fill the volume")
    await ingest_folder(tmp_path, documents)
    search = Retrieval(documents)
    assert await found(search, "gadget") == []
    write(tmp_path, gadget="# Gadget\n\nturn it off")
    await ingest_folder(tmp_path, documents)
    assert await found(search, "gadget") == ["gadget.md"]


async def test_the_hot_query_uses_the_index_and_its_settings_hold(pool: Pool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("knowledge_base.adapters.pgvector_store.EXACT_UP_TO", 300)
    numbers = np.random.default_rng(7)
    count, of_each = 600, 10
    rows = numbers.normal(size=(count, 8)).astype(np.float32)
    async with pool.transaction() as db:
        await db.execute(
            "INSERT INTO documents (collection, path, title, content_hash)"
            " SELECT 't', n::text, 'X', '' FROM generate_series(1, $1) n",
            count // of_each,
        )
        await db.execute(
            "INSERT INTO chunks (document_id, number, heading, text, content_hash)"
            " SELECT n, 1, 'X', 'x', 'x' FROM generate_series(1, $1) n",
            count // of_each,
        )
        await db.execute(
            "INSERT INTO pieces (document_id, chunk_id, kind, text, content_hash)"
            " SELECT 1 + n % $2, 1 + n % $2, 1, 'x', n::text FROM generate_series(0, $1 - 1) n",
            count,
            count // of_each,
        )
    store = PgVectorStore(pool)
    await store.put("m", range(1, count + 1), rows)
    async with pool.transaction() as db:
        # So few rows are read faster without an index: what is guarded is that the query's form fits it.
        await db.execute(
            "SET LOCAL enable_seqscan = off; SET LOCAL enable_sort = off; SET LOCAL enable_bitmapscan = off"
        )
        await db.execute(SEARCH_SETTINGS, "100")
        statement = NEAREST.format(size=8, filter=WITHIN)
        plan = await db.fetchval("EXPLAIN (FORMAT json) " + statement, rows[0].tolist(), "m", 10, list(range(1, 50)))
        scan, ef_search = await db.fetchval("SHOW hnsw.iterative_scan"), await db.fetchval("SHOW hnsw.ef_search")
    # A misspelt setting only warns: what holds is what the server says.
    assert (scan, ef_search) == ("relaxed_order", "100")
    assert "piece_vectors_hnsw_8" in json.dumps(plan)

    (best, *rest) = await store.nearest("m", rows[41], 10)
    assert (best.piece_id, round(best.cosine, 3)) == (42, 1.0)
    assert [hit.cosine for hit in rest] == sorted((hit.cosine for hit in rest), reverse=True)
    # Without the iterative scan a filter would leave only those of the first candidates that pass it.
    most = list(range(2, count // of_each + 1))
    assert len(await store.nearest("m", rows[0], 250, within=most)) == 250
    few = await store.nearest("m", rows[0], 10, within=[7])
    assert {hit.document_id for hit in few} == {7}
    assert len(few) == 10


@needs_torch
async def test_the_real_model_finds_the_runbook(pool: Pool, tmp_path: Path) -> None:
    documents, vectors, embedder = PostgresDocuments(pool), PgVectorStore(pool), SentenceEmbedder()
    for name in ("memory-leak-kubernetes", "latency-saturation-kubernetes", "certificate-expiry", "dependency-outage"):
        shutil.copy(Path(knowledge_base.__path__[0]) / "runbooks" / f"{name}.md", tmp_path)
    report = await ingest_folder(tmp_path, documents, embedder=embedder, vectors=vectors)
    assert report.embedding_note == ""
    search = Retrieval(documents, embedder=embedder, vectors=vectors, embed_deadline_s=120.0)
    expected = {
        MEMORY_QUERY: "memory-leak",
        "p99 latency high, traffic five times the usual, requests queue": "latency-saturation",
        "callers time out waiting for the database they all use": "dependency-outage",
        "tls certificate ends in two days": "certificate-expiry",
    }
    for text, document in expected.items():
        answer = await search.search(KnowledgeQuery(text), limit=3)
        assert answer.passages[0].document.startswith(document), text
        assert answer.method == "hybrid"
        assert 0.6 < answer.passages[0].score <= 1
        assert not answer.novel
    strange = await search.search(KnowledgeQuery("how do I order a standing desk for the office"), limit=3)
    assert strange.novel
    assert strange.passages[0].score < 0.35
    await embedder.close()


@needs_torch
async def test_a_model_that_is_not_there_is_one_clear_line(tmp_path: Path) -> None:
    empty = SentenceEmbedder(str(tmp_path))
    with pytest.raises(PermanentError, match="cannot be loaded, give a local folder") as error:
        await empty.embed(["x"])
    assert "\n" not in str(error.value)
    await empty.close()
