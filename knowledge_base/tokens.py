"""How long a text is for an embedding model, and how long a chunk may be."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

TokenCounter = Callable[[str], int]
"""A text into its number of tokens; it must not shrink when text is added."""

MAX_TOKENS = 254
"""Longest chunk with its heading: all-MiniLM-L6-v2 reads 256 word pieces, two of which mark begin and end."""
ESTIMATED_MAX_TOKENS = 240
"""The same where tokens are estimated: with it 1 chunk of 100 is longer than the model reads."""

_PIECE = re.compile(r"[A-Z][a-z]{1,5}|[a-z]{1,6}|[A-Z]{1,6}(?![a-z])|\d{1,3}|[^\W\d_]|[^\w\s]|_")


def estimate_tokens(text: str) -> int:
    """Word pieces of BERT's vocabulary, without it: 1.02 of the real number over runbooks with code, 0.85 at the least.

    A plain word is a piece; long words, identifiers and figures are several; other scripts one a letter.
    """
    return len(_PIECE.findall(text))


@dataclass(frozen=True, slots=True)
class Chunking:
    """How documents are cut. ``name`` tells counters apart: documents cut with another one are cut anew.

    ``limit``: tokens of a chunk, its heading included; at least 32. ``merge_below``: a section of fewer tokens joins
    its neighbours under the same heading while they fit together; 0 keeps every section by itself.
    """

    limit: int = ESTIMATED_MAX_TOKENS
    merge_below: int = 0
    count: TokenCounter = estimate_tokens
    name: str = "estimate"

    def __post_init__(self) -> None:
        if self.limit < 32:
            raise ValueError(f"a chunk of {self.limit} tokens holds no sentence: take 32 or more")

    @property
    def key(self) -> str:
        """Changes whenever the same text would be cut otherwise."""
        return f"{self.name} {self.limit} {self.merge_below}"


DEFAULT_CHUNKING = Chunking()
