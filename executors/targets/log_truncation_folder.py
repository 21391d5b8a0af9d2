"""An allow-listed folder of logs on this machine, opened so that nothing leads out of it, and its record."""

from __future__ import annotations

import errno
import fcntl
import heapq
import os
import re
import stat
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from executors.targets.log_truncation import MOST_LISTED, Entry, is_log, read_entries
from pipeline.domain.action import LogFile, LogPath
from pipeline.domain.errors import PermanentError, PreconditionFailed, SreBotError, TemporaryError

OWN = ".sre-bot"
"""The folder in an allow-listed one that the bot keeps its record in."""
_LOCK = "lock"
_RECORD = "journal.jsonl"
_MOST_RECORD_BYTES = 16 << 20
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_DENIED = (errno.EACCES, errno.EPERM, errno.EROFS)
_GONE = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENXIO, errno.EISDIR)
_FULL = (errno.ENOSPC, errno.EDQUOT)
_PROC = Path("/proc")

_PATH: TypeAdapter[str] = TypeAdapter(LogPath)


def identity(found: os.stat_result) -> str:
    return f"{found.st_dev}:{found.st_ino}"


def refusal(doing: str, error: OSError) -> SreBotError:
    """An error of the file system before anything took effect."""
    said = f"{doing}: {os.strerror(error.errno or 0)}"
    if error.errno in _GONE:
        return PreconditionFailed(f"{said}; it is gone, or something else is in its place")
    if error.errno in _DENIED:
        return PermanentError(f"{said}; the bot's account needs the right to read and write there")
    if error.errno in _FULL:
        return PermanentError(f"{said}; nothing was emptied: make a little room by hand, or set SRE_TRUNCATE_COPIES")
    return TemporaryError(said)


@dataclass(frozen=True, slots=True)
class Place:
    """Where a log lies below an allow-listed folder."""

    folder: str
    name: str


class LogFolder:
    """One allow-listed folder, ``<root>/<service>[-<number>]/<log>``; names below ``root`` are never followed as links.

    Methods block, and raise OSError where they do not say otherwise.
    """

    def __init__(self, name: str, root: Path, copies: Path | None) -> None:
        self.root = root
        self.own = root / OWN if copies is None else copies / f"{name}{OWN}"
        """The folder of the record."""

    def opened(self, held: ExitStack) -> int:
        fd = os.open(self.root, _FOLDER)
        held.callback(os.close, fd)
        return fd

    def services(self, root: int, name: str) -> list[str]:
        """The folders of one service, sorted: its own, and one for each of its replicas."""
        of_service = re.compile(re.escape(name) + r"(-[0-9]{1,6})?")
        with os.scandir(root) as entries:
            return sorted(one.name for one in entries if of_service.fullmatch(one.name) and _is_folder(one))

    def files(self, root: int, name: str) -> tuple[LogFile, ...]:
        """Its logs that hold anything, the largest first: regular files with one name only."""
        found: list[LogFile] = []
        for folder in self.services(root, name):
            with suppress(FileNotFoundError), self._within(root, folder) as fd, os.scandir(fd) as entries:
                found += [file for one in entries if (file := self._file(folder, one)) is not None]
        return tuple(heapq.nlargest(MOST_LISTED, found, key=lambda file: (file.size_bytes, file.path)))

    def place(self, service: str, path: str) -> Place:
        """Raises PermanentError for a path that is no log of the service."""
        whole = Path(path)
        is_one = whole.parent.parent == self.root and is_log(whole.name)
        if not is_one or not re.fullmatch(re.escape(service) + r"(-[0-9]{1,6})?", whole.parent.name):
            raise PermanentError(f"{path} is no log of {service} below {self.root}: nothing was done")
        return Place(whole.parent.name, whole.name)

    def log(self, root: int, place: Place, held: ExitStack) -> tuple[int, int]:
        """Descriptors of the folder and of the log in it, open to be read and written."""
        folder = held.enter_context(self._within(root, place.folder))
        # A pipe of that name would be waited for without O_NONBLOCK.
        flags = os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        log = os.open(place.name, flags, dir_fd=folder)
        held.callback(os.close, log)
        return folder, log

    def record(self, held: ExitStack) -> Record:
        """The folder's record, with nobody else at work. Raises TemporaryError while somebody is."""
        self.own.mkdir(0o700, exist_ok=True)
        own = self._opened_own(held)
        lock = os.open(_LOCK, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600, dir_fd=own)
        held.callback(os.close, lock)  # which lets the lock go
        _locked(lock, fcntl.LOCK_EX, self.root)
        return Record(own)

    def entries(self) -> tuple[Entry, ...]:
        """What is in the record. Raises TemporaryError while somebody is at work, for it may change at once."""
        with ExitStack() as held:
            try:
                own = self._opened_own(held)
                lock = os.open(_LOCK, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=own)
            except FileNotFoundError:
                return ()  # nobody has ever begun
            held.callback(os.close, lock)
            _locked(lock, fcntl.LOCK_SH, self.root)
            return Record(own).entries()

    def _opened_own(self, held: ExitStack) -> int:
        own = os.open(self.own, _FOLDER | os.O_NOFOLLOW)
        held.callback(os.close, own)
        return own

    def _file(self, folder: str, entry: os.DirEntry[str]) -> LogFile | None:
        if not is_log(entry.name):
            return None
        try:
            found = entry.stat(follow_symlinks=False)
            path = _PATH.validate_python(f"{self.root}/{folder}/{entry.name}")
        except (FileNotFoundError, ValidationError):
            return None
        if not stat.S_ISREG(found.st_mode) or found.st_nlink != 1 or found.st_size == 0:
            return None
        return LogFile(path=path, uid=identity(found), size_bytes=found.st_size)

    @contextmanager
    def _within(self, root: int, name: str) -> Iterator[int]:
        fd = os.open(name, _FOLDER | os.O_NOFOLLOW, dir_fd=root)
        try:
            yield fd
        finally:
            os.close(fd)


