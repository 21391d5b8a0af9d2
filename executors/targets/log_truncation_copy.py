"""A compressed copy of the newest part of a log: as much as there is room and time for, checked before it is relied on.

A copy is a gzip file of several members (RFC 1952, 2.2), each of one stretch of the log, which ``zcat`` reads as one.
"""

from __future__ import annotations

import errno
import gzip
import os
import stat
import time
import zlib
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from executors.targets.log_truncation import LEAST_KEPT_BYTES
from pipeline.domain.action import LogFile
from pipeline.domain.action_words import in_mib
from pipeline.domain.errors import PermanentError, PreconditionFailed

STRETCH_BYTES = 1 << 20
MOST_COPY_BYTES = 64 << 20
"""Compressed bytes that are held in memory before they are written."""
_LEVEL = 4
_ROUNDS = 5
"""How often what was written meanwhile is copied too."""
_BLOCK_BYTES = 512
"""The unit of ``st_blocks``, whatever the file system's own block is."""


@dataclass(frozen=True, slots=True)
class _Member:
    """One stretch of the log, compressed; ``length`` and ``checksum`` are of what it was made from."""

    packed: bytes
    length: int
    checksum: int


@dataclass(frozen=True, slots=True)
class Tail:
    """The log from byte ``start`` to byte ``end``. ``why_not_all`` is empty when it reaches back to the beginning."""

    members: tuple[_Member, ...]
    start: int
    end: int
    why_not_all: str

    @property
    def kept_bytes(self) -> int:
        return self.end - self.start


