"""Alerts that other systems raised, as they were told to the bot."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from pipeline.domain.ids import ServiceName


@dataclass(frozen=True, slots=True)
class Alert:
    """One alert. ``fingerprint`` is its own system's name for it; ``ended_at`` is None while it fires (aware UTC)."""

    fingerprint: str
    service: ServiceName
    name: str
    summary: str
    started_at: datetime
    ended_at: datetime | None
