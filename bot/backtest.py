"""`sre-bot backtest`: runs the detectors over history, row by row, and says how they would have paged."""

from __future__ import annotations

import re
import sys
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from math import isfinite, isnan
from pathlib import Path

import numpy as np
import numpy.typing as npt

from bot.backtest_csv import History, epoch_s, history, print_rows, read_history, read_labels, write_rows
from bot.backtest_plot import Picture, draw
from pipeline.domain.detection.capacity import CapacityDetector
from pipeline.domain.detection.fleet import SeriesDetector
from pipeline.domain.detection.kinds import SeriesKind
from pipeline.domain.detection.pages import DAY_S, Interval, Page, Quality, judge, pages, pooled
from pipeline.domain.errors import ConfigurationError, PermanentError, SreBotError

FloatArray = npt.NDArray[np.float64]
Say = Callable[[str], None]
HistorySeries = tuple[Mapping[str, str], FloatArray, FloatArray]
"""A series' labels, epoch seconds (n,) and values (n,)."""
QueryRange = Callable[[str, datetime, datetime, timedelta], Awaitable[Sequence[HistorySeries]]]
"""Asks Prometheus: query, start, end, step."""

EVENTS_SHOWN = 20
FORESEEN_S = 24 * 3600.0
"""A page foresaw a breach when it came at most this long before it."""
BREACH_GAP_S = 6 * 3600.0
"""Values past the limit no further apart than this are one breach."""
WRONG_INPUT = 2
"""Exit code, as of the other commands."""


@dataclass(frozen=True, slots=True)
class Options:
    """What the command line says. ``out`` and ``plot`` are files; folders when there are several series."""

    kind: str = SeriesKind.GENERIC.value
    period_s: float | None = None
    out: Path | None = None
    plot: Path | None = None
    labels: Path | None = None
    capacity: bool = False
    limit: float | None = None
    falling: bool | None = None
    """Whether the limit is below; None: it is when the series begins far above it."""


@dataclass(frozen=True, slots=True)
class _Told:
    """What a detector said of each row, and where it goes."""

    header: tuple[str, ...]
    columns: tuple[Sequence[object], ...]
    scores: FloatArray
    flags: npt.NDArray[np.bool_]


def backtest(files: Sequence[Path], options: Options, say: Say, complain: Say) -> int:
    """Runs over ``files``, each a series. The exit code: 0, or 2 when anything was wrong, told by ``complain``.

    A wrong option stops everything before anything is read; a wrong file leaves the others to be done.
    """
    try:
        _check(options)
        if not files:
            raise ConfigurationError("name a CSV file, or --prometheus QUERY with --start and --end")
        names = [path.name.removesuffix(".gz") for path in files]
        targets = _targets(files, names, options)
    except SreBotError as error:
        complain(str(error))
        return WRONG_INPUT
    code = 0
    qualities: list[Quality] = []
    for path, (out, plot) in zip(files, targets, strict=True):
        try:
            qualities += _one(read_history(path), options, _labels_of(path, options), out, plot, say, complain)
        except SreBotError as error:
            complain(str(error))
            code = WRONG_INPUT
    if len(qualities) > 1:
        say(f"all {len(qualities)} series: {_in_words(pooled(qualities))}")
    return code


async def backtest_query(
    query: str, start: str, end: str, step_s: float, options: Options, query_range: QueryRange, say: Say, complain: Say
) -> int:
    """As `backtest`, over every series of ``query`` between ``start`` and ``end`` (ISO 8601 or epoch seconds)."""
    try:
        _check(options)
        since, until = _moment("--start", start), _moment("--end", end)
        if until <= since:
            raise ConfigurationError("--end must be later than --start")
        if not (isfinite(step_s) and step_s > 0):
            raise ConfigurationError(f"--step must be a number of seconds above 0, not {step_s}")
        found = await query_range(query, since, until, timedelta(seconds=step_s))
        if not found:
            raise PermanentError(f"Prometheus has no series for {query} in that time")
        names = [_slug(labels) for labels, _, _ in found]
        names = [f"{name}-{at + 1}.csv" if names.count(name) > 1 else f"{name}.csv" for at, name in enumerate(names)]
        targets = _targets([], names, options)
        labels = read_labels(options.labels) if options.labels is not None else None
        qualities: list[Quality] = []
        for (_, ts, values), name, (out, plot) in zip(found, names, targets, strict=True):
            stamps = [_moment_of(at) for at in ts.tolist()]
            rows = history(name.removesuffix(".csv"), stamps, [repr(value) for value in values.tolist()], ts, values)
            qualities += _one(rows, options, labels, out, plot, say, complain)
    except SreBotError as error:
        complain(str(error))
        return WRONG_INPUT
    if len(qualities) > 1:
        say(f"all {len(qualities)} series: {_in_words(pooled(qualities))}")
    return 0


