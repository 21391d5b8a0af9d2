"""Documents into chunks: one section each where it fits, with the path of titles that leads to it. Pure."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from knowledge_base.alert_names import alerts_of
from knowledge_base.cutting import shorten, split
from knowledge_base.front_matter import TITLE_CHARS, TRUST, FrontMatter, read_entries, take_front_matter
from knowledge_base.markdown import Section, sections, without_comments
from knowledge_base.text import cleaned
from knowledge_base.tokens import MAX_TOKENS, estimate_tokens

__all__ = ["Chunk", "Document", "FrontMatter", "compose", "fingerprint", "parse_markdown"]

PATH_SEPARATOR = " › "
_FORM = 3
"""Raised when the same bytes give other chunks than before, so that what is stored is read anew."""
_POSTMORTEM = re.compile(r"(?:\b|_)(?:post[-_ ]?mortems?|incident[-_ ]reports?|retrospectives?)(?:\b|_)", re.IGNORECASE)


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
    """A parsed document; ``path`` is relative to where it was read from, ``source`` is where a person finds it.

    ``alerts``: names of the alerts it answers, its own word first. ``notes``: what had to be guessed or left out.
    """

    path: str
    title: str
    meta: FrontMatter
    chunks: tuple[Chunk, ...]
    content_hash: str
    alerts: tuple[str, ...] = ()
    source: str = ""
    notes: tuple[str, ...] = ()


def fingerprint(content: bytes) -> str:
    """Changes with the bytes of a document, and with the way documents are cut."""
    return hashlib.sha256(f"{_FORM} {MAX_TOKENS}\n".encode() + content).hexdigest()


def parse_markdown(path: str, source: str) -> Document:
    """Reads one Markdown document. Wrong front matter is left out and noted, never a reason to lose the document."""
    entries, body, complaints = take_front_matter(cleaned(source))
    return compose(
        path,
        body,
        entries,
        content_hash=fingerprint(source.encode(errors="surrogatepass")),
        notes=[f"front matter, {complaint}" for complaint in complaints],
    )


def compose(
    path: str,
    body: str,
    entries: Mapping[str, object],
    *,
    content_hash: str,
    title: str = "",
    source: str = "",
    notes: Sequence[str] = (),
) -> Document:
    """A document from its text in Markdown and what it says of itself.

    Its title is that of ``entries``, else ``title``, else its first heading of the first level, else its file's name.
    """
    meta, complaints = read_entries(entries)
    found = list(sections(without_comments(body)))
    heading = next((section.path[-1] for section in found if section.level == 1), "")
    name = path.rstrip("/").rpartition("/")[2]
    title = (meta.title or title or heading or name.rpartition(".")[0] or name)[:TITLE_CHARS]
    told = any(map(_POSTMORTEM.search, (path, title, meta.category))) or _POSTMORTEM.match(body.lstrip("#*_ \n"))
    if "kind" not in meta.model_fields_set and told:
        meta = meta.model_copy(update={"kind": "postmortem"})
    if meta.trust is None:
        meta = meta.model_copy(update={"trust": TRUST[meta.kind]})
    chunks: dict[str, Chunk] = {}
    for chunk in _chunks(title, found):
        chunks.setdefault(chunk.content_hash, chunk)
    return Document(
        path,
        title,
        meta,
        tuple(chunks.values()),
        content_hash,
        alerts_of(path, title, found, meta.alerts),
        source,
        (*notes, *(f"front matter, {complaint}" for complaint in complaints)),
    )


def _chunks(title: str, found: Sequence[Section]) -> Iterator[Chunk]:
    for section in found:
        if not section.text.strip():
            continue
        heading = _heading(title, section.path)
        for part in split(section.text, MAX_TOKENS - estimate_tokens(heading)):
            yield Chunk(heading, part)


def _heading(title: str, path: Sequence[str]) -> str:
    """The path of titles in at most half of a chunk: steps in the middle go first, then the end is cut."""
    steps = [title, *(path[1:] if path[:1] == (title,) else path)]
    room = MAX_TOKENS // 2
    while len(steps) > 2 and estimate_tokens(PATH_SEPARATOR.join(steps)) > room:
        del steps[1]
    return shorten(PATH_SEPARATOR.join(steps), room)
