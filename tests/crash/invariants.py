"""I1 to I6 of SAFETY.md, checked by code over what a trial left behind: the platform's log, the database and Slack.

Every function takes the whole ``History`` and returns its violations, each as one sentence; none when all holds.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from tests.crash.recorder import PhysicalRequest

ENDS_WITHIN_S = 60.0
FINAL = frozenset({"verified", "not_verified", "inconclusive", "failed", "needs_human"})
FINAL_UNVERIFIED = FINAL | {"applied"}
"""What was put back is not verified: a person looks."""
CARRIED_OUT = frozenset({"applied", "verified", "not_verified", "inconclusive"})
CLOCK_SLACK = timedelta(milliseconds=5)
"""Database and platform read one machine's clock, but not in one breath."""
MAX_SCALE_FACTOR = 2.0


@dataclass(frozen=True, slots=True)
class StepRow:
    number: int
    state: str


@dataclass(frozen=True, slots=True)
class ExecutionRow:
    id: int
    plan_id: int
    incident_id: int
    kind: str
    state: str
    created_at: datetime
    steps: tuple[StepRow, ...]


@dataclass(frozen=True, slots=True)
class PlanRow:
    id: int
    incident_id: int
    state: str
    approvals_needed: int
    expires_at: datetime


@dataclass(frozen=True, slots=True)
class ApprovalRow:
    plan_id: int
    user: str
    decision: str
    at: datetime


@dataclass(frozen=True, slots=True)
class Acknowledged:
    """A person pressed Approve, Slack took the click as done, and nobody told that person otherwise."""

    plan_id: int
    user: str
    at: datetime


@dataclass(frozen=True, slots=True)
class TrailRow:
    incident_id: int
    seq: int
    at: datetime
    kind: str
    summary: str
    previous: str
    hash: str
    data: Mapping[str, object]


@dataclass(frozen=True, slots=True)
class SwitchTime:
    """The kill switch was on from ``since`` until ``until`` (None: to the end)."""

    scope: str
    since: datetime
    until: datetime | None = None


@dataclass(frozen=True, slots=True)
class CardLook:
    """What Slack shows of an incident at the end, beside what the database says that it must show."""

    incident_id: int
    cards: int
    shown: str
    must_show: tuple[str, ...]
    can_be_approved: bool
    may_be_approved: bool


@dataclass(frozen=True, slots=True)
class Blind:
    """The trail could not be written from ``since`` until ``until``."""

    since: datetime
    until: datetime


@dataclass(frozen=True)
class History:
    """What is known of one trial when it is over."""

    requests: Sequence[PhysicalRequest] = ()
    executions: Sequence[ExecutionRow] = ()
    plans: Sequence[PlanRow] = ()
    approvals: Sequence[ApprovalRow] = ()
    acknowledged: Sequence[Acknowledged] = ()
    trail: Sequence[TrailRow] = ()
    first_broken: Mapping[int, int | None] = field(default_factory=dict)
    """The database's own verdict on each chain."""
    heads_seen: Sequence[tuple[int, int, str]] = ()
    """(incident, seq, hash) of chain heads read on the way."""
    switches: Sequence[SwitchTime] = ()
    blind: Sequence[Blind] = ()
    cards: Sequence[CardLook] = ()
    dead_letters: int = 0
    replicas_at_first: int = 3
    replicas_at_last: int = 3
    foreign_changes: int = 0
    earlier_actions: int = 0
    """On the target within the hour, before the trial began."""
    faults_over_at: datetime | None = None
    ended_at: datetime | None = None
    """When everything had come to rest; None when it did not."""
    looked_at: datetime | None = None
    max_actions_target_hour: int = 2
    switch_effective_s: float = 1.0
    """After this long a kill switch holds back every call, one that was being prepared when it went on included."""
    verdict_wanted: bool = True
    """Without a verifier an execution that has been carried out is at its end."""


Invariant = Callable[[History], list[str]]


def i1_at_most_once(history: History) -> list[str]:
    """At most one effective change per plan step; and no request is ever sent twice under one fence."""
    found = []
    effects = Counter((one.execution_id, one.step) for one in history.requests if one.effective)
    for (execution, step), times in effects.items():
        if times > 1:
            found.append(f"step {step} of execution {execution} took effect {times} times")
    sent = Counter((one.execution_id, one.step, one.fence) for one in history.requests)
    for (execution, step, fence), times in sent.items():
        if times > 1:
            found.append(f"step {step} of execution {execution} was sent {times} times under fence {fence}")
    applies = Counter(one.plan_id for one in history.executions if one.kind == "apply")
    found += [f"plan {plan} has {times} executions" for plan, times in applies.items() if times > 1]
    return found


