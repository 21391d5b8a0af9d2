"""What is to be told to the outside. Methods may raise TemporaryError."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from pipeline.domain.ids import IncidentId, OutboxId
from pipeline.domain.notice import BusNotice, CardNotice, ThreadNotice


@dataclass(frozen=True, slots=True)
class OutboxRow:
    """A notice to be sent. ``in_doubt``: an earlier attempt may have reached the other side."""

    id: OutboxId
    incident_id: IncidentId | None
    notice: CardNotice | ThreadNotice | BusNotice
    attempts: int
    in_doubt: bool


class Outbox(Protocol):
    """Notices, first in first out per incident."""

    async def add(self, incident_id: IncidentId | None, notice: CardNotice | ThreadNotice | BusNotice) -> None: ...
    async def claim(self, *, worker: str, lease_s: float) -> OutboxRow | None: ...
    async def attempting(self, outbox_id: OutboxId) -> None:
        """Commits that the other side may see it from now on."""
        ...

    async def keep(self, outbox_id: OutboxId, *, worker: str, lease_s: float) -> bool:
        """Renews the lease; False when it is somebody else's."""
        ...

    async def done(self, outbox_id: OutboxId) -> None: ...
    async def retry(self, outbox_id: OutboxId, *, delay_s: float, error: str, surely_not_sent: bool) -> None: ...
    async def dead(self, outbox_id: OutboxId, error: str) -> None: ...
    async def counts(self) -> Mapping[str, int]:
        """Rows by state."""
        ...
