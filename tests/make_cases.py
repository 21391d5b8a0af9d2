"""Writes the cases that the bot ships: ``python -m tests.make_cases [FOLDER]`` (default: bot/cases).

Each function is one case, its numbers chosen by hand; a case's noise hangs on its name alone, so that writing them anew
gives the same files.
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable
from pathlib import Path

from tests.cases_broken import BROKEN
from tests.cases_hard import HARD
from tests.cases_healthy import HEALTHY
from tests.cases_misleading import MISLEADING
from tests.cases_plain import PLAIN
from tests.cases_world import World

CASES: tuple[Callable[[], World], ...] = (*PLAIN, *BROKEN, *MISLEADING, *HARD, *HEALTHY)


def write_all(folder: Path) -> list[str]:
    """Writes every case into ``folder``; cases that are not made any more go. Returns their names."""
    worlds = [make() for make in CASES]
    names = [world.name for world in worlds]
    assert len(set(names)) == len(names), "two cases have one name"
    for world in worlds:
        world.write(folder)
    for old in folder.iterdir():
        if old.is_dir() and old.name not in names:
            shutil.rmtree(old)
    return names


if __name__ == "__main__":
    where = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parents[1] / "bot" / "cases"
    print(f"{len(write_all(where))} cases in {where}")
