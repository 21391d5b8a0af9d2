"""Log lines, as every provider's adapter hands them on."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from pipeline.domain.ids import ServiceName
from pipeline.domain.telemetry import SourceFailure


@dataclass(frozen=True, slots=True)
class LogLine:
    """One line. ``at`` is aware UTC, the source's time; ``text`` is the message without the provider's envelope."""

    at: datetime
    service: ServiceName
    text: str
    instance: str = ""


@dataclass(frozen=True, slots=True)
class LogReading:
    """Lines oldest first. ``truncated``: there were more than the limit asked for, and these are the newest."""

    lines: tuple[LogLine, ...] = ()
    failures: tuple[SourceFailure, ...] = ()
    truncated: bool = False
