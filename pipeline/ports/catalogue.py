"""The service catalogue, which people edit while the bot runs."""

from __future__ import annotations

from typing import Protocol

from pipeline.domain.catalogue import Catalogue


class CatalogueSource(Protocol):
    """Where the catalogue comes from."""

    @property
    def problem(self) -> str:
        """What is wrong with its newest content, in one line; empty when nothing is. What was right before counts."""
        ...

    def current(self) -> Catalogue:
        """Always the same object, with the newest content that was right."""
        ...
