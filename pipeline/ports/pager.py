"""Calling people who do not look at the chat."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from pipeline.domain.ids import IncidentId
from pipeline.domain.notice import PageEvent
from pipeline.domain.severity import Severity


@dataclass(frozen=True, slots=True)
class Page:
    """One word to the pager. ``dedup_key`` is the same for all words on one incident, so each may be said again.

    ``link`` leads to the incident's card; empty where it is not known.
    """

    event: PageEvent
    dedup_key: str
    label: str
    summary: str
    severity: Severity
    service: str
    environment: str
    link: str = ""


class Pager(Protocol):
    """A paging service."""

    async def send(self, page: Page) -> None:
        """Raises TemporaryError (not taken), OutcomeUnknown (no answer: say it again), PermanentError (refused)."""
        ...

    async def close(self) -> None:
        """Releases connections."""
        ...


class PageStore(Protocol):
    """How far the page of each incident has come. Methods may raise TemporaryError."""

    async def move(self, incident_id: IncidentId, event: PageEvent) -> str | None:
        """The dedup key when ``event`` is news to the pager, else None.

        Nothing is acknowledged or resolved that was not triggered, and what is resolved stays so. Always None where no
        pager is set up.
        """
        ...
