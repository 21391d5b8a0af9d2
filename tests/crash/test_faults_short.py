"""A selection of the crash trials, the same each time; `make crash` runs hundreds."""

from __future__ import annotations

import pytest

from tests.crash.__main__ import run_trials
from tests.crash.plans import Strike, TrialPlan
from tests.crash.trial import Outcome

LANES = 3
PLANS = (
    TrialPlan(1, "kill before the call", strikes=(Strike("target.apply before", "kill"),)),
    TrialPlan(
        2,
        "kill after the call, the other takes over",
        replicas=2,
        revive=False,
        strikes=(Strike("target.apply after", "kill"),),
    ),
    TrialPlan(
        3,
        "paused past the lease before the call",
        action="scale",
        replicas=2,
        strikes=(Strike("target.apply before", "stop", seconds=4.0),),
    ),
    TrialPlan(
        4, "the click's commit is carried out, its answer lost", strikes=(Strike("commit * before", "cut_reply"),)
    ),
    TrialPlan(
        6,
        "applied, then reset, and killed",
        action="scale",
        target_faults={1: ("applied_then_reset", 0.0)},
        strikes=(Strike("target.find before", "kill"),),
    ),
    TrialPlan(7, "one click, both replicas", action="restart_two", replicas=2, click="to_both"),
    TrialPlan(
        8, "kill switch between two steps", action="restart_two", strikes=(Strike("target.apply after", "switch_on"),)
    ),
    TrialPlan(9, "the trail cannot be written", strikes=(Strike("target.observe after", "trail_full", 2, 1.5),)),
    TrialPlan(
        10, "Slack took a post, its answer lost", strikes=(Strike("slack.publish before", "slack_reply_lost", 2),)
    ),
)


def verdict(outcome: Outcome) -> str:
    """Empty when all is well."""
    name = f"{outcome.plan.number} {outcome.plan.kind}"
    if outcome.violations:
        return f"{name}: {outcome.violations}"
    faults = bool(outcome.plan.strikes or outcome.plan.target_faults)
    if faults and not outcome.struck:
        return f"{name}: no fault struck, so nothing is proven"
    changed = sum(request.effective for request in outcome.history.requests)
    if outcome.plan.number == 8:
        return "" if changed == 1 else f"{name}: {changed} changes, one was due before the switch went on"
    return "" if changed else f"{name}: nothing was changed at all"


@pytest.mark.timeout(400)
async def test_no_invariant_is_broken() -> None:
    outcomes = await run_trials(PLANS, lanes=LANES, logs=None, quiet=True)
    assert len(outcomes) == len(PLANS)
    assert [said for outcome in outcomes if (said := verdict(outcome))] == []
