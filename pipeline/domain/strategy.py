"""From a diagnosed category to actions on what a service has. Never from words in free text; numbers are computed."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import assert_never

from pipeline.domain.action import (
    MAX_CONCURRENCY,
    MAX_FILES,
    MAX_REPLICAS,
    MAX_RESTARTS,
    MAX_WHY,
    Action,
    ActionKind,
    Bounds,
    BoundsAction,
    Concurrency,
    ConcurrencyAction,
    CordonAction,
    InstanceRef,
    ManualAction,
    RenewAction,
    RestartAction,
    RevertAction,
    RollBackAction,
    RolloutRestartAction,
    ScaleAction,
    SyncAction,
    TargetAction,
    TruncateAction,
    is_reversible,
)
from pipeline.domain.action_words import describe_action
from pipeline.domain.by_hand import before_the_trouble, manual_command, newest_commit
from pipeline.domain.catalogue import Role
from pipeline.domain.changes import ChangeKind
from pipeline.domain.diagnosis import Category, Diagnosis
from pipeline.domain.effects import expected_effect, risk_of
from pipeline.domain.facts import Facts
from pipeline.domain.plan import Alternative, Platform, Risk, TargetState
from pipeline.domain.sites import Site, Sites

MAX_SCALE_FACTOR = 2.0
WORTH_TRUNCATING_SHARE = 0.05
"""Of all that the log files hold: a smaller one frees too little to be touched."""
WORTH_TRUNCATING_BYTES = 1_048_576
REMEDIES: Mapping[Category, tuple[ActionKind, ...]] = {
    Category.MEMORY: ("restart", "rollout_restart", "cordon"),
    Category.SATURATION: ("scale", "bounds", "concurrency"),
    Category.BAD_CHANGE: ("revert", "roll_back", "sync"),
    Category.DISK: ("truncate", "cordon"),
    Category.CERTIFICATE: ("renew",),
    Category.UNKNOWN: (),
}
"""What fits which cause; nothing else is proposed for it, whoever asks."""
ALTERNATIVES = 4
"""Other ways that a card names."""


@dataclass(frozen=True, slots=True)
class Option:
    """One way to go. ``state`` is the target as it was read; None for what a person does where none is known."""

    action: Action
    state: TargetState | None
    effect: str
    risk: Risk

    def as_alternative(self) -> Alternative:
        return alternative(self.action, self.state.ref.platform if self.state else None, self.effect, self.risk)


@dataclass(frozen=True, slots=True)
class _Case:
    diagnosis: Diagnosis
    facts: Facts
    sites: Sites
    number: int | None

    def site(self, role: Role) -> Site:
        missing = f"the catalogue names no {role.value} for {self.diagnosis.service}"
        return self.sites.get(role, Site(role, problem=missing))


def alternative(action: Action, platform: Platform | None, effect: str, risk: Risk) -> Alternative:
    """``action`` as a way that was not taken."""
    what = action.command if isinstance(action, ManualAction) else describe_action(action)
    return Alternative(
        kind=action.kind,
        what=what[:400],
        effect=effect[:300],
        risk=risk,
        reversible=is_reversible(action),
        platform=platform,
        number=_leads_to(action),
    )


def _leads_to(action: Action) -> int | None:
    match action:
        case ScaleAction():
            return action.to_replicas
        case BoundsAction():
            return action.to_bounds.minimum
        case ConcurrencyAction():
            then = action.to_concurrency
            return then.provisioned if then.provisioned is not None else then.reserved
        case _:
            return None


_Builder = Callable[[_Case, Site], TargetAction | str]
"""The action on a site, or why there is none."""


def options(
    diagnosis: Diagnosis,
    facts: Facts,
    sites: Sites,
    *,
    in_vain: Collection[ActionKind] = (),
    number: int | None = None,
) -> tuple[Option, ...]:
    """What could be done about ``diagnosis``, the best first; the last is what a person would do by hand.

    ``in_vain``: kinds of action that did not help this trouble; they are not offered again. ``number``: of replicas, or
    of calls at once, that somebody chose, in place of what the load asks for.
    """
    case = _Case(diagnosis, facts, sites, number)
    found: list[Option] = []
    reasons: list[str] = []
    lacking: list[str] = []
    for kind, role, build in _ways(case):
        site = case.site(role)
        action = site.why_not(kind) or (f"a {kind.replace('_', ' ')} did not help" if kind in in_vain else "")
        made = action or build(case, site)
        if isinstance(made, str):
            (reasons if site.state is None or kind in site.declared.kinds else lacking).append(made)
        elif all(one.action != made for one in found):
            found.append(Option(made, site.state, expected_effect(made, diagnosis.category), risk_of(made, site.state)))
    return (*found, _by_hand(case, reasons or lacking))


def _ways(case: _Case) -> Iterator[tuple[ActionKind, Role, _Builder]]:
    """By category, the best first: what changes least of what works comes before what changes more."""
    match case.diagnosis.category:
        case Category.MEMORY:
            yield "restart", Role.WORKLOAD, _restart
            yield "rollout_restart", Role.WORKLOAD, _rollout_restart
            if Role.NODE in case.sites:
                yield "cordon", Role.NODE, _cordon
        case Category.SATURATION:
            state = case.site(Role.WORKLOAD).state
            if state is None or state.concurrency is None:
                yield "scale", Role.WORKLOAD, _scale
            if state is not None and state.bounds is not None:
                yield "bounds", Role.WORKLOAD, _bounds
            if state is not None and state.concurrency is not None:
                yield "concurrency", Role.WORKLOAD, _concurrency
        case Category.BAD_CHANGE:
            revert: tuple[ActionKind, Role, _Builder] = ("revert", Role.CONFIG, _revert)
            if not _last_was_deployed(case.facts):
                yield revert
            yield "roll_back", Role.WORKLOAD, _roll_back
            if Role.CONFIG in case.sites:
                yield "roll_back", Role.CONFIG, _roll_back
                yield "sync", Role.CONFIG, _sync
                yield revert
        case Category.DISK:
            yield "truncate", Role.LOGS, _truncate
            if Role.NODE in case.sites:
                yield "cordon", Role.NODE, _cordon
        case Category.CERTIFICATE:
            yield "renew", Role.CERTIFICATE, _renew
        case Category.UNKNOWN:
            return
        case _:
            assert_never(case.diagnosis.category)


def _restart(case: _Case, site: Site) -> TargetAction | str:
    suspects = _suspects(case, site)
    if not suspects:
        return "no live replica to restart"
    if len(suspects) > MAX_RESTARTS:
        return f"{len(suspects)} replicas are suspected, and at most {MAX_RESTARTS} are restarted at a time"
    return RestartAction(instances=suspects)


def _suspects(case: _Case, site: Site) -> tuple[InstanceRef, ...]:
    names, live = case.diagnosis.suspect_instances, site.state.instances if site.state else ()
    return tuple(InstanceRef(name=one.name, uid=one.uid) for one in live if one.name in names)


def _rollout_restart(case: _Case, site: Site) -> TargetAction | str:
    """Of every replica when every one is suspected, or where the platform cannot restart one alone."""
    suspected, live = len(_suspects(case, site)), len(site.state.instances) if site.state else 0
    if site.takes("restart") and not 0 < live == suspected:
        return f"{suspected} of {live} replicas are suspected" if suspected else "no live replica to restart"
    return RolloutRestartAction(cancellable=site.declared.reverses("rollout_restart"))


def _cordon(case: _Case, site: Site) -> TargetAction | str:
    """Only when all that is suspected is on one node, and something else of the service is not."""
    del case
    if site.state is None or site.state.cordoned is None:
        return site.problem or "the node does not say whether it is cordoned"
    return "the node is cordoned already" if site.state.cordoned else CordonAction(cordoned=True)


def _scale(case: _Case, site: Site) -> TargetAction | str:
    state = site.state
    if state is None or state.replicas < 1:
        return "no replica count to start from"
    if state.bounds is not None and state.replicas >= state.bounds.maximum:
        return f"{state.replicas} replicas already, and {state.bounds.maximum} is its own maximum"
    wanted = _wanted_replicas(case, state)
    if isinstance(wanted, str):
        return wanted
    most = state.bounds.maximum if state.bounds is not None else MAX_REPLICAS
    return ScaleAction(from_replicas=state.replicas, to_replicas=min(wanted, most))


def _bounds(case: _Case, site: Site) -> TargetAction | str:
    """Room for the replicas that the load asks for, and as many at least: the autoscaler goes on ruling."""
    state = site.state
    if state is None or state.bounds is None:
        return "no autoscaler rules over the replicas"
    if state.replicas < 1:
        return "no replica count to start from"
    wanted = _wanted_replicas(case, state)
    if isinstance(wanted, str):
        return wanted
    now = state.bounds
    then = Bounds(minimum=max(now.minimum, wanted), maximum=max(now.maximum, wanted))
    return BoundsAction(from_bounds=now, to_bounds=then)


def _wanted_replicas(case: _Case, state: TargetState) -> int | str:
    """Replicas as chosen or in proportion to the load, more than there are, within the cap; or why it cannot be so."""
    if case.number is not None and case.number <= state.replicas:
        return f"{state.replicas} replicas are wanted already"
    if state.replicas >= MAX_REPLICAS:
        return f"{state.replicas} replicas already, and at most {MAX_REPLICAS} are asked for"
    base = state.replicas_1h_ago or state.replicas
    cap = min(int(base * MAX_SCALE_FACTOR), MAX_REPLICAS)
    if cap <= state.replicas:
        return (
            f"{state.replicas} replicas already, and the cap is {cap}: {MAX_SCALE_FACTOR:g} times those of one hour ago"
        )
    return min(case.number or max(math.ceil(state.replicas * _load(case.facts)), state.replicas + 1), cap)


def _load(facts: Facts) -> float:
    return facts.traffic_ratio if facts.traffic_ratio and math.isfinite(facts.traffic_ratio) else 1.0


def _concurrency(case: _Case, site: Site) -> TargetAction | str:
    now = site.state.concurrency if site.state else None
    if now is None:
        return "no concurrency is set"

    def more(number: int) -> int:
        wanted = case.number or max(math.ceil(number * _load(case.facts)), number + 1)
        return min(max(wanted, number), int(number * MAX_SCALE_FACTOR), MAX_CONCURRENCY)

    if now.provisioned is not None:
        most = now.reserved if now.reserved is not None else MAX_REPLICAS * 100
        then = now.model_copy(update={"provisioned": min(more(now.provisioned), most)})
    elif now.reserved:
        then = Concurrency(reserved=more(now.reserved))
    else:
        return "no concurrency is set that could be raised"
    return ConcurrencyAction(from_concurrency=now, to_concurrency=then) if then != now else "its concurrency is full"


def _revert(case: _Case, site: Site) -> TargetAction | str:
    commit = newest_commit(case.facts)
    if commit is None or site.state is None:
        return "no commit of this service was read from before the trouble"
    at = next((at for at, one in enumerate(site.state.revisions) if one.name == commit.revision), None)
    if at is None:
        return f"the commit {commit.revision[:12]} is not among the latest of {site.state.ref.describe()}"
    if any(one.title == f'Revert "{site.state.revisions[at].title}"' for one in site.state.revisions[:at]):
        return f"the commit {commit.revision[:12]} was reverted already"
    return RevertAction(commit=commit.revision, title=commit.title[:200])


def _last_was_deployed(facts: Facts) -> bool:
    kinds = [one.kind for one in before_the_trouble(facts) if one.kind is not ChangeKind.SCALING]
    return bool(kinds) and kinds[-1] is ChangeKind.DEPLOYMENT


def _roll_back(case: _Case, site: Site) -> TargetAction | str:
    """Only of what was changed: an earlier revision of what was not would be another change, and an old one."""
    own = {ChangeKind.DEPLOYMENT} if site.role is Role.WORKLOAD else {ChangeKind.DEPLOYMENT, ChangeKind.CONFIGURATION}
    if not any(one.kind in own for one in before_the_trouble(case.facts)):
        return f"nothing of its {site.role.value} was rolled out shortly before the trouble"
    state = site.state
    if state is None or not state.rollout or not state.revisions:
        return "there is no earlier revision to go back to"
    return RollBackAction(from_revision=state.rollout, to_revision=state.revisions[0].name)


def _sync(case: _Case, site: Site) -> TargetAction | str:
    """To what the repository says, where what runs is something else."""
    del case
    state = site.state
    if state is None or not state.revision or not state.wanted_revision:
        return "what runs is what its repository says"
    return SyncAction(from_revision=state.revision, to_revision=state.wanted_revision)


def _truncate(case: _Case, site: Site) -> TargetAction | str:
    """The files that hold what there is to free, the largest first."""
    del case
    files = sorted(site.state.files if site.state else (), key=lambda one: -one.size_bytes)
    least = max(WORTH_TRUNCATING_BYTES, WORTH_TRUNCATING_SHARE * sum(one.size_bytes for one in files))
    worth = [one for one in files if one.size_bytes >= least][:MAX_FILES]
    return TruncateAction(files=tuple(worth)) if worth else "no log file there is large enough to free much"


def _renew(case: _Case, site: Site) -> TargetAction | str:
    del case
    if site.state is None or site.state.not_after is None:
        return "the certificate does not say when it ends"
    return RenewAction(not_after=site.state.not_after, keeps_previous=site.declared.reverses("renew"))


def _by_hand(case: _Case, reasons: list[str]) -> Option:
    unknown = case.diagnosis.category is Category.UNKNOWN
    why = "the cause is not known" if unknown else "; ".join(dict.fromkeys(one for one in reasons if one))
    command = manual_command(case.diagnosis, case.facts, case.sites)
    action = ManualAction(command=command, why_manual=(why or "a person prefers to")[:MAX_WHY])
    state = case.site(Role.WORKLOAD).state
    return Option(action, state, expected_effect(action, case.diagnosis.category), "medium")
