"""What every kind of telemetry said of a stretch of time, kept so that it can be said again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from pipeline.domain.activity import Activity
from pipeline.domain.changes import ChangeEvent
from pipeline.domain.logs import LogLine
from pipeline.domain.spans import Trace
from pipeline.domain.telemetry import CallEdge, Sample

Part = Literal["metrics", "topology", "logs", "traces", "changes", "activity"]


@dataclass(frozen=True, slots=True)
class Recording:
    """All that was recorded, oldest first. None is what nobody asked: that source was not set up.

    ``down``: parts that were set up and could not be read, each with the reason that the source gives.
    """

    samples: Sequence[Sample] = ()
    edges: Sequence[CallEdge] | None = None
    lines: Sequence[LogLine] | None = None
    traces: Sequence[Trace] | None = None
    changes: Sequence[ChangeEvent] | None = None
    activities: Sequence[Activity] | None = None
    down: Mapping[Part, str] = field(default_factory=dict)

    def has(self, part: Part) -> bool:
        """Whether there is a source of this part, be it one that is down."""
        told = {
            "metrics": self.samples,
            "topology": self.edges,
            "logs": self.lines,
            "traces": self.traces,
            "changes": self.changes,
            "activity": self.activities,
        }
        return part in self.down or told[part] is not None
