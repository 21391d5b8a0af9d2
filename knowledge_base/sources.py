"""Where documents come from: what a source is, how a PATH tells which, and folders on this machine."""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Protocol
from urllib.parse import urlsplit

from knowledge_base.readers.documents import FORMATS, NothingThere, RawDocument, format_of
from knowledge_base.text import cleaned
from pipeline.domain.errors import ConfigurationError, PermanentError

MAX_DEPTH = 10
"""Folders below the first one."""
MAX_FILES = 20_000
"""Documents of a folder; more is rather a wrong folder than a knowledge base."""

_SCP_LIKE = re.compile(r"^[\w.-]+@[\w.-]+:(?!//)\S+$")
_FORGES = frozenset({"github.com", "gitlab.com", "bitbucket.org", "codeberg.org"})


@dataclass(frozen=True, slots=True)
class Listing:
    """The paths a source has, and why others cannot be read; a path that ends in ``/`` stands for all below it.

    ``complete``: documents known from before that are not in it are gone.
    """

    paths: Sequence[str]
    failed: Mapping[str, str] = field(default_factory=dict)
    complete: bool = True


class Source(Protocol):
    """Documents that belong together."""

    @property
    def collection(self) -> str:
        """Names the source in the database: the same source gives the same name again."""
        ...

    async def listing(self) -> Listing:
        """Looks what there is. Raises PermanentError or TemporaryError when nothing can be seen at all."""
        ...

    async def read(self, path: str) -> RawDocument:
        """One of the listed documents. Raises NothingThere, PermanentError or TemporaryError with the reason alone."""
        ...

    async def close(self) -> None:
        """Removes what was fetched."""
        ...


@dataclass(frozen=True, slots=True)
class FolderPlace:
    """A folder, or one file, on this machine."""

    path: Path


@dataclass(frozen=True, slots=True)
class GitPlace:
    """A repository; ``ref``: a branch or tag, ``folder``: inside of it; both may be empty."""

    url: str
    ref: str = ""
    folder: str = ""


@dataclass(frozen=True, slots=True)
class WebPlace:
    """One page or file."""

    url: str


Place = FolderPlace | GitPlace | WebPlace


def place_of(argument: str) -> Place:
    """What a PATH means. Raises ConfigurationError with what to write instead.

    Git is used for ``git@host:path``, ``ssh://…``, ``file://…``, URLs that end in ``.git`` or begin with ``git+``,
    repositories of well-known forges, and bare repositories on this machine; ``#BRANCH`` or ``#BRANCH:FOLDER`` says
    which part. Any other http(s) URL is one page, everything else a folder or file: a working copy too, as it stands.
    """
    plain = argument.strip()
    if not plain:
        raise ConfigurationError("an empty PATH: give a folder, a git repository or a URL")
    if _SCP_LIKE.match(plain) and not Path(plain).exists():
        return _git(plain)
    if "://" not in plain:
        path = Path(plain).expanduser()
        return _git(f"file://{path.resolve()}") if _is_bare_repository(path) else FolderPlace(path)
    if re.search(r"[\\\s\x00-\x20\x7f]", plain):
        raise ConfigurationError(f"{plain!r}: no URL that can be read")
    try:
        parts = urlsplit(plain)
        host, scheme = parts.hostname or "", parts.scheme.lower()
    except ValueError:
        raise ConfigurationError(f"{plain}: no URL that can be read") from None
    if parts.password is not None or (scheme not in ("ssh", "git+ssh") and parts.username is not None):
        raise ConfigurationError(
            f"{scheme}://…@{host}{parts.path}: keep passwords and tokens out of URLs, `kb list` would show them; "
            "use ssh or a git credential helper"
        )
    if scheme.startswith("git+"):
        return _git(plain[len("git+") :])
    if scheme in ("ssh", "file"):
        return _git(plain)
    if scheme not in ("http", "https") or not host:
        raise ConfigurationError(f"{plain}: write an http(s), ssh or file URL, or a folder")
    segments = [segment for segment in parts.path.split("/") if segment]
    if parts.path.rstrip("/").endswith(".git") or (host.lower() in _FORGES and len(segments) == 2):
        return _git(plain)
    return WebPlace(plain.partition("#")[0])


def _git(url: str) -> GitPlace:
    where, _, part = url.partition("#")
    ref, _, folder = part.partition(":")
    if ref.startswith("-") or ".." in folder.split("/"):
        raise ConfigurationError(f"{url}: write #BRANCH or #BRANCH:FOLDER after the repository")
    return GitPlace(where.rstrip("/"), ref, folder.strip("/"))


def _is_bare_repository(path: Path) -> bool:
    return (path / "HEAD").is_file() and (path / "objects").is_dir() and (path / "refs").is_dir()


