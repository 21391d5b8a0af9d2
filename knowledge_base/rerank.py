"""A second look at the first few: a model that reads query and passage together, within a deadline of its own."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Protocol

from knowledge_base.novelty import sigmoid
from knowledge_base.stored import FloatArray
from pipeline.domain.errors import TemporaryError

MOST = 20
"""Passages that are read again; the first stage has nearly every right one among them."""
LONGEST_CHARS = 1_000
"""Of each passage: the model's time grows with it."""


class Reranker(Protocol):
    """A cross-encoder for ranking."""

    @property
    def name(self) -> str:
        """The model's name."""
        ...

    async def logits(self, query: str, texts: Sequence[str]) -> FloatArray:
        """Shape (texts,). Raises PermanentError when there is no such model here."""
        ...


async def read_again(
    reranker: Reranker, query: str, texts: Sequence[str], scores: Sequence[float], deadline_s: float
) -> list[float]:
    """New relevances, 0..1: the mean of ``scores`` and what the model says of each text, through a sigmoid.

    The mean, since a model of web questions knows nothing of alerts: it may reorder, never overrule. At most ``MOST``
    texts are to be given. Raises TemporaryError after ``deadline_s``, PermanentError when there is no such model.
    """
    shortened = [text[:LONGEST_CHARS] for text in texts]
    try:
        logits = await asyncio.wait_for(reranker.logits(query, shortened), deadline_s)
    except TimeoutError as error:
        raise TemporaryError(f"{reranker.name} gave no answer within {deadline_s:.1f} s") from error
    return [(score + sigmoid(float(logit))) / 2 for score, logit in zip(scores, logits, strict=True)]
