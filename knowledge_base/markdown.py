"""The structure of Markdown: lines inside and outside code, sections under headings, blocks that belong together."""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

HEADING_CHARS = 120
"""A longer heading is cut: it stands in every chunk below it."""

_HEADING = re.compile(r"^ {0,3}(#{1,6})\s+(.*\S)\s*$")
_CLOSING_MARKS = re.compile(r"\s+#+$")
_UNDERLINE = re.compile(r"^ {0,3}(=+|-{2,})\s*$")
_FENCE = re.compile(r"^(\s*)(```+(?=[^`]*$)|~~~+)")
_ITEM = re.compile(r"^(\s*)(?:[-*+]|\d{1,9}[.)])\s+")
_TABLE_RULE = re.compile(r"^\s*\|?\s*:?-+:?\s*(?:\|\s*:?-+:?\s*)*\|?\s*$")
_PURE_FENCE = re.compile(r"^\s*(?:```+|~~~+)\s*$")
_FENCE_LOOKAHEAD = 5
"""A fence inside a list is one when one of so many bare fences below ends it."""

BlockKind = Literal["text", "list", "table", "fence"]


@dataclass(frozen=True, slots=True)
class Section:
    """Text under a heading of ``level`` 1..6; ``path`` leads to it. Before the first heading: level 0, no path."""

    level: int
    path: tuple[str, ...]
    text: str


@dataclass(frozen=True, slots=True)
class Block:
    """Lines that are read together."""

    kind: BlockKind
    lines: tuple[str, ...]

    @property
    def text(self) -> str:
        return "\n".join(self.lines)


def fenced_lines(body: str) -> Iterator[tuple[str, int]]:
    """Each line with the number of the fenced block it belongs to (where ``#`` is a comment, no heading), else 0."""
    lines = body.split("\n")
    closing = [number for number, line in enumerate(lines) if _PURE_FENCE.match(line)]
    fence, block = "", 0
    for number, line in enumerate(lines):
        if fence:
            yield line, block
            if _closes(line, fence):
                fence = ""
            continue
        mark = _FENCE.match(line)
        if mark and (len(mark[1].expandtabs(4)) < 4 or _ends(lines, closing, number, mark[2])):
            fence = mark[2]
            block += 1
        yield line, block if fence else 0


def _closes(line: str, fence: str) -> bool:
    mark = line.strip()
    return len(mark) >= len(fence) and mark == fence[0] * len(mark)


def _ends(lines: Sequence[str], closing: Sequence[int], number: int, fence: str) -> bool:
    first = bisect_right(closing, number)
    return any(_closes(lines[at], fence) for at in closing[first : first + _FENCE_LOOKAHEAD])


def without_comments(body: str) -> str:
    """``body`` without ``<!-- … -->`` outside code: what no reader sees is not searched either."""
    if "<!--" not in body:
        return body
    kept: list[str] = []
    open_comment = False
    lines = list(fenced_lines(body))
    last_end = max((number for number, (line, _) in enumerate(lines) if "-->" in line), default=-1)
    for number, (line, fenced) in enumerate(lines):
        if fenced and not open_comment:
            kept.append(line)
            continue
        inside, out, rest = open_comment, "", line
        while rest:
            if open_comment:
                _, end, rest = rest.partition("-->")
                open_comment = not end
                continue
            before, start, after = rest.partition("<!--")
            out += before
            if start and "-->" not in after and last_end <= number:
                out, rest = out + start + after, ""
            else:
                open_comment, rest = bool(start), after
        if out.strip() or not (inside or line.strip()):
            kept.append(out)
    return "\n".join(kept)


def sections(body: str) -> Iterator[Section]:
    """The text between headings, in order; a heading without text of its own gives an empty section."""
    path: list[tuple[int, str]] = []
    lines: list[str] = []
    for line, fenced in fenced_lines(body):
        level, heading = (0, "") if fenced else _heading(line)
        under = None if fenced or level else _UNDERLINE.match(line)
        if under and _is_heading_text(lines):
            level, heading = (1 if under[1][0] == "=" else 2), _plain(lines.pop())
        if not level:
            lines.append(line)
            continue
        yield _section(path, lines)
        lines = []
        path = [step for step in path if step[0] < level] + [(level, heading)]
    yield _section(path, lines)


