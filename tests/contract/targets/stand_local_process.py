"""The demo world's supervisor: restart and scale."""

from __future__ import annotations

import atexit
import tempfile
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from functools import cache, partial
from pathlib import Path
from typing import Literal

from executors.targets.local_process import LocalProcessTarget
from pipeline.domain.action import InstanceRef, RestartAction, ScaleAction, TargetAction
from pipeline.domain.plan import TargetRef, TargetState
from pipeline.ports.targets import Target
from tests.contract.targets.places import BRIEF_S, LocalPlace, local_place
from tests.contract.targets.stand import Opens, Stand
from tests.demo_worlds import World, start_world
from tests.faults import Answer, Fault


class LocalStand(Stand):
    def __init__(self, place: LocalPlace, kind: Literal["restart", "scale"]) -> None:
        self._place = place
        self._kind = kind
        self.address = place.address
        self.target: Target = place.target

    async def action(self, state: TargetState) -> TargetAction:
        if self._kind == "scale":
            return ScaleAction(from_replicas=state.replicas, to_replicas=state.replicas + 1)
        first = state.instances[0]
        return RestartAction(instances=(InstanceRef(name=first.name, uid=first.uid),))

    async def facts(self) -> object:
        state = await self._direct()
        return state.replicas, tuple(sorted(one.uid for one in state.instances))

    async def change_by_another(self) -> None:
        state = await self._direct()
        await self._place.scale_by_another(state.ref, state.replicas + 2)

    async def former(self, ref: TargetRef) -> TargetRef:
        return ref.model_copy(update={"uid": "of-a-former-one"})

    async def deny(self) -> None:
        self._place.proxy.strike(Answer(403, b'{"reason": "not allowed"}'))

    async def throttle(self) -> None:
        self._place.proxy.strike(Answer(429, b'{"reason": "slow down"}'))

    async def lose_answer(self) -> None:
        self._place.proxy.strike(Fault.CUT)

    def another(self) -> Target:
        return self._place.connect(timeout_s=BRIEF_S)

    def writes(self) -> int:
        return len(self._place.proxy.writes)

    async def _direct(self) -> TargetState:
        direct = LocalProcessTarget(self._place.world_url, timeout_s=20.0)
        try:
            return await direct.observe(await direct.resolve(self.address))
        finally:
            await direct.close()


@asynccontextmanager
async def _opened(kind: Literal["restart", "scale"]) -> AsyncIterator[Stand]:
    async with local_place(_world_url()) as place:
        yield LocalStand(place, kind)


@cache
def _world_url() -> str:
    """The demo world, started once, for its processes take seconds; it ends with the thread that started it."""
    folder = tempfile.TemporaryDirectory(prefix="world-")
    world = start_world(Path(folder.name))
    atexit.register(_end, world, folder)
    return world.url


def _end(world: World, folder: tempfile.TemporaryDirectory[str]) -> None:
    world.process.terminate()
    world.process.wait(timeout=60)
    folder.cleanup()


STANDS: Mapping[str, Opens] = {
    "local_process: restart": partial(_opened, "restart"),
    "local_process: scale": partial(_opened, "scale"),
}
