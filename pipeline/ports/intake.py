"""What came in from outside. Methods may raise TemporaryError."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Protocol

from pipeline.domain.alert import Alert
from pipeline.domain.ids import ServiceName


class IntakeStore(Protocol):
    """Events by the consumers that have processed them, and alerts."""

    async def first_time(self, consumer: str, event: str) -> bool:
        """True once for each consumer and event: asked in the transaction of the event's effect."""
        ...

    async def save_alerts(self, alerts: Sequence[Alert]) -> None:
        """Keeps them; of one that is known already its end, if there is one now."""
        ...

    async def alerts(self, service: ServiceName, since: datetime) -> Sequence[Alert]:
        """Those of a service that fired at or after ``since``, the newest first."""
        ...

    async def forget(self, *, keep_s: float) -> None:
        """Deletes what is older than ``keep_s``."""
        ...
