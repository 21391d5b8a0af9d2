"""The first replica of several: watched for a while before the others follow."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping, Sequence
from datetime import datetime, timedelta

from executors.ledger import Ledger
from pipeline.domain.action import RestartInstance
from pipeline.domain.canary import COMPARED, CanaryVerdict, Judgement, Observed, judge
from pipeline.domain.errors import PermanentError, TemporaryError
from pipeline.domain.execution import Execution, SeenInstance, Step
from pipeline.domain.ids import ServiceName
from pipeline.domain.plan import TargetState
from pipeline.domain.telemetry import Sample, SeriesKey, Signal
from pipeline.ports.executions import NOT_OURS
from pipeline.ports.store import Store
from pipeline.ports.targets import Target
from pipeline.stages.settings import LoopSettings

POLL_S = 0.5
"""How often a watch asks whether it may go on: a kill switch has to work within a second."""
BEFORE_S = 300.0
"""How far back "before" goes."""

Window = Mapping[SeriesKey, Sequence[Sample]]


class CanaryWatch:
    """Judges the first step of an execution. Where it stands is in the database: another worker can go on with it."""

    def __init__(self, store: Store, ledger: Ledger, settings: LoopSettings) -> None:
        self._store = store
        self._ledger = ledger
        self._settings = settings

    async def passes(self, execution: Execution, service: ServiceName, target: Target) -> bool:
        """Whether the rest may follow; where it may not, the execution has been ended with the reason."""
        step = execution.steps[0]
        canary, begins = execution.canary, execution.watching_since is None
        while True:
            refusal = await self._refusal(execution)
            if refusal in NOT_OURS:
                return False
            if refusal:
                await self._ledger.failed(execution, refusal, blocked=True)
                return False
            state = await self._read(execution, target)
            if state is not None and not canary:
                canary = came_of(step, state)
            lasted_s = await self._ledger.watching(execution, canary, begins=begins)
            if lasted_s is None:
                return False
            begins = False
            judgement = await self._judge(execution, service, step, canary, state, lasted_s)
            if judgement is not None:
                return await self._ledger.canary_judged(execution, judgement)
            await asyncio.sleep(min(POLL_S, max(self._settings.canary.watch_s - lasted_s, 0.05)))

    async def _refusal(self, execution: Execution) -> str:
        async with self._store.begin() as uow:
            return await uow.executions.may_call(execution.id, execution.fence)

    async def _read(self, execution: Execution, target: Target) -> TargetState | None:
        try:
            return await target.observe(execution.target)
        except (TemporaryError, PermanentError):
            return None

    async def _judge(
        self,
        execution: Execution,
        service: ServiceName,
        step: Step,
        canary: tuple[SeenInstance, ...],
        state: TargetState | None,
        lasted_s: float,
    ) -> Judgement | None:
        """None while it is too early to say."""
        watch_s = self._settings.canary.watch_s
        if lasted_s < watch_s:
            return None
        last_chance = lasted_s >= 2 * watch_s
        if state is None:
            return Judgement(CanaryVerdict.CANNOT_TELL, "the target cannot be read") if last_chance else None
        alive = {one.uid: one.ready for one in state.instances}
        if not canary or not all(alive.get(one.uid) for one in canary):
            names = ", ".join(one.name for one in canary) or "the first replica"
            return Judgement(CanaryVerdict.WORSE, f"{names} is not ready any more")
        async with self._store.begin() as uow:
            current = await uow.executions.get(execution.id)
            began = step.dispatched_at
            if current is None or current.watching_since is None or began is None:
                return None
            window = await uow.telemetry.service_window(service, began - timedelta(seconds=BEFORE_S))
        compared = _compared(window, step, canary, state, began, current.watching_since)
        judgement = judge(*compared, self._settings.canary)
        late = judgement.verdict is CanaryVerdict.CANNOT_TELL and not last_chance
        return None if late else judgement


def came_of(step: Step, state: TargetState) -> tuple[SeenInstance, ...]:
    """The ready replicas that were not there before ``step``: those that came of it."""
    if step.before is None:
        return ()
    known = {one.uid for one in step.before.instances}
    fresh = [one for one in state.instances if one.uid not in known and one.ready]
    return tuple(SeenInstance(name=one.name, uid=one.uid) for one in fresh)


def _compared(
    window: Window,
    step: Step,
    canary: Sequence[SeenInstance],
    state: TargetState,
    began: datetime,
    since: datetime,
) -> tuple[Observed, Observed, Observed]:
    """Canary, peers and the service as a whole. The canary's "before" is that of the replica it came of."""
    own = {one.name for one in canary}
    former = {step.operation.instance.name} if isinstance(step.operation, RestartInstance) else own
    uids = {one.uid for one in canary}
    peers = {one.name for one in state.instances if one.uid not in uids and one.ready}
    return (
        Observed(_values(window, former, None, began), _values(window, own, since, None)),
        Observed(_values(window, peers, None, began), _values(window, peers, since, None)),
        Observed(_values(window, {""}, None, began), _values(window, {""}, since, None)),
    )


def _values(
    window: Window, instances: Collection[str], after: datetime | None, until: datetime | None
) -> dict[Signal, list[float]]:
    return {
        signal: [
            sample.value
            for key, samples in window.items()
            if key.signal is signal and key.instance in instances
            for sample in samples
            if (after is None or sample.at > after) and (until is None or sample.at <= until)
        ]
        for signal in COMPARED
    }
