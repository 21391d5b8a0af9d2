"""``sre-bot kb ingest``, ``kb forget`` and ``kb list``: documents in and out, and what is there."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Literal

import click

from knowledge_base.ingest import DocumentStore, IngestReport, VectorSink, ingest
from knowledge_base.listing import DocumentList, ListedDocument
from knowledge_base.readers.documents import FORMATS
from knowledge_base.sources import Source
from knowledge_base.stored import Embedder
from pipeline.domain.errors import SreBotError

if TYPE_CHECKING:
    from click._termui_impl import ProgressBar

Echo = Callable[[str], None]

_DOING = {"read": "reading documents", "embed": "embedding passages"}


@dataclass(frozen=True, slots=True)
class KnowledgeParts:
    """What the commands work with. ``source_of``: a PATH into its source, or ConfigurationError, PermanentError."""

    documents: DocumentStore
    listed: DocumentList
    source_of: Callable[[str], Source]
    embedder: Embedder | None = None
    vectors: VectorSink | None = None


async def ingest_command(paths: Sequence[str], parts: KnowledgeParts, echo: Echo, complain: Echo) -> int:
    """Takes in every source; returns the exit code: 1 when of one of them nothing could be read.

    One line a source on ``echo``; one for each file that could not be read, or not as it stands, on ``complain``.
    """
    code = 0
    for path in paths:
        try:
            report, collection = await _ingested(path, parts)
        except SreBotError as error:
            complain(str(error))
            code = 1
            continue
        for line in (*report.failed, *report.notes):
            complain(line)
        if not report.known:
            code = 1
            if not report.failed:
                suffixes = [suffix for known in FORMATS.values() for suffix in known.suffixes]
                complain(f"{collection}: no documents there; read are {', '.join(suffixes)}")
        echo(_summary(collection, report))
        if report.embedding_note:
            complain(f"not all passages are embedded, they are found by words alone: {report.embedding_note}")
    return code


async def forget_command(collections: Sequence[str], parts: KnowledgeParts, echo: Echo, complain: Echo) -> int:
    """Forgets these collections whole; returns the exit code: 1 when of one of them nothing is known."""
    code = 0
    for name in collections:
        known = await parts.documents.hashes(name)
        if known:
            await parts.documents.remove(name, list(known))
            echo(f"{name}: {len(known)} documents forgotten")
        else:
            complain(f"{name}: nothing is known of it; `sre-bot kb list` shows the names of collections")
            code = 1
    return code


async def list_command(parts: KnowledgeParts, as_json: bool, echo: Echo) -> int:
    """Prints the documents that are known; returns the exit code.

    With ``as_json`` one array of ``{"collection", "path", "title", "kind", "category", "services": [str], "platform",
    "owner", "last_verified": date or null, "chunks": int, "ingested_at": time, "stale": bool}``.
    """
    today = datetime.now(UTC).date()
    found = await parts.listed.listed()
    if as_json:
        rows = [{**asdict(document), "stale": document.is_stale(today)} for document in found]
        echo(json.dumps(rows, default=lambda moment: moment.isoformat()))
        return 0
    for document in found:
        echo(_line(document, stale=document.is_stale(today)))
    if not found:
        echo("The knowledge base is empty: sre-bot kb ingest PATH…")
    return 0


async def _ingested(path: str, parts: KnowledgeParts) -> tuple[IngestReport, str]:
    source = parts.source_of(path)
    bars = _Bars(shown=sys.stderr.isatty())
    try:
        report = await ingest(
            source,
            parts.documents,
            embedder=parts.embedder,
            vectors=parts.vectors,
            progress=bars,
        )
    finally:
        bars.close()
        await source.close()
    return report, source.collection


def _summary(collection: str, report: IngestReport) -> str:
    counts = {
        "added": len(report.added),
        "changed": len(report.changed),
        "removed": len(report.removed),
        "unchanged": report.unchanged,
        "not read": len(report.failed),
        "passages embedded": report.embedded,
    }
    return f"{collection}: {', '.join(f'{count} {what}' for what, count in counts.items())}"


def _line(document: ListedDocument, *, stale: bool) -> str:
    facts = [
        document.kind,
        document.category,
        ", ".join(document.services),
        document.platform,
        document.owner,
        f"verified {document.last_verified}{' (stale)' if stale else ''}" if document.last_verified else "",
        f"{document.chunks} chunks",
        f"ingested {document.ingested_at:%Y-%m-%d %H:%M}",
    ]
    return f"{document.collection}  {document.path}  {document.title}  [{' | '.join(fact for fact in facts if fact)}]"


@dataclass(slots=True)
class _Bars:
    """A progress bar for each thing that is done, on stderr; none when ``shown`` is false."""

    shown: bool
    _bar: ProgressBar[int] | None = None
    _stage: str = ""
    _done: int = field(default=0)

    def __call__(self, stage: Literal["read", "embed"], done: int, total: int) -> None:
        if not self.shown:
            return
        if self._bar is None or self._stage != stage:
            self.close()
            self._bar = click.progressbar(length=total, label=_DOING[stage], file=sys.stderr)
            self._bar.render_progress()
            self._stage, self._done = stage, 0
        self._bar.length = total
        self._bar.update(done - self._done)
        self._done = done

    def close(self) -> None:
        """Ends the line of the last bar."""
        if self._bar is not None:
            self._bar.render_finish()
            self._bar = None
