"""What is to be told to the outside. Methods may raise TemporaryError."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from pipeline.domain.ids import IncidentId, OutboxId
from pipeline.domain.notice import BusNotice, CardNotice, PagerNotice, ThreadNotice


@dataclass(frozen=True, slots=True)
class OutboxRow:
    """A notice to be sent. ``in_doubt``: an earlier attempt may have reached the other side."""

    id: OutboxId
    incident_id: IncidentId | None
    notice: CardNotice | ThreadNotice | BusNotice | PagerNotice
    attempts: int
    in_doubt: bool


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """A notice that was set aside: ``error`` says why it could not be sent."""

    id: OutboxId
    incident_id: IncidentId | None
    kind: str
    attempts: int
    error: str
    created_at: datetime


class Outbox(Protocol):
    """Notices, first in first out per incident; what goes to the chat and what goes to the pager do not wait for each
    other."""

    async def add(
        self, incident_id: IncidentId | None, notice: CardNotice | ThreadNotice | BusNotice | PagerNotice
    ) -> None: ...
    async def claim(self, *, worker: str, lease_s: float) -> OutboxRow | None: ...
    async def attempting(self, outbox_id: OutboxId) -> None:
        """Commits that the other side may see it from now on."""
        ...

    async def keep(self, outbox_id: OutboxId, *, worker: str, lease_s: float) -> bool:
        """Renews the lease; False when it is somebody else's."""
        ...

    async def done(self, outbox_id: OutboxId) -> None: ...
    async def retry(
        self, outbox_id: OutboxId, *, attempt: int, delay_s: float, error: str, surely_not_sent: bool
    ) -> None:
        """Nothing happens when a later ``attempt`` than this one has begun: the row is another worker's by now."""
        ...

    async def dead(self, outbox_id: OutboxId, error: str, *, attempt: int) -> None:
        """Sets it aside, unless a later attempt has begun."""
        ...

    async def dead_letters(self) -> Sequence[DeadLetter]:
        """What was set aside, the oldest first."""
        ...

    async def replay(self, outbox_id: OutboxId | None) -> int:
        """Sets one (None: all) of what was set aside to be sent again; returns how many."""
        ...

    async def counts(self) -> Mapping[str, int]:
        """Rows by state."""
        ...
