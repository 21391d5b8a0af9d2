"""Every telemetry port, served from a recording: what is told depends on the time asked about, never on the wall clock.

One object a port: `close` and `name` are the same everywhere, and a part that is down fails as a provider's would.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from datetime import datetime

from pipeline.domain.activity import ActivityReading
from pipeline.domain.changes import ChangeReading
from pipeline.domain.ids import ServiceName
from pipeline.domain.logs import LogLine, LogReading
from pipeline.domain.recording import Part, Recording
from pipeline.domain.spans import Trace, TraceReading
from pipeline.domain.telemetry import Reading, SourceFailure


class _Recorded:
    """What the sources have in common."""

    part: Part

    def __init__(self, recording: Recording) -> None:
        self._recording = recording
        reason = recording.down.get(self.part)
        self._failures = () if reason is None else (SourceFailure(self.name, reason),)

    @property
    def name(self) -> str:
        return f"recorded {self.part}"

    async def close(self) -> None:
        """Nothing is held open."""


class RecordedMetrics(_Recorded):
    """Tells the samples that came since it was read last."""

    part: Part = "metrics"

    def __init__(self, recording: Recording, since: datetime) -> None:
        """``since``: samples up to then are history, and are not told."""
        super().__init__(recording)
        self._times = [sample.at for sample in recording.samples]
        self._told = bisect_right(self._times, since)

    async def read(self, now: datetime) -> Reading:
        if self._failures:
            return Reading(failures=self._failures)
        begin, self._told = self._told, max(self._told, bisect_right(self._times, now))
        return Reading(tuple(self._recording.samples[begin : self._told]))


class RecordedTopology(_Recorded):
    """The same edges at any time: a graph changes by the deployment, a recording is of less than a day."""

    part: Part = "topology"

    async def edges(self, since: datetime, until: datetime) -> Reading:
        del since, until
        return Reading(failures=self._failures) if self._failures else Reading(edges=tuple(self._recording.edges or ()))


class RecordedChanges(_Recorded):
    part: Part = "changes"

    async def changes(self, since: datetime, until: datetime) -> ChangeReading:
        if self._failures:
            return ChangeReading(failures=self._failures)
        return ChangeReading(tuple(one for one in self._recording.changes or () if since <= one.at < until))


class RecordedLogs(_Recorded):
    part: Part = "logs"

    def __init__(self, recording: Recording) -> None:
        super().__init__(recording)
        self._lines = recording.lines or ()
        self._times = [line.at for line in self._lines]

    async def tail(self, since: datetime, until: datetime, *, limit: int) -> LogReading:
        return self._reading(list(self._between(since, until)), limit)

    async def search(
        self, service: ServiceName, text: str, since: datetime, until: datetime, *, limit: int
    ) -> LogReading:
        found = [line for line in self._between(since, until) if line.service == service and text in line.text]
        return self._reading(found, limit)

    def _between(self, since: datetime, until: datetime) -> list[LogLine]:
        return list(self._lines[bisect_left(self._times, since) : bisect_left(self._times, until)])

    def _reading(self, found: list[LogLine], limit: int) -> LogReading:
        if self._failures:
            return LogReading(failures=self._failures)
        return LogReading(tuple(found[max(len(found) - limit, 0) :]), truncated=len(found) > limit)


class RecordedTraces(_Recorded):
    part: Part = "traces"

    async def search(
        self, service: ServiceName, since: datetime, until: datetime, *, limit: int, errors_only: bool = False
    ) -> TraceReading:
        if self._failures:
            return TraceReading(failures=self._failures)
        found = [one for one in self._recording.traces or () if _through(one, service, since, until, errors_only)]
        found.sort(key=lambda trace: -trace.spans[0].duration_s)
        return TraceReading(tuple(found[:limit]))


class RecordedActivity(_Recorded):
    part: Part = "activity"

    async def activity(self, service: ServiceName, since: datetime, until: datetime) -> ActivityReading:
        if self._failures:
            return ActivityReading(failures=self._failures)
        told = self._recording.activities or ()
        return ActivityReading(tuple(one for one in told if one.service == service and since <= one.at < until))


def _through(trace: Trace, service: ServiceName, since: datetime, until: datetime, errors_only: bool) -> bool:
    if not trace.spans or not since <= trace.spans[0].started_at < until:
        return False
    own = [span for span in trace.spans if span.service == service]
    return bool(own) and (not errors_only or any(span.error for span in trace.spans))