class FolderSource:
    """Every document below a folder (or only the file ``only``), hidden files and folders left out.

    Links are followed inside the folder only, and into each folder once. Its resolved path names the collection,
    unless another ``collection`` is given; ``origin`` stands before a document's path in ``Document.source``.
    """

    def __init__(self, folder: Traversable, *, only: str = "", collection: str = "", origin: str | None = None) -> None:
        self._folder = folder
        self._only = only
        self._collection = collection or cleaned(os.fsencode(str(folder)).decode(errors="replace"))
        self._origin = f"{self._collection}/" if origin is None else origin
        self._files: dict[str, Traversable] = {}

    @property
    def collection(self) -> str:
        return self._collection

    async def listing(self) -> Listing:
        return await asyncio.to_thread(self._list)

    async def read(self, path: str) -> RawDocument:
        return await asyncio.to_thread(self._read, path)

    async def close(self) -> None:
        """Nothing was fetched."""

    def _list(self) -> Listing:
        failed: dict[str, str] = {}
        if self._only:
            self._files = {_path_text(self._only): self._folder / self._only}
            return Listing(tuple(self._files), complete=False)
        self._files = {}
        self._walk(self._folder, "", 0, failed, set())
        return Listing(sorted(self._files), failed)

    def _walk(
        self, folder: Traversable, prefix: str, depth: int, failed: dict[str, str], seen: set[tuple[int, int]]
    ) -> None:
        try:
            entries = sorted(
                folder.iterdir(), key=lambda entry: (isinstance(entry, Path) and entry.is_symlink(), entry.name)
            )
            if isinstance(folder, Path):
                status = folder.stat()
                if (status.st_dev, status.st_ino) in seen:
                    return
                seen.add((status.st_dev, status.st_ino))
        except OSError as error:
            if not prefix:
                raise PermanentError(f"{self._collection}: {_reason(error)}") from error
            failed[prefix] = _reason(error)
            return
        for entry in entries:
            path = f"{prefix}{_path_text(entry.name)}"
            if entry.name.startswith("."):
                continue
            try:
                is_folder, is_file = entry.is_dir(), entry.is_file()
            except OSError as error:
                failed[path] = _reason(error)
                continue
            if is_folder and depth >= MAX_DEPTH:
                failed[f"{path}/"] = f"more than {MAX_DEPTH} folders deep: give this folder by itself"
            elif (is_folder or (is_file and format_of(path))) and not self._is_inside(entry):
                failed[f"{path}/" if is_folder else path] = "a link that leads out of the folder is not followed"
            elif is_folder:
                self._walk(entry, f"{path}/", depth + 1, failed, seen)
            elif not is_file and format_of(path) and isinstance(entry, Path) and entry.is_symlink():
                failed[path] = "a link that leads nowhere"
            elif is_file and format_of(path):
                if len(self._files) >= MAX_FILES:
                    raise PermanentError(
                        f"{self._collection}: more than {MAX_FILES:,} documents: give the folder of the runbooks"
                    )
                self._files[path] = entry

    def _is_inside(self, entry: Traversable) -> bool:
        if not isinstance(entry, Path) or not isinstance(self._folder, Path) or not entry.is_symlink():
            return True
        return entry.resolve().is_relative_to(self._folder)

    def _read(self, path: str) -> RawDocument:
        limit = FORMATS[format_of(path) or "text"].max_bytes
        try:
            with self._files[path].open("rb") as stream:
                content = stream.read(limit + 1)
        except FileNotFoundError:
            raise NothingThere("removed while it was read") from None
        except OSError as error:
            raise PermanentError(_reason(error)) from error
        return RawDocument(path, content, source=f"{self._origin}{path}")


def folder_source(path: Path) -> FolderSource:
    """The source of a folder, or of one file in its folder. Raises PermanentError when there is neither."""
    try:
        resolved = path.expanduser().resolve()
        if resolved.is_dir():
            return FolderSource(resolved)
        if resolved.is_file():
            return FolderSource(resolved.parent, only=resolved.name)
    except (OSError, RuntimeError) as error:
        raise PermanentError(f"{path}: {_reason(error)}") from error
    what = "neither a file nor a folder" if resolved.exists() else "no such file or folder"
    raise PermanentError(f"{path}: {what}; give the folder that holds the runbooks, a repository or a URL")


def _path_text(name: str) -> str:
    """A file's name as text that can be stored and shown in one line."""
    return " ".join(cleaned(os.fsencode(name).decode(errors="replace")).split("\n"))


def _reason(error: Exception) -> str:
    return (isinstance(error, OSError) and error.strerror) or str(error) or type(error).__name__
