"""Kill switches: what one can be engaged for, and what is told when one is engaged or released."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

from executors.guardrails.kill_switch import kill_switch_answer
from pipeline.domain.catalogue import Catalogue
from pipeline.domain.errors import PermanentError
from pipeline.domain.guardrail import GuardrailResult
from pipeline.domain.ids import ServiceName, SlackUserId
from pipeline.domain.trace import TraceEntry, TraceKind
from pipeline.ports.control import ENVIRONMENT, EVERYTHING
from pipeline.ports.store import UnitOfWork
from pipeline.ports.trail import SYSTEM
from pipeline.stages.advance import line, record


async def engage(uow: UnitOfWork, scope: str, reason: str, user: SlackUserId) -> None:
    """From the end of the transaction on no call goes out for ``scope``, as ``scope_of`` gave it."""
    await uow.control.kill(scope, reason, user)
    await switched(uow, f"kill switch on for {scope} by {user}: {reason}", user)


async def switched(uow: UnitOfWork, summary: str, user: SlackUserId) -> None:
    """The audit entry, a line in every open incident, and the truth on their cards."""
    await uow.trace.add(SYSTEM, TraceEntry(TraceKind.SWITCH, summary, {"user": user}))
    for incident in await uow.incidents.open():
        case = await uow.incidents.case(incident.id)
        if case is not None and case.plan is not None and case.guardrails.answers:
            switch = await uow.control.engaged(incident.service, incident.environment)
            answer = kill_switch_answer(switch, incident.service, incident.environment)
            answers = tuple(answer if one.rule == "kill_switch" else one for one in case.guardrails.answers)
            await uow.plans.save_guardrails(case.plan.id, GuardrailResult(answers))
        await record(uow, incident.id, notices=[line(f"🛑 {summary}")])


async def scope_of(scope: str, uow: UnitOfWork, catalogue: Catalogue, seen: Iterable[ServiceName]) -> str:
    """``scope`` as it is stored; ``seen`` are services that telemetry shows. Raises PermanentError for one that covers
    nothing here, naming what there is: a switch that stops nothing would be believed in."""
    services = catalogue.known(seen)
    if scope.casefold() == EVERYTHING:
        return EVERYTHING
    if scope.casefold().startswith(ENVIRONMENT):
        return await _environment(scope[len(ENVIRONMENT) :], uow, catalogue, services)
    check_service(scope, services)
    return scope


def check_service(name: str, services: Iterable[ServiceName]) -> None:
    """Raises PermanentError for a service that is not known, with the one that may be meant."""
    known = sorted(services)
    if name not in known:
        close = difflib.get_close_matches(name, known, n=1)
        hint = f" Did you mean {close[0]}?" if close else ""
        raise PermanentError(f"No service “{name}” here.{hint} Known: {', '.join(known) or 'none yet'}.")


async def _environment(name: str, uow: UnitOfWork, catalogue: Catalogue, services: frozenset[ServiceName]) -> str:
    begun = {incident.environment for incident in await uow.incidents.open()}
    known = sorted(begun | catalogue.environments(services))
    for environment in known:
        if environment.casefold() == name.casefold():
            return f"{ENVIRONMENT}{environment}"
    raise PermanentError(f"No environment “{name}” here. Known: {', '.join(known)}.")
