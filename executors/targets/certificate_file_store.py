"""A PEM file that is replaced as a whole, with the file before it and a journal kept beside."""

from __future__ import annotations

import errno
import fcntl
import os
import stat
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict, ValidationError

from executors.targets.certificate_file_issue import Bundle, read_bundle
from pipeline.domain.errors import OutcomeUnknown, PermanentError, PreconditionFailed, SreBotError, TemporaryError

MAX_ENTRIES = 50
_MAX_BYTES = 1_000_000
_DENIED = (errno.EACCES, errno.EPERM, errno.EROFS)
_EVERYBODY = stat.S_IROTH | stat.S_IWOTH


class MissingFile(PreconditionFailed):
    """There is no such file."""


class _Stored(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Entry(_Stored):
    """One replacement. Written before it, and once more, as ``done``, after it."""

    execution: int
    step: int
    fence: int
    operation: Literal["renew_certificate", "roll_back_to"]
    before: str
    """The fingerprint of what was replaced, and ``before_not_after`` when that ends."""
    before_not_after: AwareDatetime
    after: str
    at: AwareDatetime
    done: bool = False


class _Journal(_Stored):
    schema_version: Literal[1] = 1
    entries: tuple[Entry, ...] = ()


class Permit:
    """To replace the file: used once, or withdrawn before that by whoever does not wait any longer."""

    def __init__(self) -> None:
        self._once = threading.Lock()

    def use(self) -> bool:
        return self._once.acquire(blocking=False)

    def withdraw(self) -> bool:
        """False when it has been used."""
        return self._once.acquire(blocking=False)


@dataclass(frozen=True, slots=True)
class Standing:
    """The file as it was read."""

    content: bytes
    bundle: Bundle
    like: os.stat_result


class CertificateFile:
    """``<name>.pem`` in ``folder``; a symlink is followed as long as it stays inside. All calls block.

    Beside the file lie ``<name>.pem.previous``, ``<name>.pem.sre-bot.json`` (the last 50 replacements) and, while one
    is under way, hidden temporary files. The lock is ``flock`` on the folder, which leaves no file and ends with its
    holder.
    """

    def __init__(self, folder: Path, name: str) -> None:
        """Raises PermanentError when the file lies outside of the folder, TemporaryError when that cannot be told."""
        try:
            root = folder.resolve()
            self.path = (root / f"{name}.pem").resolve()
        except OSError as error:
            raise _unreadable(folder, error) from error
        except RuntimeError as error:  # symlinks that lead to each other
            raise PermanentError(f"{folder}/{name}.pem cannot be followed: {error}") from error
        if not self.path.is_relative_to(root):
            raise PermanentError(f"{folder}/{name}.pem leads to {self.path}, outside of the folder that is set up")
        self.folder = self.path.parent
        self.key_path = self.path.with_suffix(".key")
        self._previous = self._beside(".previous")
        self.journal_path = self._beside(".sre-bot.json")

    def read(self) -> Standing:
        """Raises MissingFile, PermanentError (unreadable, no certificate), TemporaryError."""
        content, like = read_file(self.path)
        return Standing(content, read_bundle(content, str(self.path)), like)

    def previous(self) -> Standing | None:
        """None when there is none. Raises as ``read``."""
        try:
            content, like = read_file(self._previous)
        except MissingFile:
            return None
        return Standing(content, read_bundle(content, str(self._previous)), like)

    def entries(self) -> tuple[Entry, ...]:
        """The journal, oldest first. Raises PermanentError when it is not as it was written, TemporaryError."""
        try:
            content, _ = read_file(self.journal_path)
        except MissingFile:
            return ()
        try:
            return _Journal.model_validate_json(content).entries
        except ValidationError as error:
            raise PermanentError(
                f"{self.journal_path} is not as the bot wrote it: see what stands in it, then move it away"
            ) from error

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Nobody else replaces a file of the folder meanwhile. Raises TemporaryError when somebody is at it."""
        try:
            descriptor = os.open(self.folder, os.O_RDONLY | os.O_DIRECTORY)
        except OSError as error:
            raise _unreadable(self.folder, error) from error
        try:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                raise TemporaryError(f"another process holds the lock on {self.folder}: nothing was changed") from error
            yield
        finally:
            os.close(descriptor)

    def replace(self, old: Standing, new: bytes, entry: Entry, permit: Permit) -> None:
        """Puts ``new`` in the place of ``old``, which is kept as the previous one, with its mode and owner.

        To be called with the lock held. Raises PermanentError or TemporaryError (nothing was replaced, for the permit
        was withdrawn or the disk is full), OutcomeUnknown (from the rename on).
        """
        live, kept = self._hidden(".new"), self._hidden(".kept")
        # What an earlier call wrote down and did not live to confirm is seen now.
        earlier = tuple(
            one.model_copy(update={"done": True}) if one.after == entry.before else one for one in self.entries()
        )
        try:
            _write(live, new, old.like)
            _write(kept, old.content, old.like)
            self._note((*earlier, entry))
            if not permit.use():
                raise TimeoutError(errno.ETIMEDOUT, "it took too long to get there")
        except OSError as error:
            _discard(live, kept)
            raise _unwritten(self.path, error) from error
        try:
            live.replace(self.path)
        except OSError as error:
            _discard(live, kept)
            if error.errno in _DENIED:
                raise _unwritten(self.path, error) from error
            raise OutcomeUnknown(f"{self.path} may have been replaced: {error.strerror or error}") from error
        try:
            kept.replace(self._previous)
            _sync(self.folder)
            self._note((*earlier, entry.model_copy(update={"done": True})))
        except OSError as error:
            raise OutcomeUnknown(f"{self.path} was replaced, and then: {error.strerror or error}") from error

    def _note(self, entries: tuple[Entry, ...]) -> None:
        """On the disk when it returns."""
        written = self._hidden(".journal")
        _write(written, _Journal(entries=entries[-MAX_ENTRIES:]).model_dump_json(indent=1).encode() + b"\n", None)
        written.replace(self.journal_path)
        _sync(self.folder)

    def _beside(self, ending: str) -> Path:
        return self.path.with_name(self.path.name + ending)

    def _hidden(self, ending: str) -> Path:
        return self.path.with_name(f".{self.path.name}{ending}")


def read_file(path: Path) -> tuple[bytes, os.stat_result]:
    """A regular file. Raises MissingFile, PermanentError, TemporaryError."""
    try:
        # Whoever put a pipe or a link there since it was looked at does not make us wait, or read elsewhere.
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        try:
            like = os.fstat(descriptor)
            if not stat.S_ISREG(like.st_mode):
                raise PermanentError(f"{path} is no file")
            with os.fdopen(descriptor, "rb", closefd=False) as file:
                content = file.read(_MAX_BYTES + 1)
        finally:
            os.close(descriptor)
    except FileNotFoundError as error:
        raise MissingFile(f"there is no file {path}") from error
    except OSError as error:
        raise _unreadable(path, error) from error
    if len(content) > _MAX_BYTES:
        raise PermanentError(f"{path} is larger than {_MAX_BYTES} bytes: no certificate file")
    return content, like


def read_secret(path: Path) -> bytes:
    """A file with a private key. Raises as ``read_file``, and PermanentError when everybody may read it."""
    content, like = read_file(path)
    if words := open_to_all(like):
        raise PermanentError(f"{path} holds a private key and {words}")
    return content


def open_to_all(like: os.stat_result) -> str:
    """Why no private key belongs in such a file; empty when it may."""
    return "everybody on this machine may read or write it: chmod o= it first" if like.st_mode & _EVERYBODY else ""


def day(moment: datetime) -> str:
    return f"{moment:%Y-%m-%d %H:%M} UTC"


def _write(path: Path, content: bytes, like: os.stat_result | None) -> None:
    """A new file, on the disk when it returns. None: everybody may read it."""
    path.unlink(missing_ok=True)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        if like is not None:
            made = os.fstat(descriptor)
            if (made.st_uid, made.st_gid) != (like.st_uid, like.st_gid):
                os.fchown(descriptor, like.st_uid, like.st_gid)
        os.fchmod(descriptor, 0o644 if like is None else stat.S_IMODE(like.st_mode))
        file.write(content)
        file.flush()
        os.fsync(descriptor)


def _discard(*paths: Path) -> None:
    for path in paths:
        with suppress(OSError):  # what is left is written over by the next one
            path.unlink(missing_ok=True)


def _sync(folder: Path) -> None:
    """So that a rename in it survives a crash of the machine."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _unreadable(path: Path, error: OSError) -> SreBotError:
    said = f"{path} cannot be read: {error.strerror or error}"
    if error.errno in (*_DENIED, errno.ELOOP, errno.ENOTDIR, errno.ENOENT):
        return PermanentError(f"{said}; the bot's account (uid {os.geteuid()}) needs to read it")
    return TemporaryError(said)


def _unwritten(path: Path, error: OSError) -> SreBotError:
    said = f"{path} was not replaced: {error.strerror or error}"
    if error.errno in _DENIED:
        return PermanentError(
            f"{said}; the bot's account (uid {os.geteuid()}) needs to write to its folder and to keep its owner"
        )
    return TemporaryError(said)
