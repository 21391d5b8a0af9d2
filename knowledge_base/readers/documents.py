"""The bytes of a document, by format, into a document."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial

from knowledge_base.chunking import Document, compose, fingerprint
from knowledge_base.front_matter import take_front_matter
from knowledge_base.readers.html import declared_charset, read_html
from knowledge_base.readers.pdf import DEADLINE_S, read_pdf
from knowledge_base.text import decode
from pipeline.domain.errors import PermanentError


class NothingThere(PermanentError):
    """The document is gone, or empty: what was known of it is out of date."""


@dataclass(frozen=True, slots=True)
class Format:
    """A format that is read: the ends of file names, the media types, the most bytes of a document."""

    suffixes: tuple[str, ...]
    media_types: tuple[str, ...]
    max_bytes: int


FORMATS: Mapping[str, Format] = {
    "markdown": Format((".md", ".markdown"), ("text/markdown", "text/x-markdown"), 2_000_000),
    "html": Format((".html", ".htm"), ("text/html", "application/xhtml+xml"), 2_000_000),
    "pdf": Format((".pdf",), ("application/pdf",), 25_000_000),
    "text": Format((".txt",), ("text/plain",), 2_000_000),
}
_HEADING_MARK = re.compile(r"^(?=\s{0,3}#)", re.MULTILINE)
_HTML_BEGINNINGS = (b"<!doctype html", b"<html")


@dataclass(frozen=True, slots=True)
class RawDocument:
    """A document as it was read, cut after the most bytes of its format and one more.

    ``source``: where a person finds it; ``charset``: as its server says, may be empty.
    """

    path: str
    content: bytes
    source: str = ""
    media_type: str = ""
    charset: str = ""


def format_of(path: str, media_type: str = "") -> str:
    """The format by media type, else by the end of the name; empty when it is none that is read."""
    for name, known in FORMATS.items():
        if media_type and media_type in known.media_types and name != "text":
            return name
    for name, known in FORMATS.items():
        if path.lower().endswith(known.suffixes):
            return name
    return "text" if media_type in FORMATS["text"].media_types else ""


async def read_document(raw: RawDocument, *, pdf_deadline_s: float = DEADLINE_S) -> Document:
    """Reads a document by what it is: its first bytes decide before its media type and its name.

    Raises NothingThere or PermanentError with the reason, without the path.
    """
    kind = _sniffed(raw.content) or format_of(raw.path, raw.media_type)
    limit = FORMATS[kind or "text"].max_bytes
    if len(raw.content) > limit:
        raise PermanentError(f"larger than {limit // 1_000_000} MB")
    content_hash = fingerprint(raw.content)
    if kind == "pdf":
        if _sniffed(raw.content) != "pdf":
            raise PermanentError("no PDF, whatever its name says")
        found = await read_pdf(raw.content, deadline_s=pdf_deadline_s)
        document = await asyncio.to_thread(
            compose,
            raw.path,
            found.body,
            found.entries,
            content_hash=content_hash,
            title=found.title,
            source=raw.source,
            notes=[f"{found.unread} damaged pages were passed over"] if found.unread else [],
        )
    else:
        document = await asyncio.to_thread(_from_text, raw, kind, content_hash)
    if not document.chunks:
        raise NothingThere("no text in it")
    return document


def _from_text(raw: RawDocument, kind: str, content_hash: str) -> Document:
    declared = raw.charset or (declared_charset(raw.content) if kind == "html" else "")
    decoded = decode(raw.content, declared)
    notes = [decoded.note] if decoded.note else []
    if kind == "html":
        page = read_html(decoded.text)
        title, entries, body = page.title, page.entries, page.body
    else:
        entries, body, complaints = take_front_matter(decoded.text)
        title = ""
        notes += [f"front matter, {complaint}" for complaint in complaints]
    read_as = partial(compose, raw.path, content_hash=content_hash, title=title, source=raw.source, notes=notes)
    document = read_as(body, entries)
    if not document.chunks and kind not in ("html", "markdown"):
        # Plain text knows no headings: a line that begins with # is what the file says.
        document = read_as(_HEADING_MARK.sub(r"\\\g<0>", body), entries)
    return document


def _sniffed(content: bytes) -> str:
    head = content[:1024]
    if b"%PDF-" in head:
        return "pdf"
    begin = head.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    return "html" if begin.startswith(_HTML_BEGINNINGS) else ""
