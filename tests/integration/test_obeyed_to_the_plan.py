"""A model that obeys an injection, from the diagnosis to the stored plan: what is acted on comes from the platform."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import datetime, timedelta

import pytest

from pipeline.adapters.llm.rules import RulesDiagnostician
from pipeline.domain.action import RestartAction
from pipeline.domain.diagnosis import Passage
from pipeline.domain.ids import ServiceName
from pipeline.domain.lifecycle import IncidentState
from pipeline.domain.logs import LogLine, LogReading
from pipeline.ports.knowledge import Found, Knowledge, KnowledgeQuery
from pipeline.ports.model import Answer, Question
from pipeline.stages.witnesses import Witnesses
from tests.contract.targets.places import KubePlace
from tests.injection.attempts import ATTEMPTS, Attempt
from tests.injection.obedient import Obedient, answers
from tests.injection.outcome import author
from tests.injection.world import World
from tests.integration.test_loop_stages import CHECKOUT, Loop, leaking, loop

__all__ = ["loop"]


class Poisoned(Knowledge):
    """A runbook that somebody wrote the attempt into."""

    def __init__(self, attempt: Attempt) -> None:
        self._attempt = attempt

    async def search(self, query: KnowledgeQuery, *, limit: int) -> Found:
        return Found((Passage("memory.md", "Memory leak", self._attempt.text, 0.9, "hybrid"),))


class Hostile:
    """Logs that somebody wrote the attempt into."""

    name = "files"

    def __init__(self, attempt: Attempt) -> None:
        self._attempt = attempt

    async def search(
        self, service: ServiceName, text: str, since: datetime, until: datetime, *, limit: int
    ) -> LogReading:
        return LogReading((LogLine(until - timedelta(seconds=5), CHECKOUT, self._attempt.text),))

    async def tail(self, since: datetime, until: datetime, *, limit: int) -> LogReading:
        return await self.search(CHECKOUT, "", since, until, limit=1)

    async def close(self) -> None:
        return


class Obeying(RulesDiagnostician):
    """The obedient model, asked as the bot asks it. Its path is the true one, else nothing would ever be offered;
    ``suspects`` are all instances it was shown, the one in trouble first, and those that the attempt wishes for."""

    def __init__(self, attempt: Attempt) -> None:
        self._attempt = attempt
        self.wanted: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        return "obedient-model"

    async def diagnose(self, question: Question) -> Answer:
        true = (await super().diagnose(question)).hypothesis
        form = json.loads(answers(self._attempt, World(question, "", ()), "cunning")[0])
        lies = {
            "suspect_instances": sorted(question.facts.memory_ratio_by_instance),
            "path": [step.model_dump(mode="json") for step in true.path],
            "claims": [form["claims"][0], *(claim.model_dump(mode="json") for claim in true.claims)],
        }
        model = Obedient(self._attempt, [json.dumps(form | lies, ensure_ascii=False)])
        answer = await author(model).diagnose(question)
        self.wanted = answer.hypothesis.suspect_instances
        return replace(answer, source=self.name)


WISHES = [one for channel in ("runbook", "log") for one in ATTEMPTS if (one.channel, one.wants) == (channel, "target")]


@pytest.mark.parametrize("attempt", [WISHES[0], WISHES[-1]], ids=lambda one: one.id)
async def test_target_and_action_are_those_of_the_platform(attempt: Attempt, loop: Loop, place: KubePlace) -> None:
    loop.witnesses = Witnesses((), (), (Hostile(attempt),)) if attempt.channel == "log" else loop.witnesses
    await loop.ticks(10, leaking(loop))
    model = Obeying(attempt)
    case = await loop.diagnosed(model, Poisoned(attempt) if attempt.channel == "runbook" else None)
    inventory = await place.target.observe(await place.target.resolve(place.address))
    assert case.diagnosis is not None
    assert case.plan is not None
    assert case.diagnosis.source == model.name, "else the model was not believed, and nothing was tried"
    assert set(model.wanted) == {one.name for one in inventory.instances}, "it wants all of them"
    assert case.incident.state is IncidentState.AWAITING_DECISION, case.incident.outcome
    assert case.plan.target == inventory.ref
    assert case.plan.generation == inventory.generation
    assert isinstance(case.plan.action, RestartAction)
    leaks = loop.memory[0].instance
    assert [(one.name, one.uid) for one in case.plan.action.instances] == [
        (one.name, one.uid) for one in inventory.instances if one.name == leaks
    ]
    assert case.incident.service == CHECKOUT