def _check(options: Options) -> None:
    kinds = [kind.value for kind in SeriesKind]
    if options.kind not in kinds:
        raise ConfigurationError(f"--kind {options.kind} is not known: one of {', '.join(kinds)}")
    if options.period_s is not None and not (isfinite(options.period_s) and options.period_s > 0):
        raise ConfigurationError(f"--period-s must be a number of seconds above 0, not {options.period_s}")
    if options.capacity and options.limit is None:
        raise ConfigurationError("--capacity needs --limit V: the value at which the series is full")
    if not options.capacity and options.limit is not None:
        raise ConfigurationError("--limit goes with --capacity")
    if options.limit is not None and not isfinite(options.limit):
        raise ConfigurationError(f"--limit must be a finite number, not {options.limit}")


def _targets(files: Sequence[Path], names: Sequence[str], options: Options) -> list[tuple[Path | None, Path | None]]:
    """Where the scores and the picture of each series go; checked before any work is done."""
    if len(names) > 1:
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice and (options.out or options.plot):
            raise ConfigurationError(f"two files are named {twice[0]}: their results would have the same name")
    outs = _places("--out", options.out, names)
    plots = _places("--plot", options.plot, [f"{Path(name).stem}.png" for name in names])
    inputs = {path.resolve() for path in files}
    for place in (*outs, *plots):
        if place is not None and place.resolve() in inputs:
            raise ConfigurationError(f"{place} is an input: name another place for the results")
    return list(zip(outs, plots, strict=True))


def _places(option: str, place: Path | None, names: Sequence[str]) -> Sequence[Path | None]:
    if place is None:
        return [None] * len(names)
    try:
        if len(names) > 1:
            place.mkdir(parents=True, exist_ok=True)
        if place.is_dir():
            return [place / name for name in names]
        if not place.parent.is_dir():
            raise ConfigurationError(f"{option} {place} cannot be written: there is no folder {place.parent}")
    except OSError as error:
        said = (
            "it is a file, and several series need a folder" if isinstance(error, FileExistsError) else error.strerror
        )
        raise ConfigurationError(f"{option} {place} cannot be written: {said}") from None
    return [place]


def _labels_of(path: Path, options: Options) -> list[Interval] | None:
    """The labelled events of one file: the labels file, or the file of the same name in the labels folder."""
    if options.labels is None:
        return None
    if options.labels.is_dir():
        own = options.labels / path.name
        return read_labels(own) if own.exists() else []  # a series without events: every page is a false one
    return read_labels(options.labels)


