"""The file of anchors: read, and added to under a lock, with every line on the disk before the trail tells of it."""

from __future__ import annotations

import asyncio
import fcntl
import logging
import os
import secrets
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path

from bot.embedded.directory import sync_directory
from pipeline.domain.anchors import Anchor, AnchoredHead, AnchorLog, AnchorNote
from pipeline.domain.errors import ConfigurationError
from pipeline.domain.trace import TraceEntry, TraceKind
from pipeline.ports.store import Store
from pipeline.ports.trail import SYSTEM, TrailArchive

log = logging.getLogger(__name__)


def read_anchors(path: Path) -> AnchorLog:
    """The file as it stands; an empty log where there is none. Raises ConfigurationError when it cannot be read."""
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        content = b""
    except OSError as error:
        raise ConfigurationError(f"SRE_ANCHOR_FILE: {path} cannot be read ({error.strerror})") from error
    return _parsed(path, content)


class AnchorKeeper:
    """Adds to the file at ``path`` about every ``interval_s``, and when an incident has ended."""

    def __init__(self, store: Store, archive: TrailArchive, path: Path, *, interval_s: float) -> None:
        self._store = store
        self._archive = archive
        self._path = path
        self._interval = timedelta(seconds=interval_s)

    async def anchor(self) -> Anchor:
        """Adds a line, whether or not anything changed.

        A file that was tampered with gets its line all the same; the check names what is wrong. Raises
        ConfigurationError when the file cannot be written, TemporaryError when the database is away.
        """
        try:
            async with self._locked() as fd:
                known = await asyncio.to_thread(self._whole_lines, fd)
                async with self._archive.snapshot() as snapshot:
                    heads = await snapshot.heads(None)
                    at = snapshot.at
                now = [AnchoredHead(incident=one, seq=head.seq, hash=head.hash) for one, head in heads.items()]
                anchor = known.next(secrets.token_hex(8), at, now)
                known.add(anchor.line())
                await asyncio.to_thread(_append, fd, self._path, anchor.line() + b"\n")
        except OSError as error:
            raise ConfigurationError(f"SRE_ANCHOR_FILE: {self._path} cannot be written ({error.strerror})") from error
        if known.wrong:
            log.error("the file of anchors %s was tampered with: run `sre-bot audit verify`", self._path)
        note = AnchorNote(
            anchor.file, anchor.number, known.hashes[-1], str(self._path.resolve()), socket.gethostname(), anchor.at
        )
        said = f"anchor {anchor.number}: {len(now)} chains, {len(anchor.chains)} of them changed"
        async with self._store.begin() as uow:
            await uow.trace.add(SYSTEM, TraceEntry(TraceKind.ANCHOR, said, note.data()))
        return anchor

    async def anchor_if_due(self) -> bool:
        """Adds a line when the last is older than the interval or than the end of an incident."""
        last = (await asyncio.to_thread(read_anchors, self._path)).last_at
        if last is not None and not await self._archive.ended_since(last):
            async with self._archive.snapshot() as snapshot:
                if snapshot.at < last + self._interval:
                    return False
        await self.anchor()
        return True

    @asynccontextmanager
    async def _locked(self) -> AsyncIterator[int]:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        fd = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        try:
            await asyncio.to_thread(fcntl.flock, fd, fcntl.LOCK_EX)
            yield fd
        finally:
            os.close(fd)

    def _whole_lines(self, fd: int) -> AnchorLog:
        """What is in the file; half a line, of a write that a crash cut short, is taken off."""
        content = self._path.read_bytes()
        whole = content.rfind(b"\n") + 1
        if whole < len(content):
            os.ftruncate(fd, whole)
        return _parsed(self._path, content)


def _parsed(path: Path, content: bytes) -> AnchorLog:
    known = AnchorLog(str(path.resolve()))
    for line in content.split(b"\n")[:-1]:
        known.add(line)
    return known


def _append(fd: int, path: Path, line: bytes) -> None:
    if os.write(fd, line) < len(line):
        raise OSError(28, "no space left on the disk")
    os.fsync(fd)
    sync_directory(path.parent)
