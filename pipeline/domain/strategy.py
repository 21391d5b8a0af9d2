"""From a diagnosed category to an action on a platform. Never from words in free text; parameters are computed."""

from __future__ import annotations

import math
from typing import assert_never

from pipeline.domain.diagnosis import Category, Diagnosis
from pipeline.domain.facts import Facts
from pipeline.domain.plan import InstanceRef, ManualAction, RestartAction, ScaleAction, TargetRef, TargetState

MAX_SCALE_FACTOR = 2.0


def choose_action(
    diagnosis: Diagnosis, facts: Facts, state: TargetState | None, why_unreadable: str
) -> RestartAction | ScaleAction | ManualAction:
    """The action for ``diagnosis`` on a target read as ``state``; manual, with the command, where none can be taken."""
    match diagnosis.category:
        case Category.MEMORY:
            return _restart(diagnosis, state) or _manual(
                diagnosis, state, why_unreadable or "no live replica to restart"
            )
        case Category.SATURATION:
            return _scale(facts, state) or _manual(diagnosis, state, why_unreadable or "no replica count to start from")
        case Category.BAD_CHANGE | Category.DISK | Category.CERTIFICATE:
            return _manual(diagnosis, state, f"no executor here for the category {diagnosis.category.value}")
        case Category.UNKNOWN:
            return _manual(diagnosis, state, "the cause is not known")
        case _:
            assert_never(diagnosis.category)


def _restart(diagnosis: Diagnosis, state: TargetState | None) -> RestartAction | None:
    if state is None:
        return None
    suspects = [one for one in state.instances if one.name in diagnosis.suspect_instances]
    if not suspects:
        return None
    return RestartAction(instances=tuple(InstanceRef(name=one.name, uid=one.uid) for one in suspects))


def _scale(facts: Facts, state: TargetState | None) -> ScaleAction | None:
    if state is None or state.replicas < 1:
        return None
    base = state.replicas_1h_ago or state.replicas
    cap = int(base * MAX_SCALE_FACTOR)
    wanted = math.ceil(state.replicas * (facts.traffic_ratio or 1.0))
    to = min(max(wanted, state.replicas + 1), cap)
    return ScaleAction(from_replicas=state.replicas, to_replicas=to) if to > state.replicas else None


def _manual(diagnosis: Diagnosis, state: TargetState | None, why: str) -> ManualAction:
    return ManualAction(command=manual_command(diagnosis, state.ref if state else None), why_manual=why)


def manual_command(diagnosis: Diagnosis, ref: TargetRef | None) -> str:
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
            return (
                f"kubectl rollout undo deployment/{name}{where}"
                if kubernetes
                else "git log -5 --stat && git revert --no-edit <the change before the errors began>"
            )
        case Category.DISK:
            return "du -xh --max-depth=2 <log directory> | sort -h | tail && truncate -s 0 <largest log>"
        case Category.CERTIFICATE:
            return f"cmctl renew {name}{where}" if kubernetes else "openssl x509 -noout -enddate -in <certificate file>"
        case Category.UNKNOWN:
            return f"kubectl describe deployment/{name}{where}" if kubernetes else f"look at {name}'s logs and metrics"
        case _:
            assert_never(diagnosis.category)