def _one(
    rows: History,
    options: Options,
    labels: list[Interval] | None,
    out: Path | None,
    plot: Path | None,
    say: Say,
    complain: Say,
) -> list[Quality]:
    """Runs over one series; how good its pages were, if that can be known."""
    falling = options.limit is not None and _falls(rows, options.limit, options.falling)
    told = _foretold(rows, options.limit, falling) if options.limit is not None else _scored(rows, options)
    header, columns = ("timestamp", "value", *told.header), (rows.stamps, rows.texts, *told.columns)
    if out is not None:
        write_rows(out, header, columns)
    elif options.capacity:  # the forecast is what was asked for: it goes to the output, what is said beside it
        print_rows(sys.stdout, header, columns)
        say = complain
    in_order = ~rows.late
    ts, values, scores = rows.ts[in_order], rows.values[in_order], told.scores[in_order]
    found = pages(ts, told.flags[in_order])
    days = float(ts[-1] - ts[0]) / DAY_S
    period = options.period_s or (float(np.median(np.diff(ts))) if len(ts) > 1 else 0.0)
    sent = len(found) if options.capacity else sum(len(page.sent) for page in found)
    kind = f"limit {options.limit:g}{' (below)' if falling else ''}" if options.limit is not None else options.kind
    say(f"{rows.name}: {len(rows.ts)} rows, {days:.2f} days, a sample every {period:g} s, {kind}")
    say(f"  {sent} pages, {sent / days:.2f} a day, {len(found)} events" if days else f"  {sent} pages")
    _say_passed_over(rows, say)
    for page in found[:EVENTS_SHOWN]:
        say(f"  {_event(page, ts, values, scores, capacity=options.capacity)}")
    if len(found) > EVENTS_SHOWN:
        say(f"  and {len(found) - EVENTS_SHOWN} more events")
    if options.limit is not None:
        breaches = labels if labels is not None else _breaches(ts, values, options.limit, falling)
        quality: Quality | None = _foreseen(found, breaches, ts)
    else:
        quality = judge(found, labels, since=float(ts[0]), until=float(ts[-1])) if labels is not None else None
    if quality is not None:
        say(f"  {_in_words(quality)}" if not options.capacity else f"  {_leads_in_words(quality)}")
    if plot is not None:
        picture = Picture(
            title=rows.name,
            ts=ts,
            values=values,
            below=scores / 3600.0 if options.capacity else scores,
            below_title="hours left" if options.capacity else "score",
            flagged=[(page.start, page.end) for page in found],
            labels=labels or [],
            limit=options.limit,
        )
        draw(picture, plot)
    return [quality] if quality is not None else []


def _scored(rows: History, options: Options) -> _Told:
    """Scores each row from it and the rows before it; rows without a value, and late ones, score 0."""
    scores = np.zeros(len(rows.ts))
    flags = np.zeros(len(rows.ts), dtype=np.bool_)
    judged = np.flatnonzero(np.isfinite(rows.values) & ~rows.late)
    detector = SeriesDetector(options.kind, options.period_s)
    scores[judged], flags[judged] = detector.replay(rows.ts[judged], rows.values[judged])
    texts = [f"{score:.6f}" for score in scores.tolist()]
    return _Told(("score", "anomaly"), (texts, ["1" if flag else "0" for flag in flags.tolist()]), scores, flags)


def _foretold(rows: History, limit: float, falling: bool) -> _Told:
    """The forecast after each row. A row that is passed over shows the forecast as it stands."""
    detector = CapacityDetector(limit, falling=falling)
    etas = np.full((3, len(rows.ts)), np.nan)
    flags = np.zeros(len(rows.ts), dtype=np.bool_)
    for row, (ts, value) in enumerate(zip(rows.ts.tolist(), rows.values.tolist(), strict=True)):
        said = detector.update(ts, value)
        flags[row] = said.page
        if said.eta_s is not None:
            etas[:, row] = said.eta_s, said.low_s, said.high_s
    texts = [["" if isnan(eta) else f"{eta:.0f}" for eta in line] for line in etas.tolist()]
    page = ["1" if flag else "0" for flag in flags.tolist()]
    return _Told(("eta_s", "page", "eta_low_s", "eta_high_s"), (texts[0], page, texts[1], texts[2]), etas[0], flags)


def _falls(rows: History, limit: float, said: bool | None) -> bool:
    """Whether the limit lies below. Told by the first value alone: no row is judged by later ones."""
    if said is not None:
        return said
    known = rows.values[np.isfinite(rows.values)]
    return len(known) > 0 and bool(known[0] > limit + 0.2 * abs(limit))


def _breaches(ts: FloatArray, values: FloatArray, limit: float, falling: bool) -> list[Interval]:
    past = ts[values <= limit] if falling else ts[values >= limit]
    if len(past) == 0:
        return []
    cuts = np.flatnonzero(np.diff(past) > BREACH_GAP_S)
    starts, ends = np.concatenate((past[:1], past[cuts + 1])), np.concatenate((past[cuts], past[-1:]))
    return list(zip(starts.tolist(), ends.tolist(), strict=True))


