"""Another plan at a person's word: a new revision on the table, through the same checks; nothing is done by it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from executors.guardrails.gate import decide
from executors.guardrails.inputs import read_facts
from pipeline.domain.action import MAX_RESTARTS, InstanceRef, ManualAction, RestartAction, ScaleAction, TargetAction
from pipeline.domain.action_words import describe_action
from pipeline.domain.catalogue import Catalogue, Role
from pipeline.domain.diagnosis import Diagnosis
from pipeline.domain.effects import expected_effect, risk_of
from pipeline.domain.errors import PermanentError, TemporaryError
from pipeline.domain.facts import Facts
from pipeline.domain.ids import IncidentId, PlanId, SlackUserId
from pipeline.domain.incident import Case, Incident
from pipeline.domain.lifecycle import IncidentState, PlanState
from pipeline.domain.phase import Phase
from pipeline.domain.plan import Alternative, Plan, Platform, TargetState
from pipeline.domain.strategy import ALTERNATIVES, REMEDIES, Option, alternative, options
from pipeline.ports.store import Store
from pipeline.ports.targets import Targets
from pipeline.stages.advance import advance, line, record
from pipeline.stages.propose import Proposer, planned
from pipeline.stages.settings import LoopSettings
from pipeline.stages.sites import SiteReader

BEFORE_S = 3600.0
"""How long before an incident a change may have been made that a person wants taken back."""
_REVISABLE = frozenset({IncidentState.AWAITING_DECISION, IncidentState.ESCALATED})


WantedAction = Literal[
    "restart",
    "rollout_restart",
    "scale",
    "bounds",
    "concurrency",
    "roll_back",
    "revert",
    "sync",
    "truncate",
    "renew",
    "cordon",
]


class Wanted(BaseModel):
    """The closed form of what may be proposed: one of the actions that fit the checked cause. Of a restart the replicas
    and of a scale their number can be said; what is not said, and all else, is computed."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    action: WantedAction
    instances: Annotated[tuple[str, ...], Field(max_length=MAX_RESTARTS)] = ()
    replicas: Annotated[int, Field(ge=1, le=1000)] | None = None


class Reviser:
    """Makes revisions. Whoever asks for one may not approve it."""

    def __init__(
        self, store: Store, targets: Targets, catalogue: Catalogue, proposer: Proposer, settings: LoopSettings
    ) -> None:
        self._store = store
        self._targets = targets
        self._sites = SiteReader(targets, catalogue)
        self._catalogue = catalogue
        self._proposer = proposer
        self._settings = settings

    async def revise(
        self,
        incident_id: IncidentId,
        wanted: Wanted,
        user: SlackUserId,
        *,
        instead_of: PlanId | None = None,
        platform: Platform | None = None,
    ) -> str:
        """Puts the plan on the table, or says why not. Raises PermanentError or TemporaryError with the reason.

        ``instead_of``: only while this plan waits. ``platform``: where it is to be done; None: the first that can.
        """
        async with self._store.begin() as uow:
            case = await uow.incidents.case(incident_id)
        diagnosis = case.diagnosis if case is not None else None
        if case is None or diagnosis is None:
            raise PermanentError("there is no diagnosis yet to make a plan from")
        option = await self._option(case, diagnosis, wanted, platform)
        action, observed = option.action, option.state
        if observed is None or isinstance(action, ManualAction):
            raise PermanentError("there is nothing that an executor could do")
        doubt = _doubt(action, diagnosis.suspect_instances)
        async with self._store.begin() as uow:
            shown = await uow.plans.get(instead_of) if instead_of is not None else None
            if shown is not None and shown.state is not PlanState.PROPOSED:
                raise PermanentError("the proposal was decided or replaced meanwhile")
            case = await uow.incidents.case(incident_id)
            if case is None or (why := _closed(case)):
                raise PermanentError(why if case is not None else "the incident is not known any more")
            if (await uow.control.phase() or Phase.SHADOW) is Phase.SHADOW:
                raise PermanentError("shadow phase: nothing is proposed")
            facts = await read_facts(
                uow,
                catalogue=self._settings.catalogue,
                incident=case.incident,
                action=action,
                ref=observed.ref,
                generation=observed.generation,
                observed=observed,
                diagnosis=diagnosis,
                plan_id=None,
                started=False,
                rollback=False,
            )
            guardrails = decide(facts, self._settings.limits)
            if not guardrails.allowed:
                raise PermanentError(f"guardrails refuse it: {guardrails.why_refused()}")
            draft = self._proposer.draft(case.incident, option, (), effect=doubt, requested_by=user)
            plan = await uow.plans.propose(replace(draft, alternatives=_left(case.plan, option)), guardrails)
            entries, said = planned(plan, guardrails), line(f"🛠 <@{user}> asked for another plan: {_short(action)}.")
            # An approval that was given meanwhile held the plan before this one: what it began is not taken back.
            current = await uow.incidents.get(incident_id)
            if current is None or current.state is not case.incident.state:
                raise TemporaryError("somebody moved the incident on in this moment; look at the card")
            incident = current
            if incident.state is IncidentState.ESCALATED:
                reopened = await advance(uow, incident, IncidentState.DIAGNOSING, outcome="")
                moved = reopened and await advance(
                    uow, reopened, IncidentState.AWAITING_DECISION, entries=entries, notices=[said]
                )
                if not moved:
                    raise TemporaryError("somebody moved the incident on in this moment; look at the card")
            else:
                await record(uow, incident_id, entries=entries, notices=[said])
        waits = "It waits on the card, for somebody else to approve" + (f"; {doubt}" if doubt else "")
        return f"Proposed as revision {plan.revision}: {describe_action(action)}. {waits}."

    async def _option(self, case: Case, diagnosis: Diagnosis, wanted: Wanted, platform: Platform | None) -> Option:
        """What is asked for, on what is there now; only a kind that the diagnosed category calls for."""
        incident = case.incident
        fits = REMEDIES[diagnosis.category]
        if wanted.action not in fits:
            what = " or ".join(f"a {kind.replace('_', ' ')}" for kind in fits) or "no action of ours"
            category = diagnosis.category.value.replace("_", " ")
            raise PermanentError(f"the checked cause is {category}: {what} fits it")
        workload, problem = await self._workload(incident)
        sites = await self._sites.read(incident.service, workload, problem, diagnosis.suspect_instances)
        if _says_it(wanted):
            site = sites.get(Role.WORKLOAD)
            if site is None or site.state is None:
                raise TemporaryError(f"the target cannot be read now: {problem}")
            if why := site.why_not(wanted.action):
                raise PermanentError(why)
            action = _named(wanted, site.state)
            effect = expected_effect(action, diagnosis.category)
            return Option(action, site.state, effect, risk_of(action, site.state))
        async with self._store.begin() as uow:
            changes = await uow.telemetry.changes(incident.opened_at - timedelta(seconds=BEFORE_S))
        facts = Facts(
            recent_changes=tuple(one for one in changes if one.service == incident.service), began=case.lead.started_at
        )
        number = wanted.replicas or _seen_number(case.plan, wanted)
        ways = options(diagnosis, facts, sites, number=number)
        found = next((one for one in ways if _is(one, wanted, platform)), None)
        if found is None:
            by_hand = ways[-1].action
            why = by_hand.why_manual if isinstance(by_hand, ManualAction) else ""
            raise PermanentError(why or f"a {wanted.action.replace('_', ' ')} is not possible now")
        return found

    async def _workload(self, incident: Incident) -> tuple[TargetState | None, str]:
        address = self._catalogue[incident.service].target
        if address is None:
            return None, f"the catalogue names no target for {incident.service}"
        try:
            target = self._targets.for_platform(address.platform)
            return await target.observe(await target.resolve(address)), ""
        except (TemporaryError, PermanentError) as error:
            # Another of its targets may be what is wanted.
            return None, str(error)


