"""Sections into parts of a limited number of tokens, cutting only what must be cut."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence

from knowledge_base.markdown import Block, Section, blocks, units
from knowledge_base.tokens import Chunking, TokenCounter

_SEAMS = ((re.compile(r"\n"), "\n"), (re.compile(r"(?<=[.!?;])\s+"), " "), (re.compile(r"\s+"), " "))
"""Where a text is cut, the best place first: between lines, sentences, words."""
_WINDOW = 4
"""Letters of a token, about."""


def split(text: str, limit: int, count: TokenCounter) -> Iterator[str]:
    """Packs the blocks of ``text`` into parts of at most ``limit`` tokens.

    A line that announces what follows ("Run:") stays with it where both fit into one part.
    """
    packed: list[str] = []
    used = 0
    for group in _announced(blocks(text), limit, count):
        for piece in group:
            size = count(piece)
            if packed and used + size > limit:
                yield "\n\n".join(packed)
                packed, used = [], 0
            packed.append(piece)
            used += size
    if packed:
        yield "\n\n".join(packed)


def shorten(text: str, limit: int, count: TokenCounter) -> str:
    """The beginning of ``text``, at most ``limit`` tokens of it."""
    return next(iter(_shred(text, limit, count)), "")


def merged(found: Iterable[Section], chunking: Chunking) -> Iterator[Section]:
    """Sections with those of fewer than ``merge_below`` tokens joined to their neighbours.

    Joined are siblings, and a section with what stands right below it, while they fit into one chunk; the heading
    that is lost stands above its text.
    """
    found = [section for section in found if section.text.strip()]
    if not chunking.merge_below:
        yield from found
        return
    group: list[Section] = []
    used = 0
    for section in found:
        size = chunking.count(section.text) + chunking.count(" ".join(section.path[-1:]))
        small = size < chunking.merge_below or used < chunking.merge_below
        if group and not (small and used + size <= chunking.limit * 2 // 3 and _neighbours(group, section)):
            yield _joined(group)
            group, used = [], 0
        group.append(section)
        used += size
    if group:
        yield _joined(group)


def _neighbours(group: Sequence[Section], section: Section) -> bool:
    shared = _shared([*group, section])
    return len(shared) > 0 and all(len(one.path) <= len(shared) + 1 for one in (*group, section))


def _shared(group: Sequence[Section]) -> tuple[str, ...]:
    first, last = min(section.path for section in group), max(section.path for section in group)
    same = 0
    while same < min(len(first), len(last)) and first[same] == last[same]:
        same += 1
    return first[:same]


def _joined(group: Sequence[Section]) -> Section:
    if len(group) == 1:
        return group[0]
    shared = _shared(group)
    texts = ["\n".join([*section.path[len(shared) :], section.text.strip("\n")]) for section in group]
    return Section(min(section.level for section in group), shared, "\n\n".join(texts))


def _announced(found: Iterator[Block], limit: int, count: TokenCounter) -> Iterator[list[str]]:
    """Each block as pieces that fit, a lead-in and its block as one piece where that fits."""
    lead = ""
    for block in found:
        text = block.text
        if lead:
            if block.kind != "text" and count(lead) + count(text) <= limit:
                yield [f"{lead}\n\n{text}"]
                lead = ""
                continue
            yield [lead]
            lead = ""
        if block.kind == "text" and text.rstrip().endswith(":") and count(text) <= limit // 2:
            lead = text
            continue
        yield list(_cut(block, limit, count))
    if lead:
        yield [lead]


def _cut(block: Block, limit: int, count: TokenCounter) -> Iterator[str]:
    if count(block.text) <= limit:
        yield block.text
        return
    before, between, after = units(block)
    around = count(before) + count(after)
    if around > limit // 3:
        before, between, after, around = "", block.lines, "", 0
    pieces = [piece for unit in between for piece in _shred(unit, limit - around, count)]
    for part in _packed(pieces, "\n", limit - around, count):
        yield "\n".join(line for line in (before, part, after) if line)


def _shred(text: str, limit: int, count: TokenCounter) -> list[str]:
    """``text`` in pieces of at most ``limit`` tokens, cut at the best seam that helps, inside a word at the last."""
    if count(text) <= limit:
        return [text]
    for seam, joint in _SEAMS:
        between = [unit for unit in seam.split(text) if unit.strip()]
        if len(between) > 1:
            return list(
                _packed([piece for unit in between for piece in _shred(unit, limit, count)], joint, limit, count)
            )
    # No seam at all, as in base64: in windows, so that a long one is not counted again and again.
    width = min(_WINDOW * limit, len(text) // 2)
    if width == 0:
        return [text]
    return [piece for at in range(0, len(text), width) for piece in _shred(text[at : at + width], limit, count)]


def _packed(pieces: Iterable[str], joint: str, limit: int, count: TokenCounter) -> Iterator[str]:
    kept: list[str] = []
    used = 0
    for piece in pieces:
        size = count(piece)
        if kept and used + size > limit:
            yield joint.join(kept)
            kept, used = [], 0
        kept.append(piece)
        used += size
    if kept:
        yield joint.join(kept)
