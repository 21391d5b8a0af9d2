"""From a diagnosis to a plan: strategy, guardrails, and what the card will offer."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress

from executors.guardrails.gate import decide
from executors.guardrails.inputs import read_facts
from pipeline.domain.action import Action, ManualAction
from pipeline.domain.action_words import describe_action
from pipeline.domain.approval import choose_rule, rules_in_force
from pipeline.domain.catalogue import Catalogue
from pipeline.domain.confidence import PROPOSE_FROM
from pipeline.domain.diagnosis import Category, Conclusion, Diagnosis, Evidence, Passage
from pipeline.domain.guardrail import GuardrailResult
from pipeline.domain.incident import Incident
from pipeline.domain.lifecycle import IncidentState, PlanState
from pipeline.domain.notice import ThreadNotice, ThreadPart
from pipeline.domain.phase import Phase
from pipeline.domain.plan import Plan
from pipeline.domain.strategy import ALTERNATIVES, Option, options
from pipeline.domain.trace import TraceEntry, TraceKind
from pipeline.ports.plans import PlanDraft
from pipeline.ports.store import Store, UnitOfWork
from pipeline.ports.targets import Targets
from pipeline.stages.advance import advance
from pipeline.stages.investigate import Dossier
from pipeline.stages.settings import LoopSettings
from pipeline.stages.sites import SiteReader

_PARTS = (ThreadNotice(part=ThreadPart.EVIDENCE), ThreadNotice(part=ThreadPart.REASONING))


class Proposer:
    """Records the diagnosis and the plan made from it, in one transaction."""

    def __init__(self, store: Store, targets: Targets, catalogue: Catalogue, settings: LoopSettings) -> None:
        self._store = store
        self._sites = SiteReader(targets, catalogue)
        self._catalogue = catalogue
        self._settings = settings

    async def run(
        self,
        incident: Incident,
        diagnosis: Diagnosis,
        dossier: Dossier,
        evidence: Sequence[Evidence],
        passages: Sequence[Passage],
        entries: Sequence[TraceEntry],
    ) -> None:
        """Leaves the incident awaiting a decision, or escalated with the reason why nothing is offered.

        Nothing is stored when the incident was closed or folded meanwhile: no plan may wait for one that is over.
        """
        with suppress(_Moved):
            await self._record(incident, diagnosis, dossier, evidence, passages, entries)

    async def _record(
        self,
        incident: Incident,
        diagnosis: Diagnosis,
        dossier: Dossier,
        evidence: Sequence[Evidence],
        passages: Sequence[Passage],
        entries: Sequence[TraceEntry],
    ) -> None:
        sites = await self._sites.read(
            incident.service, dossier.target, dossier.target_problem, diagnosis.suspect_instances
        )
        ways = options(diagnosis, dossier.facts, sites, in_vain=dossier.facts.in_vain)
        async with self._store.begin() as uow:
            if dossier.target is not None:
                await uow.history.saw(dossier.target.ref.uid, dossier.target.replicas)
            chosen, guardrails = await self._choose(uow, incident, diagnosis, ways)
            action, others = chosen.action, [one for one in ways if one is not chosen]
            plan = await uow.plans.propose(self.draft(incident, chosen, others), guardrails)
            await uow.incidents.save_diagnosis(incident.id, diagnosis, evidence, passages)
            entries = [*entries, *planned(plan, guardrails)]
            why_not = await self._why_not_offered(uow, diagnosis, action, guardrails)
            healthy = diagnosis.conclusion is Conclusion.HEALTHY
            if why_not:
                await uow.plans.move(plan.id, PlanState.PROPOSED, PlanState.BLOCKED)
            moved = await advance(
                uow,
                incident,
                IncidentState.ESCALATED if why_not else IncidentState.AWAITING_DECISION,
                outcome=why_not or "",
                entries=entries,
                notices=_PARTS,
                attended=healthy or await _phase(uow) is Phase.SHADOW,
            )
            if moved is None:
                raise _Moved

    async def _choose(
        self, uow: UnitOfWork, incident: Incident, diagnosis: Diagnosis, ways: Sequence[Option]
    ) -> tuple[Option, GuardrailResult]:
        """The best way that the guardrails allow; where they allow none, the best with what they say of it."""
        first: tuple[Option, GuardrailResult] | None = None
        for way in ways:
            if isinstance(way.action, ManualAction):
                break
            guardrails = await self._gate(uow, incident, diagnosis, way)
            if guardrails.allowed:
                return way, guardrails
            first = first or (way, guardrails)
        return first or (ways[-1], GuardrailResult())

    def draft(
        self, incident: Incident, chosen: Option, others: Sequence[Option], *, effect: str = "", requested_by: str = ""
    ) -> PlanDraft:
        """The plan for ``chosen``, bound to its target as it was read; ``effect`` in place of what is expected."""
        state = chosen.state
        return PlanDraft(
            incident_id=incident.id,
            action=chosen.action,
            target=state.ref if state else None,
            generation=state.generation if state else "",
            replicas_before=state.replicas if state else 0,
            approvals_needed=self.approvals_needed(incident),
            expected_effect=effect or chosen.effect,
            ttl_s=self._settings.approval_ttl_s,
            requested_by=requested_by,
            target_revision=state.revision if state else "",
            risk=chosen.risk,
            alternatives=tuple(one.as_alternative() for one in others)[:ALTERNATIVES],
        )

    def approvals_needed(self, incident: Incident) -> int:
        """How many people the policy asks for; at the click it is asked again."""
        rules = rules_in_force(self._catalogue.approvals, self._settings.approvals)
        return choose_rule(rules, self._catalogue[incident.service].tier, incident.severity).people

    async def _gate(
        self,
        uow: UnitOfWork,
        incident: Incident,
        diagnosis: Diagnosis,
        chosen: Option,
    ) -> GuardrailResult:
        action, state = chosen.action, chosen.state
        if isinstance(action, ManualAction) or state is None:
            return GuardrailResult()
        facts = await read_facts(
            uow,
            catalogue=self._settings.catalogue,
            incident=incident,
            action=action,
            ref=state.ref,
            generation=state.generation,
            observed=state,
            diagnosis=diagnosis,
            plan_id=None,
            started=False,
            rollback=False,
        )
        return decide(facts, self._settings.limits)

    async def _why_not_offered(
        self,
        uow: UnitOfWork,
        diagnosis: Diagnosis,
        action: Action,
        guardrails: GuardrailResult,
    ) -> str:
        if diagnosis.conclusion is Conclusion.HEALTHY:
            return "healthy now: every series is back inside its bounds, nothing is to be done"
        if diagnosis.conclusion is Conclusion.INSUFFICIENT_EVIDENCE:
            return f"insufficient evidence: {_missing(diagnosis)}"
        if diagnosis.category is not Category.UNKNOWN and not diagnosis.path.holds:
            return f"no checked causal path ({diagnosis.path.why_not()}): nothing is proposed"
        if isinstance(action, ManualAction):
            return f"to be done by hand: {action.why_manual}"
        if await _phase(uow) is Phase.SHADOW:
            return f"shadow phase: would have proposed “{describe_action(action)}”"
        if diagnosis.confidence.score < PROPOSE_FROM:
            return f"confidence {diagnosis.confidence.score:.2f} is below {PROPOSE_FROM:.2f}: nothing is proposed"
        if not guardrails.allowed:
            return f"blocked by guardrails: {guardrails.why_refused()}"
        return ""


async def _phase(uow: UnitOfWork) -> Phase:
    return await uow.control.phase() or Phase.SHADOW


def _missing(diagnosis: Diagnosis) -> str:
    return f"missing: {'; '.join(diagnosis.missing)}" if diagnosis.missing else "no cause is singled out"


def planned(plan: Plan, guardrails: GuardrailResult) -> list[TraceEntry]:
    """The plan and what the guardrails say of it, for the trail."""
    entries = [
        TraceEntry(
            TraceKind.PLANNED,
            f"plan {plan.revision}: {describe_action(plan.action)}",
            {
                "plan": plan.id,
                "hash": plan.hash,
                "action": plan.action.model_dump(mode="json"),
                "target": plan.target.model_dump(mode="json") if plan.target else None,
                "generation": plan.generation,
                "requested_by": plan.requested_by,
                "risk": plan.risk,
                "alternatives": [one.model_dump(mode="json") for one in plan.alternatives],
            },
        )
    ]
    if guardrails.answers:
        entries.append(guardrail_entry("at the proposal", guardrails))
    return entries


def guardrail_entry(when: str, result: GuardrailResult) -> TraceEntry:
    """Every rule's answer as one trace entry."""
    refused = ", ".join(answer.rule for answer in result.refusals)
    return TraceEntry(
        TraceKind.GUARDRAILS,
        f"guardrails {when}: " + (f"refused by {refused}" if refused else "all allow"),
        {
            "allowed": result.allowed,
            "answers": [
                {"rule": one.rule, "allowed": one.allowed, "reason": one.reason, "inputs": dict(one.inputs)}
                for one in result.answers
            ],
        },
    )


class _Moved(Exception):
    """Rolls the proposal back: somebody moved the incident on in this very moment."""
