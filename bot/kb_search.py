"""``sre-bot kb search`` and ``sre-bot kb eval``: what the knowledge base finds, and how well."""

from __future__ import annotations

import asyncio
import json
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import click

from knowledge_base.evaluate import DEPTH, EvalQuery, FileNames, Outcome, figures, read_queries, unknown_names
from knowledge_base.ingest import DocumentStore, VectorSink, ingest_folder
from knowledge_base.rerank import Reranker
from knowledge_base.retrieval import Retrieval
from knowledge_base.stored import ChunkSource, Embedder, VectorSearch
from pipeline.domain.errors import ConfigurationError, SreBotError
from pipeline.ports.knowledge import Found, Knowledge, KnowledgeQuery, Method

PATIENCE_S = 300.0
"""For the first vector of an evaluation: the model is loaded with it."""
_PREVIEW_CHARS = 160
_RANKED_BY: Mapping[Method, str] = {
    "lexical": "words alone",
    "hybrid": "meaning and words",
    "vector": "meaning and words",
    "alert": "meaning and words",
    "rerank": "meaning and words, reranked",
}


class EvalDocuments(DocumentStore, ChunkSource, Protocol):
    """Where the documents of an evaluation go, and are read from."""


class EvalVectors(VectorSink, VectorSearch, Protocol):
    """The same for their vectors."""


@dataclass(frozen=True, slots=True)
class EvalKit:
    """What an evaluation runs on. Without ``embedder`` words alone are ranked."""

    documents: EvalDocuments
    vectors: EvalVectors
    embedder: Embedder | None = None
    reranker: Reranker | None = None


async def search_command(knowledge: Knowledge, query: KnowledgeQuery, *, limit: int, as_json: bool) -> int:
    """Prints what is found for ``query``; returns the exit code.

    With ``as_json`` one object: ``{"novel": bool, "best_cosine": number | null, "method": str, "fallback": str,
    "latency_ms": {step: number}, "passages": [{"document", "heading", "text", "score", "method"}]}``.
    """
    try:
        found = await knowledge.search(query, limit=limit)
    except SreBotError as error:
        click.echo(f"sre-bot: {error}", err=True)
        return 1
    if found.fallback:
        click.echo(f"sre-bot: {found.fallback}", err=True)
    click.echo(json.dumps(_as_json(found), ensure_ascii=False) if as_json else _as_text(found))
    return 0


async def eval_command(docs: Path, queries: Path, kit: EvalKit, *, as_json: bool) -> int:
    """Takes in ``docs``, asks ``queries`` and prints the figures; returns the exit code: 2 when nothing can be asked.

    With ``as_json`` one object: ``documents``, ``index_s``, ``mode``, what ``evaluate.figures`` says, and ``misses``:
    for each query whose first document is a wrong one ``{"id", "relevant", "found"}``. Every line of the file that is
    no query, every relevant file that is not there and every document that cannot be read is a line on stderr.
    """
    try:
        asked = await asyncio.to_thread(_queries, queries)
        started = time.perf_counter()
        report = await ingest_folder(docs, kit.documents, embedder=kit.embedder, vectors=kit.vectors)
    except SreBotError as error:
        click.echo(f"sre-bot: {error}", err=True)
        return 2
    index_s = time.perf_counter() - started
    known = await kit.documents.documents()
    names = FileNames(document.path for document in known)
    for line in (*report.failed, *(unknown_names(asked, names) if known else ())):
        click.echo(f"sre-bot: {line}", err=True)
    if not known:
        click.echo(f"sre-bot: --docs {docs}: no documents there, nothing can be asked", err=True)
        return 2
    vectors = kit.vectors if kit.embedder else None
    search = Retrieval(
        kit.documents, embedder=kit.embedder, vectors=vectors, reranker=kit.reranker, embed_deadline_s=PATIENCE_S
    )
    # The index of words and the model are there before the first query that is timed.
    await search.search(KnowledgeQuery("warm up"), limit=1)
    answers = [await _asked(search, query) for query in asked]
    outcomes = [outcome for outcome, _ in answers]
    told: dict[str, Any] = {
        "documents": len(known),
        "index_s": round(index_s, 2),
        "mode": _mode([found for _, found in answers]),
        **figures(outcomes, names),
    }
    told["misses"] = [
        {"id": outcome.query.id, "relevant": list(outcome.query.relevant), "found": list(outcome.found[:3])}
        for outcome in outcomes
        if outcome.query.relevant and not _is_right(outcome, names)
    ]
    click.echo(json.dumps(told, ensure_ascii=False) if as_json else _figures_as_text(told))
    return 0


