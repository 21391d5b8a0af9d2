"""HNSW as the bot uses it, beside an exact comparison with every vector: 100,000 pieces in the embedded PostgreSQL."""

from __future__ import annotations

import asyncio
import importlib.util
import statistics
import time
from collections.abc import Iterable, Sequence

import asyncpg
import numpy as np

from bot.embedded.postgres import EmbeddedPostgres
from knowledge_base.adapters.embedder import SentenceEmbedder
from knowledge_base.adapters.memory_store import MemoryDocuments
from knowledge_base.adapters.pgvector_store import CREATE_INDEX, EXACT_UP_TO, PgVectorStore
from knowledge_base.exact import ExactVectors
from knowledge_base.ingest import ingest_packaged
from knowledge_base.stored import FloatArray
from migrations.runner import migrate
from pipeline.adapters.postgres.pool import Pool
from tests.databases import open_directory

PIECES, DOCUMENTS, SIZE = 100_000, 5_000, 384
QUERIES, WARM_UP, K = 200, 20, 10
SPREAD = 0.6
"""Length of what is added to a real vector to make neighbours: a cosine of 0.86, as between pieces of one matter."""
SHARES = (1.0, 0.2, 0.01)
"""Of the documents that a filter leaves; the last is few enough to be compared one by one."""
BUILD_S = 1800.0


def run() -> None:
    """Prints recall@10 and times for no filter and two of them."""
    if importlib.util.find_spec("torch") is None:
        print("   needs the embedding model: pip install sre-bot[ml]")
        return
    asyncio.run(_run())


async def _run() -> None:
    numbers = np.random.default_rng(20261123)
    vectors = _near(await _real_vectors(), PIECES, numbers)
    queries = _near(vectors, WARM_UP + QUERIES, numbers)
    owner = 1 + np.arange(PIECES) % DOCUMENTS
    keys = np.stack([np.arange(1, PIECES + 1), owner, np.arange(1, PIECES + 1), np.ones(PIECES)], axis=1)
    exact = ExactVectors(keys.astype(np.int64), vectors)
    with open_directory(in_memory=False) as directory:
        server = EmbeddedPostgres(directory)
        dsn = await server.start()
        await migrate(dsn)
        pool = Pool(dsn, max_size=2, command_timeout_s=60.0)
        try:
            seconds, size_mb = await _load(dsn, vectors, owner)
            print(f"   {PIECES:,} vectors of {SIZE}: index built in {seconds:.0f} s, {size_mb:.0f} MB")
            for share in SHARES:
                await _measure(PgVectorStore(pool), exact, queries, share)
        finally:
            await pool.close()
            await server.stop()


async def _real_vectors() -> FloatArray:
    """The vectors of the packaged runbooks' pieces."""
    documents, embedder = MemoryDocuments(), SentenceEmbedder()
    await ingest_packaged(documents)
    found = await embedder.embed([piece.text for piece, *_ in documents.pieces()])
    await embedder.close()
    return found


def _near(vectors: FloatArray, count: int, numbers: np.random.Generator) -> FloatArray:
    """``count`` rows of length 1, each near a point between two of ``vectors`` that lie close to each other."""
    first = numbers.integers(len(vectors), size=count)
    tried = numbers.integers(len(vectors), size=(count, 16))
    second = tried[np.arange(count), np.einsum("nd,nkd->nk", vectors[first], vectors[tried]).argmax(axis=1)]
    share = numbers.uniform(0.5, 1.0, size=(count, 1))
    noise = numbers.normal(size=(count, SIZE)) * SPREAD / np.sqrt(SIZE)
    rows = share * vectors[first] + (1 - share) * vectors[second] + noise
    return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True), dtype=np.float32)


async def _load(dsn: str, vectors: FloatArray, owner: Iterable[int]) -> tuple[float, float]:
    """Fills the tables and builds the index; tells the seconds that took, and its size in MB."""
    db = await asyncpg.connect(dsn)
    try:
        await db.execute("DROP INDEX piece_vectors_hnsw_384")
        await db.execute(
            "INSERT INTO documents (collection, path, title, content_hash)"
            " SELECT 'bench', n::text, n::text, '' FROM generate_series(1, $1) n",
            DOCUMENTS,
        )
        places = list(enumerate(map(int, owner), start=1))
        await db.copy_records_to_table(
            "chunks",
            columns=("document_id", "number", "heading", "text", "content_hash"),
            records=[(document, number, "", "", str(number)) for number, document in places],
        )
        await db.copy_records_to_table(
            "pieces",
            columns=("document_id", "chunk_id", "kind", "text", "content_hash"),
            records=[(document, number, 1, "", str(number)) for number, document in places],
        )
        for start in range(0, PIECES, 2000):
            part = slice(start, start + 2000)
            await db.executemany(
                "INSERT INTO piece_vectors (piece_id, document_id, model, embedding)"
                " VALUES ($1, $2, 'm', $3::real[]::vector)",
                [(number, document, vectors[number - 1].tolist()) for number, document in places[part]],
            )
        started = time.perf_counter()
        await db.execute("SET maintenance_work_mem = '512MB'")
        await db.execute(CREATE_INDEX, SIZE, timeout=BUILD_S)
        seconds = time.perf_counter() - started
        await db.execute("ANALYZE")
        size = await db.fetchval("SELECT pg_relation_size('piece_vectors_hnsw_384')")
        return seconds, size / 1e6
    finally:
        await db.close()


async def _measure(store: PgVectorStore, exact: ExactVectors, queries: FloatArray, share: float) -> None:
    within = None if share == 1.0 else list(range(1, int(DOCUMENTS * share) + 1))
    recalls, times_ms, exact_ms = [], [], []
    for place, query in enumerate(queries):
        started = time.perf_counter()
        found = await store.nearest("m", query, K, within=within)
        took = time.perf_counter() - started
        started = time.perf_counter()
        right = {hit.piece_id for hit in exact.nearest(query, K, within)}
        if place >= WARM_UP:
            times_ms.append(took * 1000)
            exact_ms.append((time.perf_counter() - started) * 1000)
            recalls.append(len(right & {hit.piece_id for hit in found}) / K)
    way = "no filter" if within is None else f"filter that leaves {share:.0%}"
    way += ", HNSW" if within is None or share * PIECES > EXACT_UP_TO else ", btree and sort"
    print(
        f"   {way:<40} recall@{K} {statistics.mean(recalls):.4f}  p50 {_quantile(times_ms, 50):.1f} ms"
        f"  p95 {_quantile(times_ms, 95):.1f} ms   (exact, in memory: p95 {_quantile(exact_ms, 95):.1f} ms)"
    )


def _quantile(values: Sequence[float], percent: int) -> float:
    return statistics.quantiles(values, n=100)[percent - 1]
