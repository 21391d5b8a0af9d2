"""Log templates: lines a second and grouping, beside a plain Drain, on lines of our own making."""

from __future__ import annotations

import random
import re
import uuid
from collections.abc import Callable, Sequence
from time import process_time

from pipeline.domain.detection.logs import LogDetector
from pipeline.domain.detection.templates import TemplateMiner, mine

LINES = 100_000
GROUPED_LINES = 8_000
DRAIN_LINES = 20_000

STATEMENTS = (
    "accepted connection from {ip}:{n} on listener {n}",
    "connection from {ip}:{n} closed after {f} seconds, {n} bytes ({f} KB) sent, {n} bytes received",
    'served "GET /api/v1/orders/{hex}/items HTTP/1.1" status: {n} len: {n} time: {f}',
    'served "POST /api/v1/orders HTTP/1.1" status: {n} len: {n} time: {f}',
    "[request {uuid}] charged card ending {n} for tenant {tenant} in {n} ms",
    "[request {uuid}] refused card ending {n} for tenant {tenant}: limit of {n} reached",
    "cache region={tenant} hits={n} misses={n} ratio={f}",
    "replica db-{n} lags {n} ms behind leader at {ip}",
    "worker {n} moved from state RUNNING to state DRAINING",
    "worker {n} moved from state DRAINING to state STOPPED",
    "worker {n} moved from state STARTING to state RUNNING",
    "session opened for user {user} by (uid={n})",
    "session closed for user {user}",
    "authentication failure; logname= uid={n} tty=ssh ruser= rhost={host}",
    "feature checkout-v2 is now enabled: true",
    "feature checkout-v2 is now enabled: false",
    "wrote snapshot /var/lib/store/{hex}/part-{n}.bin at {date}",
    "java.net.SocketTimeoutException: read of {host}:{n} timed out after {n}ms",
    "gc pause of {f} ms, heap {n}M->{n}M({n}M)",
    "garbage collection of region {hex} skipped",
)
TENANTS = ("acme", "globex", "initech", "umbrella", "hooli", "stark", "wayne", "wonka")
USERS = ("root", "deploy", "backup", "postgres", "anna", "bob")


def run() -> None:
    """Prints throughput of the miner and of the whole detector, and the grouping accuracy, each beside plain Drain."""
    lines = [line for _, line in written(LINES, seed=1)]
    ours = _rate(lines, TemplateMiner().add)
    drain = PlainDrain()
    plain = _rate(lines[:DRAIN_LINES], drain.add)
    print(f"templates: {ours:,.0f} lines/s of one core, plain Drain {plain:,.0f} ({LINES:,} lines)")
    detector = LogDetector()
    start = process_time()
    for number, line in enumerate(lines):
        detector.update(number / 100.0, "shop", line)
    print(f"log detector: {len(lines) / (process_time() - start):,.0f} lines/s of one core")
    known = written(GROUPED_LINES, seed=2)
    truth = [statement for statement, _ in known]
    found = grouping_accuracy(truth, [match.id for match in mine(line for _, line in known)])
    fresh = PlainDrain()
    theirs = grouping_accuracy(truth, [fresh.add(line) for _, line in known])
    print(
        f"templates: grouping accuracy {found:.3f}, plain Drain {theirs:.3f} (own generator, {GROUPED_LINES:,} lines)"
    )


def grouping_accuracy(truth: Sequence[int], found: Sequence[int]) -> float:
    """The share of lines whose group is exactly the true one (Zhu et al., ICSE-SEIP 2019)."""
    by_truth: dict[int, set[int]] = {}
    by_found: dict[int, set[int]] = {}
    for line, (true, own) in enumerate(zip(truth, found, strict=True)):
        by_truth.setdefault(true, set()).add(line)
        by_found.setdefault(own, set()).add(line)
    return sum(len(group) for group in by_found.values() if group == by_truth[truth[min(group)]]) / len(truth)


def written(count: int, seed: int) -> list[tuple[int, str]]:
    """Lines with the number of the statement that wrote each."""
    rng = random.Random(seed)

    def value(match: re.Match[str]) -> str:
        kind = match.group(1)
        if kind == "ip":
            return ".".join(str(rng.randrange(256)) for _ in range(4))
        if kind == "hex":
            return f"{rng.getrandbits(64):016x}"
        if kind == "uuid":
            return str(uuid.UUID(int=rng.getrandbits(128)))
        if kind == "f":
            return f"{rng.expovariate(0.1):.3f}"
        if kind == "host":
            return rng.choice((f"node-{rng.randrange(99)}.example.net", "ns.example.org", "10.0.0.7"))
        if kind == "date":
            return f"Thu Jul {rng.randrange(1, 30):2d} {rng.randrange(24):02d}:{rng.randrange(60):02d}:07 2025"
        if kind in ("tenant", "user"):
            return rng.choice(TENANTS if kind == "tenant" else USERS)
        return str(rng.randrange(10 ** rng.randrange(1, 7)))

    made = []
    for _ in range(count):
        statement = min(int(rng.expovariate(0.15)), len(STATEMENTS) - 1)
        made.append((statement, re.sub(r"\{(\w+)\}", value, STATEMENTS[statement])))
    return made


class PlainDrain:
    """The published algorithm in its plainest form: usual masks, then length, first word, similarity 0.4."""

    MASKS = tuple(
        re.compile(pattern)
        for pattern in (
            r"\d+\.\d+\.\d+\.\d+(:\d+)?",
            r"\b[0-9a-f]{8}-[0-9a-f-]{27}\b",
            r"\b[0-9a-f]{16,}\b",
            r"\b\d+\b",
        )
    )

    def __init__(self) -> None:
        self._leaves: dict[tuple[int, str], list[tuple[int, list[str]]]] = {}
        self._count = 0

    def add(self, line: str) -> int:
        for mask in self.MASKS:
            line = mask.sub("<*>", line)
        tokens = line.split()
        first = tokens[0] if tokens and not any(map(str.isdigit, tokens[0])) else "<*>"
        leaf = self._leaves.setdefault((len(tokens), first), [])
        best, best_share = None, 0.0
        for entry in leaf:
            same = sum(left == right for left, right in zip(entry[1], tokens, strict=True))
            share = same / max(1, len(tokens))
            if share > best_share:
                best, best_share = entry, share
        if best is None or best_share < 0.4:
            self._count += 1
            leaf.append((self._count, tokens))
            return self._count
        for place, token in enumerate(tokens):
            if best[1][place] != token:
                best[1][place] = "<*>"
        return best[0]


def _rate(lines: Sequence[str], add: Callable[[str], object]) -> float:
    start = process_time()
    for line in lines:
        add(line)
    return len(lines) / (process_time() - start)
