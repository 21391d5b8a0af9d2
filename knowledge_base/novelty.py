"""From a score to a relevance of 0..1, and to the verdict that nothing known is like this. Pure.

Fitted by logistic regression on 500 labelled queries over 200 public runbooks and post-mortems that are no part of
this project: the chance that the best document is a right one, given its score.
"""

from __future__ import annotations

import math

FUSED = (11.0, -6.6)
"""Slope and offset of the logistic of the fused score."""
WORDS = (4.0, -1.6)
"""The same for the coverage by words alone."""
NOVEL_BELOW = 0.35
"""Relevance of the best document below which the query is told as new."""
NAMED = 0.95
"""Relevance at least of a document that is called like the alert, or says that it answers it."""


def relevance(score: float, *, words_alone: bool) -> float:
    """The chance that a document of this score is a right one, 0..1."""
    slope, offset = WORDS if words_alone else FUSED
    return sigmoid(slope * score + offset)


def sigmoid(value: float) -> float:
    """1 / (1 + e^-value), without overflow."""
    return 1 / (1 + math.exp(-value)) if value >= 0 else math.exp(value) / (1 + math.exp(value))