def _foreseen(found: Sequence[Page], breaches: Sequence[Interval], ts: FloatArray) -> Quality:
    """How the pages met the breaches; ``delays_s`` holds how long before each breach the page came."""

    def meets(page: Page, breach: Interval) -> bool:
        return page.start <= breach[1] and breach[0] <= max(page.start + FORESEEN_S, page.end)

    leads = [
        max(breach[0] - page.start for page in found if meets(page, breach))
        for breach in breaches
        if any(meets(page, breach) for page in found)
    ]
    return Quality(
        sent=len(found),
        true=sum(any(meets(page, breach) for breach in breaches) for page in found),
        events=len(breaches),
        touched=len(leads),
        days=float(ts[-1] - ts[0]) / DAY_S,
        delays_s=tuple(leads),
    )


def _say_passed_over(rows: History, say: Say) -> None:
    unknown, late = int(np.isnan(rows.values).sum()), int(rows.late.sum())
    parts = [
        (unknown, "without a value"),
        (rows.duplicates, "with the time of the row before"),
        (late - rows.duplicates, "out of order"),
    ]
    counted = [f"{count} {what}" for count, what in parts if count]
    if counted:
        say(f"  rows not judged: {', '.join(counted)}")


def _event(page: Page, ts: FloatArray, values: FloatArray, scores: FloatArray, *, capacity: bool) -> str:
    inside = slice(int(np.searchsorted(ts, page.start)), int(np.searchsorted(ts, page.end, side="right")))
    when = f"{_moment_of(page.start)} to {_moment_of(page.end)} ({_long(page.end - page.start)})"
    if capacity:
        eta = float(scores[inside][0])
        ahead = "no time left" if eta == 0 else f"breach foreseen in {_long(eta)}" if isfinite(eta) else "breach near"
        return f"{when}: {ahead}, value {values[inside][0]:g}"
    worst = int(np.nanargmax(scores[inside]))
    return f"{when}: peak score {scores[inside][worst]:.3f} at value {values[inside][worst]:g}"


def _in_words(quality: Quality) -> str:
    delay = "" if isnan(quality.delay_s) else f", median delay {_long(quality.delay_s)}"
    return (
        f"{quality.touched} of {quality.events} labelled events met, precision {_share(quality.precision)}, "
        f"recall {_share(quality.recall)}, F1 {_share(quality.f1)}{delay}, "
        f"{quality.false_pages_per_day:.3f} false pages a day"
    )


def _leads_in_words(quality: Quality) -> str:
    if not quality.events and not quality.sent:
        return "the limit was not met, and nothing was paged"
    lead = "" if isnan(quality.delay_s) else f", median {_long(quality.delay_s)} before"
    return (
        f"{quality.touched} of {quality.events} breaches paged for{lead}, precision {_share(quality.precision)}, "
        f"recall {_share(quality.recall)}, F1 {_share(quality.f1)}"
    )


def _share(share: float) -> str:
    return "-" if isnan(share) else f"{share:.3f}"


def _long(seconds: float) -> str:
    for unit, name in ((DAY_S, "d"), (3600.0, "h"), (60.0, "min")):
        if abs(seconds) >= 2 * unit:
            return f"{seconds / unit:.1f} {name}"
    return f"{seconds:.0f} s"


def _moment_of(ts: float) -> str:
    at = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(seconds=ts)
    return at.isoformat(timespec="milliseconds" if at.microsecond else "seconds").replace("+00:00", "Z")


def _moment(option: str, text: str) -> datetime:
    try:
        return datetime(1970, 1, 1, tzinfo=UTC) + timedelta(seconds=epoch_s(text))
    except ValueError as error:
        raise ConfigurationError(f"{option}: {error}") from None


def _slug(labels: Mapping[str, str]) -> str:
    """A file name of a series' labels."""
    parts = [labels.get("__name__", ""), *(value for key, value in sorted(labels.items()) if key != "__name__")]
    return re.sub(r"[^A-Za-z0-9_.=-]+", "_", "-".join(part for part in parts if part))[:120] or "series"