def i2_approvals_end(history: History) -> list[str]:
    """Every acknowledged approval is in the database, and ends in a final state or with a person within 60 s."""
    found = []
    rows = {(one.plan_id, one.user) for one in history.approvals if one.decision == "approve"}
    for one in history.acknowledged:
        if (one.plan_id, one.user) not in rows:
            found.append(f"the acknowledged approval of plan {one.plan_id} by {one.user} is not in the database")
    counted = Counter(plan for plan, _ in rows)
    plans = {plan.id: plan for plan in history.plans}
    by_plan = defaultdict(list)
    for execution in history.executions:
        by_plan[execution.plan_id].append(execution)
    for plan_id, people in counted.items():
        plan = plans.get(plan_id)
        if plan is None or people < plan.approvals_needed:
            continue
        if not by_plan[plan_id]:
            found.append(f"plan {plan_id} has all its approvals and no execution")
        for execution in by_plan[plan_id]:
            unverified = execution.kind == "rollback" or not history.verdict_wanted
            if execution.state not in (FINAL_UNVERIFIED if unverified else FINAL):
                found.append(f"execution {execution.id} of plan {plan_id} stands at {execution.state}")
    if not history.acknowledged and history.looked_at and history.ended_at is None:
        found.append("not everything came to rest, and nobody had approved anything")
    if history.acknowledged:
        began = max(one.at for one in history.acknowledged)
        began = max(began, history.faults_over_at or began)
        if history.ended_at is None:
            waited = f" after {(history.looked_at - began).total_seconds():.0f} s" if history.looked_at else ""
            found.append(f"not everything came to rest{waited}")
        elif (took := (history.ended_at - began).total_seconds()) > ENDS_WITHIN_S:
            found.append(f"it ended {took:.0f} s after the approval and the last fault, not within 60 s")
    return found


def i3_one_truth(history: History) -> list[str]:
    """Final card = database = target."""
    found = []
    effects = {(one.execution_id, one.step) for one in history.requests if one.effective}
    for execution in history.executions:
        for step in execution.steps:
            stands = (str(execution.id), step.number) in effects
            where = f"step {step.number} of execution {execution.id}"
            if step.state == "applied" and not stands:
                found.append(f"{where} is applied in the database, and the target never changed")
            elif step.state in ("pending", "failed") and stands and execution.state in FINAL - {"needs_human"}:
                found.append(f"{where} is {step.state} in the database, and the target changed")
            if execution.state in CARRIED_OUT and step.state != "applied":
                found.append(f"execution {execution.id} is {execution.state}, but {where} is {step.state}")
    known = {str(execution.id) for execution in history.executions}
    for request in history.requests:
        if request.effective and request.execution_id not in known:
            found.append(f"the target was changed for execution {request.execution_id}, which is in no database")
    scaled = [one for one in history.requests if one.effective and one.kind == "scale"]
    if not history.foreign_changes:
        expected = int(scaled[-1].wish) if scaled else history.replicas_at_first
        if expected != history.replicas_at_last:
            found.append(f"the target has {history.replicas_at_last} replicas, by its own log {expected}")
    for card in history.cards:
        label = f"INC-{card.incident_id}"
        if card.cards != 1:
            found.append(f"{label} has {card.cards} cards")
            continue
        missing = [words for words in card.must_show if words not in card.shown]
        if missing:
            found.append(f"the card of {label} does not show what the database says: {missing[0]}")
        if card.can_be_approved != card.may_be_approved:
            found.append(f"the card of {label} {'offers' if card.can_be_approved else 'lacks'} a button to approve")
    if history.dead_letters:
        found.append(f"{history.dead_letters} notices were given up")
    return found


def i4_intent_first(history: History) -> list[str]:
    """No change without an earlier committed intent; nothing is changed while the trail cannot be written."""
    found = []
    intents = _intents(history)
    for one in history.requests:
        committed = intents.get((one.execution_id, one.step, one.fence))
        where = f"step {one.step} of execution {one.execution_id} under fence {one.fence}"
        if committed is None:
            found.append(f"{where} reached the target without an intent in the trail")
        elif committed > one.at + CLOCK_SLACK:
            found.append(f"{where} reached the target before its intent was written")
        for blind in history.blind:
            if committed is not None and blind.since < committed < blind.until:
                found.append(f"{where} has an intent from a time in which the trail could not be written")
    return found