class Copy:
    """A copy of ``file`` in the open folder ``at``; it goes again unless it is ``needed`` in the end."""

    def __init__(self, at: int, where: Path, file: LogFile) -> None:
        self.where = where
        self.needed = False
        self.tail = Tail((), 0, 0, "")
        self._at = at
        self._file = file
        self._name = where.name
        self._part = f".{self._name}.part"
        self._fd = -1
        self._reaches = 0

    def make(self, log: int, *, until: float) -> None:
        """Raises PermanentError when there is no room for enough of it, PreconditionFailed, OSError."""
        self._tidy()
        found = os.fstat(log)
        free = free_bytes(self._at)
        # Half of the room stays for whoever writes on meanwhile.
        self.tail = pack_tail(log, found.st_size, room_bytes=free // 2, until=until)
        if self.tail.kept_bytes < min(LEAST_KEPT_BYTES, found.st_size):
            raise PermanentError(
                f"there is no room to keep even the newest {in_mib(LEAST_KEPT_BYTES)} of {self._file.path}"
                f" ({in_mib(free)} free): nothing was emptied; make a little room by hand,"
                " or set SRE_TRUNCATE_COPIES to a folder that has some"
            )
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        # As private as the log is, and its owner's where we may give it away.
        self._fd = os.open(self._part, flags, stat.S_IMODE(found.st_mode) & 0o666, dir_fd=self._at)
        with suppress(PermissionError):
            os.fchown(self._fd, found.st_uid, found.st_gid)
        _append(self._fd, self.tail.members)
        self._reaches = self.tail.end

    def go_on(self, log: int) -> int:
        """Copies what was written since, until nothing new comes or for some rounds. Returns up to where it reaches."""
        for _ in range(_ROUNDS):
            size = os.fstat(log).st_size
            if size <= self._reaches:
                break
            while self._reaches < size:
                end = min(size, self._reaches + STRETCH_BYTES)
                _append(self._fd, (_packed(log, self._reaches, end),))
                self._reaches = end
        return self._reaches

    def finish(self) -> None:
        """Gives it its name, for good once the machine goes down."""
        os.rename(self._part, self._name, src_dir_fd=self._at, dst_dir_fd=self._at)
        self._part = self._name
        os.fsync(self._at)

    def disk_bytes(self) -> int:
        return disk_bytes(self._fd)

    def is_on_disk_of(self, log: os.stat_result) -> bool:
        return os.fstat(self._fd).st_dev == log.st_dev

    def _tidy(self) -> None:
        """Gives back the room of what a crash left half-made: the log was not emptied then."""
        begins = f".{os.path.basename(self._file.path)}."
        for name in os.listdir(self._at) if self.where.parent == Path(self._file.path).parent else ():
            if name.startswith(begins) and name.endswith(".sre-bot.gz.part"):
                with suppress(FileNotFoundError):
                    os.unlink(name, dir_fd=self._at)

    def end(self) -> None:
        if self._fd < 0:
            return
        os.close(self._fd)
        if not self.needed:
            with suppress(FileNotFoundError):
                os.unlink(self._part, dir_fd=self._at)


@contextmanager
def copy_in(folder: Path | int, file: LogFile) -> Iterator[Copy]:
    """A copy of ``file`` in ``folder``, by path or as an open descriptor of the log's own folder."""
    own = Path(file.path).parent
    stamp = f"{datetime.now(UTC):%Y%m%dT%H%M%S.%fZ}"
    if isinstance(folder, int):
        at, where = os.dup(folder), own / copy_name(file, stamp)
    else:
        at = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        where = folder / f"{own.name}-{copy_name(file, stamp)}"  # many a service calls its log service.log
    copy = Copy(at, where, file)
    try:
        yield copy
    finally:
        copy.end()
        os.close(at)


def copy_name(file: LogFile, stamp: str) -> str:
    """``service.log.20261123T151410.000001Z.sre-bot.gz``; no log by its name, so that it is never emptied itself."""
    return f"{os.path.basename(file.path)}.{stamp}.sre-bot.gz"


def free_bytes(folder: Path | int) -> int:
    """What we may still write there: root may also use what a file system reserves for it."""
    found = os.statvfs(folder)
    return (found.f_bfree if os.geteuid() == 0 else found.f_bavail) * found.f_frsize


def pack_tail(fd: int, end: int, *, room_bytes: int, until: float) -> Tail:
    """Compresses backwards from ``end``, until the beginning, ``room_bytes`` of copy, or ``until`` (monotonic).

    A hole, which a writer that does not append leaves before its first line, holds nothing: it is passed over.
    Raises PreconditionFailed when the file has become shorter.
    """
    members: deque[_Member] = deque()
    taken, start, why = 0, end, ""
    while start > 0 and not why:
        begin = max(0, start - STRETCH_BYTES)
        if not _is_hole(fd, begin, start):
            member = _packed(fd, begin, start)
            if taken + len(member.packed) > min(room_bytes, MOST_COPY_BYTES):
                why = "there was no room for more"
                break
            taken += len(member.packed)
            members.appendleft(member)
        start = begin
        if start > 0 and time.monotonic() > until:
            why = "there was no time for more"
    return Tail(tuple(members), start, end, why)


def disk_bytes(fd: int) -> int:
    """What the file takes up on the disk."""
    return os.fstat(fd).st_blocks * _BLOCK_BYTES


def head_checksum(fd: int, head_bytes: int) -> str:
    return f"{zlib.crc32(os.pread(fd, head_bytes, 0)):08x}"


def _append(copy: int, members: tuple[_Member, ...]) -> None:
    """Appends them to the open file ``copy``, forces it to the disk and reads it back.

    Raises OSError (no room, broken disk), PermanentError when what is read is not what was written.
    """
    at = os.lseek(copy, 0, os.SEEK_END)
    for member in members:
        left = memoryview(member.packed)
        while left:
            left = left[os.write(copy, left) :]
    os.fsync(copy)
    for member in members:
        found = os.pread(copy, len(member.packed), at)
        at += len(member.packed)
        if not _holds(found, member):
            raise PermanentError("the copy of the log reads back wrong: nothing was emptied; look after the disk")


def _packed(fd: int, begin: int, end: int) -> _Member:
    data = os.pread(fd, end - begin, begin)
    if len(data) < end - begin:
        raise PreconditionFailed("the log became shorter while it was copied: somebody else has emptied it")
    return _Member(gzip.compress(data, _LEVEL, mtime=0), len(data), zlib.crc32(data))


def _holds(found: bytes, member: _Member) -> bool:
    try:
        data = gzip.decompress(found)
    except (OSError, EOFError, zlib.error):
        return False
    return (len(data), zlib.crc32(data)) == (member.length, member.checksum)


def _is_hole(fd: int, begin: int, end: int) -> bool:
    try:
        return os.lseek(fd, begin, os.SEEK_DATA) >= end
    except OSError as error:
        return error.errno == errno.ENXIO  # no data from there on; any other: it knows of no holes
