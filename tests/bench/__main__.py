"""``make bench``: every figure beside a named baseline of the same run. ``python -m tests.bench [name …]`` for some."""

from __future__ import annotations

import sys
import time

from tests.bench import (
    capacity,
    compression,
    cycle,
    decisions,
    embedding,
    engine,
    hnsw,
    injections,
    kpis,
    model_path,
    novelty,
    own_share,
    rank,
    redaction,
    retrieval,
    storm,
    switch,
    templates,
    worlds,
)

BENCHES = {
    "engine": engine.run,
    "kpis": kpis.run,
    "novelty": novelty.run,
    "capacity": capacity.run,
    "worlds": worlds.run,
    "rank": rank.run,
    "templates": templates.run,
    "cycle": cycle.run,
    "retrieval": retrieval.run,
    "embedding": embedding.run,
    "compression": compression.run,
    "redaction": redaction.run,
    "injections": injections.run,
    "hnsw": hnsw.run,
    "model_path": model_path.run,
    "own_share": own_share.run,
    "decisions": decisions.run,
    "storm": storm.run,
    "switch": switch.run,
}


def main() -> None:
    wanted = sys.argv[1:] or list(BENCHES)
    unknown = sorted(set(wanted) - set(BENCHES))
    if unknown:
        sys.exit(f"no such bench: {', '.join(unknown)}; there are {', '.join(BENCHES)}")
    for name in wanted:
        print(f"== {name}", flush=True)
        started = time.perf_counter()
        BENCHES[name]()
        print(f"   ({time.perf_counter() - started:.0f} s)\n", flush=True)


if __name__ == "__main__":
    main()
