"""Kill switches: what one can be engaged for, and what is told when one is engaged or released."""

from __future__ import annotations

import difflib
import logging
from collections.abc import Iterable

from executors.guardrails.kill_switch import kill_switch_answer
from pipeline.domain.catalogue import Catalogue
from pipeline.domain.errors import PermanentError, SreBotError
from pipeline.domain.guardrail import GuardrailResult
from pipeline.domain.ids import IncidentId, ServiceName, SlackUserId, incident_label
from pipeline.domain.trace import TraceEntry, TraceKind
from pipeline.ports.control import ENVIRONMENT, EVERYTHING
from pipeline.ports.store import Store, UnitOfWork
from pipeline.ports.trail import SYSTEM
from pipeline.stages.advance import line, record

log = logging.getLogger(__name__)


async def engage(store: Store, scope: str, reason: str, user: SlackUserId) -> None:
    """When it returns no call goes out for ``scope``, as ``scope_of`` gave it. People are told of it afterwards: no
    incident that cannot be read or is held by others may keep the switch from being engaged."""
    said = f"kill switch on for {scope} by {user}: {reason}"
    async with store.begin() as uow:
        await uow.control.kill(scope, reason, user)
        await uow.trace.add(SYSTEM, TraceEntry(TraceKind.SWITCH, said, {"user": user}))
    await tell(store, said)


async def tell(store: Store, said: str) -> None:
    """A line in every open incident, and the truth on their cards; each by itself."""
    async with store.begin() as uow:
        open_ids = [incident.id for incident in await uow.incidents.open()]
    for incident_id in open_ids:
        try:
            async with store.begin() as uow:
                await _tell(uow, incident_id, said)
        except (SreBotError, ValueError) as error:  # ValueError: a row of a newer version that is not understood
            log.warning("%s could not be told of: %s (%s)", incident_label(incident_id), said, error)


async def _tell(uow: UnitOfWork, incident_id: IncidentId, said: str) -> None:
    case = await uow.incidents.case(incident_id)
    if case is not None and case.plan is not None and case.guardrails.answers:
        service, environment = case.incident.service, case.incident.environment
        switch = await uow.control.engaged(service, environment)
        answer = kill_switch_answer(switch, service, environment)
        answers = tuple(answer if one.rule == "kill_switch" else one for one in case.guardrails.answers)
        await uow.plans.save_guardrails(case.plan.id, GuardrailResult(answers))
    await record(uow, incident_id, notices=[line(f"🛑 {said}")])


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
    alike = [environment for environment in known if environment.casefold() == name.casefold()]
    if alike:
        return f"{ENVIRONMENT}{name if name in alike else alike[0]}"
    raise PermanentError(f"No environment “{name}” here. Known: {', '.join(known)}.")
