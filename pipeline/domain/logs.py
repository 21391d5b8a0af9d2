"""Log lines, as every provider's adapter hands them on."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Literal

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
class LogPattern:
    """A template of lines that is new or comes far more often than it used to.

    ``count`` lines since ``started_at`` where ``expected`` would have been usual; ``sample`` is one of them, shortened.
    """

    service: ServiceName
    template: str
    kind: Literal["new", "surging"]
    started_at: datetime
    seen_at: datetime
    count: int
    expected: float
    sample: str

    def describe(self) -> str:
        """``41 lines “upstream <*> timed out” since 14:02:10, usually 0.2`` or ``… never seen before``."""
        usual = "never seen before" if self.kind == "new" else f"usually {self.expected:.1f}"
        lines = f"{self.count} line{'s' if self.count != 1 else ''}"
        return f"{lines} “{self.template[:200]}” since {self.started_at:%H:%M:%S} UTC, {usual}"


@dataclass(frozen=True, slots=True)
class LogReading:
    """Lines oldest first. ``truncated``: there were more than the limit asked for, and these are the newest."""

    lines: tuple[LogLine, ...] = ()
    failures: tuple[SourceFailure, ...] = ()
    truncated: bool = False