def _says_it(wanted: Wanted) -> bool:
    """Whether it was said in full, so that nothing is to be computed."""
    return bool(wanted.instances) if wanted.action == "restart" else wanted.action == "scale" and bool(wanted.replicas)


def _is(option: Option, wanted: Wanted, platform: Platform | None) -> bool:
    on = option.state.ref.platform if option.state is not None else None
    return option.action.kind == wanted.action and platform in (None, on)


def _seen_number(plan: Plan | None, wanted: Wanted) -> int | None:
    """What the card says that it leads to: computed by the load of then, which is what a person goes by."""
    seen = _on_the_card(plan) if plan is not None else ()
    return next((one.number for one in seen if one.kind == wanted.action), None)


def _left(plan: Plan | None, taken: Option) -> tuple[Alternative, ...]:
    """The ways that are left beside ``taken``: the plan that waited until now is one of them."""
    if plan is None:
        return ()
    ways = _on_the_card(plan) if plan.state is PlanState.PROPOSED else plan.alternatives
    on = taken.state.ref.platform if taken.state is not None else None
    return tuple(one for one in ways if (one.kind, one.platform) != (taken.action.kind, on))[:ALTERNATIVES]


def _on_the_card(plan: Plan) -> tuple[Alternative, ...]:
    platform = plan.target.platform if plan.target is not None else None
    own = alternative(plan.action, platform, plan.expected_effect, plan.risk or "medium")
    return (own, *plan.alternatives)


def _closed(case: Case) -> str:
    if case.incident.state in _REVISABLE:
        return ""
    return "the incident is over" if case.incident.over else "it is being acted on right now"


def _named(wanted: Wanted, observed: TargetState) -> RestartAction | ScaleAction:
    """The replicas, or their number, as they were said."""
    if wanted.action == "scale" and wanted.replicas is not None:
        if wanted.replicas == observed.replicas:
            raise PermanentError(f"{observed.replicas} replicas are wanted already")
        return ScaleAction(from_replicas=observed.replicas, to_replicas=wanted.replicas)
    by_name = {one.name: one for one in observed.instances}
    if unknown := [name for name in wanted.instances if name not in by_name]:
        raise PermanentError(f"no such replica: {', '.join(unknown)[:100]}; there are {', '.join(sorted(by_name))}")
    chosen = dict.fromkeys(wanted.instances)
    return RestartAction(instances=tuple(InstanceRef(name=name, uid=by_name[name].uid) for name in chosen))


def _doubt(action: TargetAction, suspects: Sequence[str]) -> str:
    """What speaks against the plan: replicas that nothing abnormal was read of."""
    if not isinstance(action, RestartAction):
        return ""
    sound = [one.name for one in action.instances if one.name not in suspects]
    return f"nothing abnormal was read of {', '.join(sound)}: it may not help" if sound else ""


def _short(action: TargetAction) -> str:
    described = describe_action(action)
    return described[0].lower() + described[1:]
