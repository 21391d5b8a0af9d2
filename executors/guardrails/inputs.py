"""Reading the facts: one place, so that the card and the claim judge by the same measure."""

from __future__ import annotations

from executors.guardrails.facts import GuardrailFacts
from pipeline.domain.action import TargetAction
from pipeline.domain.catalogue import Catalogue
from pipeline.domain.diagnosis import Diagnosis
from pipeline.domain.errors import PermanentError, TemporaryError
from pipeline.domain.ids import PlanId
from pipeline.domain.incident import Incident, fingerprint
from pipeline.domain.phase import Phase
from pipeline.domain.plan import TargetRef, TargetState
from pipeline.ports.store import UnitOfWork
from pipeline.ports.targets import Target

GRAPH_MAX_AGE_S = 3600.0
"""Call edges not seen for this long are forgotten."""


async def observe_or_none(target: Target, ref: TargetRef) -> TargetState | None:
    """The target's state, or None when it cannot be read: the rules block on that."""
    try:
        return await target.observe(ref)
    except (TemporaryError, PermanentError):
        return None


async def read_facts(
    uow: UnitOfWork,
    *,
    catalogue: Catalogue,
    incident: Incident,
    action: TargetAction,
    ref: TargetRef,
    generation: str,
    observed: TargetState | None,
    diagnosis: Diagnosis | None,
    plan_id: PlanId | None,
    started: bool,
    rollback: bool,
    at_once: int = 1,
) -> GuardrailFacts:
    """Everything the rules look at, from the store and the target's state just observed, whose replicas are noted.

    ``at_once``: replicas of a restart that go at the same time.
    Raises TemporaryError when the store cannot be read: then nobody may go on.
    """
    service, environment = incident.service, incident.environment
    graph = await uow.telemetry.graph(max_age_s=GRAPH_MAX_AGE_S)
    callers = graph.callers(service) if graph.knows(service) else None
    if observed is not None and observed.replicas:
        await uow.history.saw(ref.uid, observed.replicas)
    trouble = fingerprint(environment, service, incident.family)
    return GuardrailFacts(
        service=service,
        environment=environment,
        action=action,
        at_once=at_once,
        target=ref,
        planned_generation=generation,
        started=started,
        rollback=rollback,
        observed=observed,
        callers=callers,
        tier1_callers=frozenset(caller for caller in callers or () if catalogue[caller].tier == 1),
        switch=await uow.control.engaged(service, environment),
        calendar=catalogue.calendar(service, environment),
        history=await uow.history.of(ref.uid, action.kind, trouble, besides=plan_id),
        phase=await uow.control.phase() or Phase.SHADOW,
        confidence=diagnosis.confidence.score if diagnosis else 0.0,
        path_problem=diagnosis.path.why_not() if diagnosis else "no diagnosis",
    )
