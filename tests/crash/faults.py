"""The kinds of trials, and what of each a seed and a number give."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from typing import Any, Literal

from tests.crash.plans import Deed, ModelFault, Strike, TrialPlan

Action = Literal["restart_one", "restart_two", "scale"]
Make = Callable[[random.Random], dict[str, Any]]

SIDES = ("before", "after")
COMMITS = 9
"""About so many transactions write something on the way from the click to the verdict."""
LEASE_S = 1.5


def trial_plan(seed: int, number: int) -> TrialPlan:
    """Trial ``number`` (from 1) of ``seed``. Kinds take turns."""
    kind = list(KINDS)[(number - 1) % len(KINDS)]
    rng = random.Random(f"{seed}:{number}")
    return TrialPlan(number=number, kind=kind, **KINDS[kind](rng))


def _action(rng: random.Random) -> Action:
    return rng.choice(("restart_one", "restart_two", "scale"))


def _commit(rng: random.Random) -> tuple[str, int]:
    return f"commit * {rng.choice(SIDES)}", rng.randint(1, COMMITS)


def _call(rng: random.Random) -> tuple[str, int]:
    name = rng.choice(("target.apply", "target.apply", "target.observe", "target.find"))
    return f"{name} {rng.choice(SIDES)}", rng.randint(1, 3) if name == "target.observe" else rng.randint(1, 2)


def _lock_or_bus(rng: random.Random) -> tuple[str, int]:
    name = rng.choice(("lock.acquire", "lock.release", "bus.publish"))
    return f"{name} {rng.choice(SIDES)}", rng.randint(1, 4) if name == "bus.publish" else 1


def _telling(rng: random.Random) -> tuple[str, int]:
    name = rng.choice(("slack.publish", "commit Relay.run_once", "commit Relay._send"))
    return f"{name} {rng.choice(SIDES)}", rng.randint(1, 6)


def _any(rng: random.Random) -> tuple[str, int]:
    where = rng.choice((_commit, _commit, _call, _call, _lock_or_bus, _telling, _at_click))
    return where(rng)


def _at_click(rng: random.Random) -> tuple[str, int]:
    return rng.choice(("click.answered before", "commit Decider._approve before", "commit Decider._approve after")), 1


def _strike(
    rng: random.Random, deed: Deed, where: Callable[[random.Random], tuple[str, int]], seconds: float = 0.0
) -> Strike:
    moment, nth = where(rng)
    return Strike(moment, deed, nth, seconds)


def _kill(where: Callable[[random.Random], tuple[str, int]], **more: Any) -> Make:
    return lambda rng: {"action": _action(rng), "strikes": (_strike(rng, "kill", where),), **more}


def _kill_twice(rng: random.Random) -> dict[str, Any]:
    strikes = (_strike(rng, "kill", _commit), _strike(rng, "kill", _call))
    return {"action": _action(rng), "strikes": strikes, "replicas": rng.randint(1, 2)}


def _pause(rng: random.Random) -> dict[str, Any]:
    seconds = LEASE_S + rng.uniform(0.5, 3.0)
    where = rng.choice((_commit, _call, _call))
    return {"action": _action(rng), "replicas": 2, "strikes": (_strike(rng, "stop", where, seconds),)}


def _pause_alone(rng: random.Random) -> dict[str, Any]:
    return {"action": _action(rng), "strikes": (_strike(rng, "stop", _any, LEASE_S + rng.uniform(0.5, 2.0)),)}


def _rolling(rng: random.Random) -> dict[str, Any]:
    strikes = (_strike(rng, "drain", _any), _strike(rng, "drain", _commit))
    return {"action": _action(rng), "replicas": rng.randint(1, 2), "strikes": strikes}


def _cut(rng: random.Random) -> dict[str, Any]:
    moment = rng.choice(("commit * before", "commit * before", "commit Relay._send before"))
    deed: Deed = rng.choice(("cut_reply", "cut_reply", "cut_request"))
    return {"action": _action(rng), "strikes": (Strike(moment, deed, rng.randint(1, COMMITS)),)}


def _database(rng: random.Random) -> dict[str, Any]:
    deed: Deed = rng.choice(("postgres_killed", "postgres_away", "postgres_frozen"))
    return {
        "action": _action(rng),
        "replicas": rng.randint(1, 2),
        "strikes": (_strike(rng, deed, _any, rng.uniform(0.5, 3.0)),),
    }


def _redis(rng: random.Random) -> dict[str, Any]:
    deed: Deed = rng.choice(("redis_killed", "redis_flushed", "redis_away"))
    where = rng.choice((_any, _lock_or_bus))
    return {"replicas": rng.randint(1, 2), "strikes": (_strike(rng, deed, where, rng.uniform(1.0, 4.0)),)}


def _slack(rng: random.Random) -> dict[str, Any]:
    deed: Deed = rng.choice(("slack_limited", "slack_outage", "slack_away", "slack_reply_lost", "slack_socket_dropped"))
    where = rng.choice((_telling, _telling, _commit))
    return {"strikes": (_strike(rng, deed, where, float(rng.randint(1, 3))),)}


def _duplicates(rng: random.Random) -> dict[str, Any]:
    click = rng.choice(("twice", "to_both", "to_both", "both_people"))
    return {"action": _action(rng), "replicas": 2, "click": click}


def _duplicates_and_death(rng: random.Random) -> dict[str, Any]:
    strikes = (_strike(rng, "kill", rng.choice((_at_click, _commit))),)
    return {"action": _action(rng), "replicas": 2, "click": rng.choice(("to_both", "twice")), "strikes": strikes}


def _refusals(rng: random.Random) -> dict[str, Any]:
    fault = rng.choice(("refused_409", "busy_429", "failed_500", "silent", "reset"))
    return {"action": _action(rng), "target_faults": {1: (fault, 2.5)}}


def _half_done(rng: random.Random) -> dict[str, Any]:
    fault = rng.choice(("failed_500_applied", "silent_applied", "applied_then_reset", "late", "late"))
    nth = rng.randint(1, 2)
    action: Action = "restart_two" if nth == 2 else _action(rng)
    return {"action": action, "target_faults": {nth: (fault, rng.uniform(1.0, 4.0))}}


def _half_done_and_death(rng: random.Random) -> dict[str, Any]:
    made = _half_done(rng)
    where = rng.choice((_call, _commit))
    return {**made, "replicas": rng.randint(1, 2), "strikes": (_strike(rng, "kill", where),)}


def _unreadable(rng: random.Random) -> dict[str, Any]:
    return {"action": _action(rng), "unreadable": {rng.randint(1, 8): rng.randint(1, 6)}}


def _switch(rng: random.Random) -> dict[str, Any]:
    where = rng.choice((_commit, _call, _at_click))
    strikes = [_strike(rng, "switch_on", where)]
    if rng.random() < 0.3:
        strikes.append(_strike(rng, "kill", _commit))
    return {"action": rng.choice(("restart_two", "scale")), "strikes": tuple(strikes)}


def _foreign(rng: random.Random) -> dict[str, Any]:
    return {"action": rng.choice(("scale", "restart_one")), "strikes": (_strike(rng, "foreign_change", _any),)}


def _no_room(rng: random.Random) -> dict[str, Any]:
    return {"action": _action(rng), "strikes": (_strike(rng, "trail_full", _any, rng.uniform(1.0, 3.0)),)}


def _disk_full(rng: random.Random) -> dict[str, Any]:
    strike = _strike(rng, "disk_full", _any, rng.uniform(1.0, 3.0))
    return {"action": _action(rng), "strikes": (strike,), "needs_small_disk": True}


def _system_call(rng: random.Random) -> dict[str, Any]:
    call = rng.choice(("sendto", "recvfrom", "sendto", "recvfrom", "epoll_wait"))
    return {"action": _action(rng), "syscall": call, "syscall_nth": rng.randint(1, 120)}


def _clock(rng: random.Random) -> dict[str, Any]:
    return {"action": _action(rng), "clock_offset_s": rng.choice((-3600.0, 3600.0)), "replicas": rng.randint(1, 2)}


def _clock_jumps(rng: random.Random) -> dict[str, Any]:
    strike = _strike(rng, "clock_jumps", _any, rng.choice((-3600.0, 3600.0)))
    return {"action": _action(rng), "clock_offset_s": 0.0, "replicas": rng.randint(1, 2), "strikes": (strike,)}


def _rollback(rng: random.Random) -> dict[str, Any]:
    moment, nth = rng.choice((("commit * before", rng.randint(6, 16)), _call(rng)))
    deed: Deed = rng.choice(("kill", "cut_reply")) if moment == "commit * before" else "kill"
    return {"action": "scale", "recovers": False, "strikes": (Strike(moment, deed, nth),)}


def _two_people(rng: random.Random) -> dict[str, Any]:
    return {"action": _action(rng), "people": 2, "strikes": (_strike(rng, "kill", rng.choice((_at_click, _commit))),)}


def _expiry(rng: random.Random) -> dict[str, Any]:
    strike = Strike(rng.choice(("target.observe before", "target.observe after")), "expire", 1)
    return {"action": _action(rng), "replicas": 2, "strikes": (strike,)}


def _yes_and_no(rng: random.Random) -> dict[str, Any]:
    return {"action": _action(rng), "replicas": 2, "click": "yes_and_no"}


def _budget(rng: random.Random) -> dict[str, Any]:
    return {"action": _action(rng), "budget_spent": True}


def _two_cards(rng: random.Random) -> dict[str, Any]:
    strikes = (_strike(rng, "kill", _commit),) if rng.random() < 0.5 else ()
    return {"replicas": 2, "click": "two_cards", "strikes": strikes}


def _model(rng: random.Random) -> dict[str, Any]:
    faults: tuple[ModelFault, ...] = (
        *("silent", "failed_500", "limited_429", "reset"),
        *("garbage", "truncated", "no_json"),
    )
    strikes = (Strike("commit * before", "kill", rng.randint(1, 3)),) if rng.random() < 0.3 else ()
    return {"model": rng.choice(faults), "replicas": rng.randint(1, 2), "strikes": strikes}


def _slow(rng: random.Random) -> dict[str, Any]:
    return {"action": _action(rng), "delay_s": rng.uniform(0.002, 0.012), "strikes": (_strike(rng, "kill", _any),)}


def _mixed(rng: random.Random) -> dict[str, Any]:
    deeds: tuple[Deed, ...] = (
        *("kill", "stop", "cut_reply", "postgres_killed", "postgres_away", "redis_away", "slack_outage"),
        *("slack_reply_lost", "drain", "kill_both"),
    )
    strikes = []
    for deed in rng.sample(deeds, rng.randint(2, 3)):
        where = _commit if deed == "cut_reply" else _any
        moment, nth = where(rng)
        moment = moment.replace("after", "before") if deed == "cut_reply" else moment
        strikes.append(Strike(moment, deed, nth, rng.uniform(1.0, 3.0)))
    return {"action": _action(rng), "replicas": rng.randint(1, 2), "strikes": tuple(strikes)}


KINDS: Mapping[str, Make] = {
    "kill -9 at a commit": _kill(_commit),
    "kill -9 at a call to the target": _kill(_call),
    "kill -9 while telling Slack": _kill(_telling),
    "kill -9 at a lock or the bus": _kill(_lock_or_bus),
    "kill -9 at the click": _kill(_at_click),
    "one of two killed, the other takes over": _kill(_any, replicas=2, revive=False),
    "killed twice": _kill_twice,
    "kill -9 of both": lambda rng: {"replicas": 2, "strikes": (_strike(rng, "kill_both", _any),)},
    "SIGSTOP past the lease, two replicas": _pause,
    "SIGSTOP past the lease, alone": _pause_alone,
    "rolling restart by SIGTERM": _rolling,
    "commit's answer or commit lost": _cut,
    "PostgreSQL killed, away or frozen": _database,
    "Redis killed, flushed or away": _redis,
    "Slack 429, 500, away, reply lost, socket dropped": _slack,
    "duplicate and concurrent clicks": _duplicates,
    "duplicate clicks and kill -9": _duplicates_and_death,
    "target 409, 429, 500, silent, reset": _refusals,
    "target applied without an answer, or late": _half_done,
    "the same and kill -9": _half_done_and_death,
    "target unreadable": _unreadable,
    "kill switch on the way": _switch,
    "somebody else changes the target": _foreign,
    "trail cannot be written": _no_room,
    "disk full": _disk_full,
    "kill at a system call": _system_call,
    "clock an hour off": _clock,
    "clock jumps by an hour": _clock_jumps,
    "not recovered, rolled back under faults": _rollback,
    "two people needed, kill -9": _two_people,
    "expiry during the click": _expiry,
    "a yes and a no at once": _yes_and_no,
    "budget spent": _budget,
    "two incidents, one target": _two_cards,
    "model silent, failing or talking garbage": _model,
    "slow database and kill -9": _slow,
    "several faults": _mixed,
}
