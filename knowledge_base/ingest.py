"""Taking documents in: what changed since the last time, by content hash, and vectors for what has none."""

from __future__ import annotations

import asyncio
import importlib.resources
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Protocol

from knowledge_base.chunking import Document, parse_markdown
from knowledge_base.retrieval import Embedder, FloatArray, StoredChunk
from pipeline.domain.errors import PermanentError, SreBotError

PACKAGED = "packaged"
"""The collection of the runbooks that travel with the bot."""
MAX_FILE_BYTES = 5_000_000
MAX_DEPTH = 10
"""Folders below the first one; a link that leads back into itself ends here."""
EMBED_BATCH = 32


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

    async def missing(self, model: str, limit: int) -> Sequence[StoredChunk]:
        """Up to ``limit`` chunks that have no vector of ``model``."""
        ...

    async def put(self, model: str, chunk_ids: Sequence[int], vectors: FloatArray) -> None:
        """Keeps the rows of ``vectors``, shape (chunks, dimensions), one for each id."""
        ...


@dataclass(frozen=True, slots=True)
class IngestReport:
    """What one run did, by path. ``failed`` has one line for each file that could not be read."""

    added: tuple[str, ...] = ()
    changed: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()
    unchanged: int = 0
    failed: tuple[str, ...] = ()
    embedded: int = 0
    embedding_note: str = ""
    """Why chunks were left without vectors; empty when all have one."""


@dataclass(slots=True)
class _Folder:
    documents: dict[str, Document] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)


async def ingest_packaged(
    documents: DocumentStore, *, embedder: Embedder | None = None, vectors: VectorSink | None = None
) -> IngestReport:
    """Takes in the runbooks that travel with the bot."""
    root = importlib.resources.files("knowledge_base") / "runbooks"
    return await _ingest(PACKAGED, root, documents, embedder, vectors)


async def ingest_folder(
    folder: Path, documents: DocumentStore, *, embedder: Embedder | None = None, vectors: VectorSink | None = None
) -> IngestReport:
    """Takes in every ``*.md`` below ``folder``; its resolved path names the collection.

    Raises PermanentError when there is no such folder, TemporaryError when the database is away.
    """
    resolved = await asyncio.to_thread(lambda: folder.expanduser().resolve())
    if not await asyncio.to_thread(resolved.is_dir):
        raise PermanentError(f"{folder} is not a folder: give the folder that holds the runbooks")
    return await _ingest(str(resolved), resolved, documents, embedder, vectors)


async def _ingest(
    collection: str,
    root: Traversable,
    documents: DocumentStore,
    embedder: Embedder | None,
    vectors: VectorSink | None,
) -> IngestReport:
    known = await documents.hashes(collection)
    folder = await asyncio.to_thread(_read, root)
    added: list[str] = []
    changed: list[str] = []
    for path, document in folder.documents.items():
        if known.get(path) == document.content_hash:
            continue
        await documents.put(collection, document)
        (changed if path in known else added).append(path)
    # A file that is there and cannot be read keeps the version taken in before.
    removed = [path for path in known if path not in folder.documents and path not in folder.failed]
    if removed:
        await documents.remove(collection, removed)
    embedded, note = await _embed(embedder, vectors)
    return IngestReport(
        added=tuple(added),
        changed=tuple(changed),
        removed=tuple(removed),
        unchanged=len(folder.documents) - len(added) - len(changed),
        failed=tuple(folder.failed.values()),
        embedded=embedded,
        embedding_note=note,
    )


def _read(root: Traversable) -> _Folder:
    folder = _Folder()
    for path, file in _markdown_files(root, "", 0):
        try:
            folder.documents[path] = _parse(path, file)
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "not UTF-8 text"
            folder.failed[path] = f"{path}: {reason}"
        except PermanentError as error:
            folder.failed[path] = str(error)
    return folder


def _parse(path: str, file: Traversable) -> Document:
    with file.open("rb") as stream:
        content = stream.read(MAX_FILE_BYTES + 1)
    if len(content) > MAX_FILE_BYTES:
        raise PermanentError(f"{path}: larger than {MAX_FILE_BYTES // 1_000_000} MB")
    if b"\0" in content:
        raise PermanentError(f"{path}: not a text file")
    return parse_markdown(path, content.decode())


def _markdown_files(folder: Traversable, prefix: str, depth: int) -> Iterator[tuple[str, Traversable]]:
    for entry in sorted(folder.iterdir(), key=lambda item: item.name):
        if entry.name.startswith("."):
            continue
        if entry.is_dir():
            if depth < MAX_DEPTH:
                yield from _markdown_files(entry, f"{prefix}{entry.name}/", depth + 1)
        elif entry.name.lower().endswith((".md", ".markdown")) and entry.is_file():
            yield f"{prefix}{entry.name}", entry


async def _embed(embedder: Embedder | None, vectors: VectorSink | None) -> tuple[int, str]:
    """Embeds what has no vector yet. Without one the search by words still finds it, so a failure is only noted."""
    if embedder is None or vectors is None:
        return 0, "no embedding model is set up"
    done = 0
    try:
        while batch := await vectors.missing(embedder.name, EMBED_BATCH):
            embedded = await embedder.embed([chunk.searchable for chunk in batch])
            await vectors.put(embedder.name, [chunk.id for chunk in batch], embedded)
            done += len(batch)
    except SreBotError as error:
        return done, str(error)
    return done, ""