def _section(path: Sequence[tuple[int, str]], lines: Sequence[str]) -> Section:
    return Section(path[-1][0] if path else 0, tuple(text for _, text in path), "\n".join(lines))


def _heading(line: str) -> tuple[int, str]:
    found = _HEADING.match(line)
    if found is None:
        return 0, ""
    text = _plain(_CLOSING_MARKS.sub("", found[2]))
    return (len(found[1]), text) if text else (0, "")


def _is_heading_text(lines: Sequence[str]) -> bool:
    """Whether the last line, above ``===`` or ``---``, is a paragraph of one line."""
    if not lines or not lines[-1].strip() or (len(lines) > 1 and lines[-2].strip()):
        return False
    last = lines[-1]
    return not (_ITEM.match(last) or last.lstrip().startswith((">", "|", "`", "~", "#")))


def _plain(heading: str) -> str:
    text = " ".join(heading.split())
    return text if len(text) <= HEADING_CHARS else text[: HEADING_CHARS - 1].rstrip() + "…"


def blocks(text: str) -> Iterator[Block]:
    """Paragraphs, lists with what stands inside them, tables, and fenced code."""
    held: list[str] = []
    kind: BlockKind = "text"
    blank = False
    lines = list(fenced_lines(text))
    for number, (line, fenced) in enumerate(lines):
        if not line.strip() and not (fenced and held):
            blank = True
            continue
        begins = _begins(lines, number, kind if held else None, blank=blank)
        if begins is not None:
            if held:
                yield Block(kind, tuple(held))
            held, kind = [], begins
        elif blank and held:
            held.append("")
        held.append(line)
        blank = False
    if held:
        yield Block(kind, tuple(held))


def _begins(lines: Sequence[tuple[str, int]], number: int, kind: BlockKind | None, *, blank: bool) -> BlockKind | None:
    """The kind of the block that begins at this line; None when the line goes on with the block of ``kind``."""
    line, fenced = lines[number]
    item = None if fenced else _ITEM.match(line)
    if kind == "list" and (line[:1].isspace() or (item is not None and not item[1])):
        return None
    if fenced:
        return None if kind == "fence" and number > 0 and lines[number - 1][1] == fenced else "fence"
    if item is not None:
        return "list"
    if kind == "table":
        return None if "|" in line and not blank else "text"
    if "|" in line and number + 1 < len(lines) and _is_table_rule(lines[number + 1][0]):
        return "table"
    return "text" if kind in (None, "fence") or blank else None


def _is_table_rule(line: str) -> bool:
    return "|" in line and _TABLE_RULE.match(line) is not None


def units(block: Block) -> tuple[str, tuple[str, ...], str]:
    """What stands before each part of a block that must be cut, the units it is cut between, and what closes a part.

    A table repeats its head, code its fences; a list is cut between its items.
    """
    if block.kind == "table" and len(block.lines) > 2:
        return "\n".join(block.lines[:2]), block.lines[2:], ""
    if block.kind == "fence" and len(block.lines) > 1:
        mark = _FENCE.match(block.lines[0])
        closed = mark is not None and _closes(block.lines[-1], mark[2])
        end = block.lines[-1] if closed else (mark[2] if mark else "")
        return block.lines[0], block.lines[1:-1] if closed else block.lines[1:], end
    if block.kind == "list":
        items: list[list[str]] = []
        for line, fenced in fenced_lines(block.text):
            found = None if fenced else _ITEM.match(line)
            if not items or (found is not None and not found[1]):
                items.append([])
            items[-1].append(line)
        return "", tuple("\n".join(item) for item in items), ""
    return "", block.lines, ""
