"""``make bench``: every figure beside a named baseline of the same run. ``python -m tests.bench [name …]`` for some."""

from __future__ import annotations

import runpy
import sys
import time

BENCHES = ("engine", "kpis", "novelty", "capacity", "worlds", "rank", "templates", "cycle")


def main() -> None:
    wanted = sys.argv[1:] or BENCHES
    unknown = sorted(set(wanted) - set(BENCHES))
    if unknown:
        sys.exit(f"no such bench: {', '.join(unknown)}; there are {', '.join(BENCHES)}")
    for name in wanted:
        print(f"== {name}")
        started = time.perf_counter()
        runpy.run_module(f"tests.bench.{name}")["run"]()
        print(f"   ({time.perf_counter() - started:.0f} s)\n")


if __name__ == "__main__":
    main()
