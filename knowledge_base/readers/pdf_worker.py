"""Run as a process: a PDF on stdin, its text as Markdown in one JSON object on stdout.

Headings are found by the size and weight of their type, code by its typeface; lines that repeat at the edge of most
pages are left out.
"""

from __future__ import annotations

import io
import json
import re
import resource
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from math import hypot
from typing import Any

from pypdf import PdfReader
from pypdf.errors import DependencyError, PyPdfError

MAX_PAGES = 500
MAX_CHARS = 2_000_000
MAX_MEMORY_BYTES = 1_500_000_000
MAX_HEADING_WORDS = 14
_LARGER = 1.15
"""Type this much larger than the body's is a heading."""
_GAP = 1.7
"""Lines this many type sizes apart begin a paragraph; set text has 1.2."""
_MARGIN = 0.06
"""Of the height between the highest and the lowest line: what stands there may be a running head or a page number."""
_DAMAGE = (PyPdfError, ValueError, KeyError, TypeError, AttributeError, IndexError, ArithmeticError, RecursionError)
_LIGATURES = {ord(one): two for one, two in zip("ﬀﬁﬂﬃﬄﬅﬆ", ("ff", "fi", "fl", "ffi", "ffl", "st", "st"), strict=True)}
_MONO = re.compile(r"mono|courier|consol|menlo|inconsolata|typewriter|code", re.IGNORECASE)
_BOLD = re.compile(r"bold|black|heavy|semibold", re.IGNORECASE)
_SHORT = 0.8
"""Of the longest line: a paragraph's first line fills its width."""
_BULLET = re.compile(r"^\s*[•‣▪●◦∙·–]\s+")
_PAGE_NUMBER = re.compile(r"^(?:page\s+)?\d{1,4}(?:\s*(?:/|of)\s*\d{1,4})?$", re.IGNORECASE)
_MARKUP = re.compile(r"^(?=\s{0,3}(?:#{1,6}\s|```|~~~|<!--))")
_PRINTERS_TITLE = re.compile(
    r"^(?:untitled.*|document\d*|.*\.(?:docx?|odt|indd|tex|dvi|md|html?|pages|pdf))$", re.IGNORECASE
)


@dataclass(slots=True)
class Line:
    """A line of type: ``size`` in points, ``y`` upwards from the foot of the page."""

    text: str = ""
    size: float = 0.0
    y: float = 0.0
    bold: bool = True
    mono: bool = True
    level: int = 0

    @property
    def shown(self) -> str:
        return self.text.strip()


@dataclass(slots=True)
class _Page:
    """Takes the pieces of type as pypdf meets them, and makes lines of them."""

    lines: list[Line] = field(default_factory=lambda: [Line()])

    def __call__(self, text: str, matrix: Sequence[float], place: Sequence[float], font: Any, size: float) -> None:
        scale = hypot(place[2], place[3]) * hypot(matrix[2], matrix[3])
        y = place[4] * matrix[1] + place[5] * matrix[3] + matrix[5]
        name = str(font.get("/BaseFont", "")) if font else ""
        for number, part in enumerate(text.split("\n")):
            if number:
                self.lines.append(Line())
            if not part.strip():
                self.lines[-1].text += part
                continue
            line = self.lines[-1]
            if not line.shown:
                line.y = y
            line.text += part
            line.size = max(line.size, size * scale)
            line.bold = line.bold and _BOLD.search(name) is not None
            line.mono = line.mono and _MONO.search(name) is not None


def main() -> None:
    cpu_s = int(sys.argv[1])
    resource.setrlimit(resource.RLIMIT_CPU, (cpu_s, cpu_s))
    resource.setrlimit(resource.RLIMIT_AS, (MAX_MEMORY_BYTES, MAX_MEMORY_BYTES))
    try:
        answer = _read(sys.stdin.buffer.read())
    except DependencyError:
        answer = {"error": "encrypted: save a copy without a password"}
    except MemoryError:
        answer = {"error": f"needs more than {MAX_MEMORY_BYTES / 1e9:g} GB of memory: split it"}
    except _DAMAGE:
        answer = {"error": "damaged, or no PDF that can be read"}
    sys.stdout.write(json.dumps(answer))


def _read(content: bytes) -> dict[str, object]:
    reader = PdfReader(io.BytesIO(content))
    if reader.is_encrypted and not reader.decrypt(""):
        return {"error": "encrypted: save a copy without a password"}
    if len(reader.pages) > MAX_PAGES:
        return {"error": f"larger than {MAX_PAGES} pages: split it"}
    pages: list[list[Line]] = []
    unread = chars = 0
    for page in reader.pages:
        taken = _Page()
        try:
            page.extract_text(visitor_text=taken)
        except _DAMAGE:
            unread += 1
            continue
        lines = [line for line in taken.lines if line.shown]
        chars += sum(len(line.text) for line in lines)
        if chars > MAX_CHARS:
            return {"error": f"larger than {MAX_CHARS:,} characters: split it"}
        pages.append(lines)
    if not chars:
        reason = "no page of it can be read" if unread else "no text in it: scanned pages need text recognition first"
        return {"error": reason}
    title, entries = _metadata(reader)
    _grade([line for page in pages for line in page])
    pages = [_headings_joined(page) for page in _without_edges(pages)]
    title = title or _first_words(pages)
    body = "\n\n".join("\n".join(_markdown(page)) for page in pages).translate(_LIGATURES)
    return {"title": title, "entries": entries, "body": body, "unread": unread}


