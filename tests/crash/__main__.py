"""``python -m tests.crash``: many trials with faults, each judged by the six invariants; a summary; 1 on a violation.

The same seed and number give the same trial: ``--only N`` repeats one of them.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import signal
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Sequence
from contextlib import AsyncExitStack
from pathlib import Path

from tests.crash.faults import trial_plan
from tests.crash.invariants import INVARIANTS
from tests.crash.plans import TrialPlan
from tests.crash.servers import Lane, WarmProcess, lane, libfaketime
from tests.crash.smalldisk import may_mount, small_disk
from tests.crash.tracing import can_trace
from tests.crash.trial import Outcome, Trial

LEAST_CHANGED = 0.5
"""Trials in which nothing happens cannot go wrong; fewer than this share of the others, and the run fails."""
DISK_BYTES = 220_000_000


async def run_trials(plans: Sequence[TrialPlan], *, lanes: int, logs: Path | None, quiet: bool) -> list[Outcome]:
    """Runs them, ``lanes`` at a time, each lane with servers of its own."""
    small = [plan for plan in plans if plan.needs_small_disk]
    outcomes: list[Outcome] = []
    waiting: asyncio.Queue[TrialPlan] = asyncio.Queue()
    for plan in plans:
        if not plan.needs_small_disk:
            waiting.put_nowait(plan)

    async with AsyncExitStack() as stack:
        warm = await stack.enter_async_context(WarmProcess())

        async def one(plan: TrialPlan, on: Lane) -> None:
            outcome = await Trial(plan, on, warm, keep_logs=logs).run()
            outcomes.append(outcome)
            if not quiet or outcome.violations:
                print(_line(outcome), flush=True)

        async def work(on: Lane) -> None:
            while not waiting.empty():
                await one(waiting.get_nowait(), on)

        async def work_on_small_disk(on: Lane) -> None:
            for plan in small:
                await one(plan, on)

        made = [await stack.enter_async_context(lane()) for _ in range(min(lanes, max(1, waiting.qsize())))]
        working = [work(on) for on in made]
        if small:
            disk = stack.enter_context(small_disk(DISK_BYTES))
            working.append(work_on_small_disk(await stack.enter_async_context(lane(disk))))
        await asyncio.gather(*working)
    return sorted(outcomes, key=lambda outcome: outcome.plan.number)


def _line(outcome: Outcome) -> str:
    mark = "VIOLATION" if outcome.violations else "ok"
    struck = "" if outcome.struck or not _has_faults(outcome.plan) else " (did not strike)"
    text = f"{outcome.plan.number:4d} {mark:9s} {outcome.took_s:5.1f} s  {outcome.plan.kind}: {outcome.plan.describe()}"
    details = [f"     {name}: {said}" for name, found in outcome.violations.items() for said in found]
    return "\n".join([text + struck, *details])


def _has_faults(plan: TrialPlan) -> bool:
    return bool(plan.strikes or plan.target_faults or plan.unreadable or plan.syscall)


def report(outcomes: Sequence[Outcome], seed: int, took_s: float) -> str:
    """The summary: a line a kind, the faults that struck, and the violations."""
    kinds: dict[str, list[Outcome]] = defaultdict(list)
    for outcome in outcomes:
        kinds[outcome.plan.kind].append(outcome)
    lines = [f"{'kind of trial':52s} trials  struck  violations  seconds"]
    for kind, those in kinds.items():
        struck = sum(bool(one.struck) or not _has_faults(one.plan) for one in those)
        wrong = sum(bool(one.violations) for one in those)
        seconds = sum(one.took_s for one in those) / len(those)
        lines.append(f"{kind:52s} {len(those):6d}  {struck:6d}  {wrong:10d}  {seconds:7.1f}")
    deeds = Counter(deed for one in outcomes for deed in one.struck)
    lines.append("")
    lines.append("faults that struck: " + ", ".join(f"{deed} {times}" for deed, times in sorted(deeds.items())))
    by_invariant = Counter(dict.fromkeys((*INVARIANTS, "trial"), 0))
    for outcome in outcomes:
        by_invariant.update({name: len(found) for name, found in outcome.violations.items()})
    lines.append("violations: " + ", ".join(f"{name} {times}" for name, times in by_invariant.items()))
    changes = sum(sum(one.effective for one in outcome.history.requests) for outcome in outcomes)
    sent = sum(len(outcome.history.requests) for outcome in outcomes)
    lines.append(f"requests at the target: {sent}, of which {changes} changed something")
    broken = [outcome for outcome in outcomes if outcome.violations]
    lines.append(f"{len(outcomes)} trials, {len(broken)} with violations, seed {seed}, {took_s:.0f} s")
    lines += [f"  again: python -m tests.crash --seed {seed} --only {one.plan.number}" for one in broken]
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.crash", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--trials", type=int, default=300)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", type=int, nargs="*", default=[], help="numbers of trials to repeat")
    parser.add_argument("--kind", default="", help="only trials whose kind contains this")
    parser.add_argument("--lanes", type=int, default=4, help="trials at a time")
    parser.add_argument("--logs", type=Path, default=None, help="keep the replicas' logs in this folder")
    parser.add_argument("--quiet", action="store_true", help="print violations and the summary alone")
    options = parser.parse_args(arguments)
    logging.basicConfig(level="CRITICAL")
    numbers = options.only or range(1, options.trials + 1)
    traced = can_trace()
    if not traced:
        print("no strace here, or it may not trace: trials that kill at system calls are left out", flush=True)
    if libfaketime() is None:
        print("no libfaketime here: clocks go wrong inside the bot alone, not in the whole process", flush=True)
    plans = [trial_plan(options.seed, number) for number in numbers]
    plans = [plan for plan in plans if options.kind in plan.kind and (traced or not plan.syscall)]
    if not may_mount():
        print("nothing may be mounted here: trials with a full disk are left out", flush=True)
        plans = [plan for plan in plans if not plan.needs_small_disk]
    began_s = time.monotonic()
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # servers, disks and replicas are put away then, too
    outcomes = asyncio.run(run_trials(plans, lanes=options.lanes, logs=options.logs, quiet=options.quiet))
    print(report(outcomes, options.seed, time.monotonic() - began_s))
    changed = sum(any(one.effective for one in outcome.history.requests) for outcome in outcomes)
    if not options.only and not options.kind and changed < len(outcomes) * LEAST_CHANGED:
        print(f"only {changed} of {len(outcomes)} trials changed the target: they prove nothing")
        return 1
    return 1 if any(outcome.violations for outcome in outcomes) else 0


if __name__ == "__main__":
    sys.exit(main())
