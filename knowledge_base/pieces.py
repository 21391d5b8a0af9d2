"""What of a document gets a vector: its opening, each section, and each pair of a section's sentences. Pure.

A model of sentences loses a line about one symptom in the vector of a whole section, and the matter in that of a line:
each size finds what the others miss. Every piece starts with the title; names of sections stay out, since many
runbooks share the same ones (Meaning, Impact, Diagnosis).
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import IntEnum
from pathlib import PurePosixPath

from knowledge_base.lexical import spaced, terms

OPENING_WORDS = 60
WINDOW_SENTENCES = 2

_SENTENCE_END = re.compile(r"(?<=[.!?])\s+|\n+")


class PieceKind(IntEnum):
    """As stored."""

    OPENING = 0
    SECTION = 1
    WINDOW = 2


@dataclass(frozen=True, slots=True)
class Piece:
    """``chunk``: place of the chunk it was taken from; ``text`` is what is embedded."""

    kind: PieceKind
    chunk: int
    text: str

    @property
    def content_hash(self) -> str:
        return hashlib.sha256(f"{self.kind}\n{self.text}".encode()).hexdigest()


def name_of(path: str, title: str) -> str:
    """The title in words, with the file's name where that says something else."""
    stem = spaced(PurePosixPath(path).stem.replace("-", " "))
    words = spaced(title)
    return words if set(terms(stem)) <= set(terms(words)) else f"{words} ({stem})"


def pieces(path: str, title: str, chunks: Sequence[str]) -> Iterator[Piece]:
    """The pieces of a document with these texts of its chunks, each once."""
    name = name_of(path, title)
    found = [Piece(PieceKind.OPENING, 0, f"{name}: {' '.join(_first_words(chunks))}")] if chunks else []
    for number, text in enumerate(chunks):
        found.append(Piece(PieceKind.SECTION, number, f"{name}: {text}"))
        sentences = [part for part in _SENTENCE_END.split(text) if len(part.split()) > 1]
        if len(sentences) > WINDOW_SENTENCES:
            found += [
                Piece(PieceKind.WINDOW, number, f"{name}: {' '.join(sentences[start : start + WINDOW_SENTENCES])}")
                for start in range(0, len(sentences), WINDOW_SENTENCES)
            ]
    yield from {piece.content_hash: piece for piece in found}.values()


def _first_words(chunks: Sequence[str]) -> list[str]:
    words: list[str] = []
    for text in chunks:
        words += text.split()
        if len(words) >= OPENING_WORDS:
            break
    return words[:OPENING_WORDS]
