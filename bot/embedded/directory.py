"""A server's directory: who holds it, its port and password, its log, and errors in plain words."""

import errno
import fcntl
import getpass
import os
import secrets
import shutil
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

LOG_LIMIT_BYTES = 20_000_000


class EmbeddedError(RuntimeError):
    """An embedded server cannot run; the message says in one line why and what to do."""


class DirectoryInUseError(EmbeddedError):
    """Another process holds the data directory."""


class ServerRecord(BaseModel):
    """What a server keeps from one start to the next, stored as ``server.json`` with mode 0600."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    schema_version: Literal[1] = 1
    port: int = Field(ge=1, le=65535)
    password: str = Field(min_length=16, repr=False)


def new_password() -> str:
    """A random password that needs no quoting in a URL, in SQL or in redis.conf."""
    return secrets.token_urlsafe(24)


class DirectoryLock:
    """An exclusive flock on a file that names its holder's pid. The kernel lets it go when the process dies."""

    def __init__(self, path: Path, data_dir: Path) -> None:
        """Take it. Raises DirectoryInUseError, or OSError when it cannot be written."""
        self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.ftruncate(self._fd, 0)
            os.pwrite(self._fd, f"{os.getpid()}\n".encode(), 0)
        except BlockingIOError:
            holder = os.pread(self._fd, 32, 0).decode(errors="replace").strip() or "unknown"
            os.close(self._fd)
            raise DirectoryInUseError(
                f"data directory {data_dir} is in use by process {holder}; stop it or give another --data-dir"
            ) from None
        except BaseException:
            os.close(self._fd)
            raise

    def release(self) -> None:
        os.close(self._fd)


class ServerHome:
    """The directory of one server: ``server.json``, ``server.log`` and whatever the server itself keeps."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._record = path / "server.json"
        self._log = path / "server.log"

    def load(self) -> ServerRecord | None:
        """The record of an earlier start; None when there is none or it cannot be understood."""
        try:
            return ServerRecord.model_validate_json(self._record.read_bytes())
        except (FileNotFoundError, ValidationError):
            return None

    def save(self, record: ServerRecord) -> None:
        """Store the record so that a crash leaves the old or the new one, whole."""
        write_private(self._record, record.model_dump_json(indent=1) + "\n")

    def open_log(self) -> int:
        """A file descriptor that appends to the log."""
        return os.open(self._log, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)

    def log_size_bytes(self) -> int:
        return self._log.stat().st_size if self._log.exists() else 0

    def log_since(self, offset_bytes: int) -> str:
        """What was logged after ``offset_bytes``, its last 4 kB."""
        with self._log.open("rb") as log:
            log.seek(max(offset_bytes, self.log_size_bytes() - 4096))
            return log.read().decode(errors="replace")

    def trim_log(self) -> None:
        """Keep one older log of bounded size. The server appends, so cutting the file under it is safe."""
        if self.log_size_bytes() > LOG_LIMIT_BYTES:
            shutil.copyfile(self._log, self._log.with_suffix(".log.1"))
            os.truncate(self._log, 0)


def write_private(path: Path, text: str) -> None:
    """Replace a file by one of mode 0600, atomically and durably."""
    draft = path.with_name(path.name + ".new")
    draft.unlink(missing_ok=True)
    fd = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with os.fdopen(fd, "w") as out:
        out.write(text)
        out.flush()
        os.fsync(fd)
    draft.rename(path)
    sync_directory(path.parent)


def sync_directory(path: Path) -> None:
    """Make a rename in this directory survive a power cut."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def make_directory(path: Path) -> None:
    """Create it with mode 0755 whatever the umask: the account that runs PostgreSQL has to pass.

    Secrets in it have modes of their own. An existing directory keeps its mode.
    """
    if not path.is_dir():
        path.mkdir(parents=True)
        path.chmod(0o755)


def explain(error: OSError, data_dir: Path) -> EmbeddedError:
    """The error in plain words, with what to do."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return disk_full(data_dir)
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EEXIST, errno.ENOENT):
        return EmbeddedError(
            f"data directory {data_dir} is not writable for user {user_name()} "
            f"({(error.strerror or str(error)).lower()}: {error.filename or data_dir}); "
            "give another --data-dir, or set DATABASE_URL and REDIS_URL to servers of your own"
        )
    return EmbeddedError(f"data directory {data_dir} cannot be used ({error}); give another --data-dir")


def disk_full(data_dir: Path) -> EmbeddedError:
    return EmbeddedError(
        f"no space left on the disk of {data_dir}; free some (200 MB are needed to begin) or give another --data-dir"
    )


def user_name() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a uid without an entry in /etc/passwd, as in some containers
        return str(os.geteuid())