def _queries(path: Path) -> list[EvalQuery]:
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigurationError(f"--queries {path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ConfigurationError(f"--queries {path}: not UTF-8 text") from error
    asked, errors = read_queries(text.split("\n"))
    for line in errors:
        click.echo(f"sre-bot: {path}, {line}", err=True)
    if not asked:
        raise ConfigurationError(f'--queries {path} holds no query: a line is {{"id": …, "query": …, "relevant": […]}}')
    return asked


async def _asked(search: Retrieval, query: EvalQuery) -> tuple[Outcome, Found]:
    wanted = KnowledgeQuery(query.query, query.alert, query.services, query.platform or "")
    started = time.perf_counter()
    found = await search.search(wanted, limit=DEPTH)
    latency_ms = (time.perf_counter() - started) * 1000
    return Outcome(query, tuple(passage.document for passage in found.passages), found.novel, latency_ms), found


def _mode(answers: Sequence[Found]) -> str:
    """How the queries were ranked, and what some of them had to do without."""
    ranked = Counter(_RANKED_BY["lexical" if found.best_cosine is None else found.method] for found in answers)
    fallbacks = Counter(found.fallback for found in answers if found.fallback)
    mode = ranked.most_common(1)[0][0]
    missed = [why if times == len(answers) else f"{times} queries {why}" for why, times in fallbacks.most_common()]
    return f"{mode}: {', '.join(missed)}" if missed else mode


def _is_right(outcome: Outcome, names: FileNames) -> bool:
    return any(path in names.paths(name) for path in outcome.found[:1] for name in outcome.query.relevant)


def _as_json(found: Found) -> dict[str, Any]:
    return {
        "novel": found.novel,
        "best_cosine": None if found.best_cosine is None else round(found.best_cosine, 4),
        "method": found.method,
        "fallback": found.fallback,
        "latency_ms": dict(found.latency_ms),
        "passages": [
            {
                "document": passage.document,
                "heading": passage.heading,
                "text": passage.text,
                "score": round(passage.score, 4),
                "method": passage.method,
            }
            for passage in found.passages
        ],
    }


def _as_text(found: Found) -> str:
    if not found.passages:
        return (
            "The knowledge base holds nothing that shares a word with this, for what --service and --platform name "
            "where they are given. sre-bot kb ingest PATH takes documents in."
        )
    lines = ["Nothing known is like this; the nearest there is:"] if found.novel else []
    for place, passage in enumerate(found.passages, start=1):
        preview = " ".join(passage.text.split())
        lines.append(f"{place:>2}. {passage.score:.2f} {passage.document} · {passage.heading} ({passage.method})")
        lines.append(f"      {preview[:_PREVIEW_CHARS]}{'…' if len(preview) > _PREVIEW_CHARS else ''}")
    return "\n".join(lines)


def _figures_as_text(told: dict[str, Any]) -> str:
    lines = [f"{told['documents']} documents, indexed in {told['index_s']:.1f} s, {told['mode']}"]
    for name, row in (("all", told), *told.get("by_kind", {}).items()):
        shares = "  ".join(f"{key} {'–' if row[key] is None else format(row[key], '.3f')}" for key in row if "@" in key)
        lines.append(f"{name:<14} {row['queries']:>5} queries  {shares}")
    if novelty := told.get("novelty"):
        wrongly = novelty["wrongly_given_up"]
        lines.append(
            f"new: {novelty['recognised']:.1%} of {novelty['unanswerable']} queries without an answer recognised"
            + ("" if wrongly is None else f", {wrongly:.1%} of the others wrongly given up")
        )
    query_ms = told["query_ms"]
    lines.append(f"a query: p50 {query_ms['p50']:.1f} ms, p95 {query_ms['p95']:.1f} ms")
    return "\n".join(lines)
