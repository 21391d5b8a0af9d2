"""How the world detector pages in made-up worlds: ``python -m tests.bench.worlds [seed …]``.

A page is true when it was sent during a fault (or ``AFTER_MIN`` after it) and names a service of that fault: its root,
or one that calls it or is called by it over any number of hops. Recall counts faults that met a page. Right means that
the first page of a met fault names its kind and its root.
"""

from __future__ import annotations

import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from datetime import UTC, datetime

from pipeline.domain.changes import ChangeEvent, ChangeKind
from pipeline.domain.detection.world import Page, WorldDetector
from pipeline.domain.ids import ServiceName
from tests.bench.worlds_sim import DAY, START, Fault, World, make_world

HELD_OUT = (201, 202, 203)
AFTER_MIN = 15
BEFORE_MIN = 3


@dataclass(slots=True)
class Score:
    """Counts over one or several worlds."""

    pages: int = 0
    true: int = 0
    faults: int = 0
    met: int = 0
    right_first: int = 0
    right_last: int = 0
    pages_of_met: int = 0
    days: float = 0.0
    delays_min: list[int] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def f1(self) -> float:
        precision = self.true / self.pages if self.pages else 0.0
        recall = self.met / self.faults if self.faults else 0.0
        return 2 * precision * recall / (precision + recall) if precision + recall else 0.0

    def line(self) -> str:
        delay = sorted(self.delays_min)[len(self.delays_min) // 2] if self.delays_min else 0
        return (
            f"F1 {self.f1:.3f} (precision {self.true}/{self.pages}, recall {self.met}/{self.faults}),"
            f" right kind and root {self.right_first / max(self.met, 1):.3f} at first,"
            f" {self.right_last / max(self.met, 1):.3f} in the end,"
            f" {self.pages_of_met / max(self.met, 1):.2f} pages an incident,"
            f" {(self.pages - self.true) / max(self.days, 1e-9):.2f} false pages a day, median delay {delay} min"
        )


def replay(world: World, detector: WorldDetector) -> list[Page]:
    """Every page the detector sends over the whole world, history included."""
    series = [
        (service, name, values.tolist()) for service, named in world.metrics.items() for name, values in named.items()
    ]
    changes: dict[int, list[ChangeEvent]] = {}
    for one in world.deployments:
        at = datetime.fromtimestamp(START + one.minute * 60.0, UTC)
        event = ChangeEvent(ServiceName(one.service), at, ChangeKind.DEPLOYMENT, one.revision, "release")
        changes.setdefault(one.minute, []).append(event)
    pages: list[Page] = []
    for minute in range(world.minutes):
        metrics: dict[str, dict[str, float]] = {service: {} for service in world.metrics}
        for service, name, values in series:
            value = values[minute]
            if value == value:
                metrics[service][name] = value
        pages += detector.step(START + minute * 60.0, metrics, changes.get(minute, ()))
    return pages


def score(world: World, pages: list[Page]) -> Score:
    """Judges the pages of the scored part."""
    found = Score(days=(world.minutes - world.scored_from) / DAY)
    faults = [fault for fault in world.faults if fault.start >= world.scored_from]
    found.faults = len(faults)
    mine: dict[Fault, list[Page]] = {fault: [] for fault in faults}
    related = {fault: _related(world, fault.service) for fault in world.faults}
    for page in pages:
        minute = round((page.ts - START) / 60)
        if minute < world.scored_from:
            continue
        found.pages += 1
        near = [f for f in world.faults if f.start - BEFORE_MIN <= minute <= f.end + AFTER_MIN]
        met = [fault for fault in near if page.service in related[fault]]
        found.true += bool(met)
        for fault in met:
            mine.get(fault, []).append(page)
        if not met:
            found.notes.append(f"FALSE  {_clock(minute)} {page.kind.value} {page.service}: {page.title}")
    for fault, sent in mine.items():
        said = f"{_clock(fault.start)} {fault.kind} {fault.service} {fault.note} ({fault.end - fault.start} min)"
        if not sent:
            found.notes.append(f"MISSED {said}")
            continue
        found.met += 1
        found.pages_of_met += len(sent)
        found.delays_min.append(round((sent[0].ts - START) / 60) - fault.start)
        right = [(page.kind.value, page.service) == (fault.kind, fault.service) for page in sent]
        found.right_first += right[0]
        found.right_last += right[-1]
        if not right[0] or len(sent) > 1:
            told = "; ".join(f"{_clock(round((p.ts - START) / 60))} {p.kind.value} {p.service}" for p in sent)
            found.notes.append(f"{'SEVERAL' if right[0] else 'WRONG '} {said}: {told}")
    return found


def add(total: Score, one: Score) -> None:
    """Pools ``one`` into ``total``."""
    for name in ("pages", "true", "faults", "met", "right_first", "right_last", "pages_of_met", "days"):
        setattr(total, name, getattr(total, name) + getattr(one, name))
    total.delays_min += one.delays_min
    total.notes += one.notes


def run(
    seeds: tuple[int, ...] = HELD_OUT, *, notes: bool = False, history_days: int = 14, scored_days: int = 7
) -> None:
    """Prints a line a world and one for all of them."""
    total = Score()
    for seed in seeds:
        world = make_world(seed, history_days=history_days, scored_days=scored_days)
        detector = WorldDetector(edges=world.edges)
        started = time.perf_counter()
        one = score(world, replay(world, detector))
        took_s = time.perf_counter() - started
        print(f"world {seed}: {one.line()}; {1000 * took_s / world.minutes:.2f} ms a step", flush=True)
        if notes:
            print(*one.notes, sep="\n")
        add(total, one)
    print(f"{len(seeds)} worlds: {total.line()}")
    if notes:
        print(Counter(note.split()[0] for note in total.notes))


def _related(world: World, service: str) -> set[str]:
    found = {service}
    for here, there in ((0, 1), (1, 0)):
        frontier = [service]
        while frontier:
            at = frontier.pop()
            for edge in world.edges:
                if edge[here] == at and edge[there] not in found:
                    found.add(edge[there])
                    frontier.append(edge[there])
    return found


def _clock(minute: int) -> str:
    return f"d{minute // DAY} {minute % DAY // 60:02d}:{minute % 60:02d}"


if __name__ == "__main__":
    run(tuple(int(word) for word in sys.argv[1:]) or HELD_OUT, notes=True)
