"""Asking traces, logs and the kernel about one service, when an incident needs to know."""

from __future__ import annotations

import asyncio
import re
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

from pipeline.domain.activity import ActivityReading
from pipeline.domain.detection.templates import TemplateMiner
from pipeline.domain.detection.templates_masks import redacted
from pipeline.domain.diagnosis import Evidence, Sign
from pipeline.domain.ids import ServiceName
from pipeline.domain.logs import LogLine, LogReading
from pipeline.domain.spans import TraceReading
from pipeline.domain.telemetry import SourceFailure
from pipeline.domain.trace import JsonValue, TraceEntry, TraceKind
from pipeline.ports.activity import ActivitySource
from pipeline.ports.logs import LogsSource
from pipeline.ports.traces import TracesSource
from pipeline.stages.asking import ask
from pipeline.stages.findings import KILLED, Window, of_activity, of_trace

SOURCE_DEADLINE_S = 20.0
"""For one witness: the diagnosis waits for all, and each is one or two requests of ten seconds at most."""
TRACES = 3
ACTIVITIES = 5
LOG_LINES = 1000
LOG_TEMPLATES = 8
LINES_KEPT = 5
LINE_CHARS = 300
EVENT = re.compile(r"^(?:OOMKilled|BackOff|Unhealthy|Evicted|FailedScheduling|FailedMount|NodeNotReady|Error): ")
"""How a cluster's own words begin among the log lines."""
_Reading = TypeVar("_Reading")


@dataclass(frozen=True, slots=True)
class Testimony:
    """What was said, what could not be asked (``blind``), and each question with its latency."""

    items: tuple[Evidence, ...] = ()
    blind: tuple[str, ...] = ()
    entries: tuple[TraceEntry, ...] = ()


class Witnesses:
    """Reads; a provider that is down is named and costs nothing else."""

    def __init__(
        self,
        traces: Sequence[TracesSource],
        activity: Sequence[ActivitySource],
        logs: Sequence[LogsSource] = (),
        *,
        redact: Callable[[str], str] = str,
    ) -> None:
        """``redact`` takes secrets out of whole lines, before they are cut."""
        self._traces = traces
        self._activity = activity
        self._logs = logs
        self._redact = redact

    def without_secrets(self, redact: Callable[[str], str]) -> Witnesses:
        """The same witnesses; what they say of log lines has gone through ``redact``."""
        return Witnesses(self._traces, self._activity, self._logs, redact=redact)

    async def hear(self, service: ServiceName, window: Window) -> Testimony:
        """The slowest traces and the kernel, all providers side by side."""
        return _together(await asyncio.gather(self.traces(service, window), self.activity(service, window)))

    async def traces(self, service: ServiceName, window: Window, *, errors_only: bool = False) -> Testimony:
        """The slowest traces through the service, those with errors alone where that is asked for."""
        parts = (self._traced(source, service, window, errors_only) for source in self._traces)
        return _together(await asyncio.gather(*parts))

    async def activity(self, service: ServiceName, window: Window) -> Testimony:
        """What the kernel counted."""
        return _together(await asyncio.gather(*(self._kernel(one, service, window) for one in self._activity)))

    async def logs(self, service: ServiceName, text: str, window: Window) -> Testimony:
        """Lines that contain ``text``, by pattern, the most frequent first."""
        return _together(await asyncio.gather(*(self._lines(one, service, text, window) for one in self._logs)))

    async def events(self, service: ServiceName, window: Window) -> Testimony:
        """What a cluster said of the service's pods: kills, restarts, failed probes."""
        parts = [self._lines(one, service, text, window, EVENT) for one in self._logs for text in ("", "OOM")]
        heard = _together(await asyncio.gather(*parts))
        return replace(heard, items=tuple({item.statement: item for item in heard.items}.values()))

    async def _traced(self, source: TracesSource, service: ServiceName, window: Window, errors_only: bool) -> Testimony:
        search = source.search(service, window.since, window.until, limit=TRACES, errors_only=errors_only)
        asking = ask(source.name, search, TraceReading, SOURCE_DEADLINE_S)
        reading, entry = await _timed(f"{source.name} traces", service, asking)
        query = f"{source.name}: the slowest {'failed ' if errors_only else ''}traces through {service}"
        items = tuple(of_trace(trace, service, query, window) for trace in reading.traces if trace.spans)
        return Testimony(items, _blind(reading.failures), (entry,))

    async def _kernel(self, source: ActivitySource, service: ServiceName, window: Window) -> Testimony:
        asking = ask(
            source.name, source.activity(service, window.since, window.until), ActivityReading, SOURCE_DEADLINE_S
        )
        reading, entry = await _timed(f"{source.name} activity", service, asking)
        items = tuple(_judged(of_activity(one, source.name, window)) for one in reading.activities[:ACTIVITIES])
        return Testimony(items, _blind(reading.failures), (entry,))

    async def _lines(
        self, source: LogsSource, service: ServiceName, text: str, window: Window, wanted: re.Pattern[str] | None = None
    ) -> Testimony:
        search = source.search(service, text, window.since, window.until, limit=LOG_LINES)
        asking = ask(source.name, search, LogReading, SOURCE_DEADLINE_S)
        reading, entry = await _timed(f"{source.name} logs", service, asking)
        if wanted is not None:
            reading = replace(reading, lines=tuple(line for line in reading.lines if wanted.match(line.text)))
        query = f"{source.name}: {'events' if wanted else 'lines'} of {service}" + (f" with “{text}”" if text else "")
        return Testimony(log_facts(reading, service, query, window, self._redact), _blind(reading.failures), (entry,))


