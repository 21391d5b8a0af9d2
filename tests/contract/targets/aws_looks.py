"""A look at an AWS target by the tests of one."""

from __future__ import annotations

from pipeline.domain.action import Operation
from pipeline.domain.execution import Finding, Intent
from pipeline.domain.plan import TargetRef, TargetState
from tests.contract.targets.places import as_soon_as_readable
from tests.contract.targets.stand_asg import AsgStand
from tests.contract.targets.stand_lambda import LambdaStand

AnyStand = AsgStand | LambdaStand
_SHORT_S = 0.4
"""A time-out after whose double nothing is under way any more."""


async def seen(stand: AnyStand) -> tuple[TargetRef, TargetState]:
    ref = await stand.target.resolve(stand.address)
    return ref, await stand.target.observe(ref)


async def found(stand: AnyStand, ref: TargetRef, operation: Operation, intent: Intent) -> Finding:
    """What a bot finds that may be sure so soon that nothing is under way any more."""
    target = stand.connect(timeout_s=_SHORT_S)
    return await as_soon_as_readable(lambda: target.find(ref, operation, intent))
