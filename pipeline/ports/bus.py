"""Events between replicas and other agents. A lost wake-up only delays: everybody also polls the database."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class BusEvent:
    """One event as it was delivered; ``id`` is the bus' own and names it when it is done."""

    id: str
    fields: Mapping[str, str]


class Bus(Protocol):
    """At-least-once events. Raises TemporaryError when the bus cannot be reached."""

    async def publish(self, topic: str, fields: Mapping[str, str]) -> None:
        """Appends one event."""
        ...

    def listen(self, topic: str) -> AsyncIterator[Mapping[str, str]]:
        """Events from now on, for every listener; ends when the bus goes away."""
        ...

    async def take(self, topic: str, *, group: str, consumer: str, idle_s: float) -> Sequence[BusEvent]:
        """The next events for one of a group's consumers: first those that another took ``idle_s`` ago and never
        finished, then new ones. Waits a few seconds for a first one; empty when none came."""
        ...

    async def done(self, topic: str, *, group: str, event_id: str) -> None:
        """The event's effect is committed: it is delivered no more."""
        ...
