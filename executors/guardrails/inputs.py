"""Reading the facts: one place, so that the card and the claim judge by the same measure."""

from __future__ import annotations

from executors.guardrails.facts import GuardrailFacts
from pipeline.domain.diagnosis import Diagnosis
from pipeline.domain.errors import PermanentError, TemporaryError
from pipeline.domain.ids import PlanId, ServiceName
from pipeline.domain.phase import Phase
from pipeline.domain.plan import (
    TargetAction,
    TargetRef,
    TargetState,
)
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
    service: ServiceName,
    action: TargetAction,
    ref: TargetRef,
    generation: str,
    observed: TargetState | None,
    diagnosis: Diagnosis | None,
    plan_id: PlanId | None,
    started: bool,
    rollback: bool,
) -> GuardrailFacts:
    """Everything the rules look at, from the store and the target's state just observed."""
    graph = await uow.telemetry.graph(max_age_s=GRAPH_MAX_AGE_S)
    return GuardrailFacts(
        action=action,
        target=ref,
        planned_generation=generation,
        started=started,
        rollback=rollback,
        observed=observed,
        callers=graph.callers(service) if graph.knows(service) else None,
        switch=await uow.control.engaged(service),
        history=await uow.executions.history(ref.uid, besides=plan_id),
        phase=await uow.control.phase() or Phase.SHADOW,
        confidence=diagnosis.confidence.score if diagnosis else 0.0,
        path_problem=diagnosis.path.why_not() if diagnosis else "no diagnosis",
    )
