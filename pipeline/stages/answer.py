"""Follow-up questions: answered from an incident's evidence and what read-only tools add to it, never acted on."""

from __future__ import annotations

import json
import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import get_args

from pydantic import ValidationError

from pipeline.domain.action_words import describe_action
from pipeline.domain.baseline import BaselineBank
from pipeline.domain.diagnosis import Evidence, Hypothesis
from pipeline.domain.errors import OutcomeUnknown, PermanentError, SreBotError, TemporaryError
from pipeline.domain.facts import Facts
from pipeline.domain.ids import EvidenceId, IncidentId, PlanId, ServiceName, SlackUserId
from pipeline.domain.incident import Case
from pipeline.domain.trace import JsonValue, TraceEntry, TraceKind
from pipeline.ports.clock import Clock
from pipeline.ports.model import GaveNoAnswer, GaveNoUsableAnswer, OnText, Question, Reply
from pipeline.ports.store import Store
from pipeline.ports.toolbox import Toolbox, ToolResult, ToolSpec
from pipeline.ports.trail import SYSTEM
from pipeline.stages.advance import record
from pipeline.stages.diagnose import Authors, Diagnoser
from pipeline.stages.investigate import Investigator
from pipeline.stages.revise import Reviser, Wanted, WantedAction

PROPOSE_TOOL = "propose_plan"
_KINDS: Mapping[str, WantedAction] = {
    r"roll(?:ing|out)\s+restart": "rollout_restart",
    r"restart(?:ing)?": "restart",
    r"scal(?:e|ing)": "scale",
    r"roll(?:ing)?[\s-]?back": "roll_back",
    r"revert(?:ing)?": "revert",
    r"sync(?:ing)?": "sync",
    r"renew(?:ing|al)?": "renew",
    r"truncat(?:e|ing|ion)": "truncate",
    r"cordon(?:ing)?": "cordon",
}
"""What may be proposed, as people write it."""
_ORDER = re.compile(rf"^\W*(?:please\s+)?propose\s+(?:(?:to|an?|the)\s+)*({'|'.join(_KINDS)})\b(.*)$", re.I | re.S)
_WANTS_PLAN = re.compile(
    rf"\b(propos\w*|plans?|{'|'.join(_KINDS)}|restart\w*|revert\w*|replicas?|instead|rather)\b", re.I
)
_NUMBER = re.compile(r"\b(\d{1,4})\b")
_NAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9.\-]*[A-Za-z0-9])?")
_FILLING = frozenset(
    {"the", "replica", "replicas", "pod", "pods", "and", "only", "instance", "instances", "of", "up", "please"}
)


