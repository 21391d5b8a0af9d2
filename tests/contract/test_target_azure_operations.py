"""A long operation of Azure whose state cannot be asked for: that proves nothing about the operation itself."""

from __future__ import annotations

import pytest

from pipeline.domain.action import Operation, RollBackTo, ScaleTo
from pipeline.domain.errors import PermanentError
from pipeline.domain.execution import Finding
from tests.arm_server import ArmServer
from tests.contract.targets.places import intent_for, until
from tests.contract.targets.stand_azure import AzurePlace
from tests.faults import Answer, Proxy

_READ = frozenset({"GET"})


@pytest.mark.parametrize("status", [401, 405, 410])
@pytest.mark.parametrize("kind", ["swap", "scale"])
async def test_an_operation_that_cannot_be_asked_for_has_not_failed(kind: str, status: int) -> None:
    async with ArmServer() as server, Proxy(server.url) as proxy:
        place = AzurePlace(server, proxy)
        place.site()
        target, ref, state = await place.seen()
        operation: Operation = ScaleTo(replicas=3) if kind == "scale" else RollBackTo(revision=state.revisions[0].name)
        intent = intent_for(state)
        await target.apply(ref, operation, intent)
        proxy.strike(Answer(status, b'{"error": {"code": "NotNow", "message": "It cannot be asked for."}}'), _READ)
        with pytest.raises(PermanentError, match="It cannot be asked for"):
            await target.find(ref, operation, intent)
        assert await target.find(ref, operation, intent) is Finding.APPLIED
        await until(lambda: target.settled(ref, operation))
        await place.close()
