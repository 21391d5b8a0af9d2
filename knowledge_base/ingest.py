"""Taking documents in: what changed since the last time, by content hash, and vectors for what has none."""

from __future__ import annotations

import asyncio
import importlib.resources
import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

from knowledge_base.chunking import Document, fingerprint
from knowledge_base.readers.documents import NothingThere, read_document
from knowledge_base.sources import FolderSource, Source, folder_source
from knowledge_base.stored import Embedder, FloatArray, StoredPiece
from knowledge_base.text import cleaned
from pipeline.domain.errors import PermanentError, SreBotError, TemporaryError

PACKAGED = "packaged"
"""The collection of the runbooks that travel with the bot."""
EMBED_BATCH = 32
_PROBE = "disk"
"""Embedded where nothing else is, to learn the size of a model's vectors."""

Progress = Callable[[Literal["read", "embed"], int, int], None]
"""What is being done, how many are done, how many there are."""


class DocumentStore(Protocol):
    """Documents and their chunks."""

    async def hashes(self, collection: str) -> Mapping[str, str]:
        """Content hash by path, of every document of ``collection``."""
        ...

    async def put(self, collection: str, document: Document) -> None:
        """Adds or replaces a document; chunks whose text stays keep their rows and vectors."""
        ...

    async def remove(self, collection: str, paths: Sequence[str]) -> None:
        """Forgets these documents and their chunks."""
        ...


class VectorSink(Protocol):
    """Where vectors are kept. Raises PermanentError where the database has no pgvector."""

    async def pending(self, model: str, dimensions: int) -> int:
        """How many pieces have no vector of ``model`` in this size."""
        ...

    async def forget_other_sizes(self, model: str, dimensions: int) -> None:
        """Forgets the vectors of ``model`` in any size but this."""
        ...

    async def missing(self, model: str, limit: int) -> Sequence[StoredPiece]:
        """Up to ``limit`` pieces that have no vector of ``model``."""
        ...

    async def put(self, model: str, piece_ids: Sequence[int], vectors: FloatArray) -> None:
        """Keeps the rows of ``vectors``, shape (chunks, dimensions), one for each id."""
        ...


@dataclass(frozen=True, slots=True)
class IngestReport:
    """What one run did, by path. ``failed`` has one line for each file that could not be read.

    ``notes``: a line for each thing that was guessed or left out of a document that was read.
    """

    added: tuple[str, ...] = ()
    changed: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()
    unchanged: int = 0
    failed: tuple[str, ...] = ()
    embedded: int = 0
    embedding_note: str = ""
    """Why pieces were left without vectors; empty when all have one."""
    notes: tuple[str, ...] = ()

    @property
    def known(self) -> int:
        """Documents of the source that are known as they are now."""
        return len(self.added) + len(self.changed) + self.unchanged


async def ingest_packaged(
    documents: DocumentStore,
    *,
    embedder: Embedder | None = None,
    vectors: VectorSink | None = None,
) -> IngestReport:
    """Takes in the runbooks that travel with the bot."""
    root = importlib.resources.files("knowledge_base") / "runbooks"
    source = FolderSource(root, collection=PACKAGED, origin="")
    return await ingest(source, documents, embedder=embedder, vectors=vectors)


async def ingest_folder(
    folder: Path,
    documents: DocumentStore,
    *,
    embedder: Embedder | None = None,
    vectors: VectorSink | None = None,
) -> IngestReport:
    """Takes in every document below ``folder``; its resolved path names the collection.

    Raises PermanentError when there is no such folder, TemporaryError when the database is away.
    """
    source = await asyncio.to_thread(folder_source, folder)
    return await ingest(source, documents, embedder=embedder, vectors=vectors)


def _unwatched(stage: Literal["read", "embed"], done: int, total: int) -> None:
    del stage, done, total


async def ingest(
    source: Source,
    documents: DocumentStore,
    *,
    embedder: Embedder | None = None,
    vectors: VectorSink | None = None,
    progress: Progress = _unwatched,
) -> IngestReport:
    """Takes in what ``source`` has. A document that is there and cannot be read keeps the version taken in before.

    Raises PermanentError or TemporaryError when the source or the database cannot be reached, and PermanentError when
    there is nothing where documents were: a share that is not mounted looks like this.
    """
    known = await documents.hashes(source.collection)
    listing = await source.listing()
    if known and listing.complete and not listing.paths and not listing.failed:
        raise PermanentError(
            f"{source.collection}: nothing is there now; the {len(known)} documents known from it are kept. "
            f"If they are really gone: sre-bot kb forget {shlex.quote(source.collection)}"
        )
    failed = {path: f"{path}: {reason}" for path, reason in listing.failed.items()}
    added: list[str] = []
    changed: list[str] = []
    gone: set[str] = set()
    notes: list[str] = []
    unchanged = 0
    for done, path in enumerate(listing.paths):
        progress("read", done, len(listing.paths))
        try:
            raw = await source.read(path)
            if known.get(path) == fingerprint(raw.content):
                unchanged += 1
                continue
            document = await read_document(raw)
        except (PermanentError, TemporaryError) as error:
            failed[path] = f"{path}: {' '.join(cleaned(str(error)).split())}"
            if isinstance(error, NothingThere):
                gone.add(path)
            continue
        notes.extend(f"{path}: {note}" for note in document.notes)
        await documents.put(source.collection, document)
        (changed if path in known else added).append(path)
    progress("read", len(listing.paths), len(listing.paths))
    if listing.complete:
        listed = {*listing.paths, *failed}
        kept = tuple(path for path in failed if path.endswith("/"))
        gone |= {path for path in known if path not in listed and not path.startswith(kept)}
    removed = [path for path in known if path in gone]
    if removed:
        await documents.remove(source.collection, removed)
    embedded, note = await _embed(embedder, vectors, progress)
    return IngestReport(
        added=tuple(added),
        changed=tuple(changed),
        removed=tuple(removed),
        unchanged=unchanged,
        failed=tuple(failed.values()),
        embedded=embedded,
        embedding_note=note,
        notes=tuple(notes),
    )


async def _embed(embedder: Embedder | None, vectors: VectorSink | None, progress: Progress) -> tuple[int, str]:
    """Embeds what has no vector yet. Without one the search by words still finds it, so a failure is only noted."""
    if embedder is None or vectors is None:
        return 0, "no embedding model is set up"
    done = total = size = 0
    try:
        while (batch := await vectors.missing(embedder.name, EMBED_BATCH)) or not size:
            embedded = await embedder.embed([piece.text for piece in batch] or [_PROBE])
            if not size:
                # A model of the same name may have another size now: then its vectors of before are none.
                size = embedded.shape[1]
                await vectors.forget_other_sizes(embedder.name, size)
                total = await vectors.pending(embedder.name, size)
            if batch:
                await vectors.put(embedder.name, [piece.id for piece in batch], embedded)
                done += len(batch)
                progress("embed", done, max(total, done))
    except SreBotError as error:
        return done, str(error)
    return done, ""
