"""Finding what is known: runbooks and post-mortems."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, Protocol

from pipeline.domain.diagnosis import Passage

Method = Literal["alert", "rerank", "hybrid", "vector", "lexical"]
"""How a passage was found: by the alert's name, by a second reading, by meaning and words, by one of them alone."""


@dataclass(frozen=True, slots=True)
class KnowledgeQuery:
    """What is looked for. ``alerts``, ``services``, ``platform`` and ``category`` may stay empty: nothing is lost."""

    text: str
    alerts: tuple[str, ...] = ()
    """Names of alerts, in any spelling: their own runbooks come first."""
    services: tuple[str, ...] = ()
    platform: str = ""
    category: str = ""


@dataclass(frozen=True, slots=True)
class Found:
    """Passages, best first, at most one a document as long as there are other documents that fit."""

    passages: tuple[Passage, ...] = ()
    novel: bool = False
    """Nothing known is like this, judged on an absolute scale: the passages are the nearest there is, no answer."""
    best_cosine: float | None = None
    """Highest cosine of a passage to the query; None when words alone were compared."""
    method: Method = "lexical"
    fallback: str = ""
    """What the search had to do without, and why; empty when it ran as set up."""
    latency_ms: Mapping[str, float] = field(default_factory=dict)
    """Milliseconds by step."""


class Knowledge(Protocol):
    """Retrieval over the knowledge base."""

    async def search(self, query: KnowledgeQuery, *, limit: int) -> Found:
        """At most ``limit`` passages; none when nothing is known. Raises TemporaryError."""
        ...