class Answerer:
    """Answers, with the author and its tools; the rules answer when the author cannot."""

    def __init__(
        self,
        store: Store,
        investigator: Investigator,
        diagnoser: Diagnoser,
        authors: Authors,
        reviser: Reviser,
        clock: Clock,
    ) -> None:
        self._store = store
        self._investigator = investigator
        self._diagnoser = diagnoser
        self._authors = authors
        self._reviser = reviser
        self._clock = clock

    async def about(
        self,
        case: Case,
        question: str,
        user: SlackUserId,
        bank: BaselineBank,
        *,
        may_propose: bool,
        on_text: OnText | None = None,
    ) -> str:
        """Answers a question about an incident; new evidence and the whole exchange go to its record."""
        incident_id = case.incident.id
        tools: Toolbox | None = None
        exchange: Mapping[str, JsonValue] = {}
        if (order := ordered(question)) is not None:
            refused = "" if may_propose else "You may ask, and not put plans on the table: you are no full member here."
            answer = refused or await self._revised(incident_id, order, user)
        else:
            asked = await self._question(case, bank)
            # Only at the person's own words: what stands in a log line must not put a plan on the table.
            asks_for_plan = may_propose and _WANTS_PLAN.search(question) is not None
            tools = _WithProposals(asked.tools, self._reviser, incident_id, user) if asks_for_plan else asked.tools
            reply = await self._replied(_with(asked, tools), question, on_text)
            answer, exchange = reply.text, reply.exchange
        entry = TraceEntry(
            TraceKind.QUESTION,
            f"{user} asked: {question[:200]}",
            {**exchange, "user": user, "question": question, "answer": answer},
        )
        async with self._store.begin() as uow:
            if tools is not None and case.diagnosis is not None:
                await uow.incidents.add_evidence(incident_id, tools.evidence)
            read = tools.entries if tools is not None else ()
            await record(uow, incident_id, entries=[*read, entry], redraw=False)
        return answer

    async def at_large(self, service: ServiceName, question: str, user: SlackUserId, bank: BaselineBank) -> str:
        """Answers a question about a service that has no incident."""
        dossier = await self._investigator.gather(service, (), bank, self._clock.now())
        asked = Question(service, (), dossier.evidence, (), dossier.facts, dossier.tools)
        reply = await self._replied(asked, question, None)
        said: dict[str, JsonValue] = {"user": user, "service": service, "question": question, "answer": reply.text}
        data = {**reply.exchange, **said}
        async with self._store.begin() as uow:
            for read in dossier.tools.entries:
                await uow.trace.add(SYSTEM, read)
            await uow.trace.add(SYSTEM, TraceEntry(TraceKind.QUESTION, f"{user} asked: {question[:200]}", data))
        return reply.text

    async def another_way(
        self, plan_id: PlanId, number: int, user: SlackUserId, *, noted: Callable[[], Awaitable[object]]
    ) -> str:
        """Puts the plan's alternative ``number`` on the table in its place, or says why not.

        ``noted`` is called once the order stands in the trail: what is read after that takes longer than a click waits.
        """
        async with self._store.begin() as uow:
            plan = await uow.plans.get(plan_id)
            ways = plan.alternatives if plan is not None else ()
            if plan is None or not 0 <= number < len(ways):
                raise PermanentError("this way is not on the card any more")
            way = ways[number]
            entry = TraceEntry(
                TraceKind.NOTE,
                f"{user} asks for another way: {way.what[:200]}",
                {"user": user, "plan": plan_id, "kind": way.kind, "platform": way.platform},
            )
            await uow.trace.add(plan.incident_id, entry)
        await noted()
        if way.kind not in get_args(WantedAction):
            return "Not proposed: this is for a person to do."
        wanted = Wanted.model_validate({"action": way.kind})
        asked = self._reviser.revise(plan.incident_id, wanted, user, instead_of=plan_id, platform=way.platform)
        return await _told(asked)

    async def _question(self, case: Case, bank: BaselineBank) -> Question:
        if case.diagnosis is None:
            return await self._diagnoser.question(case, bank)
        tools = self._investigator.toolbox(bank, self._clock.now(), taken=_taken(case.evidence))
        return stored_question(case, tools)

    async def _replied(self, asked: Question, question: str, on_text: OnText | None) -> Reply:
        author, rules = self._authors.author, self._authors.rules
        try:
            return await author.reply(asked, question, on_text)
        except (TemporaryError, PermanentError) as error:
            if author is rules:
                return Reply(f"{author.name} gave no answer: {error}", {})
            said = await rules.reply(asked, question, None)
            exchange = error.exchange if isinstance(error, GaveNoAnswer | GaveNoUsableAnswer) else said.exchange
            return Reply(f"{said.text}\n({author.name} gave no answer: {error}; this is the rules engine's.)", exchange)

    async def _revised(self, incident_id: IncidentId, wanted: Wanted | str, user: SlackUserId) -> str:
        if isinstance(wanted, str):
            return wanted
        return await _told(self._reviser.revise(incident_id, wanted, user))


async def _told(proposing: Awaitable[str]) -> str:
    """What came of it, in a sentence."""
    try:
        return await proposing
    except OutcomeUnknown as error:
        return f"It is not known whether that was proposed ({error}). Look at the card."
    except SreBotError as error:
        return f"Not proposed: {error}."


