"""Clicks, expiry, edits, kill switch, crashes, pauses, restarts in any order: the invariants hold after each."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterator
from contextlib import ExitStack, suppress
from datetime import UTC, datetime
from functools import partial
from typing import Any, TypeVar, cast
from unittest.mock import patch

import asyncpg
import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    rule,
    run_state_machine_as_test,
)

from bot.catalogue import CatalogueFile
from executors.guardrails.facts import GuardrailLimits
from executors.ledger import Ledger
from executors.recovery import Recovery
from executors.runner import Runner
from executors.targets.registry import Registry
from pipeline.adapters.memory.locks import MemoryLocks
from pipeline.adapters.postgres.pool import Connection, Pool
from pipeline.adapters.postgres.unit_of_work import PostgresStore
from pipeline.domain.action import InstanceRef, RestartAction
from pipeline.domain.approval import DecisionOutcome, default_rules
from pipeline.domain.canary import CanarySettings
from pipeline.domain.catalogue import Catalogue, Service, WorkloadAddress
from pipeline.domain.errors import PermanentError, TemporaryError
from pipeline.domain.ids import PlanId, SlackUserId
from pipeline.domain.telemetry import Signal
from pipeline.ports.clock import SystemClock
from pipeline.stages.decide import Decider
from pipeline.stages.propose import Proposer
from pipeline.stages.revise import Reviser, Wanted
from pipeline.stages.settings import LoopSettings
from tests.builders import CHECKOUT
from tests.crash.history import read
from tests.crash.invariants import INVARIANTS, Acknowledged, History, SwitchTime, violations
from tests.crash.near_target import REF, NearTarget
from tests.crash.recorder import NAMESPACE, SERVICE, Recorder
from tests.databases import PostgresFactory
from tests.executing import measured
from tests.stored import Waiting, awaiting, fall_due, lapse

EXAMPLES, STEPS = 12, 12
ADDRESS = WorkloadAddress(platform="local_process", namespace=NAMESPACE, name=SERVICE)
LIMITS = GuardrailLimits(cooldown_s=0.001, rest_s=0.001, max_actions_target_hour=9, ineffective_s=0.001)
USERS = st.sampled_from([SlackUserId("U0ALICE"), SlackUserId("U0BOB")])
MOMENTS = st.sampled_from(["observe", "apply", "applied"])
EVENTS = st.sampled_from(
    ["taken over", "taken over", "restart", "switch", "release", "release", "reject", "expire", "click", "scales"]
)
ALWAYS = ("I1", "I4", "I5", "I6")

CHANGES: list[int] = []
"""How often the target was changed, example by example."""

T = TypeVar("T")


class Machine(RuleBasedStateMachine):
    """One incident on a service of three replicas, a bot with two workers, and everybody who can interfere."""

    def __init__(self, factory: PostgresFactory) -> None:
        super().__init__()
        self._stack = ExitStack()
        self._loop = asyncio.new_event_loop()
        self._dsn = self._stack.enter_context(factory.migrated())
        self._recorder = Recorder()
        self._target = NearTarget(self._recorder)
        self._switches: list[SwitchTime] = []
        self._acknowledged: list[Acknowledged] = []
        self._plans: list[PlanId] = []
        self._foreign = 0
        self._go_on = asyncio.Event()
        self._run(self._open())

    def _run(self, work: Coroutine[Any, Any, T]) -> T:
        return self._loop.run_until_complete(work)

    async def _open(self) -> None:
        self._pool = Pool(self._dsn, max_size=4)
        self._store = PostgresStore(self._pool)
        self._sql: Connection = await asyncpg.connect(self._dsn)
        loop_settings = LoopSettings(
            limits=LIMITS,
            approvals=default_rules(1),
            canary=CanarySettings(watch_s=0.01),
            lease_s=60.0,
            settle_timeout_s=10.0,
            catalogue=Catalogue({CHECKOUT: Service(tier=3, target=ADDRESS)}),
        )
        targets, clock = Registry({"local_process": self._target}), SystemClock()
        ledger, locks = Ledger(self._store, clock), MemoryLocks()
        self._decider = Decider(self._store, targets, CatalogueFile(None), clock, loop_settings)
        proposer = Proposer(self._store, targets, loop_settings.catalogue, loop_settings)
        self._reviser = Reviser(self._store, targets, loop_settings.catalogue, proposer, loop_settings)
        self._runners = [
            Runner(self._store, targets, locks, ledger, loop_settings, worker=worker) for worker in ("one", "two")
        ]
        self._recovery = Recovery(self._store, targets, self._runners[1], ledger, loop_settings, worker="two")
        await measured(self._store, Signal.ERROR_RATIO, before=0.001, after=0.001)
        self._waiting: Waiting

    @initialize(restarts=st.integers(1, 2), people=st.integers(1, 2), decided=st.sampled_from([True, True, False]))
    def a_proposal(self, restarts: int, people: int, decided: bool) -> None:
        names = list(self._recorder.instances.items())[:restarts]
        action = RestartAction(instances=tuple(InstanceRef(name=name, uid=uid) for name, uid in names))
        self._waiting = self._run(
            awaiting(
                self._store,
                action=action,
                target=REF,
                generation=str(self._recorder.generation),
                approvals_needed=people,
            )
        )
        self._plans.append(self._waiting.plan.id)
        if decided:
            for user in (SlackUserId("U0ALICE"), SlackUserId("U0BOB"))[:people]:
                self.click(user, 0)

    @rule(user=USERS, back=st.integers(0, 1))
    def click(self, user: SlackUserId, back: int) -> None:
        """On the newest plan, or on the button of an older card."""
        plan_id = self._plans[max(0, len(self._plans) - 1 - back)]
        result = self._run(self._decider.approve(plan_id, user))
        if result.outcome in (DecisionOutcome.ACCEPTED, DecisionOutcome.COUNTED):
            self._acknowledged.append(Acknowledged(int(plan_id), user, datetime.now(UTC)))

    @rule(user=USERS)
    def click_twice_at_once(self, user: SlackUserId) -> None:
        async def both() -> None:
            results = await asyncio.gather(*(self._decider.approve(self._plans[-1], user) for _ in range(2)))
            taken = [one for one in results if one.outcome in (DecisionOutcome.ACCEPTED, DecisionOutcome.COUNTED)]
            assert len(taken) <= 1
            if taken:
                self._acknowledged.append(Acknowledged(int(self._plans[-1]), user, datetime.now(UTC)))

        self._run(both())

    def reject(self, user: SlackUserId) -> None:
        self._run(self._decider.reject(self._plans[-1], user, "not now"))

    def expire(self) -> None:
        async def time_passes() -> None:
            await self._sql.execute(
                "UPDATE plans SET expires_at = clock_timestamp() - interval '1 s' WHERE state = 'proposed'"
            )
            await self._decider.expire()

        self._run(time_passes())

    @rule(user=USERS, which=st.integers(0, 2))
    def edit(self, user: SlackUserId, which: int) -> None:
        name = list(self._recorder.instances)[which]
        with suppress(PermanentError, TemporaryError):
            self._run(
                self._reviser.revise(self._waiting.incident.id, Wanted(action="restart", instances=(name,)), user)
            )
        newest = self._run(self._sql.fetchval("SELECT max(id) FROM plans"))
        if newest != self._plans[-1]:
            self._plans.append(PlanId(newest))

    def kill_switch(self) -> None:
        async def kill() -> None:
            async with self._store.begin() as uow:
                await uow.control.kill("all", "enough", SlackUserId("U0BOB"))
            if not self._switches or self._switches[-1].until is not None:
                self._switches.append(SwitchTime("all", datetime.now(UTC)))

        self._run(kill())

    def release_switch(self) -> None:
        async def resume() -> None:
            async with self._store.begin() as uow:
                await uow.control.resume("all", "go on", SlackUserId("U0BOB"), people_needed=1)
            if self._switches and self._switches[-1].until is None:
                self._switches[-1] = SwitchTime("all", self._switches[-1].since, datetime.now(UTC))

        self._run(resume())

    @rule(event=EVENTS, user=USERS)
    def interfere(self, event: str, user: SlackUserId) -> None:
        self._happens(event, user, 1)

    def _happens(self, event: str, user: SlackUserId, worker: int) -> None:
        match event:
            case "switch":
                self.kill_switch()
            case "release":
                self.release_switch()
            case "taken over":
                self.restart()
                self.work(worker)
            case "restart":
                self.restart()
            case "reject":
                self.reject(user)
            case "expire":
                self.expire()
            case "click":
                self.click(user, 0)
            case _:
                self.somebody_else_scales()

    @rule(worker=st.integers(0, 1))
    def work(self, worker: int) -> None:
        self._run(self._runners[worker].run_once())

    @rule(worker=st.integers(0, 1), moment=MOMENTS, nth=st.integers(1, 2))
    def crash(self, worker: int, moment: str, nth: int) -> None:
        """The worker dies when it gets there, and leaves its lease behind; where it does not get there it lives."""
        self._run(self._begin(worker, moment, nth, dies=True))

    @rule(
        worker=st.integers(0, 1),
        moment=MOMENTS,
        nth=st.integers(1, 3),
        meanwhile=st.lists(EVENTS, min_size=1, max_size=3),
    )
    def pause(self, worker: int, moment: str, nth: int, meanwhile: list[str]) -> None:
        """The worker is stopped there, things happen, and then it goes on and finds out what became of its work."""
        stopped = self._run(self._begin(worker, moment, nth, dies=False))
        if stopped is None:
            return
        for event in meanwhile:
            self._happens(event, SlackUserId("U0BOB"), 1 - worker)
        self._go_on.set()
        with suppress(TemporaryError):
            self._run(_result(stopped))

    @rule()
    def restart(self) -> None:
        """All leases have run out, and what was left behind is taken over."""
        self._run(self._take_over())

    def somebody_else_scales(self) -> None:
        if self._recorder.replicas < 5:
            self._recorder.foreign_change()
            self._foreign += 1

    @invariant()
    def nothing_is_broken(self) -> None:
        history = self._run(self._history())
        assert {name: INVARIANTS[name](history) for name in ALWAYS} == {name: [] for name in ALWAYS}

    def teardown(self) -> None:
        try:
            for _ in range(6):
                self.restart()
                self.work(0)
            assert violations(self._run(self._history(ended=True))) == {}
            CHANGES.append(len(self._recorder.effects))
        finally:
            self._run(self._close())
            self._loop.close()
            self._stack.close()

    async def _close(self) -> None:
        await self._sql.close()
        await self._pool.close()

    async def _begin(self, worker: int, moment: str, nth: int, *, dies: bool) -> asyncio.Task[bool] | None:
        reached = asyncio.Event()
        self._go_on = asyncio.Event()
        go_on = self._go_on

        async def stop() -> None:
            reached.set()
            await go_on.wait()

        self._target.stop_at(moment, nth, stop)
        working = asyncio.create_task(self._runners[worker].run_once())
        waiting = asyncio.create_task(reached.wait())
        await asyncio.wait((working, waiting), return_when=asyncio.FIRST_COMPLETED)
        waiting.cancel()
        self._target.forget()
        if working.done():
            with suppress(TemporaryError):
                working.result()
            return None
        if not dies:
            return working
        working.cancel()
        with suppress(asyncio.CancelledError):
            await working
        return None

    async def _take_over(self) -> None:
        await lapse(self._sql, "executions")
        await fall_due(self._sql)
        for _ in range(4):
            if not await self._recovery.run_once():
                return

    async def _history(self, *, ended: bool = False) -> History:
        told = {
            "requests": tuple(self._recorder.requests),
            "acknowledged": tuple(self._acknowledged),
            "switches": tuple(self._switches),
            "replicas_at_last": self._recorder.replicas,
            "foreign_changes": self._foreign,
            "max_actions_target_hour": LIMITS.max_actions_target_hour,
            "ended_at": datetime.now(UTC) if ended else None,
            "verdict_wanted": False,
            "switch_effective_s": 0.0,
        }
        return await read(self._sql, self._store, told, None)


async def _result(task: asyncio.Task[bool]) -> bool:
    return await task


def a_call_arrives_after_it_was_given_up(machine: Machine) -> None:
    machine.pause(0, "apply", 1, ["restart"])
    machine.work(1)


def a_switch_goes_on_right_before_the_intent(machine: Machine) -> None:
    machine.pause(0, "observe", 2, ["switch"])


def a_worker_dies_with_the_answer_in_its_hand(machine: Machine) -> None:
    machine.crash(0, "applied", 1)
    machine.restart()
    machine.work(1)


def a_stopped_worker_comes_back_when_all_is_done(machine: Machine) -> None:
    machine.pause(0, "apply", 1, ["taken over"])
    machine.work(1)


@pytest.fixture
def _no_pauses() -> Iterator[None]:
    with (
        patch("executors.ledger.RETRY_S", 0.0),
        patch("executors.runner.POLL_S", 0.02),
        patch("executors.canary.POLL_S", 0.02),
    ):
        yield


@pytest.mark.parametrize(
    "story",
    [
        a_call_arrives_after_it_was_given_up,
        a_switch_goes_on_right_before_the_intent,
        a_worker_dies_with_the_answer_in_its_hand,
        a_stopped_worker_comes_back_when_all_is_done,
    ],
)
@pytest.mark.usefixtures("_no_pauses")
def test_in_a_bad_order(postgres_factory: PostgresFactory, story: Callable[[Machine], None]) -> None:
    machine = Machine(postgres_factory)
    try:
        machine.a_proposal(restarts=1, people=1, decided=True)
        story(machine)
        machine.nothing_is_broken()
    finally:
        machine.teardown()


@pytest.mark.timeout(240)
@pytest.mark.usefixtures("_no_pauses")
def test_in_any_order(postgres_factory: PostgresFactory) -> None:
    machine = cast(type[RuleBasedStateMachine], partial(Machine, postgres_factory))
    CHANGES.clear()
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=EXAMPLES,
            stateful_step_count=STEPS,
            derandomize=True,
            deadline=None,
            database=None,
            phases=(Phase.generate,),  # a shorter failing example would take minutes to find
            suppress_health_check=list(HealthCheck),
        ),
    )
    assert sum(changes > 0 for changes in CHANGES) >= EXAMPLES / 4, "examples in which nothing is done prove nothing"
