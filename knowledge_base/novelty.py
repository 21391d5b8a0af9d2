"""From a score to a relevance of 0..1, and to the verdict that nothing known is like this. Pure.

Fitted by logistic regression, both classes with the same weight, on 471 queries over 220 public runbooks and
post-mortems that are no part of this project: 411 that a document answers, 60 that none does. There the limit tells
77 % of the latter, and 5 % of the former wrongly; by words alone 30 % and 5 %.
"""

from __future__ import annotations

import math

MEANING = (23.5, -13.6)
"""Slope and offset of the logistic, of the mean of a document's fused score and its best cosine."""
WORDS = (5.0, -3.8)
"""The same for its words alone, where there is no cosine."""
NOVEL_BELOW = 0.18
"""Relevance of the best document below which the query is told as new."""
NAMED = 0.95
"""Relevance at least of a document that is called like the alert, or says that it answers it."""


def relevance(score: float, cosine: float | None) -> float:
    """The chance that a document of this score and best cosine is about the matter, 0..1.

    Both count, since words that are shared by accident raise the score, and they do not raise the cosine.
    """
    slope, offset = WORDS if cosine is None else MEANING
    return sigmoid(slope * (score if cosine is None else (score + cosine) / 2) + offset)


def sigmoid(value: float) -> float:
    """1 / (1 + e^-value), without overflow."""
    return 1 / (1 + math.exp(-value)) if value >= 0 else math.exp(value) / (1 + math.exp(value))
