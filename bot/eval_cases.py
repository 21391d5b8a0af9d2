"""Reading a recorded case: its folder is read whole, or refused with a line a mistake."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from importlib.resources import files
from pathlib import Path

from bot.eval_files import (
    Mistakes,
    parse_series,
    read_edges,
    read_form,
    read_lines,
    read_samples,
    series_name,
)
from bot.eval_forms import ActivityFile, Alert, CaseFile, ChangeFile, Cited, Expected, LineFile, TargetFile, TraceFile
from pipeline.domain.activity import Activity
from pipeline.domain.catalogue import Service
from pipeline.domain.changes import ChangeEvent
from pipeline.domain.diagnosis import Conclusion
from pipeline.domain.errors import ConfigurationError
from pipeline.domain.ids import ServiceName
from pipeline.domain.logs import LogLine
from pipeline.domain.recording import Recording
from pipeline.domain.spans import SpanSummary, Trace
from pipeline.domain.telemetry import Sample, SeriesKey

CASE_FILE = "case.yaml"
FILES = frozenset(
    {
        CASE_FILE,
        "metrics.csv",
        "metrics.csv.gz",
        "edges.csv",
        "changes.json",
        "logs.jsonl",
        "traces.json",
        "activity.json",
        "target.json",
        "README.md",
    }
)
REPLAY = timedelta(minutes=30)
MOST_LINES = 200_000
"""Of logs, repetitions written out."""
MOST_STEPS = 2000


@dataclass(frozen=True, slots=True)
class RecordedCase:
    """A case, ready to be run. Samples and log lines up to ``begin`` are history: baselines are learned from them."""

    id: str
    folder: Path
    title: str
    alert: Alert | None
    begin: datetime
    now: datetime
    interval_s: float
    services: Mapping[ServiceName, Service]
    targets: Mapping[ServiceName, TargetFile]
    recording: Recording
    expected: Expected

    def moments(self) -> Iterator[datetime]:
        """The times of the clock, the last one ``now``."""
        step = timedelta(seconds=self.interval_s)
        at = self.begin + step
        while at < self.now:
            yield at
            at += step
        yield self.now


def shipped_cases() -> Path:
    """The folder of the cases that come with the bot."""
    return Path(str(files("bot"))) / "cases"


def case_folders(folder: Path) -> list[Path]:
    """The cases in ``folder``, which may be one itself. Raises ConfigurationError when there is none."""
    if not folder.is_dir():
        raise ConfigurationError(f"{folder} is no folder: name one that holds cases, a folder each")
    if (folder / CASE_FILE).is_file():
        return [folder]
    found = sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith((".", "__")))
    if not found:
        raise ConfigurationError(f"{folder} holds no case: a case is a folder with a {CASE_FILE}")
    return found


def read_case(folder: Path) -> RecordedCase:
    """Reads one case. Raises ConfigurationError with a line a mistake: file, line, what."""
    mistakes = Mistakes(folder, [])
    if not (folder / CASE_FILE).is_file():
        mistakes.add(CASE_FILE, 0, "is missing")
        mistakes.raise_any()
    for path in sorted(folder.iterdir()):
        if path.name not in FILES and not path.name.startswith("."):
            mistakes.add(path.name, 0, f"no file of a case; there are {', '.join(sorted(FILES))}")
    file: CaseFile | None = read_form(folder / CASE_FILE, CaseFile, mistakes)
    samples = _samples(folder, mistakes)
    recording = Recording(
        samples=samples,
        edges=read_edges(folder / "edges.csv", mistakes) if (folder / "edges.csv").is_file() else None,
        lines=_lines(folder / "logs.jsonl", mistakes),
        traces=_traces(folder / "traces.json", mistakes),
        changes=_changes(folder / "changes.json", mistakes),
        activities=_activities(folder / "activity.json", mistakes),
        down=file.down if file is not None else {},
    )
    targets: Mapping[str, TargetFile] = {}
    if (folder / "target.json").is_file():
        targets = read_form(folder / "target.json", Mapping[str, TargetFile], mistakes) or {}
    mistakes.raise_any()
    assert file is not None
    begin = file.begin or file.now - REPLAY
    _check(file, begin, recording, mistakes)
    mistakes.raise_any()
    return RecordedCase(
        id=file.id or folder.name,
        folder=folder,
        title=file.title,
        alert=file.alert,
        begin=begin,
        now=file.now,
        interval_s=file.interval_s,
        services={ServiceName(name): service for name, service in file.services.items()},
        targets={ServiceName(name): target for name, target in targets.items()},
        recording=recording,
        expected=file.expected,
    )


def _samples(folder: Path, mistakes: Mistakes) -> list[Sample]:
    found: list[Sample] = []
    for name in ("metrics.csv", "metrics.csv.gz"):
        if (folder / name).is_file():
            found += read_samples(folder / name, mistakes)
    return sorted(found, key=lambda sample: sample.at)


def _lines(path: Path, mistakes: Mistakes) -> tuple[LogLine, ...] | None:
    if not path.is_file():
        return None
    found: list[LogLine] = []
    for number, line in read_lines(path, LineFile, mistakes):
        if (line.every_s is None) is not (line.until is None) or (line.until is not None and line.until < line.at):
            mistakes.add(path.name, number, "every_s and until go together, and until is later than at")
            continue
        step = timedelta(seconds=line.every_s or 1.0)
        count = int((line.until - line.at) / step) + 1 if line.until is not None else 1
        if len(found) + count > MOST_LINES:
            mistakes.add(path.name, number, f"more than {MOST_LINES} lines in all")
            return ()
        found += [
            LogLine(
                line.at + at * step, ServiceName(line.service), line.text.replace("{n}", str(at + 1)), line.instance
            )
            for at in range(count)
        ]
    return tuple(sorted(found, key=lambda line: line.at))


def _changes(path: Path, mistakes: Mistakes) -> tuple[ChangeEvent, ...] | None:
    if not path.is_file():
        return None
    told: tuple[ChangeFile, ...] = read_form(path, tuple[ChangeFile, ...], mistakes) or ()
    found = [
        ChangeEvent(ServiceName(one.service), one.at, one.kind, one.revision, one.title, one.author) for one in told
    ]
    return tuple(sorted(found, key=lambda change: change.at))


def _traces(path: Path, mistakes: Mistakes) -> tuple[Trace, ...] | None:
    if not path.is_file():
        return None
    told: tuple[TraceFile, ...] = read_form(path, tuple[TraceFile, ...], mistakes) or ()
    return tuple(
        Trace(
            one.trace_id,
            tuple(
                SpanSummary(
                    span.span_id,
                    span.parent_id,
                    ServiceName(span.service),
                    span.operation,
                    span.started_at,
                    span.duration_s,
                    span.error,
                )
                for span in sorted(one.spans, key=lambda span: span.started_at)
            ),
        )
        for one in told
    )


def _activities(path: Path, mistakes: Mistakes) -> tuple[Activity, ...] | None:
    if not path.is_file():
        return None
    told: tuple[ActivityFile, ...] = read_form(path, tuple[ActivityFile, ...], mistakes) or ()
    return tuple(
        Activity(one.kind, ServiceName(one.service), one.instance, one.at, one.statement, one.value) for one in told
    )


def _check(file: CaseFile, begin: datetime, recording: Recording, mistakes: Mistakes) -> None:
    """What one file cannot tell: the times and the names fit together."""

    def wrong(what: str) -> None:
        mistakes.add(CASE_FILE, 0, what)

    if begin >= file.now:
        wrong("begin must be earlier than now")
    elif (file.now - begin).total_seconds() > MOST_STEPS * file.interval_s:
        wrong(f"from begin to now are more than {MOST_STEPS} steps of interval_s")
    if not any(begin < sample.at <= file.now for sample in recording.samples) and "metrics" not in file.down:
        wrong("metrics.csv has no sample between begin and now (and down does not say that metrics are)")
    expected = file.expected
    if expected.conclusion is Conclusion.CAUSE and not expected.causes:
        wrong("expected: a cause needs a category and a service")
    if expected.conclusion is Conclusion.HEALTHY and (expected.category or expected.service or expected.also):
        wrong("expected: what is healthy has no category, service or other causes")
    series = {sample.key for sample in recording.samples}
    known = {key.service for key in series} | set(file.services)
    known |= {name for edge in recording.edges or () for name in (edge.caller, edge.callee)}
    named = [cause.service for cause in expected.causes] + list(expected.acceptable.services)
    for service in dict.fromkeys([*named, expected.service]):
        if service and service not in known:
            wrong(f"expected: no service {service} is in services, metrics.csv or edges.csv")
    for cited in expected.evidence:
        if problem := _uncited(cited, series, recording):
            wrong(f"expected.evidence: {problem}")


def _uncited(cited: Cited, series: set[SeriesKey], recording: Recording) -> str:
    """Why this evidence cannot be cited by anybody; empty when it can."""
    said = [text for text in (cited.series, cited.change, cited.log, cited.kind) if text]
    if len(said) != 1:
        return "each entry has one of series, change, log and kind"
    if cited.series:
        try:
            key = parse_series(cited.series)
        except ValueError as error:
            return str(error)
        same = [one for one in series if (one.service, one.signal) == (key.service, key.signal)]
        mine = same if not key.instance else [one for one in same if one == key]
        return "" if mine else f"metrics.csv has no series {series_name(key)}"
    if cited.change:
        there = any(one.revision.startswith(cited.change) for one in recording.changes or ())
        return "" if there else f"changes.json has no change {cited.change}"
    if cited.log:
        there = any(cited.log.lower() in line.text.lower() for line in recording.lines or ())
        return "" if there else f"no line of logs.jsonl contains {cited.log[:60]!r}"
    return ""
