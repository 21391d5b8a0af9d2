"""What people may ask and order, whatever they ask it through."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from pipeline.domain.approval import ApprovalRule, Ballot, DecisionResult
from pipeline.domain.baseline import Expectation
from pipeline.domain.catalogue import Catalogue
from pipeline.domain.errors import PermanentError
from pipeline.domain.ids import IncidentId, PlanId, ServiceName, SlackUserId, incident_label
from pipeline.domain.incident import Case, Incident
from pipeline.domain.lifecycle import FINAL_INCIDENT_STATES, INCIDENT_TRANSITIONS, IncidentState, PlanState
from pipeline.domain.phase import RUNNING_PHASES, Criterion, Phase, graduation
from pipeline.domain.telemetry import Sample, SeriesKey
from pipeline.domain.trace import StoredTraceEntry, TraceEntry, TraceKind
from pipeline.ports.clock import Clock
from pipeline.ports.control import KillSwitch
from pipeline.ports.model import OnText
from pipeline.ports.samples import SourceHealth
from pipeline.ports.store import CardPlace, Store
from pipeline.ports.targets import Targets
from pipeline.ports.trail import SYSTEM
from pipeline.stages.advance import advance, line, record, supersede, tell_pager
from pipeline.stages.answer import Answerer
from pipeline.stages.decide import Decider, Noted
from pipeline.stages.detect import Detector
from pipeline.stages.diagnose import Authors
from pipeline.stages.dry_run import by_hand, dry_run
from pipeline.stages.investigate import LOOK_BACK_S, Investigator, describe_dossier
from pipeline.stages.settings import LoopSettings
from pipeline.stages.switches import check_service, engage, scope_of, tell

MUTE_S = 3600.0
CLOSED_MUTE_S = 600.0
"""After a person closed an incident its cause stays quiet this long, or a new card would come at once."""


@dataclass(frozen=True, slots=True)
class Status:
    """How things stand. ``outbox`` counts rows by state; ``fallbacks`` name what runs on a default."""

    phase: Phase
    switches: tuple[KillSwitch, ...]
    open_incidents: tuple[Incident, ...]
    waiting: int
    sources: tuple[SourceHealth, ...]
    outbox: Mapping[str, int]
    fallbacks: tuple[str, ...]
    diagnostician: str
    series_watched: int


@dataclass(frozen=True, slots=True)
class PhaseReport:
    """The phase and the five criteria for the next one."""

    phase: Phase
    criteria: tuple[Criterion, ...]


class Desk:
    """Reads, decisions and orders. Every order leaves an audit entry."""

    def __init__(
        self,
        store: Store,
        targets: Targets,
        catalogue: Catalogue,
        detector: Detector,
        investigator: Investigator,
        authors: Authors,
        answerer: Answerer,
        decider: Decider,
        clock: Clock,
        settings: LoopSettings,
        fallbacks: tuple[str, ...],
        *,
        command: str,
    ) -> None:
        self._store = store
        self._targets = targets
        self._catalogue = catalogue
        self._detector = detector
        self._investigator = investigator
        self._authors = authors
        self._answerer = answerer
        self._decider = decider
        self._clock = clock
        self._settings = settings
        self._fallbacks = fallbacks
        self._command = command

    async def case(self, incident_id: IncidentId) -> Case | None:
        """Everything of one incident, now."""
        async with self._store.begin() as uow:
            case = await uow.incidents.case(incident_id)
        return self._owned(case) if case else None

    async def trace(self, incident_id: IncidentId) -> Sequence[StoredTraceEntry]:
        """The incident's trail, oldest first."""
        async with self._store.begin() as uow:
            return await uow.trace.read(incident_id)

    async def status(self) -> Status:
        """How the bot and its incidents stand."""
        bank = await self._detector.bank()
        async with self._store.begin() as uow:
            return Status(
                phase=await uow.control.phase() or Phase.SHADOW,
                switches=tuple(switch for switch in await uow.control.switches() if switch.engaged),
                open_incidents=tuple(await uow.incidents.open()),
                waiting=len(await uow.plans.waiting()),
                sources=tuple(await uow.telemetry.health()),
                outbox=await uow.outbox.counts(),
                fallbacks=self._fallbacks,
                diagnostician=self._authors.author.name,
                series_watched=len(bank),
            )

    async def incidents(self, limit: int = 10) -> Sequence[Incident]:
        """Open ones first, then the newest."""
        async with self._store.begin() as uow:
            return await uow.incidents.recent(limit)

    async def waiting(self) -> Sequence[Case]:
        """Cases whose plan waits for a decision."""
        async with self._store.begin() as uow:
            cases = [await uow.incidents.case(plan.incident_id) for plan in await uow.plans.waiting()]
        return [self._owned(case) for case in cases if case is not None]

    async def phase_report(self) -> PhaseReport:
        """The phase and how far graduation is."""
        async with self._store.begin() as uow:
            phase = await uow.control.phase() or Phase.SHADOW
            return PhaseReport(phase, graduation(await uow.control.track_record()))

    async def incident_of_card(self, channel: str, ts: str) -> IncidentId | None:
        """The incident whose card is this message."""
        async with self._store.begin() as uow:
            return await uow.incidents.by_card(CardPlace(channel, ts))

    async def metric(self, key: SeriesKey, since: datetime) -> Sequence[Sample]:
        """Stored samples of one series, oldest first."""
        async with self._store.begin() as uow:
            return (await uow.telemetry.service_window(key.service, since)).get(key, ())

    async def expectation(self, key: SeriesKey) -> Expectation:
        """What the baseline expects now."""
        return await self._detector.expectation(key, self._clock.now())

    async def first_time(self, key: str) -> bool:
        """True once per key, over restarts and replicas."""
        async with self._store.begin() as uow:
            return await uow.control.first_time(key)

    async def ballot(self, token: str) -> Ballot | None:
        """The plan that a button names, and who may decide it now."""
        return await self._decider.ballot(token)

    async def rule_of(self, incident_id: IncidentId) -> ApprovalRule | None:
        """Who may decide on this incident now; None when it is not known."""
        async with self._store.begin() as uow:
            incident = await uow.incidents.get(incident_id)
        return self._decider.rule(incident) if incident is not None else None

    async def approval_rules(self) -> Sequence[ApprovalRule]:
        """Who may approve what, now: the first that covers a case counts."""
        return self._decider.rules()

    async def approve(self, plan_id: PlanId, user: SlackUserId, *, noted: Noted | None = None) -> DecisionResult:
        """Committed when it returns; ``noted`` is called before that where it takes longer than a click may wait."""
        return await self._decider.approve(plan_id, user, noted=noted)

    async def reject(self, plan_id: PlanId, user: SlackUserId, reason: str) -> DecisionResult:
        """Committed when it returns."""
        return await self._decider.reject(plan_id, user, reason)

    async def denied(self, incident_id: IncidentId | None, user: SlackUserId, what: str, why: str) -> None:
        """Somebody was not let through: an audit entry."""
        entry = TraceEntry(TraceKind.DENIED, f"{what} by {user} denied: {why}", {"user": user, "what": what})
        async with self._store.begin() as uow:
            await uow.trace.add(incident_id or SYSTEM, entry)

    async def kill(self, scope: str, reason: str, user: SlackUserId) -> str:
        """Stops all actions of ``scope`` (``all``, ``env:<environment>`` or a service) at once, durably.

        Returns the sentence to show.
        """
        scope = await self._scope(scope)
        await engage(self._store, scope, reason, user)
        released_by = f"`{self._command} resume {scope} <reason>`"
        return f"🛑 Kill switch ON for *{scope}*: nothing is changed until it is released. {released_by}"

    async def resume(self, scope: str, reason: str, user: SlackUserId) -> str:
        """Releases a switch; takes two people (configurable). Returns the sentence to show."""
        async with self._store.begin() as uow:
            engaged = {one.scope.casefold(): one.scope for one in await uow.control.switches() if one.engaged}
        if scope.casefold() not in engaged:
            return f"No kill switch is engaged for {await self._scope(scope)}."
        # What is stopped can be released, whatever has become of its service or environment since.
        scope = engaged[scope.casefold()]
        async with self._store.begin() as uow:
            released = await uow.control.resume(scope, reason, user, people_needed=self._settings.resume_people)
            said = f"kill switch for {scope}: {'released' if released else 'resume asked'} by {user}: {reason}"
            await uow.trace.add(SYSTEM, TraceEntry(TraceKind.SWITCH, said, {"user": user}))
        await tell(self._store, said)
        if released:
            return f"✅ Kill switch released for *{scope}*."
        return f"Asked. A second person has to confirm within 15 minutes: `{self._command} resume {scope} <reason>`"

    async def set_phase(self, phase: str, reason: str, user: SlackUserId) -> str:
        """Raises PermanentError for an unknown phase or one that this version does not run."""
        try:
            wanted = Phase(phase.lower())
        except ValueError:
            raise PermanentError(f"Unknown phase “{phase}”. Phases: {', '.join(Phase)}.") from None
        if wanted not in RUNNING_PHASES:
            raise PermanentError(f"The {wanted.value} phase is not in this version; shadow and assist are.")
        async with self._store.begin() as uow:
            await uow.control.set_phase(wanted, reason, user)
            entry = TraceEntry(TraceKind.PHASE, f"{wanted.value} set by {user}: {reason}", {"user": user})
            await uow.trace.add(SYSTEM, entry)
        return f"Phase is now *{wanted.value}*."

    async def halt(self, incident_id: IncidentId, user: SlackUserId) -> str:
        """Somebody said stop: a waiting plan is taken off the table, a running one meets the kill switch."""
        async with self._store.begin() as uow:
            case = await uow.incidents.case(incident_id)
        if case is None:
            return "This incident is not known here."
        if case.plan is not None and case.plan.state is PlanState.PROPOSED:
            return (await self._decider.reject(case.plan.id, user, "stopped in the thread")).message
        if case.incident.state in (IncidentState.MITIGATING, IncidentState.VERIFYING):  # a rollback may still come
            return await self.kill(
                case.incident.service, f"stopped in the thread of {incident_label(incident_id)}", user
            )
        return "Nothing is running or waiting here; nothing will be changed."

    async def ask(
        self,
        incident_id: IncidentId,
        question: str,
        user: SlackUserId,
        *,
        may_propose: bool,
        on_text: OnText | None = None,
    ) -> str:
        """Answers from evidence and read-only tools; it may put another plan on the card, and changes nothing."""
        case = await self.case(incident_id)
        if case is None:
            return "This incident is not known here."
        bank = await self._detector.bank()
        return await self._answerer.about(case, question, user, bank, may_propose=may_propose, on_text=on_text)

    async def another_way(
        self, plan_id: PlanId, number: int, user: SlackUserId, *, noted: Callable[[], Awaitable[object]]
    ) -> str:
        """Puts alternative ``number`` of a plan on the card in its place, or says why not; it changes nothing else.

        ``noted`` is called once the order stands in the trail: the rest may take longer than a click waits.
        """
        return await self._answerer.another_way(plan_id, number, user, noted=noted)

    async def services_named(self, text: str) -> tuple[ServiceName, ...]:
        """The known services whose names stand in ``text``, in the order they stand there."""
        words = re.findall(r"[a-z0-9][a-z0-9._-]*[a-z0-9]|[a-z0-9]", text.lower())
        known = {service.lower(): service for service in await self._known_services()}
        return tuple(dict.fromkeys(known[word] for word in words if word in known))

    async def ask_about(self, service: ServiceName, question: str, user: SlackUserId) -> str:
        """Answers a question about a service that has no incident."""
        return await self._answerer.at_large(service, question, user, await self._detector.bank())

    async def investigate(self, service: str, user: SlackUserId, *, since_s: float = LOOK_BACK_S) -> str:
        """Evidence on a service over the last ``since_s`` seconds; opens no incident."""
        check_service(service, await self._known_services())
        dossier = await self._investigator.gather(
            ServiceName(service), (), await self._detector.bank(), self._clock.now(), look_back_s=since_s
        )
        entry = TraceEntry(TraceKind.QUESTION, f"{user} investigated {service}", {"user": user, "service": service})
        async with self._store.begin() as uow:
            await uow.trace.add(SYSTEM, entry)
        return describe_dossier(dossier)

    async def feedback(self, incident_id: IncidentId, user: SlackUserId, *, helpful: bool) -> str:
        """Keeps a person's word on how the bot did; the trail is what is learnt from."""
        word = "helpful" if helpful else "not helpful"
        async with self._store.begin() as uow:
            entry = TraceEntry(TraceKind.FEEDBACK, f"{word}, says {user}", {"user": user, "helpful": helpful})
            await record(uow, incident_id, entries=[entry], redraw=False)
        return f"Noted: {word}. Thank you."

    async def wrong_cause(self, incident_id: IncidentId, user: SlackUserId) -> str:
        """Somebody knows better: the answer is not used again, and a plan made from it is taken off the table."""
        async with self._store.begin() as uow:
            dropped = await uow.diagnoses.drop(incident_id)
            entry = TraceEntry(TraceKind.FEEDBACK, f"wrong cause, says {user}", {"user": user, "dropped": dropped})
            said = line(f"✋ <@{user}> says that the cause is wrong: this diagnosis is not used again.")
            await record(uow, incident_id, entries=[entry], notices=[said])
            case = await uow.incidents.case(incident_id)
        waits = case is not None and case.plan is not None and case.plan.state is PlanState.PROPOSED
        if waits and case is not None and case.incident.state is IncidentState.AWAITING_DECISION:
            said_so = f"wrong cause, says <@{user}>"
            return await self._move(incident_id, IncidentState.ESCALATED, user, said_so, attended=True)
        return "Noted: this diagnosis is not used again. Thank you."

    async def dry_run(self, incident_id: IncidentId) -> str:
        """What the plan would send to the target, and what the guardrails say this moment, without sending it."""
        return await dry_run(await self.case(incident_id), self._store, self._targets, self._settings)

    async def mute(self, incident_id: IncidentId, user: SlackUserId) -> str:
        """No new card for this cause for an hour."""
        async with self._store.begin() as uow:
            await uow.incidents.mute(incident_id, for_s=MUTE_S)
            await record(uow, incident_id, entries=[_ordered("muted", user)], notices=[line(f"🔕 muted by <@{user}>")])
        return "Muted: no new card for this cause for an hour."

    async def not_an_incident(self, incident_id: IncidentId, user: SlackUserId) -> str:
        """Closes it as noise, and mutes its cause for an hour."""
        async with self._store.begin() as uow:
            await uow.incidents.mute(incident_id, for_s=MUTE_S)
        return await self._end(incident_id, user, "not an incident", "an hour")

    async def take_ownership(self, incident_id: IncidentId, user: SlackUserId) -> str:
        """The person becomes the incident's owner."""
        async with self._store.begin() as uow:
            await uow.incidents.set_owner(incident_id, user)
            said = line(f"🙋 <@{user}> owns this")
            await record(uow, incident_id, entries=[_ordered("ownership taken", user)], notices=[said])
            await tell_pager(uow, incident_id, "acknowledge")
        return "It is yours."

    async def escalate(self, incident_id: IncidentId, user: SlackUserId) -> str:
        """Takes the plan off the table and leaves the incident to people."""
        return await self._move(incident_id, IncidentState.ESCALATED, user, f"escalated by <@{user}>")

    async def close(self, incident_id: IncidentId, user: SlackUserId) -> str:
        """Closes the incident; its cause stays quiet for ten minutes."""
        async with self._store.begin() as uow:
            await uow.incidents.mute(incident_id, for_s=CLOSED_MUTE_S)
        return await self._end(incident_id, user, "closed", "ten minutes")

    async def _end(self, incident_id: IncidentId, user: SlackUserId, how: str, quiet: str) -> str:
        said = await self._move(incident_id, IncidentState.CLOSED, user, f"{how} by <@{user}>")
        return f"{said} No new card comes for this cause for {quiet}, even if it goes on."

    async def _move(
        self, incident_id: IncidentId, to: IncidentState, user: SlackUserId, outcome: str, *, attended: bool = False
    ) -> str:
        async with self._store.begin() as uow:
            case = await uow.incidents.case(incident_id)
            if case is None:
                return "This incident is not known here."
            incident = case.incident
            if to not in INCIDENT_TRANSITIONS[incident.state]:
                over = "over already" if incident.state in FINAL_INCIDENT_STATES else "being acted on right now"
                return f"Not possible: the incident is {over}."
            if case.plan is not None:
                await supersede(uow, case.plan.id, case.plan.state)
            moved = await advance(
                uow,
                incident,
                to,
                outcome=outcome,
                entries=[_ordered(to.value, user)],
                notices=[line(outcome)],
                attended=attended,
            )
        return f"Done: {to.value}." if moved else "Somebody else was faster; look at the card."

    async def _scope(self, scope: str) -> str:
        """The scope as it is stored. Raises PermanentError for one that covers nothing here."""
        bank = await self._detector.bank()
        async with self._store.begin() as uow:
            return await scope_of(scope, uow, self._catalogue, (key.service for key in bank))

    async def _known_services(self) -> frozenset[ServiceName]:
        bank = await self._detector.bank()
        return self._catalogue.known(key.service for key in bank)

    def _owned(self, case: Case) -> Case:
        owner = self._catalogue[case.incident.service].owner
        return dataclasses.replace(case, service_owner=owner, by_hand=by_hand(case.plan, self._targets))


def _ordered(what: str, user: SlackUserId) -> TraceEntry:
    return TraceEntry(TraceKind.NOTE, f"{what} by {user}", {"user": user})
