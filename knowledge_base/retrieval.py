"""Finding the documents that fit: by the alert's name, by meaning and words together, by words alone where need be."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime
from heapq import nlargest
from itertools import accumulate

from knowledge_base.fusion import Candidate, by_words, fuse
from knowledge_base.lexical import THESAURUS, WordFit
from knowledge_base.library import Library
from knowledge_base.novelty import NAMED, NOVEL_BELOW, relevance
from knowledge_base.rerank import MOST, Reranker, read_again
from knowledge_base.stored import ChunkSource, Embedder, FloatArray, Hit, VectorSearch
from pipeline.domain.diagnosis import Passage
from pipeline.domain.errors import PermanentError, TemporaryError
from pipeline.ports.knowledge import Found, Knowledge, KnowledgeQuery, Method

EMBED_DEADLINE_S = 20.0
"""Longest wait for a query's vector: the model's first load takes 5 s alone and half a minute on a busy machine."""
RERANK_DEADLINE_S = 1.0
NEAREST_PIECES = 200
"""Pieces taken from the index of vectors: those of about sixty documents."""
BY_WORDS = 30
"""Documents taken from the index of words."""
MOST_CANDIDATES = 80


@dataclass(slots=True)
class _Search:
    """One search as it goes on."""

    query: KnowledgeQuery
    library: Library
    text: str
    within: frozenset[int] | None
    named: tuple[int, ...] = ()
    words: dict[int, WordFit] = field(default_factory=dict)
    latency_ms: dict[str, float] = field(default_factory=dict)
    fallback: str = ""
    novel: bool = True

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        started = time.perf_counter()
        try:
            yield
        finally:
            self.latency_ms[name] = round((time.perf_counter() - started) * 1000, 2)


@dataclass(frozen=True, slots=True)
class _Ranked:
    document_id: int
    chunk_id: int | None
    score: float
    relevance: float
    cosine: float | None
    named: bool


class Retrieval(Knowledge):
    """Search over the knowledge base. ``embedder`` and ``vectors`` are both given, or words alone are used."""

    def __init__(
        self,
        documents: ChunkSource,
        *,
        embedder: Embedder | None = None,
        vectors: VectorSearch | None = None,
        reranker: Reranker | None = None,
        embed_deadline_s: float = EMBED_DEADLINE_S,
        rerank_deadline_s: float = RERANK_DEADLINE_S,
        today: Callable[[], date] = lambda: datetime.now(UTC).date(),
    ) -> None:
        self._documents = documents
        self._embedder = embedder
        self._vectors = vectors
        self._reranker = reranker
        self._embed_deadline_s = embed_deadline_s
        self._rerank_deadline_s = rerank_deadline_s
        self._today = today
        self._library: tuple[str, Library] | None = None
        self._reading = asyncio.Lock()
        self._embedded_version: str | None = None

    async def search(self, query: KnowledgeQuery, *, limit: int) -> Found:
        """The documents that fit best, each with its best passage. Raises TemporaryError when the database is away.

        ``score`` of a passage is the chance that its document is a right one (``novelty``), so that one scale holds
        for every method.
        """
        started = time.perf_counter()
        version = await self._documents.version()
        library = await self._read(version)
        library_ms = round((time.perf_counter() - started) * 1000, 2)
        # What spells an alert's name in the text is looked up; a name that was given apart is searched for as well.
        text = " ".join((*query.alerts, query.text)).strip()
        if not text or not library.documents:
            return Found(novel=True)
        run = _Search(query, library, text, library.eligible(query), latency_ms={"library": library_ms})
        with run.step("words"):
            await asyncio.to_thread(self._by_words, run)
        ranked = await self._ranked(run, version)
        run.novel = max((one.relevance for one in ranked), default=0.0) < NOVEL_BELOW
        with run.step("rerank"):
            ranked, reranked = await self._read_again(run, ranked)
        run.latency_ms["total"] = round((time.perf_counter() - started) * 1000, 2)
        return _found(run, ranked, limit, reranked=reranked)

    async def _read(self, version: str) -> Library:
        async with self._reading:
            if self._library is None or self._library[0] != version:
                documents, chunks = await self._documents.documents(), await self._documents.chunks()
                self._library = (version, await asyncio.to_thread(Library, documents, chunks))
            return self._library[1]

    def _by_words(self, run: _Search) -> None:
        named = run.library.alerts.documents(run.query.alerts, run.query.text)
        fitting = tuple(number for number in named if run.within is None or number in run.within)
        run.named = fitting or named
        run.words = run.library.coverage(run.text)

    async def _ranked(self, run: _Search, version: str) -> list[_Ranked]:
        """Every candidate, best first."""
        hits: Sequence[Hit] = ()
        if self._embedder is None or self._vectors is None:
            run.fallback = "no embedding model is set up"
        else:
            try:
                hits = await self._by_meaning(run, self._embedder, self._vectors, version)
            except (PermanentError, TemporaryError) as error:
                run.fallback = str(error)
        if hits:
            candidates = fuse(hits, run.words)
        else:
            candidates = {
                number: Candidate(number, fit, by_words(fit)) for number, fit in self._words_first(run).items()
            }
        for number in run.named:
            candidates.setdefault(number, Candidate(number))
        today = self._today()
        ranked = []
        for number, candidate in candidates.items():
            candidate.score *= run.library.weight(number, run.query, today)
            fit, named = relevance(candidate.score, candidate.cosine), number in run.named
            ranked.append(
                _Ranked(
                    number,
                    candidate.chunk_id,
                    candidate.score,
                    max(fit, NAMED) if named else fit,
                    candidate.cosine,
                    named,
                )
            )
        return sorted(ranked, key=lambda one: (not one.named, -one.score, one.document_id))

    async def _by_meaning(self, run: _Search, embedder: Embedder, vectors: VectorSearch, version: str) -> Sequence[Hit]:
        with run.step("embed"):
            try:
                embedded = await asyncio.wait_for(
                    embedder.embed([THESAURUS.expanded(run.text)]), self._embed_deadline_s
                )
            except TimeoutError as error:
                waited = f"{self._embed_deadline_s:.0f} s"
                raise TemporaryError(f"the embedding model gave no answer within {waited}") from error
        vector: FloatArray = embedded[0]
        with run.step("nearest"):
            if self._embedded_version != version:
                pending = await vectors.pending(embedder.name, len(vector))
                if pending:
                    # Ranked by meaning alone the others would be lost, however well they fit.
                    run.fallback = f"{pending} passages are not embedded yet"
                    return ()
                self._embedded_version = version
            within = None if run.within is None else sorted(run.within)
            near = await vectors.nearest(embedder.name, vector, NEAREST_PIECES, within=within)
            if not near:
                return ()
            documents = dict.fromkeys((*run.named, *self._words_first(run), *(hit.document_id for hit in near)))
            wanted = [number for number in documents if number in run.library.documents][:MOST_CANDIDATES]
            return await vectors.cosines(embedder.name, vector, wanted)

    def _words_first(self, run: _Search) -> dict[int, WordFit]:
        fitting = ((number, fit) for number, fit in run.words.items() if run.within is None or number in run.within)
        return dict(nlargest(BY_WORDS, fitting, key=lambda item: (by_words(item[1]), -item[0])))

    async def _read_again(self, run: _Search, ranked: list[_Ranked]) -> tuple[list[_Ranked], bool]:
        if self._reranker is None or len(ranked) < 2:
            return ranked, False
        first, rest = ranked[:MOST], ranked[MOST:]
        texts = [_passage(run, one, "hybrid").text for one in first]
        try:
            scores = await read_again(
                self._reranker, run.text, texts, [one.relevance for one in first], self._rerank_deadline_s
            )
        except (PermanentError, TemporaryError) as error:
            run.fallback = "; ".join(filter(None, (run.fallback, f"not reranked: {error}")))
            return ranked, False
        again = [
            replace(one, relevance=max(score, NAMED) if one.named else score)
            for one, score in zip(first, scores, strict=True)
        ]
        return [*sorted(again, key=lambda one: (not one.named, -one.relevance)), *rest], True


def _found(run: _Search, ranked: Sequence[_Ranked], limit: int, *, reranked: bool) -> Found:
    cosines = [one.cosine for one in ranked if one.cosine is not None]
    method: Method = "lexical" if not cosines else "rerank" if reranked else "hybrid"
    # What ranks higher is shown as no less relevant: the two figures come from the same parts in other proportions.
    shown = accumulate((one.relevance for one in ranked), min)
    passages = (
        _passage(run, replace(one, relevance=chance), "alert" if one.named else method)
        for one, chance in zip(ranked[:limit], shown, strict=False)
    )
    return Found(
        passages=tuple(passages),
        novel=run.novel,
        best_cosine=max(cosines, default=None),
        method="alert" if run.named else method,
        fallback=run.fallback,
        latency_ms=run.latency_ms,
    )


def _passage(run: _Search, one: _Ranked, method: Method) -> Passage:
    chunks = {chunk.id: chunk for chunk in run.library.chunks[one.document_id]}
    chosen = one.chunk_id if one.chunk_id in chunks else run.library.likeliest_chunk(one.document_id, run.text)
    document = run.library.documents[one.document_id]
    if chosen is None:
        return Passage(document.path, document.title, "", one.relevance, method)
    return Passage(document.path, chunks[chosen].heading, chunks[chosen].text, one.relevance, method)
