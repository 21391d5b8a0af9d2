"""Another plan at a person's word: a new revision on the table, through the same checks; nothing is done by it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from executors.guardrails.gate import decide
from executors.guardrails.inputs import observe_or_none, read_facts
from pipeline.domain.catalogue import Catalogue
from pipeline.domain.diagnosis import Category
from pipeline.domain.errors import PermanentError, TemporaryError
from pipeline.domain.ids import IncidentId, SlackUserId
from pipeline.domain.incident import Case
from pipeline.domain.lifecycle import IncidentState
from pipeline.domain.phase import Phase
from pipeline.domain.plan import (
    MAX_RESTARTS,
    InstanceRef,
    RestartAction,
    ScaleAction,
    TargetAction,
    TargetState,
    describe_action,
)
from pipeline.ports.plans import PlanDraft
from pipeline.ports.store import Store
from pipeline.ports.targets import Targets
from pipeline.stages.advance import advance, line, record
from pipeline.stages.propose import Proposer, expected_effect, planned
from pipeline.stages.settings import LoopSettings

_REVISABLE = frozenset({IncidentState.AWAITING_DECISION, IncidentState.ESCALATED})


class Wanted(BaseModel):
    """The closed form of what may be proposed: other replicas of the incident's own target, or another number."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    action: Literal["restart", "scale"]
    instances: Annotated[tuple[str, ...], Field(max_length=MAX_RESTARTS)] = ()
    replicas: Annotated[int, Field(ge=1, le=1000)] | None = None


class Reviser:
    """Makes revisions. Whoever asks for one may not approve it."""

    def __init__(
        self, store: Store, targets: Targets, catalogue: Catalogue, proposer: Proposer, settings: LoopSettings
    ) -> None:
        self._store = store
        self._targets = targets
        self._catalogue = catalogue
        self._proposer = proposer
        self._settings = settings

    async def revise(self, incident_id: IncidentId, wanted: Wanted, user: SlackUserId) -> str:
        """Puts the plan on the table, or says why not. Raises PermanentError or TemporaryError with the reason."""
        async with self._store.begin() as uow:
            case = await uow.incidents.case(incident_id)
        diagnosis = case.diagnosis if case is not None else None
        if case is None or diagnosis is None:
            raise PermanentError("there is no diagnosis yet to make a plan from")
        address = self._catalogue[case.incident.service].target
        if address is None:
            raise PermanentError(f"the catalogue names no target for {case.incident.service}")
        target = self._targets.for_platform(address.platform)
        observed = await observe_or_none(target, await target.resolve(address))
        if observed is None:
            raise TemporaryError("the target cannot be read now")
        action = _action(wanted, diagnosis.category, observed)
        doubt = _doubt(action, diagnosis.suspect_instances)
        async with self._store.begin() as uow:
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
            draft = PlanDraft(
                incident_id=incident_id,
                action=action,
                target=observed.ref,
                generation=observed.generation,
                replicas_before=observed.replicas,
                approvals_needed=self._proposer.approvals_needed(case.incident),
                expected_effect=doubt or expected_effect(action),
                ttl_s=self._settings.approval_ttl_s,
                requested_by=user,
                target_revision=observed.revision,
            )
            plan = await uow.plans.propose(draft, guardrails)
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


def _closed(case: Case) -> str:
    if case.incident.state in _REVISABLE:
        return ""
    return "the incident is over" if case.incident.over else "it is being acted on right now"


def _action(wanted: Wanted, category: Category, observed: TargetState) -> TargetAction:
    """The action on what is there now; only the kind that the diagnosed category calls for."""
    fits = {Category.MEMORY: "restart", Category.SATURATION: "scale"}.get(category)
    if wanted.action != fits:
        what = f"a {fits}" if fits else "no action of ours"
        raise PermanentError(f"the checked cause is {category.value.replace('_', ' ')}: {what} fits it")
    if wanted.action == "scale":
        if wanted.replicas is None or wanted.replicas == observed.replicas:
            raise PermanentError(f"say to how many replicas; {observed.replicas} are wanted now")
        return ScaleAction(from_replicas=observed.replicas, to_replicas=wanted.replicas)
    by_name = {one.name: one for one in observed.instances}
    if not wanted.instances:
        raise PermanentError(f"name the replicas to restart: {', '.join(sorted(by_name))}")
    if unknown := [name for name in wanted.instances if name not in by_name]:
        raise PermanentError(f"no such replica: {', '.join(unknown)[:100]}; there are {', '.join(sorted(by_name))}")
    chosen = dict.fromkeys(wanted.instances)
    return RestartAction(instances=tuple(InstanceRef(name=name, uid=by_name[name].uid) for name in chosen))


def _doubt(action: TargetAction, suspects: Sequence[str]) -> str:
    """What speaks against the plan: replicas that nothing abnormal was read of."""
    if isinstance(action, ScaleAction):
        return ""
    sound = [one.name for one in action.instances if one.name not in suspects]
    return f"nothing abnormal was read of {', '.join(sound)}: it may not help" if sound else ""


def _short(action: TargetAction) -> str:
    described = describe_action(action)
    return described[0].lower() + described[1:]
