"""The workloads of a recorded case, to be looked at; nothing in a case is ever acted on."""

from __future__ import annotations

from collections.abc import Mapping

from bot.eval_forms import TargetFile
from pipeline.domain.action import Action, Operation
from pipeline.domain.action_words import describe_action
from pipeline.domain.capability import Declaration, Offer, RightCheck
from pipeline.domain.catalogue import Service, WorkloadAddress
from pipeline.domain.errors import PermanentError, TemporaryError
from pipeline.domain.execution import Finding, Intent
from pipeline.domain.ids import ServiceName
from pipeline.domain.plan import InstanceState, TargetRef, TargetState
from pipeline.ports.targets import Target, Targets

_NEVER = "a recorded case is never acted on"


class RecordedTargets(Targets, Target):
    """Every platform of a case at once: ``services`` say where they run, ``targets`` what was seen there."""

    platform = "recorded"

    def __init__(self, services: Mapping[ServiceName, Service], targets: Mapping[ServiceName, TargetFile]) -> None:
        self._seen = {
            (entry.target.namespace, entry.target.name): targets[name]
            for name, entry in services.items()
            if entry.target is not None and name in targets
        }

    def platforms(self) -> tuple[str, ...]:
        return (self.platform,)

    def declares(self) -> Declaration:
        """What the demo's platform offers: a case is answered as it would be there."""
        offers = (Offer("restart", False, (), ""), Offer("scale", True, (), ""))
        return Declaration(offers, ("what was recorded",), ())

    async def check(self, ref: TargetRef) -> tuple[RightCheck, ...]:
        raise PermanentError(_NEVER)

    def for_platform(self, platform: str) -> Target:
        del platform
        return self

    async def resolve(self, address: WorkloadAddress) -> TargetRef:
        self._read(address.namespace, address.name)
        uid = f"recorded-{address.namespace}-{address.name}"
        return TargetRef(platform=address.platform, namespace=address.namespace, name=address.name, uid=uid)

    async def observe(self, ref: TargetRef) -> TargetState:
        seen = self._read(ref.namespace, ref.name)
        names = [(one.name, one.ready) for one in seen.instances]
        names = names or [(f"{ref.name}-{number + 1}", True) for number in range(seen.replicas)]
        instances = tuple(InstanceState(name, f"{ref.uid}/{name}", ready) for name, ready in names)
        return TargetState(ref, seen.generation, seen.replicas, instances, seen.replicas_1h_ago)

    async def apply(self, ref: TargetRef, operation: Operation, intent: Intent) -> str:
        raise PermanentError(_NEVER)

    async def calls(self, ref: TargetRef, operation: Operation, generation: str) -> tuple[str, ...]:
        raise PermanentError(_NEVER)

    async def settled(self, ref: TargetRef, operation: Operation) -> bool:
        raise PermanentError(_NEVER)

    async def find(self, ref: TargetRef, operation: Operation, intent: Intent) -> Finding:
        raise PermanentError(_NEVER)

    def command(self, ref: TargetRef, action: Action) -> str:
        return f"{describe_action(action)} ({ref.describe()})"

    async def close(self) -> None:
        """Nothing is held open."""

    def _read(self, namespace: str, name: str) -> TargetFile:
        seen = self._seen.get((namespace, name))
        if seen is None:
            raise PermanentError(f"target.json shows no {namespace}/{name}")
        if seen.unreadable:
            raise TemporaryError(seen.unreadable)
        return seen
