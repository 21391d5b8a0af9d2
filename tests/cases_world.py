"""A small world on paper: services with load, noise and trouble, written out as the folder of a case.

Times are minutes before the case's ``now`` (so -12 is twelve minutes before); a case's noise hangs on its name alone.
"""

from __future__ import annotations

import json
import math
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import yaml

Effect = Callable[[float, float], float]
"""Of the minute and the value without it, the value with it."""

FINE_MINUTES = 66
"""Of the history, the last part is told every minute where there are changes, which are compared with it."""


def times(begin: float, factor: float, *, rise: float = 2.0, end: float = math.inf, fall: float = 2.0) -> Effect:
    """The value, multiplied: over ``rise`` minutes up to ``factor`` and, from ``end`` on, back in ``fall``."""

    def effect(minute: float, value: float) -> float:
        return value * (1 + (factor - 1) * _share(minute, begin, rise, end, fall))

    return effect


def to(begin: float, level: float, *, rise: float = 0.5, end: float = math.inf, fall: float = 0.5) -> Effect:
    """The value moves to ``level``."""

    def effect(minute: float, value: float) -> float:
        share = _share(minute, begin, rise, end, fall)
        return value * (1 - share) + level * share

    return effect


def climb(begin: float, per_minute: float, top: float) -> Effect:
    """The value grows, up to ``top``."""

    def effect(minute: float, value: float) -> float:
        return value if minute <= begin else max(value, min(value + per_minute * (minute - begin), top))

    return effect


def saw(begin: float, period: float, low: float, high: float) -> Effect:
    """Grows from ``low`` to ``high`` and starts anew, as what is killed at its limit."""

    def effect(minute: float, value: float) -> float:
        return value if minute < begin else low + (high - low) * ((minute - begin) % period) / period

    return effect


def bursts(begin: float, period: float, lasting: float, level: float) -> Effect:
    """At ``level`` for the first minutes of each period."""

    def effect(minute: float, value: float) -> float:
        return level if minute >= begin and (minute - begin) % period < lasting else value

    return effect


def silent(begin: float, end: float = math.inf) -> Effect:
    """Nothing is told any more."""

    def effect(minute: float, value: float) -> float:
        return math.nan if begin <= minute < end else value

    return effect


def daily(swing: float, peak_hour: float) -> Callable[[datetime], float]:
    """How the load of a day goes: 1 on average, ``1 + swing`` at ``peak_hour``."""

    def share(at: datetime) -> float:
        hour = at.hour + at.minute / 60
        return 1 + swing * math.cos(2 * math.pi * (hour - peak_hour) / 24)

    return share


def nightly(hour: float, lasting_min: float, factor: float) -> Callable[[datetime], float]:
    """A job at the same time of every day."""

    def share(at: datetime) -> float:
        minute = at.hour * 60 + at.minute + at.second / 60 - hour * 60
        return factor if 0 <= minute < lasting_min else 1.0

    return share


def _share(minute: float, begin: float, rise: float, end: float, fall: float) -> float:
    if minute < begin:
        return 0.0
    up = min((minute - begin) / rise, 1.0) if rise else 1.0
    return up if minute < end else max(up - (minute - end) / fall, 0.0)


@dataclass
class _Series:
    base: float
    noise: float
    effects: list[Effect] = field(default_factory=list)
    rhythm: Callable[[datetime], float] | None = None
    born: float = -math.inf
    drift: float = 0.0
    """Of the base a minute, all the time: what a certificate and a disk do."""