def log_facts(
    reading: LogReading, service: ServiceName, query: str, window: Window, redact: Callable[[str], str]
) -> tuple[Evidence, ...]:
    """The lines of a reading by template, the most frequent first, with the first lines as they stand.

    A line is context: what is unusual in logs is judged by detection, over all lines and time. Only the record of a
    process that was killed for its memory is an event.
    """
    miner, groups = TemplateMiner(max_templates=LOG_LINES), OrderedDict[int, list[LogLine]]()
    for line in reading.lines:
        groups.setdefault(miner.add(line.text).id, []).append(line)
    merged = OrderedDict[int, list[LogLine]]()
    for number, lines in groups.items():
        merged.setdefault(miner.current(number), []).extend(lines)
    often = sorted(merged.items(), key=lambda item: (not KILLED.search(item[1][0].text), -len(item[1])))[:LOG_TEMPLATES]
    least = "at least " if reading.truncated else ""
    facts = []
    for number, lines in often:
        lines.sort(key=lambda line: line.at)
        first, count = lines[0], len(lines)
        said = (
            f"logs of {service}: {least}{count} line{'s' if count != 1 else ''} from {first.at:%H:%M:%S} to"
            f" {lines[-1].at:%H:%M:%S} UTC, such as “{redacted(first.text, LINE_CHARS, redact)}”"
        )
        kept: list[JsonValue] = [
            f"{line.at.isoformat(timespec='seconds')} {line.instance} {redacted(line.text, LINE_CHARS, redact)}"
            for line in lines[:LINES_KEPT]
        ]
        snapshot: dict[str, JsonValue] = {
            "template": redact(miner.template(number) or "")[:500],
            "count": count,
            "lines": kept,
        }
        fact = window.fact("log", said, query, first.instance or service, service)
        facts.append(_judged(replace(fact, began=first.at, value=float(count), snapshot=snapshot)))
    return tuple(facts)


def _judged(fact: Evidence) -> Evidence:
    """An event where it tells of a process killed for its memory."""
    if not KILLED.search(fact.statement):
        return fact
    return replace(fact, sign=Sign.HAPPENED, began=fact.began or fact.window_to)


def _together(parts: Iterable[Testimony]) -> Testimony:
    heard = list(parts)
    return Testimony(
        tuple(item for part in heard for item in part.items),
        tuple(line for part in heard for line in part.blind),
        tuple(entry for part in heard for entry in part.entries),
    )


async def _timed(tool: str, about: str, asking: Awaitable[_Reading]) -> tuple[_Reading, TraceEntry]:
    started = time.monotonic()
    reading = await asking
    latency_ms = round((time.monotonic() - started) * 1000, 1)
    data: dict[str, JsonValue] = {"tool": tool, "about": about, "latency_ms": latency_ms}
    return reading, TraceEntry(TraceKind.TOOL_CALL, f"{tool}({about}): {latency_ms:.0f} ms", data)


def _blind(failures: Iterable[SourceFailure]) -> tuple[str, ...]:
    return tuple(f"{failure.source} gave nothing: {failure.reason}" for failure in failures)