def i5_limits_hold(history: History) -> list[str]:
    """Kill switch, budgets and caps are never exceeded."""
    found = []
    intents = _intents(history)
    for one in history.requests:
        at = intents.get((one.execution_id, one.step, one.fence), one.at)
        for switch in history.switches:
            if switch.since + timedelta(seconds=history.switch_effective_s) < at < (switch.until or at + CLOCK_SLACK):
                found.append(
                    f"step {one.step} of execution {one.execution_id} was dispatched"
                    f" {(at - switch.since).total_seconds():.3f} s after the kill switch ({switch.scope}) went on"
                )
    cap = history.replicas_at_first * MAX_SCALE_FACTOR
    for one in history.requests:
        if one.effective and one.kind == "scale" and int(one.wish) > cap:
            found.append(f"scaled to {one.wish}, more than twice {history.replicas_at_first}")
    acted = {one.execution_id for one in history.requests if one.effective}
    applies = [
        one for one in history.executions if one.kind == "apply" and (one.state in CARRIED_OUT or str(one.id) in acted)
    ]
    actions = len(applies) + history.earlier_actions
    if applies and actions > history.max_actions_target_hour:
        found.append(f"{actions} actions on one target within the hour")
    return found + list(_without_a_yes(history))


def _without_a_yes(history: History) -> Iterator[str]:
    """Changes whose plan lacks approvals, or against a "no"."""
    said = defaultdict(set)
    refused = {one.plan_id for one in history.approvals if one.decision == "reject"}
    for one in history.approvals:
        if one.decision == "approve":
            said[one.plan_id].add(one.user)
    plans = {plan.id: plan for plan in history.plans}
    acted = {one.execution_id for one in history.requests}
    for execution in history.executions:
        plan = plans.get(execution.plan_id)
        if str(execution.id) not in acted or plan is None:
            continue
        if len(said[plan.id]) < plan.approvals_needed:
            yield f"plan {plan.id} was acted on with {len(said[plan.id])} of {plan.approvals_needed} approvals"
        if plan.id in refused:
            yield f"plan {plan.id} was acted on against a no"
        if plan.state not in ("approved", "blocked"):
            yield f"plan {plan.id} was acted on and is {plan.state}"


def i6_trail_verifies(history: History) -> list[str]:
    """Every chain verifies, tail included; what was a head on the way is still in it."""
    found = [
        f"the trail of incident {incident} is broken at {broken}"
        for incident, broken in history.first_broken.items()
        if broken is not None
    ]
    by_incident: dict[int, dict[int, TrailRow]] = defaultdict(dict)
    for row in history.trail:
        by_incident[row.incident_id][row.seq] = row
    for incident, rows in by_incident.items():
        previous = ""
        for seq in range(1, max(rows) + 1):
            link = rows.get(seq)
            if link is None or link.previous != previous:
                found.append(f"the trail of incident {incident} is not whole at {seq}")
                break
            previous = link.hash
    for incident, seq, digest in history.heads_seen:
        kept = by_incident[incident].get(seq)
        if kept is None or kept.hash != digest:
            found.append(f"entry {seq} of incident {incident} was there, and is gone or another one")
    return found


INVARIANTS: Mapping[str, Invariant] = {
    "I1": i1_at_most_once,
    "I2": i2_approvals_end,
    "I3": i3_one_truth,
    "I4": i4_intent_first,
    "I5": i5_limits_hold,
    "I6": i6_trail_verifies,
}


def violations(history: History) -> dict[str, list[str]]:
    """Invariant → what it found, for those that found something."""
    found = {name: check(history) for name, check in INVARIANTS.items()}
    return {name: sentences for name, sentences in found.items() if sentences}


def _intents(history: History) -> dict[tuple[str, object, object], datetime]:
    """When each call's intent was committed, by execution, step and fence, as the trail tells."""
    return {
        (str(row.data.get("execution")), row.data.get("step"), row.data.get("fence")): row.at
        for row in history.trail
        if row.kind == "execution" and "dispatched" in row.summary and "fence" in row.data
    }