class World:
    """One case. ``minutes`` are replayed; before them lie ``hours`` of history, or ``days`` where a rhythm matters
    (all day long, or from the first to the last of ``hours_of_day``)."""

    def __init__(
        self,
        name: str,
        title: str,
        *,
        now: str = "2026-10-14T10:40:00Z",
        minutes: float = 18.0,
        hours: float = 3.0,
        days: int = 0,
        hours_of_day: tuple[int, int] | None = None,
        interval_s: float = 30.0,
        notes: str = "",
    ) -> None:
        self._hours_of_day, self._interval_s = hours_of_day, interval_s
        self.name = name
        self._random = np.random.default_rng(zlib.crc32(name.encode()))
        self._now = datetime.fromisoformat(now)
        self._minutes, self._hours, self._days = minutes, hours, days
        self._series: dict[str, _Series] = {}
        self._services: dict[str, dict[str, Any]] = {}
        self._targets: dict[str, Any] = {}
        self._edges: list[tuple[str, str, float]] = []
        self._changes: list[dict[str, Any]] | None = []
        self._lines: list[dict[str, Any]] = []
        self._traces: list[dict[str, Any]] = []
        self._activity: list[dict[str, Any]] = []
        self._case: dict[str, Any] = {"title": title, **({"notes": notes} if notes else {})}
        self.down: dict[str, str] = {}

    def service(
        self,
        name: str,
        *,
        traffic: float = 20.0,
        p99: float = 0.12,
        errors: float = 0.002,
        cpu: float | None = None,
        memory: float | None = None,
        replicas: int = 2,
        tier: int = 2,
        platform: str | None = "kubernetes",
        calls: Sequence[str] = (),
        owner: str = "",
        born: float = -math.inf,
        **more: Any,
    ) -> None:
        """Adds a service with its usual figures. ``born``: since when it reports (minutes before now)."""
        about: dict[str, Any] = {"tier": tier, "owner": owner or f"team-{name}", **more}
        if platform is not None:
            about["target"] = {"platform": platform, "namespace": "shop", "name": name}
            self._targets[name] = {
                "replicas": replicas,
                "replicas_1h_ago": replicas,
                "generation": "7",
                "instances": [{"name": f"{name}-{at + 1}", "ready": True} for at in range(replicas)],
            }
        self._services[name] = about
        self._series[f"{name}/traffic"] = _Series(traffic, 0.035, born=born)
        self._series[f"{name}/latency_p99"] = _Series(p99, 0.05, born=born)
        self._series[f"{name}/error_ratio"] = _Series(errors, 0.0, born=born)
        if cpu is not None:
            self._series[f"{name}/cpu_ratio"] = _Series(cpu, 0.05, born=born)
        for at in range(replicas if memory is not None else 0):
            self._series[f"{name}/memory_ratio/{name}-{at + 1}"] = _Series(
                (memory or 0) * (1 + 0.02 * at), 0.012, born=born
            )
        for callee in calls:
            self._edges.append((name, callee, round(traffic * 0.9, 1)))

    def gauge(self, series: str, base: float, *, noise: float = 0.0, drift: float = 0.0) -> None:
        """Adds a series of its own: a disk, a certificate, a quota."""
        self._series[series] = _Series(base, noise, drift=drift)

    def shape(self, series: str, *effects: Effect) -> None:
        """Bends ``series``, in the order given."""
        self._series[series].effects += effects

    def rhythm(self, share: Callable[[datetime], float], *series: str) -> None:
        for name in series:
            self._series[name].rhythm = share

    def noise(self, series: str, share: float) -> None:
        """How far the values of ``series`` lie from each other, as a share of them."""
        self._series[series].noise = share

    def target(self, service: str, **about: Any) -> None:
        self._targets[service].update(about)

    def change(self, service: str, at: float, kind: str, revision: str, title: str, author: str = "") -> None:
        assert self._changes is not None
        told = {"service": service, "at": self._at(at), "kind": kind, "revision": revision, "title": title}
        self._changes.append({**told, **({"author": author} if author else {})})

    def no_changes(self) -> None:
        """Nothing tells of changes."""
        self._changes = None

    def no_graph(self) -> None:
        self._edges.clear()

    def log(
        self, service: str, text: str, at: float, *, every_s: float | None = None, until: float = 0.0, on: str = ""
    ) -> None:
        line: dict[str, Any] = {"at": self._at(at), "service": service, "text": text}
        if on:
            line["instance"] = on
        if every_s is not None:
            line |= {"every_s": every_s, "until": self._at(until)}
        self._lines.append(line)

    def chatter(self, *services: str, every_s: float = 12.0) -> None:
        """What healthy services write all the time."""
        for service in services:
            self.log(service, "request {n} served with status 200", -self._minutes - 30, every_s=every_s)
            self.log(service, "health check {n} passed", -self._minutes - 29, every_s=30.0)

    def trace(self, at: float, *spans: tuple[str, str, float, bool]) -> None:
        """One request down a chain: (service, operation, seconds, failed), the caller first."""
        number = len(self._traces) + 1
        began = self._now + timedelta(minutes=at)
        told = [
            {
                "span_id": f"{number:02x}{place:02x}",
                "parent_id": f"{number:02x}{place - 1:02x}" if place else "",
                "service": service,
                "operation": operation,
                "started_at": _stamp(began + timedelta(milliseconds=2 * place)),
                "duration_s": seconds,
                "error": failed,
            }
            for place, (service, operation, seconds, failed) in enumerate(spans)
        ]
        self._traces.append({"trace_id": f"{zlib.crc32(self.name.encode()):08x}{number:08x}", "spans": told})

    def kernel(self, service: str, at: float, kind: str, statement: str, value: float, on: str = "") -> None:
        told = {"kind": kind, "service": service, "at": self._at(at), "statement": statement, "value": value}
        self._activity.append({**told, **({"instance": on} if on else {})})

    def alert(self, text: str, name: str = "") -> None:
        self._case["alert"] = {"text": text, **({"name": name} if name else {})}

    def expect(self, conclusion: str, category: str = "", service: str = "", **more: Any) -> None:
        said = {"conclusion": conclusion, "category": category, "service": service, **more}
        self._case["expected"] = {name: value for name, value in said.items() if value != ""}

    def write(self, folder: Path) -> None:
        """Writes the case as ``folder/<name>``; what is there of an earlier run goes."""
        place = folder / self.name
        place.mkdir(parents=True, exist_ok=True)
        for old in place.iterdir():
            old.unlink()
        case = {
            **{name: value for name, value in self._case.items() if name != "expected"},
            "now": _stamp(self._now),
            "begin": self._at(-self._minutes),
            **({"interval_s": self._interval_s} if self._interval_s != 30 else {}),
            "services": self._services,
            **({"down": self.down} if self.down else {}),
            "expected": self._case["expected"],
        }
        (place / "case.yaml").write_text(yaml.safe_dump(case, sort_keys=False, allow_unicode=True, width=110))
        (place / "metrics.csv").write_text(self._table())
        if self._edges:
            rows = [f"{caller},{callee},{rate:g}" for caller, callee, rate in self._edges]
            (place / "edges.csv").write_text("\n".join(["caller,callee,calls_per_s", *rows]) + "\n")
        for name, content in (("target", self._targets), ("changes", self._changes)):
            if content is not None and (content or name == "changes"):
                (place / f"{name}.json").write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n")
        for name, found in (("traces", self._traces), ("activity", self._activity)):
            if found:
                (place / f"{name}.json").write_text(json.dumps(found, indent=1, ensure_ascii=False) + "\n")
        if self._lines:
            text = "\n".join(json.dumps(line, ensure_ascii=False) for line in self._lines)
            (place / "logs.jsonl").write_text(text + "\n")

    def _at(self, minute: float) -> str:
        return _stamp(self._now + timedelta(minutes=minute))

    def _times(self) -> list[float]:
        """Minutes before now of every row."""
        begin = -self._minutes
        if self._hours_of_day is not None:
            every = [float(minute) for minute in np.arange(begin - self._days * 1440, begin, 1.5)]
            first_hour, last_hour = self._hours_of_day
            rows = [at for at in every if first_hour <= (self._now + timedelta(minutes=at)).hour <= last_hour]
            return rows + np.arange(begin, 0.01, self._interval_s / 60).tolist()
        fine = begin - FINE_MINUTES
        first, step = (begin - self._days * 1440, 7.5) if self._days else (begin - self._hours * 60, 4.0)
        rows = np.arange(first, fine, step).tolist() if first < fine else []
        rows += np.arange(fine, begin, 1.0 if self._changes else 2.0).tolist()
        return rows + np.arange(begin, 0.01, self._interval_s / 60).tolist()

    def _table(self) -> str:
        names = list(self._series)
        lines = [",".join(["at", *names])]
        for minute in self._times():
            at = self._now + timedelta(minutes=minute)
            load = {
                name.partition("/")[0]: self._value(series, minute, at, 1.0)
                for name, series in self._series.items()
                if name.endswith("/traffic")
            }
            cells = []
            for name, series in self._series.items():
                service, _, rest = name.partition("/")
                asked = load.get(service, 10.0) * 30
                failing = rest.startswith("error_ratio")
                value = load[service] if rest == "traffic" else self._value(series, minute, at, asked, failing=failing)
                cells.append("" if math.isnan(value) else _figure(value, rest))
            if any(cells):
                lines.append(",".join([_stamp(at), *cells]))
        return "\n".join(lines) + "\n"

    def _value(self, series: _Series, minute: float, at: datetime, asked: float, *, failing: bool = False) -> float:
        noise = float(self._random.normal(0.0, 1.0))
        if minute < series.born:
            return math.nan
        value = series.base * (series.rhythm(at) if series.rhythm else 1.0) + series.drift * minute
        for effect in series.effects:
            value = effect(minute, value)
        if math.isnan(value):
            return value
        if failing:
            requests = max(int(asked if asked == asked else 300), 1)
            return float(self._random.binomial(requests, min(max(value, 0.0), 1.0))) / requests
        return value * math.exp(series.noise * noise)


def _stamp(at: datetime) -> str:
    at = at.astimezone(UTC)
    return at.strftime("%Y-%m-%dT%H:%M:%SZ") if not at.microsecond else at.isoformat().replace("+00:00", "Z")


def _figure(value: float, series: str) -> str:
    """As many digits as somebody would measure."""
    if series.startswith("cert"):
        return f"{value:.0f}"
    if series.startswith("error"):
        return f"{value:.4f}".rstrip("0").rstrip(".")
    if series.startswith(("memory", "disk", "cpu", "quota")):
        return f"{min(value, 1.0):.3f}".rstrip("0").rstrip(".")
    return f"{value:.3g}"
