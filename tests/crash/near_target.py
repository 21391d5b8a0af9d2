"""The recorder as a target one call away, which can be made to stand still in the middle of a call."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import UTC, datetime

from bot.demo.world.messages import RestartRequest, ScaleRequest
from pipeline.domain.action import Action, Operation, RestartInstance, ScaleTo
from pipeline.domain.capability import Declaration, RightCheck
from pipeline.domain.catalogue import WorkloadAddress
from pipeline.domain.errors import PermanentError, PreconditionFailed
from pipeline.domain.execution import Finding, Intent
from pipeline.domain.plan import InstanceState, TargetRef, TargetState
from pipeline.ports.targets import Target
from tests.builders import BOTH
from tests.crash.recorder import NAMESPACE, SERVICE, SERVICE_UID, Recorder

REF = TargetRef(platform="local_process", namespace=NAMESPACE, name=SERVICE, uid=SERVICE_UID)


class NearTarget(Target):
    """The recorder without the network: the same checks and the same log, one call away."""

    def __init__(self, recorder: Recorder) -> None:
        self._recorder = recorder
        self._moment = ""
        self._left = 0
        self._stop: Callable[[], Awaitable[None]] | None = None

    def stop_at(self, moment: str, nth: int, stop: Callable[[], Awaitable[None]]) -> None:
        """``stop`` is called once, at the nth passing from now."""
        self._moment, self._left, self._stop = moment, nth, stop

    def forget(self) -> None:
        self._stop = None

    async def _pass(self, moment: str) -> None:
        if self._stop is None or moment != self._moment:
            return
        self._left -= 1
        if self._left == 0:
            stop, self._stop = self._stop, None
            await stop()

    @property
    def platform(self) -> str:
        return "local_process"

    def declares(self) -> Declaration:
        return BOTH

    async def check(self, ref: TargetRef) -> tuple[RightCheck, ...]:
        return ()

    async def resolve(self, address: WorkloadAddress) -> TargetRef:
        return REF

    async def observe(self, ref: TargetRef) -> TargetState:
        await self._pass("observe")
        instances = tuple(InstanceState(name, uid, True) for name, uid in self._recorder.instances.items())
        generation = str(self._recorder.generation)
        return TargetState(ref=ref, generation=generation, replicas=len(instances), instances=instances)

    async def apply(self, ref: TargetRef, operation: Operation, intent: Intent) -> str:
        await self._pass("apply")
        if intent.generation != str(self._recorder.generation):
            raise PreconditionFailed(f"at generation {self._recorder.generation}, not {intent.generation}")
        origin = {"execution_id": str(intent.execution_id), "step": intent.step, "fence": intent.fence}
        match operation:
            case RestartInstance(instance=one):
                wish: RestartRequest | ScaleRequest = RestartRequest.model_validate(
                    {"instance": one.name, "if_instance_uid": one.uid, **origin}
                )
            case ScaleTo(replicas=replicas):
                wish = ScaleRequest.model_validate(
                    {"replicas": replicas, "if_generation": self._recorder.generation, **origin}
                )
            case _:
                raise PermanentError("not done here")
        answer = self._recorder.carry_out(datetime.now(UTC), wish)
        if answer.status != 202:
            raise PreconditionFailed("refused")
        await self._pass("applied")
        return "done"

    async def calls(self, ref: TargetRef, operation: Operation, generation: str) -> tuple[str, ...]:
        return ("nothing",)

    async def settled(self, ref: TargetRef, operation: Operation) -> bool:
        return True

    async def find(self, ref: TargetRef, operation: Operation, intent: Intent) -> Finding:
        wanted = (str(intent.execution_id), intent.step)
        there = any((one.execution_id, one.step) == wanted for one in self._recorder.effects)
        return Finding.APPLIED if there else Finding.NOT_APPLIED

    def command(self, ref: TargetRef, action: Action) -> str:
        return "true"

    async def close(self) -> None: ...
