"""Markdown into chunks: one section of a document each, with the path of titles that leads to it. Pure."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date
from typing import Annotated

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from pipeline.domain.errors import PermanentError

MAX_PIECES = 200
"""Longest chunk, in words and marks: MiniLM reads 256 word pieces, about 1.2 of which make one of these."""
PATH_SEPARATOR = " › "

_PIECE = re.compile(r"\w+|[^\w\s]")
_HEADING = re.compile(r"^(#{1,6})\s+(.+?)\s*#*\s*$")
_FENCE = re.compile(r"^\s{0,3}(```+|~~~+)")
_FRONT_MATTER = re.compile(r"\A---[ \t]*\n(.*?)\n---[ \t]*(?:\n|\Z)", re.DOTALL)


def _listed(value: object) -> object:
    return (value,) if isinstance(value, str) else value


class FrontMatter(BaseModel):
    """What a document says of itself. Keys that other tools put there are left alone."""

    model_config = ConfigDict(frozen=True, extra="ignore")
    title: Annotated[str, Field(max_length=200)] = ""
    services: Annotated[tuple[str, ...], BeforeValidator(_listed)] = ()
    category: str = ""
    platform: str = ""
    owner: str = ""
    last_verified: date | None = None


@dataclass(frozen=True, slots=True)
class Chunk:
    """A part of a document that is read and found by itself; ``heading`` is ``Title › Section › Subsection``."""

    heading: str
    text: str

    @property
    def searchable(self) -> str:
        """What is embedded and ranked: the path of titles says what the text is about."""
        return f"{self.heading}\n{self.text}"

    @property
    def content_hash(self) -> str:
        return hashlib.sha256(self.searchable.encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class Document:
    """A parsed document; ``path`` is relative to the folder it was read from."""

    path: str
    title: str
    meta: FrontMatter
    chunks: tuple[Chunk, ...]
    content_hash: str


def parse_markdown(path: str, source: str) -> Document:
    """Reads one Markdown document. Raises PermanentError when its front matter is not what it should be."""
    text = source.replace("\r\n", "\n").removeprefix("\ufeff")
    meta, body = _front_matter(path, text)
    title = meta.title or _first_heading(body) or path.rpartition("/")[2].removesuffix(".md")
    chunks: dict[str, Chunk] = {}
    for heading, section in _sections(title, body):
        for part in _split(section, MAX_PIECES - _pieces(heading)):
            chunk = Chunk(heading, part)
            chunks.setdefault(chunk.content_hash, chunk)
    return Document(path, title, meta, tuple(chunks.values()), hashlib.sha256(source.encode()).hexdigest())


def _front_matter(path: str, text: str) -> tuple[FrontMatter, str]:
    found = _FRONT_MATTER.match(text)
    if found is None:
        return FrontMatter(), text
    try:
        raw = yaml.safe_load(found[1])
        meta = FrontMatter.model_validate({} if raw is None else raw)
    except yaml.YAMLError as error:
        reason = str(error).splitlines()[0]
        raise PermanentError(f"{path}: front matter is not YAML: {reason}") from error
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "front matter"
        raise PermanentError(f"{path}: front matter, {where}: {first['msg']}") from error
    return meta, text[found.end() :]


def _first_heading(body: str) -> str:
    for level, text in _headings(body):
        if level == 1:
            return text
    return ""


def _headings(body: str) -> Iterator[tuple[int, str]]:
    for line, fenced in _lines(body):
        found = None if fenced else _HEADING.match(line)
        if found:
            yield len(found[1]), found[2]


def _lines(body: str) -> Iterator[tuple[str, bool]]:
    """Each line, and whether it belongs to a fenced block (where ``#`` is a comment, not a heading)."""
    fence = ""
    for line in body.split("\n"):
        mark = _FENCE.match(line)
        if fence:
            yield line, True
            if mark and mark[1].startswith(fence) and line.strip() == mark[1]:
                fence = ""
        elif mark:
            fence = mark[1]
            yield line, True
        else:
            yield line, False


def _sections(title: str, body: str) -> Iterator[tuple[str, str]]:
    path: list[tuple[int, str]] = []
    lines: list[str] = []
    for line, fenced in _lines(body):
        found = None if fenced else _HEADING.match(line)
        if found is None:
            lines.append(line)
            continue
        yield _titles(title, path), "\n".join(lines)
        lines = []
        level = len(found[1])
        path = [step for step in path if step[0] < level] + [(level, found[2])]
    yield _titles(title, path), "\n".join(lines)


def _titles(title: str, path: list[tuple[int, str]]) -> str:
    steps = [text for _, text in path]
    if steps[:1] == [title]:
        steps = steps[1:]
    return PATH_SEPARATOR.join((title, *steps))


def _split(section: str, limit: int) -> Iterator[str]:
    """Packs paragraphs and fenced blocks into parts of at most ``limit`` pieces, cutting only what must be cut."""
    limit = max(limit, MAX_PIECES // 2)
    packed: list[str] = []
    used = 0
    for block in _blocks(section):
        for piece in _cut(block, limit):
            size = _pieces(piece)
            if packed and used + size > limit:
                yield "\n\n".join(packed)
                packed, used = [], 0
            packed.append(piece)
            used += size
    if packed:
        yield "\n\n".join(packed)


def _blocks(section: str) -> Iterator[str]:
    block: list[str] = []
    for line, fenced in _lines(section):
        if line.strip() or fenced:
            block.append(line)
        elif block:
            yield "\n".join(block)
            block = []
    if block:
        yield "\n".join(block)


def _cut(block: str, limit: int) -> Iterator[str]:
    """Cuts a block that is too long between lines, and a line that is too long between words."""
    if _pieces(block) <= limit:
        yield block
        return
    units = [
        part for line in block.split("\n") for part in ([line] if _pieces(line) <= limit else _cut_line(line, limit))
    ]
    kept: list[str] = []
    used = 0
    for unit in units:
        size = _pieces(unit)
        if kept and used + size > limit:
            yield "\n".join(kept)
            kept, used = [], 0
        kept.append(unit)
        used += size
    yield "\n".join(kept)


def _cut_line(line: str, limit: int) -> Iterator[str]:
    start = 0
    ends = [found.end() for found in _PIECE.finditer(line)]
    for end in ends[limit - 1 :: limit]:
        yield line[start:end]
        start = end
    if line[start:].strip():
        yield line[start:]


def _pieces(text: str) -> int:
    return sum(1 for _ in _PIECE.finditer(text))
