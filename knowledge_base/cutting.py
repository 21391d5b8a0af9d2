"""Sections into parts of a limited number of tokens, cutting only what must be cut."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from knowledge_base.markdown import Block, blocks, units
from knowledge_base.tokens import estimate_tokens

_SEAMS = ((re.compile(r"\n"), "\n"), (re.compile(r"(?<=[.!?;])\s+"), " "), (re.compile(r"\s+"), " "))
"""Where a text is cut, the best place first: between lines, sentences, words."""
_WINDOW = 4
"""Letters of a token, about."""


def split(text: str, limit: int) -> Iterator[str]:
    """Packs the blocks of ``text`` into parts of at most ``limit`` tokens.

    A line that announces what follows ("Run:") stays with it where both fit into one part.
    """
    packed: list[str] = []
    used = 0
    for group in _announced(blocks(text), limit):
        for piece in group:
            size = estimate_tokens(piece)
            if packed and used + size > limit:
                yield "\n\n".join(packed)
                packed, used = [], 0
            packed.append(piece)
            used += size
    if packed:
        yield "\n\n".join(packed)


def shorten(text: str, limit: int) -> str:
    """The beginning of ``text``, at most ``limit`` tokens of it."""
    return next(iter(_shred(text, limit)), "")


def _announced(found: Iterator[Block], limit: int) -> Iterator[list[str]]:
    """Each block as pieces that fit, a lead-in and its block as one piece where that fits."""
    lead = ""
    for block in found:
        text = block.text
        if lead:
            if block.kind != "text" and estimate_tokens(lead) + estimate_tokens(text) <= limit:
                yield [f"{lead}\n\n{text}"]
                lead = ""
                continue
            yield [lead]
            lead = ""
        if block.kind == "text" and text.rstrip().endswith(":") and estimate_tokens(text) <= limit // 2:
            lead = text
            continue
        yield list(_cut(block, limit))
    if lead:
        yield [lead]


def _cut(block: Block, limit: int) -> Iterator[str]:
    if estimate_tokens(block.text) <= limit:
        yield block.text
        return
    before, between, after = units(block)
    around = estimate_tokens(before) + estimate_tokens(after)
    if around > limit // 3:
        before, between, after, around = "", block.lines, "", 0
    pieces = [piece for unit in between for piece in _shred(unit, limit - around)]
    for part in _packed(pieces, "\n", limit - around):
        yield "\n".join(line for line in (before, part, after) if line)


def _shred(text: str, limit: int) -> list[str]:
    """``text`` in pieces of at most ``limit`` tokens, cut at the best seam that helps, inside a word at the last."""
    if estimate_tokens(text) <= limit:
        return [text]
    for seam, joint in _SEAMS:
        between = [unit for unit in seam.split(text) if unit.strip()]
        if len(between) > 1:
            return list(_packed([piece for unit in between for piece in _shred(unit, limit)], joint, limit))
    # No seam at all, as in base64: in windows, so that a long one is not counted again and again.
    width = min(_WINDOW * limit, len(text) // 2)
    if width == 0:
        return [text]
    return [piece for at in range(0, len(text), width) for piece in _shred(text[at : at + width], limit)]


def _packed(pieces: Iterable[str], joint: str, limit: int) -> Iterator[str]:
    kept: list[str] = []
    used = 0
    for piece in pieces:
        size = estimate_tokens(piece)
        if kept and used + size > limit:
            yield joint.join(kept)
            kept, used = [], 0
        kept.append(piece)
        used += size
    if kept:
        yield joint.join(kept)
