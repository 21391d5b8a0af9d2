"""Changes that people and machines make to services: what a regression may be due to."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from pipeline.domain.ids import ServiceName
from pipeline.domain.telemetry import SourceFailure

SHORT_REVISION = 12
"""Characters of a revision that people are shown: enough to name a commit in any repository."""


OURS = "sre-bot"
"""The author of commits that the bot made: they take something back, and are no reason to take back in turn."""


class ChangeKind(StrEnum):
    """What was changed."""

    DEPLOYMENT = "deployment"
    CONFIGURATION = "configuration"
    SCALING = "scaling"


@dataclass(frozen=True, slots=True)
class ChangeEvent:
    """One change. ``revision`` names it in the words of its source: a commit, an image, a ReplicaSet's revision.

    ``at`` is when it took effect (aware UTC); ``title`` one line for a person; ``author`` may be empty.
    """

    service: ServiceName
    at: datetime
    kind: ChangeKind
    revision: str
    title: str
    author: str = ""

    def describe(self) -> str:
        """``deployment 3f2a91c “raise pool size” by alice at 14:02:10 UTC``."""
        by = f" by {self.author}" if self.author else ""
        return f"{self.kind.value} {self.revision[:SHORT_REVISION]} “{self.title}”{by} at {self.at:%H:%M:%S} UTC"


@dataclass(frozen=True, slots=True)
class ChangeReading:
    """Changes, and what could not be read."""

    changes: tuple[ChangeEvent, ...] = ()
    failures: tuple[SourceFailure, ...] = ()