class Record:
    """The journal in the open folder ``own``: one JSON object a line, on the disk before what it tells takes effect."""

    def __init__(self, own: int) -> None:
        self._own = own

    def entries(self) -> tuple[Entry, ...]:
        try:
            fd = os.open(_RECORD, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=self._own)
        except FileNotFoundError:
            return ()
        with os.fdopen(fd, "rb") as file:
            file.seek(max(0, os.fstat(fd).st_size - _MOST_RECORD_BYTES))
            return read_entries(file.read().decode(errors="replace"))

    def append(self, entry: Entry) -> None:
        flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC
        fd = os.open(_RECORD, flags, 0o600, dir_fd=self._own)
        try:
            size = os.fstat(fd).st_size
            # What a crash cut off becomes a line of its own, that says nothing.
            torn = size > 0 and os.pread(fd, 1, size - 1) != b"\n"
            line = b"\n" * torn + entry.model_dump_json().encode() + b"\n"
            if os.write(fd, line) < len(line):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            os.fsync(fd)
            os.fsync(self._own)
        finally:
            os.close(fd)


def careless_writers(file: os.stat_result, *, until: float) -> tuple[int, ...]:
    """Processes that write to the file without appending, as far as /proc lets us look until ``until`` (monotonic).

    Each of them goes on at its old offset, so that the file looks as large as before and begins with a hole.
    """
    found = set()
    for process in (one for one in _PROC.iterdir() if one.name.isdecimal()):
        if time.monotonic() > until:
            break
        with suppress(OSError):  # gone meanwhile, or another user's
            for fd in (process / "fd").iterdir():
                if identity(fd.stat()) == identity(file) and _is_careless(process / "fdinfo" / fd.name):
                    found.add(int(process.name))
    return tuple(sorted(found - {os.getpid()}))


def _is_careless(fdinfo: Path) -> bool:
    for line in fdinfo.read_text().splitlines():
        if line.startswith("flags:"):
            flags = int(line.split()[1], 8)
            return flags & os.O_ACCMODE != os.O_RDONLY and not flags & os.O_APPEND
    return False


def _is_folder(entry: os.DirEntry[str]) -> bool:
    return entry.is_dir(follow_symlinks=False)


def _locked(lock: int, how: int, root: Path) -> None:
    try:
        fcntl.flock(lock, how | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise TemporaryError(f"somebody else is emptying logs in {root} right now", retry_after_s=1) from error
