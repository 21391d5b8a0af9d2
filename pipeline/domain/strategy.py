"""From a diagnosed category to an action on a platform. Never from words in free text; parameters are computed."""

from __future__ import annotations

import math
import re
from typing import assert_never

from pipeline.domain.changes import SHORT_REVISION, ChangeKind
from pipeline.domain.diagnosis import Category, Diagnosis
from pipeline.domain.facts import Facts
from pipeline.domain.plan import (
    MAX_REPLICAS,
    MAX_RESTARTS,
    MAX_WHY,
    Action,
    InstanceRef,
    ManualAction,
    RestartAction,
    ScaleAction,
    TargetAction,
    TargetRef,
    TargetState,
)

MAX_SCALE_FACTOR = 2.0


def choose_action(diagnosis: Diagnosis, facts: Facts, state: TargetState | None, why_unreadable: str) -> Action:
    """The action for ``diagnosis`` on a target read as ``state``; manual, with the command, where none can be taken."""
    action: TargetAction | str
    match diagnosis.category:
        case Category.MEMORY:
            action = _restart(diagnosis, state)
        case Category.SATURATION:
            action = _scale(facts, state)
        case Category.BAD_CHANGE | Category.DISK | Category.CERTIFICATE:
            return _manual(diagnosis, facts, state, f"no executor here for the category {diagnosis.category.value}")
        case Category.UNKNOWN:
            return _manual(diagnosis, facts, state, "the cause is not known")
        case _:
            assert_never(diagnosis.category)
    return _manual(diagnosis, facts, state, why_unreadable or action) if isinstance(action, str) else action


def _restart(diagnosis: Diagnosis, state: TargetState | None) -> RestartAction | str:
    """The restart, or why there is none."""
    suspects = [one for one in state.instances if one.name in diagnosis.suspect_instances] if state else []
    if not suspects:
        return "no live replica to restart"
    if len(suspects) > MAX_RESTARTS:
        return f"{len(suspects)} replicas are suspected, and at most {MAX_RESTARTS} are restarted at a time"
    return RestartAction(instances=tuple(InstanceRef(name=one.name, uid=one.uid) for one in suspects))


def _scale(facts: Facts, state: TargetState | None) -> ScaleAction | str:
    """The scaling, or why there is none."""
    if state is None or state.replicas < 1:
        return "no replica count to start from"
    if state.replicas >= MAX_REPLICAS:
        return f"{state.replicas} replicas already, and at most {MAX_REPLICAS} are asked for"
    base = state.replicas_1h_ago or state.replicas
    cap = min(int(base * MAX_SCALE_FACTOR), MAX_REPLICAS)
    if cap <= state.replicas:
        return (
            f"{state.replicas} replicas already, and the cap is {cap}: {MAX_SCALE_FACTOR:g} times those of one hour ago"
        )
    load = facts.traffic_ratio if facts.traffic_ratio and math.isfinite(facts.traffic_ratio) else 1.0
    wanted = math.ceil(state.replicas * load)
    return ScaleAction(from_replicas=state.replicas, to_replicas=min(max(wanted, state.replicas + 1), cap))


def _manual(diagnosis: Diagnosis, facts: Facts, state: TargetState | None, why: str) -> ManualAction:
    command = manual_command(diagnosis, facts, state.ref if state else None)
    return ManualAction(command=command, why_manual=why[:MAX_WHY])


def manual_command(diagnosis: Diagnosis, facts: Facts, ref: TargetRef | None) -> str:
    """What a person would type first."""
    kubernetes = ref is not None and ref.platform == "kubernetes"
    name = ref.name if ref else diagnosis.service
    where = f" -n {ref.namespace}" if ref else ""
    match diagnosis.category:
        case Category.MEMORY:
            return f"kubectl rollout restart deployment/{name}{where}" if kubernetes else f"restart {name} one by one"
        case Category.SATURATION:
            return (
                f"kubectl scale deployment/{name}{where} --replicas=<now × load>"
                if kubernetes
                else f"add replicas to {name}"
            )
        case Category.BAD_CHANGE:
            commits = [one.revision for one in facts.recent_changes if one.kind is ChangeKind.CONFIGURATION]
            if kubernetes and not commits:
                return f"kubectl rollout undo deployment/{name}{where}"
            if not commits:
                return "git log -5 --stat && git revert --no-edit <the change before the errors began>"
            last = commits[-1][:SHORT_REVISION]
            # People paste this: nothing but a commit's name may stand there.
            if not re.fullmatch(r"[0-9a-f]{7,40}", last):
                return "git log -5 --stat && git revert --no-edit <the change before the errors began>"
            return f"git show --stat {last} && git revert --no-edit {last}"
        case Category.DISK:
            return "du -xh --max-depth=2 <log directory> | sort -h | tail && truncate -s 0 <largest log>"
        case Category.CERTIFICATE:
            return f"cmctl renew {name}{where}" if kubernetes else "openssl x509 -noout -enddate -in <certificate file>"
        case Category.UNKNOWN:
            return f"kubectl describe deployment/{name}{where}" if kubernetes else f"look at {name}'s logs and metrics"
        case _:
            assert_never(diagnosis.category)
