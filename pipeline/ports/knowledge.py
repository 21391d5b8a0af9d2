"""Finding what is known: runbooks and post-mortems."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from pipeline.domain.diagnosis import Passage


class Knowledge(Protocol):
    """Retrieval over the knowledge base."""

    async def search(self, query: str, *, limit: int) -> Sequence[Passage]:
        """The best passages for ``query``, best first; empty when nothing is known. Raises TemporaryError."""
        ...
