"""What `kb list` shows: the documents of the knowledge base, without their text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import Protocol

STALE_AFTER = timedelta(days=180)
"""A runbook that nobody verified for half a year may describe systems that are no more."""


@dataclass(frozen=True, slots=True)
class ListedDocument:
    """A document as it stands in the database; ``chunks``: how many it has."""

    collection: str
    path: str
    title: str
    kind: str
    category: str
    services: tuple[str, ...]
    platform: str
    owner: str
    last_verified: date | None
    chunks: int
    ingested_at: datetime

    def is_stale(self, today: date) -> bool:
        """Whether it was verified, and that is too long ago; of the others nothing is known."""
        return self.last_verified is not None and today - self.last_verified > STALE_AFTER


class DocumentList(Protocol):
    """The documents that are there."""

    async def listed(self) -> Sequence[ListedDocument]:
        """All, by collection and path. Raises TemporaryError when the database is away."""
        ...
