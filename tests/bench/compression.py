"""Choosing lines against cutting the text off: what each keeps of the lines that matter, and how long it takes.

Contexts of 200 kB are made by chance: log lines of several services, with a few that tell the cause at random places.
The named baseline keeps the head of each item, its share of the same budget.
"""

from __future__ import annotations

import random
import statistics
from time import perf_counter, process_time

from knowledge_base.compress import Item, compress, tokens

CASES = 30
BUDGET_TOKENS = 6000
CONTEXT_CHARS = 200_000
ITEMS = 12
_SERVICES = ("checkout", "cart", "payments", "search", "gateway", "inventory", "mail", "quotes")
_ORDINARY = (
    "{t} INFO {s} handled GET /api/v1/items/{n} in {m} ms status=200 trace={h}",
    "{t} DEBUG {s} cache hit for key user:{n}:basket ttl={m}",
    "{t} INFO {s} scheduled job compaction finished, {n} rows in {m} s",
    "{t} INFO {s} heartbeat ok from {s}-{h} lag {m} ms",
    "{t} WARN {s} slow consumer group={s}-events partition={m} behind by {n}",
    "{t} INFO {s} connected to {s}-db:5432 as app, pool {m}/{n}",
)
_TELLING = (
    "{t} kubelet container {s} of pod {s}-{h} was OOMKilled, exit code 137, limit 512Mi",
    "{t} ERROR {s} write /var/log/{s}/debug.log: no space left on device",
    "{t} ERROR {s} x509: certificate has expired or is not yet valid",
    "{t} argocd {s} synced to revision {h}: max_connections 20, was 200",
    "{t} ERROR {s} could not get a connection within 3000 ms, pool exhausted",
    "{t} {s} p99 latency 4200 ms over 5 m, usual 180 ms",
    "{t} {s} liveness probe failed: context deadline exceeded, will be restarted",
    "{t} ERROR {s} upstream payments returned 503, retry budget spent, request not retried",
)


def run() -> None:
    """Prints the share of telling lines kept, and the time a context takes."""
    rng = random.Random(11)
    ours: list[float] = []
    head: list[float] = []
    took_ms: list[float] = []
    cpu_ms: list[float] = []
    for _ in range(CASES):
        items, planted = _context(rng)
        start, cpu = perf_counter(), process_time()
        done = compress(items, BUDGET_TOKENS)
        took_ms.append((perf_counter() - start) * 1000)
        cpu_ms.append((process_time() - cpu) * 1000)
        shown = {line for text in done for line in text.split("\n")}
        assert sum(map(tokens, done)) <= BUDGET_TOKENS
        ours.append(len(planted & shown) / len(planted))
        cut = BUDGET_TOKENS * 3 // len(items)
        heads = {line for item in items for line in item.text[:cut].split("\n")}
        head.append(len(planted & heads) / len(planted))
    print(
        f"compression · telling lines kept at {BUDGET_TOKENS} tokens of 200 kB: chosen lines "
        f"{statistics.mean(ours):.2f}, head of each item {statistics.mean(head):.2f}; "
        f"p50 {statistics.median(took_ms):.0f} ms, p95 {_p95(took_ms):.0f} ms (mark: 50 ms), "
        f"of the processor p95 {_p95(cpu_ms):.0f} ms ({CASES} contexts)"
    )


def _p95(values: list[float]) -> float:
    return sorted(values)[int(0.95 * (len(values) - 1))]


def _context(rng: random.Random) -> tuple[list[Item], set[str]]:
    planted: set[str] = set()
    items = []
    for number in range(ITEMS):
        lines: list[str] = []
        size = 0
        while size < CONTEXT_CHARS // ITEMS:
            lines.append(_line(rng, rng.choice(_ORDINARY)))
            size += len(lines[-1]) + 1
        for _ in range(2):
            line = _line(rng, rng.choice(_TELLING))
            planted.add(line)
            lines.insert(rng.randrange(len(lines)), line)
        items.append(Item(f"E{number + 1}", "\n".join(lines)))
    return items, planted


def _line(rng: random.Random, form: str) -> str:
    second = rng.randrange(3600)
    return form.format(
        t=f"2026-01-02T03:{second // 60:02d}:{second % 60:02d}Z",
        s=rng.choice(_SERVICES),
        n=rng.randrange(100, 99999),
        m=rng.randrange(1, 400),
        h=f"{rng.getrandbits(28):07x}",
    )
