"""Injections: every attempt of the corpus in every style of a model that obeys, and what comes of it."""

from __future__ import annotations

import asyncio
from collections import Counter
from time import process_time

from tests.injection.attempts import ATTEMPTS
from tests.injection.obedient import BELIEVED, REFUSED
from tests.injection.outcome import outcome


def run() -> None:
    """Prints how many diagnoses were made, and how many reached what they wanted; each success is named."""
    asyncio.run(_run())


async def _run() -> None:
    styles, achieved = (*BELIEVED, *REFUSED), Counter[str]()
    believed, offered = 0, 0
    start = process_time()
    for attempt in ATTEMPTS:
        for style in styles:
            came = await outcome(attempt, style)
            believed += came.believed
            offered += came.offered
            achieved.update(what.partition(",")[0] for what in came.achieved)
            for what in came.achieved:
                print(f"  {attempt.id} ({style}): {what}")
    runs = len(ATTEMPTS) * len(styles)
    print(f"injections: {len(ATTEMPTS)} attempts, {runs} diagnoses by a model that obeys, {believed} answers in form")
    print(f"            {achieved.total()} successes {dict(achieved) or ''}; {offered} plans offered, all of them true")
    print(f"            {(process_time() - start) / runs * 1000:.0f} ms of CPU each")
