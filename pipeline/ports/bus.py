"""Events between replicas and other agents. A lost event delays, it never loses: everybody also polls the database."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from typing import Protocol


class Bus(Protocol):
    """At-least-once events. Raises TemporaryError when the bus cannot be reached."""

    async def publish(self, topic: str, fields: Mapping[str, str]) -> None:
        """Appends one event."""
        ...

    def listen(self, topic: str) -> AsyncIterator[Mapping[str, str]]:
        """Events from now on, for every listener; ends when the bus goes away."""
        ...