def _metadata(reader: PdfReader) -> tuple[str, dict[str, str]]:
    try:
        raw = {str(key).lstrip("/"): str(value) for key, value in (reader.metadata or {}).items()}
    except _DAMAGE:
        return "", {}
    title = raw.pop("Title", "").removeprefix("Microsoft Word - ").strip()
    return ("" if _PRINTERS_TITLE.match(title) else title), raw


def _first_words(pages: Sequence[Sequence[Line]]) -> str:
    """The first line, where all type is alike and it stands as a title does: short, and by itself."""
    lines = [line for page in pages for line in page]
    if len(lines) < 2 or any(line.level for line in lines):
        return ""
    first, rest = lines[0], lines[1:]
    by_itself = _apart(first, rest[0]) or len(first.shown) < _SHORT * max(len(line.shown) for line in rest)
    return first.shown if by_itself and _may_head(first) else ""


def _without_edges(pages: list[list[Line]]) -> list[list[Line]]:
    """Without page numbers, and lines that stand at the same place in the margins of most pages."""
    heights = [line.y for page in pages for line in page]
    foot, head = min(heights), max(heights)
    margin = (head - foot) * _MARGIN

    def edges(page: list[Line]) -> list[Line]:
        return [line for line in page if not line.level and not foot + margin < line.y < head - margin]

    seen = Counter(form for page in pages for form in {_form(line) for line in edges(page)})
    often = {form for form, times in seen.items() if times >= 3 and times > len(pages) / 2}
    kept = []
    for page in pages:
        running = {id(line) for line in edges(page) if _form(line) in often or _PAGE_NUMBER.match(line.shown)}
        kept.append([line for line in page if id(line) not in running])
    return kept


def _form(line: Line) -> tuple[str, int]:
    return re.sub(r"\d+", "#", line.shown), round(line.y)


def _headings_joined(page: list[Line]) -> list[Line]:
    """With a heading that goes over several lines as one."""
    kept: list[Line] = []
    for line in page:
        if kept and line.level and line.level == kept[-1].level and not _apart(kept[-1], line):
            kept[-1].text = f"{kept[-1].shown} {line.shown}"
            kept[-1].y = line.y
        else:
            kept.append(line)
    return kept


def _apart(before: Line, line: Line) -> bool:
    return abs(before.y - line.y) > _GAP * max(line.size, before.size)


def _grade(lines: list[Line]) -> None:
    """Gives headings their level: the largest type is 1, bold lines of the body's size come below all larger ones."""
    if not lines:
        return
    weights: Counter[float] = Counter()
    for line in lines:
        weights[_size(line)] += len(line.shown)
    body = max(weights, key=lambda size: (weights[size], -size))
    mostly_bold = sum(len(line.shown) for line in lines if line.bold) > sum(weights.values()) / 3
    headings = [line for line in lines if _may_head(line) and _size(line) > body * _LARGER]
    levels = {
        size: min(rank, 5) for rank, size in enumerate(sorted({_size(line) for line in headings}, reverse=True), 1)
    }
    for line in headings:
        line.level = levels[_size(line)]
    for line in lines:
        if not line.level and line.bold and not mostly_bold and _size(line) >= body and _may_head(line):
            line.level = min(len(levels) + 1, 6)


def _size(line: Line) -> float:
    return round(line.size * 2) / 2


def _may_head(line: Line) -> bool:
    words = line.shown.split()
    return (
        not line.mono
        and len(words) <= MAX_HEADING_WORDS
        and any(letter.isalpha() for letter in line.shown)
        and not line.shown.endswith((".", ",", ";"))
        and _BULLET.match(line.text) is None
    )


def _markdown(page: list[Line]) -> Iterator[str]:
    before: Line | None = None
    for line in page:
        apart = before is not None and _apart(before, line)
        if before is not None and before.mono and not line.mono:
            yield "```"
        if line.mono and (before is None or not before.mono):
            yield "\n```"
        elif line.level or apart or (before is not None and before.level):
            yield ""
        if line.mono:
            yield line.text.rstrip()
        elif line.level:
            yield f"{'#' * line.level} {line.shown}"
        else:
            yield _MARKUP.sub(r"\\", _BULLET.sub("- ", line.text.strip()))
        before = line
    if before is not None and before.mono:
        yield "```"


if __name__ == "__main__":
    main()
