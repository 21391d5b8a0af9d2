"""Lambda functions: concurrency, and the version of an alias."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from functools import partial
from typing import Literal

from executors.targets.aws_lambda import LambdaTarget
from pipeline.domain.action import ConcurrencyAction, RollBackAction, TargetAction
from pipeline.domain.catalogue import WorkloadAddress
from pipeline.domain.plan import TargetRef, TargetState
from pipeline.ports.targets import Target
from tests.asg_server import REGION, as_the_bot
from tests.contract.targets.places import BRIEF_S
from tests.contract.targets.stand import Opens, Stand
from tests.lambda_server import Function, LambdaServer, Provisioned

Kind = Literal["concurrency", "roll_back"]


class LambdaStand(Stand):
    address = WorkloadAddress(platform="lambda", namespace=REGION, name="checkout")

    def __init__(self, server: LambdaServer, kind: Kind) -> None:
        self.server = server
        self._kind = kind
        self._targets: list[Target] = []
        self.target: Target = self.connect()

    def connect(self, *, timeout_s: float = 20.0) -> Target:
        made = LambdaTarget(functions=["checkout", "nowhere"], endpoint_url=self.server.url, timeout_s=timeout_s)
        self._targets.append(made)
        return made

    async def close(self) -> None:
        for target in self._targets:
            await target.close()

    @property
    def function(self) -> Function:
        return self.server.functions[self.address.name]

    async def action(self, state: TargetState) -> TargetAction:
        if self._kind == "roll_back":
            return RollBackAction(from_revision=state.rollout, to_revision=state.revisions[0].name)
        now = state.concurrency
        assert now is not None
        assert now.provisioned is not None
        then = now.model_copy(update={"provisioned": now.provisioned + 3})
        return ConcurrencyAction(from_concurrency=now, to_concurrency=then)

    async def facts(self) -> object:
        function = self.function
        warm = {name: config.requested for name, config in function.provisioned.items()}
        return function.versions, function.aliases["live"].version, function.reserved, warm

    async def change_by_another(self) -> None:
        if self._kind == "roll_back":
            self.function.aliases["live"].change(version="1")
        else:
            self.function.provisioned["live"] = Provisioned(20)

    async def former(self, ref: TargetRef) -> TargetRef:
        self.server.add_function(self.address.name, published="2026-11-20")
        return ref

    async def deny(self) -> None:
        self.server.denied = True

    async def throttle(self) -> None:
        self.server.fault = "throttle"

    async def lose_answer(self) -> None:
        self.server.fault = "cut"

    def another(self) -> Target:
        return self.connect(timeout_s=BRIEF_S)

    def writes(self) -> int:
        return len(self.server.writes)


@asynccontextmanager
async def lambda_stand(kind: Kind) -> AsyncIterator[LambdaStand]:
    with as_the_bot():
        async with LambdaServer() as server:
            function = server.add_function(LambdaStand.address.name)
            function.reserved = 50
            function.provisioned["live"] = Provisioned(5, "READY")
            stand = LambdaStand(server, kind)
            try:
                yield stand
            finally:
                await stand.close()


STANDS: Mapping[str, Opens] = {
    "lambda: concurrency": partial(lambda_stand, "concurrency"),
    "lambda: roll_back": partial(lambda_stand, "roll_back"),
}
