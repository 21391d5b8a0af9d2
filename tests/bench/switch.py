"""The kill switch: a runner restarts replica after replica, somebody stops it, and the target is watched."""

from __future__ import annotations

import asyncio
import time
from contextlib import AsyncExitStack

from bot.embedded.redis import EmbeddedRedis
from executors.guardrails.facts import GuardrailLimits
from executors.ledger import Ledger
from executors.runner import Runner
from executors.targets.registry import Registry
from pipeline.adapters.postgres.unit_of_work import PostgresStore
from pipeline.adapters.redis.locks import RedisLocks
from pipeline.domain.action import Operation, RestartInstance
from pipeline.domain.canary import CanarySettings
from pipeline.domain.execution import Intent
from pipeline.domain.ids import SlackUserId
from pipeline.domain.plan import InstanceState, TargetRef, TargetState
from pipeline.domain.telemetry import Signal
from pipeline.ports.clock import SystemClock
from pipeline.stages.settings import LoopSettings
from tests.bench.decisions import READ_S, Answering, database
from tests.builders import restart
from tests.databases import open_directory
from tests.executing import measured
from tests.stored import approved, case_of

STEPS, TRIALS, WATCH_S, WANTED_S = 40, 5, 2.0, 1.0
SETTINGS = LoopSettings(
    canary=CanarySettings(watch_s=0.1),
    batch_share=0.05,
    limits=GuardrailLimits(cooldown_s=1e-3, rest_s=1e-3, max_actions_target_hour=99, max_actions_hour=99),
)


class Large(Answering):
    """The same with ``STEPS`` replicas; one that is restarted comes back with another uid."""

    def __init__(self) -> None:
        super().__init__()
        self._uids = {f"checkout-{one}": f"uid-checkout-{one}" for one in range(1, STEPS + 1)}

    async def observe(self, ref: TargetRef) -> TargetState:
        await asyncio.sleep(READ_S)
        return TargetState(ref, "12", STEPS, tuple(InstanceState(name, uid, True) for name, uid in self._uids.items()))

    async def apply(self, ref: TargetRef, operation: Operation, intent: Intent) -> str:
        said = await super().apply(ref, operation, intent)
        if isinstance(operation, RestartInstance):
            self._uids[operation.instance.name] += "-again"
        return said


def run() -> None:
    """Prints the time from the command's return to the last call at the target, and how many came after a second."""
    asyncio.run(_run())


async def _run() -> None:
    async with AsyncExitStack() as stack:
        redis = EmbeddedRedis(stack.enter_context(open_directory()))
        locks = RedisLocks(await redis.start())
        stack.push_async_callback(redis.stop)
        stack.push_async_callback(locks.close)
        calls, took_s, detail = await _trial(locks, stop_after=None)
        print(f"   without the switch: {calls} of {STEPS} calls in {took_s:.1f} s {detail}")
        lasts, done = [], []
        for trial in range(TRIALS):
            made, last_s, _ = await _trial(locks, stop_after=2 + 3 * trial)
            lasts.append(last_s)
            done.append(made)
    late = sum(last > WANTED_S for last in lasts)
    print(
        f"   with it, {TRIALS} times: the last call came {max(0.0, max(lasts)):.3f} s at most after the command was"
        f" answered, {late} times later than {WANTED_S:.0f} s (wanted: 0); {min(done)} to {max(done)} of {STEPS} calls"
        f" were made, {max(done) / calls:.0%} at most; watched for {WATCH_S:.0f} s more"
    )


async def _trial(locks: RedisLocks, *, stop_after: int | None) -> tuple[int, float, str]:
    """Calls made, and seconds: from the command's answer to the last call, or without a command of the whole action."""
    async with database() as (_, store):
        for signal, value in ((Signal.ERROR_RATIO, 0.001), (Signal.LATENCY_P99, 0.2)):
            await measured(store, signal, before=value, after=value)
        target = Large()
        await approved(store, restart(*(f"checkout-{one}" for one in range(1, STEPS + 1))))
        targets = Registry({"kubernetes": target})
        runner = Runner(store, targets, locks, Ledger(store, SystemClock()), SETTINGS, worker="bench")
        began = time.monotonic()
        working = asyncio.create_task(runner.run_once())
        if stop_after is None:
            await working
            return len(target.applied), time.monotonic() - began, await _outcome(store)
        while len(target.applied) < stop_after and not working.done():
            await asyncio.sleep(0.002)
        async with store.begin() as uow:
            await uow.control.kill("all", "bench", SlackUserId("U0ALICE"))
        answered = time.monotonic()
        await working
        while await runner.run_once():
            pass
        await asyncio.sleep(WATCH_S)
        return len(target.applied), target.applied[-1] - answered, await _outcome(store)


async def _outcome(store: PostgresStore) -> str:
    async with store.begin() as uow:
        (incident, *_) = await uow.incidents.recent(1)
    case = await case_of(store, incident.id)
    assert case.execution is not None
    return f"({case.execution.state}{': ' + case.execution.detail if case.execution.detail else ''})"