class _WithProposals:
    """A toolbox with one more tool, which puts another plan on the table and can do nothing else."""

    def __init__(self, inner: Toolbox, reviser: Reviser, incident_id: IncidentId, user: SlackUserId) -> None:
        self._inner = inner
        self._reviser = reviser
        self._incident_id = incident_id
        self._user = user
        self._entries: list[TraceEntry] = []

    @property
    def specs(self) -> Sequence[ToolSpec]:
        said = (
            "Put another plan on the incident's card, when the person asks for one: other replicas to restart, another"
            " number of replicas, or another action that fits the cause. Guardrails check it, and another person has to"
            " approve it."
        )
        return (*self._inner.specs, ToolSpec(PROPOSE_TOOL, said, Wanted))

    @property
    def evidence(self) -> Sequence[Evidence]:
        return self._inner.evidence

    @property
    def entries(self) -> Sequence[TraceEntry]:
        return (*self._inner.entries, *self._entries)

    @property
    def exhausted(self) -> str:
        return self._inner.exhausted

    async def call(self, name: str, arguments: Mapping[str, JsonValue] | str) -> ToolResult:
        if name != PROPOSE_TOOL:
            return await self._inner.call(name, arguments)
        text = arguments if isinstance(arguments, str) else json.dumps(dict(arguments))
        if self._entries:
            result = ToolResult("refused", said="one plan a question")
        else:
            try:
                wanted = Wanted.model_validate_json(text, strict=True)
                result = ToolResult("ok", said=await self._reviser.revise(self._incident_id, wanted, self._user))
            except ValidationError as error:
                first = error.errors()[0]
                result = ToolResult("refused", said=f"{'.'.join(map(str, first['loc']))}: {first['msg']}"[:200])
            except SreBotError as error:
                result = ToolResult("refused", said=f"not proposed: {error}")
        data: dict[str, JsonValue] = {
            "tool": name,
            "arguments": text[:500],
            "status": result.status,
            "said": result.said,
        }
        self._entries.append(TraceEntry(TraceKind.TOOL_CALL, f"{name}: {result.status}, {result.said[:200]}", data))
        return result


def ordered(text: str) -> Wanted | str | None:
    """``propose scale to 4`` or ``propose restart checkout-2`` as what is wanted; a sentence when it is not clear.

    ``propose scale`` and the like leave the rest to the planner. None when the text is a question.
    """
    found = _ORDER.match(text)
    if found is None:
        return None
    action, rest = next(kind for said, kind in _KINDS.items() if re.fullmatch(said, found[1], re.I)), found[2]
    words = tuple(word for word in _NAME.findall(rest) if word.lower() not in _FILLING)
    if action == "scale" and words:
        number = _NUMBER.search(rest)
        if number is None or int(number[1]) < 1:
            return "Say to how many replicas: propose scale to 4."
        return Wanted(action="scale", replicas=int(number[1]))
    return Wanted(action=action, instances=words[:10] if action == "restart" else ())


def stored_question(case: Case, tools: Toolbox) -> Question:
    """The case as it was recorded, decision, action and verification included."""
    diagnosis = case.diagnosis
    known = None
    if diagnosis is not None:
        known = Hypothesis(
            conclusion=diagnosis.conclusion,
            category=diagnosis.category,
            root_cause=diagnosis.root_cause,
            suspect_instances=diagnosis.suspect_instances,
            claims=diagnosis.claims,
            alternatives=diagnosis.alternatives,
            missing=diagnosis.missing,
            certainty=diagnosis.confidence.score,
        )
    anomalies = [item.anomaly for item in case.anomalies]
    evidence = (*case.evidence, *_records(case))
    return Question(case.incident.service, anomalies, evidence, case.passages, Facts(), tools, known)


def _with(question: Question, tools: Toolbox) -> Question:
    return Question(
        question.service,
        question.anomalies,
        question.evidence,
        question.passages,
        question.facts,
        tools,
        question.known,
    )


def _taken(evidence: Sequence[Evidence]) -> int:
    """The highest number of an id in use."""
    return max((int(item.id[1:]) for item in evidence if re.fullmatch(r"E\d+", item.id)), default=0)


def _records(case: Case) -> list[Evidence]:
    """What was decided and done, as facts that can be cited like the others."""
    said: list[tuple[str, str]] = []
    if case.plan is not None:
        said.append(("P1", f"the plan is {describe_action(case.plan.action)}, {case.plan.state.value}"))
    said += [
        (f"D{number}", f"{approval.decision} decided by <@{approval.user_id}> at {approval.at:%H:%M:%S} UTC")
        for number, approval in enumerate(case.approvals, start=1)
    ]
    if case.execution is not None:
        changes = f"{case.execution.physical_changes} changes made"
        said.append(("X1", f"the action was run: {case.execution.state.value.replace('_', ' ')}, {changes}"))
    if case.verification is not None:
        verdict = case.verification.verdict.value.replace("_", " ")
        told = f"did the action help? verification says {verdict}: {case.verification.sentence()}"
        said.append(("V1", f"{told}; {case.verification.reason}"))
    since, until = case.incident.opened_at, case.read_at
    return [Evidence(EvidenceId(name), "target", text, "the incident's trail", since, until) for name, text in said]
